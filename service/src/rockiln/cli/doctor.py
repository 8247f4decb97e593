"""``rockiln doctor``: what is wrong with this host or container, and what to do."""

from __future__ import annotations

import json

from pydantic import ValidationError
from rich.console import Console

from rockiln.doctor.diagnosis import diagnose, exit_code
from rockiln.doctor.measure import measure
from rockiln.doctor.report import document, show
from rockiln.settings import Settings


def run_doctor(*, json_output: bool, prefix: str) -> int:
    """0 all is well, 1 warnings, 2 blockers."""
    settings, fault = settings_or_fault()
    facts = measure(settings, settings_fault=fault, prefix=prefix)
    findings = diagnose(facts)
    if json_output:
        print(json.dumps(document(facts, findings), indent=2, default=str))
    else:
        show(facts, findings, Console(highlight=False))
    return exit_code(findings)


def settings_or_fault() -> tuple[Settings, str]:
    """The settings, or the defaults and why they could not be read."""
    try:
        return Settings(), ""
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return Settings.model_construct(), fault  # what could not be read is not judged
