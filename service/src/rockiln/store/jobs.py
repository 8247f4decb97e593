"""Jobs in the database: what clients do to them and what workers do to them."""

from __future__ import annotations

import time
from collections.abc import Callable

from rockiln.store import boot_clock
from rockiln.store.boot_clock import Tick
from rockiln.store.database import Database
from rockiln.store.submissions import Submissions
from rockiln.store.work import Work


class JobStore(Submissions, Work):
    """Every change to a job is one transaction here, checked against the life of a job.

    Args:
        clock: seconds since the epoch, for what people read.
        tick: the boot clock, for leases.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        tick: Callable[[], Tick] = boot_clock.now,
    ) -> None:
        self._database = database
        self._clock = clock
        self._tick = tick
