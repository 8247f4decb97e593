"""ControlNets: folders in the layout of diffusers, or files, judged by configs and headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError
from rockiln.domain.model import ControlNetFacts, DenoiserFacts, ModelProfile
from rockiln.domain.request import ControlNetUse
from rockiln.registry.addons import SUFFIX, addon_files, addon_folders, find_addons
from rockiln.registry.architecture import unet_facts
from rockiln.registry.config_gate import check_config
from rockiln.registry.controlnet_file import ControlNetFile, read_controlnet_file
from rockiln.registry.controlnet_shapes import controlnet_tensors, hint_channels
from rockiln.registry.file_gate import check_files
from rockiln.registry.json_file import read_json
from rockiln.registry.weights import ComponentWeights, shapes_in, weights_in

CONTROLNETS_FOLDER = "controlnets"
STEM = "diffusion_pytorch_model"
CONFIG_NAME = "config.json"
_CLASS = "ControlNetModel"
_Config = Mapping[str, Any]
# What a config may say of a choice that the class has: what there is of it in the field, and here.
_CHOICES: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "conditioning_channels": (3,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "global_pool_conditions": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_time_scale_shift": ("default",),
}
_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D"}
# Of levels, of layers in one, and of widths: beyond them a config is no network of the field.
_LEVELS_MAX, _LAYERS_MAX, _WIDTH_MAX = 8, 32, 16_384


@dataclass(frozen=True)
class ControlNet:
    """One that is sound by itself."""

    path: Path
    config: dict[str, Any]
    weights: ComponentWeights | ControlNetFile
    shape: DenoiserFacts

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def facts(self) -> ControlNetFacts:
        """For the memory planner."""
        return ControlNetFacts(self.weights.parameters, self.shape, hint_channels(self.config)[0])

    def of_unet(self, unet: _Config, pixels_per_latent: int) -> ControlNet:
        """It as it works beside the UNet of that config.

        Args:
            pixels_per_latent: along one side, of the model's autoencoder.

        Raises:
            BrokenModelError: it was made for another one.
        """
        shape, base = self.shape, _facts_of(unet, "the model's unet")
        reads_text = any((*shape.transformer_layers, shape.mid_transformer_layers))
        text = base.cross_attention_width
        told = "addition_embed_type", "projection_class_embeddings_input_dim"
        for own, other, what in (
            (shape.latent_channels, base.latent_channels, "channels of latents"),
            (
                shape.cross_attention_width if reads_text else text,
                text,
                "numbers per token of text",
            ),
            (shape.channels, base.channels, "channels of its levels"),
            (shape.layers, base.layers, "layers of its levels"),
            (*([config.get(key) for key in told] for config in (self.config, unet)), "other input"),
            (1 << (len(hint_channels(self.config)) - 1), pixels_per_latent, "pixels per latent"),
        ):
            if own != other:
                raise BrokenModelError(
                    f"{self.name} was made for another base: its {what}: {_shown(own)}, "
                    f"the model's: {_shown(other)}"
                )
        if not isinstance(self.weights, ControlNetFile):
            return self
        weights = self.weights.of_unet(unet)
        shape = _facts_of(weights.config, self.name)
        return replace(self, config=weights.config, weights=weights, shape=shape)


def controlnet_paths(model_dirs: Iterable[Path]) -> dict[str, Path]:
    """Name → path, over the ``controlnets`` folders of the model directories; first one wins.

    A folder goes before a file of its name.
    """
    roots = list(model_dirs)
    folders = addon_folders(roots, CONTROLNETS_FOLDER, CONFIG_NAME)
    return addon_files(roots, CONTROLNETS_FOLDER) | folders


def find_controlnets(model_dirs: Iterable[Path], uses: Iterable[ControlNetUse]) -> dict[str, str]:
    """Name → path of those that a job names. Raises BrokenModelError if one is not there."""
    names = [use.name for use in uses]
    return find_addons(lambda: controlnet_paths(model_dirs), names, "ControlNet")


def read_controlnet(path: Path) -> ControlNet:
    """What a folder or a file has. Raises BrokenModelError if it is unsound or something else."""
    weights: ComponentWeights | ControlNetFile
    if path.suffix == SUFFIX and not path.is_dir():
        place = path.name
        weights = read_controlnet_file(path)
        config, found = weights.config, weights.shapes
    else:
        check_files(path, path.parent.parent)
        place = f"{path.name}/{CONFIG_NAME}"
        config = _folder_config(path, place)
        weights, found = weights_in(path, STEM), shapes_in(path, STEM)
    for key, choices in _CHOICES.items():
        if key in config and config[key] not in choices:
            raise BrokenModelError(
                f"{place}: {key} is {config[key]!r}; only {' or '.join(map(repr, choices))} is run"
            )
    shape = _facts_of(config, place)
    try:
        tensors = controlnet_tensors(shape, config)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenModelError(f"{place} does not tell the shape of a ControlNet") from error
    _check_tensors(path.name, tensors, found)
    return ControlNet(path, config, weights, shape)


def _folder_config(path: Path, place: str) -> dict[str, Any]:
    config = read_json(path / CONFIG_NAME)
    if config.get("_class_name") != _CLASS:
        raise BrokenModelError(f"{place} names {config.get('_class_name')!r}, not {_CLASS}")
    check_config(config, place, _CLASS)
    return config


def of_model(found: ControlNet, profile: ModelProfile) -> ControlNet:
    """It as it works beside a model. Raises BrokenModelError where it has another base."""
    configs = Path(profile.configs or profile.path)
    decoder = profile.architecture.decoder if profile.architecture else None
    unet = read_json(configs / "unet" / CONFIG_NAME)
    return found.of_unet(unet, decoder.scale if decoder else 8)


def beside(profile: ModelProfile, paths: Iterable[str | Path]) -> ModelProfile:
    """The profile as the memory planner is to see it, with those ControlNets at work.

    Raises:
        BrokenModelError: one is unsound, or made for another base.
    """
    facts = tuple(of_model(read_controlnet(Path(path)), profile).facts for path in paths)
    return replace(profile, controlnets=facts) if facts else profile


def _facts_of(config: _Config, place: str) -> DenoiserFacts:
    try:
        facts = unet_facts(dict(config))
        kinds = set(config["down_block_types"])
        hints = list(config.get("conditioning_embedding_out_channels", ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenModelError(f"{place} does not tell its shape") from error
    layers = (*facts.layers, *facts.transformer_layers)
    fine = (
        kinds <= _BLOCKS
        and max(len(facts.channels), len(hints)) <= _LEVELS_MAX
        and max(layers) <= _LAYERS_MAX
        and max(*facts.channels, facts.cross_attention_width, facts.latent_channels) <= _WIDTH_MAX
    )
    if not fine:
        raise BrokenModelError(f"{place} is of a shape that no ControlNet here has")
    return facts


def _check_tensors(
    name: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """The weights are those that the config speaks of, every one and no other."""
    for tensor in sorted(wanted.keys() | found.keys()):
        if tensor not in found:
            raise BrokenModelError(f"{name}: the weights lack {tensor}")
        if tensor not in wanted:
            raise BrokenModelError(f"{name}: the weights have {tensor[:100]!r}, the config has not")
        if wanted[tensor] != found[tensor]:
            raise BrokenModelError(
                f"{name}: {tensor} is {list(found[tensor])}, by the config {list(wanted[tensor])}"
            )


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " and ".join(str(each or "none") for each in value)
    return str(value)
