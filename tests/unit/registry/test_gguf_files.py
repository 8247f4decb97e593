"""``.gguf`` transformers: which model they become, and files that lie.

The tricks of ``test_hostile_files`` on this format, and what its own header can claim.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rockiln.engine.families.flux import FAMILY
from rockiln.registry import load_catalogue
from rockiln.registry.revision import revision, signature_of
from support.hostile_file import assert_load_runs_nothing, assert_refused
from support.tiny_flow import make_tiny_flux, make_tiny_sd3
from support.transformer_file import WEIGHTS, write_gguf
from unit.registry.test_hostile_models import link, pickled, script, zipped

Spoil = Callable[[Path, Path], object]
NAME = "hostile.gguf"
FIRST = b"time_in.in_layer.weight"
# Where the counts of tensors and keys stand, and the first tensor's entry after its name.
TENSORS, KEYS = 8, 16


def raw(change: Callable[[bytearray], object]) -> Spoil:
    def spoil(root: Path, _canary: Path) -> None:
        content = bytearray((root / NAME).read_bytes())
        change(content)
        (root / NAME).write_bytes(content)

    return spoil


def shortened(to: Callable[[int], int]) -> Spoil:
    return raw(lambda content: content.__delitem__(slice(to(len(content)), None)))


def swapped(old: bytes, new: bytes) -> Spoil:
    return raw(lambda content: content.__setitem__(slice(None), content.replace(old, new)))


def put(form: str, place: int, number: int) -> Spoil:
    return raw(lambda content: struct.pack_into(form, content, place, number))


def entry(form: str, place: int, number: int) -> Spoil:
    """Of the first tensor: 0 how many dimensions, 4 and 12 them, 20 its type, 24 its offset."""

    def change(content: bytearray) -> None:
        start = content.index(FIRST) + len(FIRST)
        struct.pack_into(form, content, start + place, number)

    return raw(change)


def key(name: bytes, kind: int, value: bytes) -> Spoil:
    """A key more, before all others."""

    def change(content: bytearray) -> None:
        (keys,) = struct.unpack_from("<Q", content, KEYS)
        struct.pack_into("<Q", content, KEYS, keys + 1)
        text = struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
        content[KEYS + 8 : KEYS + 8] = text

    return raw(change)


def renamed(new: str | None) -> Spoil:
    first = FIRST.decode()
    return lambda root, _: write_gguf(
        root / "lender", root / NAME, change=lambda name: new if name == first else name
    )


def instead(make: Callable[[Path], bytes]) -> Spoil:
    return lambda root, canary: (root / NAME).write_bytes(make(canary))


def pipe(root: Path, _canary: Path) -> None:
    (root / NAME).unlink()
    os.mkfifo(root / NAME)


CORPUS: dict[str, tuple[Spoil, str]] = {
    **{
        f"pickle-{protocol}": (instead(partial(pickled, protocol=protocol)), "begin as one")
        for protocol in (0, 2, 5)
    },
    "zip": (instead(zipped), "begin as one"),
    "script": (instead(script), "begin as one"),
    "empty": (instead(lambda _: b""), "begin as one"),
    "magic-alone": (instead(lambda _: b"GGUF"), "truncated"),
    "half": (shortened(lambda length: length // 2), "truncated"),
    "short": (shortened(lambda length: length - 40), "truncated"),
    "tail": (raw(lambda content: content.extend(b"PK\x03\x04" + bytes(64))), "padded"),
    "version-1": (put("<I", 4, 1), "version 1"),
    "big-endian": (put(">I", 4, 3), "version"),
    "many-tensors": (put("<Q", TENSORS, 1 << 60), "too many"),
    "one-tensor-more": (put("<Q", TENSORS, 90), ""),
    "no-tensors": (put("<Q", TENSORS, 0), "there is none"),
    "many-keys": (put("<Q", KEYS, 1 << 60), "too many"),
    "a-key-more": (put("<Q", KEYS, 900), ""),
    "giant-key": (key(b"x" * 300, 4, bytes(4)), "a name of 300 bytes"),
    "giant-text": (key(b"x", 8, struct.pack("<Q", 1 << 62)), "truncated"),
    "giant-list": (key(b"x", 9, struct.pack("<IQ", 10, 1 << 62)), "truncated"),
    "endless-texts": (key(b"x", 9, struct.pack("<IQ", 8, 1 << 62)), "truncated"),
    "list-of-lists": (key(b"x", 9, struct.pack("<IQ", 9, 1 << 62)), "a list of values of type 9"),
    "value-of-no-type": (key(b"x", 99, b""), "a value of type 99"),
    "alignment-0": (key(b"general.alignment", 4, struct.pack("<I", 0)), "an alignment of 0"),
    "alignment-odd": (key(b"general.alignment", 4, struct.pack("<I", 33)), "an alignment of 33"),
    "alignment-other": (key(b"general.alignment", 4, struct.pack("<I", 4096)), "hole"),
    "no-dimensions": (entry("<I", 0, 0), "0 dimensions"),
    "many-dimensions": (entry("<I", 0, 1 << 31), "dimensions"),
    "dimension-of-none": (entry("<Q", 4, 0), "no blocks"),
    "giant-dimension": (entry("<Q", 12, 1 << 62), "hole"),
    "type-unknown": (entry("<I", 20, 39), "is of type 39"),
    "type-iq1": (entry("<I", 20, 19), "is of type 19"),
    "type-of-integers": (entry("<I", 20, 26), "is of type 26"),
    "type-smaller": (entry("<I", 20, 2), "hole"),
    "offset-outside": (entry("<Q", 24, 1 << 60), "hole"),
    "offset-negative": (entry("<q", 24, -32), "hole"),
    "other-shape": (entry("<Q", 4, 128), "hole"),
    "renamed": (renamed("x.weight"), "time_in.in_layer.weight is missing (and 1 more)"),
    "lacking": (renamed(None), "time_in.in_layer.weight is missing"),
    "name-as-path": (renamed("../../../etc/x"), "is missing"),
    "twice": (swapped(b"img_in.weight", b"txt_in.weight"), "stands twice"),
    "link-out": (link(NAME, "/etc/passwd"), "leads out"),
    "link-up": (link(NAME, "../outside.gguf"), "leads out"),
    "dangling": (link(NAME, "nowhere"), "not a plain file"),
    "pipe": (pipe, "not a plain file"),
    "manifest-link-out": (link("hostile.rockiln.json", "/etc/passwd"), "leads out"),
    "manifest-as-pickle": (
        lambda root, canary: (root / "hostile.rockiln.json").write_bytes(pickled(canary)),
        "hostile.rockiln.json",
    ),
    "no-lender": (lambda root, _: shutil.rmtree(root / "lender"), "needs a model folder"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("sound")
    make_tiny_flux(root / "lender")
    write_gguf(root / "lender", root / NAME)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "models")
    shutil.copy(sound / NAME, tmp_path / "outside.gguf")
    return tmp_path / "models"


def test_a_file_beside_its_folder_is_a_model(sound: Path, tmp_path: Path) -> None:
    catalogue = load_catalogue([sound])
    assert (catalogue.broken, sorted(catalogue.models)) == ({}, ["hostile", "lender"])
    found, lender = catalogue.models["hostile"], catalogue.models["lender"]
    assert found.configs == lender.path
    assert found.defaults == lender.defaults
    assert found.component_parameters == lender.component_parameters
    assert found.quantisation == {"transformer": "q8_0"}
    assert found.loaded_bytes(2)["transformer"] < lender.loaded_bytes(2)["transformer"]
    folders = (Path(found.path), tmp_path, Path(found.configs))
    assert revision(*folders) != revision(Path(lender.path), tmp_path)


def test_a_folder_may_have_its_transformer_so(root: Path) -> None:
    place = root / "lender" / "transformer"
    (root / NAME).rename(place / "flux-q8_0.gguf")
    (place / WEIGHTS).unlink()
    profile = load_catalogue([root]).models["lender"]
    assert profile.quantisation == {"transformer": "q8_0"}
    (place / "other.gguf").write_bytes((place / "flux-q8_0.gguf").read_bytes())
    assert "which one is meant" in load_catalogue([root]).broken["lender"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("text_encoder", "for transformers and for T5 only"),
        ("text_encoder_2", "is no t5 transformer of this shape: token_embd.weight is missing"),
        ("vae", "for transformers and for T5 only"),
    ],
)
def test_another_part_is_not_read_from_it(root: Path, part: str, words: str) -> None:
    place = root / "lender" / part
    (root / NAME).rename(place / "part.gguf")
    next(place.glob("*.safetensors")).unlink()
    assert words in load_catalogue([root]).broken["lender"]


def test_a_file_of_another_family_needs_its_own_folder(root: Path) -> None:
    make_tiny_sd3(root.parent / "other")
    write_gguf(root.parent / "other", root / "sd3.gguf")
    reason = load_catalogue([root]).broken["sd3"]
    assert "a Stable Diffusion 3 transformer" in reason
    assert "needs a model folder of its shape" in reason


@pytest.mark.parametrize(
    ("quantisation", "words"),
    [
        ({"vae": "q8_0"}, "no such part can be rounded"),
        ({"unet": "q8_0"}, "these can: text_encoder"),
        ({"transformer": "q4_0"}, "quantisation.transformer"),
        ({"transformer": True}, "quantisation.transformer"),
        (["transformer"], "quantisation"),
    ],
)
def test_a_manifest_that_wants_what_is_not_there_is_told(
    root: Path, quantisation: object, words: str
) -> None:
    path = root / "lender" / "rockiln.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantisation": quantisation}))
    assert words in load_catalogue([root]).broken["lender"]


def test_what_is_rounded_at_load_is_remembered_apart(root: Path) -> None:
    before = load_catalogue([root]).models["lender"]
    path = root / "lender" / "rockiln.json"
    said = json.loads(path.read_text()) | {"quantisation": {"text_encoder_2": "q8_0"}}
    path.write_text(json.dumps(said))
    after = load_catalogue([root]).models["lender"]
    assert signature_of(before) != signature_of(after)
    assert after.quantised["text_encoder_2"].at_load
    # A model that borrows the text encoder borrows that, too.
    assert sorted(load_catalogue([root]).models["hostile"].quantised) == [
        "text_encoder_2", "transformer",
    ]  # fmt: skip


@pytest.mark.parametrize("case", CORPUS)
def test_hostile_file_is_refused_and_nothing_of_it_runs(case: str, root: Path) -> None:
    assert_refused(root, *CORPUS[case])


@pytest.mark.parametrize("case", [name for name in CORPUS if name not in {"pipe", "no-lender"}])
def test_loading_past_the_gate_runs_nothing_either(case: str, root: Path) -> None:
    assert_load_runs_nothing(root, CORPUS[case][0], FAMILY, NAME)
