"""What a measurement says, and on what it was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_PACKAGES = ("rockiln", "torch", "diffusers", "transformers", "gunicorn", "sqlalchemy")


@dataclass(frozen=True)
class Figure:
    """One measured quantity with its spread and, where the project sets one, its bound."""

    name: str
    unit: str
    values: list[float]
    bound: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def within_bound(self) -> bool | None:
        return None if self.bound is None else self.median <= self.bound

    def row(self) -> str:
        """A line of a Markdown table."""
        bound = "" if self.bound is None else f"≤ {self.bound:g}"
        verdict = {None: "", True: "yes", False: "NO"}[self.within_bound]
        spread = f"{min(self.values):.4g} to {max(self.values):.4g}"
        return (
            f"| {self.name} | {self.median:.4g} {self.unit} | {spread} | {len(self.values)} "
            f"| {bound} | {verdict} |"
        )


def _command() -> str:
    return " ".join(["nox -s bench --", *sys.argv[1:]])


def _machine() -> dict[str, str]:
    """Processor, memory and versions, as this machine tells them."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "from the source tree"
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        # Figures of a busy machine are those of its queue.
        "load": "{:.1f} in the last minute, {:.1f} in five, at the end".format(*os.getloadavg()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


@dataclass(frozen=True)
class Result:
    """Figures of one run."""

    benchmark: str
    figures: Sequence[Figure]
    command: str = field(default_factory=_command)
    machine: dict[str, str] = field(default_factory=_machine)

    def markdown(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.machine.items()]
        head = [
            "| figure | median | min to max | n | bound | within |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        rows = [figure.row() for figure in self.figures]
        return "\n".join([f"`{self.command}`", "", *lines, "", *head, *rows])

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
