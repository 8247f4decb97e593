"""Models in one file: ``<id>.safetensors`` in a models folder, with all parts of a model in it.

Such a file has neither configs nor a tokenizer. They come from this package, or from a model folder
of the same shape; the names and shapes of the file's tensors decide which. No torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ModelProfile
from rockiln.registry import gguf_file
from rockiln.registry.checkpoint_names import FAMILIES, PREFIXES, Shape, original_shapes
from rockiln.registry.file_gate import PICKLE_SUFFIXES, check_file, check_files, check_model_id
from rockiln.registry.folder import architecture_in
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import LAYOUTS
from rockiln.registry.manifest import (
    MANIFEST_NAME,
    Manifest,
    manifest_beside,
    profile_of,
    read_manifest,
)
from rockiln.registry.quantised_weights import quantisable_parts
from rockiln.registry.safetensors_file import (
    SUFFIX,
    WEIGHT_DTYPES,
    WeightsFile,
    read_weights_file,
)
from rockiln.registry.weights import component_shapes

CONFIGS_FOLDER = Path(__file__).with_name("checkpoint_configs")
SHIPPED = tuple(CONFIGS_FOLDER / kind for kind in PREFIXES)
SHAPES_NAME = "shapes.json"
ComponentShapes = Mapping[str, Mapping[str, Shape]]

# What trainers leave in such files and no picture needs.
_INERT = re.compile(
    r"model_ema\..+|betas|alphas_cumprod(_prev)?|sqrt_.+|log_one_minus_alphas_cumprod|posterior_.+"
    r"|logvar|lvlb_weights|scale_factor|denoiser\.sigmas|first_stage_model\.loss\..+"
    r"|.+\.position_ids|.+\.logit_scale|cond_stage_model\.text_projection|v_pred|ztsnr"
    # Stable Diffusion 2 reads a text after the last layer but one.
    r"|cond_stage_model\.model\.(text_projection|attn_mask|transformer\.resblocks\.23\..+)"
)
# What trainers say of the schedule by a tensor's name; the first step of a schedule that ends
# in plain noise is that noise.
_MARKS: dict[str, dict[str, str | bool]] = {
    "v_pred": {"prediction_type": "v_prediction"},
    "ztsnr": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
}
# Kind of file → why what a file predicts cannot be seen in it.
_TOLD = {"sd2": "2.0-base and 768-v, which differ in that, have the same tensors"}
# What else comes as one file, by a name that it has: the first rule that finds one speaks.
_OTHER_KINDS = (
    (r"lora_(unet|te\d?|transformer)_.+|.+\.lora_(down|up|A|B)\.weight", "a LoRA: into loras/"),
    (r"emb_params|clip_[lg]|string_to_param\..+", "a textual inversion: into embeddings/"),
    (r"(control_model\.|input_hint_block\.|controlnet_).+", "a ControlNet: into controlnets/"),
    (r"(.+\.)?double_blocks\..+", "something of FLUX.1 that is no transformer of it"),
    (r"(.+\.)?joint_blocks\..+", "something of Stable Diffusion 3 that is no transformer of it"),
    (r"edm_vpred\..+", "made for EDM's v-prediction, which no scheduler here is"),
    (r"conditioner\.embedders\.0\.model\..+",
     "SDXL's refiner, or Stable Diffusion 2 under the names of sgm; neither is read"),
    (r"(unet\.)?(down_blocks|conv_in|encoder|decoder|quant_conv|text_model)\..+",
     "one part of a model; it belongs in a folder in the layout of diffusers"),
)  # fmt: skip
_SHOWN_NAME_CHARS = 100


@dataclass(frozen=True)
class _Template:
    """Configs and tokenizers, and the tensors that a file for them has.

    Attributes:
        kind: of such files.
        profile: of the model that they are taken from; None for those of this package.
        expected: component → name in the file → shape.
    """

    kind: str
    folder: Path
    profile: ModelProfile | None
    expected: ComponentShapes

    @property
    def family(self) -> str:
        return FAMILIES[self.kind]

    def differences(self, file: WeightsFile) -> list[str]:
        """What keeps a file from being read with these configs."""
        wanted = {name: shape for part in self.expected.values() for name, shape in part.items()}
        shapes = file.shapes
        other = [
            f"{name} is {list(shapes[name])}, not {list(shape)}"
            for name, shape in wanted.items()
            if name in shapes and shapes[name] != shape
        ]
        missing = [f"{name} is missing" for name in wanted if name not in shapes]
        foreign = [
            f"{name[:_SHOWN_NAME_CHARS]!r} is no part of it"
            for name in shapes
            if name not in wanted and _INERT.fullmatch(name) is None
        ]
        return other + missing + foreign


@dataclass(frozen=True)
class CheckpointWeights:
    """The weights of one component in a single file.

    Attributes:
        folder: of the component's config.
        names: of its tensors in the file, each beginning with ``prefix``.
        rounded: its matrices are rounded at load.
    """

    path: Path
    folder: Path
    prefix: str
    names: tuple[str, ...]
    rounded: bool = False


def checkpoint_weights(path: Path, configs: Path, family: str) -> dict[str, CheckpointWeights]:
    """What is loaded for each component.

    Raises:
        BrokenModelError: the family is not read from single files, or this one is unsound.
    """
    if family not in FAMILIES.values():
        raise BrokenModelError(f"{family} models are read from folders only")
    file = read_weights_file(path)
    kind = _kind_of(file)
    if FAMILIES[kind] != family:
        raise BrokenModelError(f"{path.name} is no {family} model")
    held = [name for name in file.shapes if _INERT.fullmatch(name) is None]
    return {
        component: CheckpointWeights(
            path,
            configs / component,
            prefix,
            tuple(name for name in held if name.startswith(prefix)),
        )
        for component, prefix in PREFIXES[kind].items()
    }


def configs_shapes(configs: Path, family: str) -> ComponentShapes:
    """Component → tensor as diffusers names it → shape, of every model with these configs."""
    if configs in SHIPPED:
        return _shipped_shapes(configs)
    return component_shapes(configs, LAYOUTS[family])


def configs_owner(profile: ModelProfile) -> str | None:
    """Whose configs a model in one file is read with: "rockiln", or a model's id."""
    configs = Path(profile.configs)
    if not profile.configs:
        return None
    return "rockiln" if configs in SHIPPED else configs.name


