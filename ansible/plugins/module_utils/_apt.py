"""PRIVATE to the collection. apt, asked in a root of its own before the host's is touched.

``PrivateApt`` has lists, sources and preferences in a scratch folder and the host's real dpkg
status, so apt itself says what a source holds, whether its signature is good and what an install
would do, while nothing on the host changes.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ansible_collections.rockiln.host.plugins.module_utils._dpkg import stanzas

APT_USER = "_apt"
LISTS_DIR = Path("/var/lib/apt/lists")
HELPER = "/usr/lib/apt/apt-helper"
INSTALL_LINE = re.compile(r"^Inst (?P<name>\S+?)(?::\S+)? (?:\[(?P<old>[^\]]+)\] )?\((?P<new>\S+)")
REMOVE_LINE = re.compile(r"^(?:Remv|Purg) (?P<name>\S+?)(?::\S+)? ")
# No wait for a dead mirror that is longer than an operator's patience.
NETWORK_OPTIONS = ("Acquire::Retries=1", "Acquire::http::Timeout=20", "Acquire::https::Timeout=20")


class AptError(Exception):
    """apt said no; its own words."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """One version of a package in an index."""

    name: str
    version: str
    depends: str
    size_bytes: int
    installed_bytes: int


@dataclasses.dataclass(frozen=True)
class Simulation:
    """What apt would do: new version by name, and names that would go."""

    installs: Mapping[str, str]
    removals: frozenset[str]


def run(arguments: Sequence[str], options: Iterable[str] = ()) -> str:
    """Standard output. Raises AptError with the lines that say why."""
    words = [part for option in options for part in ("-o", option)]
    done = subprocess.run(
        [arguments[0], *words, *arguments[1:]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise AptError(said(done.stdout, done.stderr))
    return done.stdout


def said(output: str, errors: str) -> str:
    """apt's reasons without its chatter."""
    lines = [
        line.strip() for line in errors.splitlines() if line.startswith(("E: ", "W: ", "dpkg"))
    ]
    unmet = re.search(
        r"^The following packages have unmet dependencies:\n(?:^ .*\n?)+", output, re.MULTILINE
    )
    if unmet:
        lines.insert(0, " ".join(unmet[0].split()))
    return "; ".join(dict.fromkeys(lines)) or errors.strip() or output.strip()[-400:]


def parse_simulation(text: str) -> Simulation:
    """Of ``apt-get --simulate``."""
    installs, removals = {}, set()
    for line in text.splitlines():
        installed, removed = INSTALL_LINE.match(line), REMOVE_LINE.match(line)
        if installed:
            installs[installed["name"]] = installed["new"]
        elif removed:
            removals.add(removed["name"])
    return Simulation(installs, frozenset(removals - set(installs)))


def parse_index(text: str) -> list[Offer]:
    """Of a ``Packages`` file."""
    return [
        Offer(
            name=fields["Package"],
            version=fields["Version"],
            depends=", ".join(fields[key] for key in ("Pre-Depends", "Depends") if fields.get(key)),
            size_bytes=int(fields.get("Size", "0")),
            installed_bytes=int(fields.get("Installed-Size", "0")) * 1024,
        )
        for fields in stanzas(text)
        if "Package" in fields and "Version" in fields
    ]


def priority_of(policy: str, version: str) -> int | None:
    """The pin's priority of one version in ``apt-cache policy``'s table."""
    match = re.search(
        rf"^ (?:\*\*\*|   ) {re.escape(version)} (-?\d+)$", policy, flags=re.MULTILINE
    )
    return int(match[1]) if match else None


def download(url: str, target: Path) -> bytes:
    """A file by apt's own transport, so the host's proxy and CA settings hold."""
    run([HELPER, "download-file", url, str(target)], NETWORK_OPTIONS)
    return target.read_bytes()


