"""The switches of the fault-injecting engine, written into a prompt, or at a start for all jobs.

``!ACTION[=VALUE]@STAGE[.STEP][<RUNG][#ATTEMPTS]``, as many as wanted, anywhere in the prompt:

    !segv@denoise.3            a real SIGSEGV in the third step
    !hang@decode#1             stands still in decode, in the first attempt
    !oom@decode<cpu            out of memory in decode on every rung below "cpu"
    !heap@exit                 leaves by the normal way out, where a broken heap aborts it

Stages: start, encode_prompt, denoise, stored (latents are on disk), decode, encode, exit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STAGES = ("start", "encode_prompt", "denoise", "stored", "decode", "encode", "exit")
ACTIONS = (
    "segv", "abort", "heap", "kill", "exit", "hang", "deaf", "oom", "oomdie", "raise", "say",
    "gibberish", "half", "leak", "slow", "silent", "torn",
)  # fmt: skip
_SWITCH = re.compile(
    r"!(?P<action>[a-z]+)(=(?P<value>[\w.-]+))?@(?P<stage>[a-z_]+)(\.(?P<step>\d+))?"
    r"(<(?P<rung>[a-z_]+))?(#(?P<attempts>\d+))?"
)
DENOISE_LADDER = (
    "full", "sliced", "model_offload", "text_encoder_offload", "group_offload",
    "sequential_offload", "split_batch",
)  # fmt: skip
DECODE_LADDER = (
    "full", "tiled", "small_tiles", "other_dtype", "miopen_fast_find", "miopen_fewer_solvers",
    "cpu",
)  # fmt: skip


@dataclass(frozen=True)
class Switch:
    """One switch. ``step`` 0: any; ``attempts`` 0: all of them."""

    action: str
    value: str
    stage: str
    step: int
    rung: str
    attempts: int

    def strikes(self, stage: str, step: int, attempt: int, rungs: dict[str, str]) -> bool:
        """Whether it is to act here and now."""
        if self.stage != stage or (self.step and self.step != step):
            return False
        if self.attempts and attempt > self.attempts:
            return False
        return not self.rung or _below(rungs, self.rung, stage)


def parse(text: str) -> list[Switch]:
    """Every switch in a text. Raises ValueError on one that does not exist."""
    found = []
    for match in _SWITCH.finditer(text):
        parts = match.groupdict()
        if parts["action"] not in ACTIONS or parts["stage"] not in STAGES:
            raise ValueError(f"no such switch: {match[0]}")
        found.append(
            Switch(
                action=parts["action"],
                value=parts["value"] or "",
                stage=parts["stage"],
                step=int(parts["step"] or 0),
                rung=parts["rung"] or "",
                attempts=int(parts["attempts"] or 0),
            )
        )
    if text.count("!") != len(found):
        raise ValueError(f"not every ! in {text!r} begins a switch")
    return found


def _below(rungs: dict[str, str], wanted: str, stage: str) -> bool:
    kind, ladder = (
        ("decode", DECODE_LADDER)
        if stage in {"stored", "decode", "encode"}
        else ("denoise", DENOISE_LADDER)
    )
    return ladder.index(rungs[kind]) < ladder.index(wanted)
