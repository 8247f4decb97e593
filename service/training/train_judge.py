"""Train the judge on drawn pictures: ``python -m training.train_judge --checkpoint FILE --out
FILE``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from training import checkpoint, training_loop
from training.attributes import ATTRIBUTES
from training.checkpoint import step_generator
from training.flat_adam import FlatAdam, cosine_rate
from training.graphed_step import GraphedStep
from training.judge import Judge, judge_loss, read, scene_places
from training.picture_pool import PicturePool, scene_batch

PEAK_RATE = 1.5e-3
STEPS = 4000
_BATCH = 128
_CHECK_SEED = 7


def disturbed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, blur and a change of brightness: nothing too fine for an eye may carry the answer."""
    device = pictures.device
    count = len(pictures)

    def each() -> Tensor:
        return torch.rand(count, 1, 1, 1, generator=generator, device=device)

    soft = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(pictures, soft, each())
    pictures = pictures * (0.94 + 0.12 * each())
    noise = torch.randn(pictures.shape, generator=generator, device=device)
    return pictures + 0.04 * each() * noise


class JudgeTrainer:
    def __init__(
        self,
        seed: int,
        device: torch.device,
        *,
        pictures: int,
        batch: int,
        side_px: int,
        workers: int,
    ) -> None:
        torch.manual_seed(seed)
        self.seed, self.device, self.batch = seed, device, batch
        self.judge = Judge().to(device)
        self.optimiser = FlatAdam([self.judge], weight_decay=0.02, clip=1.0, average=0.998)
        self.pools: list[PicturePool] = []
        self.steps: list[GraphedStep] = []
        long_px = side_px * 3 // 2
        first = 0
        for high, wide, share in (
            (side_px, side_px, 6), (side_px, long_px, 1), (long_px, side_px, 1)
        ):  # fmt: skip
            count = max(batch, pictures * share // 8)
            scenes = scene_batch(seed + 50, first, count, device, workers)
            first += count
            self.pools.append(PicturePool.draw(scenes, high, wide))
            self.steps.append(self._step(high, wide))

    def _step(self, high: int, wide: int) -> GraphedStep:
        inputs = {
            "pictures": torch.zeros(self.batch, 3, high, wide, device=self.device),
            "labels": torch.zeros(
                self.batch, len(ATTRIBUTES), dtype=torch.int64, device=self.device
            ),
            "places": torch.zeros(self.batch, 2, 2, device=self.device),
        }
        return GraphedStep(
            lambda: judge_loss(self.judge, inputs["pictures"], inputs["labels"], inputs["places"]),
            inputs,
            self.optimiser,
        )

    def step(self, step: int, steps: int) -> dict[str, Tensor]:
        generator = step_generator(self.seed, step, self.device)
        which = {6: 1, 7: 2}.get(step % 8, 0)
        pool = self.pools[which]
        rows = torch.randint(
            len(pool.scenes), (self.batch,), generator=generator, device=self.device
        )
        scenes = pool.scenes.take(rows)
        pictures = pool.pictures[rows, :3].float() / 255
        return self.steps[which](
            cosine_rate(step, steps, PEAK_RATE, 200),
            pictures=disturbed(pictures, generator),
            labels=scenes.labels(),
            places=scene_places(scenes),
        )


def accuracy_on_drawn(
    judge: Judge, device: torch.device, count: int, workers: int
) -> dict[str, float]:
    """Share of right classes on fresh drawn pictures, per attribute."""
    scenes = scene_batch(_CHECK_SEED, 0, count, device, workers)
    pool = PicturePool.draw(scenes, 256, 256)
    classes, places = read(judge, pool.pictures[:, :3].float() / 255)
    found: dict[str, float] = {}
    for name in ATTRIBUTES:
        wanted = scenes.kind(name)
        known = wanted >= 0
        found[name] = float((classes[name] == wanted)[known].float().mean())
    wanted_places = scene_places(scenes)
    there = wanted_places[..., 0] >= 0
    found["place_error"] = float((places - wanted_places).abs()[there].mean())
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training_loop.LoopOptions.add_arguments(parser, STEPS)
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args(argv)
    options = training_loop.LoopOptions.from_arguments(a)
    device = torch.device(a.device)
    trainer = JudgeTrainer(
        a.seed, device, pictures=a.pictures, batch=_BATCH, side_px=256, workers=a.workers
    )
    if training_loop.run(options, trainer.optimiser, lambda s: trainer.step(s, options.steps)):
        with trainer.optimiser.averaged():
            checkpoint.save(a.out, dict(trainer.judge.state_dict()), options.steps)
            found = accuracy_on_drawn(trainer.judge.eval(), device, 2000, a.workers)
        print(" ".join(f"{name} {value:.4f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
