"""Whatever goes wrong with a job becomes that job's fault, and the next job is made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rockiln.domain.fault import FaultCode, Stage
from rockiln.domain.model import ModelProfile
from rockiln.engine.engine import UnfitDeviceError
from support.engine_harness import EngineHarness
from support.parameters import parameters

# What fails in the family, and what the engine calls the stage.
STAGES: dict[str, Stage] = {
    "encode_prompt": "encode_prompt", "predict": "denoise", "decode": "decode",
}  # fmt: skip


def break_family(
    harness: EngineHarness, model: ModelProfile, patch: pytest.MonkeyPatch, **functions: Any
) -> None:
    """Replaces functions of the loaded model's family until ``patch`` is undone."""
    loaded = harness.shelf.take(model, harness.plan(parameters(), model)).model
    patch.setattr(loaded, "family", replace(loaded.family, **functions))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 100}, "not on this model's 8 px grid"),
        ({"scheduler": "plms"}, "'plms' does not sample"),
        ({"num_inference_steps": 0}, "0 steps are none"),
    ],
)
def test_bad_parameters_are_a_request_bug(
    harness: EngineHarness, tiny: ModelProfile, changes: dict[str, Any], words: str
) -> None:
    harness.run(parameters(**changes), tiny)
    failure = harness.failure()
    assert failure.code is FaultCode.REQUEST_BUG
    assert words in failure.detail
    assert harness.engine.idle


def test_plan_for_another_device_is_an_engine_error(
    harness: EngineHarness, tiny: ModelProfile
) -> None:
    chosen = harness.plan(parameters(), tiny, device="gpu")
    harness.run(parameters(), tiny, chosen=chosen)
    assert harness.failure().code is FaultCode.ENGINE_ERROR


def test_job_sent_twice_fails_once_and_ends(harness: EngineHarness, tiny: ModelProfile) -> None:
    harness.submit(parameters(), tiny)
    harness.submit(parameters(), tiny)
    assert harness.names() == ["denoise_started", "job_failed"]
    assert harness.engine.idle


def test_job_without_pictures_ends_at_once(harness: EngineHarness, tiny: ModelProfile) -> None:
    harness.run(parameters(), tiny, pictures=[])
    assert harness.names() == ["job_ended"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), FaultCode.STORAGE_FULL),
        # MIOpen's words as torch raises them (ROCm/MIOpen#2123 and like reports).
        (RuntimeError("miopenStatusUnknownError"), FaultCode.MIOPEN_NO_ALGORITHM),
        (RuntimeError("anything"), FaultCode.ENGINE_ERROR),
        (ValueError("anything"), FaultCode.ENGINE_ERROR),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_error_of_a_stage_becomes_the_jobs_fault(  # noqa: PLR0917 (pytest hands them by name)
    harness: EngineHarness,
    tiny: ModelProfile,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stage: str,
    error: Exception,
    code: FaultCode,
) -> None:
    def fail(*_: object) -> None:
        raise error

    break_family(harness, tiny, monkeypatch, **{stage: fail})
    harness.run(parameters(), tiny)
    failure = harness.failure()
    assert (failure.code, failure.stage) == (code, STAGES[stage])
    assert type(error).__name__ in failure.detail
    assert "Traceback" in capfd.readouterr().err
    assert harness.engine.idle
    monkeypatch.undo()
    assert len(harness.run(parameters(), tiny)) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("HIP out of memory"), FaultCode.GPU_OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FaultCode.HOST_OOM),
        (MemoryError(), FaultCode.HOST_OOM),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_out_of_memory_is_told_with_its_stage_and_ends_the_child(  # noqa: PLR0917 (likewise)
    harness: EngineHarness,
    tiny: ModelProfile,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: Exception,
    code: FaultCode,
) -> None:
    """The exception's frames keep tensors alive: ComfyUI never retries in the except block."""

    def fail(*_: object) -> None:
        raise error

    break_family(harness, tiny, monkeypatch, **{stage: fail})
    with pytest.raises(UnfitDeviceError):
        harness.run(parameters(), tiny)
    assert (harness.failure().code, harness.failure().stage) == (code, STAGES[stage])
    assert harness.engine.idle


def test_device_that_refuses_all_work_ends_the_child(
    harness: EngineHarness, tiny: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.AcceleratorError("HIP error: an illegal memory access was encountered", 700)

    break_family(harness, tiny, monkeypatch, predict=fail)
    harness.submit(parameters(), tiny)
    with pytest.raises(UnfitDeviceError, match="illegal memory access"):
        harness.engine.advance()
    assert harness.failure().code is FaultCode.GPU_PAGE_FAULT


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_are_not_stored(
    harness: EngineHarness, tiny: ModelProfile, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def predict(_: object, latents: torch.Tensor, *__: object) -> torch.Tensor:
        return torch.full_like(latents, value)

    break_family(harness, tiny, monkeypatch, predict=predict)
    harness.run(parameters(), tiny, job_id="spoilt")
    assert harness.failure().code is FaultCode.BAD_OUTPUT
    assert "latents_stored" not in harness.names()
    assert not harness.artefacts.latents_path("spoilt/0.safetensors").exists()


@pytest.mark.parametrize("value", [-1.0, 0.3, float("nan")])
def test_flat_picture_is_bad_output(
    harness: EngineHarness, tiny: ModelProfile, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    flat = torch.full((1, 3, 64, 64), value)
    break_family(harness, tiny, monkeypatch, decode=lambda *_: flat)
    harness.run(parameters(), tiny)
    assert harness.failure().code is FaultCode.BAD_OUTPUT
    assert harness.encoded() == []
