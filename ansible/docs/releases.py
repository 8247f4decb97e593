#!/usr/bin/env python3
"""Writes the tables of releases, from the catalogue, between the marks of two pages.

``releases.py`` writes; ``releases.py --check`` fails when a table is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ansible/collections"))

from ansible_collections.rockiln.host.plugins.module_utils._catalogue import (  # noqa: E402
    is_pinned,
    lacks,
    not_selectable,
    state,
)

RELEASES = ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml"
START, END = "<!-- releases: written by ansible/docs/releases.py -->", "<!-- /releases -->"
PROOF = {"run": "run in CI", "resolved": "resolved, not run", "listed": "listed by the vendor"}
Rows = Mapping[str, Mapping[str, Any]]


def supported(releases: Rows) -> str:
    """Where the service installs: every system of the CPU's row, and the pinned ROCm rows."""
    lines = [
        "| release | backend | host | proof | image | torch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in releases.items():
        if row["backend"] == "cpu":
            image = f"Debian {row['rootfs']['suite']}, Python {row['python']}"
            lines += [
                f"| `{name}` | {row['backend']} | {entry['name'].capitalize()} {entry['version']} "
                f"| {PROOF[entry['proof']]} | {image} | {row['torch']['version']} |"
                for entry in row["host_os"]
            ]
        elif is_pinned(row):
            lines.append(
                f"| `{name}` | rocm | {systems(row)} | stand-ins, no card "
                f"| `{row['image']['tag']}` | {row['torch']['version']} |"
            )
    return "\n".join(lines)


def systems(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{entry['name'].capitalize()} {entry['version']}" for entry in row["host_os"])


def every(releases: Rows) -> str:
    """Every row with its state and what no source gives."""
    lines = [
        "| release | line | state | driver lines | systems | lacks |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in releases.items():
        if row["backend"] == "cpu":
            continue
        window = row["kernel_driver"]["window"]
        driver = f"{window['oldest']} … {window['newest']}" if window else "not known"
        missing = "; ".join([*not_selectable(row), ", ".join(f"`{key}`" for key in lacks(row))])
        lines.append(
            f"| `{name}` | {row['line']} | {state(row)} | {driver} | {systems(row) or 'not known'} "
            f"| {missing.strip('; ') or 'nothing'} |"
        )
    return "\n".join(lines)


PAGES: dict[Path, Callable[[Rows], str]] = {
    ROOT / "README.md": supported,
    ROOT / "ansible/docs/catalogue.md": every,
}


def with_table(text: str, table: str) -> str:
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table}\n{END}{after}"


def main() -> int:
    releases = yaml.safe_load(RELEASES.read_text(encoding="utf-8"))["rocm_catalogue_releases"]
    stale = 0
    for page, table in PAGES.items():
        text = page.read_text(encoding="utf-8")
        wanted = with_table(text, table(releases))
        stale += wanted != text
        if "--check" not in sys.argv[1:]:
            page.write_text(wanted, encoding="utf-8")
    return min(stale, 1) if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
