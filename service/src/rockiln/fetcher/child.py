"""``python -m rockiln.fetcher.child TASK PARENT``: does one task of the store, then leaves.

A process of its own: a crash, a kill or a leak ends with it, and what was downloaded stays.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from rockiln.domain.errors import BrokenModelError
from rockiln.fetcher.download import Download, NoSpaceError, Place, drop, retire, sweep, withdraw
from rockiln.fetcher.hub import Hub, HubError, HubGatedError
from rockiln.fetcher.token import read_token
from rockiln.fetcher.transfer import CancelledError
from rockiln.registry.checkpoint import files_of_checkpoint
from rockiln.registry.known_models import KnownModel, known_models
from rockiln.settings import Settings
from rockiln.store.artefacts import sync_folder
from rockiln.store.model_tasks import ModelTask
from rockiln.store.store import Store
from rockiln.telemetry.logs import configure_logging

log = structlog.get_logger()

_TOLD_EVERY_SECONDS = 0.5
_CHUNK_BYTES = 8 << 20
_PR_SET_PDEATHSIG = 1


def main(seq: int, parent_pid: int) -> int:
    """0: the task has ended, well or with a reason in the store."""
    _tie_to(parent_pid)
    settings = Settings()
    configure_logging(settings.log_level)
    store = Store(settings)
    try:
        task = store.model_tasks.start(seq)
        if task is not None:
            _do(settings, store, task)
    finally:
        store.close()
    return 0


def _do(settings: Settings, store: Store, task: ModelTask) -> None:
    works = {"pull": _pull, "verify": _verify, "remove": _remove}
    tasks, where = store.model_tasks, log.bind(model=task.model_id, kind=task.kind)
    try:
        detail = works[task.kind](settings, store, task)
    except CancelledError:
        drop(Place(settings.own_models_dir).staging(task.model_id))
        drop(Place(settings.own_models_dir).downloads / f"{task.model_id}.parts")
        tasks.end(task.seq, "cancelled")
    except HubGatedError as error:
        tasks.end(task.seq, "failed", _gated(settings, task.model_id, error), reason="gated")
    except BrokenModelError as error:
        tasks.end(task.seq, "failed", error.detail, reason="broken")
    except (HubError, NoSpaceError) as error:
        tasks.end(task.seq, "failed", error.detail, reason="failed")
    except OSError as error:
        tasks.end(task.seq, "failed", f"{settings.own_models_dir}: {error}", reason="failed")
    else:
        tasks.end(task.seq, "done", detail)
    ended = tasks.get(task.seq)
    if ended is not None:
        where.info("model_task.ended", state=ended.state, detail=ended.detail)


def _pull(settings: Settings, store: Store, task: ModelTask) -> str:
    model, tasks = _known(task.model_id), store.model_tasks
    repository = model.repository or ""
    locked = tasks.locks().get(repository)
    lock = Download(
        hub=Hub(
            settings.hub_endpoint,
            read_token(settings),
            stall_seconds=settings.hub_stall_seconds,
        ),
        model=model,
        place=Place(settings.own_models_dir),
        keep_free_bytes=settings.min_free_disk_bytes,
        backoff_seconds=settings.hub_backoff_seconds,
        pin=lambda wanted: tasks.lock(repository, wanted, ruled=model.commit is not None),
        progress=_Teller(store, task.seq),
        pinned_commit=model.commit or (locked.commit if locked else None),
        hub_cache=settings.hub_cache_dir,
        model_dirs=settings.model_dirs,
    ).run()
    return f"commit {lock.commit}"


def _verify(settings: Settings, store: Store, task: ModelTask) -> str:
    """Reads every file again and compares with what was downloaded, or with the catalogue.

    A model with a damaged file is taken out of service; what is sound of it waits for a pull.
    """
    place = Place(settings.own_models_dir)
    folder, files = _files_held(place, task.model_id)
    in_a_folder = folder != place.models
    model = known_models().get(task.model_id)
    lock = store.model_tasks.locks().get(model.repository or "") if model else None
    if model and (in_a_folder == bool(model.single_file) or not (in_a_folder or lock)):
        model = lock = None  # the owner's, under the name of a known model
    expected = {file.path: file.sha256 for file in model.files if file.sha256} if model else {}
    expected |= lock.files if lock else {}
    total_bytes, done_bytes = sum(path.stat().st_size for path in files), 0
    damaged: list[str] = []
    tell = _Teller(store, task.seq)
    held: set[str] = set()
    for path in files:
        name, digest = path.relative_to(folder).as_posix(), hashlib.sha256()
        if model and model.single_file and path == place.single_file(model.id):
            name = model.single_file
        held.add(name)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                done_bytes += len(chunk)
                tell(done_bytes, total_bytes)
        if expected.get(name) not in {None, digest.hexdigest()}:
            damaged.append(f"{name} has SHA-256 {digest.hexdigest()}, not {expected[name]}")
            path.unlink()
    damaged += [f"{name} is missing" for name in sorted(set(lock.files if lock else ()) - held)]
    if damaged:
        if in_a_folder:
            withdraw(place, task.model_id)
        raise BrokenModelError(
            f"{'; '.join(damaged)[:2000]}; next: rockiln models pull {task.model_id}"
        )
    checked = len(held & set(expected))
    return f"{checked} of {len(held)} files have the digest that is known of them"


def _remove(settings: Settings, store: Store, task: ModelTask) -> str:
    jobs = store.jobs.open_jobs_of(task.model_id)
    if jobs:
        raise HubError(f"{jobs} jobs that came in meanwhile use it")
    place = Place(settings.own_models_dir)
    if place.model(task.model_id).exists():
        retire(place, task.model_id)
    else:
        for path in files_of_checkpoint(place.models, task.model_id):
            path.unlink()
        sync_folder(place.models)
    sweep(place)
    drop(place.staging(task.model_id))
    drop(place.downloads / f"{task.model_id}.parts")
    return "removed"


def _files_held(place: Place, model_id: str) -> tuple[Path, list[Path]]:
    """A model's files, and the folder that their names start from."""
    folder = place.model(model_id)
    if folder.exists():
        return folder, [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = files_of_checkpoint(place.models, model_id)
    return place.models, [path for path in files if path.is_file()]


def _known(model_id: str) -> KnownModel:
    model = known_models().get(model_id)
    if model is None or model.bundled or model.unsupported:
        raise HubError(f"this version does not know how to get {model_id}")
    return model


def _gated(settings: Settings, model_id: str, error: HubGatedError) -> str:
    model = _known(model_id)
    needed = "accept the licence there with the account of the token"
    if read_token(settings) is None:
        needed = "accept the licence there and give the fetcher a token of that account"
    return (
        f"the hub refuses ({error.detail}): {needed}: {model.page} , "
        f"then: rockiln models pull {model_id} --accept-licence"
    )


class _Teller:
    """Writes progress into the store, not more often than anybody looks."""

    def __init__(
        self, store: Store, seq: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._seq = seq
        self._monotonic = monotonic
        self._told_at = -_TOLD_EVERY_SECONDS

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Raises CancelledError."""
        now = self._monotonic()
        if now - self._told_at < _TOLD_EVERY_SECONDS and done_bytes < total_bytes:
            return
        self._told_at = now
        if not self._store.model_tasks.progress(self._seq, done_bytes, bytes_total=total_bytes):
            raise CancelledError("cancelled")


def _tie_to(parent_pid: int) -> None:
    """SIGTERM when the fetcher dies, even by SIGKILL: the next one starts a child of its own."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the fetcher blocks what it waits for
    if os.getppid() != parent_pid:  # it died before the lines above
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
