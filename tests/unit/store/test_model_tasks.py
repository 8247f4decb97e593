"""What the fetcher is asked to do, as the store keeps it."""

from __future__ import annotations

from rockiln.store.model_tasks import ModelLock, ModelTaskStore
from rockiln.store.store import Store
from unit.store.conftest import Clock


def test_a_model_has_one_open_task(store: Store) -> None:
    tasks = store.model_tasks
    first = tasks.ask("sd15", "pull", owner="anna")
    assert tasks.ask("sd15", "remove", owner="bert") == first
    other = tasks.ask("vista", "verify", owner="")
    assert [task.seq for task in tasks.open_tasks()] == [first.seq, other.seq]
    tasks.end(first.seq, "failed", "why", reason="broken")
    again = tasks.ask("sd15", "pull", owner="anna")
    assert again.seq > first.seq
    assert tasks.latest()["sd15"] == again
    tasks.end(first.seq, "done")  # it has ended: it stays as it is
    ended = tasks.get(first.seq)
    assert ended is not None
    assert (ended.state, ended.detail, ended.reason) == ("failed", "why", "broken")


def test_a_cancel_ends_a_waiting_task_and_is_seen_by_a_running_one(store: Store) -> None:
    tasks = store.model_tasks
    assert tasks.cancel("sd15") is None
    waiting = tasks.ask("sd15", "pull", owner="")
    cancelled = tasks.cancel("sd15")
    assert cancelled is not None
    assert (cancelled.seq, cancelled.state) == (waiting.seq, "cancelled")
    assert tasks.start(waiting.seq) is None
    running = tasks.start(tasks.ask("sd15", "pull", owner="").seq)
    assert running is not None
    assert tasks.progress(running.seq, 10, bytes_total=30)
    tasks.cancel("sd15")
    assert not tasks.progress(running.seq, 20)


def test_deaths_count_until_bytes_arrive(store: Store) -> None:
    tasks = store.model_tasks
    task = tasks.ask("sd15", "pull", owner="")
    assert [tasks.note_death(task.seq) for _ in range(2)] == [1, 2]
    assert tasks.progress(task.seq, 0)
    assert tasks.note_death(task.seq) == 3
    assert tasks.progress(task.seq, 1 << 40)
    assert tasks.note_death(task.seq) == 1


def test_the_first_commit_of_a_repository_stays(store: Store) -> None:
    tasks = store.model_tasks
    assert tasks.lock("a/b", ModelLock("1" * 40, {"x": "old"})).commit == "1" * 40
    kept = tasks.lock("a/b", ModelLock("2" * 40, {"x": "new"}))
    assert kept == ModelLock("1" * 40, {"x": "old"})
    grown = tasks.lock("a/b", ModelLock("1" * 40, {"x": "other", "y": "new"}))
    assert grown.files == {"x": "old", "y": "new"}
    assert tasks.locks() == {"a/b": grown}


def test_acceptances_say_who_and_when(store: Store, clock: Clock) -> None:
    tasks = ModelTaskStore(store.database, clock=clock)
    tasks.accept_licence("flux1-dev", licence="L", page="https://x", commit=None, owner="anna")
    clock.now += 1
    tasks.accept_licence("flux1-dev", licence="L", page="https://x", commit="c", owner="bert")
    (found,) = tasks.acceptances().values()
    assert (found.owner, found.commit, found.at) == ("bert", "c", clock.now)


def test_the_fetcher_says_that_it_is_there(store: Store, clock: Clock) -> None:
    tasks = ModelTaskStore(store.database, clock=clock)
    assert tasks.fetcher() is None
    tasks.sign(has_token=True, endpoint="https://hub")
    sign = tasks.fetcher()
    assert sign is not None
    assert (sign.at, sign.has_token, sign.endpoint) == (clock.now, True, "https://hub")
