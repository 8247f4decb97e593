"""Final latents as bytes: what a decode can start from after its process died."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from rockiln.domain.errors import RockilnError

_NAME = "latents"


class StoredLatentsError(RockilnError):
    """Stored latents that cannot be decoded; the picture has to be denoised again."""


@dataclass(frozen=True)
class FinalLatents:
    """Attributes:
    latents: [1, C, h, w], contiguous.
    revision: of the model that made them.
    batch_rows: rows in the widest forward they took part in.
    """

    latents: torch.Tensor
    revision: str
    batch_rows: int

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        data: bytes = safetensors.torch.save(
            {_NAME: self.latents.cpu().contiguous()},
            metadata={"revision": self.revision, "batch_rows": str(self.batch_rows)},
        )
        return data


def read_latents(path: Path) -> FinalLatents:
    """What ``FinalLatents.to_bytes`` wrote.

    Raises:
        StoredLatentsError: missing, torn or not such a file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return FinalLatents(
                file.get_tensor(_NAME), metadata["revision"], int(metadata["batch_rows"])
            )
    except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise StoredLatentsError(f"stored latents {path.name}: {error}") from error
