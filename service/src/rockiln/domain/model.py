"""What is known of a model and a device before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from rockiln.domain.quantisation import QuantisedWeights
from rockiln.domain.request import SIDE_GRID_PX
from rockiln.domain.sampling import DIFFUSION_SCHEDULERS

# What a request can ask of some families of models only.
Feature = Literal[
    "image", "mask", "hires", "loras", "clip_skip", "weighted_prompt", "embeddings", "controlnets",
]  # fmt: skip


@dataclass(frozen=True)
class ModelDefaults:
    """What a request gets where it names nothing."""

    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    scheduler: str


@dataclass(frozen=True)
class DenoiserFacts:
    """A UNet's shape, per level of resolution from fine to coarse.

    Attributes:
        transformer_layers: transformer blocks in each attention of a level; 0 where it has none.
        heads: attention heads of a level.
    """

    channels: tuple[int, ...]
    layers: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    mid_transformer_layers: int
    heads: tuple[int, ...]
    cross_attention_width: int
    latent_channels: int


@dataclass(frozen=True)
class TransformerFacts:
    """The shape of a transformer over patches, with text and picture in one attention.

    Attributes:
        joint_blocks: with weights of their own for text and picture (all of SD3's).
        dual_blocks: how many of those attend to the picture a second time (SD3.5 medium).
        single_blocks: over text and picture as one sequence, after the others (FLUX.1).
        patch: latents of a token along one side.
        text_tokens: of one prompt, all text encoders together.
        rotary: places are turned into queries and keys in float32.
        unconditional_sample: guidance takes a second sample; else the network is told a number.
        inner: width of a feed-forward's inner half, in widths of the stream.
        gated: it has two of them, whose product goes on.
        held: tensors as wide as the stream that wait beside a joint block's feed-forward.
        in_turn: single blocks do attention and feed-forward one after the other.
        joint_squares, single_squares, layer_squares: parameters of a block, and of the widest layer
            or table of places, in squares of the width.
    """

    width: int
    heads: int
    joint_blocks: int
    dual_blocks: int
    single_blocks: int
    patch: int
    text_tokens: int
    latent_channels: int
    rotary: bool
    unconditional_sample: bool
    inner: float = 4.0
    gated: bool = False
    held: int = 0
    in_turn: bool = False
    # Joint: 6 + 6 to modulate, 4 + 4 of attention, 8 + 8 of feed-forwards; single: 3 to modulate,
    # 3 of attention, 4 + 5. The widest layer is the one that modulates.
    joint_squares: float = 36
    single_squares: float = 15
    layer_squares: float = 6


@dataclass(frozen=True)
class DecoderFacts:
    """A KL autoencoder's shape, per level of resolution from fine to coarse.

    Attributes:
        upcast: it overflows in float16 and is run in float32 where the rest is in float16.
        film: it is one of films, whose convolutions look back in time.
    """

    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    mid_attention: bool = True
    upcast: bool = False
    film: bool = False

    @property
    def scale(self) -> int:
        """Pixels per latent along one side."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class TextEncoderFacts:
    """A text encoder's shape. ``tokens`` are those of one prompt.

    Attributes:
        float32_parameters: numbers that stay in float32 where the rest is in float16.
        block_parameters: of what comes at once where it is offloaded block by block; 0 where its
            class has no blocks, and layers come one by one.
    """

    width: int
    layers: int
    heads: int
    inner_width: int
    tokens: int
    float32_parameters: int = 0
    block_parameters: int = 0


@dataclass(frozen=True)
class Architecture:
    """What a model's configs say of its shape: the memory planner's input."""

    denoiser: DenoiserFacts | TransformerFacts
    decoder: DecoderFacts
    text_encoders: tuple[TextEncoderFacts, ...] = ()


@dataclass(frozen=True)
class ControlNetFacts:
    """A ControlNet's shape: the first half of a UNet, and layers that read the picture it follows.

    Attributes:
        parameters: how many numbers it holds.
        hint_channels: of the layer that reads the picture at its full size.
    """

    parameters: int
    shape: DenoiserFacts
    hint_channels: int


@dataclass(frozen=True)
class ModelProfile:
    """A model folder, or a single file, as the registry reads it.

    Attributes:
        family: key of ``engine.families`` ("sd1").
        component_bytes: size on disk of each weight-bearing component.
        component_parameters: how many numbers each of them holds.
        min_side_px, max_side_px: sides the model was made for.
        side_grid_px: sides are multiples of it.
        schedulers: names in a request that the model can be sampled with.
        features: what else a request may ask of it.
        root: folder that links of its files may not leave; the parent of ``path`` if empty.
        half: what its networks are in on a GPU.
        architecture: None where the configs do not tell; memory is then judged by weights alone.
        configs: the folder with configs and tokenizers, where ``path`` is a single file; where that
            is a transformer alone, the folder with all other parts too.
        scheduler_config: what stands in place of values of the model's own.
        quantised: of parts that are held in few bits.
        quantisable: of parts that the planner may round at load, where nothing else fits.
        controlnets: what works beside it in the job that is planned.
    """

    id: str
    title: str
    family: str
    licence: str
    path: str
    defaults: ModelDefaults
    min_side_px: int
    max_side_px: int
    component_bytes: dict[str, int]
    component_parameters: dict[str, int] = field(default_factory=dict)
    side_grid_px: int = SIDE_GRID_PX
    schedulers: tuple[str, ...] = DIFFUSION_SCHEDULERS
    features: tuple[Feature, ...] = ()
    half: Literal["float16", "bfloat16"] = "float16"
    architecture: Architecture | None = None
    root: str = ""
    configs: str = ""
    controlnets: tuple[ControlNetFacts, ...] = ()
    scheduler_config: dict[str, str | bool] = field(default_factory=dict)
    quantised: dict[str, QuantisedWeights] = field(default_factory=dict)
    quantisable: dict[str, QuantisedWeights] = field(default_factory=dict)

    @property
    def weights_bytes(self) -> int:
        return sum(self.component_bytes.values())

    def loaded_bytes(self, item_bytes: int) -> dict[str, int]:
        """Memory of each component at ``item_bytes`` a number; the size on disk where unknown.

        What is held in few bits takes those.
        """
        found = {
            name: self.component_parameters[name] * item_bytes
            if name in self.component_parameters
            else size_bytes
            for name, size_bytes in self.component_bytes.items()
        }
        for name, held in self.quantised.items():
            found[name] += held.held_bytes - held.parameters * item_bytes
        return found

    @property
    def quantisation(self) -> dict[str, str]:
        """Part → kind, of ``quantised``."""
        return {name: held.kind for name, held in self.quantised.items()}

    def rounded(self, names: Iterable[str]) -> ModelProfile:
        """With these parts held in few bits, as far as they can be."""
        more = {name: self.quantisable[name] for name in names if name in self.quantisable}
        return replace(self, quantised={**more, **self.quantised})


@dataclass(frozen=True)
class DeviceFacts:
    """The device an engine child found.

    Attributes:
        kind: "gpu" whatever the vendor, or "cpu".
        total_bytes: memory of the device; of the host (or its container) for a CPU.
        threads: CPU threads torch uses.
        backend: what torch was built for.
        capability: gfx id, "sm_…" or the CPU's instruction set; empty if not known.
        host_bytes: memory of the host or its container; 0 if not known.
        reserved_bytes: device memory that is left to others (RESERVED_VRAM).
        fused_attention_width: largest head for which attention needs no matrix of scores in
            memory; 0 where there is no such kernel.
        bfloat16: whether the device computes in bfloat16 itself.
    """

    kind: Literal["cpu", "gpu"]
    name: str
    total_bytes: int
    threads: int
    backend: Literal["cpu", "rocm", "cuda"] = "cpu"
    capability: str = ""
    host_bytes: int = 0
    reserved_bytes: int = 0
    fused_attention_width: int = 512
    bfloat16: bool = True

    @property
    def usable_bytes(self) -> int:
        """What this process may take of the device."""
        return max(0, self.total_bytes - self.reserved_bytes)
