"""What killed an engine, from what can be seen of the body. Pure, but for reading its table."""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Literal

from rockiln.domain.fault import Fault, FaultCode, Stage

_CRASH_SIGNALS = frozenset(
    {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
)
_CLOCK_FAULTS = {
    "start": FaultCode.BOOT_FAILURE,
    "attempt": FaultCode.ATTEMPT_DEADLINE,
    "job": FaultCode.JOB_DEADLINE,
}
_DECODING: frozenset[Stage | None] = frozenset({"decode", "encode"})


@dataclass(frozen=True)
class Signature:
    """One line of the table.

    Attributes:
        place: where the line is printed.
        after: "clock": it tells only why a clock ran out, "exit": only how a process broke while
            it left or died; empty: by itself.
    """

    code: FaultCode
    pattern: re.Pattern[str]
    example: str
    source: str
    place: Literal["output", "kernel"]
    after: Literal["", "clock", "exit"] = ""


@dataclass(frozen=True)
class Death:
    """What is known of an engine that ended.

    Attributes:
        returncode: as of subprocess: negative is a signal. None: it could not be reaped.
        proven: it had said Ready.
        stage: where the attempt in hand was; None: no attempt was in hand.
        expired: the clock that ran out: "start", "attempt", "job", or one of a stage; empty: none.
        ours: why we killed it, if we did; words for people.
        output: the last lines it printed.
        kernel_lines: what the kernel logged meanwhile; empty too if its log cannot be read.
        oom_kills: kills for memory that were counted meanwhile; None: no counter can be read.
        told: what it said itself before it left: class and words.
    """

    pid: int
    returncode: int | None
    proven: bool
    stage: Stage | None
    expired: str = ""
    ours: str = ""
    output: tuple[str, ...] = field(default=())
    kernel_lines: tuple[str, ...] = field(default=())
    oom_kills: int | None = None
    told: tuple[FaultCode, str] | None = None

    @property
    def signal(self) -> signal.Signals | None:
        if self.returncode is None or self.returncode >= 0:
            return None
        return signal.Signals(-self.returncode)

    @property
    def how(self) -> str:
        """In words: "signal SIGKILL", "exit status 1"."""
        if self.returncode is None:
            return "it cannot be killed"
        return (
            f"exit status {self.returncode}"
            if self.signal is None
            else f"signal {self.signal.name}"
        )


@cache
def signatures() -> tuple[Signature, ...]:
    """The table, in order. Raises KeyError or ValueError on an entry that is none."""
    table = tomllib.loads(files("rockiln.worker").joinpath("fault_signatures.toml").read_text())
    return tuple(
        Signature(
            code=FaultCode(entry["code"]),
            pattern=re.compile(entry["pattern"]),
            example=entry["example"],
            source=entry["source"],
            place=entry["in"],
            after=entry.get("after", ""),
        )
        for entry in table["signature"]
    )


def classify_text(text: str) -> FaultCode | None:
    """The class of an exception's words, for faults that leave the engine alive."""
    found = _first_match(text.splitlines(), "output", {""})
    return found[0].code if found is not None else None


def classify(death: Death) -> Fault:
    """The one fault that a death is. Unknown ones are ``engine_died``."""
    rules = (_told, _clock, _host_oom, _signed, _boot, _ended_by_us, _crash)
    found = (rule(death) for rule in rules)
    unknown = Fault(
        FaultCode.ENGINE_DIED, _sentence(death), death.stage, outside=_killed_by_others(death)
    )
    return next((fault for fault in found if fault is not None), unknown)


def _told(death: Death) -> Fault | None:
    return None if death.told is None else Fault(*death.told, stage="start")


def _boot(death: Death) -> Fault | None:
    if death.proven:
        return None
    detail = f"the engine did not start: {_words(death)}"
    return Fault(FaultCode.BOOT_FAILURE, detail, "start", outside=_killed_by_others(death))


def _ended_by_us(death: Death) -> Fault | None:
    return Fault(FaultCode.ENGINE_DIED, _sentence(death), death.stage) if death.ours else None


def _crash(death: Death) -> Fault | None:
    """A process that broke by itself: told by where it was."""
    if death.signal not in _CRASH_SIGNALS:
        return None
    if death.stage is None:
        said = _first_match(death.output, "output", {"", "exit"})
        words = "" if said is None else f"; it said: {said[1]}"
        detail = f"the engine ended with {death.how} after its work{words}"
        return Fault(FaultCode.EXIT_CORRUPTION, detail)
    if death.stage in _DECODING:
        return Fault(FaultCode.DECODE_CRASH, _sentence(death), death.stage)
    return None


def _killed_by_others(death: Death) -> bool:
    """No engine sends these to itself, and memory was looked at before."""
    killed = death.signal in {signal.SIGKILL, signal.SIGTERM}
    return killed and not death.ours and death.oom_kills == 0


def _clock(death: Death) -> Fault | None:
    """What a clock that ran out means: a hang, unless something explains it better."""
    if not death.expired:
        return None
    stage: Stage | None = "start" if death.expired == "start" else death.stage
    detail = f"{death.ours}; it ended with {death.how}" if death.ours else _sentence(death)
    code = _CLOCK_FAULTS.get(death.expired)
    if code is None:
        seen = _first_match(death.kernel_lines, "kernel", {""})
        stalled = _first_match(death.output, "output", {"", "clock"})
        code = FaultCode.HANG
        if seen is not None and seen[0].code is not FaultCode.HOST_OOM:
            code, detail = seen[0].code, f"{detail}; the kernel says: {seen[1]}"
        elif stalled is not None and stalled[0].code is FaultCode.MIOPEN_FIND_STALL:
            code = FaultCode.MIOPEN_FIND_STALL
    return Fault(code, detail, stage)


def _host_oom(death: Death) -> Fault | None:
    if death.signal is not signal.SIGKILL or death.ours:
        return None
    counted = (death.oom_kills or 0) > 0
    found = _first_match(_of_process(death), "kernel", {""})
    if not counted and (found is None or found[0].code is not FaultCode.HOST_OOM):
        return None
    return Fault(
        FaultCode.HOST_OOM,
        f"the kernel killed the engine for memory {_where(death)}".rstrip(),
        death.stage,
    )


def _of_process(death: Death) -> list[str]:
    return [line for line in death.kernel_lines if re.search(rf"process {death.pid}\b", line)]


def _signed(death: Death) -> Fault | None:
    """The fault that a known line tells."""
    if death.stage is None and death.proven:
        return None  # between jobs: nobody's fault, whatever it printed
    found = _first_match(death.output, "output", {""}) or _first_match(
        [
            line
            for line in death.kernel_lines
            if "process" not in line or line in _of_process(death)
        ],
        "kernel",
        {""},
    )
    if found is None:
        return None
    signature, line = found
    return Fault(signature.code, f"{_sentence(death)}; it said: {line}", _stage(death))


def _stage(death: Death) -> Stage | None:
    return death.stage if death.proven else "start"


def _first_match(lines: Iterable[str], place: str, after: set[str]) -> tuple[Signature, str] | None:
    kept = list(lines)
    for signature in signatures():
        if signature.place == place and signature.after in after:
            for line in kept:
                if signature.pattern.search(line):
                    return signature, line.strip()
    return None


def _where(death: Death) -> str:
    return "" if death.stage is None else f"while it was at: {death.stage}"


def _words(death: Death) -> str:
    return death.ours or death.how


def _sentence(death: Death) -> str:
    return f"the engine ended {_where(death)}: {_words(death)}".replace(" :", ":")
