"""PRIVATE to the collection. A virtual environment that is its lock and one project, or made anew.

A digest of the inputs is written last, inside the environment, and goes before the environment
changes: an interrupted one has none and is not trusted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.rockiln.host.plugins.module_utils._engine import run_command
from ansible_collections.rockiln.host.plugins.module_utils._image_plan import (
    file_digest,
    input_files,
)

STAMP = "rockiln-inputs.json"


class VenvError(Exception):
    """A step of making the environment failed."""


def wanted_inputs(*, python: str, lock: Path, build_lock: Path, project: Path) -> dict[str, str]:
    """What decides whether an environment is the wanted one."""
    version = run_command([python, "-c", "import sys; print(sys.version.split()[0])"])
    if version.code != 0:
        raise VenvError(f"{python} does not run: {version.errors.strip()}")
    files = input_files(project, ["pyproject.toml", "src"])
    tree = hashlib.sha256(
        "".join(f"{name}{file_digest(project / name)}" for name in files).encode()
    ).hexdigest()
    return {
        "python": f"{python} {version.output.strip()}",
        "lock": file_digest(lock),
        "build lock": file_digest(build_lock),
        "project": tree,
    }


def installed_inputs(path: Path) -> dict[str, str]:
    stamp = path / STAMP
    if not stamp.is_file():
        return {}
    found: dict[str, str] = json.loads(stamp.read_text(encoding="utf-8"))
    return found


def make_venv(
    path: Path,
    inputs: Mapping[str, str],
    *,
    python: str,
    lock: Path,
    build_lock: Path,
    project: Path,
) -> None:
    """Make it anew in its place; where the project alone differs, install that alone."""
    pip = [str(path / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps"]
    locked = [*install, "--require-hashes", "--only-binary=:all:", "--requirement"]
    if {**installed_inputs(path), "project": ""} != {**inputs, "project": ""}:
        if path.exists():
            shutil.rmtree(path)
        step([python, "-m", "venv", str(path)])
        step([*locked, str(lock)])
    with tempfile.TemporaryDirectory(prefix="rockiln-wheel-") as name:
        folder = Path(name)
        # Beside the environment and without a pip of its own, which would cost as much as the rest.
        step([*locked, str(build_lock), "--no-compile", "--target", str(folder / "build")])
        copy_inputs(project, folder / "project")
        build = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir"]
        step(
            [*build, str(folder / "dist"), str(folder / "project")],
            environment={"PYTHONPATH": str(folder / "build")},
        )
        (path / STAMP).unlink(missing_ok=True)
        wheel = next((folder / "dist").glob("*.whl"))
        step([*install, "--no-index", "--force-reinstall", str(wheel)])
    (path / STAMP).write_text(
        json.dumps(dict(inputs), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def copy_inputs(project: Path, target: Path) -> None:
    """What the wheel is made of: a build leaves nothing in the checkout."""
    for name in input_files(project, ["pyproject.toml", "src"]):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / name, target / name)


def step(arguments: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = run_command(arguments, environment=environment)
    if done.code != 0:
        tail = "\n".join((done.output + done.errors).splitlines()[-15:])
        raise VenvError(f"{' '.join(arguments[:5])} …: {tail}")
