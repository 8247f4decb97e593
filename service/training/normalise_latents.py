"""Give the VAE's latents zero mean and unit scale by changing two 1x1 convolutions.

Stable Diffusion multiplies latents by one constant, 0.18215. Folding each channel's own mean and
deviation into ``quant_conv`` and ``post_quant_conv`` makes that constant exact for every channel,
and every tool that knows SD 1.x just works.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.networks import LATENT_CHANNELS, SCALING_FACTOR
from training.picture_pool import PicturePool, as_inputs, scene_batch
from training.vae_loss import encode_moments


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel over drawn 256 px pictures, each [4]."""
    device = next(vae.parameters()).device
    pool = PicturePool.draw(scene_batch(seed, 0, count, device, 0), 256, 256, 64)
    means = [encode_moments(vae, as_inputs(part)[0])[0] for part in torch.split(pool.pictures, 64)]
    latents = torch.cat(means).transpose(0, 1).flatten(1).double()
    return latents.mean(dim=1).float(), latents.std(dim=1).float()


@torch.no_grad()
def normalise(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """In place: latents become ``(z - mean) / (deviation * 0.18215)``; decoding undoes it."""
    scale = deviation * SCALING_FACTOR
    c = LATENT_CHANNELS
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:c] /= scale.view(-1, 1, 1, 1)
    before.bias[:c] = (before.bias[:c] - mean) / scale
    before.bias[c:] -= 2 * torch.tensor([math.log(float(s)) for s in scale], device=mean.device)
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= scale.view(1, -1, 1, 1)
