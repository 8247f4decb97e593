"""What compiled kernels are good for: one kind of card, one ROCm, one torch. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

FOLDER = "kernels"
KEY_NAME = "key.json"
CURRENT_NAME = "current.json"
_HASH_CHARS = 12


@dataclass(frozen=True)
class CacheKey:
    """Kernels of one key never meet those of another.

    Attributes:
        gfx: the card's instruction set, such as "gfx1100"; "sm_90" for CUDA.
        image: digest of the container image; empty outside a container.
    """

    gfx: str
    rocm: str
    torch: str
    image: str = ""

    @property
    def folder(self) -> str:
        """A name a person can read, and a hash so that no two keys share it."""
        words = re.sub(r"[^A-Za-z0-9.+-]+", "_", f"{self.gfx}-rocm{self.rocm}-torch{self.torch}")
        digest = hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()
        return f"{words}-{digest[:_HASH_CHARS]}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Any) -> Self:
        """Raises ValueError on anything ``as_dict`` did not give."""
        names = {"gfx", "rocm", "torch", "image"}
        if not isinstance(said, dict) or set(said) != names:
            raise ValueError("it is not the key of a kernel cache")
        if not all(isinstance(value, str) for value in said.values()):
            raise ValueError("it is not the key of a kernel cache")
        return cls(**said)

    def mismatch(self, other: CacheKey) -> str:
        """How the kernels of ``other`` do not fit this host; empty if they do.

        The image may be another: the same ROCm and torch in it compile the same kernels.
        """
        return ", ".join(
            f"{name} {getattr(other, name) or 'unknown'} there, "
            f"{getattr(self, name) or 'unknown'} here"
            for name in ("gfx", "rocm", "torch")
            if getattr(self, name) != getattr(other, name)
        )
