"""Encoded pictures with their captions, kept on the device: what the UNet is trained on.

Drawing and encoding cost more than a UNet step; done once, each picture serves many steps, with a
caption variant drawn anew each time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.attributes import ATTRIBUTES, labels
from training.captions import caption_at
from training.networks import LATENT_FACTOR, SCALING_FACTOR, TOKEN_COUNT
from training.picture_pool import PicturePool, as_inputs, scene_batch
from training.scenes import scene_at
from training.tokenizer import build_tokenizer
from training.vae_loss import encode_moments

_CHUNK = 1024


def _caption_rows(job: tuple[int, int, int, int]) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
    seed, first, count, variants = job
    tokenizer = build_tokenizer()
    tokens = np.zeros((count, variants, TOKEN_COUNT), dtype=np.int16)
    said = np.zeros((count, variants, len(ATTRIBUTES)), dtype=np.int8)
    for i in range(count):
        scene = scene_at(seed, first + i)
        for k in range(variants):
            caption = caption_at(scene, seed, first + i, k)
            tokens[i, k] = tokenizer.encode(caption.text)
            said[i, k] = labels(caption.said)
    return tokens, said


def caption_rows(
    seed: int, first: int, count: int, variants: int, workers: int
) -> tuple[Tensor, Tensor]:
    """Tokens [count, variants, 77] int16 and said labels [count, variants, A] int8 (-1: unsaid)."""
    jobs = [(seed, first + i, min(_CHUNK, count - i), variants) for i in range(0, count, _CHUNK)]
    if workers > 0 and len(jobs) > 1:
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_caption_rows, jobs))
    else:
        parts = [_caption_rows(job) for job in jobs]
    return (
        torch.from_numpy(np.concatenate([p[0] for p in parts])),
        torch.from_numpy(np.concatenate([p[1] for p in parts])),
    )


@dataclass(frozen=True)
class LatentPool:
    """``latents`` [N,4,h,w] fp16, ``weights`` [N,1,h,w] uint8, ``tokens`` and ``said`` labels.

    ``maps`` [N,1,8h,8w] of bools: the control map of each picture, where one was asked for.
    """

    latents: Tensor
    weights: Tensor
    tokens: Tensor
    said: Tensor
    maps: Tensor | None = None

    @staticmethod
    @torch.no_grad()
    def build(
        vae: AutoencoderKL,
        *,
        seed: int,
        first: int,
        count: int,
        size_px: tuple[int, int],
        variants: int,
        workers: int,
        restyle: Callable[[Tensor], Tensor] | None = None,
        trace: Callable[[Tensor], Tensor] | None = None,
    ) -> LatentPool:
        """Draw, encode and caption scenes ``first`` .. ``first + count`` at ``size_px`` (high,
        wide).

        ``restyle`` changes a drawn picture before it is encoded; ``trace`` makes its control map.
        Both get [B,3,H,W] in 0..1.
        """
        device = next(vae.parameters()).device
        high, wide = size_px
        tokens, said = caption_rows(seed, first, count, variants, workers)
        scenes = scene_batch(seed, first, count, device, workers)
        shape = (high // LATENT_FACTOR, wide // LATENT_FACTOR)
        latents = torch.empty(count, 4, *shape, dtype=torch.float16, device=device)
        weights = torch.empty(count, 1, *shape, dtype=torch.uint8, device=device)
        maps = None
        if trace is not None:
            maps = torch.empty(count, 1, high, wide, dtype=torch.bool, device=device)
        chunk = max(1, min(1024, 1024 * 256 * 256 // (high * wide)))
        for start in range(0, count, chunk):
            rows = torch.arange(start, min(start + chunk, count), device=device)
            pool = PicturePool.draw(scenes.take(rows), high, wide, chunk)
            for part in range(0, len(rows), max(1, chunk // 4)):
                piece = slice(part, part + max(1, chunk // 4))
                pictures, weight = as_inputs(pool.pictures[piece])
                target = slice(start + part, start + part + len(pictures))
                if maps is not None and trace is not None:
                    maps[target] = trace((pictures + 1) / 2) > 0
                if restyle is not None:
                    pictures = restyle((pictures + 1) / 2) * 2 - 1
                with torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
                    mean, _ = encode_moments(vae, pictures)
                latents[target] = (mean * SCALING_FACTOR).half()
                weight = functional.max_pool2d(weight, LATENT_FACTOR)
                weights[target] = (weight * 255).round().to(torch.uint8)
        return LatentPool(latents, weights, tokens.to(device), said.to(device), maps)

    def batch(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random pictures, each with one of its captions."""
        total, variants, _ = self.tokens.shape
        device = self.latents.device
        rows = torch.randint(total, (count,), generator=generator, device=device)
        which = torch.randint(variants, (count,), generator=generator, device=device)
        found = {} if self.maps is None else {"maps": self.maps[rows].float()}
        return found | {
            "latents": self.latents[rows].float(),
            "weights": self.weights[rows].float() / 255,
            "tokens": self.tokens[rows, which].long(),
            "said": self.said[rows, which].long(),
        }
