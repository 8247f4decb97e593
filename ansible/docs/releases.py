#!/usr/bin/env python3
"""Writes the table of supported hosts, from the release catalogue, between the marks of README.md.

``releases.py`` writes; ``releases.py --check`` fails when the table is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ROOT / "ansible/roles/rocm_catalogue/vars/main/releases.yml"
START, END = "<!-- releases: written by ansible/docs/releases.py -->", "<!-- /releases -->"
PROOF = {"run": "run in CI", "resolved": "resolved, not run"}


def table(releases: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| release | backend | host | proof | image | torch |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in releases.items():
        image = f"Debian {row['rootfs']['suite']}, Python {row['python']}"
        lines += [
            f"| `{name}` | {row['backend']} | {entry['name'].capitalize()} {entry['version']} "
            f"| {PROOF[entry['proof']]} | {image} | {row['torch']['version']} |"
            for entry in row["host_os"]
        ]
    return "\n".join(lines)


def with_table(text: str, releases: dict[str, dict[str, Any]]) -> str:
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table(releases)}\n{END}{after}"


def main() -> int:
    readme = ROOT / "README.md"
    releases = yaml.safe_load(RELEASES.read_text(encoding="utf-8"))["rocm_catalogue_releases"]
    text = readme.read_text(encoding="utf-8")
    wanted = with_table(text, releases)
    if "--check" in sys.argv[1:]:
        return 0 if wanted == text else 1
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
