"""Which files a model folder may have: by where they lead, by name and by their first bytes."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.request import MODEL_ID_PATTERN
from rockiln.registry.gguf_file import SUFFIX, read_gguf_file
from rockiln.registry.safetensors_file import read_weights_file_of

_ACCEPTED_SUFFIXES = {".safetensors", ".gguf", ".json", ".txt", ".md", ".model"}
# Inert company of a model card.
_ACCEPTED_SUFFIXES |= {".png", ".jpg", ".jpeg", ".webp"}
_ACCEPTED_NAMES = {"LICENSE", "LICENCE", "NOTICE", ".gitattributes", ".gitignore"}
# Never run: families write the chat themselves (engine/families/qwen_text.py).
_ACCEPTED_NAMES |= {"chat_template.jinja"}
PICKLE_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib"}
_CODE_SUFFIXES = {".py", ".pyc", ".so", ".sh"}
# First bytes of what can run or unpack, whatever the name says: zip (torch's own format), pickle
# protocols 2 to 5, ELF, a script, gzip, tar's mark stands further on.
_ACTIVE_CONTENT = (
    b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05",
    b"\x7fELF", b"#!", b"\x1f\x8b",
)  # fmt: skip
_ENTRIES_MAX = 10_000


def check_model_id(model_id: str) -> None:
    """Raises BrokenModelError for a name that is no model id."""
    if re.fullmatch(MODEL_ID_PATTERN, model_id) is None:
        raise BrokenModelError(f"{model_id!r} is no model id; rename it to {MODEL_ID_PATTERN}")


def check_files(folder: Path, root: Path) -> None:
    """Refuses pickles, code, and anything that leads out of ``root``.

    Raises:
        BrokenModelError: the first such file, and why.
    """
    entries = list(islice(folder.rglob("*"), _ENTRIES_MAX + 1))
    if len(entries) > _ENTRIES_MAX:
        raise BrokenModelError(f"{folder.name} has over {_ENTRIES_MAX} files")
    for path in (folder, *sorted(entries)):
        name = path.relative_to(root)
        _check_place(path, name, root.resolve())
        if not path.is_dir():
            _check_name(path, name)
            _check_content(path, name)


def check_file(path: Path, root: Path) -> None:
    """Likewise for one file that stands by itself."""
    name = path.relative_to(root)
    _check_place(path, name, root.resolve())
    _check_name(path, name)
    _check_content(path, name)


def _check_place(path: Path, name: Path, real_root: Path) -> None:
    try:
        real = path.resolve()
    except RuntimeError as error:  # a link to itself
        raise BrokenModelError(f"{name} leads nowhere") from error
    if not real.is_relative_to(real_root):
        raise BrokenModelError(f"{name} leads out of the models folder; links are not followed")


def _check_name(path: Path, name: Path) -> None:
    if not path.is_file():
        raise BrokenModelError(f"{name} is not a plain file")
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise BrokenModelError(
            f"{name} can run code when it is loaded; only .safetensors weights are taken"
        )
    if suffix in _CODE_SUFFIXES:
        raise BrokenModelError(f"{name} is code; a model folder may not bring any")
    if suffix not in _ACCEPTED_SUFFIXES and path.name not in _ACCEPTED_NAMES:
        raise BrokenModelError(f"{name} is not a file that a model is made of")


def _check_content(path: Path, name: Path) -> None:
    if path.suffix.lower() == ".safetensors":  # its first bytes may well be those of a pickle
        read_weights_file_of(str(name.parent), path)
        return
    if path.suffix.lower() == SUFFIX:
        read_gguf_file(path)
        return
    with path.open("rb") as file:
        if file.read(8).startswith(_ACTIVE_CONTENT):
            raise BrokenModelError(f"{name} is an archive or a program under another name")
