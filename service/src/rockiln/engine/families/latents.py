"""Between pixels and the latents of a KL autoencoder."""

from __future__ import annotations

from typing import Any

import torch

from rockiln.domain.errors import InvalidRequestError
from rockiln.engine.families.interface import Components


def draw_noise(
    components: Components,
    width: int,
    height: int,
    generator: torch.Generator,
    noise_scale: float | torch.Tensor,
    *,
    patch: int = 1,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Noise [1, C, height/8, width/8], drawn where the generator is and moved to the device.

    Args:
        patch: latents along a side that are drawn as more channels of one place.
        dtype: the components' by default.
    """
    vae = components.modules["vae"]
    grid_px = grid_px_of(vae) * patch
    if width % grid_px or height % grid_px:
        raise InvalidRequestError(f"{width}x{height} px is not on this model's {grid_px} px grid")
    shape = (1, latent_channels_of(vae) * patch**2, height // grid_px, width // grid_px)
    noise = torch.randn(shape, generator=generator, dtype=dtype or components.dtype)
    return noise.to(components.device) * noise_scale


def encode_picture(components: Components, picture: torch.Tensor) -> Any:
    """Picture [1, 3, height, width] in -1..1 → a distribution of latents."""
    vae = components.modules["vae"]
    weights = next(vae.parameters())
    return vae.encode(picture.to(weights.device, weights.dtype)).latent_dist


def sample_latents(
    components: Components, distribution: Any, generator: torch.Generator
) -> torch.Tensor:
    """Latents [1, C, h, w] as the denoiser has them, on the device."""
    config = components.modules["vae"].config
    latents: torch.Tensor = distribution.sample(generator)
    latents = latents.to(components.device, components.dtype)
    if config.latents_mean is not None and config.latents_std is not None:
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        latents = (latents - mean) * config.scaling_factor / std
        return latents
    if config.shift_factor is not None:
        latents = latents - config.shift_factor
    latents = latents * config.scaling_factor
    return latents


def decode_latents(components: Components, latents: torch.Tensor) -> torch.Tensor:
    """Latents [1, C, h, w] → picture [1, 3, height, width], in the autoencoder's own dtype."""
    vae = components.modules["vae"]
    config = vae.config
    latents = latents.to(vae.dtype)
    if config.latents_mean is not None and config.latents_std is not None:
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        latents = latents * std / config.scaling_factor + mean
    else:
        latents = latents / config.scaling_factor
        if config.shift_factor is not None:
            latents = latents + config.shift_factor
    picture: torch.Tensor = vae.decode(latents, return_dict=False)[0]
    return picture


def grid_px_of(vae: Any) -> int:
    """Pixels per latent along one side."""
    if "temperal_downsample" in vae.config:  # of films too, which is how its config counts
        return int(2 ** len(vae.config.temperal_downsample))
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def latent_channels_of(vae: Any) -> int:
    """Numbers at one place."""
    return int(vae.config.z_dim if "z_dim" in vae.config else vae.config.latent_channels)
