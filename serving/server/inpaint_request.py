"""One request to fill a hole: what it may ask for, and the work it takes.

Bytes in, bytes out, nothing of HTTP but the numbers of its errors. The pixels are those that
`serving.predict` writes: orientation, transparency, gray levels, profiles and EXIF are treated the
same, by the same functions of `musical_tf.images`.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from musical_tf import images

from .request_terms import OWN_FORMATS, Box, RequestError, invalid_option
from .worker import TooCostlyError

if TYPE_CHECKING:
    from .schemas import Options

FILES = ("image", "mask")
OF_CONVERT = ("image", "filled"), ("format", "quality", "metadata", "crop")
"""Files and options of a request to encode a photograph."""

Fill = Callable[[np.ndarray, np.ndarray, "Options"], np.ndarray]
"""Fills `(image uint8 (H, W, 3), hole bool (H, W), options)`; returns uint8 `(H, W, 3)`."""

_LONGEST_SIDE = {"webp": 16383, "jpeg": 65535, "avif": 65535}


@dataclass(frozen=True)
class Filled:
    """The answer.

    Attributes:
        content: The encoded image.
        format: One of `OWN_FORMATS`.
        width: Pixels.
        height: Pixels.
        mask: The levels found in the mask, and the rule that selected the hole; empty without one.
        hole_share: The part of the image that was filled, 0 to 1, `dilate` included.
        saved: The name of the file in the server's folder; empty without one.
    """

    content: bytes
    format: str
    width: int
    height: int
    mask: str = ""
    hole_share: float = 0.0
    saved: str = ""


def fill_request(
    fields: Mapping[str, Any],
    options: "Options",
    max_pixels: int,
    fill: Fill,
    check: Callable[[], None],
    codec: Any = images,
) -> Filled:
    """Decodes, fills and encodes.

    Args:
        fields: `image` and perhaps `mask` as binary streams.
        options: What is asked for.
        max_pixels: Larger images are refused before they are decoded.
        fill: What fills the hole.
        check: Called between the steps; may raise to end them.
        codec: What decodes and encodes: `musical_tf.images`, or `worker_pool.Codec`.

    Raises:
        RequestError: If the request is at fault. What `fill` and `check` raise passes through,
            but for `ValueError`, by which `fill` refuses an image as too large for the strategy.
    """
    photograph, content, name = _open(fields, options, codec, max_pixels)
    check()
    choice: dict[str, Any] = {"polarity": options.polarity, "threshold": options.threshold}
    alpha = None
    if "mask" in fields:
        mask, _ = read_image(fields, "mask", codec.load_mask, max_pixels, **choice)
        hole, reading = mask.hole, mask.reading
        del mask
        with image_errors("mask_size"):
            images.check_sizes(photograph, hole, "mask")
    elif photograph.alpha is not None:
        hole, reading = images.alpha_mask(photograph, **choice), "opacity of the image"
        alpha = np.where(hole, np.uint8(255), photograph.alpha)
    else:
        raise RequestError(
            400, "no_mask", "mask is missing, and the image has no transparent part; send a mask"
        )
    _check_transparency(photograph.alpha if alpha is None else alpha, name)
    check()
    hole = images.dilate(hole, options.dilate)
    if hole.all():
        raise RequestError(
            400,
            "hole_covers_image",
            "the hole covers the whole image; if the mask is inverted, change the polarity",
        )
    height, width = hole.shape
    image_format = OWN_FORMATS[name]
    pixels = photograph.pixels
    if hole.any():
        check()
        try:
            pixels = fill(pixels, hole, options)
        except ValueError as error:
            raise RequestError(413, "too_many_pixels", str(error)) from None
        check()
    elif content and image_format == photograph.format and options.quality is None:
        return Filled(content, name, width, height, reading)  # not even encoded again
    with image_errors("invalid_image"):
        encoded = codec.encode_photograph(
            photograph,
            pixels,
            image_format,
            alpha,
            quality=options.quality,
            hole=None if photograph.samples is None else hole,
        )
    return Filled(encoded, name, width, height, reading, round(float(hole.mean()), 6))


def convert_request(
    fields: Mapping[str, Any],
    options: "Options",
    max_pixels: int,
    check: Callable[[], None],
    codec: Any = images,
    crop: Box | None = None,
) -> Filled:
    """Encodes a photograph in another format, or its filled version as its own file is encoded.

    Args:
        fields: `image` and perhaps `filled`, the photograph's answer from `fill_request`, as binary
            streams.
        options: `format`, `quality` and `metadata`.
        max_pixels, check, codec: As of `fill_request`.
        crop: Left, top, right and bottom of the part of the image to take; it may reach outside,
            where the image's border is continued. `filled` has the size of that part.

    Raises:
        RequestError: If the request is at fault. What `check` raises passes through.
    """
    photograph, content, name = _open(fields, options, codec, max_pixels, crop)
    check()
    height, width = photograph.pixels.shape[:2]
    image_format = OWN_FORMATS[name]
    pixels, alpha, hole = photograph.pixels, photograph.alpha, None
    if "filled" in fields:
        filled, _ = read_image(fields, "filled", codec.read_photograph, max_pixels)
        check()
        if filled.pixels.shape != pixels.shape:
            raise RequestError(
                400,
                "filled_size",
                f"filled must be {width} x {height} pixels like the image, got "
                f"{filled.pixels.shape[1]} x {filled.pixels.shape[0]}",
            )
        if photograph.samples is not None:
            hole = (filled.pixels != pixels).any(axis=2)
        pixels, alpha = filled.pixels, filled.alpha
    elif content and image_format == photograph.format and options.quality is None:
        return Filled(content, name, width, height)
    _check_transparency(alpha, name)
    with image_errors("invalid_image"):
        encoded = codec.encode_photograph(
            photograph, pixels, image_format, alpha, quality=options.quality, hole=hole
        )
    return Filled(encoded, name, width, height)


def _open(
    fields: Mapping[str, Any],
    options: "Options",
    codec: Any,
    max_pixels: int,
    crop: Box | None = None,
) -> tuple[images.Photograph, bytes, str]:
    """The photograph, its bytes if they may be the answer, and the answer's format."""
    if "image" not in fields:
        raise RequestError(400, "invalid_image", "there is no image")
    photograph, content = read_image(fields, "image", codec.read_photograph, max_pixels)
    if options.metadata == "strip":
        photograph, content = replace(photograph, exif=None), b""
    if crop:
        photograph, content = _crop(photograph, crop, max_pixels), b""
    name = options.format
    if name == "same":
        own = photograph.format.lower()
        name = own if own in OWN_FORMATS else "png"
    longest = max(photograph.pixels.shape[:2])
    if longest > _LONGEST_SIDE.get(name, longest):
        raise invalid_option(
            f"{name} allows {_LONGEST_SIDE[name]} pixels a side and the image has {longest}; "
            "use png"
        )
    return photograph, content, name


