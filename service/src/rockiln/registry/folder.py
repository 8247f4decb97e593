"""One model folder in the diffusers layout, checked before anything of it is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import Architecture, ModelProfile
from rockiln.domain.request import MODEL_ID_PATTERN
from rockiln.registry.architecture import architecture_of
from rockiln.registry.config_gate import check_config
from rockiln.registry.file_gate import check_files
from rockiln.registry.manifest import read_manifest
from rockiln.registry.weights import WeightsFile, read_weights_file_of

INDEX_NAME = "model_index.json"
_JSON_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class FamilyLayout:
    """What a family's folder is made of.

    Attributes:
        name: key of ``engine.families``.
        weighted: component → (library, class, stem of its weights file).
        plain: components without weights → (library, accepted classes).
    """

    name: str
    weighted: dict[str, tuple[str, str, str]]
    plain: dict[str, tuple[str, tuple[str, ...]]]


_SD1 = FamilyLayout(
    name="sd1",
    weighted={
        "text_encoder": ("transformers", "CLIPTextModel", "model"),
        "unet": ("diffusers", "UNet2DConditionModel", "diffusion_pytorch_model"),
        "vae": ("diffusers", "AutoencoderKL", "diffusion_pytorch_model"),
    },
    plain={"tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast"))},
)
_CLIP_TOKENIZER = _SD1.plain["tokenizer"]
_SDXL = FamilyLayout(
    name="sdxl",
    weighted={
        "text_encoder": _SD1.weighted["text_encoder"],
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", "model"),
        "unet": _SD1.weighted["unet"],
        "vae": _SD1.weighted["vae"],
    },
    plain={"tokenizer": _CLIP_TOKENIZER, "tokenizer_2": _CLIP_TOKENIZER},
)
FAMILY_BY_PIPELINE: dict[str, FamilyLayout] = {
    "StableDiffusionPipeline": _SD1,
    "StableDiffusionXLPipeline": _SDXL,
}
LAYOUTS: dict[str, FamilyLayout] = {layout.name: layout for layout in FAMILY_BY_PIPELINE.values()}


def read_model_folder(folder: Path, root: Path) -> ModelProfile:
    """The profile of the model in ``folder``, whose name is the model's id.

    Raises:
        BrokenModelError: the folder cannot be used; the detail says which file and why.
    """
    if re.fullmatch(MODEL_ID_PATTERN, folder.name) is None:
        raise BrokenModelError(f"{folder.name!r} is no model id; rename it to {MODEL_ID_PATTERN}")
    check_files(folder, root)
    index = read_json(folder / INDEX_NAME)
    layout = FAMILY_BY_PIPELINE.get(str(index.get("_class_name")))
    if layout is None:
        known = ", ".join(FAMILY_BY_PIPELINE)
        raise BrokenModelError(
            f"{INDEX_NAME}: pipeline {index.get('_class_name')!r} is not one this version runs "
            f"({known})"
        )
    _check_components(index, folder, layout)
    manifest = read_manifest(folder, layout.name)
    weights = component_weights(folder, layout)
    return ModelProfile(
        id=folder.name,
        title=manifest.title,
        family=layout.name,
        licence=manifest.licence,
        path=str(folder.resolve()),
        defaults=manifest.defaults.as_model_defaults(),
        min_side_px=manifest.limits.min_side_px,
        max_side_px=manifest.limits.max_side_px,
        component_bytes={name: file.file_bytes for name, file in weights.items()},
        component_parameters={name: file.parameters for name, file in weights.items()},
        architecture=_architecture(folder, layout),
    )


def _architecture(folder: Path, layout: FamilyLayout) -> Architecture | None:
    configs = {name: read_json(folder / name / "config.json") for name in layout.weighted}
    encoders = [config for name, config in configs.items() if name.startswith("text_encoder")]
    upcast = layout.name == "sdxl" and configs["vae"].get("force_upcast", True) is True
    return architecture_of(configs["unet"], configs["vae"], encoders, upcast=upcast)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BrokenModelError: missing, too large, or not a JSON object.
    """
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise BrokenModelError(f"{name} is missing")
    if path.stat().st_size > _JSON_MAX_BYTES:
        raise BrokenModelError(f"{name} is larger than {_JSON_MAX_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BrokenModelError(f"{name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenModelError(f"{name} is not a JSON object")
    return content


def component_weights(folder: Path, layout: FamilyLayout) -> dict[str, WeightsFile]:
    """The weights file that is loaded for each component: full precision, else the fp16 variant.

    Raises:
        BrokenModelError: a component has neither, or its file is not sound.
    """
    files: dict[str, WeightsFile] = {}
    for component, (_, _, stem) in layout.weighted.items():
        candidates = [
            folder / component / f"{stem}{variant}.safetensors" for variant in ("", ".fp16")
        ]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise BrokenModelError(f"{component}/{candidates[0].name} is missing")
        files[component] = read_weights_file_of(component, path)
        foreign = ", ".join(files[component].foreign_dtypes)
        if foreign:
            raise BrokenModelError(f"{component}/{path.name} has weights of {foreign}")
    return files


def _check_components(index: dict[str, Any], folder: Path, layout: FamilyLayout) -> None:
    """Every component the family needs is declared, by a class on the list, with its config."""
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {
        **{name: (library, (kind,)) for name, (library, kind, _) in layout.weighted.items()},
        **layout.plain,
    }
    for component, (library, classes) in wanted.items():
        declared = index.get(component)
        if declared not in [[library, name] for name in classes]:
            raise BrokenModelError(
                f"{INDEX_NAME}: {component} is {declared!r}, not {library} {' or '.join(classes)}"
            )
    for component, (_, kind, _) in layout.weighted.items():
        check_config(
            read_json(folder / component / "config.json"), f"{component}/config.json", kind
        )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    check_config(scheduler, "scheduler/scheduler_config.json", "scheduler")
    for component, (_, classes) in layout.plain.items():
        tokenizer = folder / component
        names = ("tokenizer.json", "vocab.json")
        if not any((tokenizer / name).is_file() for name in names):
            raise BrokenModelError(f"{component}/ has neither {' nor '.join(names)}")
        own = tokenizer / "tokenizer_config.json"
        if own.exists():
            check_config(read_json(own), f"{component}/{own.name}", *classes)
