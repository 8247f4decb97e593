"""Tiny FLUX.2 klein, Z-Image and Qwen-Image folders with random weights, as ``tiny_sd1``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)

from support.tiny_flow import FLOW_MANIFEST, make_flow_vae
from support.tiny_sd1 import save_parts, write_json

# What Qwen3's own template makes of a question, written shorter.
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WIDTH = 16
_LAYERS = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}


def make_tiny_flux2(folder: Path, *, seed: int = 0, distilled: bool = False) -> Path:
    """Writes the model to ``folder`` and returns it."""
    tokenizer = make_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=64,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(2.0, 6.0)
        parts: dict[str, Any] = {
            "text_encoder": Qwen3ForCausalLM(_qwen3_config(tokenizer, layers=27)),
            "transformer": Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * _WIDTH,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            "vae": vae,
        }
    shifted = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    index = {"_class_name": "Flux2KleinPipeline", "is_distilled": distilled}
    return _save(folder, index, tokenizer=tokenizer, scheduler=shifted, **parts)


def make_tiny_z_image(folder: Path, *, seed: int = 0, shifts: bool = False) -> Path:
    """Likewise. ``shifts``: with timesteps that depend on the picture's size."""
    tokenizer = make_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = ZImageTransformer2DModel(
            in_channels=4,
            dim=48,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=_WIDTH,
            axes_dims=[8, 8, 8],
            axes_lens=[640, 64, 64],
        )
        torch.nn.init.normal_(transformer.x_pad_token)  # made empty, for the weights to fill
        torch.nn.init.normal_(transformer.cap_pad_token)
        parts: dict[str, Any] = {
            "text_encoder": Qwen3Model(_qwen3_config(tokenizer, layers=3)),
            "transformer": transformer,
            "vae": make_flow_vae(),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shifts)
    index = {"_class_name": "ZImagePipeline"}
    return _save(folder, index, tokenizer=tokenizer, scheduler=scheduler, **parts)


def make_tiny_qwen_image(folder: Path, *, seed: int = 0) -> Path:
    """Likewise."""
    tokenizer = make_qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "num_hidden_layers": 2,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6,
            },
            **_LAYERS,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": _WIDTH,
            "fullatt_block_indexes": [0],
        },
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
            "transformer": QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=2,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=_WIDTH,
                axes_dims_rope=(4, 6, 6),
            ),
            "vae": AutoencoderKLQwenImage(
                base_dim=4,
                z_dim=4,
                num_res_blocks=1,
                latents_mean=[0.1, -0.2, 0.3, -0.4],
                latents_std=[1.5, 0.7, 2.0, 1.1],
            ),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift_terminal=0.02, max_shift=0.9, max_image_seq_len=8192
    )
    index = {"_class_name": "QwenImagePipeline"}
    return _save(folder, index, tokenizer=tokenizer, scheduler=scheduler, **parts)


def make_qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes, and the marks of a chat."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(code) for code in (*printable, *range(0x100, 0x200 - len(printable)))]
    vocabulary = {piece: place for place, piece in enumerate([*letters, *_SPECIAL])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=list(_SPECIAL[1:])
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _qwen3_config(tokenizer: Qwen2Tokenizer, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        num_hidden_layers=layers,
        head_dim=8,
        tie_word_embeddings=True,
        **_LAYERS,
    )


def _save(folder: Path, index: dict[str, Any], **parts: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_parts(folder, **parts)
    write_json(folder / "rockiln.json", FLOW_MANIFEST)
    for name, part in parts.items():
        library = type(part).__module__.partition(".")[0]
        index[name] = [library, type(part).__name__]
    write_json(folder / "model_index.json", index)
    return folder
