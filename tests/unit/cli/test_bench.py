"""``rockiln bench`` against a real api whose worker is a hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rockiln.cli import exit_codes
from rockiln.cli.bench_report import BenchReport, Case, Run
from rockiln.domain.fault import Fault, FaultCode
from rockiln.store.records import Job, Lease
from support.bench_schema import TARGET, as_text
from support.command import rockiln
from support.front import ServedFront
from support.service import eventually

pytestmark = pytest.mark.slow

CASES = ("--schedulers", "DPM++ 2M,heun", "--steps", "2,3", "--runs", "2")


@pytest.fixture(autouse=True)
def _worker_is_known(served: ServedFront) -> None:
    served.hand.report()


def test_a_table_a_report_and_a_plot_are_made(served: ServedFront, tmp_path: Path) -> None:
    before = served.store.jobs.page(limit=1)
    with served.hand.working():
        words = (*CASES, "--export", "report.json", "--plot", "plot.svg")
        ended = rockiln(served, "bench", "paper", *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for word in ("dpmpp_2m", "heun", "64x64", "1.5", "a test (cpu)"):
        assert word in ended.stdout
    report = BenchReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert [(case.scheduler, case.steps, len(case.runs)) for case in report.cases] == [
        ("dpmpp_2m", 2, 2), ("dpmpp_2m", 3, 2), ("heun", 2, 2), ("heun", 3, 2),
    ]  # fmt: skip
    assert report.command == f"rockiln bench paper {words_of(words)}"
    case = report.cases[1]
    assert case.picture_seconds is not None
    assert (case.picture_seconds.median, case.peak_bytes) == (1.5, 3 << 30)
    assert case.steps_per_second is not None
    assert case.steps_per_second.median == 2
    assert [device.name for device in report.devices] == ["a test"]
    drawn = ElementTree.fromstring((tmp_path / "plot.svg").read_text())  # noqa: S314 (our own)
    said = " ".join(text.strip() for text in drawn.itertext())
    assert "paper on a test" in said
    assert "64x64 px, peak memory 3.00 GiB" in said
    assert served.store.jobs.page(limit=1) == before  # its pictures are in nobody's gallery


def words_of(words: tuple[str, ...]) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def test_json_goes_to_standard_output(served: ServedFront) -> None:
    with served.hand.working():
        words = ("--schedulers", "ddim", "--steps", "2", "--runs", "1", "--json")
        ended = rockiln(served, "bench", *words)
    report = BenchReport.model_validate_json(ended.stdout)
    assert (report.model.id, len(report.cases)) == ("paper", 1)


def test_the_schema_in_the_docs_is_that_of_the_report() -> None:
    assert TARGET.read_text() == as_text(), "next: python -m support.bench_schema"


def test_a_key_that_may_not_see_the_devices_measures_without_their_names(tmp_path: Path) -> None:
    front = ServedFront(tmp_path, tls_address="0.0.0.0:8443", allowed_hosts="kiln.example")
    key = front.store.keys.create("lab", ["generate"], None)
    words = ("--schedulers", "ddim", "--steps", "2", "--runs", "1", "--json")
    with front, front.hand.working():
        front.hand.report()
        ended = rockiln(front, "bench", *words, ROCKILN_KEY=key)
    assert ended.returncode == 0, ended.stderr
    report = BenchReport.model_validate_json(ended.stdout)
    assert (report.devices, report.release, report.where) == ([], None, "its device")
    assert report.cases[0].picture_seconds is not None
    assert "scope admin" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--sizes", "12"], exit_codes.USAGE, "WIDTHxHEIGHT"),
        (["--steps", "0"], exit_codes.USAGE, "from 1 to"),
        (["--steps", ","], exit_codes.USAGE, "names none"),
        (["--runs", "0"], exit_codes.USAGE, "--runs"),
        (["--schedulers", "fast"], exit_codes.USAGE, "no scheduler"),
        (["--plot", "a.png"], exit_codes.USAGE, ".svg"),
        (["--export", "nowhere/a.json"], exit_codes.USAGE, "no folder"),
        (["--schedulers", "flow_euler"], exit_codes.REFUSED, "does not sample"),
        (["other"], exit_codes.REFUSED, "next: GET /models"),
        (["../other"], exit_codes.REFUSED, "next:"),
        (["sd15"], exit_codes.REFUSED, "downloadable"),
        (["--url", "http://127.0.0.1:1"], exit_codes.UNREACHABLE, "next: start"),
        (["--url", "ftp://x"], exit_codes.USAGE, "http"),
    ],
)
def test_bad_input_ends_clearly(
    served: ServedFront, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    ended = rockiln(served, "bench", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_size_that_is_refused_has_its_reason_beside_the_others_figures(
    served: ServedFront,
) -> None:
    with served.hand.working():
        words = ("--sizes", "1024x1024,64x64", "--schedulers", "ddim", "--steps", "2")
        ended = rockiln(served, "bench", *words, "--json")
    assert ended.returncode == exit_codes.REFUSED
    refused, made = BenchReport.model_validate_json(ended.stdout).cases
    assert refused.picture_seconds is None
    assert "512" in (refused.failure or "")
    assert made.failure is None


def test_what_was_measured_before_a_job_failed_is_kept(served: ServedFront, tmp_path: Path) -> None:
    def act(leased: tuple[Lease, Job]) -> None:
        if leased[1].parameters.num_inference_steps == 3:
            served.hand.fail(leased, Fault(FaultCode.GPU_OOM, "4 GiB are too few"))
        else:
            served.hand.finish(leased)

    with served.hand.working(act):
        ended = rockiln(
            served, "bench", *CASES, "--export", "report.json", "--plot", "p.svg", cwd=tmp_path
        )
    assert ended.returncode == exit_codes.JOB_FAILED
    assert "dpmpp_2m, 64x64, 3 steps: gpu_oom: 4 GiB are too few" in ended.stderr
    assert "4 GiB are too few" in (tmp_path / "p.svg").read_text()
    report = BenchReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert [bool(case.failure) for case in report.cases] == [False, True, False, True]


def test_an_interrupt_cancels_the_job_at_work(served: ServedFront) -> None:
    running = subprocess.Popen(
        # Started in the background, this test run may ignore the signal, and so would its children.
        [
            *("env", "--default-signal=INT"),
            *(sys.executable, "-m", "rockiln", "bench", "--sizes", "72x72"),
        ],
        env=served.environment(),
        stderr=subprocess.PIPE,
    )
    job = eventually(
        lambda: next(
            (job for job in served.store.jobs.page(limit=1) if job.parameters.width == 72), None
        ),
        "the first job is accepted",
    )
    address = f"/jobs/{job.id}"
    eventually(lambda: served.log.read_text().count(job.id) > 1, f"it polls {address}")
    os.kill(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == exit_codes.INTERRUPTED, told
    assert served.store.jobs.get(job.id).state == "cancelled"


def test_loading_does_not_count_as_the_pictures_time() -> None:
    runs = [
        Run(seconds={"load": 9.0, "denoise": seconds, "decode": 0.5}, peak_bytes={})
        for seconds in (1.0, 4.0, 2.0)
    ]
    case = Case.of(scheduler="ddim", size=(64, 64), steps=4, runs=runs)
    assert case.picture_seconds is not None
    assert case.steps_per_second is not None
    spread = case.picture_seconds
    assert (spread.min, spread.median, spread.max) == (1.5, 2.5, 4.5)
    assert (case.steps_per_second.min, case.steps_per_second.max) == (1, 4)
    assert case.peak_bytes is None
