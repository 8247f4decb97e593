"""Who has the published ports when a proxy is replaced, wherever a run before ended."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Sequence

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Completed,
    Engine,
    EngineError,
)
from ansible_collections.rockiln.host.plugins.module_utils._proxy_switch import (
    finish,
    hand_over,
    is_free,
)

NETWORK = "rockiln-published"
STOPPED = {"State": {"Running": False}, "NetworkSettings": {"Networks": {NETWORK: {}}}}
RUNNING = {"State": {"Running": True}, "NetworkSettings": {"Networks": {NETWORK: {}}}}
BESIDE = {"State": {"Running": True}, "NetworkSettings": {"Networks": {"rockiln-internal": {}}}}


class RecordingEngine:
    """Answers of a client program, and what it was asked to change."""

    def __init__(self, containers: dict[str, object] | None = None, *, refuses: str = "") -> None:
        self.changes: list[str] = []
        self.refuses, self.containers = refuses, containers or {}

    def __call__(self, arguments: Sequence[str]) -> Completed:
        words = list(arguments)[1:]
        if words[:2] == ["container", "inspect"]:
            if words[2] in self.containers:
                return Completed(0, json.dumps([self.containers[words[2]]]), "")
            return Completed(1, "", f"Error: No such container: {words[2]}")
        self.changes.append(" ".join(words))
        if self.refuses and words[0] == self.refuses:
            return Completed(1, "", "port is already allocated")
        return Completed(0, "", "")


@pytest.mark.parametrize(
    ("containers", "changes"),
    [
        ({"old": RUNNING}, []),
        ({}, []),
        ({"old": RUNNING, "new": BESIDE}, []),  # killed before the ports changed hands
        ({"old": STOPPED, "new": BESIDE}, []),  # after the stop: the run itself goes on from there
        ({"old": STOPPED, "new": RUNNING}, ["rm old", "rename new old"]),
        ({"new": RUNNING}, ["rename new old"]),
    ],
)
def test_the_one_that_has_the_ports_gets_the_name(
    containers: dict[str, object], changes: list[str]
) -> None:
    client = RecordingEngine(containers)
    engine = Engine("docker", client)
    assert finish(engine, current="old", following="new", network=NETWORK) == bool(changes)
    assert client.changes == changes


def switch(client: RecordingEngine, free: Callable[[str], bool] | None = None) -> None:
    hand_over(
        Engine("docker", client),
        current="old",
        following="new",
        network=NETWORK,
        addresses=["127.0.0.1:8000"],
        stop_seconds=10,
        free=free or (lambda _: bool(client.changes)),  # when the stop has begun
    )


def test_nothing_is_between_the_stop_and_the_port() -> None:
    client = RecordingEngine()
    switch(client)
    assert client.changes == [
        "stop --time 10 old",
        f"network connect {NETWORK} new",
        "rm old",
        "rename new old",
    ]


def test_ports_that_are_given_back_after_the_stop_are_waited_for() -> None:
    """Docker 20.10: "port is already allocated" for one that joined while the other ended."""
    asked: list[str] = []

    def free(address: str) -> bool:
        asked.append(address)
        return len(asked) > 20

    client = RecordingEngine()
    switch(client, free)
    assert len(asked) > 20
    assert client.changes[1] == f"network connect {NETWORK} new"


def test_one_that_cannot_have_the_ports_goes_and_the_old_one_serves() -> None:
    client = RecordingEngine(refuses="network")
    with pytest.raises(EngineError, match=r"already allocated; old serves as before"):
        switch(client)
    assert client.changes[-2:] == ["rm --force new", "start old"]


def test_one_that_does_not_stop_is_said() -> None:
    with pytest.raises(EngineError, match="docker stop"):
        switch(RecordingEngine(refuses="stop"))


def test_a_port_is_free_when_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert not is_free(address)
    assert is_free(address)
