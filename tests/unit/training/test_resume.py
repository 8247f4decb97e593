"""A training run that stops and resumes ends where one that never stopped ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import checkpoint, train_unet, train_vae
from training.flat_adam import FlatAdam, cosine_rate
from training.gate_vae import psnr_db
from training.graphed_step import GraphedStep

pytestmark = pytest.mark.slow

SMALL = ("--tiny", "--device", "cpu", "--workers", "0")
VAE = (*SMALL, "--pictures", "4", "--crops", "4", "--steps", "5")
UNET = (*SMALL, "--pictures", "12", "--batch", "4", "--steps", "5")


@pytest.mark.parametrize(("command", "options"), [(train_vae.main, VAE), (train_unet.main, UNET)])
def test_resumed_equals_uninterrupted(
    command: Callable[[list[str]], None], options: tuple[str, ...], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.ck", tmp_path / "parts.ck"
    command([*options, "--checkpoint", str(whole)])
    command([*options, "--checkpoint", str(parts), "--stop-at", "2"])
    assert checkpoint.load(parts)[1] == 2
    command([*options, "--checkpoint", str(parts)])
    (wanted, steps), (found, resumed_steps) = checkpoint.load(whole), checkpoint.load(parts)
    assert steps == resumed_steps == 5
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name]), name


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    files = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.ck"
        train_vae.main([*VAE, "--checkpoint", str(path), "--stop-at", "1", "--seed", seed])
        files.append(checkpoint.load(path)[0]["optimiser.values"])
    assert not torch.equal(files[0], files[1])


def test_flat_optimiser_agrees_with_torch() -> None:
    torch.manual_seed(0)
    ours = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 1))
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(16, 1)
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4, 4)
    flat = FlatAdam([ours], weight_decay=0.1, clip=0.5, average=0.9)
    step = GraphedStep(lambda: {"loss": ours(x).square().mean()}, {"x": x}, flat)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(4):
        step(0.01)
        reference.zero_grad()
        theirs(x).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with flat.averaged():
        averaged = [p.clone() for p in ours.parameters()]
    assert not torch.equal(averaged[0], next(iter(ours.parameters())))


def test_learning_rate_warms_up_and_comes_down() -> None:
    rates = [cosine_rate(step, 100, 1.0, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.01)


def test_psnr_of_a_known_error() -> None:
    a = torch.zeros(2, 3, 4, 4)
    assert psnr_db(a, a + 0.1) == pytest.approx(20.0, abs=1e-3)
