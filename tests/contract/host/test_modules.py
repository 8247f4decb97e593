"""Modules say of themselves what they do: documentation = argument spec, attributes declared."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted((ROOT / "ansible/plugins/modules").glob("*.py"))


def constants(module: Path) -> dict[str, str]:
    """DOCUMENTATION, EXAMPLES and RETURN."""
    found = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(value, str):
                found[node.targets[0].id] = value
    return found


def argument_spec(module: Path) -> dict[str, dict[str, Any]]:
    """The literal that the module hands to AnsibleModule, whether named or in place."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        named = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "ARGUMENTS"
        in_place = isinstance(node, ast.keyword) and node.arg == "argument_spec"
        value = getattr(node, "value", None) if named or in_place else None
        if isinstance(value, ast.Dict):
            return dict(ast.literal_eval(value))
    raise AssertionError(f"{module} has no literal argument spec")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_documentation_equals_argument_spec(module: Path) -> None:
    documented = yaml.safe_load(constants(module)["DOCUMENTATION"])
    assert documented["module"] == module.stem
    options = {
        name: {key: value for key, value in option.items() if key != "description"}
        for name, option in documented["options"].items()
    }
    assert options == argument_spec(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_attributes_examples_and_returns_are_there(module: Path) -> None:
    texts = constants(module)
    attributes = yaml.safe_load(texts["DOCUMENTATION"])["attributes"]
    assert set(attributes) == {"check_mode", "diff_mode", "idempotent"}
    assert yaml.safe_load(texts["EXAMPLES"])
    assert yaml.safe_load(texts["RETURN"])
