"""Settings taken from pictures: ours, A1111's, ComfyUI's, and what hostile files get."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rockiln.api.foreign_settings import settings_of_graph, settings_of_infotext
from rockiln.api.picture_settings import read_settings
from rockiln.api.views.web.form import form_content, typed_of
from rockiln.domain.errors import InvalidRequestError
from support.front import Front

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# As AUTOMATIC1111's web UI writes it, with a second pass.
INFOTEXT = """a (glass:1.3) house,
in the woods <lora:detail:0.6>
Negative prompt: people, text
Steps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 1234567890, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.45, Clip skip: 2, \
Hires upscale: 1.5, Hires steps: 10, Hires upscaler: Latent, Lora hashes: "detail: aa, b: cc", Version: v1.10.1"""  # noqa: E501 (one line there)
# As ComfyUI's default workflow stores it, with a LoRA between.
GRAPH: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {
        "seed": 156680208700286, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m",
        "scheduler": "karras", "denoise": 1, "model": ["10", 0], "positive": ["6", 0],
        "negative": ["7", 0], "latent_image": ["5", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd\\v1-5-pruned.ckpt"}},
    "5": {"class_type": "EmptyLatentImage",
          "inputs": {"width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bottle", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["10", 1]}},
    "10": {"class_type": "LoraLoader", "inputs": {
        "lora_name": "styles/ink.safetensors", "strength_model": 0.7, "model": ["4", 0]}},
}  # fmt: skip


def png(**texts: str) -> bytes:
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text, zip=len(text) > 100)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "png", pnginfo=info)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + b"\0\0\0\0"


def test_the_text_of_a1111_is_read() -> None:
    found = read_settings(png(parameters=INFOTEXT))
    assert found.source == "A1111"
    assert found.fields == {
        "prompt": "a (glass:1.3) house,\nin the woods <lora:detail:0.6>",
        "negative_prompt": "people, text",
        "prompt_syntax": "weighted",
        "num_inference_steps": 28,
        "guidance_scale": 6.5,
        "clip_skip": 2,
        "seed": 1234567890,
        "width": 512,
        "height": 768,
        "scheduler": "dpmpp_2m_karras",
        "model": "v1-5-pruned-emaonly",
        "hires": {"width": 768, "height": 1152, "num_inference_steps": 10, "strength": 0.45},
    }


def test_a_text_without_settings_is_all_prompt() -> None:
    fields, _ = settings_of_infotext("a house: with a door, and a window")
    assert fields == {"prompt": "a house: with a door, and a window", "negative_prompt": ""}


def test_the_graph_of_comfyui_is_read() -> None:
    found = read_settings(png(prompt=json.dumps(GRAPH), workflow="{}"))
    assert found.source == "ComfyUI"
    assert found.fields == {
        "prompt": "a bottle",
        "negative_prompt": "watermark",
        "num_inference_steps": 20,
        "guidance_scale": 8.0,
        "scheduler": "dpmpp_2m_karras",
        "width": 512,
        "height": 640,
        "model": "v1-5-pruned",
        "loras": [{"name": "ink", "weight": 0.7}],
    }
    assert "156680208700286" in found.notes[0]


def test_our_own_record_comes_first() -> None:
    record = {"parameters": {"prompt": "a kiln", "seed": 7, "strength": 0.5, "image": "0" * 64}}
    found = read_settings(png(rockiln=json.dumps(record), parameters=INFOTEXT))
    assert found.fields == {"prompt": "a kiln", "seed": 7}
    assert "another picture" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no PNG"),
        (b"\xff\xd8\xff", "no PNG"),
        (SIGNATURE, "cut off"),
        (SIGNATURE + chunk(b"tEXt", b"parameters\0x")[:-5], "cut off"),
        (SIGNATURE + struct.pack(">I", 2**31) + b"tEXt", "cut off"),
        (SIGNATURE + chunk(b"abcd", b"") * 20_001, "too many parts"),
        (SIGNATURE + b"".join(chunk(b"tEXt", b"%d\0x" % i) for i in range(40)), "too many texts"),
        (png(), "no settings"),
        (png(prompt="{}"), "no sampler"),
        (png(prompt="[" * 100_000), "cannot be read"),
        (png(rockiln="[]"), "damaged"),
        (png(rockiln='{"parameters": 1}'), "damaged"),
        (SIGNATURE + chunk(b"zTXt", b"parameters\0\0nothing"), "damaged"),
        (
            SIGNATURE + chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"a" * (64 << 20))),
            "longer than",
        ),
        (SIGNATURE + chunk(b"tEXt", b"parameters\0" + b"a" * (2 << 20)), "longer than"),
    ],
)
def test_a_hostile_file_is_told_what_is_wrong_with_it(data: bytes, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_settings(data)


@given(st.text() | st.text(alphabet='ab: ,\\"\n<>x1', max_size=3000))
def test_any_text_is_read(text: str) -> None:
    fields, _ = settings_of_infotext(text)
    form_content(typed_of(fields))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["class_type", "inputs", "positive", "text", "seed", "steps", "3", "6"]
            ),
            inner | st.sampled_from(["KSampler", ["3", 0], ["6", 0]]),
        )
    ),
    max_leaves=30,
)


@given(VALUES)
def test_any_graph_is_read(graph: Any) -> None:
    fields, _ = settings_of_graph(graph)
    form_content(typed_of(fields))


def test_a_graph_that_leads_into_itself_ends() -> None:
    fields, _ = settings_of_graph(
        {"3": {"class_type": "KSampler", "inputs": {"positive": ["3", 0], "model": ["3", 0]}}}
    )
    assert fields["prompt"] == ""


def test_a_restored_form_is_shown_with_what_was_left_out(front: Front) -> None:
    form = {"file": (io.BytesIO(png(parameters=INFOTEXT)), "a.png")}
    answer = front.send_form("/ui/restore", form)
    assert answer.status_code == 200
    assert "in the woods" in answer.text
    assert "v1-5-pruned-emaonly is not on this host" in answer.text
    assert 'value="1234567890"' in answer.text


@pytest.mark.parametrize("form", [{"file": "text"}, {"other": "x"}, {"file": (io.BytesIO(), "a")}])
def test_a_restore_without_a_file_is_told(front: Front, form: dict[str, Any]) -> None:
    answer = front.send_form("/ui/restore", form)
    assert answer.status_code == 400
    assert "No file was chosen" in answer.text
