"""R23, R27: repeats with one key each, and a PostgreSQL that is cut while it works."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self

import pytest
from sqlalchemy.exc import OperationalError

from rockiln.settings import Settings
from rockiln.store import submissions
from rockiln.store.store import Store
from support.half_open import HalfOpenLine
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


class Traffic:
    """Two clients and a worker on one store, until the block ends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: list[str] = []
        self._accepted = [dict[int, str](), dict[int, str]()]
        self._errors: list[BaseException] = []
        self._stop = threading.Event()
        clients = [partial(_service, store, self._accepted[n], self._stop, n) for n in range(2)]
        self._threads = [
            threading.Thread(target=self._guarded, args=[do]) for do in (*clients, self._make)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def goes_on(self) -> None:
        seen = len(self.made)
        eventually(partial(_went_on, self.made, self._errors, seen), "the worker goes on")

    def check(self) -> dict[str, int]:
        """Nothing was lost, nothing was done twice. Returns what was counted."""
        made, store = self.made, self.store
        assert self._errors == []
        ids = {job_id for answers in self._accepted for job_id in answers.values()}
        held = {job.id: job for job in store.jobs.page(limit=100_000)}
        assert ids <= set(held)
        keys = sum(map(len, self._accepted))
        assert len(held) - keys in {0, 1, 2}  # what was sent last and not heard of
        assert len(made) == len(set(made))
        assert [job for job in made if held[job].state != "done"] == []
        events = store.events.after(None, 0, 1_000_000)
        published_events = [event.job_id for event in events if event.kind == "published"]
        assert len(published_events) == len(set(published_events))  # nothing was published twice
        assert published(store, make_job(store, seed=5))
        return {"accepted": len(ids), "made": len(made), "lost": len(ids - set(held))}

    def _make(self) -> None:
        while not self._stop.is_set():
            leased = self.store.jobs.lease_next(worker="w", seconds=600)
            if leased is not None:
                self.made.append(work(self.store, *leased).id)

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 (the check raises it)
            self._errors.append(error)


def test_connections_cut_again_and_again_lose_and_double_nothing(
    postgres: PostgresServer,
    tmp_path: Path,
    sizes: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    """Connections are ended, and once the server crashes."""
    url = postgres.new_database()
    store = Store(Settings(public_dir=tmp_path, data_dir=tmp_path / "data", database_url=url))
    store.prepare()
    cuts, rounds = 0, sizes(20, 200)
    with Traffic(store) as traffic:
        for number in range(rounds):
            traffic.goes_on()
            cuts += postgres.cut_connections()
            if number == rounds // 2:
                postgres.stop(signal.SIGQUIT)
                postgres.start()
    figures(cuts=cuts, crashes=1, **traffic.check())
    store.close()


def test_lines_that_stall_half_open_are_given_up_in_time(
    postgres: PostgresServer,
    tmp_path: Path,
    sizes: Callable[[int, int], int],
    figures: Callable[..., None],
) -> None:
    """R23: a line that carries nothing any more, and that neither end sees closed."""
    url = postgres.new_database()
    with HalfOpenLine(postgres.socket_file) as line:
        settings = Settings(
            public_dir=tmp_path,
            data_dir=tmp_path / "data",
            database_url=line.address(url),
            database_answer_seconds=2.0,
        )
        store = Store(settings)
        store.prepare()
        stalled, waits = 0, []
        with Traffic(store) as traffic:
            for number in range(sizes(2, 20)):
                traffic.goes_on()
                stalled += line.swallow(new_ones=number == 0)
                if number == 0:  # all of it, for 5 s
                    time.sleep(5)
                    line.resume()
                began = time.monotonic()
                traffic.goes_on()
                waits.append(time.monotonic() - began)
        figures(stalled=stalled, longest_wait=f"{max(waits):.1f}s", **traffic.check())
        store.close()
