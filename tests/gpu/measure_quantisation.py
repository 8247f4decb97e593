"""What rounding weights does to vista's pictures: the table in service/docs/memory.md.

    PYTHONPATH=service/src:tests python tests/gpu/measure_quantisation.py [--pictures 8]

On the CPU in float32, by the engine: the same prompts and seeds with full weights and with the
matrices of UNet and text encoder rounded to each kind. Only the weights differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from torch import nn

from rockiln.domain.quantisation import QUANTISED_TYPES
from rockiln.engine.latents_file import read_latents
from rockiln.registry.quantised_weights import rounded_at_load
from rockiln.worker import protocol
from support.engine_harness import EngineHarness, read_profile
from support.parameters import parameters
from support.transformer_file import quantise

VISTA = Path(__file__).parents[2] / "service" / "models" / "vista"
PROMPTS = ("a red boat on a lake", "a house on a hill at night", "snow on a forest", "a lighthouse")
Round = Callable[[torch.Tensor], torch.Tensor]


def by_gguf(number: int) -> Round:
    kind = GGMLQuantizationType(number)

    def round_to(weight: torch.Tensor) -> torch.Tensor:
        # vista's rows are shorter than the blocks of K kinds, which go over their ends.
        rows = weight.reshape(-1, gguf.GGML_QUANT_SIZES[kind][0]).numpy()
        back = gguf.quants.dequantize(quantise(rows, kind), kind)
        return torch.from_numpy(back).reshape(weight.shape)

    return round_to


KINDS = {kind.name: by_gguf(number) for number, kind in QUANTISED_TYPES.items()}
# Not offered; decision 0007 compares them.
KINDS["fp8 e4m3"] = lambda weight: weight.to(torch.float8_e4m3fn).float()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=int, default=8)
    pictures = parser.parse_args().pictures
    harness = EngineHarness(Path(tempfile.mkdtemp()))
    profile = read_profile(VISTA)
    asked = replace(parameters(), width=256, height=256, num_inference_steps=20)
    chosen = harness.plan(asked, profile)
    modules = harness.shelf.take(profile, chosen).model.components.modules
    layers = [
        layer
        for part in ("unet", "text_encoder")
        for name, layer in modules[part].named_modules()
        if isinstance(layer, nn.Linear)
        and rounded_at_load(f"{name}.weight", tuple(layer.weight.shape))
    ]
    exact = [layer.weight.clone() for layer in layers]

    def drawn() -> list[tuple[torch.Tensor, np.ndarray]]:
        found = []
        for seed in range(pictures):
            wanted = replace(asked, prompt=PROMPTS[seed % len(PROMPTS)], seed=seed)
            (picture,) = harness.run(wanted, profile, chosen=chosen)
            (stored,) = harness.of(protocol.LatentsStored)
            latents = read_latents(harness.artefacts.latents_path(stored.latents)).latents
            found.append((latents.float().cpu(), harness.pixels(picture).astype(np.int16)))
        return found

    held, whole = (
        sum(weight.numel() for weight in exact),
        sum(profile.component_parameters.values()),
    )
    say(f"torch {torch.__version__}, {pictures} pictures of 256 px, 20 steps, {asked.scheduler}")
    say(f"{held / 1e6:.1f} of {whole / 1e6:.1f} million numbers are rounded")
    base = drawn()
    say("| kind | weights | latents | mean of 255 (min to max) | largest of 255 |")
    for name, round_to in KINDS.items():
        for layer, weight in zip(layers, exact, strict=True):
            layer.weight.copy_(round_to(weight))
        apart = [
            ((a - b).norm() / a.norm(), np.abs(x - y).mean(), np.abs(x - y).max())
            for (a, x), (b, y) in zip(base, drawn(), strict=True)
        ]
        off = sum(
            float((layer.weight - weight).square().sum())
            for layer, weight in zip(layers, exact, strict=True)
        ) / sum(float(weight.square().sum()) for weight in exact)
        latents, means, largest = zip(*apart, strict=True)
        say(
            f"| {name} | {off**0.5:.4f} | {float(np.mean(latents)):.4f} | {np.mean(means):.2f} "
            f"({min(means):.2f} to {max(means):.2f}) | {max(largest)} |"
        )


if __name__ == "__main__":
    main()
