"""``rockiln report`` on a host whose last job failed, and on one where little works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from rockiln.domain.fault import Fault, FaultCode
from support.command import rockiln
from support.front import SOURCE, ServedFront
from support.paper_model import PAPER

pytestmark = pytest.mark.slow

PROMPT, NEGATIVE, TOKEN = "a secret castle", "visitors unwanted", "hf_canaryCANARY"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ServedFront(tmp_path_factory.mktemp("reported"), hub_token=TOKEN) as served:
        served.hand.report()
        httpx.post(
            f"{served.url}/generate",
            json={"prompt": PROMPT, "negative_prompt": NEGATIVE},
            headers={"Prefer": "respond-async"},
        )
        fault = Fault(FaultCode.GPU_OOM, "4 GiB are too few")
        served.hand.fail(served.hand.lease(), fault)
        yield served


def test_the_text_has_what_a_helper_asks_for_and_no_prompt(front: ServedFront) -> None:
    ended = rockiln(front, "report")
    assert ended.returncode == 0, ended.stderr
    for words in ("report of 2", "cpu0: ready; a test; torch 0", "gpu_oom: 4 GiB are too few",
                  "model paper", "next: ", "Findings of rockiln doctor", "Verdict: "):  # fmt: skip
        assert words in ended.stdout
    for secret in (PROMPT, NEGATIVE, TOKEN):
        assert secret not in ended.stdout + ended.stderr


def test_the_file_has_all_of_it_from_the_source_of_the_page(
    front: ServedFront, tmp_path: Path
) -> None:
    ended = rockiln(front, "report", "-o", "report.json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "report.json\n"), ended.stderr
    text = (tmp_path / "report.json").read_text()
    report = json.loads(text)
    assert not [secret for secret in (PROMPT, NEGATIVE, TOKEN) if secret in text]
    page = httpx.get(f"{front.url}/ui/system/report").json()
    assert report["system"].keys() == page.keys()
    assert report["system"]["faults"] == page["faults"]
    assert report["doctor"]["findings"]
    (parameters,) = report["jobs"].values()
    assert parameters["num_inference_steps"] == PAPER.defaults.num_inference_steps


def test_prompts_are_told_when_asked_for(front: ServedFront) -> None:
    ended = rockiln(front, "report", "--json", "--prompts")
    (parameters,) = json.loads(ended.stdout)["jobs"].values()
    assert (parameters["prompt"], parameters["negative_prompt"]) == (PROMPT, NEGATIVE)
    assert TOKEN not in ended.stdout


@pytest.mark.parametrize("store", [None, b"", b"no database, but as long as a page" * 500])
def test_a_host_where_little_works_has_a_report_too(tmp_path: Path, store: bytes | None) -> None:
    if store is not None:
        (tmp_path / "data/store").mkdir(parents=True)
        (tmp_path / "data/store/rockiln.db").write_bytes(store)
    ended = subprocess.run(
        [sys.executable, "-m", "rockiln", "report"],
        env={
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "ROCKILN_DATA_DIR": str(tmp_path / "data"),
            "ROCKILN_PUBLIC_DIR": str(tmp_path),
            "ROCKILN_LOG_LEVEL": "info" if store is not None else "loud",
            "ROCKILN_HUB_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Nothing is known of workers and faults: the store" in ended.stdout
    assert TOKEN not in ended.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "rockiln", "report", "-o", str(tmp_path / "no/folder")],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "ROCKILN_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (refused.returncode, "cannot be written" in refused.stderr) == (1, True)
