"""Settings in the words of other tools: A1111's ``parameters`` text, ComfyUI's graph.

Every function takes what a stranger wrote: it raises nothing, and leaves out what it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from rockiln.domain.request import MODEL_ID_PATTERN, SEED_MAX, SIDE_GRID_PX
from rockiln.domain.sampling import scheduler_named

_NEGATIVE = "Negative prompt:"
# One ``Name: value`` of the last line; bounded, so that no text makes it slow.
_SETTING = re.compile(
    r'\s{0,4}(\w[\w \-/]{0,40}):\s{0,4}("(?:\\.|[^"\\]){0,2000}"|[^,]{0,500})(?:,|$)'
)
_SETTINGS_MIN = 3
_LINE_MAX_CHARS = 20_000
_WEIGHTED = re.compile(r"[()\[\]]|\bBREAK\b")
_NUMBER_MAX_CHARS = 24
_LINKS_MAX = 32

Found = tuple[dict[str, Any], list[str]]


def settings_of_infotext(text: str) -> Found:
    """Fields of a request from A1111's text, and sentences about what was left out."""
    lines = text.strip().splitlines()
    settings: dict[str, str] = {}
    if lines and len(lines[-1]) <= _LINE_MAX_CHARS:
        found = _SETTING.findall(lines[-1])
        if len(found) >= _SETTINGS_MIN:
            settings = {name.strip().lower(): value.strip().strip('"') for name, value in found}
            lines.pop()
    prompt, negative = _two_prompts(lines)
    notes: list[str] = []
    fields: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative}
    if _WEIGHTED.search(prompt + negative):
        fields["prompt_syntax"] = "weighted"
    _take(fields, "num_inference_steps", _whole(settings.get("steps")))
    _take(fields, "guidance_scale", _decimal(settings.get("cfg scale")))
    _take(fields, "clip_skip", _whole(settings.get("clip skip")))
    _take_seed(fields, notes, settings.get("seed"))
    width, _, height = settings.get("size", "").partition("x")
    _take(fields, "width", _whole(width))
    _take(fields, "height", _whole(height))
    _take_scheduler(fields, notes, settings.get("sampler"), settings.get("schedule type"))
    _take_model(fields, notes, settings.get("model"))
    if any(name.startswith("controlnet") for name in settings):
        notes.append("It followed another picture with a ControlNet; the file does not carry it.")
    scale = _decimal(settings.get("hires upscale"))
    if scale is not None and "width" in fields and "height" in fields:
        fields["hires"] = _hires(fields, scale, settings)
    elif "denoising strength" in settings:
        notes.append("It was started from another picture, which the file does not carry.")
    return fields, notes


def _two_prompts(lines: list[str]) -> tuple[str, str]:
    at = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).removeprefix(_NEGATIVE)
    return "\n".join(lines[:at]).strip(), negative.strip()


def _hires(fields: dict[str, Any], scale: float, settings: dict[str, str]) -> dict[str, Any]:
    hires: dict[str, Any] = {}
    for side in ("width", "height"):
        hires[side] = round(min(fields[side] * scale, 1e5) / SIDE_GRID_PX) * SIDE_GRID_PX
    _take(hires, "num_inference_steps", _whole(settings.get("hires steps")) or None)
    _take(hires, "strength", _decimal(settings.get("denoising strength")))
    return hires


