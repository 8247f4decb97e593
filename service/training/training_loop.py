"""The loop that every training command shares: step, report, save, stop in time, resume."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from training import checkpoint
from training.flat_adam import FlatAdam

AVERAGE = "average"
"""Name of the one tensor in a file of averaged weights."""


@dataclass(frozen=True)
class LoopOptions:
    """``steps`` is the whole schedule; a run also ends after ``minutes`` and is resumed from
    ``path``.
    """

    path: Path
    steps: int
    minutes: float = 9.0
    stop_at: int | None = None
    average: Path | None = None
    start_from: Path | None = None
    save_seconds: float = 60.0

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser, steps: int | None) -> None:
        parser.add_argument("--checkpoint", type=Path, required=True)
        parser.add_argument("--steps", type=int, default=steps, help="length of the whole schedule")
        parser.add_argument(
            "--minutes", type=float, default=9.0, help="stop after this long; resume later"
        )
        parser.add_argument(
            "--stop-at", type=int, default=None, help="stop at this step; resume later"
        )
        parser.add_argument(
            "--average", type=Path, help="also save the averaged weights here, fp16"
        )
        parser.add_argument("--start-from", type=Path, help="averaged weights to begin with")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")

    @staticmethod
    def from_arguments(arguments: argparse.Namespace) -> LoopOptions:
        return LoopOptions(
            arguments.checkpoint,
            arguments.steps,
            arguments.minutes,
            arguments.stop_at,
            arguments.average,
            arguments.start_from,
        )


def _save(options: LoopOptions, optimiser: FlatAdam, step: int) -> None:
    checkpoint.save(options.path, optimiser.state(), step)
    if options.average:
        checkpoint.save(options.average, {AVERAGE: optimiser.average_values.half()}, step)


def start_from(path: Path, optimiser: FlatAdam) -> None:
    """Begin with averaged weights of an earlier run; the optimiser's moments start anew."""
    tensors, _ = checkpoint.load(path)
    optimiser.values.copy_(tensors[AVERAGE])
    optimiser.average_values.copy_(tensors[AVERAGE])


def run(
    options: LoopOptions, optimiser: FlatAdam, one_step: Callable[[int], dict[str, Tensor]]
) -> bool:
    """Run ``one_step(step)`` from the checkpoint (or 0) on; True when the schedule is complete."""
    first = 0
    if options.path.exists():
        tensors, first = checkpoint.load(options.path)
        optimiser.load(tensors)
        print(f"resumed {options.path} at step {first}", flush=True)
    elif options.start_from:
        start_from(options.start_from, optimiser)
    last = min(options.steps, options.steps if options.stop_at is None else options.stop_at)
    started = saved = said = time.monotonic()
    step = first
    while step < last:
        result = one_step(step)
        step += 1
        now = time.monotonic()
        if now - said > 15 or step == last:
            said = now
            figures = " ".join(f"{name} {value.item():.5f}" for name, value in result.items())
            # Reading the figures waits for the device, so the rate below is honest.
            rate = (step - first) / (time.monotonic() - started)
            print(f"step {step}/{options.steps} {rate:.1f}/s {figures}", flush=True)
        if now - saved > options.save_seconds:
            saved = now
            _save(options, optimiser, step)
        if now - started > options.minutes * 60:
            break
    _save(options, optimiser, step)
    return step >= options.steps
