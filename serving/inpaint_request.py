"""One request to fill a hole: what it may ask for, and the work it takes.

Bytes in, bytes out, nothing of HTTP but the numbers of its errors. The pixels are those that
`serving.predict` writes: orientation, transparency, grey levels, profiles and EXIF are treated the
same, by the same functions of `musical_tf.images`.
"""

import binascii
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol, TypeVar

import numpy as np

from musical_tf import images

from .tiling import STRATEGIES
from .worker import TooCostlyError

LARGEST_THRESHOLD = 254
LARGEST_DILATION = 256

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
"""What an answer may be: name in the request -> Pillow's."""

FILES = ("image", "mask")
OPTIONS = ("strategy", "threshold", "invert", "dilate", "format", "model")

Fill = Callable[[np.ndarray, np.ndarray, str | None], np.ndarray]
"""Fills `(image uint8 (H, W, 3), hole bool (H, W), strategy)`; returns uint8 `(H, W, 3)`."""

_LONGEST_SIDE = {"webp": 16383, "jpeg": 65535}
_LONGEST_REST = 2**16  # bytes of a body in JSON without its files
_LONGEST_HEADER = 1024  # bytes of a data: URL before its comma
_MOST_SCANS = 100  # progressive encoders write about ten

_Default = TypeVar("_Default", bound=str | None)


class Codec(Protocol):
    """The functions of `musical_tf.images` that work on a stranger's file."""

    def read_photograph(self, source: BinaryIO, **options: Any) -> images.Photograph:
        """See `musical_tf.images.read_photograph`."""

    def read_mask(self, source: BinaryIO, **options: Any) -> np.ndarray:
        """See `musical_tf.images.read_mask`."""

    def encode_photograph(
        self, photograph: images.Photograph, pixels: np.ndarray, *arguments: Any
    ) -> bytes:
        """See `musical_tf.images.encode_photograph`."""


