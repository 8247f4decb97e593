"""What the pages tell people to type."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Decisions and what was changed tell of the past.
_NOT_GUIDES = re.compile(r"CHANGELOG\.md|.*/decisions/.*")
# Who runs a block, by how it begins.
_KINDS = {
    "shell": ("curl ", "rockiln ", "docker exec rockiln-api rockiln "),
    "python": ("import ", "from openai"),
    "node": ("const ",),
    "variables": ("ENABLE_",),
    "answer": ("{",),
    "host": ("./", ".venv/", "nox ", "molecule ", "tests/run"),
    "inventory": ("inference_service_", "rocm_catalogue_", "# inventories/"),
    "renewal": ("install -m ",),
    "proxy": ("server {", "ROCKILN_TLS_ADDRESS"),
    "training": ("export PYTHONPATH=service", "from diffusers", "python -m training."),
}


def pages() -> list[str]:
    """Every page of the tree that guides somebody, from its root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [page for page in listed.stdout.split() if not _NOT_GUIDES.fullmatch(page)]


def blocks(page: str) -> Iterator[str]:
    """Blocks of a page that are set in by four blanks or fenced, without what sets them apart."""
    text = (ROOT / page).read_text()
    fenced = re.compile(r"(?ms)^```\w*\n(.*?)^```$")
    yield from (block.strip() for block in fenced.findall(text))
    lines: list[str] = []
    for line in [*fenced.sub("", text).splitlines(), "end"]:
        if line.startswith("    ") or (lines and not line):
            lines.append(line[4:])
            continue
        if lines:
            yield "\n".join(lines).strip()
        lines = []


def of_kind(kind: str) -> pytest.MarkDecorator:
    """Runs a test for each block of a kind, whatever page it stands on."""
    found = [(page, block) for page in pages() for block in blocks(page) if kind_of(block) == kind]
    names = [f"{page.replace('/', '-')}-{number}" for number, (page, _) in enumerate(found)]
    return pytest.mark.parametrize("block", [block for _, block in found], ids=names)


def kind_of(block: str) -> str | None:
    """Who runs it."""
    for kind, begins in _KINDS.items():
        if block.startswith(begins):
            return kind
    return None


def commands(block: str) -> list[str]:
    """A block's lines, joined where they go on, without what they say in passing."""
    whole = re.findall(r"(?m)^((?:.*\\\n)*.*)$", block)
    bare = [re.sub(r"\s+# .*$", "", line).strip() for line in whole]
    return [line for line in bare if line and not line.startswith("# ")]


def spans(page: str) -> list[str]:
    """What stands between backquotes in a page's text."""
    text = re.sub(r"(?m)^    .*$", "", (ROOT / page).read_text())
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
