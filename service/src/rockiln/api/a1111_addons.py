"""LoRAs and textual inversions of this host, as A1111 lists them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rockiln.api.a1111_options import model_named
from rockiln.api.services import services
from rockiln.domain.errors import BrokenModelError
from rockiln.registry.embeddings import embedding_files, read_embedding, text_widths
from rockiln.registry.loras import LORAS_FOLDER, lora_files


def loras() -> list[dict[str, Any]]:
    """Paths are those below the models folder: where that is, is the host's business."""
    return [
        {"name": name, "alias": name, "path": f"{LORAS_FOLDER}/{path.name}", "metadata": {}}
        for name, path in lora_files(services().settings.model_dirs).items()
    ]


def embeddings() -> dict[str, dict[str, Any]]:
    """``loaded`` are those that the chosen model can use, ``skipped`` the others."""
    said: dict[str, dict[str, Any]] = {"loaded": {}, "skipped": {}}
    files = embedding_files(services().settings.model_dirs)
    widths = _widths_of_chosen() if files else {}
    for name, path in files.items():
        fits, shape, vectors = _look(path, widths)
        said["loaded" if fits else "skipped"][name] = {
            "step": None,
            "sd_checkpoint": None,
            "sd_checkpoint_name": None,
            "shape": shape,
            "vectors": vectors,
        }
    return said


def _widths_of_chosen() -> dict[str, int]:
    """Of its text encoders; none where the chosen model takes no textual inversions."""
    profile = services().catalogue.models.get(model_named() or "")
    if profile is None or "embeddings" not in profile.features:
        return {}
    try:
        return text_widths(profile)
    except BrokenModelError:  # a request for that model says why
        return {}


def _look(path: Path, widths: Mapping[str, int]) -> tuple[bool, int, int]:
    try:
        found = read_embedding(path)
    except BrokenModelError:  # a request that names it says why
        return False, 0, 0
    return found.widths == widths, max(found.widths.values()), found.vectors
