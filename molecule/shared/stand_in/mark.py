#!/usr/bin/env python3
"""Marks the installed CPU torch as that of a ROCm release: ``mark.py VERSION RELEASE``.

Version and HIP version become the row's, in its files and its package record; the code stays.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path


def mark(version: str, release: str) -> None:
    distribution = importlib.metadata.distribution("torch")
    record = Path(str(distribution.locate_file("")))
    old = record / f"torch-{distribution.version}.dist-info"
    metadata = old / "METADATA"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", text, count=1))
    names = (old / "RECORD").read_text(encoding="utf-8")
    (old / "RECORD").write_text(names.replace(old.name, f"torch-{version}.dist-info"))
    # A folder of a layer below cannot be renamed in overlay file systems.
    shutil.move(old, record / f"torch-{version}.dist-info")
    source = record / "torch" / "version.py"
    text = source.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(__version__\b.*?=) .*$", rf"\1 '{version}'", text)
    text = re.sub(r"(?m)^(hip\b.*?=) .*$", rf"\1 '{release}.0'", text)
    source.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    mark(sys.argv[1], sys.argv[2])
