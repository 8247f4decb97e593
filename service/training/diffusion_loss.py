"""The UNet's loss: v-prediction, objects weighted, and a reading aid for the text encoder."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel

from training.attributes import ATTRIBUTES

OBJECT_WEIGHT = 2.0
AID_WEIGHT = 0.1


class TextAid(nn.Module):
    """Linear readers of what a caption says, on the text features at its end token.

    Without them the text encoder learns colours and sides only through the UNet's error, of which a
    small object is a few per cent; with them it knows the words early and the UNet has something to
    follow. They are not part of the model that ships.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def loss(self, features: Tensor, said: Tensor) -> Tensor:
        """``features`` [B,width]; ``said`` [B,A] class indices, -1 where nothing is said."""
        total = torch.zeros((), device=features.device)
        for i, head in enumerate(self.heads.values()):
            losses = functional.cross_entropy(
                head(features).float(), said[:, i], ignore_index=-1, reduction="sum"
            )
            total = total + losses / (said[:, i] >= 0).sum().clamp(min=1)
        return total / len(self.heads)


def diffusion_loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    aid: TextAid,
    signal: Tensor,
    inputs: dict[str, Tensor],
) -> dict[str, Tensor]:
    """``signal`` [1000]: cumulative alphas. ``inputs``: latents, weights, tokens, said, noise,
    timesteps.
    """
    latents, timesteps = inputs["latents"], inputs["timesteps"]
    noisy, wanted = noisy_and_wanted(signal, inputs)
    with torch.autocast(latents.device.type, torch.bfloat16, latents.is_cuda, cache_enabled=False):
        features = text_encoder(inputs["tokens"]).last_hidden_state
        output = unet(noisy, timesteps, features).sample.float()
        end = (inputs["tokens"] == text_encoder.config.eos_token_id).int().argmax(dim=1)
        rows = torch.arange(len(end), device=end.device)
        aid_loss = aid.loss(features[rows, end], inputs["said"])
    loss, square = weighted_square(output, wanted, inputs["weights"])
    return {"loss": loss + AID_WEIGHT * aid_loss, "square": square, "aid": aid_loss}


def noisy_and_wanted(signal: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the network sees at its timestep, and the velocity that it is to say, [B,4,h,w]."""
    latents, noise = inputs["latents"], inputs["noise"]
    kept = signal[inputs["timesteps"]].view(-1, 1, 1, 1)
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    return noisy, kept.sqrt() * noise - (1 - kept).sqrt() * latents


def weighted_square(output: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The squared error with objects weighted, and without; scalars."""
    focus = 1.0 + OBJECT_WEIGHT * weights
    square = (output - wanted).square()
    return (square * focus).mean() / focus.mean(), square.mean()
