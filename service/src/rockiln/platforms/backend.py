"""The names of the backends."""

from __future__ import annotations

from typing import Literal

Backend = Literal["cpu", "rocm", "cuda"]
ComputeDevice = Literal["auto", "gpu", "cpu"]
