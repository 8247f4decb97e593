"""Train the VAE on crops of drawn pictures: ``python -m training.train_vae --checkpoint FILE``."""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from training import training_loop
from training.checkpoint import step_generator
from training.flat_adam import FlatAdam, cosine_rate
from training.graphed_step import GraphedStep
from training.networks import LATENT_CHANNELS, LATENT_FACTOR, build_vae
from training.picture_pool import PicturePool, scene_batch
from training.vae_loss import vae_loss

PEAK_RATE = 1.2e-3
WARM_UP = 300
STEPS = 30_000
# Whole pictures keep the normalisation layers honest about what they meet when the model is used.
WHOLE_EVERY = 4


class VaeTrainer:
    """Pools, networks and the two recorded steps: on 128 px crops and on whole pictures."""

    def __init__(
        self,
        seed: int,
        device: torch.device,
        *,
        pictures: int,
        crops: int,
        tiny: bool,
        workers: int,
    ) -> None:
        torch.manual_seed(seed)
        self.seed, self.device, self.crops = seed, device, crops
        self.vae = build_vae(tiny).to(device).to(memory_format=torch.channels_last)
        self.optimiser = FlatAdam([self.vae], weight_decay=0.01, clip=1.0, average=0.9995)
        side = 64 if tiny else 256
        self.crop_px = side // 2
        scenes = scene_batch(seed, 0, pictures, device, workers)
        self.native = PicturePool.draw(scenes, side, side)
        # Larger drawings of a few of the scenes: the same shapes with wider edges.
        large = scenes.take(torch.arange(max(1, pictures // 8), device=device))
        self.large = PicturePool.draw(large, 2 * side, 2 * side, 64)
        if device.type == "cuda":
            # Fused kernels: the step is bound by memory traffic once launches are out of the way.
            self.vae.encoder = torch.compile(self.vae.encoder, dynamic=False)
            self.vae.decoder = torch.compile(self.vae.decoder, dynamic=False)
        self._steps = {
            px: self._step(count, px) for count, px in ((crops, self.crop_px), (crops // 4, side))
        }

    def _step(self, count: int, side_px: int) -> GraphedStep:
        latent = side_px // LATENT_FACTOR
        inputs = {
            "crops": torch.zeros(count, 4, side_px, side_px, dtype=torch.uint8, device=self.device),
            "noise": torch.zeros(count, LATENT_CHANNELS, latent, latent, device=self.device),
        }
        return GraphedStep(
            lambda: vae_loss(self.vae, inputs["crops"], inputs["noise"]), inputs, self.optimiser
        )

    def step(self, step: int, steps: int) -> dict[str, Tensor]:
        generator = step_generator(self.seed, step, self.device)
        whole = step % WHOLE_EVERY == WHOLE_EVERY - 1
        side = self.crop_px * 2 if whole else self.crop_px
        count = self.crops // 4 if whole else self.crops
        large = count // 4
        crops = torch.cat(
            (
                self.native.crops(count - large, side, generator),
                self.large.crops(large, side, generator),
            )
        )
        recorded = self._steps[side]
        noise = torch.randn(recorded.inputs["noise"].shape, generator=generator, device=self.device)
        rate = cosine_rate(step, steps, PEAK_RATE, WARM_UP)
        return recorded(rate, crops=crops, noise=noise)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training_loop.LoopOptions.add_arguments(parser, STEPS)
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--crops", type=int, default=64, help="128 px crops a step")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="smallest network, for tests")
    a = parser.parse_args(argv)
    options = training_loop.LoopOptions.from_arguments(a)
    trainer = VaeTrainer(
        a.seed,
        torch.device(a.device),
        pictures=a.pictures,
        crops=a.crops,
        tiny=a.tiny,
        workers=a.workers,
    )
    done = training_loop.run(
        options, trainer.optimiser, lambda step: trainer.step(step, options.steps)
    )
    print("complete" if done else "to be resumed", flush=True)


if __name__ == "__main__":
    main()
