"""How much memory the host, or the container this process is in, has. No torch."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_V2_LIMIT = Path("/sys/fs/cgroup/memory.max")
_V1_LIMIT = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
_KIB = 1024


def host_memory_bytes(
    meminfo: Path = _MEMINFO, v2_limit: Path = _V2_LIMIT, v1_limit: Path = _V1_LIMIT
) -> int:
    """Bytes in all; the container's limit if that is less."""
    total_bytes = meminfo_bytes(meminfo)["MemTotal"]
    for path in (v2_limit, v1_limit):
        if path.is_file():
            said = path.read_text(encoding="ascii").strip()
            return total_bytes if said == "max" else min(total_bytes, int(said))
    return total_bytes


def meminfo_bytes(path: Path = _MEMINFO) -> dict[str, int]:
    """The fields of a ``/proc/meminfo`` file that are sizes."""
    pairs = (line.split(":") for line in path.read_text(encoding="ascii").splitlines())
    return {name: int(value.split()[0]) * _KIB for name, value in pairs}
