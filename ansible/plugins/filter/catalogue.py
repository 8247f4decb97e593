"""The release catalogue's decisions, for templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils._catalogue import (
    driver_line,
    host_packages,
    misfits,
    not_selectable,
    select_release,
    warnings,
    why_not,
    with_lock,
)


def release_misfits(row: Any, name: str, host: Any) -> list[str]:
    """Why this row does not run on this host."""
    return misfits(name, row, host)


def release_warnings(row: Any, name: str, host: Any) -> list[str]:
    """What is said of this row on this host, though it runs."""
    return warnings(name, row, host)


def by_suite(version: str, suite: str) -> dict[str, str]:
    """A version in the form of a row."""
    return {suite: version}


class FilterModule:
    """Filters of the collection."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "select_release": select_release,
            "release_gaps": not_selectable,
            "release_misfits": release_misfits,
            "release_warnings": release_warnings,
            "releases_passed_over": why_not,
            "with_lock": with_lock,
            "driver_line": driver_line,
            "by_suite": by_suite,
            "host_packages": host_packages,
        }
