"""Photographs and masks as files: what a file carries beside its colors survives the filling.

| in the file | what happens |
|---|---|
| RGB, RGBA | filled as they are; alpha is kept |
| gray, gray with alpha | filled in RGB, written as gray; known pixels keep their level exactly |
| palette (PNG, TIFF) | written in true color: a palette has no room for new colors |
| bilevel | written as gray, for the same reason |
| EXIF orientation | pixels are turned upright, and the tag is set to match |
| EXIF, ICC profile, resolution | kept; previews inside EXIF are dropped, they show what was there |
| PNG's gamma, primaries, sRGB | kept in a PNG without ICC profile |
| PNG's cICP | kept in a PNG |
| JPEG quality | the file's own quantization tables and subsampling are used again |
| WebP | written lossless, so that known pixels are not encoded a second time |
| AVIF | written with quality 90 and 4:4:4, known pixels change by what that loses |
| 16 bits a channel (PNG, TIFF, PPM) | filled in 8 bits, written with 16; known samples stay exact |
| 10 or 12 bits a channel in HEIC | the same, scaled to 16 bits |
| CMYK with a profile, Lab | converted to sRGB, with a note |
| CMYK without one, YCbCr, HSV | refused: the way to RGB and back would change known pixels |
| packed 12 bits, 32 bits or floating point a channel, JPEG of 12 bits | refused by name |
| TIFF with colors multiplied by alpha | divided, with a note: it rounds them |
| 10 or 12 bits a channel in AVIF | refused by name: Pillow decodes 8 of them |
| several frames or pages | refused: all but the first would be lost; previews are no pages |
| MPO, JPEG with a gain map | its first picture, as JPEG: the others show what was there |

Text chunks and XMP are not copied: they may describe, or even show, what has been removed.
"""

import functools
import io
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from musical_tf.image_formats import MAX_PIXELS, WRITABLE

from . import bounds, depth, png
from .opening import (
    ImageError,
    decoded,
    read_content,
    strips,
    turn_upright,
)

_MAX_DPI = 65535  # that a JPEG holds
_JPEG_SEGMENT = 65533  # bytes of EXIF that a JPEG holds
_LOSSLESS_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF")
_WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
_CONVERTED = {"CMYK": "CMYK", "LAB": "Lab"}
_WHY_REFUSED = {
    "CMYK": "CMYK: without a profile its colors are unknown; convert it to RGB",
    "YCbCr": "YCbCr: the way to RGB and back would change known pixels; convert it to RGB",
    "HSV": "HSV: the way to RGB and back would change known pixels; convert it to RGB",
    "I": "32-bit integer: the models work in 8 bits a channel; convert it to 8 bits",
    "F": "32-bit floating point: the models work in 8 bits a channel; convert it to 8 bits",
}


