"""Findings for eyes and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from rockiln.doctor.diagnosis import exit_code
from rockiln.doctor.kinds import Finding

SCHEMA = 1
VERDICTS = {0: "ok", 1: "warning", 2: "blocker"}
STYLES = {"blocker": "bold red", "warning": "yellow"}


def document(facts: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    """What ``rockiln doctor --json`` prints; its form is described in service/docs/doctor.md."""
    return {
        "schema": SCHEMA,
        "verdict": VERDICTS[exit_code(findings)],
        "findings": [asdict(each) for each in findings],
        "facts": facts,
    }


def show(facts: dict[str, Any], findings: list[Finding], console: Console) -> None:
    """Findings with evidence, cause and next step; then one line of what was measured."""
    for each in findings:
        head = Text.assemble(
            (f"{each.severity:8}", STYLES[each.severity]), "  ", (each.id, "bold"), style=""
        )
        console.print(head)
        for name, text in (
            ("found", each.evidence),
            ("cause", each.cause),
            ("next", each.next_step),
        ):
            console.print(Padding(Text.assemble((f"{name:6}", "dim"), text), (0, 0, 0, 10)))
    gpus = ", ".join(f"{gpu['name']} ({gpu['gfx']})" for gpu in facts["gpu"]["gpus"]) or "none"
    verdict = VERDICTS[exit_code(findings)]
    counts = ", ".join(
        f"{sum(each.severity == severity for each in findings)} {severity}s"
        for severity in ("blocker", "warning")
    )
    console.print(f"{len(facts)} facts measured; {counts}. AMD GPUs: {gpus}. Verdict: {verdict}.")
