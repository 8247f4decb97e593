"""What bootstrap.sh says of itself is what it does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def bootstrap(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "bootstrap.sh"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_option_and_every_exit_code() -> None:
    text = bootstrap("--help").stdout
    source = (ROOT / "bootstrap.sh").read_text(encoding="utf-8")
    options = set(re.findall(r"^    (--[a-z-]+)[ )]", source, flags=re.MULTILINE))
    assert len(options) >= 10
    assert {option for option in options if option not in text} == set()
    codes = dict(
        re.findall(
            r"\b(E_[A-Z_]+)=(\d)", (ROOT / "ansible/bootstrap/say.sh").read_text(encoding="utf-8")
        )
    )
    documented = re.findall(
        r"(?:· |codes: |^ +)(\d) ",
        text.partition("Exit codes")[2].replace("Exit codes:", ""),
        flags=re.MULTILINE,
    )
    assert sorted({"0", *codes.values()}) == sorted({"0", *documented})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--colour"], 2, "unknown option --colour"),
        (["--listen"], 2, "--listen needs a value"),
        (["--listen", "--check"], 2, "--listen needs a value"),
        (["--listen", "kiln.example:8000"], 2, "is not an IP address with a port"),
        (["--listen", "127.0.0.1:99999"], 2, "is not an IP address with a port"),
        (["--backend", "cuda"], 2, "none of auto, rocm, cpu"),
        (["--backend", "rocm"], 3, "shows no AMD GPU"),
        (["--backend", "rocm", "--release", "cpu"], 2, "exclude each other"),
        (["--backend", "cpu", "--release", "7.2.4"], 2, "exclude each other"),
        (["--backend", "rocm", "--runtime", "process"], 2, "computes on the CPU"),
        (["--runtime", "podman"], 2, "none of auto, docker, process"),
        (["--release", "latest"], 3, "no release latest"),
        (["--inventory", "nowhere"], 2, "no inventory nowhere"),
        (["--offline", "here", "--make-bundle", "there"], 2, "exclude each other"),
        (["--offline", "/nowhere"], 7, "is not a bundle"),
    ],
)
def test_wrong_usage_is_refused_with_cause_and_next_command(
    arguments: list[str], code: int, words: str
) -> None:
    answer = bootstrap(*arguments)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stderr
    assert re.search(r"^  next:  \S", answer.stderr, flags=re.MULTILINE)


def test_thin() -> None:
    assert len((ROOT / "bootstrap.sh").read_text(encoding="utf-8").splitlines()) <= 120
