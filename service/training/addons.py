"""What is trained beside a finished UNet: a LoRA on its layers, or a ControlNet before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import CLIPTextModel

from training.diffusion_loss import noisy_and_wanted, weighted_square

RANK = 8
# Narrower than the usual 16, 32, 96, 256: the maps are lines, and the network is small.
MAP_CHANNELS = (16, 32, 64, 96)
# (noisy latents, timesteps, text features, inputs of the step) -> the UNet's answer.
Predict = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]


class Lora(nn.Module):
    """Two thin matrices for each layer of a UNet; together they change nothing at first."""

    def __init__(self, unet: UNet2DConditionModel, rank: int = RANK) -> None:
        super().__init__()
        self._unet = (unet.requires_grad_(False),)  # in a tuple: it is no part of this module
        self._weights = {
            name: part.weight
            for name, part in unet.named_modules()
            if isinstance(part, nn.Conv2d | nn.Linear)
        }
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for weight in self._weights.values():
            out, inner, *kernel = weight.shape
            down = torch.empty(rank, inner, *kernel, device=weight.device)
            self.down.append(nn.init.kaiming_uniform_(down, a=5**0.5))
            self.up.append(torch.zeros(out, rank, *(1 for _ in kernel), device=weight.device))

    def predict(
        self, noisy: Tensor, timesteps: Tensor, features: Tensor, _: dict[str, Tensor]
    ) -> Tensor:
        changed = {
            f"{name}.weight": weight + (up.flatten(1) @ down.flatten(1)).view_as(weight)
            for (name, weight), down, up in zip(
                self._weights.items(), self.down, self.up, strict=True
            )
        }
        answer: Tensor = functional_call(
            self._unet[0], changed, (noisy, timesteps, features)
        ).sample
        return answer

    def save(self, path: Path) -> None:
        """As diffusers and peft name the matrices, fp16."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, down, up in zip(self._weights, self.down, self.up, strict=True):
            for part, matrix in (("lora_A", down), ("lora_B", up)):
                tensors[f"unet.{name}.{part}.weight"] = matrix.detach().half().cpu().contiguous()
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)


class Control(nn.Module):
    """A ControlNet that begins as the UNet's own first half."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self._unet = (unet.requires_grad_(False),)
        self.controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=MAP_CHANNELS
        )
        self.controlnet.requires_grad_(True).to(next(unet.parameters()).device)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, features: Tensor, inputs: dict[str, Tensor]
    ) -> Tensor:
        maps = inputs["maps"].expand(-1, 3, -1, -1)
        down, mid = self.controlnet(
            noisy, timesteps, features, controlnet_cond=maps, return_dict=False
        )
        answer: Tensor = self._unet[0](
            noisy,
            timesteps,
            features,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        return answer

    def save(self, folder: Path) -> None:
        """In the layout of diffusers, fp16."""
        self.controlnet.half().save_pretrained(folder)
        for path in folder.iterdir():
            path.chmod(0o644)


def addon_loss(
    predict: Predict, text_encoder: CLIPTextModel, signal: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
    """As the UNet's own loss, without the reading aid: the text encoder is finished."""
    noisy, wanted = noisy_and_wanted(signal, inputs)
    with torch.autocast(noisy.device.type, torch.bfloat16, noisy.is_cuda, cache_enabled=False):
        with torch.no_grad():
            features = text_encoder(inputs["tokens"]).last_hidden_state
        output = predict(noisy, inputs["timesteps"], features, inputs).float()
    loss, square = weighted_square(output, wanted, inputs["weights"])
    return {"loss": loss, "square": square}