class PrivateApt:
    """apt with these sources and preferences in ``folder``, beside the host's others."""

    def __init__(self, folder: Path, *, sources: str, pin: str, replaced: Iterable[Path]) -> None:
        self.folder = folder
        folder.chmod(0o755)
        for name in ("lists/partial", "ours", "all", "preferences"):
            (folder / name).mkdir(parents=True)
        replaced = set(replaced)
        for name in ("ours", "all"):
            (folder / name / "rockiln-rocm.sources").write_text(sources, encoding="utf-8")
        (folder / "preferences" / "rockiln-rocm").write_text(pin, encoding="utf-8")
        self._link(Path("/etc/apt/sources.list.d"), "all", replaced, (".list", ".sources"))
        self._link(Path("/etc/apt/preferences.d"), "preferences", replaced, ("", ".pref"))
        self.host_has_lists = any(LISTS_DIR.glob("*_Packages*"))
        for path in LISTS_DIR.glob("*_*"):
            if path.is_file():
                (folder / "lists" / path.name).symlink_to(path)
        self._give_to_apt(folder / "lists" / "partial")
        self.options = (
            *NETWORK_OPTIONS,
            f"Dir::State::lists={folder}/lists",
            f"Dir::Etc::preferencesparts={folder}/preferences",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
            "Acquire::GzipIndexes=false",
            "Acquire::Languages=none",
            "APT::Get::List-Cleanup=false",
        )
        self.only_ours = ("Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={folder}/ours")
        self.with_hosts = (f"Dir::Etc::sourceparts={folder}/all",)

    def _link(
        self, source: Path, name: str, replaced: set[Path], suffixes: tuple[str, ...]
    ) -> None:
        for path in sorted(source.iterdir()) if source.is_dir() else []:
            if path not in replaced and path.suffix in suffixes:
                (self.folder / name / path.name).symlink_to(path)

    @staticmethod
    def _give_to_apt(partial: Path) -> None:
        """apt fetches as a user of its own where there is one."""
        partial.chmod(0o700)
        if os.geteuid() == 0:
            user = next((entry for entry in pwd.getpwall() if entry.pw_name == APT_USER), None)
            os.chown(partial, user.pw_uid if user else 0, -1)

    def update(self) -> None:
        """Fetch our indices; the distribution's too where the host has none yet."""
        scope = self.only_ours if self.host_has_lists else self.with_hosts
        run(["apt-get", "update", "-qq", "--error-on=any"], (*self.options, *scope))

    def offers(self) -> list[Offer]:
        """What our sources hold."""
        listed = run(
            ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"],
            (*self.options, *self.only_ours),
        )
        found: list[Offer] = []
        for name in listed.split():
            path = Path(name)
            if path.is_file():
                found += parse_index(path.read_text(encoding="utf-8", errors="replace"))
        return found

    def priority(self, name: str, version: str) -> int | None:
        text = run(["apt-cache", "policy", name], (*self.options, *self.with_hosts))
        return priority_of(text, version)

    def simulate(self, words: Sequence[str]) -> Simulation:
        return parse_simulation(
            run([*INSTALL, "--simulate", *words], (*self.options, *self.with_hosts))
        )

    def fetch(self, words: Sequence[str]) -> None:
        """Into the host's own cache; nothing is unpacked."""
        run([*INSTALL, "--download-only", *words], (*self.options, *self.with_hosts))


INSTALL = (
    "apt-get",
    "install",
    "-qq",
    "--yes",
    "--no-install-recommends",
    "--allow-downgrades",
    "--allow-change-held-packages",
)


def update_host(source: Path, *, everything: bool) -> None:
    """Fetch the indices of one source file into the host's lists, or of all sources."""
    scope = (
        ()
        if everything
        else (
            f"Dir::Etc::sourcelist={source}",
            "Dir::Etc::sourceparts=/dev/null",
            "APT::Get::List-Cleanup=false",
        )
    )
    run(["apt-get", "update", "-qq", "--error-on=any"], (*NETWORK_OPTIONS, *scope))


def install(words: Sequence[str]) -> None:
    """One transaction. Configuration files that a person changed are kept."""
    options = ("Dpkg::Options::=--force-confdef", "Dpkg::Options::=--force-confold")
    run([*INSTALL, *words], options)


def mark(kind: str, names: Iterable[str]) -> None:
    """``apt-mark``: hold, unhold or auto."""
    listed = sorted(names)
    if listed:
        run(["apt-mark", kind, *listed])
