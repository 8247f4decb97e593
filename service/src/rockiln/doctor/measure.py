"""What a host or a container measures of itself, for the doctor. Reads only."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from rockiln.doctor.alignment import compare
from rockiln.doctor.environment_rules import lint_environment
from rockiln.doctor.gpu_facts import Roots, gpu_facts, read_text
from rockiln.doctor.inside import measure as measure_inside
from rockiln.doctor.measure_engine import measure_engine, measure_inside_container
from rockiln.doctor.measure_service import measure_service, measure_store
from rockiln.platforms.wheel_guard import WheelMismatchError, check_wheels
from rockiln.settings import Settings

Facts = dict[str, Any]


def measure(
    settings: Settings, *, settings_fault: str = "", roots: Roots | None = None, prefix: str
) -> Facts:
    """Every fact that ``diagnosis`` reads.

    Args:
        settings_fault: why the settings could not be read, if they could not.
        prefix: of the containers' names.
    """
    trees = roots or Roots()
    in_container = Path("/.dockerenv").exists() and settings.public_dir.is_dir() and _is_worker()
    facts: Facts = {
        "in_container": in_container,
        "settings_fault": settings_fault,
        "stale_seconds": settings.worker_stale_seconds,
        "waiting_jobs_limit": settings.queue_max_jobs,
        "data_floor_bytes": settings.min_free_disk_bytes,
        "compute_device": settings.compute_device,
        "backend": settings.backend,
    }
    host = _host_file(settings, facts)
    facts["row"] = host.get("row")
    facts["gpu"] = gpu_facts(trees)
    facts |= _host(trees) | _memory(trees) | _limits(trees)
    facts |= _disk(settings, trees)
    given = {**os.environ, **settings.engine_environment}
    facts["visible_devices"] = given.get("ROCR_VISIBLE_DEVICES") or given.get("HIP_VISIBLE_DEVICES")
    facts |= measure_engine(host, prefix, skip=in_container)
    facts |= measure_store(settings)
    facts |= measure_service(settings, skip=in_container)
    facts["wheel_fault"] = _wheels(settings) if in_container else ""
    facts["alignment"] = _alignment(settings, host, facts, prefix)
    caches = settings.cache_dir / "kernels"
    facts["kernel_caches"] = len(os.listdir(caches)) if _readable(caches) else None
    return facts


def _is_worker() -> bool:
    return Path("/opt/venv/constraints.txt").exists()


def _host_file(settings: Settings, facts: Facts) -> dict[str, Any]:
    path = settings.public_dir / "host.json"
    facts["host_file_path"] = str(path)
    try:
        host = json.loads(path.read_bytes())
    except FileNotFoundError:
        facts["host_file"] = "missing"
        return {}
    except (OSError, ValueError) as error:
        facts["host_file"] = f"{path}: {error}"
        return {}
    facts["host_file"] = "read" if isinstance(host, dict) else f"{path} is no JSON object"
    return host if isinstance(host, dict) else {}


def _host(trees: Roots) -> Facts:
    release = dict(
        line.replace('"', "").split("=", 1)
        for line in read_text(trees.etc / "os-release").splitlines()
        if "=" in line
    )
    return {
        "os": f"{release.get('ID', '')} {release.get('VERSION_ID', '')}",
        "architecture": platform.machine(),
        "kernel": read_text(trees.proc / "sys/kernel/osrelease"),
        "uid": os.getuid(),
        "user_gids": sorted({os.getgid(), *os.getgroups()}),
        "python": platform.python_version(),
    }


def _memory(trees: Roots) -> Facts:
    values = {
        fields[0].rstrip(":"): int(fields[1]) * 1024
        for line in read_text(trees.proc / "meminfo").splitlines()
        if len(fields := line.split()) > 1 and fields[1].isdigit()
    }
    return {
        "memory_bytes": values.get("MemTotal", 0),
        "memory_available_bytes": values.get("MemAvailable", 0),
        "swap_bytes": values.get("SwapTotal", 0),
    }


def _limits(trees: Roots) -> Facts:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    unified = (trees.sys / "fs/cgroup/cgroup.controllers").exists()
    shm = trees.dev / "shm"
    return {
        "memlock_bytes": soft,
        "cgroup_version": 2 if unified else 1 if (trees.sys / "fs/cgroup").is_dir() else None,
        "shm_bytes": _space(shm)[0] if shm.is_dir() else None,
    }


def _disk(settings: Settings, trees: Roots) -> Facts:
    total, free, inodes = _space(settings.data_dir) if settings.data_dir.is_dir() else (None,) * 3
    engine = Path("/var/lib/docker")
    return {
        "data_dir": str(settings.data_dir),
        "data_total_bytes": total,
        "data_free_bytes": free,
        "data_free_inodes": inodes,
        "data_mount": mount_of(settings.data_dir, read_text(trees.proc / "self/mounts")),
        "engine_free_bytes": _space(engine)[1] if engine.is_dir() else None,
    }


def mount_of(path: Path, mounts: str) -> dict[str, Any] | None:
    """The mount that a path is on: ``point``, ``type`` and ``options``."""
    best: dict[str, Any] | None = None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 4:  # noqa: PLR2004 (device, point, type, options)
            continue
        point = Path(fields[1].replace("\\040", " "))
        inside = path == point or point in path.parents
        if inside and (best is None or len(str(point)) >= len(best["point"])):
            best = {"point": str(point), "type": fields[2], "options": fields[3].split(",")}
    return best


def _space(path: Path) -> tuple[int, int, int | None]:
    """Size, free bytes and free inodes (None where the file system counts none)."""
    found = os.statvfs(path)
    inodes = found.f_favail if found.f_files else None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize, inodes


def _wheels(settings: Settings) -> str:
    try:
        check_wheels(settings.backend)
    except WheelMismatchError as error:
        return str(error)
    return ""


def _alignment(
    settings: Settings, host: dict[str, Any], facts: Facts, prefix: str
) -> list[dict[str, str]] | None:
    """The layers, as verify, worker and ``/readyz`` decide them; None where nothing is known."""
    row = host.get("row")
    if not row:
        return None
    if facts["in_container"]:
        given = {**os.environ, **settings.engine_environment}
        inside: dict[str, Any] | None = measure_inside(Path("/"), sys.path, given)
        image = None
    else:
        worker = facts["containers"].get(f"{prefix}-worker")
        if worker is None or worker["status"] != "running":
            return None  # the findings about the engine say so
        inside = measure_inside_container(f"{prefix}-worker")
        image = {
            "recorded": facts["recorded_images"].get(f"{prefix}-worker"),
            "running": worker["image"],
        }
    known = facts["gpu"]
    gfx = next((each["gfx"] for each in known["gpus"] if each["uuid"] == known["chosen"]), "")
    lint = lint_environment(
        (inside or {}).get("environment", {}),
        torch_version=((inside or {}).get("torch") or {}).get("version", ""),
        gfx=gfx,
        row=row,
    )
    return compare(
        host["release"],
        row,
        inside=inside,
        gpu=known,
        drivers=host.get("drivers"),
        image=image,
        settings={"backend": settings.backend, "compute_device": settings.compute_device},
        lint=lint,
    )


def _readable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
