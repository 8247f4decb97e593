"""An image's identity is the digest of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._image_plan import (
    ImagePlanError,
    diff_text,
    plan_images,
    table_of_labels,
)

ROWS: Sequence[Mapping[str, Any]] = (
    {"name": "base", "containerfile": "base/Containerfile"},
    {
        "name": "api",
        "containerfile": "api/Containerfile",
        "inputs": ["src", "lock.txt"],
        "parent": "base",
    },
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("base/Containerfile", "api/Containerfile", "src/a.py", "src/sub/b.py", "lock.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def references(tree: Path, **options: str) -> dict[str, str]:
    return {
        name: image.reference
        for name, image in plan_images(tree, ROWS, **{"rootfs_key": "bookworm", **options}).items()
    }


def test_equal_trees_have_equal_references_wherever_they_are(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import shutil  # noqa: PLC0415 (only here)

    other = tmp_path_factory.mktemp("other") / "tree"
    shutil.copytree(tree, other)
    assert references(tree) == references(other)


def test_a_changed_input_changes_that_image_alone(tree: Path) -> None:
    before = references(tree)
    (tree / "src/sub/b.py").write_text("changed", encoding="utf-8")
    after = references(tree)
    assert after["base"] == before["base"]
    assert after["api"] != before["api"]


@pytest.mark.parametrize("options", [{"rootfs_key": "sha256:1"}, {"refresh": "2026-11"}])
def test_a_changed_ground_changes_every_image_above_it(tree: Path, options: dict[str, str]) -> None:
    before, after = references(tree), references(tree, **options)
    assert {name for name in before if before[name] != after[name]} == {"base", "api"}


def test_the_executable_bit_counts_and_times_do_not(tree: Path) -> None:
    import os  # noqa: PLC0415 (only here)

    before = references(tree)
    os.utime(tree / "src/a.py", (0, 0))
    assert references(tree) == before
    (tree / "src/a.py").chmod(0o755)
    assert references(tree) != before


def test_caches_of_tools_are_no_inputs(tree: Path) -> None:
    before = references(tree)
    (tree / "src/__pycache__").mkdir()
    (tree / "src/__pycache__/a.pyc").touch()
    assert references(tree) == before


def test_a_missing_input_is_named(tree: Path) -> None:
    (tree / "lock.txt").unlink()
    with pytest.raises(ImagePlanError, match=r"lock\.txt does not exist"):
        references(tree)


def test_a_parent_must_stand_before_its_child(tree: Path) -> None:
    with pytest.raises(ImagePlanError, match="api names parent base"):
        plan_images(tree, list(reversed(ROWS)), rootfs_key="bookworm")


def test_labels_carry_the_table_that_diff_shows(tree: Path) -> None:
    image = plan_images(tree, ROWS, rootfs_key="bookworm")["api"]
    assert table_of_labels(image.labels()) == dict(image.table)
    assert "src/sub/b.py: " in diff_text(image.reference, image.table)


@pytest.mark.parametrize(
    "labels", [None, {}, {"io.rockiln.inputs": "not json"}, {"io.rockiln.inputs": "[1]"}]
)
def test_an_image_of_someone_else_has_no_table(labels: dict[str, str] | None) -> None:
    assert table_of_labels(labels) == {}


def test_an_image_on_a_vendors_ground_follows_that_ground_alone(tree: Path) -> None:
    row = {**ROWS[0], "name": "rocm", "ground": "vendor/image@sha256:1"}
    base = plan_images(tree, [row], rootfs_key="bookworm")["rocm"]
    moved = {**row, "ground": "vendor/image@sha256:2"}
    assert plan_images(tree, [row], rootfs_key="trixie")["rocm"].reference == base.reference
    assert plan_images(tree, [moved], rootfs_key="bookworm")["rocm"].reference != base.reference
    assert "parent vendor/image@sha256:1" in base.table
