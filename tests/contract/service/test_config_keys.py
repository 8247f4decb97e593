"""What the registry knows of models is what the pinned libraries say."""

from __future__ import annotations

from pathlib import Path

import pytest

from rockiln.registry.checkpoint import SHAPES_NAME, SHIPPED
from rockiln.registry.checkpoint_names import FAMILIES
from rockiln.registry.config_gate import check_config
from rockiln.registry.json_file import read_json
from rockiln.registry.layouts import LAYOUTS
from support import checkpoint_shapes
from support.config_keys import TARGET, as_text


def test_keys_are_those_of_the_pinned_libraries() -> None:
    assert TARGET.read_text() == as_text(), "next: nox -s config_keys"


@pytest.mark.parametrize("configs", SHIPPED, ids=lambda folder: folder.name)
def test_shapes_are_those_of_the_shipped_configs(configs: Path) -> None:
    said = (configs / SHAPES_NAME).read_text()
    assert said == checkpoint_shapes.as_text(configs), "next: nox -s config_keys"


@pytest.mark.parametrize("configs", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_configs_pass_the_gate_for_others(configs: Path) -> None:
    layout = LAYOUTS[FAMILIES[configs.name]]
    for component, (_, kind, _) in layout.weighted.items():
        check_config(read_json(configs / component / "config.json"), component, kind)
    for component, (_, kinds) in layout.plain.items():
        check_config(read_json(configs / component / "tokenizer_config.json"), component, *kinds)
    check_config(
        read_json(configs / "scheduler" / "scheduler_config.json"), "scheduler", "scheduler"
    )
