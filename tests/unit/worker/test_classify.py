"""What killed an engine: every known line, and what is made of unknown ones."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from rockiln.domain.fault import Fault, FaultCode
from rockiln.worker.classify import Death, Signature, classify, classify_text, signatures

_SIGNATURES = {f"{one.code}-{place}": one for place, one in enumerate(signatures())}


def death(**facts: Any) -> Death:
    """An engine that was killed from outside while it denoised, unless told otherwise."""
    base: dict[str, Any] = {
        "pid": 4711,
        "returncode": -signal.SIGKILL,
        "proven": True,
        "stage": "denoise",
    }
    return Death(**(base | {"oom_kills": 0} | facts))


def seen(signature: Signature) -> Fault:
    """What comes of the example line where it is usually printed."""
    line = signature.example.replace("15617", "4711").replace("28438", "4711")
    lines = {"output" if signature.place == "output" else "kernel_lines": ("noise", line, "noise")}
    match signature.after:
        case "clock":
            return classify(death(expired="decode", ours="no progress", stage="decode", **lines))
        case "exit":
            return classify(death(returncode=-signal.SIGABRT, stage=None, **lines))
        case _ if signature.code is FaultCode.HOST_OOM and signature.place == "kernel":
            return classify(death(oom_kills=None, **lines))
        case _:
            return classify(death(returncode=-signal.SIGABRT, **lines))


@pytest.mark.parametrize("signature", _SIGNATURES.values(), ids=_SIGNATURES)
def test_every_known_line_is_its_class(signature: Signature) -> None:
    assert signature.pattern.search(signature.example), "the example must be one"
    assert seen(signature).code == signature.code
    assert signature.source.strip()


def test_the_table_is_large_enough_and_says_nothing_twice() -> None:
    assert len(signatures()) >= 30
    examples = [signature.example for signature in signatures()]
    assert len(set(examples)) == len(examples)
    assert all(one.source.startswith("https://") for one in signatures() if "#" in one.source)


def test_an_unknown_death_is_told_as_it_is() -> None:
    fault = classify(death(returncode=7, output=("something new went wrong",)))
    assert (fault.code, fault.stage, fault.outside) == ("engine_died", "denoise", False)
    assert "exit status 7" in fault.detail


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS])
@pytest.mark.parametrize(
    ("stage", "code"),
    [
        (None, "exit_corruption"),
        ("decode", "decode_crash"),
        ("encode", "decode_crash"),
        ("denoise", "engine_died"),
        ("encode_prompt", "engine_died"),
    ],
)
def test_a_crash_is_told_by_its_stage(number: signal.Signals, stage: str, code: str) -> None:
    """Field reports: "malloc(): invalid size" after 20 of 20 steps, in decode or at exit."""
    fault = classify(death(returncode=-number, stage=stage))
    assert (fault.code, fault.stage) == (code, stage)


def test_sigkill_is_memory_where_the_kernel_counted_one() -> None:
    assert classify(death(oom_kills=1)).code == "host_oom"


def test_sigkill_of_another_process_for_memory_is_not_ours() -> None:
    line = "Out of memory: Killed process 99 (chrome) total-vm:1kB"
    fault = classify(death(kernel_lines=(line,)))
    assert (fault.code, fault.outside) == ("engine_died", True)


def test_sigkill_by_nobody_we_know_is_not_the_jobs() -> None:
    fault = classify(death())
    assert (fault.code, fault.outside, fault.counts) == ("engine_died", True, False)


def test_sigkill_where_nothing_can_be_read_counts() -> None:
    assert classify(death(oom_kills=None)).counts


@pytest.mark.parametrize(
    ("clock", "code"),
    [
        ("start", "boot_failure"),
        ("step", "hang"),
        ("first_step", "hang"),
        ("decode", "hang"),
        ("encode", "hang"),
        ("attempt", "attempt_deadline"),
        ("job", "job_deadline"),
    ],
)
def test_a_clock_that_ran_out_is_a_hang_or_a_deadline(clock: str, code: str) -> None:
    fault = classify(death(expired=clock, ours="no progress for 31 s"))
    assert fault.code == code
    assert "no progress for 31 s" in fault.detail


def test_a_hang_that_the_kernel_explains_is_what_the_kernel_says() -> None:
    line = "amdgpu 0000:c5:00.0: amdgpu: GPU reset begin!. Source:  3"
    fault = classify(death(expired="step", ours="no progress", kernel_lines=(line,)))
    assert (fault.code, fault.doubts_device) == ("gpu_reset", True)


def test_an_engine_that_cannot_be_reaped_is_a_hang() -> None:
    fault = classify(death(returncode=None, expired="decode", ours="no progress", stage="decode"))
    assert fault.code == "hang"
    assert "cannot be killed" in fault.detail


@pytest.mark.parametrize("output", [(), ("ImportError: libamdhip64.so.6",)])
def test_an_engine_that_never_got_ready_is_a_boot_failure(output: tuple[str, ...]) -> None:
    fault = classify(death(returncode=1, proven=False, stage=None, output=output))
    assert (fault.code, fault.stage) == ("boot_failure", "start")


def test_a_start_without_memory_is_what_it_is() -> None:
    line = "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB."
    fault = classify(death(returncode=1, proven=False, stage=None, output=(line,)))
    assert (fault.code, fault.stage) == ("gpu_oom", "start")


def test_words_of_an_exception_have_a_class_too() -> None:
    assert classify_text("RuntimeError: miopenStatusUnknownError") == "miopen_no_algorithm"
    assert classify_text("ValueError: 3") is None
    assert classify_text("MIOpen(HIP): Warning [IsEnoughWorkspace] [GetSolutions]") is None
