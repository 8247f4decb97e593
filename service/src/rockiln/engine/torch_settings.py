"""Every process-wide switch of torch, each with its reason. No other module sets one."""

from __future__ import annotations

import sys
from typing import Literal

import torch


def apply_torch_settings(device_kind: Literal["cpu", "gpu"], threads: int) -> None:
    """Sets the switches once, before a model is loaded, and says so on stderr.

    Args:
        threads: CPU threads for the work inside an operation.
    """
    # The count is part of a picture's record: sums are split by it.
    torch.set_num_threads(threads)
    # Nothing is trained here; without this every activation would be kept for a backward pass.
    torch.set_grad_enabled(False)
    # A trial of kernels at each new shape picks by time, so two runs may pick unlike kernels.
    torch.backends.cudnn.benchmark = False
    deterministic = device_kind == "cpu"
    if deterministic:
        # Costs nothing on a CPU. On a GPU it makes operations raise that have no such form.
        torch.use_deterministic_algorithms(mode=True)
        # It would also fill every fresh buffer; nothing here reads one before it is written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    else:
        # float32 stays float32: TF32 has 10 bits of mantissa.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    sys.stderr.write(
        f"torch: threads={threads} grad=off benchmark=off deterministic={deterministic}\n"
    )
