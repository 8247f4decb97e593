"""PRIVATE to the collection. From a catalogue row to the packages of a host; pure.

The vendor's index says which names are the vendor's. Of those the host gets exactly the wanted ones
and what they depend on, each in the version of the index; what an earlier row put there, and what
the distribution installed under one of these names, goes in the same transaction.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.rockiln.host.plugins.module_utils._apt import Offer, Simulation
from ansible_collections.rockiln.host.plugins.module_utils._dpkg import Installed, differing

DEPENDENCY = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9+.-]+)(?::\S+)?(?:\s*\((?P<relation>[<>=]+)\s*(?P<version>[^)]+)\))?"
)
Compare = Callable[[str, str], int]


class RefusedError(Exception):
    """Stopped before any change: the cause and the command that helps."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What an earlier run put on the host."""

    release: str = ""
    packages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wanted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    found_before: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    complete: bool = False

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        return cls(
            release=values["release"],
            packages=dict(values["packages"]),
            wanted=dict(values["wanted"]),
            found_before=tuple(values["found_before"]),
            holds=tuple(values["holds"]),
            files=tuple(values["files"]),
            complete=values["complete"],
        )

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One transaction."""

    wanted: Mapping[str, str]
    packages: Mapping[str, str]
    changes: Mapping[str, str]
    removals: tuple[str, ...]
    shadows: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """What ``apt-get install`` is asked for."""
        named = [f"{name}={version}" for name, version in sorted(self.packages.items())]
        return named + [f"{name}-" for name in self.removals]


class Index:
    """The vendor's index by name."""

    def __init__(self, offers: Iterable[Offer], compare: Compare) -> None:
        self.by_name: dict[str, dict[str, Offer]] = {}
        for offer in offers:
            self.by_name.setdefault(offer.name, {})[offer.version] = offer
        self.compare = compare

    def newest(self, name: str) -> str:
        return max(self.by_name[name], key=functools.cmp_to_key(self.compare))

    def closure(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The wanted packages with the vendor's packages that they depend on."""
        found: dict[str, str] = {}
        waiting = list(wanted.items())
        while waiting:
            name, version = waiting.pop()
            if name in found:
                continue
            found[name] = version
            for dependency, exact in self.dependencies(self.by_name[name][version]):
                waiting.append(
                    (dependency, wanted.get(dependency) or exact or self.newest(dependency))
                )
        return found

    def dependencies(self, offer: Offer) -> list[tuple[str, str]]:
        """(name, exact version or nothing) of those that are the vendor's."""
        found = []
        for group in offer.depends.split(","):
            for alternative in group.split("|"):
                match = DEPENDENCY.match(alternative.strip())
                if match and match["name"] in self.by_name:
                    exact = match["version"].strip() if match["relation"] == "=" else ""
                    found.append((match["name"], exact))
                    break
        return found


def resolve_versions(wanted: Mapping[str, str | None], index: Index, source: str) -> dict[str, str]:
    """Exact versions: the row's, or the index's newest where the row's is to be locked."""
    found = {}
    for name, version in wanted.items():
        offered = index.by_name.get(name, {})
        if not offered:
            raise RefusedError(
                f"{source} has no package {name}. Next: compare the row's packages with "
                f"the release's page, or choose another release"
            )
        if version and version not in offered:
            raise RefusedError(
                f"{source} has no {name} {version}; it has {', '.join(sorted(offered))}. "
                "Next: correct the version in the row or the site's lock, or choose another"
            )
        found[name] = version or index.newest(name)
    return found


def make_plan(
    wanted: Mapping[str, str],
    index: Index,
    installed: Mapping[str, Installed],
    record: Record,
) -> Plan:
    packages = index.closure(wanted)
    shadows = {
        name: state.version
        for name, state in installed.items()
        if name in index.by_name
        and state.version not in index.by_name[name]
        and record.packages.get(name) != state.version
    }
    leftovers = {
        name
        for name, version in record.packages.items()
        if name in installed and name not in packages and name not in record.found_before
    }
    unwanted_shadows = {name for name in shadows if name not in packages}
    return Plan(
        wanted=dict(wanted),
        packages=packages,
        changes=differing(packages, installed),
        removals=tuple(sorted(leftovers | unwanted_shadows)),
        shadows=shadows,
    )


def holds_in_the_way(plan: Plan, installed: Mapping[str, Installed], record: Record) -> list[str]:
    """Packages that a person holds and this plan would change."""
    touched = [*plan.changes, *plan.removals]
    return sorted(
        name
        for name in touched
        if name in installed and installed[name].held and name not in record.holds
    )


def check_simulation(plan: Plan, simulation: Simulation) -> None:
    """apt's own plan may take no package away that this one does not name."""
    extra = sorted(simulation.removals - set(plan.removals))
    if extra:
        because = ", ".join([*plan.removals, *sorted(plan.changes)])
        raise RefusedError(
            f"Changing {because} would take away {', '.join(extra)} too. Next: if they may go, "
            f"apt-get remove {' '.join(extra)}, then run again"
        )
    strangers = sorted(
        name
        for name, version in simulation.installs.items()
        if name in plan.packages and plan.packages[name] != version
    )
    if strangers:
        raise RefusedError(
            f"apt would install other versions of {', '.join(strangers)} than the row names. "
            "Next: apt-cache policy shows which pin or source asks for them"
        )


def needed_bytes(plan: Plan, index: Index) -> tuple[int, int]:
    """(download, installed) of what changes."""
    offers = [index.by_name[name][version] for name, version in plan.changes.items()]
    return sum(offer.size_bytes for offer in offers), sum(offer.installed_bytes for offer in offers)


def listing(packages: Mapping[str, str], holds: Iterable[str]) -> str:
    """One side of a diff."""
    held = set(holds)
    return "".join(
        f"{name} {version}{' (held)' if name in held else ''}\n"
        for name, version in sorted(packages.items())
    )


def before_and_after(
    plan: Plan, installed: Mapping[str, Installed], names: Sequence[str]
) -> dict[str, str]:
    """The packages' diff."""
    known = {name: installed[name].version for name in names if name in installed}
    return {
        "before_header": "packages",
        "after_header": "packages",
        "before": listing(known, (name for name in known if installed[name].held)),
        "after": listing(plan.packages, plan.packages),
    }
