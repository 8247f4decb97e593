"""The front and the command line run where torch is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "service" / "src"
HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL"}
MODULES = [
    "rockiln.api.app",
    "rockiln.api.gunicorn_hooks",
    "rockiln.cli.main",
    "rockiln.cli.generate",
    "rockiln.cli.serve",
    "rockiln.fetcher.process",
    "rockiln.fetcher.child",
    "rockiln.cli.processes",
    "rockiln.telemetry.logs",
]


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    script = f"{statement}; import json, sys; print(); print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=True,
        capture_output=True,
    ).stdout
    return {name.partition(".")[0] for name in json.loads(output.splitlines()[-1])}


def test_the_front_loads_no_torch() -> None:
    assert loaded_after(f"import {', '.join(MODULES)}") & HEAVY == set()


def test_an_app_that_answers_has_loaded_no_torch(tmp_path: Path) -> None:
    statement = (
        "import pathlib; from rockiln.settings import Settings; from rockiln.api.app import "
        "create_app; from rockiln.store.store import Store; "
        f"s = Settings(data_dir=pathlib.Path({str(tmp_path)!r})); store = Store(s); "
        "store.prepare(); c = create_app(s, store=store).test_client(); "
        "assert all(c.get(p).status_code < 504 for p in "
        "('/livez', '/readyz', '/models', '/system', '/jobs', '/ui/', '/docs'))"
    )
    assert loaded_after(statement) & HEAVY == set()


def test_probes_load_nothing_that_is_slow() -> None:
    loaded = loaded_after("import rockiln.cli.main, rockiln.cli.probes")
    assert loaded & {"sqlalchemy", "alembic", "flask", "pydantic", "httpx", "structlog"} == set()