@dataclass(frozen=True)
class Photograph:
    """An image file's contents.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB, upright.
        alpha: `(H, W)` uint8, 255 = opaque; None if the file has none.
        grey: Whether the file is gray; then the three channels of `pixels` are equal.
        format: Pillow's name of the file's format.
        stored_size: Width and height in the file, before it was turned upright.
        icc_profile: The color profile, as it is.
        exif: EXIF with the orientation set to upright and without previews.
        encoding: What the file's format is to be told to write it the same way again.
        notes: Sentences about what in the file was not kept.
        samples: `(H, W, C)` uint16, upright, alpha last, of a file of 16 bits a channel; `pixels`
            are their upper bytes, None for a file of 8 bits.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    stored_size: tuple[int, int] = (0, 0)
    icc_profile: bytes | None = None
    exif: bytes | None = None
    encoding: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    samples: np.ndarray | None = None


def read_photograph(
    source: str | Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Photograph:
    """Reads an image file: a path, or a binary stream.

    `name` is for messages, the path by default. Larger images than `max_pixels` are refused before
    they are decoded.

    Raises:
        OSError: If the file cannot be opened.
        ImageError: If it is no image, is damaged, is too large, or is of a kind that is refused.
    """
    name = str(source) if name is None else name
    notes: list[str] = []
    content = read_content(source, name)
    refuse = functools.partial(_refuse_photograph, content)
    with decoded(io.BytesIO(content), name, max_pixels, refuse, notes) as image:
        encoding = _encoding_of(image, content)
        # An MPO is a JPEG with more pictures behind the first: depth maps, the other eye.
        image_format = "JPEG" if image.format == "MPO" else image.format or ""
        stored_size = image.size
        if image_format == "TIFF":  # Pillow has turned it by now
            stored_size = bounds.tiff_size(content)
        samples = depth.samples_of(content, image, image_format)
        del content
        exif = turn_upright(image)
        if samples is None:
            image, icc_profile = _in_rgb(image, name, notes)
            grey = image.mode in ("1", "L", "LA")
            pixels, alpha = _pixels_of(image, grey)
        else:
            icc_profile = image.info.get("icc_profile")
            grey = samples.shape[2] < 3
            pixels, alpha = _upper_bytes(samples)
        if image_format == "JPEG" and image.mode == "RGB" and len(encoding.get("qtables", ())) > 3:
            encoding = {"dpi": encoding["dpi"]} if "dpi" in encoding else {}
    return Photograph(
        pixels,
        alpha,
        grey,
        image_format,
        stored_size,
        icc_profile,
        exif,
        encoding,
        tuple(notes),
        samples,
    )


def _pixels_of(image: Image.Image, grey: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of an image of 8 bits."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    alpha = None
    if image.has_transparency_data:
        alpha = np.empty((image.height, image.width), np.uint8)
    for rows, strip in strips(image):
        if alpha is not None:
            strip = strip.convert("LA" if grey else "RGBA")
            alpha[rows] = np.asarray(strip.getchannel("A"))
        pixels[rows] = np.asarray(strip.convert("RGB"))
    return pixels, alpha


def _upper_bytes(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of samples of 16 bits."""
    upper = (samples >> 8).astype(np.uint8)
    alpha = np.ascontiguousarray(upper[..., -1]) if upper.shape[2] in (2, 4) else None
    colors = upper[..., :3] if upper.shape[2] > 2 else upper[..., :1].repeat(3, axis=2)
    return np.ascontiguousarray(colors), alpha


def _in_rgb(image: Image.Image, name: str, notes: list[str]) -> tuple[Image.Image, bytes | None]:
    """The image, converted through its profile if it is CMYK or Lab, and its profile."""
    profile = image.info.get("icc_profile")
    if image.mode not in _CONVERTED:
        return image, profile
    from PIL import ImageCms  # few photographs need it

    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    what = _CONVERTED[image.mode]
    try:
        source = (
            ImageCms.createProfile("LAB")
            if image.mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        )
        image = ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (OSError, ImageCms.PyCMSError) as error:
        raise ImageError(
            f"{name}: its profile does not convert {what} to RGB: {error}; convert it to RGB"
        ) from error
    notes.append(f"it was converted from {what} to sRGB")
    written = target.tobytes()
    return image, written[:24] + bytes(12) + written[36:]  # without the time of day