def check_model(profile: ModelProfile) -> None:
    """The safety gate once more, right before a load of a folder or a file.

    Raises:
        BrokenModelError: a file, or one of the folder that lends the configs, is unsound.
    """
    path, configs = Path(profile.path), Path(profile.configs)
    root = Path(profile.root) if profile.root else path.parent
    if not profile.configs:
        check_files(path, root)
        return
    check_file(path, root)
    if configs not in SHIPPED:
        check_files(configs, configs.parent)


def checkpoint_files(root: Path) -> list[Path]:
    """What stands by itself in a models folder and looks like a model, pickles included."""
    if not root.is_dir():
        return []
    suffixes = {SUFFIX, gguf_file.SUFFIX, *PICKLE_SUFFIXES}
    return sorted(
        path for path in root.iterdir() if path.suffix.lower() in suffixes and not path.is_dir()
    )


def files_of_checkpoint(root: Path, model_id: str) -> list[Path]:
    """The file of a model, sound or not, and the manifest beside it; none for a folder's id."""
    files = [path for path in checkpoint_files(root) if path.stem == model_id]
    manifest = root / f"{model_id}.{MANIFEST_NAME}"
    return [*files, manifest] if files and manifest.is_file() else files


def read_checkpoint(path: Path, root: Path, models: Iterable[ModelProfile]) -> ModelProfile:
    """The profile of the model in one file.

    Args:
        root: the models folder that it is in.
        models: of this host, whose configs it may share.

    Raises:
        BrokenModelError: the file cannot be used; the detail says why.
    """
    model_id = path.stem
    check_file(path, root)
    check_model_id(model_id)
    manifest_file = manifest_beside(path, root)
    file = read_weights_file(path)
    kind = _kind_of(file)
    manifest = read_manifest(manifest_file, FAMILIES[kind], model_id)
    marks = {
        key: value for mark in _MARKS.keys() & file.shapes for key, value in _MARKS[mark].items()
    }
    told = marks | manifest.scheduler_config.model_dump(exclude_none=True)
    template = _template_for(file, kind, models, told="prediction_type" in told)
    parts = template.expected
    used = {file.dtypes[name] for part in parts.values() for name in part}
    if foreign := sorted(used - WEIGHT_DTYPES):
        raise BrokenModelError(f"{path.name} has weights of {', '.join(foreign)}")
    lent = template.profile.scheduler_config if template.profile is not None else {}
    profile = replace(
        _base(template, manifest, model_id, told=manifest_file.is_file()),
        id=model_id,
        path=str(path.resolve()),
        root=str(root.resolve()),
        configs=str(template.folder),
        component_bytes={
            part: sum(file.tensor_bytes(name) for name in names) for part, names in parts.items()
        },
        component_parameters={
            part: sum(math.prod(shape) for shape in names.values()) for part, names in parts.items()
        },
        scheduler_config=lent | marks,
        quantised={},
        quantisable=quantisable_parts(configs_shapes(template.folder, template.family)),
    )
    return manifest.applied_to(profile) if manifest_file.is_file() else profile


