"""PRIVATE to the collection. The vendor's packages on this host: look, refuse or change at once.

Order matters: everything that can say no is asked before the first change. A run that is killed
half way leaves a record that says so, and the next run finishes it.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils import _apt
from ansible_collections.rockiln.host.plugins.module_utils._apt import AptError, PrivateApt
from ansible_collections.rockiln.host.plugins.module_utils._dpkg import (
    compare_versions,
    differing,
    process_name,
    read_status,
    wait_for_locks,
)
from ansible_collections.rockiln.host.plugins.module_utils._host_files import file_diff, write_whole
from ansible_collections.rockiln.host.plugins.module_utils._host_probe import free_bytes
from ansible_collections.rockiln.host.plugins.module_utils._openpgp import (
    KeyFileError,
    keys_by_fingerprint,
)
from ansible_collections.rockiln.host.plugins.module_utils._rocm_packages import (
    Index,
    Plan,
    Record,
    RefusedError,
    before_and_after,
    check_simulation,
    holds_in_the_way,
    make_plan,
    needed_bytes,
    resolve_versions,
)
from ansible_collections.rockiln.host.plugins.module_utils._rocm_refusals import explain

SPACE_DIRS = ("/var/cache/apt/archives", "/var/lib/dpkg", "/var/lib/apt/lists")
INSTALL_DIR = "/opt"
MEBIBYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the module was asked for."""

    release: str
    packages: Mapping[str, str | None]
    keys: list[dict[str, str]]
    sources_path: Path
    sources: str
    pin_path: Path
    pin: str
    pin_priority: int
    free_bytes: int
    lock_wait_seconds: int
    record_path: Path

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Wish:
        values = dict(parameters)
        for name in ("sources_path", "pin_path", "record_path"):
            values[name] = Path(values[name])
        values["packages"] = {key: value or None for key, value in values["packages"].items()}
        return cls(**values)

    @property
    def source(self) -> str:
        """The first address, for messages."""
        lines = [line for line in self.sources.splitlines() if line.startswith("URIs:")]
        return lines[0].partition(":")[2].strip() if lines else "the repository"


