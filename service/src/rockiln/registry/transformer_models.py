"""Models made of a transformer file and a model folder of its shape, which has the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.domain.quantisation import QuantisedWeights
from rockiln.registry.file_gate import check_file, check_model_id
from rockiln.registry.json_file import read_json
from rockiln.registry.manifest import manifest_beside, read_manifest
from rockiln.registry.quantised_weights import quantisable_parts
from rockiln.registry.transformer_file import COMPONENT, transformer_family
from rockiln.registry.transformer_names import diffusers_shapes, transformer_tensors
from rockiln.registry.weights import ComponentWeights, transformer_component

_KINDS = {"flux": "a FLUX transformer", "sd3": "a Stable Diffusion 3 transformer"}


def read_transformer_model(path: Path, root: Path, models: Iterable[ModelProfile]) -> ModelProfile:
    """The profile of a model whose transformer is ``path``.

    Args:
        root: the models folder that it is in.
        models: of this host, whose other parts it may share: the first by id whose transformer
            has this shape.

    Raises:
        BrokenModelError: the file cannot be used; the detail says why.
    """
    check_file(path, root)
    check_model_id(path.stem)
    lender, weights = _lender(path, models)
    model = replace(
        lender,
        id=path.stem,
        title=path.stem,
        licence="unknown",
        path=str(path.resolve()),
        root=str(root.resolve()),
        configs=lender.path,
        component_bytes={**lender.component_bytes, COMPONENT: weights.file_bytes},
        component_parameters={**lender.component_parameters, COMPONENT: weights.parameters},
        quantised=_with(lender.quantised, weights.quantised),
        quantisable=_with(lender.quantisable, _roundable(weights)),
    )
    manifest_file = manifest_beside(path, root)
    if not manifest_file.is_file():
        return model
    return read_manifest(manifest_file, model.family, path.stem).applied_to(model)


def _with(
    lent: dict[str, QuantisedWeights], transformer: QuantisedWeights | None
) -> dict[str, QuantisedWeights]:
    """Of the parts that are lent, and of the transformer that is not."""
    found = {name: held for name, held in lent.items() if name != COMPONENT}
    return found if transformer is None else {**found, COMPONENT: transformer}


def _roundable(weights: ComponentWeights) -> QuantisedWeights | None:
    """What of the file would be rounded at load; None where it is in few bits as it comes."""
    if weights.quantised is not None:
        return None
    config = read_json(weights.folder / "config.json")
    shapes = diffusers_shapes(transformer_tensors(config, weights.family))
    return quantisable_parts({COMPONENT: shapes}).get(COMPONENT)


def _lender(path: Path, models: Iterable[ModelProfile]) -> tuple[ModelProfile, ComponentWeights]:
    family = transformer_family(path)
    if family is None:
        raise BrokenModelError(
            f"{path.name} is no transformer of FLUX.1 or Stable Diffusion 3; T5 belongs into the "
            "folder of a model's text encoder"
        )
    closest = ""
    for lender in sorted(models, key=lambda each: each.id):
        folder = Path(lender.path)
        in_cache = folder.parent != Path(lender.root)  # its links lead elsewhere
        if lender.family != family or lender.configs or in_cache:
            continue
        try:
            return lender, transformer_component(path, folder / COMPONENT, family)
        except BrokenModelError as error:
            closest = closest or f"; {lender.id}: {error.detail}"
    raise BrokenModelError(
        f"{path.name} is {_KINDS[family]}; it needs a model folder of its shape beside it, for "
        f"text encoders, tokenizers and decoder, and none fits{closest}"
    )
