"""Every check of .pre-commit-config.yaml passes over the whole tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CHECKS = [
    hook["id"]
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repo["hooks"]
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", CHECKS)
def test_check(check: str) -> None:
    run = subprocess.run(
        ["pre-commit", "run", check, "--all-files", "--color", "never"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "no files to check" not in run.stdout
