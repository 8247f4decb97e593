"""What the front page says is true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_the_table_of_hosts_is_that_of_the_catalogue() -> None:
    script = ROOT / "ansible" / "docs" / "releases.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0


def test_every_link_of_every_page_leads_somewhere() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    broken = [
        f"{page}: {target}"
        for page in listed
        for target in LINK.findall((ROOT / page).read_text())
        if not ((ROOT / page).parent / target).exists()
    ]
    assert not broken


def test_the_two_commands_are_programs() -> None:
    block = README.partition("## Two commands")[2].partition("Then:")[0]
    commands = [
        line.split("#")[0].strip() for line in block.splitlines() if line.startswith("    ")
    ]
    assert commands == ["./bootstrap.sh", "tests/run"]
    for command in commands:
        assert (ROOT / command).stat().st_mode & 0o111


def test_the_curl_line_sends_what_the_service_takes() -> None:
    """The integration and the host tests send this very request."""
    line = re.search(r"curl -X POST.*?-o boat\.png", README, re.DOTALL)
    assert line is not None
    words = shlex.split(line.group().replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert words[3] == "http://127.0.0.1:8000/generate"
    assert body == {"prompt": "a red boat on a lake at sunset, snowy mountains", "seed": 7}
