"""What a host and its containers say of themselves, and the worker that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

ON_THE_HOST = "/opt/rockiln/bin/rockiln"
PUBLIC = "/etc/rockiln/public"
MISALIGNED = 4


@pytest.mark.parametrize(
    "command",
    [
        ON_THE_HOST,
        "docker exec rockiln-worker /opt/venv/bin/rockiln",
        "docker exec rockiln-api /opt/venv/bin/rockiln",
    ],
)
def test_doctor_finds_no_blocker(host: Any, command: str) -> None:
    """Here the service draws, so a blocker would be the doctor's own fault."""
    told = json.loads(host.run(f"{command} doctor --json").stdout)
    assert [each for each in told["findings"] if each["severity"] == "blocker"] == []
    assert told["facts"]["store"] == "ok"


def test_worker_that_is_not_the_rows_refuses_to_start(
    host: Any, inspect: Callable[[str], dict[str, Any]]
) -> None:
    """A real container of the image, told of another torch: the exit code, the layer, what next."""
    other = host.check_output("mktemp --directory /tmp/other-row.XXXXXX")
    row = json.loads(host.file(f"{PUBLIC}/host.json").content_string)
    row["row"]["torch"]["version"] = row["row"]["torch"]["version"].replace("2.", "3.", 1)
    host.check_output("cp %s/settings.toml %s", PUBLIC, other)
    host.check_output("chmod 755 %s; printf '%%s' %s > %s/host.json", other, json.dumps(row), other)
    ran = host.run(
        "docker run --rm --network none --read-only --tmpfs /tmp --tmpfs /var/lib/rockiln:mode=1777"
        " --user %s --volume %s:%s:ro %s worker",
        inspect("worker")["Config"]["User"],
        other,
        PUBLIC,
        inspect("worker")["Config"]["Image"],
    )
    host.check_output("rm -r %s", other)
    said = ran.stdout + ran.stderr
    assert ran.rc == MISALIGNED, said
    assert "worker.refused" in said
    assert f"misaligned: torch: expected {row['row']['torch']['version']}" in said
    assert '"next"' in said
