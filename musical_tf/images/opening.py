"""Opens image files of the formats this project reads, within limits."""

import contextlib
import functools
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from musical_tf.files import open_regular
from musical_tf.image_formats import FORMATS

from . import bounds, depth, jpeg, png

# Tags of a TIFF that say how its pixels are stored, and tags that hold copies of the picture.
_STRUCTURAL_TAGS = (
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324),
    *(325, 330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675),
)

_RESTART = re.compile(rb"\xff([\xd0-\xd7])")  # between two parts of a JPEG, numbered modulo 8

STRIP_PIXELS = 2**20  # pixels that are converted at a time, so that no copies of all are needed


class ImageError(ValueError):
    """An image file that cannot be read, is not supported, or cannot be written as asked."""


class TooManyPixelsError(ImageError):
    """An image larger than the limit; it has not been decoded."""


@contextlib.contextmanager
def decoded(
    source: str | Path | BinaryIO,
    name: str,
    max_pixels: int,
    refuse: Callable[[Image.Image, str], None] | None = None,
    notes: list[str] | None = None,
) -> Iterator[Image.Image]:
    """Opens and decodes an image; whatever Pillow stumbles over becomes an `ImageError`.

    `refuse` looks at the image before it is decoded, and raises `ImageError` if it is not wanted.
    `notes` gets a sentence for everything in the file that is left out.
    """
    notes = [] if notes is None else notes
    content = read_content(source, name)
    with contextlib.ExitStack() as stack, damage_named(name, max_pixels):
        profile = bounds.png_profile(content) if content[:4] == b"\x89PNG" else None
        content, image_format = _checked(content, name, notes)
        image = stack.enter_context(_opened(content, image_format, name, max_pixels))
        if profile:
            image.info["icc_profile"] = profile
        if refuse is not None:
            refuse(image, name)
        if image_format == "JPEG" and not jpeg.has_end_marker(content):
            image = stack.enter_context(_without_end(content, name, notes))
        is_multiplied = image_format == "TIFF" and depth.is_multiplied(content)
        noise = _noise_below(image) if image_format == "PNG" else None
        image.load()
        if _may_lack_rows(image, noise) and not png.has_all_rows(content):
            raise ImageError(f"{name}: it is damaged: it ends before its last row")
        del content
        _bound_metadata(image, notes)
        _note_channels(image, is_multiplied, notes)
        yield image


def read_content(source: str | Path | BinaryIO, name: str) -> bytes:
    """The bytes of a file or stream.

    Raises `OSError` if it cannot be opened, `ImageError` if it is too large.
    """
    with contextlib.ExitStack() as stack:
        # Opened here and not by Pillow: a missing file is not a damaged one.
        stream = source if hasattr(source, "read") else stack.enter_context(open_regular(source))
        content = stream.read(bounds.MAX_BYTES + 1)
    if len(content) > bounds.MAX_BYTES:
        raise ImageError(f"{name}: an image file must have at most {bounds.MAX_BYTES} bytes")
    return content


def size_of(content: bytes) -> tuple[int, int]:
    """Width and height that a file's header says; (0, 0) where it says nothing."""
    try:
        content, image_format = _checked(content, "", [])
        return _header_size(content, image_format)
    except Exception:  # damage, or too large: the reader finds the words for it
        return 0, 0


@contextlib.contextmanager
def damage_named(name: str, max_pixels: int) -> Iterator[None]:
    """Turns what decoders raise into `ImageError`."""
    try:
        yield
    except (ImageError, FileNotFoundError, IsADirectoryError, PermissionError, MemoryError):
        raise
    except (bounds.BoundError, depth.DepthError) as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{name}: it is not an image in a known format ({', '.join(FORMATS)}), or its header "
            "is damaged"
        ) from error
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(
            f"{name}: it has more pixels than the limit of {max_pixels}"
        ) from error
    except Exception as error:  # decoders raise whatever damage leads them to, SyntaxError too
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name}: it is damaged: {reason}") from error


def _checked(content: bytes, name: str, notes: list[str]) -> tuple[bytes, str]:
    """A file's bytes as they may be decoded, and the format that they are in."""
    image_format = bounds.format_of_content(content)
    if image_format is None:
        if content[:2] in (b"P1", b"P2", b"P3"):
            raise ImageError(f"{name}: it is a plain PNM file; save it as a binary one (P4 to P6)")
        known = ", ".join(FORMATS)
        raise ImageError(f"{name}: it is not an image in a known format ({known})")
    if image_format == "HEIF" and not register_heif():
        raise ImageError(
            f"{name}: it is HEIC, which needs pillow-heif: pip install 'musical-tf[heif]'"
        )
    return bounds.bounded(content, image_format, notes), image_format


def _header_size(content: bytes, image_format: str) -> tuple[int, int]:
    """Width and height as the header says, without decoding."""
    if image_format == "PPM":
        header = bounds.pnm_header(content)
        return header.width, header.height
    if image_format == "TIFF":
        return bounds.tiff_size(content)
    with Image.open(io.BytesIO(content), formats=[image_format]) as image:
        return image.size


