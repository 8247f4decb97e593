"""The models of this host: folders and single files in the model directories."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry.checkpoint import checkpoint_files, read_checkpoint
from rockiln.registry.file_gate import check_file
from rockiln.registry.folder import INDEX_NAME, read_model_folder
from rockiln.registry.gguf_file import SUFFIX as GGUF_SUFFIX
from rockiln.registry.hub_cache import cached_models
from rockiln.registry.transformer_file import transformer_family
from rockiln.registry.transformer_models import read_transformer_model


@dataclass(frozen=True)
class Catalogue:
    """What was found.

    Attributes:
        models: id → profile.
        broken: id → why it cannot be used, for folders that look like models.
    """

    models: dict[str, ModelProfile] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def default(self, wanted_id: str) -> ModelProfile | None:
        """The wanted model, else the first by id, else None."""
        if wanted_id in self.models:
            return self.models[wanted_id]
        return self.models[min(self.models)] if self.models else None

    def pinned(self, ids: Iterable[str]) -> list[ModelProfile]:
        """Those of ``ids`` that are here."""
        return [self.models[name] for name in ids if name in self.models]


def load_catalogue(
    model_dirs: Iterable[Path], hub_cache: Path | None = None, *, quantisation_allowed: bool = False
) -> Catalogue:
    """Reads every folder with a ``model_index.json``, then every checkpoint in one file.

    The first directory that has an id wins, a folder before a file. What is broken hides neither
    the other models nor a sound one of its own id further on.

    Args:
        quantisation_allowed: whether the planner may round weights that nobody asked to round.
    """
    roots = list(model_dirs)
    models: dict[str, ModelProfile] = {}
    broken: dict[str, str] = {}
    found: list[tuple[str, Callable[[], ModelProfile]]] = [
        (folder.name, partial(read_model_folder, folder, root))
        for root in roots
        for folder in _model_folders(root)
    ]
    if hub_cache is not None:
        found += [(cached.id, cached.read) for cached in cached_models(hub_cache)]
    found += [
        (path.stem, partial(_read_file, path, root, models.values()))
        for root in roots
        for path in checkpoint_files(root)
    ]
    for model_id, read in found:
        if model_id in models:
            continue
        try:
            models[model_id] = read()
        except BrokenModelError as error:
            broken.setdefault(model_id, error.detail)
        except OSError as error:
            broken.setdefault(model_id, f"cannot be read: {error}")
    for model_id in models:
        broken.pop(model_id, None)
    if not quantisation_allowed:
        models = {name: replace(model, quantisable={}) for name, model in models.items()}
    return Catalogue(models, broken)


def _read_file(path: Path, root: Path, models: Iterable[ModelProfile]) -> ModelProfile:
    check_file(path, root)
    if path.suffix == GGUF_SUFFIX or transformer_family(path) is not None:
        return read_transformer_model(path, root, models)
    return read_checkpoint(path, root, models)


def _model_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if (path / INDEX_NAME).is_file())
