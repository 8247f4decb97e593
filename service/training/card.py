"""The measured part of the model card: evaluation.json, and the tables made from it.

Nobody types a figure into the card: the commands store what they measured, and the text between the
markers is written from that file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "models" / "vista"
BEGIN, END = "<!-- evaluation:begin -->", "<!-- evaluation:end -->"

_TITLES = {
    "time": "time of day",
    "sky": "sky",
    "relief": "relief",
    "water": "water",
    "ground": "ground",
    "trees": "tree kind",
    "tree_side": "tree side",
    "house": "house present",
    "house_colour": "house colour",
    "house_side": "house side",
    "boat": "boat present",
    "boat_colour": "boat colour",
    "boat_side": "boat side",
    "light": "sun or moon",
    "light_side": "sun or moon side",
    "clouds": "clouds (0, some, many)",
    "birds": "birds",
}


def load(folder: Path) -> dict[str, Any]:
    path = folder / "evaluation.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def store(folder: Path, part: str, measured: dict[str, Any]) -> None:
    """Keep one command's measurements and write the card anew."""
    report = {**load(folder), part: measured}
    (folder / "evaluation.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    path = folder / "README.md"
    if path.exists():
        path.write_text(with_tables(path.read_text(), report))


def with_tables(text: str, report: dict[str, Any]) -> str:
    """The card's text with the part between the markers replaced."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{tables(report)}\n{END}{tail}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(versions.items()))


def _accuracy(part: dict[str, Any]) -> list[str]:
    s = part["settings"]
    lines = [
        f"{part['prompts']} held-out prompts, {s['width']}x{s['height']}, "
        f"{s['num_inference_steps']} steps, guidance {s['guidance_scale']}, fp32 on "
        f"{part['device']} ({_versions(part['versions'])}).",
        "",
        "| attribute | prompts that name it | shown, by judge | shown, by pixels |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in _TITLES.items():
        row = part["attributes"][name]
        shown = f"{_percent(row['judge'])} | {_percent(row.get('pixels'))}"
        lines.append(f"| {title} | {row['count']} | {shown} |")
    lines += [
        "",
        "All attributes together at other sizes, by judge:",
        "",
        "| size | prompts | attributes named | shown |",
        "| --- | ---: | ---: | ---: |",
    ]
    for size, row in part["other_sizes"].items():
        lines.append(f"| {size} | {row['prompts']} | {row['asked']} | {_percent(row['shown'])} |")
    return lines


def _vae(part: dict[str, float]) -> list[str]:
    colours = [v for k, v in part.items() if k.startswith("pixels ")]
    return [
        f"VAE on {part['pictures']:.0f} held-out drawn pictures: PSNR {part['psnr_db']:.1f} dB at "
        f"256x256 ({part['psnr_db 512x512']:.1f} dB at 512x512); on its reconstructions the judge "
        f"reads house and boat colours right in {_percent(part['judge house_colour'])} and "
        f"{_percent(part['judge boat_colour'])}, pixel tests in at least "
        f"{_percent(min(colours))} of each colour."
    ]


def _precision(part: dict[str, Any]) -> list[str]:
    rows = {
        "fp16": "fp16 arithmetic",
        "bf16": "bf16 arithmetic",
        "tiled": "VAE decoded in 64-latent tiles (768x768)",
    }
    lines = [
        f"Mean difference from the fp32 run on a 0-1 scale, {part['pictures']} pictures on "
        f"{part['device']} ({_versions(part['versions'])}):",
        "",
        "| run | mean | largest picture mean |",
        "| --- | ---: | ---: |",
    ]
    for key, title in rows.items():
        lines.append(f"| {title} | {part[key]['mean']:.5f} | {part[key]['worst']:.5f} |")
    return lines


def _speed(part: dict[str, Any]) -> list[str]:
    lines = [
        f"Time of one picture at default steps, reference pipeline, fp32, {part['threads']} "
        f"threads on two cores of an {part['processor']} processor shared with other work (load "
        f"average {part['load_average']}), median of {part['runs']} "
        f"(fastest to slowest), {_versions(part['versions'])}:",
        "",
        "| size | seconds | processor seconds |",
        "| --- | ---: | ---: |",
    ]
    for size, row in part["sizes"].items():
        span = f"{row['median']:.2f} ({row['fastest']:.2f} to {row['slowest']:.2f})"
        lines.append(f"| {size} | {span} | {row['processor_seconds']:.2f} |")
    return lines


def tables(report: dict[str, Any]) -> str:
    writers = {"accuracy": _accuracy, "vae": _vae, "precision": _precision, "speed": _speed}
    blocks = ["\n".join(writer(report[key])) for key, writer in writers.items() if key in report]
    return "\n\n".join(blocks)
