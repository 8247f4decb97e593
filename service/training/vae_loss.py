"""The VAE's loss: what makes a 30 dB reconstruction in which small red things stay red."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from training.picture_pool import as_inputs

OBJECT_WEIGHT = 4.0
CHROMA_WEIGHT = 2.0
GRADIENT_WEIGHT = 0.5
SQUARE_WEIGHT = 2.0
KL_WEIGHT = 1e-4


def encode_moments(vae: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the latents, each [B,4,H/8,W/8]."""
    mean, log_variance = vae.quant_conv(vae.encoder(pictures)).float().chunk(2, dim=1)
    return mean, log_variance.clamp(-30.0, 20.0)


def reconstruction_loss(output: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """``output`` and ``wanted`` [B,3,H,W] in -1..1; ``weight`` [B,1,H,W], 1 where a named object
    is.

    A house is one pixel in fifty and its hue one third of the signal: an even loss lets both go. So
    objects and colour differences weigh more. The square term is what PSNR measures, the gradient
    term keeps edges.
    """
    error = output - wanted
    red, green, blue = error.unbind(1)
    # BT.601 luma and colour differences.
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = 0.564 * (blue - luma).abs() + 0.713 * (red - luma).abs()
    focus = 1.0 + OBJECT_WEIGHT * weight
    absolute = ((luma.abs() + CHROMA_WEIGHT * chroma) * focus[:, 0]).mean() / 3
    square = (error.square() * focus).mean()
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return absolute + SQUARE_WEIGHT * square + GRADIENT_WEIGHT * (across + down)


def vae_loss(vae: AutoencoderKL, crops: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """``crops`` [B,4,S,S] uint8 and posterior ``noise`` [B,4,S/8,S/8] -> scalars."""
    pictures, weight = as_inputs(crops)
    with torch.autocast(crops.device.type, torch.bfloat16, crops.is_cuda, cache_enabled=False):
        mean, log_variance = encode_moments(vae, pictures)
        latents = mean + torch.exp(0.5 * log_variance) * noise
        output = vae.decoder(vae.post_quant_conv(latents)).float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = reconstruction_loss(output, pictures, weight)
    with torch.no_grad():
        error = (output.clamp(-1, 1) - pictures) / 2
        psnr = -10 * torch.log10(error.square().mean())
    return {"loss": loss + KL_WEIGHT * kl, "psnr": psnr, "kl": kl}
