"""Previews: small pictures of latents in the making, by a linear map to colours.

The map is fitted to the model's own decoder, from each picture that it decodes; the proof picture
of an engine's start is the first. So it needs no table, and fits any autoencoder.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rockiln.engine.png import Pixels

LONGEST_SIDE_PX = 256
_QUALITY = 80
_RIDGE = 1e-3
_Numbers = npt.NDArray[np.float64]


class ColourMap:
    """Colours of latents: a least-squares fit over what was decoded so far."""

    def __init__(self) -> None:
        self._shown: tuple[torch.Tensor, Pixels] | None = None
        self._products: _Numbers | None = None
        self._targets: _Numbers | None = None
        self._map: _Numbers | None = None

    @property
    def ready(self) -> bool:
        return self._map is not None

    @property
    def unlearnt(self) -> bool:
        return self._shown is not None

    def show(self, latents: torch.Tensor, pixels: Pixels) -> None:
        """Final latents [1, C, h, w] and what they were decoded to; learnt later, the last alone.

        Who works on now keeps the processor from whom it has just told of the picture.
        """
        self._shown = latents, pixels

    def learn(self) -> None:
        """From what was shown; the next preview does it otherwise."""
        if self._shown is None:
            return
        (latents, pixels), self._shown = self._shown, None
        samples = _samples(latents)
        size = (latents.shape[-1], latents.shape[-2])
        small = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
        colours = np.asarray(small, dtype=np.float64).reshape(-1, 3)
        products, targets = samples.T @ samples, samples.T @ colours
        if self._products is not None and self._targets is not None:
            products, targets = products + self._products, targets + self._targets
        self._products, self._targets = products, targets
        ridge = _RIDGE * np.eye(len(products))
        self._map = np.linalg.solve(products + ridge, targets).astype(np.float64)

    def jpeg(self, latents: torch.Tensor) -> bytes | None:
        """A JPEG of at most 256 px; None before anything was learned."""
        self.learn()
        if self._map is None:
            return None
        height, width = latents.shape[-2:]
        colours = (_samples(latents) @ self._map).reshape(height, width, 3)
        image = Image.fromarray(np.nan_to_num(colours).clip(0, 255).astype(np.uint8))
        scale = LONGEST_SIDE_PX / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.BILINEAR).save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()


def _samples(latents: torch.Tensor) -> _Numbers:
    """[h * w, C + 1]: one row per place, the last number is 1."""
    flat = latents[0].float().cpu().flatten(1).T.double().numpy()
    samples: _Numbers = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    return samples
