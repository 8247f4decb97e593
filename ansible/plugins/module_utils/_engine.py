"""PRIVATE to the collection. The container engine: which client to use, and the few calls needed.

The engine is found by a daemon that answers and a client of its own, not by whatever ``docker`` is
first on the PATH: a newer client without its buildx plug-in talks to the daemon and still cannot
build.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# The last client with a BuildKit front end of its own; later ones need the buildx plug-in.
LAST_BUILTIN_BUILDKIT_MAJOR = 22
WELL_KNOWN_CLIENTS = ("/usr/bin/docker", "/usr/local/bin/docker")

Runner = Callable[[Sequence[str]], "Completed"]


class EngineError(Exception):
    """The engine refused, or is not there."""


@dataclasses.dataclass(frozen=True)
class Completed:
    """What a finished command left behind."""

    code: int
    output: str
    errors: str


@dataclasses.dataclass(frozen=True)
class Client:
    """One client program that reached a daemon."""

    path: str
    client_version: str
    server_version: str
    buildkit: str  # builtin, buildx or none
    cgroup_version: str = ""

    @property
    def can_build(self) -> bool:
        return self.buildkit != "none"


def run_command(
    arguments: Sequence[str], *, environment: Mapping[str, str] | None = None
) -> Completed:
    """Run to the end; no shell, no input."""
    try:
        done = subprocess.run(
            list(arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        return Completed(code=127, output="", errors=str(error))
    return Completed(code=done.returncode, output=done.stdout, errors=done.stderr)


def client_candidates(search_path: str) -> list[str]:
    """Every ``docker`` on the PATH, then the well-known places; one entry per real file."""
    found: dict[str, str] = {}
    named = [str(Path(folder) / "docker") for folder in search_path.split(os.pathsep) if folder]
    for candidate in [*named, *WELL_KNOWN_CLIENTS]:
        if os.access(candidate, os.X_OK):
            found.setdefault(str(Path(candidate).resolve()), candidate)
    return list(found.values())


def buildkit_kind(client_version: str, *, buildx_answers: bool) -> str:
    """How this client reaches BuildKit."""
    if buildx_answers:
        return "buildx"
    major = client_version.partition(".")[0]
    if major.isdigit() and int(major) <= LAST_BUILTIN_BUILDKIT_MAJOR:
        return "builtin"
    return "none"


def pick_client(clients: Iterable[Client]) -> Client | None:
    """The one to use: it can build, its version is the daemon's, then PATH order."""
    ranked = sorted(
        clients,
        key=lambda client: (not client.can_build, client.client_version != client.server_version),
    )
    return ranked[0] if ranked else None


def probe_client(path: str, run: Runner = run_command) -> Client | None:
    """Ask one client program; None when no daemon answers it."""
    done = run([path, "version", "--format", "{{json .}}"])
    if done.code != 0:
        return None
    try:
        versions = json.loads(done.output)
        client_version = str(versions["Client"]["Version"])
        server_version = str(versions["Server"]["Version"])
    except (ValueError, KeyError, TypeError):
        return None
    buildx_answers = run([path, "buildx", "version"]).code == 0
    cgroups = run([path, "info", "--format", "{{.CgroupVersion}}"]).output.strip()
    return Client(
        path=path,
        client_version=client_version,
        server_version=server_version,
        buildkit=buildkit_kind(client_version, buildx_answers=buildx_answers),
        cgroup_version=cgroups,
    )


def find_client(search_path: str | None = None, run: Runner = run_command) -> Client | None:
    """The client to use on this machine; None when no daemon answers any of them."""
    paths = client_candidates(
        search_path if search_path is not None else os.environ.get("PATH", "")
    )
    probed = (probe_client(path, run) for path in paths)
    return pick_client(client for client in probed if client is not None)


class Engine:
    """Images of one engine, through its own client."""

    def __init__(self, client_path: str, run: Runner = run_command) -> None:
        self.client_path = client_path
        self._run = run

    def call(self, *arguments: str) -> Completed:
        return self._run([self.client_path, *arguments])

    def inspect_image(self, reference: str) -> dict[str, Any] | None:
        """What the engine knows about an image; None when it has none of that name."""
        done = self.call("image", "inspect", reference)
        if done.code != 0:
            if "no such image" in done.errors.lower():
                return None
            raise EngineError(f"docker image inspect {reference}: {done.errors.strip()}")
        found: list[dict[str, Any]] = json.loads(done.output)
        return found[0]

    def container_status(self, name: str) -> str | None:
        """``running``, ``created``, ``exited`` …; None where there is none of that name."""
        done = self.call("container", "inspect", "--format", "{{.State.Status}}", name)
        if done.code != 0:
            if "no such container" in done.errors.lower():
                return None
            raise EngineError(f"docker container inspect {name}: {done.errors.strip()}")
        return done.output.strip()

    def load(self, archive: Path) -> None:
        done = self.call("load", "--quiet", "--input", str(archive))
        if done.code != 0:
            raise EngineError(f"docker load of {archive}: {done.errors.strip()}")

    def tag(self, source: str, target: str) -> None:
        done = self.call("tag", source, target)
        if done.code != 0:
            raise EngineError(f"docker tag {source} {target}: {done.errors.strip()}")
