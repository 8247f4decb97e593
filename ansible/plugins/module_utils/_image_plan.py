"""PRIVATE to the collection. What an image is made of, as one digest: pure, no engine, no Ansible.

An image's identity is the digest of its *inputs* (Containerfile, files, build arguments, the
parent's inputs), never of the layers that a build happened to produce. So the wanted reference is
known before anything is built, is the same on every host, and check mode can tell the truth.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TAG_DIGITS = 12
LABEL_INPUTS = "io.rockiln.inputs-sha256"
LABEL_TABLE = "io.rockiln.inputs"
IGNORED_NAMES = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


class ImagePlanError(Exception):
    """The table of images contradicts itself or the tree."""


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """One row of the table of images."""

    name: str
    containerfile: str
    inputs: tuple[str, ...]
    build_args: Mapping[str, str]
    parent: str | None
    parent_arg: str
    locks: tuple[str, ...]
    ground: str = ""  # an image that is not ours to stand on; its digest where one is known
    target: str = ""  # the stage of the Containerfile that is wanted; empty: the last

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ImageSpec:
        return cls(
            name=str(row["name"]),
            containerfile=str(row["containerfile"]),
            inputs=tuple(row.get("inputs") or ()),
            build_args={key: str(value) for key, value in (row.get("build_args") or {}).items()},
            parent=row.get("parent"),
            parent_arg=str(row.get("parent_arg") or "BASE"),
            locks=tuple(row.get("locks") or ()),
            ground=str(row.get("ground") or ""),
            target=str(row.get("target") or ""),
        )


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """A spec with everything that decides its identity read."""

    spec: ImageSpec
    table: Mapping[str, str]  # input → short digest; build arguments and the parent among them
    inputs_sha256: str

    @property
    def reference(self) -> str:
        return f"{self.spec.name}:{self.inputs_sha256[:TAG_DIGITS]}"

    def labels(self) -> dict[str, str]:
        return {
            LABEL_INPUTS: self.inputs_sha256,
            LABEL_TABLE: json.dumps(self.table, sort_keys=True),
        }


def input_files(context: Path, inputs: Sequence[str]) -> list[Path]:
    """Every file below the named inputs, sorted, relative to the context."""
    files: set[Path] = set()
    for name in inputs:
        root = context / name
        if root.is_file():
            files.add(Path(name))
        elif root.is_dir():
            files.update(
                path.relative_to(context)
                for path in root.rglob("*")
                if path.is_file() and not IGNORED_NAMES.intersection(path.relative_to(root).parts)
            )
        else:
            raise ImagePlanError(f"{root} does not exist; it is an input of an image")
    return sorted(files)


def file_digest(path: Path) -> str:
    """Content and the executable bit; times and owners do not count."""
    executable = "x" if path.stat().st_mode & stat.S_IXUSR else "-"
    return hashlib.sha256(executable.encode() + path.read_bytes()).hexdigest()


def plan_image(context: Path, spec: ImageSpec, *, parent_digest: str, refresh: str) -> PlannedImage:
    """Read the inputs of one image."""
    table = {
        str(path): file_digest(context / path)[:TAG_DIGITS]
        for path in input_files(context, [spec.containerfile, *spec.inputs])
    }
    table.update({f"arg {key}": value for key, value in spec.build_args.items()})
    table[f"parent {spec.parent or spec.ground or 'rootfs'}"] = parent_digest[:TAG_DIGITS]
    if refresh:
        table["refresh"] = refresh
    if spec.target:
        table["target"] = spec.target
    whole = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    return PlannedImage(spec=spec, table=table, inputs_sha256=whole)


def plan_images(
    context: Path, rows: Sequence[Mapping[str, Any]], *, rootfs_key: str, refresh: str = ""
) -> dict[str, PlannedImage]:
    """Every image of the table by name; a parent stands before its children."""
    planned: dict[str, PlannedImage] = {}
    rootfs_digest = hashlib.sha256(rootfs_key.encode()).hexdigest()
    for spec in (ImageSpec.from_row(row) for row in rows):
        if spec.parent is not None and spec.parent not in planned:
            raise ImagePlanError(
                f"{spec.name} names parent {spec.parent}, which does not stand before it"
            )
        ground = hashlib.sha256(spec.ground.encode()).hexdigest() if spec.ground else rootfs_digest
        parent = planned[spec.parent].inputs_sha256 if spec.parent else ground
        planned[spec.name] = plan_image(context, spec, parent_digest=parent, refresh=refresh)
    return planned


def table_of_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """The input table that a built image carries; empty for an image of someone else."""
    try:
        table = json.loads((labels or {}).get(LABEL_TABLE, "{}"))
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in table.items()} if isinstance(table, dict) else {}


def diff_text(reference: str, table: Mapping[str, str]) -> str:
    """One line an input, for Ansible's diff."""
    lines = [f"{key}: {value}" for key, value in sorted(table.items())]
    return "\n".join([reference, *lines]) + "\n"