def settings_of_graph(graph: Any) -> Found:
    """Fields of a request from ComfyUI's ``prompt``; none where no sampler is in it."""
    nodes = _nodes(graph)
    sampler = next(
        (node for node in nodes.values() if str(node["class_type"]).startswith("KSampler")), None
    )
    if sampler is None:
        return {}, []
    inputs = sampler["inputs"]
    fields: dict[str, Any] = {}
    notes: list[str] = []
    for name, link in (("prompt", "positive"), ("negative_prompt", "negative")):
        texts = (
            node["inputs"]["text"]
            for node in _upstream(nodes, inputs.get(link))
            if isinstance(node["inputs"].get("text"), str)
        )
        fields[name] = next(texts, "")
    if _WEIGHTED.search(fields["prompt"] + fields["negative_prompt"]):
        fields["prompt_syntax"] = "weighted"
    _take(fields, "num_inference_steps", _whole(inputs.get("steps")))
    _take(fields, "guidance_scale", _decimal(inputs.get("cfg")))
    _take_seed(fields, notes, inputs.get("seed", inputs.get("noise_seed")))
    _take_scheduler(fields, notes, inputs.get("sampler_name"), inputs.get("scheduler"))
    for node in _upstream(nodes, inputs.get("latent_image")):
        width, height = (_whole(node["inputs"].get(side)) for side in ("width", "height"))
        if width and height:
            fields |= {"width": width, "height": height}
            break
    else:
        notes.append("It was started from another picture, which the file does not carry.")
    for node in _upstream(nodes, inputs.get("model")):
        checkpoint = node["inputs"].get("ckpt_name", node["inputs"].get("unet_name"))
        if isinstance(checkpoint, str):
            _take_model(fields, notes, PurePosixPath(checkpoint.replace("\\", "/")).stem)
        lora, weight = (node["inputs"].get(name) for name in ("lora_name", "strength_model"))
        if isinstance(lora, str) and _decimal(weight) is not None:
            name = PurePosixPath(lora.replace("\\", "/")).stem
            fields.setdefault("loras", []).append({"name": name, "weight": _decimal(weight)})
    return fields, notes


def _nodes(graph: Any) -> dict[str, dict[str, Any]]:
    """The graph's sound nodes."""
    if not isinstance(graph, dict):
        return {}
    return {
        name: node
        for name, node in graph.items()
        if isinstance(node, dict)
        and isinstance(node.get("inputs"), dict)
        and isinstance(node.get("class_type"), str)
    }


def _upstream(nodes: dict[str, dict[str, Any]], link: Any) -> Iterator[dict[str, Any]]:
    """The node a link leads to and those before it, nearest first, each once."""
    waiting, seen = [link], set[str]()
    while waiting and len(seen) < _LINKS_MAX:
        link = waiting.pop(0)
        name = str(link[0]) if isinstance(link, list) and link else None
        if name is None or name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        waiting += [value for value in nodes[name]["inputs"].values() if isinstance(value, list)]


def _take(fields: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        fields[name] = value


def _take_seed(fields: dict[str, Any], notes: list[str], said: Any) -> None:
    seed = _whole(said)
    if seed is not None and 0 <= seed <= SEED_MAX:
        fields["seed"] = seed
    elif seed is not None:
        notes.append(f"Its seed {seed} is not one that is known here; a random one is used.")


def _take_scheduler(fields: dict[str, Any], notes: list[str], sampler: Any, schedule: Any) -> None:
    if not isinstance(sampler, str):
        return
    spoken = "unipc" if sampler.lower().startswith("uni_pc") else sampler
    name = scheduler_named(spoken, schedule if isinstance(schedule, str) else None)
    if name is None:
        notes.append(f"Its sampler {sampler[:60]} is not known here; the model's own is used.")
    else:
        fields["scheduler"] = name


def _take_model(fields: dict[str, Any], notes: list[str], said: str | None) -> None:
    if not said:
        return
    name = said.lower()
    if re.fullmatch(MODEL_ID_PATTERN, name):
        fields["model"] = name
    else:
        notes.append(f"It was made with the model {said[:80]}.")


def _whole(said: Any) -> int | None:
    number = _decimal(said)
    if number is None or not number.is_integer():
        return None
    # Not from the float: a seed may have more digits than it holds.
    return int(said) if isinstance(said, int) or str(said).lstrip("-").isdecimal() else int(number)


def _decimal(said: Any) -> float | None:
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        return None
    text = str(said).strip()
    if not re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", text) or len(text) > _NUMBER_MAX_CHARS:
        return None
    return float(text)
