"""Which files of a repository make up a model: the rest (pickles, other formats) is left there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rockiln.domain.errors import BrokenModelError
from rockiln.registry.folder import INDEX_NAME
from rockiln.registry.layouts import FamilyLayout

_TOKENIZER_FILES = (
    "tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "special_tokens_map.json",
    "tokenizer_config.json", "added_tokens.json",
)  # fmt: skip


def files_of_model(paths: Iterable[str], layout: FamilyLayout, variant: str | None) -> list[str]:
    """The files of a diffusers repository that the family loads, weights last.

    Args:
        variant: "fp16" where that is wanted; a part that does not have it comes whole.

    Raises:
        BrokenModelError: the repository lacks a part.
    """
    held = set(paths)
    scheduler = "scheduler/scheduler_config.json"
    missing = [name for name in (INDEX_NAME, scheduler) if name not in held]
    wanted, weights = [INDEX_NAME, scheduler], []
    for part, (_, _, stem) in layout.weighted.items():
        found = _weights(held, part, stem, variant) or _weights(held, part, stem, None)
        if found and f"{part}/config.json" in held:
            wanted.append(f"{part}/config.json")
            weights += found
        elif part not in layout.optional:
            missing.append(f"{part}/{stem}.safetensors")
    for part in layout.plain:
        found = [f"{part}/{name}" for name in _TOKENIZER_FILES if f"{part}/{name}" in held]
        if not found and part not in layout.optional:
            missing.append(f"{part}/")
        wanted += found
    if missing:
        raise BrokenModelError(f"the repository lacks {', '.join(missing)}")
    return wanted + weights


def _weights(held: set[str], part: str, stem: str, variant: str | None) -> list[str]:
    """The file, or the shards with their index, of one variant; none if it is not there."""
    mark = f".{variant}" if variant else ""
    single = f"{part}/{stem}{mark}.safetensors"
    if single in held:
        return [single]
    # diffusers and transformers put the variant at different places.
    for index, shard in (
        (f"{stem}.safetensors.index{mark}.json", rf"{re.escape(stem)}{re.escape(mark)}-\d+-of-\d+"),
        (f"{stem}{mark}.safetensors.index.json", rf"{re.escape(stem)}-\d+-of-\d+{re.escape(mark)}"),
    ):
        shape = re.compile(rf"{re.escape(part)}/{shard}\.safetensors")
        shards = sorted(path for path in held if shape.fullmatch(path))
        if f"{part}/{index}" in held and shards:
            return [f"{part}/{index}", *shards]
    return []
