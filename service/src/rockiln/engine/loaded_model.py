"""A model in memory, ready to work, and what works beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rockiln.domain.model import ModelProfile
from rockiln.engine.families.interface import Components, Family
from rockiln.engine.placement import Placement


@dataclass(eq=False)
class LoadedParts:
    """Attributes:
    undo: what each applied policy found, under its name, to put it back.
    """

    components: Components
    placement: Placement
    undo: dict[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass(eq=False)
class LoadedModel(LoadedParts):
    """Attributes:
    revision: SHA-256 over the folder's files.
    """

    profile: ModelProfile
    revision: str
    family: Family