def _kind_of(file: WeightsFile) -> str:
    names = file.shapes
    for pattern, what in _OTHER_KINDS:
        shape = re.compile(pattern)
        if any(shape.fullmatch(name) for name in names):
            raise BrokenModelError(f"{file.path.name} is {what}")
    kinds = [
        kind
        for kind, prefixes in PREFIXES.items()
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes.values())
    ]
    if not kinds:
        lacking = {
            component
            for prefixes in PREFIXES.values()
            for component, prefix in prefixes.items()
            if not any(name.startswith(prefix) for name in names)
        }
        raise BrokenModelError(
            f"{file.path.name} is no checkpoint of Stable Diffusion 1, 2 or XL with all its parts: "
            f"there is no {' and no '.join(sorted(lacking)[:3])} as these files name it"
        )
    return kinds[-1]


def _template_for(
    file: WeightsFile, kind: str, models: Iterable[ModelProfile], *, told: bool
) -> _Template:
    """``told``: whether file or manifest say what the network predicts."""
    shipped = [_shipped(folder) for folder in SHIPPED if folder.name == kind]
    shared = (
        _shared(profile, kind)
        for profile in models
        if profile.family == FAMILIES[kind] and not profile.configs
    )
    closest: list[str] | None = None
    fitting = []
    for template in chain(shipped, filter(None, shared)):
        found = template.differences(file)
        if not found and (told or kind not in _TOLD):
            return template
        if not found:
            fitting.append(template)
        closest = found if closest is None or len(found) < len(closest) else closest
    lending = [template for template in fitting if template.profile is not None]
    if lending and len({_prediction(template) for template in lending}) == 1:
        return lending[0]
    if fitting:
        raise BrokenModelError(
            f"{file.path.name} does not say what it predicts, and {_TOLD[kind]}: write it into "
            f"{file.path.stem}.{MANIFEST_NAME} as scheduler_config.prediction_type, epsilon or "
            "v_prediction"
        )
    raise BrokenModelError(
        f"{file.path.name} fits the configs of no {FAMILIES[kind]} model: {(closest or ['?'])[0]}"
        + (f" (and {len(closest) - 1} more)" if closest and len(closest) > 1 else "")
    )


def _prediction(template: _Template) -> object:
    """What a folder says that its network predicts."""
    config = read_json(template.folder / "scheduler" / "scheduler_config.json")
    said = template.profile.scheduler_config if template.profile is not None else {}
    return said.get("prediction_type", config.get("prediction_type", "epsilon"))


@cache
def _shipped(folder: Path) -> _Template:
    return _Template(folder.name, folder, None, _expected(folder.name, _shipped_shapes(folder)))


@cache
def _shipped_shapes(folder: Path) -> ComponentShapes:
    return {
        component: {name: tuple(shape) for name, shape in shapes.items()}
        for component, shapes in read_json(folder / SHAPES_NAME).items()
    }


def _shared(profile: ModelProfile, kind: str) -> _Template | None:
    """None for a folder whose tensors have no place in a single file."""
    folder = Path(profile.path)
    if folder.parent != Path(profile.root):  # of a cache, whose links lead elsewhere
        return None
    try:
        shapes = component_shapes(folder, LAYOUTS[profile.family])
        return _Template(kind, folder, profile, _expected(kind, shapes))
    except (BrokenModelError, KeyError):
        return None


def _expected(kind: str, shapes: ComponentShapes) -> ComponentShapes:
    return {
        component: original_shapes(kind, component, named) for component, named in shapes.items()
    }


def _base(template: _Template, manifest: Manifest, model_id: str, *, told: bool) -> ModelProfile:
    """With the defaults of the manifest beside the file, else of the model that lends its configs.

    Without either they are the family's. ``told``: there is a manifest beside the file.
    """
    layout = LAYOUTS[template.family]
    if template.profile is not None and not told:
        return replace(template.profile, title=model_id, licence="unknown")
    return profile_of(model_id, layout, manifest, architecture_in(template.folder, layout))
