"""``rockiln bench`` against a real service: its figures are those of real jobs."""

from __future__ import annotations

from pathlib import Path

from rockiln.cli.bench_report import BenchReport
from support.service import Service


def test_a_real_worker_is_measured(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ("--sizes", "64x64,128x128", "--steps", "2,4", "--schedulers", "ddim", "--runs", "2")
    ended = service.command("bench", "tiny", *words, "--url", service.url, "--export", str(file))
    assert ended.returncode == 0, ended.stderr
    report = BenchReport.model_validate_json(file.read_bytes())
    assert len(report.cases) == 4
    for case in report.cases:
        assert case.failure is None
        assert case.picture_seconds is not None
        assert 0 < case.picture_seconds.min <= case.picture_seconds.median
        assert case.peak_bytes is not None
        assert 100 << 20 < case.peak_bytes < report.devices[0].total_bytes
        for run in case.runs:
            assert {"load", "encode_prompt", "denoise", "decode"} <= set(run.seconds)
            assert set(run.peak_bytes) <= set(run.seconds)
    assert len(report.model.revision or "") == 64
    assert report.versions["torch"]
