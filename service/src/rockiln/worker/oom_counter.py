"""How often the kernel killed for memory: in this control group, else on the whole host.

cgroup v2: ``memory.events``; v1: ``memory.oom_control``; where neither tells: ``/proc/vmstat``
(linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
"""

from __future__ import annotations

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_NAME = "oom_kill"


def counter_file(pid: int | str = "self", *, proc: Path = Path("/proc")) -> Path | None:
    """The file that counts the kills for a process; None if none can be read.

    Inside a container the group's own path is often not the mounted one: its root is tried too.
    """
    try:
        groups = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        groups = []
    candidates = []
    for line in groups:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for root in (_CGROUPS, _CGROUPS / "unified"):
                candidates += [root / path.lstrip("/") / "memory.events", root / "memory.events"]
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            candidates += [root / path.lstrip("/") / "memory.oom_control"]
            candidates += [root / "memory.oom_control"]
    candidates.append(proc / "vmstat")
    return next((path for path in candidates if read_counter(path) is not None), None)


def read_counter(path: Path | None) -> int | None:
    """The count, or None if the file cannot be read or does not count."""
    if path is None:
        return None
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(" ")
        if name == _NAME and value.strip().isdigit():
            return int(value)
    return None
