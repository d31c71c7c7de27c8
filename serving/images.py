"""Photographs and masks as files: what a file carries beside its colours survives the filling.

| in the file | what happens |
|---|---|
| RGB, RGBA | filled as they are; alpha is kept |
| grey, grey with alpha | filled in RGB, written as grey; known pixels keep their level exactly |
| palette (PNG, GIF, TIFF) | written in true colour: a palette has no room for new colours |
| bilevel | written as grey, for the same reason |
| EXIF orientation | pixels are turned upright, and the tag is set to match |
| EXIF, ICC profile, resolution | kept; previews inside EXIF are dropped, they show what was there |
| PNG's gamma, primaries, sRGB | kept in a PNG without ICC profile |
| JPEG quality | the file's own quantization tables and subsampling are used again |
| WebP | written lossless, so that known pixels are not encoded a second time |
| CMYK, Lab, YCbCr, HSV | refused: the way to RGB and back would change known pixels |
| 16 or 32 bits a channel | refused: the models work in 8 bits |
| several frames or pages | refused: all but the first would be lost |
| MPO, JPEG with a gain map | its first picture, as JPEG: the others show what was there |

Text chunks and XMP are not copied: they may describe, or even show, what has been removed.
"""

import contextlib
import io
import math
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, PngImagePlugin

MAX_PIXELS = 89_478_485
"""Largest image that is decoded by default: Pillow's own limit against decompression bombs."""

READABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".gif": "GIF",
}
"""Suffix -> format. Pillow knows more, among them formats that start other programs to decode."""

WRITABLE = {suffix: name for suffix, name in READABLE.items() if name != "GIF"}
"""GIF is a palette format: it cannot hold the filled pixels without changing known ones."""

POLARITIES = ("white", "black")

_FORMATS = sorted(set(READABLE.values()))
_LOSSLESS_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
_WITH_ALPHA = ("PNG", "WEBP", "TIFF")
_WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF")
_WHY_REFUSED = {
    "CMYK": "CMYK: the way to RGB and back would change known pixels; convert it to RGB",
    "YCbCr": "YCbCr: the way to RGB and back would change known pixels; convert it to RGB",
    "LAB": "Lab: the way to RGB and back would change known pixels; convert it to RGB",
    "HSV": "HSV: the way to RGB and back would change known pixels; convert it to RGB",
    "I": "32-bit integer: the models work in 8 bits a channel; convert it to 8 bits",
    "F": "32-bit floating point: the models work in 8 bits a channel; convert it to 8 bits",
}
# Tags of a TIFF that say how its pixels are stored, and tags that hold copies of the picture.
_STRUCTURAL_TAGS = (
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324),
    *(325, 330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675),
)


_STRIP_PIXELS = 2**20  # pixels that are converted at a time, so that no copies of all are needed


class ImageError(ValueError):
    """An image file that cannot be read, is not supported, or cannot be written as asked."""


class TooManyPixelsError(ImageError):
    """An image larger than the limit; it has not been decoded."""


