"""Kills the run after its k-th task, and writes down which tasks there were.

``ROCKILN_INTERRUPT_AFTER=k`` kills; ``ROCKILN_TASK_LOG=FILE`` gets one line a task that ended,
skipped ones too, so that a number names the same place in the next run. Tests alone load this.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: interrupt
    type: aggregate
    short_description: kills the run after its k-th task
    description: For tests of what a killed run leaves behind.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "interrupt"

    def __init__(self) -> None:
        super().__init__()
        self._after = int(os.environ.get("ROCKILN_INTERRUPT_AFTER", "0"))
        self._log = os.environ.get("ROCKILN_TASK_LOG", "")
        self._ended = 0

    def _end(self, result: Any) -> None:
        self._ended += 1
        task = getattr(result, "task", None) or result._task  # noqa: SLF001 (core 2.17 has no other)
        if self._log:
            with Path(self._log).open("a", encoding="utf-8") as stream:
                stream.write(f"{self._ended} {task.get_name()}\n")
        if self._ended == self._after:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        self._end(result)