def encode_photograph(
    photograph: Photograph,
    pixels: np.ndarray,
    image_format: str | None = None,
    alpha: np.ndarray | None = None,
    quality: int | None = None,
    hole: np.ndarray | None = None,
) -> bytes:
    """Encodes new pixels with everything else that the photograph's file carried.

    Args:
        photograph: Where the rest comes from.
        pixels: `(H, W, 3)` uint8 RGB. For a gray photograph the filled pixels are made gray.
        image_format: One of the values of `WRITABLE`; the photograph's own by default, and PNG in
            place of one that is not written.
        alpha: `(H, W)` uint8 in place of the photograph's own.
        quality: 1 to 100 for JPEG, WebP and AVIF, which other formats ignore. By default a JPEG's
            own tables or 95, WebP without loss, AVIF 90.
        hole: `(H, W)` bool, the pixels that are new, for 16 bits; by default those that differ.

    Raises:
        ImageError: If the format cannot hold the image's transparency.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, got {quality}")
    if image_format is None:
        written = photograph.format in WRITABLE.values()
        image_format = photograph.format if written else "PNG"
    alpha = _writable_alpha(photograph.alpha if alpha is None else alpha, image_format)
    image = Image.fromarray(pixels)
    if photograph.grey:
        image = image.convert("L")
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    options = _encoder_options(photograph, image_format, quality)
    deep = None
    if photograph.samples is not None and image_format in depth.DEEP_FORMATS:
        deep = _deep_samples(photograph, image, alpha, hole)
    # Encoders raise whatever a damaged tag or profile leads them to.
    for dropped in ("", "exif", "icc_profile"):
        options.pop(dropped, None)
        try:
            if deep is not None:
                return depth.encode(deep, image_format, options)
            stream = io.BytesIO()
            image.save(stream, image_format, **options)
            return stream.getvalue()
        except MemoryError:
            raise
        except Exception as error:
            failure = error
    raise ImageError(f"it cannot be written as {image_format}: {failure}") from failure


def _writable_alpha(alpha: np.ndarray | None, image_format: str) -> np.ndarray | None:
    """The alpha that a format is to hold: None if it holds none and nothing is transparent."""
    if alpha is None or image_format in _WITH_ALPHA:
        return alpha
    if not (alpha == 255).all():
        raise ImageError(
            f"{image_format} cannot hold transparency; write one of {', '.join(_WITH_ALPHA)}"
        )
    return None


def _encoder_options(
    photograph: Photograph, image_format: str, quality: int | None
) -> dict[str, Any]:
    """What Pillow's encoder is told: metadata, how much may be lost, how to compress."""
    options: dict[str, Any] = {}
    if image_format in _WITH_EXIF:
        kept = {"icc_profile": photograph.icc_profile, "exif": photograph.exif}
        options |= {key: value for key, value in kept.items() if value}
    if image_format == photograph.format:
        options |= photograph.encoding
    options |= _quality_options(image_format, quality, "qtables" in options)
    if image_format == "PNG":  # what this level saves in time is a multiple, in size a few percent
        options["compress_level"] = 4
    if image_format == "TIFF":
        options.setdefault("compression", "tiff_adobe_deflate")
        if "exif" in options and _has_directories(options["exif"]):
            options["compression"] = "raw"  # Pillow's compressed TIFFs lose them
    if "dpi" in photograph.encoding and image_format in ("PNG", "JPEG", "TIFF", "BMP"):
        options["dpi"] = photograph.encoding["dpi"]
    if image_format == "JPEG" and len(options.get("exif", b"")) > _JPEG_SEGMENT:
        del options["exif"]  # see `lost_in`
    return options


def _deep_samples(
    photograph: Photograph, image: Image.Image, alpha: np.ndarray | None, hole: np.ndarray | None
) -> np.ndarray:
    """The photograph's samples with new ones in the hole, 8 bits spread over 16."""
    samples = np.array(photograph.samples)
    colors = 1 if photograph.grey else 3
    new = np.asarray(image).reshape(*samples.shape[:2], -1)
    if hole is None:
        hole = (new[..., :colors] != samples[..., :colors] >> 8).any(axis=2)
    samples[hole, :colors] = new[hole][:, :colors] * np.uint16(257)
    if alpha is None:
        return np.ascontiguousarray(samples[..., :colors])
    changed = alpha != samples[..., -1] >> 8
    samples[changed, -1] = alpha[changed] * np.uint16(257)
    return samples


def _quality_options(image_format: str, quality: int | None, has_tables: bool) -> dict[str, Any]:
    """What tells the encoder of a format how much it may lose."""
    if image_format == "JPEG":
        if quality is not None:
            return {"quality": quality, "qtables": None}
        return {} if has_tables else {"quality": 95, "subsampling": 0}
    if image_format == "WEBP":
        # Lossless with the lowest effort: what is lost is a few percent of the size.
        lossless = quality is None
        return {"lossless": lossless, "exact": True, "quality": 25 if lossless else quality}
    if image_format == "AVIF":
        return {"quality": quality or 90, "subsampling": "4:4:4", "speed": 8}
    return {}


def _has_directories(content: bytes) -> bool:
    exif = Image.Exif()
    exif.load(content)
    return any(directory in exif for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo))


