"""Which rows share a forward, and what one forward does for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rockiln.engine.families.interface import Conditioning
from rockiln.engine.rows import Row, denoise_step, next_batch
from rockiln.engine.schedulers import make_scheduler
from support.tiny_sd1 import WINDOW_TOKENS

CONFIG = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def make_row(seed: int = 0, **changes: Any) -> Row:
    generator = torch.Generator().manual_seed(seed)
    scheduler = make_scheduler(changes.pop("scheduler", "ddim"), CONFIG)
    scheduler.set_timesteps(changes.pop("steps", 4))
    side = changes.pop("side", 8)
    window = changes.pop("window", WINDOW_TOKENS)
    values: dict[str, Any] = {
        "form": "network",
        "latents": torch.randn((1, 4, side, side), generator=generator),
        "scheduler": scheduler,
        "conditioning": {"prompt_embeds": torch.full((1, window, 8), 1.0 + seed)},
        "negative": {"prompt_embeds": torch.full((1, window, 8), -1.0 - seed)},
        "guidance_scale": 3.0,
        "generator": generator,
        "max_batch_rows": 4,
    }
    return Row(**(values | changes))


def predict(
    latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    """Each sample's prediction depends on that sample alone, and on all that it is given."""
    text = conditioning["prompt_embeds"].mean(dim=(1, 2))
    return 0.1 * latents + (text + 1e-3 * timesteps)[:, None, None, None]


def test_batch_is_led_by_the_first_row_and_keeps_the_order() -> None:
    rows = [make_row(), make_row(side=16), make_row(), make_row(scheduler="euler", steps=9)]
    assert next_batch(rows) == [rows[0], rows[2], rows[3]]


def test_batch_is_no_wider_than_its_leader_allows() -> None:
    rows = [make_row(max_batch_rows=2) for _ in range(3)]
    assert next_batch(rows) == rows[:2]
    assert next_batch([make_row(max_batch_rows=1), *rows])[1:] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"form": "other network"},
        {"side": 16},
        {"window": 154},
        {"latents": torch.zeros((1, 4, 8, 8), dtype=torch.float16)},
    ],
    ids=["network", "latent shape", "text length", "dtype"],
)
def test_rows_that_do_not_fit_run_apart(changes: dict[str, Any]) -> None:
    rows = [make_row(), make_row(**changes)]
    assert next_batch(rows) == rows[:1]


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler_ancestral", "unipc"])
def test_row_gets_the_same_numbers_alone_and_among_others(scheduler: str) -> None:
    alone, shared = (make_row(1, scheduler=scheduler, steps=5) for _ in range(2))
    others = [make_row(2, steps=5, guidance_scale=9.0), make_row(3, negative=None, steps=5)]
    while not alone.finished:
        denoise_step([alone], predict)
        denoise_step([others[0], shared, others[1]], predict)
    assert torch.equal(alone.latents, shared.latents)
    assert (alone.widest_batch_rows, shared.widest_batch_rows) == (1, 3)


def test_unconditional_samples_come_first() -> None:
    seen: list[list[float]] = []

    def look(*arguments: Any) -> torch.Tensor:
        seen.append(arguments[2]["prompt_embeds"][:, 0, 0].tolist())
        return predict(*arguments)

    denoise_step([make_row(1), make_row(2, negative=None), make_row(3)], look)
    assert seen == [[-2.0, -4.0, 2.0, 3.0, 4.0]]


def test_guidance_is_each_rows_own() -> None:
    weak, strong = make_row(guidance_scale=1.5), make_row(guidance_scale=15.0)
    start = weak.latents.clone()
    denoise_step([weak, strong], predict)
    assert (strong.latents - start).abs().mean() > (weak.latents - start).abs().mean()


def test_step_is_reported_once_per_row_after_all_have_moved() -> None:
    positions: list[tuple[int, int]] = []
    first, second = make_row(), make_row()
    first.on_step.append(lambda row: positions.append((row.position, second.position)))
    denoise_step([first, second], predict)
    assert positions == [(1, 1)]


def test_row_is_finished_after_its_own_count_of_steps() -> None:
    rows = [make_row(steps=1), make_row(steps=2)]
    denoise_step(rows, predict)
    assert [row.finished for row in rows] == [True, False]
