"""Health, system and models: what is told of the service itself."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from rockiln.api.readiness import check_disk, check_store, check_workers, worker_fault
from rockiln.store.records import Worker, WorkerState
from support.front import Front


def worker(**changes: object) -> Worker:
    values: dict[str, object] = {
        "name": "cpu0", "state": WorkerState.READY, "detail": "", "device": None, "versions": None,
        "heartbeat_at": 100.0, "proof_at": 90.0, **changes,
    }  # fmt: skip
    return Worker(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"state": WorkerState.BUSY}, None),
        ({"heartbeat_at": 90.0}, "silent for 11 s"),
        ({"state": WorkerState.STARTING, "detail": "loading vista"}, "starting: loading vista"),
        ({"state": WorkerState.FAILED, "detail": "out of memory"}, "failed: out of memory"),
        ({"state": WorkerState.STOPPED}, "stopped"),
        ({"proof_at": None}, "no picture yet"),
    ],
)
def test_a_worker_counts_when_it_lives_and_has_proven_itself(
    changes: dict[str, object], words: str | None
) -> None:
    fault = worker_fault(worker(**changes), now=101.0, stale_after_seconds=5)
    assert fault is None if words is None else words in str(fault)


def test_one_working_worker_is_enough() -> None:
    workers = [worker(), worker(name="cpu1", state=WorkerState.FAILED)]
    assert check_workers(workers, now=101, stale_after_seconds=5).ok
    assert not check_workers(workers[1:], now=101, stale_after_seconds=5).ok
    assert not check_workers([], now=101, stale_after_seconds=5).ok


def test_the_disk_floor_itself_is_enough() -> None:
    assert check_disk(10, floor_bytes=10).ok
    assert not check_disk(9, floor_bytes=10).ok
    assert check_disk(10, floor_bytes=10, free_inodes=1000).ok
    assert "999 free inodes" in check_disk(10, floor_bytes=10, free_inodes=999).detail


def test_the_service_is_ready_when_everything_holds(front: Front) -> None:
    front.hand.report()
    answer = front.client.get("/readyz")
    assert (answer.status_code, answer.get_json()["ready"]) == (200, True)


def test_a_service_that_is_not_ready_says_why(front: Front) -> None:
    answer = front.client.get("/readyz")
    problem = answer.get_json()
    assert (answer.status_code, problem["detail"]) == (503, "worker: no worker has reported yet")
    assert [check["ok"] for check in problem["checks"]] == [True, True, False]


def test_a_full_disk_is_named_among_the_checks(new_front: Callable[..., Front]) -> None:
    front = new_front(min_free_disk_bytes=1 << 62)
    front.hand.report()
    assert "disk:" in front.client.get("/readyz").get_json()["detail"]


def test_a_store_that_is_gone_makes_it_not_ready(front: Front) -> None:
    front.hand.report()
    (front.settings.store_dir / "rockiln.db").unlink()
    assert "store:" in front.client.get("/readyz").get_json()["detail"]


def test_a_database_server_has_no_file_to_look_for(front: Front) -> None:
    """On PostgreSQL the service was never ready: the check looked for SQLite's file."""
    (front.settings.store_dir / "rockiln.db").unlink()
    assert check_store(front.settings, None).ok


def test_liveness_needs_nobody(front: Front) -> None:
    front.store.close()
    (front.settings.store_dir / "rockiln.db").unlink()
    assert front.client.get("/livez").get_json() == {"alive": True}


def test_the_system_tells_workers_limits_clocks_and_host(front: Front) -> None:
    front.hand.report(WorkerState.BUSY, detail="step 3 of 20")
    front.submit()
    facts = {"schema": 1, "release": "cpu"}
    front.settings.public_dir.mkdir()
    (front.settings.public_dir / "host.json").write_text(json.dumps(facts))
    system = front.client.get("/system").get_json()
    assert system["host"] == facts
    assert (system["queue"]["waiting"], system["queue"]["running"]) == (1, 0)
    assert system["queue"]["waiting_seconds"] > 0
    assert (system["workers"][0]["working"], system["workers"][0]["on_gpu"]) == (True, False)
    assert system["limits"]["side_px"]["multiple_of"] == 8
    assert system["clocks"]["wait_seconds"] == front.settings.wait_seconds
    assert system["clocks"]["step_seconds"] == front.settings.step_seconds


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_host_facts_that_cannot_be_read_are_told_not_hidden(front: Front, content: bytes) -> None:
    front.settings.public_dir.mkdir()
    (front.settings.public_dir / "host.json").write_bytes(content)
    assert "error" in front.client.get("/system").get_json()["host"]


def test_models_are_listed_with_those_that_are_broken(new_front: Callable[..., Front]) -> None:
    models = new_front(broken={"torn": "unet is truncated"}).client.get("/models").get_json()
    paper, torn = models["models"][:2]  # then those that are known and not here
    assert (paper["id"], paper["state"], paper["default"]) == ("paper", "ready", True)
    assert paper["sides"] == {"min_px": 64, "max_px": 512, "multiple_of_px": 8}
    assert (torn["state"], torn["reason"]) == ("broken", "unet is truncated")
