"""Tests of real hosts.

With ``--hosts=docker://NAME`` (or ``ansible://…``, ``ssh://…``) the files here, by concern, look at
hosts on which bootstrap.sh has run: Molecule's verifier calls them so, and they run on a real host
in the same way. Without it only ``scenarios`` runs: it plays the Molecule scenarios, and these call
the rest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Hosts given: everything but the scenarios. None given: the scenarios alone."""
    if not collection_path.is_file():
        return None
    return (collection_path.parent.name == "scenarios") == bool(config.getoption("hosts")) or None


@pytest.fixture(scope="session")
def catalogue_row() -> dict[str, Any]:
    """The row that this version deploys; expected values come from here."""
    releases: dict[str, Any] = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))[
        "rocm_catalogue_releases"
    ]
    row: dict[str, Any] = releases["cpu"]
    return row


@pytest.fixture
def inspect(host: Any) -> Callable[[str], dict[str, Any]]:
    """What the host's engine says of a container of the service."""

    @functools.cache
    def ask(part: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(
            host.check_output("docker container inspect rockiln-%s", part)
        )
        return found[0]

    return ask


@pytest.fixture
def inside(host: Any) -> Callable[[str, str], Any]:
    """A shell line inside a container of the service: its result."""
    return lambda part, line: host.run("docker exec rockiln-%s bash -c %s", part, line)
