"""What is inside a container: versions, libraries and variables, measured by its own interpreter.

Standard library only and one file: its text is also piped into ``python3 -`` of a container whose
image knows nothing of this module. Prints one JSON object. torch is never imported: what counts is
what its files say.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

VERSION_FILES = (
    "opt/rocm/.info/version",  # up to 7.2.4
    "opt/rocm/core/.info/version",  # from 7.14 on
)
VERSION_GLOBS = ("opt/rocm-*/.info/version", "opt/rocm/core-*/.info/version")
LIBRARY_GLOBS = (
    "opt/rocm*/lib/libamdhip64.so*",
    "opt/rocm/core*/lib/libamdhip64.so*",
    "usr/lib/x86_64-linux-gnu/libamdhip64.so*",
)
PUBLIC_DIR = "/etc/rockiln/public"
SHOWN = re.compile(
    r"^(HSA_|HIP_|ROCR_|ROCM_|ROC_|GPU_|MIOPEN_|PYTORCH_|TORCH_|AMD|HCC_|FLASH_ATTENTION_"
    r"|CUDA_VISIBLE_DEVICES$)"
)
SONAME = re.compile(r"libamdhip64\.so\.(\d+)")


def read_rocm_versions(root: Path) -> dict[str, str]:
    """Release by version file. A link and its target count once."""
    found: dict[str, str] = {}
    seen = set()
    paths = [root / name for name in VERSION_FILES]
    paths += [path for pattern in VERSION_GLOBS for path in sorted(root.glob(pattern))]
    for path in paths:
        if path.is_file() and (real := path.resolve()) not in seen:
            seen.add(real)
            found[f"/{path.relative_to(root)}"] = path.read_text(encoding="utf-8").strip()
    return found


def read_libraries(root: Path, torch_dir: Path | None) -> list[dict[str, str]]:
    """Every libamdhip64 that a loader could find, once by file, with the number of its soname."""
    paths = [path for pattern in LIBRARY_GLOBS for path in sorted(root.glob(pattern))]
    if torch_dir is not None:
        paths += sorted((torch_dir / "lib").glob("libamdhip64*.so*"))
    numbers: dict[Path, str] = {}
    for path in paths:
        real = path.resolve()
        if real.is_file():
            named = SONAME.match(path.name) or SONAME.match(real.name)
            numbers[real] = named[1] if named else numbers.get(real, "")
    return [{"path": str(path), "soname": f"libamdhip64.so.{number}" if number else path.name}
            for path, number in sorted(numbers.items())]  # fmt: skip


def find_torch(paths: list[str]) -> Path | None:
    """Folder of the torch that ``import torch`` would take."""
    for entry in paths:
        if entry and (Path(entry) / "torch" / "version.py").is_file():
            return Path(entry) / "torch"
    return None


def read_torch(folder: Path | None) -> dict[str, Any] | None:
    """Constants of ``torch/version.py``, not run."""
    if folder is None:
        return None
    values: dict[str, Any] = {}
    for node in ast.parse((folder / "version.py").read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
            values[target.id] = value.value
    version = str(values.get("__version__") or "")
    return {
        "version": version,
        "local": version.partition("+")[2] or None,
        "hip": values.get("hip"),
        "cuda": values.get("cuda"),
    }


def read_targets(torch_dir: Path | None) -> list[str]:
    """Targets that the torch libraries carry kernels for, by their rocBLAS files."""
    if torch_dir is None:
        return []
    names = (path.name for path in (torch_dir / "lib" / "rocblas" / "library").glob("*gfx*"))
    return sorted({found for name in names for found in re.findall(r"gfx[0-9a-f]{3,4}", name)})


def read_settings(public_dir: Path) -> dict[str, Any] | None:
    """Backend, device and engine's variables of ``settings.toml``; None where it cannot be read."""
    try:
        # Not in the Python of every image.
        content = importlib.import_module("tomllib").loads(
            (public_dir / "settings.toml").read_text(encoding="utf-8")
        )
    except (ImportError, OSError, ValueError):
        return None
    return {
        "backend": content.get("backend", "cpu"),
        "compute_device": content.get("compute_device", "auto"),
        "engine_environment": content.get("engine_environment", {}),
    }


def measure(root: Path, paths: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Everything, for a root that may be a test's tree."""
    torch_dir = find_torch(paths)
    settings = read_settings(root / environment.get("ROCKILN_PUBLIC_DIR", PUBLIC_DIR).lstrip("/"))
    given = {**environment, **(settings or {}).get("engine_environment", {})}
    return {
        "settings": settings,
        "python": platform.python_version(),
        "rocm_versions": read_rocm_versions(root),
        "torch": read_torch(torch_dir),
        "libraries": read_libraries(root, torch_dir),
        "targets": read_targets(torch_dir),
        "environment": {name: value for name, value in sorted(given.items()) if SHOWN.match(name)},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path("/"), sys.path, dict(os.environ))))  # noqa: T201
