"""For how long connections are refused when the proxy is replaced, against a plain restart."""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from ansible_collections.rockiln.host.plugins.module_utils._api_switch import must
from ansible_collections.rockiln.host.plugins.module_utils._engine import Engine, find_client
from ansible_collections.rockiln.host.plugins.module_utils._proxy_switch import hand_over

from benchmarks.result import Figure, Result
from support.service import eventually, free_port

POLL_SECONDS = 0.005
CONFIG = """\
daemon off; pid /tmp/nginx.pid; error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 8080; location / { return 204; } }
}
"""


def measure(*, runs: int) -> Result:
    """The deploy's own way of handing ports over, with real containers; a restart after each.

    Raises:
        RuntimeError: no container engine answers, or it has no image of a proxy.
        EngineError: it refused something.
    """
    client = find_client()
    if client is None:
        raise RuntimeError("no container engine answers")
    engine = Engine(client.path)
    images = engine.call("image", "ls", "--quiet", "rockiln-proxy").output.split()
    if not images:
        raise RuntimeError("no image of a proxy is here; ./bootstrap.sh makes one")
    image = images[0]  # the newest
    switched, restarted = [], []
    for _ in range(runs):
        with _two_proxies(engine, image) as (name, address):
            switched.append(_refused_seconds(address, lambda: _switch(engine, name, address)))
            restarted.append(_refused_seconds(address, lambda: must(engine, "restart", name)))
    return Result(
        benchmark="proxy_switch",
        figures=[
            Figure("refused while the proxy is replaced", "s", switched, bound=1.0),
            Figure("refused while one is restarted", "s", restarted),
            Figure(
                "replaced ÷ restarted, pair by pair",
                "",
                [ours / plain for ours, plain in zip(switched, restarted, strict=True)],
            ),
        ],
    )


@contextmanager
def _two_proxies(engine: Engine, image: str) -> Iterator[tuple[str, str]]:
    """One that has the ports and one beside it, as a deploy has them; name and address."""
    name, address = f"rockiln-bench-{uuid.uuid4().hex[:6]}", f"127.0.0.1:{free_port()}"
    with TemporaryDirectory() as folder, ExitStack() as stack:
        config = Path(folder) / "nginx.conf"
        config.write_text(CONFIG)
        for part in (config, config.parent):
            part.chmod(0o755)
        for network, options in (("internal", ["--internal"]), ("published", [])):
            must(engine, "network", "create", *options, f"{name}-{network}")
            stack.callback(engine.call, "network", "rm", f"{name}-{network}")
        for each in (name, f"{name}-next"):
            stack.callback(engine.call, "rm", "--force", each)
            must(
                engine,
                *("create", "--name", each, "--init", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108 (its own)
                *("--network", f"{name}-internal", "--publish", f"{address}:8080"),
                *("--volume", f"{folder}:/etc/rockiln/proxy:ro", image),
            )
        must(engine, "network", "connect", f"{name}-published", name)
        for each in (name, f"{name}-next"):
            must(engine, "start", each)
        eventually(lambda: _answers(address), "the proxy answers")
        yield name, address


def _switch(engine: Engine, name: str, address: str) -> None:
    hand_over(
        engine,
        current=name,
        following=f"{name}-next",
        network=f"{name}-published",
        addresses=[address],
        stop_seconds=10,
    )


def _refused_seconds(address: str, change: Callable[[], None]) -> float:
    """The longest time between two answers while ``change`` is made."""
    changed = Event()
    with ThreadPoolExecutor() as pool:
        longest = pool.submit(_longest_silence, address, changed)
        try:
            change()
        finally:
            changed.set()
    return longest.result()


def _longest_silence(address: str, changed: Event) -> float:
    longest, answered_at, over = 0.0, time.perf_counter(), False
    while not over:
        ended = changed.is_set()
        if _answers(address):
            now = time.perf_counter()
            longest, answered_at, over = max(longest, now - answered_at), now, ended
        time.sleep(POLL_SECONDS)
    return longest


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5):
            return True
    except OSError:
        return False
