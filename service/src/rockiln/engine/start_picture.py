"""A picture to start from, and its mask: from stored files to what the networks take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import GenerationParameters
from rockiln.engine.png import Pixels
from rockiln.store.artefacts import ArtefactStore

_MASK_FROM = 128


@dataclass(frozen=True)
class StartPicture:
    """Read once for all pictures of a job.

    Attributes:
        pixels: [H, W, 3], resized to the job's size.
        drawn_anew: [H, W]; None draws all of it anew.
        distribution: what the encoder made of the pixels; each picture samples its own latents.
    """

    pixels: Pixels
    drawn_anew: npt.NDArray[np.bool_] | None
    distribution: Any = None

    def mask_latents(self, size: torch.Size, mode: str) -> torch.Tensor | None:
        """[1, 1, height, width] of 0 to 1, by torch's ``mode``."""
        if self.drawn_anew is None:
            return None
        mask = torch.from_numpy(self.drawn_anew.astype(np.float32))[None, None]
        return torch.nn.functional.interpolate(mask, size=size, mode=mode)

    def as_tensor(self) -> torch.Tensor:
        """[1, 3, H, W] in -1..1."""
        scaled = torch.from_numpy(self.pixels.astype(np.float32) / 255.0)
        return 2.0 * scaled.permute(2, 0, 1)[None] - 1.0

    def keep_rest(self, drawn: Pixels) -> Pixels:
        """What was not to be drawn anew, untouched by the autoencoder."""
        if self.drawn_anew is None:
            return drawn
        kept: Pixels = np.where(self.drawn_anew[..., None], drawn, self.pixels)
        return kept


def start_of(parameters: GenerationParameters, artefacts: ArtefactStore) -> StartPicture | None:
    """What a job starts from, resized (Lanczos) to its size; None: from noise.

    Raises:
        InvalidRequestError: a stored file is gone or cannot be read.
    """
    if parameters.image is None:
        return None
    size = (parameters.width, parameters.height)
    pixels = read_picture(artefacts.input_path(parameters.image), "RGB", *size)
    if parameters.mask is None:
        return StartPicture(pixels, None)
    mask = read_picture(artefacts.input_path(parameters.mask), "L", *size)
    return StartPicture(pixels, mask >= _MASK_FROM)


def read_picture(path: Path, mode: str, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A stored picture, resized (Lanczos). Raises InvalidRequestError if it cannot be read."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image.convert(mode).resize((width, height), Image.Resampling.LANCZOS))
    except OSError as error:
        raise InvalidRequestError(f"the stored picture {path.name} cannot be read") from error