def _opened(content: bytes, image_format: str, name: str, max_pixels: int) -> Image.Image:
    """The image of a bounded file, not yet decoded, unless Pillow does not decode it right."""
    width, height = _header_size(content, image_format)
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: it has {width} x {height} pixels, more than the limit of {max_pixels}"
        )
    if image_format == "TIFF":
        depth.bits_of(content, image_format)  # raises for what is not read
    image = depth.open_image(content, image_format)
    try:
        return image or Image.open(io.BytesIO(content), formats=[image_format])
    except Image.UnidentifiedImageError as error:
        if image_format != "TIFF":
            raise
        raise ImageError(
            f"{name}: {depth.layout_of(content)} is not read: save it as PNG"
        ) from error


def _noise_below(image: Image.Image) -> np.ndarray:
    """Noise that an image has in its last pixels until they are decoded."""
    canvas = Image.new(image.mode, image.size)
    box = _last_box(image)
    part = canvas.crop(box)
    part.frombytes(os.urandom(len(part.tobytes())))
    canvas.paste(part, box)
    image.im = canvas.im
    return np.asarray(part)


def _may_lack_rows(image: Image.Image, noise: np.ndarray | None) -> bool:
    """Whether pixels of the last two rows are as they were: Pillow does not report missing rows.

    Of an interlaced file every other row, or pixel of a row, may be missing.
    """
    if noise is None:
        return False
    same = np.asarray(image.crop(_last_box(image))) == noise
    same = same.reshape(*same.shape[:2], -1).all(axis=2)
    return any(same[:, first::2].all(axis=1).any() for first in range(min(2, same.shape[1])))


def _last_box(image: Image.Image) -> tuple[int, int, int, int]:
    """The end of the last two rows of an image."""
    width, height = image.size
    return max(0, width - 64), max(0, height - 2), width, height


def _without_end(content: bytes, name: str, notes: list[str]) -> Image.Image:
    """A JPEG without its end marker, if no pixel is missing.

    A decoder reads beyond the last pixel only if it misses one. It reads zeros from a file that
    ends, so the pixels differ from those of the file followed by ones, or by the restart marker
    that comes next and ones.
    """
    content = content.rstrip(b"\xff")  # half a marker
    ones = bytes(range(254, 1, -1)) * 8
    last = [7, *(found[0] for found in _RESTART.findall(content))][-1]
    restart = bytes([0xFF, 0xD0 + (last + 1) % 8])
    whole, *others = (
        Image.open(io.BytesIO(content + tail + b"\xff\xd9"), formats=["JPEG"])
        for tail in (b"", ones, restart + ones)
    )
    for other in others:
        with other:
            if not jpeg.has_all_scans(content) or whole.tobytes() != other.tobytes():
                raise ImageError(f"{name}: it is damaged: it ends before its last pixel")
    notes.append("it ends without its end marker, and no pixel is missing")
    return whole


@functools.cache
def register_heif() -> bool:
    """Registers the HEIF decoder with Pillow; False if its package is missing."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


_EXTRA_SAMPLES = 338


def _bound_metadata(image: Image.Image, notes: list[str]) -> None:
    """Drops EXIF, XMP and profiles above the limits before anything parses them."""
    limits = {"icc_profile": bounds.MAX_PROFILE}
    limits |= dict.fromkeys(("xmp", "XML:com.adobe.xmp"), bounds.MAX_METADATA)
    for key, limit in limits.items():
        if len(image.info.get(key) or b"") > limit:
            what = "color profile" if key == "icc_profile" else "XMP"
            notes.append(f"its {what} was dropped: it has more than {limit} bytes")
            del image.info[key]
    # A JPEG's has been bounded: Pillow parses it while it opens the file.
    if image.format not in ("JPEG", "MPO") and isinstance(image.info.get("exif"), bytes):
        exif = bounds.bounded_exif(image.info.pop("exif"), notes)
        if exif is not None:
            image.info["exif"] = exif


def _note_channels(image: Image.Image, is_multiplied: bool, notes: list[str]) -> None:
    """Names the channels of a TIFF that are rounded, or left out: those of no known meaning."""
    has_alpha = image.mode.endswith("A")
    if is_multiplied and has_alpha and image.getchannel("A").getextrema() != (255, 255):
        notes.append("its colors were multiplied by its alpha: the division rounded them")
    tags = getattr(image, "tag_v2", {})  # none where this project has decoded the pixels itself
    lost = len(tags.get(_EXTRA_SAMPLES, ())) - has_alpha
    if lost > 0:
        notes.append(f"{lost} extra channel(s) were dropped: they are not marked as opacity")


def turn_upright(image: Image.Image) -> bytes | None:
    """Turns an image, in place, as its EXIF says, and returns the EXIF to write beside it.

    That is without previews and without what describes the file itself. EXIF so damaged that it
    cannot be read or written is dropped: cameras write such, and viewers show the picture anyway.
    """
    try:
        ImageOps.exif_transpose(image, in_place=True)
        exif = image.getexif()
        exif.bigtiff = False  # written back as such, the next reader does not expect it
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


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Cuts an image into strips of rows, of about `STRIP_PIXELS` pixels each."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
