"""A clock that no change of the date moves and that every process of the host shares."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Tick:
    """Seconds since the boot ``boot``, time asleep included. Comparable within one boot."""

    boot: str
    seconds: float


def now() -> Tick:
    """The present tick."""
    return Tick(_boot(), time.clock_gettime(time.CLOCK_BOOTTIME))


@functools.cache
def _boot() -> str:
    """No process sees two of them."""
    return _BOOT_ID.read_text().strip()
