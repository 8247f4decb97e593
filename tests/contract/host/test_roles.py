"""Roles have one shape: defaults = argument specs, one table of contents, names of their own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "ansible" / "roles").iterdir() if path.is_dir())
ROLES_WITH_TASKS = [role for role in ROLES if (role / "tasks").is_dir()]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def options(role: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(role / "meta/argument_specs.yml")["argument_specs"][
        "main"
    ]["options"]
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_argument_spec_equals_defaults(role: Path) -> None:
    defaults = load(role / "defaults/main.yml")
    assert {name: option.get("default") for name, option in options(role).items()} == defaults


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_is_described_and_typed(role: Path) -> None:
    assert [
        name
        for name, option in options(role).items()
        if not option.get("description") or not option.get("type")
    ] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_roles_name(role: Path) -> None:
    assert [
        name for name in load(role / "defaults/main.yml") if not name.startswith(f"{role.name}_")
    ] == []
    for path in sorted((role / "vars").rglob("*.yml")) if (role / "vars").is_dir() else []:
        assert [
            name for name in load(path) if not name.startswith((f"__{role.name}_", f"{role.name}_"))
        ] == []


@pytest.mark.parametrize("role", ROLES_WITH_TASKS, ids=lambda role: role.name)
def test_switches_are_read_as_such(role: Path) -> None:
    """``-e NAME=true`` is a text: ansible-core 2.19 refuses it as a condition, `false` is true."""
    switches = [name for name, option in options(role).items() if option.get("type") == "bool"]
    for path in [*(role / "tasks").glob("*.yml"), *(role / "vars").rglob("*.yml")]:
        text = path.read_text(encoding="utf-8")
        for name in switches:
            assert re.findall(rf"\b{name}\b(?! (?:\| bool|=))(?!=)", text) == [], f"{path}: {name}"


@pytest.mark.parametrize("role", ROLES_WITH_TASKS, ids=lambda role: role.name)
def test_main_is_a_table_of_contents_with_tags(role: Path) -> None:
    for task in load(role / "tasks/main.yml"):
        include = task["ansible.builtin.include_tasks"]
        step = Path(include["file"]).stem
        # An include's own tags do not reach the tasks inside; each may be asked for alone.
        assert set(include["apply"]["tags"]) == {f"{role.name}_{step}", *task["tags"]}, task["name"]
        assert (role / "tasks" / include["file"]).is_file()


@pytest.mark.parametrize("role", ROLES_WITH_TASKS, ids=lambda role: role.name)
def test_registered_names_are_the_roles_own(role: Path) -> None:
    for path in sorted((role / "tasks").glob("*.yml")):
        names = re.findall(
            r"^\s*register: (\S+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        assert [name for name in names if not name.startswith(f"__{role.name}_")] == [], path


@pytest.mark.parametrize("role", ROLES_WITH_TASKS, ids=lambda role: role.name)
def test_no_task_file_is_long(role: Path) -> None:
    for path in sorted((role / "tasks").glob("*.yml")):
        assert len(load(path)) <= 20, path