@dataclass(frozen=True)
class Photograph:
    """An image file's contents.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, upright.
        alpha: `(H, W)` uint8, 255 = opaque; None if the file has none.
        grey: Whether the file is grey; then the three channels of `pixels` are equal.
        format: Pillow's name of the file's format.
        stored_size: Width and height in the file, before it was turned upright.
        icc_profile: The colour profile, as it is.
        exif: EXIF with the orientation set to upright and without previews.
        encoding: What the file's format is to be told to write it the same way again.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    stored_size: tuple[int, int] = (0, 0)
    icc_profile: bytes | None = None
    exif: bytes | None = None
    encoding: dict[str, Any] = field(default_factory=dict)


def read_photograph(
    source: str | Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Photograph:
    """Reads an image file.

    Args:
        source: A path, or a binary stream.
        name: What to call it in messages; the path by default.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        OSError: If the file cannot be opened.
        ImageError: If it is no image, is damaged, is too large, or is of a kind that is refused.
    """
    name = str(source) if name is None else name
    with _decoded(source, name, max_pixels, _refuse_photograph) as image:
        encoding = _encoding_of(image)
        # An MPO is a JPEG with more pictures behind the first: depth maps, the other eye.
        image_format = "JPEG" if image.format == "MPO" else image.format
        icc_profile = image.info.get("icc_profile")
        stored_size = image.size
        if image.format == "TIFF":  # Pillow has turned it by now
            stored_size = image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[257]
        exif = _turn_upright(image)
        grey = image.mode in ("1", "L", "LA")
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        alpha = None
        if image.has_transparency_data:
            alpha = np.empty((image.height, image.width), np.uint8)
        for rows, strip in _strips(image):
            if alpha is not None:
                strip = strip.convert("LA" if grey else "RGBA")
                alpha[rows] = np.asarray(strip.getchannel("A"))
            pixels[rows] = np.asarray(strip.convert("RGB"))
    return Photograph(pixels, alpha, grey, image_format, stored_size, icc_profile, exif, encoding)


def encode_photograph(
    photograph: Photograph,
    pixels: np.ndarray,
    image_format: str | None = None,
    alpha: np.ndarray | None = None,
) -> bytes:
    """Encodes new pixels with everything else that the photograph's file carried.

    Args:
        photograph: Where the rest comes from.
        pixels: `(H, W, 3)` uint8 RGB. For a grey photograph the filled pixels are made grey.
        image_format: "PNG", "JPEG", "WEBP", "TIFF", "BMP" or "PPM"; the photograph's own by
            default, and PNG in place of GIF.
        alpha: `(H, W)` uint8 in place of the photograph's own.

    Raises:
        ImageError: If the format cannot hold the image's transparency.
    """
    if image_format is None:
        image_format = "PNG" if photograph.format == "GIF" else photograph.format
    alpha = photograph.alpha if alpha is None else alpha
    if alpha is not None and image_format not in _WITH_ALPHA:
        if not (alpha == 255).all():
            raise ImageError(
                f"{image_format} cannot hold transparency; write one of {', '.join(_WITH_ALPHA)}"
            )
        alpha = None  # nothing is transparent
    image = Image.fromarray(pixels)
    if photograph.grey:
        image = image.convert("L")
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    options: dict[str, Any] = {}
    if photograph.icc_profile and image_format in _WITH_EXIF:
        options["icc_profile"] = photograph.icc_profile
    if photograph.exif and image_format in _WITH_EXIF:
        options["exif"] = photograph.exif
    if image_format == photograph.format:
        options |= photograph.encoding
    elif image_format == "JPEG":
        options |= {"quality": 95, "subsampling": 0}
    # What these levels save in time is a multiple, what they cost in size a few percent.
    if image_format == "PNG":
        options["compress_level"] = 4
    if image_format == "WEBP":
        options |= {"lossless": True, "exact": True, "quality": 25}
    if image_format == "TIFF":
        options.setdefault("compression", "tiff_adobe_deflate")
        if "exif" in options and _has_directories(options["exif"]):
            options["compression"] = "raw"  # Pillow's compressed TIFFs lose them
    if "dpi" in photograph.encoding and image_format in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = photograph.encoding["dpi"]
    # Encoders raise whatever a damaged tag or profile leads them to.
    for dropped in (None, "exif", "icc_profile"):
        options.pop(dropped, None)
        try:
            stream = io.BytesIO()
            image.save(stream, image_format, **options)
            return stream.getvalue()
        except MemoryError:
            raise
        except Exception as error:
            failure = error
    raise ImageError(f"it cannot be written as {image_format}: {failure}") from failure


def _has_directories(content: bytes) -> bool:
    exif = Image.Exif()
    exif.load(content)
    return any(directory in exif for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))


def format_of(path: str | Path) -> str:
    """The format a file of this name is written in.

    Raises:
        ImageError: If the suffix is unknown or names a format that is not written; lists those that
            are.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        why = (
            "GIF cannot hold filled pixels without changing known ones"
            if suffix == ".gif"
            else f"unknown output format {suffix!r}"
        )
        raise ImageError(f"{path}: {why}; write one of {' '.join(WRITABLE)}")
    return WRITABLE[suffix]


