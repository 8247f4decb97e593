"""One process that uses a store and says what it was promised: ``acks`` hears each promise kept.

    python store_workload.py DATA_DIR ACKS JOBS DEFECT

Run under a recorder of system calls; DEFECT is "none" or one that the checks have to find.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event

from rockiln.settings import Settings
from rockiln.store.store import Store
from support.parameters import parameters
from support.store_life import LIMITS, work

DELETE_EVERY = 5


def main(data_dir: Path, acks: Path, count: int, defect: str) -> None:
    """Submits, makes and deletes; the order of promises is the order of lines."""
    told = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*words: str) -> None:
        os.write(told, f"{' '.join(words)}\n".encode())

    if defect == "files_not_synced":
        os.fsync = lambda _descriptor: None  # type: ignore[assignment]
    store = Store(Settings(public_dir=data_dir, data_dir=data_dir))
    if defect == "database_not_synced":
        event.listen(store.database.engine, "connect", _synchronous_off)
    store.prepare()
    tell("prepared")
    for seed in range(count):
        job = store.jobs.submit(parameters(seed=seed), limits=LIMITS, idempotency_key=f"k{seed}")
        tell("accepted", job.id, str(seed))
        if seed % 3 == 2:  # some wait
            continue
        leased = store.jobs.lease_next(worker="w", seconds=60)
        if leased is None:
            raise RuntimeError("nothing to do")
        done = work(store, *leased)
        tell("published", done.id, str(done.pictures[0].digest))
        if seed % DELETE_EVERY == 1:
            tell("deleting", done.id)
            store.deletion.mark(done.id)
            tell("deleted", done.id)
            store.deletion.finish(fresh_seconds=0)
    store.upkeep.run()
    store.close()


def _synchronous_off(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF").close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
