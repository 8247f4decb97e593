"""What a host or a container measures of itself, for the doctor. Reads only."""

from __future__ import annotations

import json
import os
import platform
import resource
from pathlib import Path
from typing import Any

from rockiln.doctor.agreement import agreement, measure_here
from rockiln.doctor.gpu_facts import Roots, gpu_facts, read_text
from rockiln.doctor.measure_engine import measure_engine, measure_inside_container
from rockiln.doctor.measure_service import measure_service, measure_store
from rockiln.platforms.wheel_guard import WheelMismatchError, check_wheels
from rockiln.settings import Settings

Facts = dict[str, Any]
IMAGE_VENV = "/opt/venv"  # of our images alone; a host has /opt/rockiln/venv


def measure(
    settings: Settings, *, settings_fault: str = "", roots: Roots | None = None, prefix: str
) -> Facts:
    """Every fact that ``diagnosis`` reads.

    Args:
        settings_fault: why the settings could not be read, if they could not.
        prefix: of the containers' names.
    """
    trees = roots or Roots()
    in_container = Path("/.dockerenv").exists() and Path(IMAGE_VENV).is_dir()
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
    # The api's image has neither torch nor the means to see the worker's.
    blind = in_container and not Path(IMAGE_VENV, "constraints.txt").exists()
    facts["wheel_fault"] = _wheels(settings) if in_container and not blind else ""
    facts["alignment"] = None if blind else _alignment(settings, host, facts, prefix)
    caches = settings.cache_dir / "kernels"
    facts["kernel_caches"] = len(os.listdir(caches)) if _readable(caches) else None
    return facts


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
    # A container mounts the store's folder and not the one above it.
    data = settings.store_dir if settings.store_dir.is_dir() else settings.data_dir
    total, free, inodes = _space(data) if data.is_dir() else (None,) * 3
    engine = Path("/var/lib/docker")
    return {
        "data_dir": str(settings.data_dir),
        "data_total_bytes": total,
        "data_free_bytes": free,
        "data_free_inodes": inodes,
        "data_mount": mount_of(data, read_text(trees.proc / "self/mounts")),
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
    if not host.get("row"):
        return None
    inside: dict[str, Any] | None
    if facts["in_container"]:
        inside, image = measure_here(settings), None
    else:
        worker = facts["containers"].get(f"{prefix}-worker")
        if worker is None or worker["status"] != "running":
            return None  # the findings about the engine say so
        inside = measure_inside_container(f"{prefix}-worker")
        image = {
            "recorded": facts["recorded_images"].get(f"{prefix}-worker"),
            "running": worker["image"],
        }
    return agreement(host, settings, inside=inside, gpu=facts["gpu"], image=image)


def _readable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
