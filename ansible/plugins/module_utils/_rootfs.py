"""PRIVATE to the collection. The bare Debian that every image stands on.

By digest from a registry where one answers; where none does, made by debootstrap from the host's
own mirror. Which of the two it was is said aloud and written into a label.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ansible_collections.rockiln.host.plugins.module_utils._engine import (
    Engine,
    EngineError,
    run_command,
)

LABEL_SOURCE = "io.rockiln.rootfs-source"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# What the engine says when nobody is there, as against a registry that answers with a refusal.
NO_ANSWER = re.compile(
    r"no such host|connection refused|i/o timeout|network is unreachable|no route to host"
    r"|TLS handshake timeout|context deadline exceeded|server misbehaving"
    r"|certificate signed by unknown authority|failed to verify certificate"
    r"|Temporary failure in name resolution|connection reset by peer|request canceled|proxyconnect",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Rootfs:
    """The wanted root file system."""

    suite: str
    image: str  # in a registry, without a digest
    digest: str  # sha256:…, or empty: to be locked at the first pull

    @property
    def reference(self) -> str:
        """Its name in the local engine, whichever way it came."""
        return f"rockiln-rootfs:{self.suite}"

    @property
    def key(self) -> str:
        """What enters the digest of the images above it: a pinned digest, else the suite."""
        return self.digest or self.suite

    @property
    def remote(self) -> str:
        return f"{self.image}@{self.digest}" if self.digest else f"{self.image}:{self.suite}-slim"


def registry_is_silent(message: str) -> bool:
    """Nobody answered (then debootstrap may do), as against an answer that says no."""
    return NO_ANSWER.search(message) is not None


def pull_rootfs(engine: Engine, rootfs: Rootfs) -> str | None:
    """Pull and name it; its digest in the registry. None when no registry answered.

    Raises:
        EngineError: a registry answered, and refused.
    """
    done = engine.call("pull", "--quiet", rootfs.remote)
    if done.code != 0:
        if registry_is_silent(done.errors):
            return None
        raise EngineError(f"docker pull {rootfs.remote}: {done.errors.strip()}")
    engine.tag(rootfs.remote, rootfs.reference)
    digests = (engine.inspect_image(rootfs.reference) or {}).get("RepoDigests") or []
    return next((name.partition("@")[2] for name in digests), "")


def bootstrap_rootfs(engine: Engine, rootfs: Rootfs, mirror: str) -> None:
    """debootstrap → docker import, as a stream; no list of packages and no mirror stays in it."""
    if (
        shutil.which("debootstrap", path="/usr/sbin:/usr/bin:/sbin:/bin") is None
        or not KEYRING.is_file()
    ):
        raise EngineError(
            "debootstrap is not installed; next: apt-get install debootstrap debian-archive-keyring"
        )
    with tempfile.TemporaryDirectory(prefix="rockiln-rootfs-", dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        done = run_command(
            [
                "debootstrap",
                "--variant=minbase",
                f"--keyring={KEYRING}",
                rootfs.suite,
                str(root),
                mirror,
            ],
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if done.code != 0:
            tail = "\n".join((done.output + done.errors).splitlines()[-10:])
            raise EngineError(f"debootstrap of {rootfs.suite} failed:\n{tail}")
        leave_no_trace(root, rootfs.suite)
        import_rootfs(engine, root, rootfs.reference)


def leave_no_trace(root: Path, suite: str) -> None:
    """Logs, lists and archives out; the sources become Debian's public ones."""
    for pattern in (
        "var/lib/apt/lists/*",
        "var/cache/apt/archives/*.deb",
        "var/log/*",
        "debootstrap",
    ):
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    public = "http://deb.debian.org"
    (root / "etc/apt/sources.list").write_text(
        f"deb {public}/debian {suite} main\n"
        f"deb {public}/debian {suite}-updates main\n"
        f"deb {public}/debian-security {suite}-security main\n",
        encoding="utf-8",
    )
    (root / "etc/hostname").write_text("rockiln\n", encoding="utf-8")
    (root / "etc/resolv.conf").write_text("", encoding="utf-8")


def import_rootfs(engine: Engine, root: Path, reference: str) -> None:
    """tar piped into ``docker import``."""
    with subprocess.Popen(
        ["tar", "--create", "--numeric-owner", "--one-file-system", f"--directory={root}", "."],
        stdout=subprocess.PIPE,
    ) as tar:
        done = subprocess.run(
            [
                engine.client_path,
                "import",
                "--change",
                f"LABEL {LABEL_SOURCE}=debootstrap",
                "--change",
                'CMD ["/bin/bash"]',
                "-",
                reference,
            ],
            stdin=tar.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if tar.returncode != 0 or done.returncode != 0:
        raise EngineError(f"docker import of {reference}: {done.stderr.strip() or 'tar failed'}")
