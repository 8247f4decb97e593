"""What others wrote is named with its version, and is byte for byte what their registry gave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import rockiln.web
from rockiln.registry.checkpoint import CONFIGS_FOLDER

FOLDERS = {
    "pages": Path(rockiln.web.__file__).parent / "static" / "vendor",
    "tokenizer": CONFIGS_FOLDER / "clip_tokenizer",
    "tests": Path(__file__).resolve().parents[2] / "browser" / "vendor",
}
LIST = "vendored.json"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_listed_with_its_hash_and_licence(folder: str) -> None:
    where = FOLDERS[folder]
    entries = json.loads((where / LIST).read_text())
    listed = {LIST}
    for entry in entries:
        data = (where / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["file"]
        assert (where / entry["licence_file"]).stat().st_size > 0
        assert entry["version"] in entry["source"]
        listed |= {entry["file"], entry["licence_file"]}
    assert {path.name for path in where.iterdir()} == listed


def test_pages_load_only_what_is_there() -> None:
    base = (FOLDERS["pages"].parents[1] / "templates" / "base.html").read_text()
    for entry in json.loads((FOLDERS["pages"] / LIST).read_text()):
        assert f"vendor/{entry['file']}" in base
    assert '"allowEval":false' in base
