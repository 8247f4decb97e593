"""Pictures that clients send: made plain, or refused with the reason."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from rockiln.api.input_pictures import clean_picture, mask_of_transparency
from rockiln.domain.errors import InvalidRequestError
from rockiln.store.artefacts import ArtefactStore
from rockiln.store.deletion import FRESH_SECONDS
from support.front import Front


def picture(
    kind: str = "PNG", *, mode: str = "RGB", size: tuple[int, int] = (64, 96), **options: Any
) -> bytes:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_every_mode_becomes_a_plain_png(mode: str) -> None:
    source = Image.linear_gradient("L").resize((64, 96))
    image = (
        Image.frombytes("I;16", source.size, b"".join(bytes([v, v]) for v in source.tobytes()))
        if mode == "I;16"
        else source.convert(mode)
    )
    file = io.BytesIO()
    image.save(file, "PNG")
    clean = clean_picture(file.getvalue(), "image")
    assert (clean.width, clean.height) == (64, 96)
    found = opened(clean.data)
    assert (found.format, found.mode, found.info) == ("PNG", "RGB", {})
    if mode not in {"1", "P"}:
        assert found.getpixel((0, 0)) == source.convert("RGB").getpixel((0, 0))
        assert found.getpixel((9, 95)) == source.convert("RGB").getpixel((9, 95))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_picture_is_turned_upright_and_loses_its_metadata(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010E] = "a secret"
    clean = clean_picture(picture(kind, exif=exif), "image")
    assert (clean.width, clean.height) == (96, 64)
    assert b"secret" not in clean.data


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    assert opened(clean_picture(file.getvalue(), "image").data).getpixel((1, 1)) == (255, 255, 255)
    assert opened(mask_of_transparency(file.getvalue(), "mask")).getpixel((1, 1)) == 255


def test_a_picture_without_transparency_is_no_mask_of_it() -> None:
    with pytest.raises(InvalidRequestError, match="no transparency"):
        mask_of_transparency(picture(), "mask")


def _bomb() -> bytes:
    """A PNG that says 60000 x 60000 in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _moving(kind: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), (shade, 0, 0)) for shade in (0, 100, 200)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"no picture at all",
    "gif": lambda: picture("GIF"),
    "tiff": lambda: picture("TIFF"),
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
    "truncated png": lambda: picture()[:-200],
    "truncated jpeg": lambda: picture("JPEG")[:-200],
    "truncated webp": lambda: picture("WEBP")[:-100],
    "bomb": _bomb,
    "long side": lambda: picture(mode="1", size=(8200, 8)),
    "too many pixels": lambda: picture(mode="1", size=(5000, 4000)),
    "animated png": lambda: _moving("PNG"),
    "animated webp": lambda: _moving("WEBP"),
    "flipped bits": lambda: picture()[:60] + b"\xff" * 40 + picture()[100:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_refused_with_the_reason(front: Front, name: str) -> None:
    body = {"prompt": "a boat", "image": base64.b64encode(HOSTILE[name]()).decode()}
    answer = front.client.post("/generate", json=body)
    assert answer.status_code == 400, answer.text
    (error,) = answer.get_json()["errors"]
    assert error["field"] == "image"
    assert not list(front.settings.artefacts_dir.glob("inputs/*/*"))


def _stored(front: Front) -> list[str]:
    return sorted(path.stem for path in front.settings.artefacts_dir.glob("inputs/*/*.png"))


def test_a_job_carries_the_digests_of_its_pictures(front: Front) -> None:
    image, mask = base64.b64encode(picture()).decode(), picture(mode="L")
    job_id = front.submit(
        image=f"data:image/png;base64,{image}",
        mask=base64.b64encode(mask).decode(),
        strength=0.5,
        seed=1,
    )
    found = front.store.jobs.get(job_id).parameters
    assert (found.width, found.height, found.strength) == (64, 96, 0.5)
    assert sorted(found.inputs) == _stored(front)
    assert found.image is not None
    assert found.mask is not None
    artefacts = ArtefactStore(front.settings.artefacts_dir)
    assert opened(artefacts.input_path(found.image).read_bytes()).mode == "RGB"
    assert opened(artefacts.input_path(found.mask).read_bytes()).mode == "L"


def test_a_form_is_the_same_as_json(front: Front) -> None:
    form = {
        "prompt": "a boat",
        "seed": "7",
        "clip_skip": "2",
        "loras": "[]",
        "model": "paper",
        "image": (io.BytesIO(picture()), "a.png"),
    }
    sent = front.client.post("/generate", data=form, headers={"Prefer": "respond-async"})
    assert sent.status_code == 202, sent.text
    found = front.store.jobs.get(sent.get_json()["id"]).parameters
    image = base64.b64encode(picture()).decode()
    twin = front.submit(seed=7, clip_skip=2, image=image)
    assert found == front.store.jobs.get(twin).parameters
    assert len(_stored(front)) == 1


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": "a\0"}, "prompt"),
        ({"prompt": "a", "seed": "seven"}, "seed"),
        ({"prompt": "a", "novelty": "1"}, "novelty"),
        ({"prompt": "a", "loras": (io.BytesIO(b"x"), "x")}, "loras"),
        ({}, "prompt"),
    ],
)
def test_a_form_is_read_as_strictly_as_json(front: Front, form: dict[str, Any], field: str) -> None:
    answer = front.client.post("/generate", data=form, content_type="multipart/form-data")
    assert answer.status_code == 400
    assert answer.get_json()["errors"][0]["field"] == field


def test_a_lora_that_is_not_there_is_refused_with_those_that_are(front: Front) -> None:
    folder = front.settings.data_dir / "models" / "loras"
    folder.mkdir(parents=True)
    (folder / "ink.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    answer = front.client.post("/generate", json={"prompt": "a <lora:oil:0.5>"})
    assert answer.status_code == 400
    (error,) = answer.get_json()["errors"]
    assert (error["field"], error["hint"]) == ("loras", "use one of ink")


def test_a_repeated_key_knows_the_picture(front: Front) -> None:
    def send(data: bytes) -> int:
        body = {"prompt": "a", "image": base64.b64encode(data).decode()}
        headers = {"Idempotency-Key": "k", "Prefer": "respond-async"}
        return front.client.post("/generate", json=body, headers=headers).status_code

    assert [send(picture()), send(picture()), send(picture(size=(96, 64)))] == [202, 202, 422]


def test_pictures_go_with_the_last_job_that_names_them(front: Front) -> None:
    image = base64.b64encode(picture()).decode()
    one, other = (front.submit(image=image, seed=seed) for seed in (1, 2))
    orphan = front.store.artefacts.put_input(picture(size=(8, 8)))
    jobs, upkeep = front.store.jobs, front.store.upkeep
    (kept,) = set(_stored(front)) - {orphan}

    def grow_old() -> None:
        for path in front.settings.artefacts_dir.glob("inputs/*/*"):
            age = path.stat().st_mtime - FRESH_SECONDS - 60
            os.utime(path, (age, age))

    upkeep.run()
    assert len(_stored(front)) == 2  # young: a job that names it may be on its way
    grow_old()
    upkeep.run()
    assert _stored(front) == [kept]
    for job_id in (one, other):
        assert _stored(front) == [kept]
        jobs.cancel(job_id)
        front.store.deletion.mark(job_id)
        grow_old()
        upkeep.run()
    assert _stored(front) == []
