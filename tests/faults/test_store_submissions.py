"""R23, R27: repeats with one key each, and a PostgreSQL that is cut while it works."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from rockiln.settings import Settings
from rockiln.store import submissions
from rockiln.store.store import Store
from support.parameters import parameters
from support.postgres import PostgresServer
from support.service import eventually
from support.store_life import LIMITS, make_job, published, work


@pytest.fixture(params=["sqlite", "postgresql"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    store = Store(Settings(public_dir=tmp_path, data_dir=tmp_path / "data", database_url=url))
    store.prepare()
    yield store
    store.close()


def submit_again_and_again(store: Store, keys: int, calls: int, threads: int = 8) -> set[str]:
    """Each key is sent ``calls / keys`` times, in any order, from several threads at once."""
    sent = [n % keys for n in range(calls)]
    random.Random(27).shuffle(sent)  # noqa: S311 (no secret)

    def send(number: int) -> tuple[int, str]:
        key = f"key-{number}"
        job = store.jobs.submit(
            parameters(seed=number), limits=LIMITS, idempotency_key=key, request_digest=key
        )
        return number, job.id

    with ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(send, sent))
    by_key: dict[int, set[str]] = {}
    for number, job_id in answers:
        by_key.setdefault(number, set()).add(job_id)
    assert {len(ids) for ids in by_key.values()} == {1}  # every repeat heard of the same job
    return {job_id for _, job_id in answers}


def test_a_thousand_submissions_repeated(
    store: Store, sizes: Callable[[int, int], int], figures: Callable[..., None]
) -> None:
    keys, calls = sizes(100, 1000), sizes(1000, 10_000)
    ids = submit_again_and_again(store, keys, calls)
    held = store.jobs.page(limit=2 * keys)
    figures(database=store.database.engine.dialect.name, calls=calls, keys=keys, jobs=len(held))
    assert {job.id for job in held} == ids
    assert len(held) == keys


def test_the_check_finds_a_store_that_forgets_keys(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "_stored_key", lambda _owner, _key: None)
    with pytest.raises(AssertionError):
        submit_again_and_again(store, keys=5, calls=20)


def test_the_index_keeps_a_key_unique_where_the_look_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that both looked before either wrote: the database refuses the second."""
    looks = submissions._repeat
    blind = iter([True, True, False])
    monkeypatch.setattr(
        submissions, "_repeat", lambda *given: None if next(blind) else looks(*given)
    )
    first, second = (
        store.jobs.submit(parameters(), limits=LIMITS, idempotency_key="k", request_digest="d")
        for _ in range(2)
    )
    assert first.id == second.id


def _service(store: Store, done: dict[int, str], stop: threading.Event, seed: int) -> None:
    """Submits and makes jobs; every answer that came is written down."""
    while not stop.is_set():
        try:
            job = store.jobs.submit(parameters(seed=seed), limits=LIMITS, idempotency_key=f"{seed}")
        except OperationalError:
            continue  # refused aloud: the client sends it again
        done[seed] = job.id
        seed += 10


def _went_on(made: list[str], errors: list[BaseException], seen: int) -> bool:
    return len(made) > seen or bool(errors)


def test_connections_cut_again_and_again_lose_and_double_nothing(
    postgres: PostgresServer,
    tmp_path: Path,
    sizes: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    """Two clients and a worker; connections are ended, and once the server crashes."""
    url = postgres.new_database()
    store = Store(Settings(public_dir=tmp_path, data_dir=tmp_path / "data", database_url=url))
    store.prepare()
    stop, accepted = threading.Event(), [dict[int, str](), dict[int, str]()]
    made: list[str] = []

    def maker() -> None:
        while not stop.is_set():
            leased = store.jobs.lease_next(worker="w", seconds=600)
            if leased is not None:
                made.append(work(store, *leased).id)

    errors: list[BaseException] = []

    def guarded(do: Callable[[], None]) -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            errors.append(error)

    threads = [
        threading.Thread(target=guarded, args=[partial(_service, store, accepted[n], stop, n)])
        for n in range(2)
    ]
    threads.append(threading.Thread(target=guarded, args=[maker]))
    for thread in threads:
        thread.start()
    cuts, rounds = 0, sizes(20, 200)
    try:
        for number in range(rounds):
            seen = len(made)
            eventually(partial(_went_on, made, errors, seen), "the worker goes on")
            cuts += postgres.cut_connections()
            if number == rounds // 2:
                postgres.stop(signal.SIGQUIT)
                postgres.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    ids = {job_id for answers in accepted for job_id in answers.values()}
    held = {job.id: job for job in store.jobs.page(limit=100_000)}
    figures(cuts=cuts, crashes=1, accepted=len(ids), made=len(made), lost=len(ids - set(held)))
    assert ids <= set(held)
    keys = sum(map(len, accepted))
    assert len(held) - keys in {0, 1, 2}  # what was sent last and not heard of
    assert len(made) == len(set(made))
    assert [job for job in made if held[job].state != "done"] == []
    events = store.events.after(None, 0, 1_000_000)
    published_events = [event.job_id for event in events if event.kind == "published"]
    assert len(published_events) == len(set(published_events))  # nothing was published twice
    assert published(store, make_job(store, seed=5))
    store.close()
