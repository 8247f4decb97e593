"""Pictures that clients send: judged, then made plain, before anything else reads them.

What is kept is a PNG written here: upright, RGB or L, without metadata. Only that is handed on.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from rockiln.domain.errors import InvalidRequestError

if TYPE_CHECKING:
    from PIL.Image import Image as PictureImage

INPUT_MAX_PIXELS = 1 << 24  # 4096 x 4096
INPUT_MAX_SIDE_PX = 8192
_FORMATS = ("PNG", "JPEG", "WEBP")
# Decoded, a picture takes up to 4 bytes a pixel, three times over.
_TURNS = threading.BoundedSemaphore(2)

Mode = Literal["RGB", "L"]


@dataclass(frozen=True)
class CleanPicture:
    """A PNG of ours. Sides in px."""

    data: bytes
    width: int
    height: int


def clean_picture(data: bytes, field: str, mode: Mode = "RGB") -> CleanPicture:
    """A picture as it was meant to be seen: upright, what is transparent over white.

    Args:
        field: of the request, for the refusal.
        mode: L makes a mask of it.

    Raises:
        InvalidRequestError: no PNG, JPEG or WebP, damaged, of several frames, or too large.
    """
    with _TURNS:
        return _as_png(_flat(_read(data, field)).convert(mode))


def mask_of_transparency(data: bytes, field: str) -> bytes:
    """A PNG mask from a picture's transparency: what is transparent is white, to be drawn anew.

    Raises:
        InvalidRequestError: as ``clean_picture``, or nothing says how transparent it is.
    """
    from PIL import ImageOps  # noqa: PLC0415 (the front starts without it)

    with _TURNS:
        image = _read(data, field)
        if not image.has_transparency_data:
            _refuse(field, "it has no transparency that says what to draw anew")
        alpha = image.convert("RGBA").getchannel("A")
        return _as_png(ImageOps.invert(alpha)).data


def _read(data: bytes, field: str) -> PictureImage:
    """The decoded, upright picture. Its header is judged before its pixels are touched."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 (likewise)

    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > INPUT_MAX_PIXELS or max(width, height) > INPUT_MAX_SIDE_PX:
                _refuse(
                    field,
                    f"{width}x{height} is more than {INPUT_MAX_PIXELS} pixels or "
                    f"{INPUT_MAX_SIDE_PX} px along a side",
                )
            if getattr(image, "n_frames", 1) > 1:
                _refuse(field, "it has several frames; send one picture")
            image.load()
            return ImageOps.exif_transpose(image)
    except InvalidRequestError:
        raise
    except UnidentifiedImageError:
        _refuse(field, "it is no PNG, JPEG or WebP picture")
    # Whatever a decoder makes of a hostile file is that file's fault.
    except Exception as error:  # noqa: BLE001
        _refuse(field, f"it cannot be read: {type(error).__name__}: {str(error)[:200]}")


def _flat(image: PictureImage) -> PictureImage:
    """Over white, where it has transparency."""
    from PIL import Image  # noqa: PLC0415 (likewise)

    if not image.has_transparency_data:
        # 16 bits of grey would be cut off, not scaled, by a conversion.
        return (
            image.point(lambda value: value / 256).convert("L")
            if (image.mode.startswith("I"))
            else image
        )
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)


def _as_png(image: PictureImage) -> CleanPicture:
    image.info = {}
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return CleanPicture(file.getvalue(), *image.size)


def _refuse(field: str, message: str) -> NoReturn:
    error = {"field": field, "message": message, "hint": "send a PNG, JPEG or WebP picture"}
    raise InvalidRequestError(f"{field}: {message}", errors=[error])
