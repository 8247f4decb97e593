"""Which rung follows which fault."""

from __future__ import annotations

import pytest

from rockiln.domain.fault import Fault, FaultCode, Stage
from rockiln.domain.ladder import (
    ALL_RUNGS,
    DECODE_LADDER,
    DENOISE_LADDER,
    Capabilities,
    DecodeRung,
    DenoiseRung,
    RungKey,
    Rungs,
    climb,
    descend,
    size_bucket,
)

CPU_RUNGS = Capabilities(
    frozenset({DenoiseRung.FULL, DenoiseRung.SPLIT_BATCH}),
    frozenset({DecodeRung.FULL, DecodeRung.TILED, DecodeRung.SMALL_TILES}),
)


def fault(code: str, stage: Stage | None) -> Fault:
    return Fault(FaultCode(code), "", stage)


DENOISER_LADDER = [rung for rung in DENOISE_LADDER if rung != "text_encoder_offload"]


def walk(code: str, stage: Stage | None, available: Capabilities = ALL_RUNGS) -> list[str]:
    """The rungs that one fault climbs, again and again, until none is left."""
    rungs, seen = Rungs(), []
    while (after := climb(rungs, fault(code, stage), available=available)) is not None:
        changed = after.denoise if after.denoise != rungs.denoise else after.decode
        assert after != rungs
        seen.append(str(changed))
        rungs = after
        assert len(seen) < 20
    return seen


@pytest.mark.parametrize(
    ("code", "stage", "climbed"),
    [
        # Smaller pieces of a text encoder make no room for the denoiser.
        ("gpu_oom", "denoise", DENOISER_LADDER[1:]),
        ("gpu_oom", None, [*DENOISE_LADDER[1:]]),
        # Slices of attention make no room for weights.
        ("gpu_oom", "encode_prompt", [*DENOISE_LADDER[2:]]),
        ("gpu_oom", "start", [*DENOISE_LADDER[2:]]),
        # Another dtype needs no less memory.
        ("gpu_oom", "decode", [rung for rung in DECODE_LADDER[1:] if rung != "other_dtype"]),
        ("miopen_no_algorithm", "decode", ["miopen_fast_find", "miopen_fewer_solvers", "cpu"]),
        ("miopen_find_stall", "decode", ["miopen_fast_find", "miopen_fewer_solvers", "cpu"]),
        # The denoiser uses MIOpen too, but a decoder on the CPU does not help it.
        ("miopen_no_algorithm", "denoise", ["miopen_fast_find", "miopen_fewer_solvers"]),
        ("bad_output", "decode", ["other_dtype", "cpu"]),
        ("bad_output", "denoise", []),
        ("decode_crash", "decode", [*DECODE_LADDER[1:]]),
        ("hang", "decode", [*DECODE_LADDER[1:]]),
        ("hang", "denoise", DENOISER_LADDER[1:]),
        ("request_bug", "decode", []),
        ("host_oom", "denoise", []),
    ],
)
def test_each_fault_climbs_its_own_ladder(
    code: str, stage: Stage | None, climbed: list[str]
) -> None:
    assert walk(code, stage) == climbed


def test_rungs_that_do_not_exist_are_skipped() -> None:
    assert walk("gpu_oom", "denoise", CPU_RUNGS) == ["split_batch"]
    assert walk("decode_crash", "decode", CPU_RUNGS) == ["tiled", "small_tiles"]
    assert walk("miopen_no_algorithm", "decode", CPU_RUNGS) == []


def test_a_host_without_memory_gets_its_weights_off_it() -> None:
    rungs = Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.CPU)
    after = climb(rungs, fault("host_oom", "decode"))
    assert after == Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.MIOPEN_FEWER_SOLVERS)
    assert after is not None
    back = climb(after, fault("host_oom", "denoise"))
    assert back == Rungs(DenoiseRung.SLICED, DecodeRung.MIOPEN_FEWER_SOLVERS)
    assert back is not None
    assert climb(back, fault("host_oom", "denoise")) is None


def test_on_a_cpu_the_frugal_rungs_are_the_light_ones() -> None:
    assert walk("host_oom", "decode", CPU_RUNGS) == ["tiled", "small_tiles", "split_batch"]


def test_the_other_ladder_stays_where_it_is() -> None:
    rungs = Rungs(DenoiseRung.MODEL_OFFLOAD, DecodeRung.TILED)
    after = climb(rungs, fault("gpu_oom", "decode"))
    assert after == Rungs(DenoiseRung.MODEL_OFFLOAD, DecodeRung.SMALL_TILES)


def test_descending_ends_at_full_one_rung_at_a_time() -> None:
    rungs, seen = Rungs(DenoiseRung.GROUP_OFFLOAD, DecodeRung.TILED), []
    while rungs != Rungs():
        rungs = descend(rungs)
        seen.append((rungs.denoise.value, rungs.decode.value))
    assert seen == [
        ("text_encoder_offload", "tiled"),
        ("model_offload", "tiled"),
        ("sliced", "tiled"),
        ("sliced", "full"),
        ("full", "full"),
    ]
    assert descend(Rungs()) == Rungs()


def test_descending_skips_what_does_not_exist() -> None:
    rungs = Rungs(DenoiseRung.SPLIT_BATCH, DecodeRung.FULL)
    assert descend(rungs, available=CPU_RUNGS) == Rungs()


def test_settling_goes_towards_full() -> None:
    wanted = Rungs(DenoiseRung.SEQUENTIAL_OFFLOAD, DecodeRung.CPU)
    assert CPU_RUNGS.settle(wanted) == Rungs(DenoiseRung.FULL, DecodeRung.SMALL_TILES)


def test_rungs_survive_their_dictionary() -> None:
    rungs = Rungs(DenoiseRung.SLICED, DecodeRung.CPU)
    assert Rungs.from_dict(rungs.as_dict()) == rungs


def test_keys_do_not_run_into_each_other() -> None:
    one = RungKey("r", "512x512", 1, "float16", "a|b", "c")
    other = RungKey("r", "512x512", 1, "float16", "a", "b|c")
    assert one.text != other.text
    assert [RungKey.of_text(each.text) for each in (one, other)] == [one, other]
    assert RungKey.of_text("something else") is RungKey.of_text("a|b|c|d|e|f") is None


@pytest.mark.parametrize(
    ("width", "height", "bucket"),
    [(512, 512, "512x512"), (520, 512, "576x512"), (64, 1000, "64x1024")],
)
def test_sizes_of_like_memory_share_a_bucket(width: int, height: int, bucket: str) -> None:
    assert size_bucket(width, height) == bucket
