"""What training needs of torch, whatever tests of the engine have set before in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _torch_for_training() -> Iterator[None]:
    before = torch.get_num_threads()
    # Waiting for a second thread on a busy machine costs more than these small tensors.
    torch.set_num_threads(1)
    with torch.enable_grad():
        yield
    torch.set_num_threads(before)
