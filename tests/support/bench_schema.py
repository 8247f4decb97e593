"""Writes ``service/docs/bench-report.schema.json``: ``python -m support.bench_schema``."""

from __future__ import annotations

import json
from pathlib import Path

from rockiln.cli.bench_report import BenchReport

TARGET = Path(__file__).resolve().parents[2] / "service" / "docs" / "bench-report.schema.json"


def as_text() -> str:
    return json.dumps(BenchReport.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(as_text())