def format_of(path: str | Path) -> str:
    """The format a file of this name is written in; `ImageError` if it is not written."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise ImageError(
            f"{path}: the suffix of an output must be one of {' '.join(WRITABLE)}, got {suffix!r}"
        )
    return WRITABLE[suffix]


def _refuse_photograph(content: bytes, image: Image.Image, name: str) -> None:
    """Raises `ImageError` for a photograph that could not be written back as it came."""
    if image.format == "TIFF":
        if reason := bounds.lost_pages(content):
            raise ImageError(f"{name}: {reason}")
    # Asked, and not counted: a small file may hold so many frames that this takes minutes.
    elif getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(f"{name}: {bounds.SEVERAL_FRAMES}")
    if image.mode == "CMYK" and image.info.get("icc_profile"):
        return
    bits = depth.bits_of(content, image.format or "")
    if image.format == "AVIF" and bits > 8:
        raise ImageError(
            f"{name}: it must have 8 bits a channel in AVIF, got {bits}; save it as a 16-bit PNG"
        )
    if image.mode in _WHY_REFUSED and bits <= 8:
        raise ImageError(f"{name}: it is {_WHY_REFUSED[image.mode]}")


def _encoding_of(image: Image.Image, content: bytes) -> dict[str, Any]:
    """The options that make Pillow write the image's format the way this file was written."""
    options: dict[str, Any] = {}
    dpi = image.info.get("dpi")
    if dpi and all(0 < float(value) <= _MAX_DPI for value in dpi):
        options["dpi"] = tuple(float(value) for value in dpi)
    if image.format in ("JPEG", "MPO"):
        if tables := _tables_of(image):
            options["qtables"] = tables
        options["subsampling"] = JpegImagePlugin.get_sampling(image)
        options["progressive"] = "progressive" in image.info
    if image.format == "TIFF" and image.info.get("compression") in _LOSSLESS_TIFF:
        options["compression"] = image.info["compression"]
    if image.format == "PNG" and (chunks := _color_chunks(image, content)):
        options["pnginfo"] = chunks
    return options


def _tables_of(image: Any) -> list[list[int]]:
    """The quantization tables in the order of the components that use them.

    A file may give them any numbers; Pillow writes them from number 0. A lossless file has none.
    """
    if not image.quantization:
        return []
    numbers = [component[3] for component in image.layer]
    while len(numbers) > 1 and numbers[-1] == numbers[-2]:
        numbers.pop()
    return [list(image.quantization[number]) for number in numbers]


def _color_chunks(image: Image.Image, content: bytes) -> PngImagePlugin.PngInfo | None:
    """The chunks by which a PNG says what its numbers mean as colors, beside its ICC profile."""
    chunks = {}
    for kind, start, length in png.chunks(content):
        if kind == b"cICP" and length == 4:  # has precedence over a profile
            chunks[kind] = content[start : start + length]
        if kind == b"IDAT":
            break
    if "icc_profile" not in image.info:
        if "gamma" in image.info:
            chunks[b"gAMA"] = struct.pack(">I", round(image.info["gamma"] * 100000))
        if len(image.info.get("chromaticity", ())) == 8:
            primaries = (round(value * 100000) for value in image.info["chromaticity"])
            chunks[b"cHRM"] = struct.pack(">8I", *primaries)
        if "srgb" in image.info:
            chunks[b"sRGB"] = bytes([image.info["srgb"]])
    if not chunks:
        return None
    info = PngImagePlugin.PngInfo()
    for kind, data in chunks.items():
        info.add(kind, data)
    return info


def lost_in(photograph: Photograph, image_format: str) -> tuple[str, ...]:
    """Sentences about what a format cannot hold of a photograph's metadata and depth."""
    lost = []
    if photograph.samples is not None and image_format not in depth.DEEP_FORMATS:
        lost.append(f"its 16 bits a channel become 8: {image_format} has no more")
    exif_size = len(photograph.exif or b"")
    if image_format == "JPEG" and exif_size > _JPEG_SEGMENT:
        lost.append(
            f"its EXIF of {exif_size} bytes was dropped: a JPEG holds {_JPEG_SEGMENT}; "
            "write a PNG to keep it"
        )
    kept = photograph.encoding.get("pnginfo")
    if image_format != "PNG" and kept and any(chunk[0] == b"cICP" for chunk in kept.chunks):
        lost.append(f"its color space (cICP) was dropped: {image_format} does not hold it")
    return tuple(lost)