class RequestError(Exception):
    """Why a request gets no image.

    Attributes:
        status: HTTP status.
        code: The reason for programs.
        message: The reason for people.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class Options:
    """What a request may ask for beside its image and mask, and the model that fills it.

    Attributes:
        strategy: One of `tiling.STRATEGIES`; None is the model's own.
        threshold: 0 to 254; mask values above it are the hole.
        invert: Whether the hole is the mask's dark side instead.
        dilate: 0 to 256 pixels by which the hole grows.
        format: One of `FORMATS`.
    """

    strategy: str | None = None
    threshold: int = 127
    invert: bool = False
    dilate: int = 0
    format: str = "png"

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Options":
        """Reads options as they come: text from a form, JSON's own types from JSON.

        Raises:
            RequestError: 400 invalid_option, with the name, what is valid and what came.
        """
        return cls(
            strategy=choose(fields, "strategy", STRATEGIES, cls.strategy),
            threshold=_whole_number(fields, "threshold", LARGEST_THRESHOLD, cls.threshold),
            invert=_truth(fields, "invert", cls.invert),
            dilate=_whole_number(fields, "dilate", LARGEST_DILATION, cls.dilate),
            format=choose(fields, "format", tuple(FORMATS), cls.format),
        )


@dataclass(frozen=True)
class Filled:
    """The answer.

    Attributes:
        content: The encoded image.
        format: One of `FORMATS`.
        width: Pixels.
        height: Pixels.
    """

    content: bytes
    format: str
    width: int
    height: int


def fill_request(
    fields: Mapping[str, Any],
    max_pixels: int,
    fill: Fill,
    check: Callable[[], None],
    codec: Codec = images,
) -> Filled:
    """Decodes, fills and encodes.

    Args:
        fields: `image` and perhaps `mask` as binary streams, options by their names.
        max_pixels: Larger images are refused before they are decoded.
        fill: What fills the hole.
        check: Called between the steps; may raise to end them.
        codec: What decodes and encodes, as `worker_pool.Codec` does in another process.

    Raises:
        RequestError: If the request is at fault. What `fill` and `check` raise passes through,
            but for `ValueError`, by which `fill` refuses an image as too large for the strategy.
    """
    options = Options.from_fields(fields)
    if "image" not in fields:
        raise RequestError(400, "invalid_image", "there is no image")
    photograph, content = _read(fields["image"], "image", codec.read_photograph, max_pixels)
    _check_sides(photograph, options.format)
    check()
    choice = {"polarity": "black" if options.invert else "white", "threshold": options.threshold}
    alpha = None
    if "mask" in fields:
        hole, _ = _read(fields["mask"], "mask", codec.read_mask, max_pixels, **choice)
        with _image_errors("mask_size"):
            images.check_sizes(photograph, hole, "mask")
    elif photograph.alpha is not None:
        hole = images.alpha_mask(photograph, **choice)
        alpha = np.where(hole, np.uint8(255), photograph.alpha)
    else:
        raise RequestError(400, "no_mask", "there is no mask and no transparency to take one from")
    _check_transparency(photograph.alpha if alpha is None else alpha, options.format)
    check()
    hole = images.dilate(hole, options.dilate)
    if hole.all():
        raise RequestError(
            400,
            "hole_covers_image",
            "the hole covers the whole image, so nothing is left to copy from; "
            "is the mask the other way round? (invert)",
        )
    height, width = hole.shape
    image_format = FORMATS[options.format]
    pixels = photograph.pixels
    if hole.any():
        check()
        try:
            pixels = fill(pixels, hole, options.strategy)
        except ValueError as error:
            raise RequestError(413, "too_many_pixels", str(error)) from None
        check()
    elif image_format == photograph.format:
        return Filled(content, options.format, width, height)  # not even encoded again
    with _image_errors("invalid_image"):
        encoded = codec.encode_photograph(photograph, pixels, image_format, alpha)
    return Filled(encoded, options.format, width, height)


def parse_json(content: bytes | bytearray) -> dict[str, Any]:
    """Reads a body in JSON: one flat object, base64 or `data:` URLs for `FILES`.

    Returns:
        Streams for `FILES`, JSON's own types for `OPTIONS`. A file that is null is left out.

    Raises:
        RequestError: 400, if it is anything else.
    """
    content = content if isinstance(content, bytearray) else bytearray(content)
    encoded = _cut_files(content)
    # Parsed, a megabyte of brackets is twenty, and none belongs here.
    if len(content) > _LONGEST_REST or b"[" in content or content.count(b"{") > 1:
        raise RequestError(
            400,
            "invalid_json",
            "the body must be one flat JSON object of short options and image and mask in base64",
        )
    try:
        fields = json.loads(content, object_pairs_hook=_fields_of)
    except ValueError as error:
        raise RequestError(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(
            400, "invalid_json", f"expected a JSON object, got {type(fields).__name__}"
        )
    for name in FILES:
        value = fields.pop(name, None)
        if value is not None:
            cut = encoded.pop(name, None)
            if cut is None and isinstance(value, str):
                cut = bytearray(value, "utf-8")
            if cut is None:
                got = type(value).__name__
                raise RequestError(400, f"invalid_{name}", f"{name}: it must be base64, got {got}")
            fields[name] = io.BytesIO(_decode_base64(cut, name))
    return fields


def check_names(names: Sequence[str], what: str) -> None:
    """Refuses names that mean nothing, and names that come twice.

    Raises:
        RequestError: 400 invalid_option, with the valid names.
    """
    valid = (*FILES, *OPTIONS)
    for name in names:
        if name not in valid:
            raise RequestError(
                400,
                "invalid_option",
                f"unknown {what} {name[:100]!r}; valid: {', '.join(valid)}",
            )
        if names.count(name) > 1:
            raise RequestError(
                400, "invalid_option", f"the {what} {name!r} was given more than once"
            )


def choose(
    fields: Mapping[str, Any], name: str, valid: Sequence[str], default: _Default
) -> str | _Default:
    """A field that has one of several values, or the default where there is none.

    Raises:
        RequestError: 400 invalid_option, with the valid values.
    """
    if name not in fields:
        return default
    value = fields[name]
    if value not in valid:
        raise _invalid_option(name, f"one of {', '.join(valid)}", value)
    return value


def _whole_number(fields: Mapping[str, Any], name: str, highest: int, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise _invalid_option(name, f"a whole number from 0 to {highest}", value)
    return value


def _truth(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value, value)
    if not isinstance(value, bool):
        raise _invalid_option(name, "true or false", value)
    return value


def _invalid_option(name: str, valid: str, value: Any) -> RequestError:
    return RequestError(400, "invalid_option", f"{name} must be {valid}, got {str(value)[:100]!r}")


def _fields_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    check_names([name for name, _ in pairs], "JSON key")
    return dict(pairs)


def _cut_files(content: bytearray) -> dict[str, bytearray]:
    """Takes the strings of `FILES` out of JSON, so that no parser copies them as wide text.

    Args:
        content: The JSON; each string that was taken out is empty afterwards.
    """
    cut: dict[str, bytearray] = {}
    for name in FILES:
        match = re.search(rb'"%s"\s*:\s*"' % name.encode(), content)
        if match is None:
            continue
        start = match.end()
        end = content.find(b'"', start)
        cut[name] = content[start : len(content) if end < 0 else end]
        del match  # it holds the buffer, which could not shrink
        del content[start : start + len(cut[name])]
    return cut


def _decode_base64(encoded: bytearray, name: str) -> bytes:
    """Decodes base64, with blanks and JSON's escapes of blanks and slashes, or a `data:` URL."""
    code = f"invalid_{name}"
    if not encoded.isascii():
        raise RequestError(400, code, f"{name}: it is not base64: it has other characters")
    for escape in (rb"\n", rb"\r", rb"\t"):
        if encoded.find(escape) >= 0:
            encoded = encoded.replace(escape, b"")
    if encoded.find(b"\\/") >= 0:
        encoded = encoded.replace(b"\\/", b"/")
    if encoded[:5].lower() == b"data:":
        comma = encoded.find(b",", 0, _LONGEST_HEADER)
        if comma < 0 or not encoded[:comma].lower().endswith(b";base64"):
            raise RequestError(400, code, f"{name}: a data: URL must be base64")
        del encoded[: comma + 1]
    encoded = encoded.translate(None, b" \t\n\r\v\f")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
    except binascii.Error as error:
        raise RequestError(400, code, f"{name}: it is not base64: {error}") from None