def read_mask(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    polarity: str = "white",
    threshold: int = 127,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a mask from an image file.

    A pixel's value is its brightest channel, so that strokes of any bright colour count. A
    transparent pixel is never hole. EXIF orientation is honoured.

    Args:
        source: A path, or a binary stream.
        name: What to call it in messages; the path by default.
        polarity: "white": values above the threshold are hole. "black": values up to it are.
        threshold: 0 to 255.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        OSError: If the file cannot be opened.
        ImageError: If it is no image, is damaged or too large, or holds only the values 0 and 1.
    """
    name = str(source) if name is None else name
    with _decoded(source, name, max_pixels) as image:
        _turn_upright(image)
        # What a PPM file has 16 bits of, Pillow opens as 32.
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            raise ImageError(f"{name}: a mask must have 8 or 16 bits a channel, it has 32")
        values = np.empty((image.height, image.width), np.uint8)
        for rows, strip in _strips(image):
            values[rows] = _brightest(strip, 0 if polarity == "white" else 255)
    if threshold > 0 and values.max() == 1:
        raise ImageError(
            f"{name}: it holds only the values 0 and 1, so nothing in it is above {threshold}; "
            "save masks as 0 and 255, or set the threshold to 0"
        )
    return threshold_mask(values, polarity, threshold)


def alpha_mask(
    photograph: Photograph, *, polarity: str = "white", threshold: int = 127
) -> np.ndarray:
    """Takes the mask from a photograph's transparency.

    Args:
        photograph: A photograph with alpha.
        polarity: "white": transparent pixels are hole. "black": opaque ones are.
        threshold: 0 to 255, compared with 255 - alpha.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        ImageError: If the photograph has no alpha.
    """
    if photograph.alpha is None:
        raise ImageError("it has no alpha channel to take the mask from")
    return threshold_mask(255 - photograph.alpha, polarity, threshold)


def threshold_mask(values: np.ndarray, polarity: str = "white", threshold: int = 127) -> np.ndarray:
    """Turns grey levels into a hole.

    Args:
        values: `(H, W)` uint8.
        polarity: "white": values above the threshold are hole. "black": values up to it are.
        threshold: 0 to 255.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        ValueError: On an unknown polarity or a threshold outside [0, 255].
    """
    if polarity not in POLARITIES:
        raise ValueError(f"unknown polarity {polarity!r}; valid: {', '.join(POLARITIES)}")
    if not 0 <= threshold <= 255:
        raise ValueError(f"threshold must be within 0 and 255, got {threshold}")
    return values > threshold if polarity == "white" else values <= threshold


def dilate(hole: np.ndarray, radius: int) -> np.ndarray:
    """Grows a hole by a disc: a pixel becomes hole if a hole pixel is within `radius` of it.

    Args:
        hole: `(H, W)` bool.
        radius: Pixels, >= 0.

    Returns:
        `(H, W)` bool, a new array.

    Raises:
        ValueError: On a negative radius.
    """
    if radius < 0:
        raise ValueError(f"dilation must be 0 pixels or more, got {radius}")
    grown = hole.copy()
    if radius == 0 or not hole.any():
        return grown
    # Only the hole's surroundings change; on a large photograph that is most of the work saved.
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    top, left = max(0, rows[0] - radius), max(0, columns[0] - radius)
    near = (
        slice(top, rows[-1] + radius + 1),
        slice(left, columns[-1] + radius + 1),
    )
    part, target = hole[near], grown[near]
    height, width = part.shape
    step = max(radius, _STRIP_PIXELS // width)
    for start in range(0, height, step):
        end, above, below = (
            min(start + step, height),
            max(0, start - radius),
            min(start + step + radius, height),
        )
        distance = _distance_in_column(part[above:below], radius)[start - above : end - above]
        strip = target[start:end]
        for shift in range(min(radius, width - 1) + 1):
            close = distance <= math.isqrt(radius * radius - shift * shift)
            strip[:, shift:] |= close[:, : width - shift]
            strip[:, : width - shift] |= close[:, shift:]
    return grown


def _distance_in_column(hole: np.ndarray, limit: int) -> np.ndarray:
    """Rows from each pixel to the nearest hole pixel above or below, `limit + 1` if further."""
    distance = np.where(hole, 0, limit + 1).astype(np.uint8 if limit < 254 else np.uint16)
    for rows in (distance, distance[::-1]):
        for row, before in zip(rows[1:], rows[:-1], strict=True):
            np.minimum(row, before + 1, out=row)
    return distance


def check_sizes(photograph: Photograph, hole: np.ndarray, name: str) -> None:
    """Refuses a mask of another size than its photograph.

    Raises:
        ImageError: With both sizes, and the reason where an EXIF rotation explains the difference.
    """
    height, width = photograph.pixels.shape[:2]
    if hole.shape == (height, width):
        return
    message = (
        f"{name}: the mask is {hole.shape[1]} x {hole.shape[0]} pixels and the image is "
        f"{width} x {height}"
    )
    if photograph.stored_size == (hole.shape[1], hole.shape[0]):
        message += (
            "; the image is stored lying on its side with an EXIF rotation, and the mask must "
            "match it as it is shown"
        )
    raise ImageError(message)


def fit_mask(hole: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales a hole to an image of the same shape and another size.

    What the hole touches stays hole: where it shrinks, a pixel is hole if any part of it was.

    Args:
        hole: `(h, w)` bool.
        height: Pixels, > 0.
        width: Pixels, > 0.

    Returns:
        `(height, width)` bool; `hole` itself if it fits already.

    Raises:
        ImageError: If the sides' ratios differ by more than rounding explains.
    """
    if hole.shape == (height, width):
        return hole
    rounding = (height + width + sum(hole.shape)) / 2  # half a pixel of every side
    if abs(hole.shape[0] * width - hole.shape[1] * height) > rounding:
        raise ImageError(
            f"a mask of {hole.shape[1]} x {hole.shape[0]} pixels has another shape than an image "
            f"of {width} x {height}, so it cannot be scaled to it"
        )
    mask = Image.fromarray(hole.astype(np.float32))  # eight bits would round a speck away
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX)) > 0


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary sibling, which then takes its name.

    Raises:
        OSError: If the folder cannot be written or the disk is full; nothing is left behind.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as stream:
            stream.write(content)
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):  # name the file the user knows, not the temporary one
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextlib.contextmanager
def _decoded(
    source: str | Path | BinaryIO,
    name: str,
    max_pixels: int,
    refuse: Callable[[Image.Image, str], None] | None = None,
) -> Iterator[Image.Image]:
    """Opens and decodes an image; whatever Pillow stumbles over becomes an `ImageError`.

    `refuse` looks at the image before it is decoded, and raises `ImageError` if it is not wanted.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Opened here and not by Pillow: a missing file is not a damaged one.
            stream = source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(stream, formats=_FORMATS))
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    f"{name}: it has {image.width} x {image.height} pixels, "
                    f"more than the limit of {max_pixels}"
                )
            if refuse is not None:
                refuse(image, name)
            image.load()
        except (ImageError, FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
            raise
        except Image.UnidentifiedImageError as error:
            known = ", ".join(_FORMATS)
            raise ImageError(f"{name}: it is not an image in a known format ({known})") from error
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError(
                f"{name}: it has more pixels than the limit of {max_pixels}"
            ) from error
        except Exception as error:  # decoders raise whatever damage leads them to, SyntaxError too
            raise ImageError(f"{name}: it is damaged: {error}") from error
        yield image


def _refuse_photograph(image: Image.Image, name: str) -> None:
    """Raises `ImageError` for a photograph that could not be written back as it came."""
    # Asked, and not counted: a small file may hold so many frames that this takes minutes.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(
            f"{name}: it has several frames, and all but the first would be lost; "
            "save the one you want as a file of its own"
        )
    # Pillow opens 16-bit colour as 8-bit without a word; only the decoder's arguments tell.
    for tile in image.tile:
        for argument in tile.args if isinstance(tile.args, tuple) else (tile.args,):
            if (isinstance(argument, str) and ";16" in argument) or (
                tile.codec_name.startswith("ppm") and isinstance(argument, int) and argument > 255
            ):
                raise ImageError(
                    f"{name}: it has 16 bits a channel: the models work in 8; convert it to 8 bits"
                )
    if image.mode in _WHY_REFUSED:
        raise ImageError(f"{name}: it is {_WHY_REFUSED[image.mode]}")


def _encoding_of(image: Image.Image) -> dict[str, Any]:
    """The options that make Pillow write the image's format the way this file was written."""
    options: dict[str, Any] = {}
    dpi = image.info.get("dpi")
    if dpi and all(np.isfinite(float(value)) and value > 0 for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if image.format in ("JPEG", "MPO"):
        options["qtables"] = image.quantization
        options["subsampling"] = JpegImagePlugin.get_sampling(image)
        options["progressive"] = "progressive" in image.info
    if image.format == "TIFF" and image.info.get("compression") in _LOSSLESS_TIFF:
        options["compression"] = image.info["compression"]
    if image.format == "PNG" and (chunks := _colour_chunks(image)):
        options["pnginfo"] = chunks
    return options


def _colour_chunks(image: Image.Image) -> PngImagePlugin.PngInfo | None:
    """The chunks by which a PNG without ICC profile says what its numbers mean as colours."""
    chunks = {}
    if "gamma" in image.info:
        chunks[b"gAMA"] = struct.pack(">I", round(image.info["gamma"] * 100000))
    if len(image.info.get("chromaticity", ())) == 8:
        primaries = (round(value * 100000) for value in image.info["chromaticity"])
        chunks[b"cHRM"] = struct.pack(">8I", *primaries)
    if "srgb" in image.info:
        chunks[b"sRGB"] = bytes([image.info["srgb"]])
    if not chunks or "icc_profile" in image.info:
        return None
    info = PngImagePlugin.PngInfo()
    for kind, content in chunks.items():
        info.add(kind, content)
    return info


def _turn_upright(image: Image.Image) -> bytes | None:
    """Turns an image, in place, as its EXIF says, and returns the EXIF to write beside it.

    That is without previews and without what describes the file itself. EXIF so damaged that it
    cannot be read or written is dropped: cameras write such, and viewers show the picture anyway.
    """
    try:
        ImageOps.exif_transpose(image, in_place=True)
        exif = image.getexif()
        for tag in _STRUCTURAL_TAGS:
            exif.pop(tag, None)
        if not len(exif):
            return None
        exif[ExifTags.Base.Orientation] = 1
        # Asked for where there is none, an empty directory would be made and written.
        details = exif.get_ifd(ExifTags.IFD.Exif) if ExifTags.IFD.Exif in exif else {}
        if ExifTags.Base.ExifImageWidth in details:
            details[ExifTags.Base.ExifImageWidth] = image.width
            details[ExifTags.Base.ExifImageHeight] = image.height
        return exif.tobytes()
    except MemoryError:
        raise
    except Exception:  # the parser raises whatever damage leads it to, SyntaxError among others
        return None


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Cuts an image into strips of rows, of about `_STRIP_PIXELS` pixels each."""
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _brightest(image: Image.Image, background: int) -> np.ndarray:
    """The brightest channel of every pixel, uint8; what is transparent shows the background."""
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        flat = Image.new("RGBA", layers.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(flat, layers)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB")).max(axis=2)
