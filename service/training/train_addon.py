"""Train a LoRA or a ControlNet on the finished model: ``python -m training.train_addon ...``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from training import training_loop
from training.addons import Control, Lora, addon_loss
from training.checkpoint import step_generator
from training.flat_adam import FlatAdam, cosine_rate
from training.graphed_step import GraphedStep
from training.latent_pool import LatentPool
from training.networks import LATENT_FACTOR, TOKEN_COUNT, TRAIN_TIMESTEPS, alphas_cumprod
from training.styles import edges, screen_print
from training.tokenizer import build_tokenizer

WARM_UP = 100
# Two thirds of the steps at the native size, one at twice its sides with a quarter of the batch.
SIZES_PX = (256, 512)
ORDER = (0, 0, 1)


@dataclass(frozen=True)
class Kind:
    """``silent_share``: steps without words, so that a map is followed for its own sake."""

    network: Callable[[UNet2DConditionModel], Lora | Control]
    peak_rate: float
    silent_share: float
    restyle: Callable[[Tensor], Tensor] | None = None
    trace: Callable[[Tensor], Tensor] | None = None


KINDS = {
    "lora": Kind(Lora, 1e-3, 0.1, restyle=screen_print),
    "controlnet": Kind(Control, 1e-3, 0.3, trace=edges),
}


class AddonTrainer:
    """A pool per size, the network, and one recorded step per size."""

    def __init__(
        self,
        model: Path,
        kind: Kind,
        *,
        seed: int,
        pictures: int,
        batch: int,
        side_px: tuple[int, int],
        workers: int,
        device: torch.device,
    ) -> None:
        torch.manual_seed(seed)
        self.seed, self.kind, self.device = seed, kind, device
        self.empty = torch.tensor(build_tokenizer().encode(""), device=device)
        parts = [
            part.from_pretrained(model / folder, dtype=torch.float32).to(device).eval()
            for part, folder in (
                (AutoencoderKL, "vae"),
                (CLIPTextModel, "text_encoder"),
                (UNet2DConditionModel, "unet"),
            )
        ]
        vae, self.text, unet = (part.requires_grad_(False) for part in parts)
        self.network = kind.network(unet.to(memory_format=torch.channels_last))
        self.optimiser = FlatAdam([self.network], weight_decay=0.0, clip=1.0, average=0.998)
        self.signal = alphas_cumprod(device)
        self.batches = [batch, max(1, batch // 4)]
        counts = [pictures, max(4, pictures // 6)]
        self.pools = [
            LatentPool.build(
                vae,
                seed=seed,
                first=sum(counts[:place]),
                count=counts[place],
                size_px=(side, side),
                variants=6,
                workers=workers,
                restyle=kind.restyle,
                trace=kind.trace,
            )
            for place, side in enumerate(side_px)
        ]
        print(f"encoded {counts} pictures of {side_px}", flush=True)
        self._steps = [self._step(place) for place in range(len(self.pools))]

    def _step(self, which: int) -> GraphedStep:
        count, pool = self.batches[which], self.pools[which]
        high, wide = pool.latents.shape[-2:]

        def blank(*size: int, whole: bool = False) -> Tensor:
            kind = torch.int64 if whole else torch.float32
            return torch.zeros(count, *size, dtype=kind, device=self.device)

        inputs = {
            "latents": blank(4, high, wide),
            "weights": blank(1, high, wide),
            "noise": blank(4, high, wide),
            "tokens": blank(TOKEN_COUNT, whole=True),
            "timesteps": blank(whole=True),
        }
        if pool.maps is not None:
            inputs["maps"] = blank(1, high * LATENT_FACTOR, wide * LATENT_FACTOR)
        return GraphedStep(
            lambda: addon_loss(self.network.predict, self.text, self.signal, inputs),
            inputs,
            self.optimiser,
        )

    def step(self, step: int, steps: int) -> dict[str, Tensor]:
        generator = step_generator(self.seed, step, self.device)
        which = ORDER[step % len(ORDER)]
        count = self.batches[which]
        inputs = self.pools[which].batch(count, generator)
        del inputs["said"]

        def chance() -> Tensor:
            return torch.rand(count, generator=generator, device=self.device)

        silent = chance() < self.kind.silent_share
        inputs["tokens"] = torch.where(silent.view(-1, 1), self.empty, inputs["tokens"])
        # One timestep from each equal share of the range: less noise between batches.
        spread = (torch.arange(count, device=self.device) + chance()) / count
        inputs["timesteps"] = (spread * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1)
        shape = inputs["latents"].shape
        inputs["noise"] = torch.randn(shape, generator=generator, device=self.device)
        return self._steps[which](cosine_rate(step, steps, self.kind.peak_rate, WARM_UP), **inputs)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=tuple(KINDS))
    training_loop.LoopOptions.add_arguments(parser, 3000)
    parser.add_argument("--model", type=Path, default=Path("service/models/vista"))
    parser.add_argument("--out", type=Path, required=True, help="file of a LoRA, else a folder")
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--side-px", type=int, nargs=2, default=SIZES_PX, help="both sizes")
    a = parser.parse_args(argv)
    options = training_loop.LoopOptions.from_arguments(a)
    trainer = AddonTrainer(
        a.model,
        KINDS[a.kind],
        seed=a.seed,
        pictures=a.pictures,
        batch=a.batch,
        side_px=tuple(a.side_px),
        workers=a.workers,
        device=torch.device(a.device),
    )
    done = training_loop.run(
        options, trainer.optimiser, lambda step: trainer.step(step, options.steps)
    )
    with trainer.optimiser.averaged():
        trainer.network.save(a.out)
    print("complete" if done else "to be resumed", flush=True)


if __name__ == "__main__":
    main()
