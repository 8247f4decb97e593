"""Writes the table of supported hosts into README.md, from the release catalogue.

python ansible/docs/releases.py            write
python ansible/docs/releases.py --check    exit 1 when README.md says something else
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "ansible" / "roles" / "rocm_catalogue" / "vars" / "main" / "releases.yml"
README = ROOT / "README.md"
BEGIN, END = "<!-- releases: written by ansible/docs/releases.py -->\n", "<!-- /releases -->"
PROOF = {"run": "run by the tests", "resolved": "locks and packages resolve, not run"}


def table(releases: dict[str, Any]) -> str:
    """One line per release and host."""
    lines = [
        "| release | compute | host (x86_64) | proof | torch |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in releases.items():
        compute = ", ".join(row["gfx"]) or "CPU"
        for host in row["host_os"]:
            system = f"{host['name'].capitalize()} {host['version']}"
            version = row["torch"]["version"]
            lines.append(
                f"| `{name}` | {compute} | {system} | {PROOF[host['proof']]} | {version} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit status 1: ``--check`` found another table."""
    releases = yaml.safe_load(CATALOGUE.read_text())["rocm_catalogue_releases"]
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}{table(releases)}{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(written != text)
    README.write_text(written)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
