"""What is asked of a single file that somebody spoilt: it is refused, and nothing of it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from rockiln.domain.errors import RockilnError
from rockiln.engine.families.interface import Family
from rockiln.registry import load_catalogue

# Spoils the file "hostile" in a models folder; what runs of it would make the second path.
Spoil = Callable[[Path, Path], object]


def assert_refused(root: Path, spoil: Spoil, words: str) -> None:
    canary = root.parent / "canary"
    spoil(root, canary)
    catalogue = load_catalogue([root])
    assert "hostile" not in catalogue.models
    assert words in catalogue.broken["hostile"]
    assert len(catalogue.broken["hostile"]) < 500
    assert not canary.exists()


def assert_load_runs_nothing(root: Path, spoil: Spoil, family: Family, name: str) -> None:
    """Past the gate, with the configs of the model "lender"."""
    canary = root.parent / "canary"
    spoil(root, canary)
    with contextlib.suppress(RockilnError, OSError):
        family.load(root / "lender", torch.float32, torch.device("cpu"), root / name)
    assert not canary.exists()
