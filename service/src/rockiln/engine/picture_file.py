"""Pixels and their record to the bytes of a file, and back. No torch.

=====  ==============================================  ==================================
file   ``parameters`` text (A1111 layout)              record (JSON)
=====  ==============================================  ==================================
PNG    tEXt ``parameters`` (iTXt beyond Latin-1)       iTXt ``rockiln``
JPEG   EXIF UserComment                                XMP property ``rockiln:record``
WebP   EXIF UserComment                                XMP property ``rockiln:record``
=====  ==============================================  ==================================
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rockiln.domain.request import PictureFormat
from rockiln.engine.png import Pixels, encode_png
from rockiln.engine.record import parameters_text, record_json

RECORD_KEY = "rockiln"
_NAMESPACE = "https://rockiln.invalid/ns/record/1/"
_JPEG_QUALITY = 95
_WEBP_QUALITY = 95
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UNICODE_MARK = b"UNICODE\0"
# A JPEG segment's length is 16 bits; the marks before the content take less than the rest.
_JPEG_SEGMENT_BYTES = 65_000


@dataclass(frozen=True)
class EncodedPicture:
    """A whole file. ``warnings`` are sentences about what it could not carry."""

    data: bytes
    warnings: list[str] = field(default_factory=list)


def encode_picture(
    pixels: Pixels, picture_format: PictureFormat, record: dict[str, Any]
) -> EncodedPicture:
    """Pixels [H, W, 3] → a file. Equal input gives equal bytes.

    A JPEG has no room for the longest prompts: it is then written without them, with a warning.
    """
    if picture_format == "png":
        return EncodedPicture(encode_png(pixels, _png_texts(record)))
    image = Image.fromarray(pixels)
    exif, xmp = _exif(parameters_text(record)), _xmp(record_json(record))
    file = io.BytesIO()
    if picture_format == "webp":
        image.save(file, "WEBP", quality=_WEBP_QUALITY, method=4, exif=exif, xmp=xmp)
        return EncodedPicture(file.getvalue())
    warnings = []
    metadata = {"exif": exif, "xmp": xmp}
    for name, content in list(metadata.items()):
        if len(content) > _JPEG_SEGMENT_BYTES:
            del metadata[name]
            warnings.append(
                f"The JPEG does not carry its {name.upper()} parameters: {len(content)} bytes "
                f"are more than a JPEG segment holds. Ask for png or webp to keep them."
            )
    image.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0, **metadata)
    return EncodedPicture(file.getvalue(), warnings)


def read_record(data: bytes) -> dict[str, Any] | None:
    """The record in a picture file of ours; None if there is none."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        image.load()
        text = image.info.get(RECORD_KEY)
        xmp = image.info.get("xmp")
    if text is None and isinstance(xmp, bytes):
        text = _record_in_xmp(xmp)
    if text is None:
        return None
    record: dict[str, Any] = json.loads(text)
    return record


def read_parameters_text(data: bytes) -> str | None:
    """The A1111 ``parameters`` text in a picture file; None if there is none."""
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
        image.load()
        text = image.info.get("parameters")
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if isinstance(text, str):
        return str(text)
    if isinstance(comment, bytes) and comment.startswith(_UNICODE_MARK):
        return comment.removeprefix(_UNICODE_MARK).decode("utf-16-be")
    return None


def _png_texts(record: dict[str, Any]) -> PngInfo:
    texts = PngInfo()
    texts.add_text("parameters", parameters_text(record))
    texts.add_itxt(RECORD_KEY, record_json(record))
    return texts


def _exif(text: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE_MARK + text.encode("utf-16-be")
    return exif.tobytes()


def _xmp(text: str) -> bytes:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:rockiln="{_NAMESPACE}" '
        f"rockiln:record={quoteattr(text)}/>"
        "</rdf:RDF></x:xmpmeta>"
    )
    return packet.encode()


def _record_in_xmp(packet: bytes) -> str | None:
    for element in ElementTree.fromstring(packet).iter():  # noqa: S314 (our own packet or refused)
        text = element.get(f"{{{_NAMESPACE}}}record")
        if text is not None:
            return text
    return None
