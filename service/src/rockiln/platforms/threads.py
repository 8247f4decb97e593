"""How many CPU threads this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_V2_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def usable_threads(
    v2_quota: Path = _V2_QUOTA, v1_quota: Path = _V1_QUOTA, v1_period: Path = _V1_PERIOD
) -> int:
    """CPUs this process may run on, or the container's CPU quota rounded up if that is less."""
    cpus = len(os.sched_getaffinity(0))
    quota = _quota(v2_quota, v1_quota, v1_period)
    if quota is None:
        return cpus
    quota_us, period_us = quota
    return max(1, min(cpus, -(-quota_us // period_us)))


def _quota(v2_quota: Path, v1_quota: Path, v1_period: Path) -> tuple[int, int] | None:
    """CPU time per period in microseconds; None without a limit."""
    if v2_quota.is_file():
        quota, period = v2_quota.read_text(encoding="ascii").split()
        return None if quota == "max" else (int(quota), int(period))
    if v1_quota.is_file() and v1_period.is_file():
        quota_us = int(v1_quota.read_text(encoding="ascii"))
        return (quota_us, int(v1_period.read_text(encoding="ascii"))) if quota_us > 0 else None
    return None
