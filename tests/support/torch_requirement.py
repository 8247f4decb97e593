"""Prints how pip gets the torch of the cpu row: a requirement with its hash, then where from.

Used by tests/run. Versions stand in the release catalogue alone; a wheel folder of the
host (PIP_FIND_LINKS) goes before the row's index, so a machine without a way there can have one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = ROOT / "ansible" / "roles" / "rocm_catalogue" / "vars" / "main" / "releases.yml"


def main() -> int:
    """Exit status 1: the row has no wheel for this Python."""
    torch = yaml.safe_load(CATALOGUE.read_text())["rocm_catalogue_releases"]["cpu"]["torch"]
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = torch["wheels"].get(tag)
    if wheel is None:
        known = ", ".join(torch["wheels"])
        sys.stderr.write(f"torch {torch['version']}: no wheel for {tag}, only for {known}\n")
        return 1
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    at_hand = any((Path(folder) / wheel["file"]).is_file() for folder in folders)
    source = "--no-index" if at_hand else f"--index-url {torch['index']}"
    sys.stdout.write(f"{source}\ntorch=={torch['version']} --hash=sha256:{wheel['sha256']}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
