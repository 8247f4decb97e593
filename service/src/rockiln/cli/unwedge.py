"""``rockiln unwedge``: the operator's word that a GPU may work again. The GPU has to prove it."""

from __future__ import annotations

import sys
import time

from rockiln.cli.exit_codes import FAILED, USAGE
from rockiln.settings import Settings
from rockiln.store.records import Worker, WorkerState
from rockiln.store.store import Store

_POLL_SECONDS = 0.25


def run_unwedge(settings: Settings, name: str) -> int:
    """0: every worker that was asked works; 1: one does not; 2: no such worker."""
    store = Store(settings)
    try:
        workers = {worker.name: worker for worker in store.workers.all()}
        if name and name not in workers:
            known = ", ".join(workers) or "none"
            print(f"rockiln: no worker {name!r}; there are: {known}", file=sys.stderr)
            return USAGE
        wedged = [
            worker
            for worker in workers.values()
            if worker.state is WorkerState.WEDGED and name in {"", worker.name}
        ]
        if not wedged:
            print("no worker is wedged")
        proven = [_prove(store, worker, settings) for worker in wedged]
        return 0 if all(proven) else FAILED
    finally:
        store.close()


def _prove(store: Store, wedged: Worker, settings: Settings) -> bool:
    """Asks one, waits for what comes of it, and tells."""
    print(f"{wedged.name}: tries its GPU, for {settings.start_seconds:g} s at most", flush=True)
    deaths = _deaths(wedged)
    store.workers.ask_for_proof(wedged.name)
    store.wake("worker")
    give_up_at = time.monotonic() + settings.start_seconds
    while time.monotonic() < give_up_at:
        time.sleep(_POLL_SECONDS)
        now = next(each for each in store.workers.all() if each.name == wedged.name)
        if now.state in {WorkerState.READY, WorkerState.BUSY}:
            print(f"{wedged.name}: made its proof picture and takes jobs again")
            return True
        if _deaths(now) > deaths:
            break
    print(
        f"{wedged.name}: still wedged: {wedged.detail}. Next: dmesg; reset the GPU and ask again, "
        "or reboot the host",
        file=sys.stderr,
    )
    return False


def _deaths(worker: Worker) -> int:
    restarts = (worker.health or {}).get("restarts", {})
    return int(restarts.get("deaths_in_window", 0))
