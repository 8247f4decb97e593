"""Train UNet and text encoder on encoded pictures: ``python -m training.train_unet ...``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training import training_loop
from training.attributes import ATTRIBUTES
from training.checkpoint import step_generator
from training.diffusion_loss import TextAid, diffusion_loss
from training.flat_adam import FlatAdam, cosine_rate
from training.gate_vae import load_trained_vae
from training.graphed_step import GraphedStep
from training.latent_pool import LatentPool
from training.networks import (
    TOKEN_COUNT,
    TRAIN_TIMESTEPS,
    alphas_cumprod,
    build_text_encoder,
    build_unet,
    build_vae,
)
from training.normalise_latents import latent_statistics, normalise
from training.tokenizer import build_tokenizer

WARM_UP = 300
EMPTY_SHARE = 0.1


@dataclass(frozen=True)
class Phase:
    """``sizes``: picture size (high, wide) -> share of the pool, and of the batch that a step of it
    takes.

    ``order`` is one round of steps, as indices into ``sizes``; ``compiled`` is the one size whose
    step is compiled: compiling the others costs more time than it saves.
    """

    steps: int
    peak_rate: float
    sizes: dict[tuple[int, int], tuple[float, float]]
    order: tuple[int, ...]
    compiled: tuple[int, int]


PHASES = {
    # Learns the world at the native size, with a few pictures of the others.
    "native": Phase(
        steps=18_000,
        peak_rate=1e-3,
        sizes={
            (256, 256): (0.78, 1.0),
            (256, 384): (0.08, 0.34),
            (384, 256): (0.08, 0.34),
            (512, 512): (0.06, 0.125),
        },
        order=(0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 2, 3),
        compiled=(256, 256),
    ),
    # Sharpens large pictures, starting from the averaged weights of the first phase.
    "large": Phase(
        steps=5_400,
        peak_rate=4e-4,
        sizes={
            (256, 256): (0.50, 0.5),
            (256, 384): (0.09, 0.34),
            (384, 256): (0.09, 0.34),
            (512, 512): (0.22, 0.25),
            (512, 768): (0.05, 0.08),
            (768, 512): (0.05, 0.08),
        },
        order=(3, 0, 3, 1, 3, 0, 3, 2, 3, 4, 3, 0, 3, 1, 3, 0, 2, 5, 3, 0),
        compiled=(512, 512),
    ),
}


class UnetTrainer:
    """Latent pools per size, the networks, and one recorded step per size."""

    def __init__(
        self,
        vae: AutoencoderKL,
        *,
        phase: Phase,
        seed: int,
        pictures: int,
        batch: int,
        tiny: bool,
        workers: int,
    ) -> None:
        self.device = next(vae.parameters()).device
        self.seed, self.phase = seed, phase
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        self.empty = torch.tensor(tokenizer.encode(""), device=self.device)
        unet = build_unet(tiny).to(self.device).to(memory_format=torch.channels_last)
        text = build_text_encoder(len(tokenizer), tiny).to(self.device)
        aid = TextAid(text.config.hidden_size).to(self.device)
        self.unet, self.text, self.aid = unet, text, aid
        self.optimiser = FlatAdam([unet, text, aid], weight_decay=0.01, clip=1.0, average=0.999)
        self.signal = alphas_cumprod(self.device)
        self.pools: list[LatentPool] = []
        self.batches: list[int] = []
        first = 0
        for size, (share, part) in phase.sizes.items():
            size_px = (size[0] // 4, size[1] // 4) if tiny else size
            count = max(4, int(pictures * share))
            self.pools.append(
                LatentPool.build(
                    vae,
                    seed=seed,
                    first=first,
                    count=count,
                    size_px=size_px,
                    variants=6,
                    workers=workers,
                )
            )
            self.batches.append(max(1, int(batch * part)))
            first += count
            print(f"encoded {count} pictures of {size_px}", flush=True)
        self._compiled = unet
        if self.device.type == "cuda":
            self._compiled = torch.compile(unet, dynamic=False)
        self._steps = [self._step(i) for i in range(len(self.pools))]

    def _step(self, which: int) -> GraphedStep:
        count, pool = self.batches[which], self.pools[which]
        shape = pool.latents.shape[-2:]

        def blank(*size: int, whole: bool = False) -> Tensor:
            kind = torch.int64 if whole else torch.float32
            return torch.zeros(count, *size, dtype=kind, device=self.device)

        inputs = {
            "latents": blank(4, *shape),
            "weights": blank(1, *shape),
            "noise": blank(4, *shape),
            "tokens": blank(TOKEN_COUNT, whole=True),
            "said": blank(len(ATTRIBUTES), whole=True),
            "timesteps": blank(whole=True),
        }
        compiled = list(self.phase.sizes).index(self.phase.compiled)
        unet = self._compiled if which == compiled else self.unet
        return GraphedStep(
            lambda: diffusion_loss(unet, self.text, self.aid, self.signal, inputs),
            inputs,
            self.optimiser,
        )

    def step(self, step: int, steps: int) -> dict[str, Tensor]:
        generator = step_generator(self.seed, step, self.device)
        which = self.phase.order[step % len(self.phase.order)]
        count = self.batches[which]
        inputs = self.pools[which].batch(count, generator)

        def chance() -> Tensor:
            return torch.rand(count, generator=generator, device=self.device)

        silent = chance() < EMPTY_SHARE
        inputs["tokens"] = torch.where(silent.view(-1, 1), self.empty, inputs["tokens"])
        inputs["said"] = inputs["said"].masked_fill(silent.view(-1, 1), -1)
        # One timestep from each equal share of the range: less noise between batches.
        spread = (torch.arange(count, device=self.device) + chance()) / count
        inputs["timesteps"] = (spread * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1)
        shape = inputs["latents"].shape
        inputs["noise"] = torch.randn(shape, generator=generator, device=self.device)
        return self._steps[which](cosine_rate(step, steps, self.phase.peak_rate, WARM_UP), **inputs)


def prepared_vae(path: Path | None, device: torch.device) -> AutoencoderKL:
    """The trained VAE with normalised latents; without a path an untrained tiny one, for tests."""
    if path is None:
        torch.manual_seed(0)
        return build_vae(tiny=True).to(device).eval().requires_grad_(False)
    vae = load_trained_vae(path, device)
    mean, deviation = latent_statistics(vae, 3, 512)
    normalise(vae, mean, deviation)
    return vae


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    training_loop.LoopOptions.add_arguments(parser, None)
    parser.add_argument("--phase", choices=tuple(PHASES), default="native")
    parser.add_argument("--vae", type=Path, help="trained VAE that passed the gate")
    parser.add_argument("--pictures", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--tiny", action="store_true", help="smallest networks, for tests")
    a = parser.parse_args(argv)
    if a.vae is None and not a.tiny:
        parser.error("--vae is required, unless --tiny is given")
    phase = PHASES[a.phase]
    a.steps = a.steps or phase.steps
    options = training_loop.LoopOptions.from_arguments(a)
    vae = prepared_vae(a.vae, torch.device(a.device))
    trainer = UnetTrainer(
        vae,
        phase=phase,
        seed=a.seed,
        pictures=a.pictures,
        batch=a.batch,
        tiny=a.tiny,
        workers=a.workers,
    )
    done = training_loop.run(
        options, trainer.optimiser, lambda step: trainer.step(step, options.steps)
    )
    print("complete" if done else "to be resumed", flush=True)


if __name__ == "__main__":
    main()
