"""PRIVATE to the collection. A new proxy takes the published ports over from the old one.

The engine gives a container its ports with the first network that leads out of the host. So the
new one runs beside the old one without that network, and joins it when the ports are free. That is
after the stop: a container that ends leaves its networks one by one, and the engine (20.10) gives
the ports back with the first, and publishes them once more on the second for some 30 ms.
A refused attempt leaves half an interface in the new one (20.10), so there is one attempt.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils._api_switch import must
from ansible_collections.rockiln.host.plugins.module_utils._engine import Engine, EngineError

POLL_SECONDS = 0.005
RELEASE_SECONDS = 5.0


def is_free(address: str) -> bool:
    """Whether ``IP:PORT`` of this host can be bound."""
    host, _, port = address.rpartition(":")
    family, kind, protocol, _, place = socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError:
            return False
    return True


def inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    """What the engine knows of a container; None when there is none of that name."""
    done = engine.call("container", "inspect", name)
    if done.code == 0:
        found: list[dict[str, Any]] = json.loads(done.output)
        return found[0]
    if "no such container" in done.errors.lower():
        return None
    raise EngineError(f"docker container inspect {name}: {done.errors.strip()}")


def took_over(
    current: dict[str, Any] | None, following: dict[str, Any] | None, network: str
) -> bool:
    """Whether ``following`` owns the ports already, or nobody else is there to own them."""
    if following is None:
        return False
    return current is None or (
        not current["State"]["Running"] and network in following["NetworkSettings"]["Networks"]
    )


def finish(engine: Engine, *, current: str, following: str, network: str) -> bool:
    """End what a run before did not: the one that owns the ports gets the name.

    Returns:
        Whether there was something to end.
    """
    old, new = inspect(engine, current), inspect(engine, following)
    if not took_over(old, new, network):
        return False
    if old is not None:
        must(engine, "rm", current)
    must(engine, "rename", following, current)
    return True


def hand_over(
    engine: Engine,
    *,
    current: str,
    following: str,
    network: str,
    addresses: Sequence[str],
    stop_seconds: int,
    free: Callable[[str], bool] = is_free,
) -> None:
    """Give the ports to ``following``, which runs, and then the name.

    Raises:
        EngineError: it could not have them; ``following`` is gone, ``current`` serves as before.
    """
    must(engine, "stop", "--time", str(stop_seconds), current)
    deadline_monotonic = time.monotonic() + RELEASE_SECONDS
    while not all(map(free, addresses)) and time.monotonic() < deadline_monotonic:
        time.sleep(POLL_SECONDS)
    connected = engine.call("network", "connect", network, following)
    if connected.code != 0:
        must(engine, "rm", "--force", following)
        must(engine, "start", current)
        raise EngineError(
            f"docker network connect {network} {following}: {connected.errors.strip()}; "
            f"{current} serves as before"
        )
    must(engine, "rm", current)
    must(engine, "rename", following, current)
