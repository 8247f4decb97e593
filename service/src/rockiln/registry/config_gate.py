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
_LIST_MAX_ITEMS = 4096
_DICT_MAX_ITEMS = 100_000  # a tokenizer's added tokens
_NUMBER_MAX = 10**31  # a tokenizer without a limit says 1e30

# Keys whose value names what is built or read.
_CLASS_KEYS = ("_class_name", "architectures", "tokenizer_class")
_MODEL_TYPES = {
    "CLIPTextModel": {"clip_text_model"},
    "CLIPTextModelWithProjection": {"clip_text_model"},
    "T5EncoderModel": {"t5"},
}


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
    allowed = frozenset().union(*(_keys()[kind] for kind in kinds))
    for key, value in config.items():
        if key == "auto_map":
            raise BrokenModelError(f"{name} asks for code of its own (auto_map)")
        if key not in allowed:
            raise BrokenModelError(f"{name}: {key[:80]!r} is no setting of {kinds[0]}")
        reason = _refusal(value, _DEPTH_MAX)
        if reason:
            raise BrokenModelError(f"{name}: {key}: {reason}")
        if key.endswith("_file") and value not in (None, "./special_tokens_map.json"):
            raise BrokenModelError(f"{name}: {key} names a file; only the folder's own are read")
    for key in _CLASS_KEYS:
        named = config.get(key)
        named = named if isinstance(named, list) else [named]
        foreign = [one for one in named if one is not None and one not in kinds]
        if foreign and "scheduler" not in kinds:
            raise BrokenModelError(f"{name} names {foreign[0]!r}, not {kinds[0]}")
    types = frozenset().union(*(_MODEL_TYPES.get(kind, frozenset()) for kind in kinds))
    if types and config.get("model_type", next(iter(types))) not in types:
        raise BrokenModelError(f"{name} is of the model type {config['model_type']!r}")


def _refusal(value: Any, depth: int) -> str:
    """Why a value is not plain data of a sensible size; empty if it is."""
    if isinstance(value, str):
        return "a text of such a length" if len(value) > _STRING_MAX_CHARS else ""
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
