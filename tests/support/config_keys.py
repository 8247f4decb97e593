"""Writes ``registry/config_keys.json`` from the pinned libraries: ``nox -s config_keys``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import transformers
from transformers import Qwen2Tokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from rockiln.engine import schedulers
from rockiln.registry.layouts import LAYOUTS

TARGET = (
    Path(__file__).resolve().parents[2]
    / "service" / "src" / "rockiln" / "registry" / "config_keys.json"
)  # fmt: skip

# Written beside a model's own keys by the libraries of some year; all inert.
_DIFFUSERS_META = {"_class_name", "_diffusers_version", "_name_or_path", "_use_default_values"}
_TRANSFORMERS_META = {"torch_dtype", "use_cache", "dropout", "gradient_checkpointing"}
_TOKENIZER_META = {
    "tokenizer_class", "name_or_path", "special_tokens_map_file", "do_lower_case", "use_fast",
    "add_prefix_space", "errors", "model_max_length", "clean_up_tokenization_spaces",
    "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "extra_ids",
    "split_special_tokens", "sp_model_kwargs", "legacy", "backend", "is_local",
    "add_bos_token", "add_eos_token", "padding_side", "truncation_side",
}  # fmt: skip
_CHAT = {"chat_template"}
# Of former versions of the libraries, in published configs.
_FORMER = {
    "Qwen3ForCausalLM": {"rope_theta", "rope_scaling"},
    "Qwen3Model": {"rope_theta", "rope_scaling"},
    "Qwen2_5_VLForConditionalGeneration": {"rope_theta", "rope_scaling", "vision_token_id"},
    "Qwen2_5_VLForConditionalGeneration.vision_config": {"in_chans", "spatial_patch_size"},
    "QwenImageTransformer2DModel": {"pooled_projection_dim"},
    "AutoencoderKLFlux2": {"force_upcast", "scaling_factor", "shift_factor"},
}
# Of scheduler classes that wrote the configs of known models but draw nothing here.
_SCHEDULER_WRITERS = (
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "DDPMScheduler",
    "FlowMatchEulerDiscreteScheduler",
)


def _arguments(kind: Any) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters) - {"self", "kwargs"}


def _keys_of(library: str, name: str) -> list[str]:
    if library == "diffusers":
        former = _FORMER.get(name, set())
        return sorted(_arguments(getattr(diffusers, name)) | _DIFFUSERS_META | former)
    kind = getattr(transformers, name)
    if issubclass(kind, PreTrainedTokenizerBase):
        special = set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
        chat = _CHAT if issubclass(kind, Qwen2Tokenizer) else set()
        return sorted(special | _TOKENIZER_META | chat)
    return sorted(set(_flat(kind.config_class())) | _TRANSFORMERS_META | _FORMER.get(name, set()))


def _flat(config: Any) -> set[str]:
    """With the keys of the language half, which were written beside the others once."""
    keys = set(config.to_dict())
    return keys | set(config.text_config.to_dict()) if "text_config" in keys else keys


def _nested(name: str) -> dict[str, list[str]]:
    """The keys of each config within the config of a class of transformers."""
    kind = getattr(transformers, name)
    if not issubclass(kind, transformers.PreTrainedModel):
        return {}
    return {
        f"{name}.{part}": sorted(
            set(inner().to_dict()) | _TRANSFORMERS_META | _FORMER.get(f"{name}.{part}", set())
        )
        for part, inner in kind.config_class.sub_configs.items()
    }


def config_keys() -> dict[str, list[str]]:
    """Class → the keys that its config may have. ``scheduler`` stands for all of them."""
    found: dict[str, list[str]] = {}
    for layout in LAYOUTS.values():
        for library, name, _ in layout.weighted.values():
            found[name] = _keys_of(library, name)
            if library == "transformers":
                found |= _nested(name)
        for library, names in layout.plain.values():
            for name in names:
                found[name] = _keys_of(library, name)
    found["ControlNetModel"] = _keys_of("diffusers", "ControlNetModel")
    kinds = [recipe.kind for recipe in schedulers._RECIPES.values()]
    kinds += [getattr(diffusers, name) for name in _SCHEDULER_WRITERS]
    found["scheduler"] = sorted(_DIFFUSERS_META.union(*map(_arguments, kinds)))
    return dict(sorted(found.items()))


def as_text() -> str:
    return json.dumps(config_keys(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(as_text())
