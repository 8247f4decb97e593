"""``rockiln report`` on a host whose last job failed, and on one where little works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from rockiln.domain.fault import Fault, FaultCode
from support.front import SOURCE, ServedFront
from support.paper_model import PAPER

pytestmark = pytest.mark.slow

PROMPT, NEGATIVE, TOKEN = "a secret castle", "visitors unwanted", "hf_canaryCANARY"


@pytest.fixture(scope="module")
def job_id(served: ServedFront) -> str:
    """Of a job that failed, with words that are nobody's business."""
    served.hand.report()
    answer = httpx.post(
        f"{served.url}/generate",
        json={"prompt": PROMPT, "negative_prompt": NEGATIVE},
        headers={"Prefer": "respond-async"},
    )
    served.hand.fail(served.hand.lease(), Fault(FaultCode.GPU_OOM, "4 GiB are too few"))
    failed: str = answer.json()["id"]
    return failed


def test_the_text_has_what_a_helper_asks_for_and_no_prompt(
    served: ServedFront, job_id: str
) -> None:
    ended = with_token(served, "report")
    assert ended.returncode == 0, ended.stderr
    for words in ("report of 2", "cpu0: ready; a test; torch 0", "gpu_oom: 4 GiB are too few",
                  f"job {job_id}", "model paper", "next: ", "Verdict: "):  # fmt: skip
        assert words in ended.stdout
    for secret in (PROMPT, NEGATIVE, TOKEN):
        assert secret not in ended.stdout + ended.stderr


def test_the_file_has_all_of_it_from_the_source_of_the_page(
    served: ServedFront, job_id: str, tmp_path: Path
) -> None:
    ended = with_token(served, "report", "-o", str(tmp_path / "report.json"))
    assert (ended.returncode, ended.stdout) == (0, f"{tmp_path}/report.json\n"), ended.stderr
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert not [secret for secret in (PROMPT, NEGATIVE, TOKEN) if secret in text]
    page = httpx.get(f"{served.url}/ui/system/report").json()
    assert report["system"].keys() == page.keys()
    assert report["system"]["faults"] == page["faults"]
    assert report["doctor"]["findings"]
    steps = report["jobs"][job_id]["num_inference_steps"]
    assert steps == PAPER.defaults.num_inference_steps


def test_prompts_are_told_when_asked_for(served: ServedFront, job_id: str) -> None:
    ended = with_token(served, "report", "--json", "--prompts")
    parameters = json.loads(ended.stdout)["jobs"][job_id]
    assert (parameters["prompt"], parameters["negative_prompt"]) == (PROMPT, NEGATIVE)
    assert TOKEN not in ended.stdout


def with_token(front: ServedFront, *words: str) -> subprocess.CompletedProcess[str]:
    return run(front.environment(), *words)


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rockiln", *words],
        env={**environment, "ROCKILN_HUB_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@pytest.mark.parametrize(
    ("store", "level", "words"),
    [
        (None, "loud", ["-o", "no/folder"]),
        (None, "loud", []),
        (b"no database, but as long as a page" * 500, "info", []),
    ],
)
def test_a_host_where_little_works_has_a_report_too(
    tmp_path: Path, store: bytes | None, level: str, words: list[str]
) -> None:
    if store is not None:
        (tmp_path / "data/store").mkdir(parents=True)
        (tmp_path / "data/store/rockiln.db").write_bytes(store)
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "ROCKILN_DATA_DIR": str(tmp_path / "data"),
        "ROCKILN_PUBLIC_DIR": str(tmp_path),
        "ROCKILN_LOG_LEVEL": level,
    }
    ended = run(environment, "report", *words)
    if words:
        assert (ended.returncode, "cannot be written" in ended.stderr) == (1, True)
        return
    assert ended.returncode == 0, ended.stderr
    assert "Nothing is known of workers and faults: the store" in ended.stdout
    assert TOKEN not in ended.stdout