def _crop(photograph: images.Photograph, box: Box, max_pixels: int) -> images.Photograph:
    left, top, right, bottom = box
    height, width = photograph.pixels.shape[:2]
    if (right - left) * (bottom - top) > max_pixels:
        raise RequestError(
            413,
            "too_many_pixels",
            f"crop has {right - left} x {bottom - top} pixels and the limit is {max_pixels}",
        )
    rows, columns = (max(0, top), min(height, bottom)), (max(0, left), min(width, right))
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        raise invalid_option(f"crop must overlap the image of {width} x {height} pixels")
    margins = ((rows[0] - top, bottom - rows[1]), (columns[0] - left, right - columns[1]))

    def cut(values: Any, **fill: Any) -> Any:
        if values is None:
            return None
        around = margins + ((0, 0),) * (values.ndim - 2)
        return np.pad(values[slice(*rows), slice(*columns)], around, **fill)

    return replace(
        photograph,
        pixels=cut(photograph.pixels, mode="edge"),
        alpha=cut(photograph.alpha, constant_values=255),
        samples=cut(photograph.samples, mode="edge"),
    )


def read_image(
    fields: Mapping[str, Any],
    name: str,
    read: Callable[..., Any],
    max_pixels: int,
    **choice: Any,
) -> tuple[Any, bytes]:
    """What the image file in a field holds, and its bytes."""
    content = fields[name].read()
    code = f"invalid_{name}"
    if not content:
        raise RequestError(400, code, f"{name}: it is empty")
    with image_errors(code):
        return read(io.BytesIO(content), name=name, max_pixels=max_pixels, **choice), content


def _check_transparency(alpha: np.ndarray | None, name: str) -> None:
    """Refuses a format that cannot hold what stays transparent."""
    if name in ("jpeg", "bmp") and alpha is not None and not (alpha == 255).all():
        raise invalid_option(f"{name} cannot hold the image's transparency; use png, webp or avif")


@contextlib.contextmanager
def image_errors(code: str) -> Iterator[None]:
    """Turns what is wrong with an image into an answer of that code."""
    try:
        yield
    except images.TooManyPixelsError as error:
        raise RequestError(413, "too_many_pixels", str(error)) from None
    except TooCostlyError as error:
        raise RequestError(413, "too_costly", str(error)) from None
    except images.ImageError as error:
        raise RequestError(400, code, str(error)) from None
