"""The planner's walk over a network against what its forward allocates, in the real widths.

Whole jobs of real-size models were counted so, too; tests/unit/domain holds the planner to that.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

from rockiln.domain.activations import AttentionMemory, decoder_peak, denoiser_peak
from rockiln.domain.weights import denoiser_parameters
from rockiln.engine.families import FAMILIES
from rockiln.engine.families.interface import Components
from rockiln.registry.architecture import architecture_of
from support.allocations import Allocations, fused_attention
from support.counted_models import COUNTED, row_of
from support.real_jobs import Case

pytestmark = pytest.mark.slow

# Of the public configs; two blocks of a kind allocate as all of them do.
FLUX2 = {
    "num_layers": 2, "num_single_layers": 2, "num_attention_heads": 24, "attention_head_dim": 128,
    "in_channels": 128, "joint_attention_dim": 7680, "guidance_embeds": False,
}  # fmt: skip
Z_IMAGE = {
    "dim": 3840, "n_heads": 30, "n_kv_heads": 30, "n_layers": 2, "n_refiner_layers": 1,
    "in_channels": 16, "cap_feat_dim": 2560, "axes_lens": [1536, 512, 512],
}  # fmt: skip
QWEN_IMAGE = {
    "num_layers": 2, "num_attention_heads": 24, "attention_head_dim": 128, "in_channels": 64,
    "joint_attention_dim": 3584,
}  # fmt: skip
NETWORKS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "flux2": (Flux2Transformer2DModel, FLUX2, 7680),
    "z_image": (ZImageTransformer2DModel, Z_IMAGE, 2560),
    "qwen_image": (QwenImageTransformer2DModel, QWEN_IMAGE, 3584),
}
VAE = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16}
FILM_VAE = {"base_dim": 96, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "z_dim": 16}
FUSED = AttentionMemory(512, None)
SIDE_PX, TOKENS, BOUND = 1024, 512, 0.05


def on_meta(kind: Any, config: dict[str, Any]) -> torch.nn.Module:
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            module: torch.nn.Module = kind(**config)
    finally:
        torch.set_default_dtype(torch.float32)
    return module.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("family", NETWORKS)
def test_a_denoisers_peak_is_the_predicted_one(
    monkeypatch: pytest.MonkeyPatch, family: str, samples: int
) -> None:
    kind, config, width = NETWORKS[family]
    network = on_meta(kind, config)
    found = architecture_of({"_class_name": kind.__name__, **config}, VAE, [])
    assert found is not None
    facts: Any = found.denoiser
    grid = 16 if family == "flux2" else 8  # its latents are patches already
    like: dict[str, Any] = {"device": "meta", "dtype": torch.bfloat16}
    shape = (samples, facts.latent_channels, SIDE_PX // grid, SIDE_PX // grid)
    conditioning = {
        "prompt_embeds": torch.empty((samples, TOKENS, width), **like),
        "tokens": torch.full([samples], TOKENS),
    }
    components = Components({"transformer": network}, {}, {}, torch.bfloat16, torch.device("meta"))
    with torch.no_grad(), fused_attention(monkeypatch), Allocations([network]) as allocated:
        FAMILIES[family].predict(
            components,
            torch.empty(shape, **like),
            torch.empty(samples, device="meta"),
            conditioning,
        )
    side = SIDE_PX // 8
    predicted = denoiser_peak(facts, (side, side), 2 * samples, FUSED, samples)
    assert predicted == pytest.approx(allocated.peak_bytes, rel=BOUND)
    blocks = sum(
        weight.numel()
        for name, weight in network.named_parameters()
        if any(part in name for part in ("blocks.", "layers.", "refiner."))
    )
    assert denoiser_parameters(facts) == pytest.approx(blocks, rel=BOUND)


def test_a_decoder_of_films_keeps_what_a_next_frame_would_need() -> None:
    vae = on_meta(AutoencoderKLQwenImage, FILM_VAE)
    found = architecture_of(
        {"_class_name": "QwenImageTransformer2DModel", **QWEN_IMAGE}, FILM_VAE, []
    )
    assert found is not None
    components = Components({"vae": vae}, {}, {}, torch.bfloat16, torch.device("meta"))
    latents = torch.empty((1, 16, SIDE_PX // 8, SIDE_PX // 8), device="meta", dtype=torch.bfloat16)
    with torch.no_grad(), Allocations([vae]) as allocated:
        FAMILIES["qwen_image"].decode(components, latents)
    predicted = decoder_peak(found.decoder, (SIDE_PX, SIDE_PX), 2, FUSED)
    assert predicted == pytest.approx(allocated.peak_bytes, rel=BOUND)


@pytest.mark.parametrize(
    "case",
    [
        Case("sd15", 512, 512),
        Case("flux2", 512, 512, 1, "group_offload", "tiled"),
        Case("z_image", 1024, 1024, unload=True, kinds={"text_encoder": "q8_0"}),
        Case("sd15", 512, 512, 1, "group_offload", controlnets=3),
    ],
    ids=lambda case: f"{case.model}-{case.denoise}-{case.controlnets}",
)
def test_a_whole_job_takes_what_was_written_down(
    monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """If not, a library or the engine changed: ``python -m support.counted_models``, and look."""
    written = json.loads(COUNTED.read_text())
    assert row_of(case, monkeypatch) in [*written["measured"], *written["unmeasured"]]