def _read(
    stream: BinaryIO, name: str, read: Callable[..., Any], max_pixels: int, **choice: Any
) -> tuple[Any, bytes]:
    """What an image file holds, and its bytes."""
    content = stream.read()
    code = f"invalid_{name}"
    if not content:
        raise RequestError(400, code, f"{name}: it is empty")
    # Each scan of a progressive JPEG may be a few bytes and goes over the whole image again.
    if content[:2] == b"\xff\xd8" and (scans := content.count(b"\xff\xda")) > _MOST_SCANS:
        raise RequestError(400, code, f"{name}: a JPEG of {scans} scans is not decoded")
    with _image_errors(code):
        return read(io.BytesIO(content), name=name, max_pixels=max_pixels, **choice), content


def _check_sides(photograph: images.Photograph, name: str) -> None:
    """Refuses a format that holds no image of this size."""
    longest = max(photograph.pixels.shape[:2])
    if longest > _LONGEST_SIDE.get(name, longest):
        raise RequestError(
            400,
            "invalid_option",
            f"{name} holds {_LONGEST_SIDE[name]} pixels a side and the image has {longest}; "
            "ask for png",
        )


def _check_transparency(alpha: np.ndarray | None, name: str) -> None:
    """Refuses a format that cannot hold what stays transparent."""
    if name == "jpeg" and alpha is not None and not (alpha == 255).all():
        raise RequestError(
            400, "invalid_option", "jpeg cannot hold the image's transparency; ask for png or webp"
        )


@contextlib.contextmanager
def _image_errors(code: str) -> Iterator[None]:
    try:
        yield
    except images.TooManyPixelsError as error:
        raise RequestError(413, "too_many_pixels", str(error)) from None
    except TooCostlyError as error:
        raise RequestError(413, "too_costly", str(error)) from None
    except images.ImageError as error:
        raise RequestError(400, code, str(error)) from None
