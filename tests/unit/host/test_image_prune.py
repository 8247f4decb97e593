"""Older images go; what runs, what was recorded and the newest stay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.rockiln.host.plugins.module_utils._engine import Completed, Engine
from ansible_collections.rockiln.host.plugins.module_utils._image_prune import superfluous

IMAGES = {
    "rockiln-base": ["rockiln-base:5", "rockiln-base:4", "rockiln-base:3"],
    "rockiln-worker": [f"rockiln-worker:{number}" for number in (5, 4, 3, 2, 1)],
}


def answer(arguments: Sequence[str]) -> Completed:
    words = list(arguments)[1:]
    output = "rockiln-worker:2\n" if words[0] == "ps" else "\n".join(IMAGES[words[-1]])
    return Completed(code=0, output=output, errors="")


@pytest.mark.parametrize(
    ("keep", "newest", "removed"),
    [
        (set[str](), 2, ["rockiln-worker:3", "rockiln-worker:1", "rockiln-base:3"]),
        ({"rockiln-worker:1"}, 2, ["rockiln-worker:3", "rockiln-base:3"]),
        (set[str](), 5, []),
    ],
)
def test_what_nothing_needs_goes_children_first(
    keep: set[str], newest: int, removed: list[str]
) -> None:
    engine = Engine("docker", answer)
    assert superfluous(engine, list(IMAGES), keep=keep, newest=newest) == removed
