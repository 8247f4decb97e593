"""Who may use the GPU: groups, memberships and the rule for device nodes."""

from __future__ import annotations

import json
from typing import Any

RECORD = "/var/lib/rockiln-host/gpu_access.json"
RULE = "/etc/udev/rules.d/70-rockiln-gpu.rules"
GROUPS = ("render", "video")


def test_recorded_memberships_are_true(host: Any) -> None:
    record = host.file(RECORD)
    pairs = json.loads(record.content_string) if record.exists else []
    assert [pair for pair in pairs if pair[0] not in host.user(pair[1]).groups] == []


def test_rule_gives_kfd_and_render_nodes_to_the_group(host: Any) -> None:
    rule = host.file(RULE)
    if not rule.exists:
        return
    lines = [line for line in rule.content_string.splitlines() if not line.startswith("#")]
    assert lines == [
        'KERNEL=="kfd", GROUP="render", MODE="0660"',
        'SUBSYSTEM=="drm", KERNEL=="renderD*", GROUP="render", MODE="0660"',
    ]
    assert (rule.user, rule.group, rule.mode) == ("root", "root", 0o644)


def test_groups_of_the_rule_are_system_groups(host: Any) -> None:
    if not host.file(RULE).exists:
        return
    limit = int(host.check_output("awk '$1 == \"GID_MIN\" {print $2}' /etc/login.defs"))
    assert [name for name in GROUPS if host.group(name).gid >= limit] == []


def test_nobody_was_put_into_the_engines_group_unasked(host: Any) -> None:
    record = host.file(RECORD)
    pairs = json.loads(record.content_string) if record.exists else []
    assert [pair for pair in pairs if pair[0] == "docker"] == []
