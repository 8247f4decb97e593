"""Decisions about a GPU, for templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils._gpu_facts import override_for


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gfx_override": override_for}
