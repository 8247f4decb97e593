"""Models made of a ``.gguf`` transformer and a model folder of its shape, which has the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.request import MODEL_ID_PATTERN
from rockiln.registry.file_gate import check_file
from rockiln.registry.gguf_file import read_gguf_file
from rockiln.registry.gguf_weights import COMPONENT
from rockiln.registry.manifest import MANIFEST_NAME, read_manifest
from rockiln.registry.transformer_names import FAMILIES
from rockiln.registry.weights import ComponentWeights, gguf_component


def read_gguf_model(path: Path, root: Path, models: Iterable[ModelProfile]) -> ModelProfile:
    """The profile of a model whose transformer is ``path``.

    Args:
        root: the models folder that it is in.
        models: of this host, whose other parts it may share: the first by id whose transformer
            has this shape.

    Raises:
        BrokenModelError: the file cannot be used; the detail says why.
    """
    check_file(path, root)
    if re.fullmatch(MODEL_ID_PATTERN, path.stem) is None:
        raise BrokenModelError(f"{path.stem!r} is no model id; rename it to {MODEL_ID_PATTERN}")
    base, weights = _base(path, models)
    manifest_file = path.with_name(f"{path.stem}.{MANIFEST_NAME}")
    said = replace(base, title=path.stem, licence="unknown")
    if manifest_file.is_file():
        check_file(manifest_file, root)
        said = read_manifest(manifest_file, base.family, path.stem).applied_to(base)
    quantised = {name: held for name, held in said.quantised.items() if name != COMPONENT}
    if weights.quantised is not None:
        quantised[COMPONENT] = weights.quantised
    return replace(
        said,
        id=path.stem,
        path=str(path.resolve()),
        root=str(root.resolve()),
        configs=base.path,
        component_bytes={**base.component_bytes, COMPONENT: weights.file_bytes},
        component_parameters={**base.component_parameters, COMPONENT: weights.parameters},
        quantised=quantised,
        quantisable={name: held for name, held in base.quantisable.items() if name != COMPONENT},
    )


def _base(path: Path, models: Iterable[ModelProfile]) -> tuple[ModelProfile, ComponentWeights]:
    closest = ""
    for base in sorted(models, key=lambda each: each.id):
        folder = Path(base.path)
        in_cache = folder.parent != Path(base.root)  # its links lead elsewhere
        if base.family not in FAMILIES or base.configs or in_cache:
            continue
        try:
            return base, gguf_component(path, folder / COMPONENT, base.family)
        except BrokenModelError as error:
            closest = closest or f"; {base.id}: {error.detail}"
    architecture = _kind(path)
    raise BrokenModelError(
        f"{path.name} is {architecture}; it needs a model folder of its shape beside it, for text "
        f"encoders, tokenizers and decoder, and none fits{closest}"
    )


def _kind(path: Path) -> str:
    names = read_gguf_file(path)
    if any("double_blocks." in name for name in names):
        return "a FLUX transformer"
    if any("joint_blocks." in name for name in names):
        return "a Stable Diffusion 3 transformer"
    return "no transformer of FLUX.1 or Stable Diffusion 3"
