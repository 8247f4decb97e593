"""The key of this host's kernel cache, read before torch is imported. No torch."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

from rockiln.domain.kernel_cache import CacheKey
from rockiln.platforms.wheel_guard import read_torch_build

_TOPOLOGY = Path("/sys/class/kfd/kfd/topology/nodes")
_ROCM_VERSION = Path("/opt/rocm/.info/version")


def read_cache_key(
    host_file: Path | None,
    *,
    topology: Path = _TOPOLOGY,
    rocm_version: Path = _ROCM_VERSION,
    torch_version: Path | None = None,
) -> CacheKey:
    """The key as the kernel's driver, ROCm's own file, torch's files and the host say.

    A part that cannot be read is empty: then it is no reason to tell caches apart.

    Args:
        host_file: ``host.json``, which names the worker's image; None outside a container.
        torch_version: torch's ``version.py``; the one that would be imported if left out.
    """
    version_file = torch_version or _torch_version_file()
    build = None if version_file is None else read_torch_build(version_file)
    rocm = rocm_version.read_text(encoding="utf-8").strip() if rocm_version.is_file() else ""
    return CacheKey(
        gfx=_overridden_gfx(os.environ.get("HSA_OVERRIDE_GFX_VERSION", "")) or _first_gfx(topology),
        rocm=rocm or ((build.hip or build.cuda or "") if build is not None else ""),
        torch="" if build is None else build.version,
        image=_image_digest(host_file),
    )


def _overridden_gfx(version: str) -> str:
    """ "10.3.0" means that kernels are compiled for gfx1030."""
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):  # noqa: PLR2004 (a.b.c)
        return ""
    return f"gfx{int(parts[0])}{int(parts[1]):x}{int(parts[2]):x}"


def _first_gfx(topology: Path) -> str:
    """The graphics version of the first node that has one; CPU nodes say 0."""
    if not topology.is_dir():
        return ""
    for node in sorted(topology.iterdir(), key=lambda path: (len(path.name), path.name)):
        properties = node / "properties"
        if not properties.is_file():
            continue
        fields = dict(
            line.split(maxsplit=1) for line in properties.read_text().splitlines() if " " in line
        )
        number = int(fields.get("gfx_target_version", 0))
        if number:
            return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"
    return ""


def _torch_version_file() -> Path | None:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).with_name("version.py")


def _image_digest(host_file: Path | None) -> str:
    if host_file is None or not host_file.is_file():
        return ""
    images = json.loads(host_file.read_bytes()).get("images") or {}
    worker = images.get("worker") or {}
    return str(worker.get("digest") or "")
