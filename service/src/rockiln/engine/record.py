"""What a picture says of how it was made: enough to make the same bytes again. No torch.

No time, no job id and no host name is in it, so equal work gives equal files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from rockiln.domain.model import ModelProfile
from rockiln.domain.plan import Plan
from rockiln.domain.request import GenerationParameters
from rockiln.domain.sampling import A1111_NAMES

RECORD_SCHEMA = 1
MODEL_HASH_CHARS = 10


@dataclass(frozen=True)
class Surroundings:
    """What decides a picture besides its request.

    Attributes:
        capability: instruction set of the CPU, or the GPU's own id.
        threads: CPU threads.
    """

    device: str
    capability: str
    threads: int
    versions: dict[str, str]


def make_record(
    parameters: GenerationParameters,
    *,
    index: int,
    plan: Plan,
    policies: list[str],
    model: ModelProfile,
    revision: str,
    batch_rows: int,
    surroundings: Surroundings,
    loras: dict[str, str] | None = None,
    embeddings: dict[str, str] | None = None,
    controlnets: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The record of picture ``index``, written as the request that makes this picture alone.

    Args:
        batch_rows: rows in the widest forward it took part in. 1: a repeat gives the same bytes;
            more: within 1/255 a pixel.
        loras, embeddings, controlnets: name → SHA-256 of the files that were used.
    """
    alone = replace(parameters, seed=parameters.picture_seed(index), num_images=1)
    held = model.rounded(plan.quantisation).quantised
    return {
        "schema": RECORD_SCHEMA,
        "parameters": alone.as_dict(),
        "plan": plan.as_dict(),
        "policies": policies,
        "model": {"id": model.id, "family": model.family, "revision": revision},
        "dtype": plan.dtype,
        "batch_rows": batch_rows,
        "device": surroundings.device,
        "capability": surroundings.capability,
        "threads": surroundings.threads,
        "versions": surroundings.versions,
        **({"quantisation": {name: each.as_dict() for name, each in held.items()}} if held else {}),
        **({"loras": loras} if loras else {}),
        **({"embeddings": embeddings} if embeddings else {}),
        **({"controlnets": controlnets} if controlnets else {}),
    }


def record_json(record: dict[str, Any]) -> str:
    """One form for one content."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def parameters_of(record: dict[str, Any]) -> GenerationParameters:
    """The parameters to run again. Raises KeyError or TypeError on a foreign record."""
    return GenerationParameters.from_dict(record["parameters"])


def parameters_text(record: dict[str, Any]) -> str:
    """The ``parameters`` text in the A1111 layout, which other tools of the field read."""
    asked, model = record["parameters"], record["model"]
    sampler, schedule = A1111_NAMES[asked["scheduler"]]
    settings: dict[str, Any] = {
        "Steps": asked["num_inference_steps"],
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": f"{asked['guidance_scale']:g}",
        "Seed": asked["seed"],
        "Size": f"{asked['width']}x{asked['height']}",
        "Model hash": model["revision"][:MODEL_HASH_CHARS],
        "Model": model["id"],
        **_feature_settings(asked),
        **_quantisation_setting(record),
        "Version": f"rockiln {record['versions']['rockiln']}",
    }
    tags = "".join(f" <lora:{each['name']}:{each['weight']:g}>" for each in asked.get("loras", ()))
    lines = [asked["prompt"] + tags]
    if asked["negative_prompt"]:
        lines.append(f"Negative prompt: {asked['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _quantisation_setting(record: dict[str, Any]) -> dict[str, str]:
    """For people; A1111 itself has no such setting."""
    held = record.get("quantisation", {})
    said = " ".join(f"{name} {each['kind']}" for name, each in held.items())
    return {"Quantisation": f"{said} (lossy)"} if said else {}


def _feature_settings(asked: dict[str, Any]) -> dict[str, Any]:
    """What A1111 writes of a picture to start from, a second pass and what it was steered by."""
    settings: dict[str, Any] = {}
    if asked.get("strength") is not None:
        settings["Denoising strength"] = f"{asked['strength']:g}"
    if asked.get("clip_skip", 1) > 1:
        settings["Clip skip"] = asked["clip_skip"]
    for place, use in enumerate(asked.get("controlnets", ())):
        settings[f"ControlNet {place}"] = (
            f'"Module: none, Model: {use["name"]}, Weight: {use["scale"]:g}, '
            f'Guidance Start: {use["start"]:g}, Guidance End: {use["end"]:g}"'
        )
    hires = asked.get("hires")
    if hires is not None:
        settings |= {
            "Denoising strength": f"{hires['strength']:g}",
            "Hires resize": f"{hires['width']}x{hires['height']}",
            "Hires steps": hires["num_inference_steps"],
            "Hires upscaler": "Latent",
        }
    return settings
