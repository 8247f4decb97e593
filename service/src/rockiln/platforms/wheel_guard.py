"""Refuses an environment whose torch is not the backend's.

``python -m rockiln.platforms.wheel_guard --backend cpu|rocm|cuda`` exits 0 when all is well, 1 with
the findings on stderr when it is not, 2 on wrong usage. An image build and every start of the
engine run it. It reads what is installed and imports nothing of it.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import get_args

from rockiln.domain.errors import RockilnError
from rockiln.platforms.backend import Backend

_FOREIGN_PREFIXES = ("nvidia-", "cuda-")


class WheelMismatchError(RockilnError):
    """What is installed does not belong to the backend; the detail lists every finding."""


@dataclass(frozen=True)
class TorchBuild:
    """What torch's own ``version.py`` says. ``cuda`` and ``hip`` are None if not built in."""

    version: str
    cuda: str | None
    hip: str | None

    @property
    def backend(self) -> Backend:
        if self.hip is not None:
            return "rocm"
        return "cpu" if self.cuda is None else "cuda"


def check_wheels(
    backend: Backend,
    *,
    installed: Iterable[Distribution] | None = None,
    version_file: Path | None = None,
) -> None:
    """Checks the environment of this interpreter.

    Args:
        installed: distributions to look at; those of this interpreter if left out.
        version_file: ``torch/version.py``; the one that ``import torch`` would use if left out.

    Raises:
        WheelMismatchError: with every finding and the cure.
    """
    names = sorted(
        (_normalised(str(distribution.name)), str(distribution.version))
        for distribution in (distributions() if installed is None else installed)
    )
    findings = [] if backend == "cuda" else _foreign_findings(names)
    findings += _torch_findings(
        backend,
        [version for name, version in names if name == "torch"],
        _find_version_file() if version_file is None else version_file,
    )
    if findings:
        raise WheelMismatchError(
            f"this environment is not one of the {backend} backend: " + "; ".join(findings)
            + ". Something replaced or added packages: build the environment again from its lock"
        )  # fmt: skip


def read_torch_build(version_file: Path) -> TorchBuild:
    """The constants of a ``torch/version.py``, read without running it."""
    values: dict[str, str | None] = {}
    for node in ast.parse(version_file.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                values[name] = value if isinstance(value, str) else None
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
                values[name] = value if isinstance(value, str) else None
    return TorchBuild(
        version=values.get("__version__") or "", cuda=values.get("cuda"), hip=values.get("hip")
    )


def _foreign_findings(names: list[tuple[str, str]]) -> list[str]:
    return [
        f"{name} {version} is installed and belongs to CUDA"
        for name, version in names
        if name.startswith(_FOREIGN_PREFIXES)
    ]


def _torch_findings(
    backend: Backend, recorded_versions: list[str], version_file: Path | None
) -> list[str]:
    if not recorded_versions or version_file is None:
        return ["torch is not installed"]
    if len(recorded_versions) > 1:
        return [f"torch is installed more than once: {', '.join(recorded_versions)}"]
    build = read_torch_build(version_file)
    findings = []
    # The Python index's own wheels are CUDA builds whose record leaves the local part out.
    unlabelled = build.version.partition("+")[0] if backend == "cuda" else build.version
    if recorded_versions[0] not in (build.version, unlabelled):
        findings.append(
            f"torch's files say {build.version}, its package record says {recorded_versions[0]}"
        )
    if build.backend != backend:
        findings.append(f"torch {build.version} is a {build.backend} build")
    labelled = _labelled_backend(recorded_versions[0])
    if labelled not in (None, backend):
        findings.append(f"torch {recorded_versions[0]} is labelled as a {labelled} build")
    return findings


def _labelled_backend(version: str) -> Backend | None:
    """What the local part of a version claims; None if it claims nothing ("2.9.0+gitabc")."""
    local = version.partition("+")[2]
    if local.startswith("rocm"):
        return "rocm"
    if local == "cpu" or local.startswith("cpu."):
        return "cpu"
    return "cuda" if re.match(r"cu\d", local) else None


def _find_version_file() -> Path | None:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "version.py"
    return path if path.is_file() else None


def _normalised(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="wheel_guard", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", required=True, choices=get_args(Backend))
    options = parser.parse_args(arguments)
    try:
        check_wheels(options.backend)
    except WheelMismatchError as error:
        sys.stderr.write(f"{error.detail}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