class RocmHost:
    """This host and what is wished of it."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.record = self._read_record()
        self.installed, self.half_done = read_status()

    def make_present(self, *, pretend: bool) -> dict[str, Any]:
        """The module's answer. Raises RefusedError or AptError before any change."""
        if self._is_as_wished():
            return self._answer(changed=False)
        self._check_host()
        with self._scratch() as folder:
            keys = self._fetch_keys(folder)
            private = self._private_apt(folder, keys)
            try:
                private.update()
                index = Index(private.offers(), compare_versions)
                wanted = resolve_versions(self.wish.packages, index, self.wish.source)
                plan = make_plan(wanted, index, self.installed, self.record)
                self._check_plan(plan, index, private)
                answer = self._answer(changed=True, plan=plan, keys=keys)
                if pretend:
                    return answer
                private.fetch(plan.words)
            except AptError as error:
                raise RefusedError(explain(str(error), self.wish.source)) from error
        self._apply(plan, keys, everything=not private.host_has_lists)
        return answer

    def make_absent(self, *, pretend: bool) -> dict[str, Any]:
        """Take away what the record names; what was there before it stays, without its hold."""
        record = self.record
        if not record.files and not record.packages:
            return {
                "changed": False,
                "packages": {},
                "wanted": {},
                "changes": {},
                "removals": [],
                "shadows": {},
            }
        self._check_host()
        going = sorted(
            name
            for name in record.packages
            if name in self.installed and name not in record.found_before
        )
        plan = Plan({}, {}, {}, tuple(going), {})
        remove = ["apt-get", "remove", "-qq", "--yes", "--allow-change-held-packages"]
        if going:
            check_simulation(plan, _apt.parse_simulation(_apt.run([*remove, "--simulate", *going])))
        answer = self._answer(changed=True, plan=plan, keys={})
        if pretend:
            return answer
        _apt.mark("unhold", [name for name in record.holds if name in self.installed])
        if going:
            _apt.run([*remove, *going])
        for name in record.files:
            Path(name).unlink(missing_ok=True)
        self.wish.record_path.unlink(missing_ok=True)
        return answer

    def _read_record(self) -> Record:
        path = self.wish.record_path
        if not path.is_file():
            return Record()
        return Record.from_json(json.loads(path.read_text(encoding="utf-8")))

    def _is_as_wished(self) -> bool:
        record = self.record
        return (
            record.complete
            and record.release == self.wish.release
            and set(record.wanted) == set(self.wish.packages)
            and all(
                version in (None, record.wanted[name])
                for name, version in self.wish.packages.items()
            )
            and not differing(record.packages, self.installed)
            and all(self.installed[name].held for name in record.packages)
            and set(record.files) == {str(path) for path in self._paths()}
            and not self._file_differences({})
        )

    def _paths(self) -> list[Path]:
        keys = [Path(key["path"]) for key in self.wish.keys]
        return [*keys, self.wish.sources_path, self.wish.pin_path]

    def _key_is_there(self, key: Mapping[str, str]) -> bool:
        path = Path(key["path"])
        if not path.is_file():
            return False
        try:
            return set(keys_by_fingerprint(path.read_bytes())) == {key["fingerprint"]}
        except KeyFileError:
            return False  # damaged on the host: it is fetched anew

    def _file_differences(self, keys: Mapping[str, bytes]) -> list[dict[str, str]]:
        """One diff for each file that is not as wished."""
        found = [
            file_diff(Path(key["path"]), "", f"key {key['fingerprint']}\n")
            for key in self.wish.keys
            if not self._key_is_there(key) or key["path"] in keys
        ]
        for path, text in (
            (self.wish.sources_path, self.wish.sources),
            (self.wish.pin_path, self.wish.pin),
        ):
            before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            if before != text:
                found.append(file_diff(path, before, text))
        return found

    def _answer(
        self, *, changed: bool, plan: Plan | None = None, keys: Mapping[str, bytes] | None = None
    ) -> dict[str, Any]:
        if plan is None:
            return {
                "changed": changed,
                "packages": dict(self.record.packages),
                "wanted": dict(self.record.wanted),
                "changes": {},
                "removals": [],
                "shadows": {},
            }
        names = [*plan.packages, *plan.removals]
        diff = [] if not plan.packages else self._file_differences(keys or {})
        gone = self._stale_files() if plan.packages else [Path(name) for name in self.record.files]
        diff += [file_diff(path, f"{path}\n", "") for path in gone]
        diff.append(before_and_after(plan, self.installed, names))
        return {
            "changed": changed,
            "packages": dict(plan.packages),
            "wanted": dict(plan.wanted),
            "changes": dict(plan.changes),
            "removals": list(plan.removals),
            "shadows": dict(plan.shadows),
            "diff": diff,
        }

    def _stale_files(self) -> list[Path]:
        """Files of the earlier row that this one has no use for."""
        wanted = {str(path) for path in self._paths()}
        return [Path(name) for name in self.record.files if name not in wanted]

    def _check_host(self) -> None:
        if self.half_done:
            raise RefusedError(
                f"dpkg was interrupted: {', '.join(self.half_done)}. "
                "Next: dpkg --configure -a; apt-get --fix-broken --yes install"
            )
        holder = wait_for_locks(self.wish.lock_wait_seconds)
        if holder:
            path, pid = holder
            raise RefusedError(
                f"{path} is locked by {process_name(pid)} (pid {pid}) for more than "
                f"{self.wish.lock_wait_seconds} s. Next: ps -fp {pid}; wait for it, then run again"
            )
        self._check_space(0, 0)

    def _check_space(self, download_bytes: int, installed_bytes: int) -> None:
        needed = dict.fromkeys(SPACE_DIRS, self.wish.free_bytes)
        needed[SPACE_DIRS[0]] += download_bytes
        needed[INSTALL_DIR] = installed_bytes
        for name, size in needed.items():
            free = free_bytes(name)
            if free < size:
                raise RefusedError(
                    f"no space: {name} has {free // MEBIBYTE} MiB free and {size // MEBIBYTE} MiB "
                    f"are needed. Next: apt-get clean; df -h {name}"
                )

    def _check_plan(self, plan: Plan, index: Index, private: PrivateApt) -> None:
        held = holds_in_the_way(plan, self.installed, self.record)
        if held:
            states = ", ".join(f"{name} {self.installed[name].version}" for name in held)
            raise RefusedError(
                f"held packages are in the way: {states}. "
                f"Next: apt-mark unhold {' '.join(held)}, then run again"
            )
        for name, version in plan.wanted.items():
            priority = private.priority(name, version)
            if priority != self.wish.pin_priority:
                raise RefusedError(
                    f"the pin does not reach {name} {version}: its priority is {priority}, not "
                    f"{self.wish.pin_priority}. Next: compare the Origin of {self.wish.source}'s "
                    f"InRelease with the row's pin; grep -r Pin /etc/apt/preferences.d"
                )
        check_simulation(plan, private.simulate(plan.words))
        self._check_space(*needed_bytes(plan, index))

    def _fetch_keys(self, folder: Path) -> dict[str, bytes]:
        """Keys that the host lacks, by path; of each file only the wanted fingerprint's."""
        found = {}
        for number, key in enumerate(self.wish.keys):
            if self._key_is_there(key):
                continue
            try:
                data = _apt.download(key["url"], folder / f"key-{number}")
            except AptError as error:
                raise RefusedError(explain(str(error), key["url"])) from error
            keys = keys_by_fingerprint(data)
            if key["fingerprint"] not in keys:
                raise RefusedError(
                    f"the key at {key['url']} has the fingerprint {', '.join(keys)}; the catalogue "
                    f"says {key['fingerprint']}, so it is not trusted. Next: ask the vendor's own "
                    "page whether the key has changed; a proxy on the way may have replaced it"
                )
            found[key["path"]] = keys[key["fingerprint"]]
        return found

    def _private_apt(self, folder: Path, keys: Mapping[str, bytes]) -> PrivateApt:
        sources = self.wish.sources
        for number, (path, data) in enumerate(keys.items()):
            private_key = folder / f"keyring-{number}.gpg"
            private_key.write_bytes(data)
            private_key.chmod(0o644)
            sources = sources.replace(path, str(private_key))
        replaced = [*self._paths(), *(Path(name) for name in self.record.files)]
        return PrivateApt(folder / "apt", sources=sources, pin=self.wish.pin, replaced=replaced)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder that apt's own user may read."""
        with tempfile.TemporaryDirectory(prefix="rockiln-apt-") as name:
            folder = Path(name)
            folder.chmod(0o755)
            (folder / "apt").mkdir()
            yield folder

    def _apply(self, plan: Plan, keys: Mapping[str, bytes], *, everything: bool) -> None:
        before = {path: path.read_bytes() if path.is_file() else None for path in self._paths()}
        stale = self._stale_files()
        before.update({path: path.read_bytes() for path in stale if path.is_file()})
        final = self._final_record(plan)
        self._write_record(self._unfinished_record(final))
        try:
            for name, data in keys.items():
                write_whole(Path(name), data)
            write_whole(self.wish.pin_path, self.wish.pin.encode())
            write_whole(self.wish.sources_path, self.wish.sources.encode())
            for path in stale:
                path.unlink(missing_ok=True)
            _apt.update_host(self.wish.sources_path, everything=everything)
            if plan.changes or plan.removals:
                _apt.install(plan.words)
        except (AptError, OSError) as error:
            if read_status() != (self.installed, self.half_done):
                raise RefusedError(
                    f"dpkg stopped half way: {error}. Next: dpkg --configure -a, then run again"
                ) from error
            self._restore(before)
            raise RefusedError(
                f"{explain(str(error), self.wish.source)} (the host is as it was)"
            ) from error
        self._settle(plan, final)

    def _restore(self, before: Mapping[Path, bytes | None]) -> None:
        for path, data in before.items():
            if data is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, data)
        if self.record.files:
            self._write_record(self.record)
        else:
            self.wish.record_path.unlink(missing_ok=True)

    def _settle(self, plan: Plan, final: Record) -> None:
        """Marks, holds and the record."""
        installed, _ = read_status()
        missing = differing(plan.packages, installed)
        if missing:
            raise RefusedError(
                f"apt ended well and {', '.join(missing)} is not as wanted. "
                "Next: apt-cache policy, then run again"
            )
        came = [name for name in plan.changes if name not in self.installed]
        _apt.mark("auto", [name for name in came if name not in plan.wanted])
        _apt.mark(
            "unhold", [n for n in self.record.holds if n in installed and n not in plan.packages]
        )
        _apt.mark("hold", [name for name in plan.packages if not installed[name].held])
        self._write_record(final)

    def _final_record(self, plan: Plan) -> Record:
        found_before = {
            name
            for name in plan.packages
            if name in self.record.found_before
            or (name not in self.record.packages and name not in plan.changes)
        }
        return Record(
            release=self.wish.release,
            packages=dict(plan.packages),
            wanted=dict(plan.wanted),
            found_before=tuple(sorted(found_before)),
            holds=tuple(sorted(plan.packages)),
            files=tuple(str(path) for path in self._paths()),
            complete=True,
        )

    def _unfinished_record(self, final: Record) -> Record:
        """Both rows' names: whatever a kill leaves, the next run knows it as ours."""
        return dataclasses.replace(
            final,
            packages={**self.record.packages, **final.packages},
            holds=tuple(sorted({*self.record.holds, *final.holds})),
            files=tuple(dict.fromkeys([*self.record.files, *final.files])),
            complete=False,
        )

    def _write_record(self, record: Record) -> None:
        text = json.dumps(record.as_json(), indent=2, sort_keys=True) + "\n"
        write_whole(self.wish.record_path, text.encode())
