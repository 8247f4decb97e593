"""PRIVATE to the collection. A new api beside the old one: what nginx has loaded, and who stays.

The proxy's configuration file names the api's generation and carries a digest of itself, which
nginx answers at ``/__proxy``. So whoever comes after a run that was killed half way can read how
far it came, and goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ansible_collections.rockiln.host.plugins.module_utils._engine import Engine, EngineError

LABEL_GENERATION = "io.rockiln.generation"
DIGEST = re.compile(r"X-Rockiln-Config:? \"?([0-9a-f]{12})")
GENERATION = re.compile(r"-api-([0-9a-f]{12}):")
POLL_SECONDS = 0.2
ASK_OWN_PAGE = (
    "exec 3<>/dev/tcp/127.0.0.1/8080; "
    r"printf 'GET /__proxy HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3; "
    'while IFS= read -r -t 4 line <&3; do echo "$line"; done'
)
LIST_PROCESSES = (
    "for process in /proc/[0-9]*; do "
    "{ IFS= read -r -d '' words <\"$process/cmdline\"; } 2>/dev/null; "
    'echo "${process#/proc/} $words"; words=""; done'
)

Decision = Literal["nothing", "remove_next", "replace"]


def digest_in(text: str) -> str:
    """The digest that a configuration, or nginx's own page, carries; empty if it has none."""
    match = DIGEST.search(text)
    return match[1] if match else ""


def generation_in(config: str) -> str:
    """The api that a configuration sends requests to; empty if it names none."""
    match = GENERATION.search(config)
    return match[1] if match else ""


def worker_pids(listing: str) -> set[int]:
    """nginx's workers among ``PID WORDS`` lines, those that are finishing included."""
    return {
        int(line.split(" ", 1)[0])
        for line in listing.splitlines()
        if "nginx: worker process" in line
    }


def leaving_pids(listing: str) -> set[int]:
    """Workers that accept nothing any more and finish what they have."""
    return worker_pids("\n".join(line for line in listing.splitlines() if "shutting down" in line))


def decide(*, current: str | None, following: str | None, named: str) -> Decision:
    """Who stays. Generations; None: there is no such container.

    The one that the configuration names stays. One that was started and is not named yet is of a
    run that ended before: nobody is sent to it.
    """
    if following is None:
        return "nothing"
    return "replace" if following == named or current is None else "remove_next"


class Proxy:
    """nginx in its container.

    Args:
        monotonic: clock of the waits, seconds.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        config: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.engine, self.name, self.config = engine, name, config
        self._monotonic, self._sleep = monotonic, sleep

    def _inside(self, line: str) -> str:
        return self.engine.call("exec", self.name, "bash", "-c", line).output

    def loaded(self) -> str:
        """Digest of the configuration that nginx runs with."""
        return digest_in(self._inside(ASK_OWN_PAGE))

    def wanted(self) -> str:
        return digest_in(self.config.read_text(encoding="utf-8"))

    def reload(self, *, seconds: float) -> bool:
        """Have nginx run with the file, and wait until nobody is served by what it ran with before.

        Returns:
            Whether a reload was needed.

        Raises:
            EngineError: nginx refuses the file, or old connections did not end within ``seconds``.
        """
        before = worker_pids(self._inside(LIST_PROCESSES))
        wanted = self.wanted()
        needed = self.loaded() != wanted
        deadline = self._monotonic() + seconds
        if needed:
            for words in (["-t"], ["-s", "reload"]):
                done = self.engine.call(
                    "exec", self.name, "/usr/sbin/nginx", "-e", "stderr", "-c", str(self.config),
                    *words,
                )  # fmt: skip
                if done.code != 0:
                    raise EngineError(f"nginx refuses {self.config}: {done.errors.strip()}")
            self._until(lambda: self.loaded() == wanted, deadline, "it still runs as before")
        else:
            before = leaving_pids(self._inside(LIST_PROCESSES))
        self._until(
            lambda: not before & worker_pids(self._inside(LIST_PROCESSES)),
            deadline,
            "requests of before have not ended",
        )
        return needed

    def _until(self, done: Callable[[], bool], deadline: float, otherwise: str) -> None:
        while not done():
            if self._monotonic() > deadline:
                raise EngineError(f"nginx in {self.name}: {otherwise}")
            self._sleep(POLL_SECONDS)


def generation_of(engine: Engine, container: str) -> str | None:
    """Its label; empty for one without, None when there is no such container."""
    done = engine.call(
        "container", "inspect", "--format",
        f'{{{{index .Config.Labels "{LABEL_GENERATION}"}}}}', container,
    )  # fmt: skip
    if done.code == 0:
        return done.output.strip()
    if "no such container" in done.errors.lower():
        return None
    raise EngineError(f"docker container inspect {container}: {done.errors.strip()}")


def settle(
    engine: Engine, decision: Decision, *, current: str, following: str, stop_seconds: int
) -> None:
    """Carry a decision out; each step may be the last one that an earlier run did."""
    if decision == "remove_next":
        must(engine, "rm", "--force", following)
    elif decision == "replace":
        if generation_of(engine, current) is not None:
            must(engine, "stop", "--time", str(stop_seconds), current)
            must(engine, "rm", current)
        must(engine, "rename", following, current)


def must(engine: Engine, *arguments: str) -> None:
    done = engine.call(*arguments)
    if done.code != 0:
        raise EngineError(f"docker {' '.join(arguments)}: {done.errors.strip()}")
