"""Previews: what they look like, when they come, and that they change nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rockiln.domain.model import ModelProfile
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS
from rockiln.engine import engine
from rockiln.engine.preview import ColourMap
from rockiln.worker import protocol
from support.engine_harness import EngineHarness
from support.parameters import parameters

pytestmark = pytest.mark.slow


def test_colours_are_those_that_the_decoder_gave() -> None:
    latents = torch.randn((1, 4, 12, 16), generator=torch.Generator().manual_seed(1))
    mix = torch.tensor([[30.0, 5, 0], [0, 30, 5], [5, 0, 30], [10, 10, 10]])
    colours = (torch.einsum("chw,ck->hwk", latents[0], mix) + 128).clamp(0, 255)
    pixels = colours.round().numpy().astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    known = ColourMap()
    assert known.jpeg(latents) is None
    known.show(latents, pixels)
    data = known.jpeg(latents)
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 192))
        small = np.asarray(image.resize((16, 12), Image.Resampling.BOX), dtype=float)
    assert np.abs(small - colours.numpy()).mean() < 12
    assert not known.unlearnt


def test_colours_are_learnt_in_the_pause_after_a_job(tmp_path: Path, tiny: ModelProfile) -> None:
    now = 0.0
    harness = EngineHarness(tmp_path, monotonic=lambda: now)
    harness.run(parameters(), tiny)
    seconds = harness.engine.use_pause()
    assert seconds is not None
    assert 0 < seconds < 1
    now = seconds
    assert harness.engine.use_pause() is None
    (shelved,) = harness.shelf._shelf.values()
    assert shelved.colours.ready


@pytest.mark.parametrize("scheduler", DIFFUSION_SCHEDULERS)
def test_a_preview_is_announced_after_its_file_is_there_and_changes_no_picture(
    harness: EngineHarness,
    tiny: ModelProfile,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
) -> None:
    asked = parameters(scheduler=scheduler)
    (plain,) = harness.run(asked, tiny)
    monkeypatch.setattr(engine, "PREVIEW_SECONDS", 0.0)
    (watched,) = harness.run(asked, tiny, job_id=f"watched-{scheduler}")
    assert watched.digest == plain.digest
    steps = [event.step for event in harness.of(protocol.PreviewMade)]
    assert steps == sorted(steps)
    assert 3 <= len(steps) <= 6
    path = harness.artefacts.preview_path(f"watched-{scheduler}", 0)
    with Image.open(path) as image:
        assert max(image.size) == 256
    harness.artefacts.drop_latents(f"watched-{scheduler}")
    assert not path.exists()


def test_a_job_goes_on_where_a_preview_cannot_be_written(
    harness: EngineHarness,
    tiny: ModelProfile,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    harness.run(parameters(), tiny)
    monkeypatch.setattr(engine, "PREVIEW_SECONDS", 0.0)
    (harness.artefacts.root / "previews").mkdir(exist_ok=True)
    (harness.artefacts.root / "previews" / "blocked").write_text("no folder")
    assert len(harness.run(parameters(), tiny, job_id="blocked")) == 1
    assert harness.of(protocol.PreviewMade) == []
    assert "no preview of job blocked" in capfd.readouterr().err


def test_quick_steps_and_warm_ups_have_none(
    harness: EngineHarness, tiny: ModelProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PREVIEW_SECONDS", 3600.0)
    harness.run(parameters(num_inference_steps=8), tiny)
    assert harness.of(protocol.PreviewMade) == []
    monkeypatch.setattr(engine, "PREVIEW_SECONDS", 0.0)
    harness.run(parameters(), tiny, purpose="warm_up")
    assert harness.of(protocol.PreviewMade) == []
