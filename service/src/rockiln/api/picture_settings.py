"""The settings that a PNG brings with it: ours, A1111's or ComfyUI's. Its pixels are not read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from rockiln.api.body import parse_json
from rockiln.api.foreign_settings import settings_of_graph, settings_of_infotext
from rockiln.domain.errors import InvalidRequestError
from rockiln.domain.request import GenerationRequest

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
# Beyond these a file is not one that a picture tool wrote.
_TEXT_MAX_BYTES = 1 << 20
_TEXTS_MAX = 32
_CHUNKS_MAX = 20_000
_NEEDS_PICTURES = {"image", "mask", "strength", "controlnets"}


@dataclass(frozen=True)
class PictureSettings:
    """Fields of a request, not yet validated.

    Attributes:
        source: whose words the file spoke.
        notes: sentences about what could not be taken over.
    """

    fields: dict[str, Any]
    source: str
    notes: list[str] = field(default_factory=list)


def read_settings(data: bytes) -> PictureSettings:
    """Raises InvalidRequestError: no PNG, damaged, or without settings."""
    texts = _texts(data)
    if "rockiln" in texts:
        return _of_record(texts["rockiln"])
    if "parameters" in texts:
        fields, notes = settings_of_infotext(texts["parameters"])
        return PictureSettings(fields, "A1111", notes)
    if "prompt" not in texts:
        _refuse("it carries no settings; some programs remove them when they store a picture")
    fields, notes = settings_of_graph(_json(texts["prompt"], "ComfyUI's graph"))
    if not fields:
        _refuse("its ComfyUI graph has no sampler that is known here")
    return PictureSettings(fields, "ComfyUI", notes)


def _of_record(text: str) -> PictureSettings:
    record = _json(text, "our record")
    said = record.get("parameters") if isinstance(record, dict) else None
    if not isinstance(said, dict):
        _refuse("its record is damaged")
    notes = []
    if said.get("image") is not None:
        notes.append("It was started from another picture, which the file does not carry.")
    if said.get("controlnets"):
        notes.append("It followed another picture with a ControlNet; the file does not carry it.")
    known = set(GenerationRequest.model_fields) - _NEEDS_PICTURES - {"format"}
    fields = {name: value for name, value in said.items() if name in known}
    return PictureSettings(fields, "rockiln", notes)


def _json(text: str, name: str) -> Any:
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        _refuse(f"{name} cannot be read: {error}")


def _texts(data: bytes) -> dict[str, str]:
    """The first text under each keyword."""
    if not data.startswith(_SIGNATURE):
        _refuse("it is no PNG")
    found: dict[str, str] = {}
    for kind, content in _chunks(data):
        if kind in _TEXT_CHUNKS:
            keyword, text = _text(kind, content)
            found.setdefault(keyword, text)
            if len(found) > _TEXTS_MAX:
                _refuse("it has too many texts")
    return found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    for _ in range(_CHUNKS_MAX):
        if place + 12 > len(data):
            _refuse("it is cut off")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            _refuse("it is cut off")
        if kind == b"IEND":
            return
        yield kind, data[place + 8 : end]
        place = end + 4
    _refuse("it has too many parts")


def _text(kind: bytes, content: bytes) -> tuple[str, str]:
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        # By the standard Latin-1; several tools write UTF-8 all the same.
        return name, _decoded(_bounded(rest))
    if kind == b"zTXt":
        return name, _decoded(_inflated(rest[1:]))
    compressed = rest[:1] == b"\1"
    text = rest[2:].split(b"\0", 2)[-1]
    return name, _decoded(_inflated(text) if compressed else _bounded(text))


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8").replace("\0", "")
    except UnicodeDecodeError:
        return text.decode("latin-1").replace("\0", "")


def _bounded(text: bytes) -> bytes:
    if len(text) > _TEXT_MAX_BYTES:
        _refuse("a text in it is longer than any settings are")
    return text


def _inflated(text: bytes) -> bytes:
    try:
        return _bounded(zlib.decompressobj().decompress(text, _TEXT_MAX_BYTES + 1))
    except zlib.error:
        _refuse("a text in it is damaged")


def _refuse(message: str) -> NoReturn:
    hint = "choose a PNG as rockiln, A1111 or ComfyUI wrote it"
    raise InvalidRequestError(
        f"file: {message}", errors=[{"field": "file", "message": message, "hint": hint}]
    )
