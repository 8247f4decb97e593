"""What a component's config may say. Configs steer library code, so they are checked like input.

Keys come from ``config_keys.json``: the constructor arguments of the classes that are loaded here,
in the pinned libraries. Two libraries had faults in 2026 that ran code named by other keys at a
plain load (CVE-2026-4372, CVE-2026-5241).
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from rockiln.domain.errors import BrokenModelError

_KEYS_FILE = Path(__file__).with_name("config_keys.json")
_DEPTH_MAX = 4
_STRING_MAX_CHARS = 512
# A tokenizer's chat template is a program, and never run here: families write the chat themselves.
_UNREAD_KEYS = {"chat_template"}
_UNREAD_MAX_CHARS = 64 * 1024
_LIST_MAX_ITEMS = 4096
_DICT_MAX_ITEMS = 100_000  # a tokenizer's added tokens
_NUMBER_MAX = 10**31  # a tokenizer without a limit says 1e30

# Keys whose value names what is built or read.
_CLASS_KEYS = ("_class_name", "architectures", "tokenizer_class")
_MODEL_TYPES = {
    "CLIPTextModel": {"clip_text_model"},
    "CLIPTextModelWithProjection": {"clip_text_model"},
    "T5EncoderModel": {"t5"},
    "Qwen3Model": {"qwen3"},
    "Qwen3ForCausalLM": {"qwen3"},
    "Qwen2_5_VLForConditionalGeneration": {"qwen2_5_vl"},
    "Qwen2_5_VLForConditionalGeneration.text_config": {"qwen2_5_vl_text"},
    "Qwen2_5_VLForConditionalGeneration.vision_config": {"qwen2_5_vl", "qwen2_5_vl_vision"},
}
# Published with the config of the whole that they are a part of.
_ALSO_WRITTEN_AS = {"Qwen3Model": ("Qwen3ForCausalLM",)}
_NESTED_KEYS = ("text_config", "vision_config")


@cache
def _keys() -> dict[str, frozenset[str]]:
    return {kind: frozenset(keys) for kind, keys in json.loads(_KEYS_FILE.read_text()).items()}


def check_config(config: dict[str, Any], name: str, *kinds: str) -> None:
    """Refuses keys and values that the classes ``kinds`` (alternatives of one shape) do not take.

    Args:
        name: of the file, for the person.

    Raises:
        BrokenModelError: the first key that is not accepted, and why.
    """
    kinds += tuple(other for kind in kinds for other in _ALSO_WRITTEN_AS.get(kind, ()))
    allowed = frozenset().union(*(_keys()[kind] for kind in kinds))
    for key, value in config.items():
        if key == "auto_map":
            raise BrokenModelError(f"{name} asks for code of its own (auto_map)")
        if key not in allowed:
            raise BrokenModelError(f"{name}: {key[:80]!r} is no setting of {kinds[0]}")
        reason = _refusal(value, _DEPTH_MAX, _UNREAD_MAX_CHARS if key in _UNREAD_KEYS else None)
        if reason:
            raise BrokenModelError(f"{name}: {key}: {reason}")
        if key.endswith("_file") and value not in (None, "./special_tokens_map.json"):
            raise BrokenModelError(f"{name}: {key} names a file; only the folder's own are read")
    for key in _NESTED_KEYS:
        if isinstance(config.get(key), dict):
            check_config(config[key], f"{name}: {key}", f"{kinds[0]}.{key}", kinds[0])
    _check_kinds(config, name, kinds)


def _check_kinds(config: dict[str, Any], name: str, kinds: tuple[str, ...]) -> None:
    """Refuses what names another class, or another type of model."""
    for key in _CLASS_KEYS:
        named = config.get(key)
        named = named if isinstance(named, list) else [named]
        foreign = [one for one in named if one is not None and one not in kinds]
        if foreign and "scheduler" not in kinds:
            raise BrokenModelError(f"{name} names {foreign[0]!r}, not {kinds[0]}")
    types = frozenset().union(*(_MODEL_TYPES.get(kind, frozenset()) for kind in kinds))
    if types and config.get("model_type", next(iter(types))) not in types:
        raise BrokenModelError(f"{name} is of the model type {config['model_type']!r}")


def _refusal(value: Any, depth: int, most_chars: int | None = None) -> str:
    """Why a value is not plain data of a sensible size; empty if it is."""
    if isinstance(value, str):
        return "a text of such a length" if len(value) > (most_chars or _STRING_MAX_CHARS) else ""
    if isinstance(value, int | float):
        return "" if abs(value) <= _NUMBER_MAX else "a number of such a size"
    if value is None:
        return ""
    items = value.values() if isinstance(value, dict) else value
    if len(items) > (_DICT_MAX_ITEMS if isinstance(value, dict) else _LIST_MAX_ITEMS):
        return "a list of such a length"
    if depth == 0:
        return "values within values within values"
    return next(filter(None, (_refusal(item, depth - 1) for item in items)), "")
