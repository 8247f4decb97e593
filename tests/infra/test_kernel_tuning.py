"""Kernel settings: each with its reason and source, rendered, and applied where it can be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS: dict[str, Any] = yaml.safe_load(
    (ROOT / "ansible/roles/kernel_tuning/defaults/main.yml").read_text(encoding="utf-8")
)
LIMITS = "/etc/security/limits.d/70-rockiln.conf"
SYSCTL = "/etc/sysctl.d/70-rockiln.conf"
FILES = (LIMITS, SYSCTL, "/etc/tmpfiles.d/70-rockiln-thp.conf", "/etc/modprobe.d/70-rockiln.conf")


def settings(host: Any, path: str) -> list[tuple[str, str]]:
    """(comment, line) of each setting."""
    file = host.file(path)
    if not file.exists:
        return []
    lines = file.content_string.splitlines()[1:]
    return list(zip(lines[::2], lines[1::2], strict=True))


@pytest.mark.parametrize("path", FILES)
def test_every_setting_says_why_and_from_where(host: Any, path: str) -> None:
    assert [
        line for comment, line in settings(host, path) if not re.match(r"^# .+ \(.+\)$", comment)
    ] == []


def test_little_is_set_by_default(host: Any) -> None:
    known = {item["name"]: item for item in DEFAULTS["kernel_tuning_known"]}
    expected = [
        f"{DEFAULTS['kernel_tuning_limit_domain']} - {name} {known[name]['value']}"
        for name in DEFAULTS["kernel_tuning_chosen"]
        if known[name]["kind"] == "limit"
    ]
    assert [line for _, line in settings(host, LIMITS)] in (expected, [])


def test_sysctls_hold_or_cannot_be_set_here(host: Any) -> None:
    read_only = (
        "ro" in host.mount_point("/proc/sys").options
        if host.mount_point("/proc/sys").exists
        else False
    )
    wanted = dict(line.split(" = ") for _, line in settings(host, SYSCTL))
    found = {name: str(host.sysctl(name)) for name in wanted}
    assert found == wanted or read_only
