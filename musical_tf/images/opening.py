"""Opens image files of the formats this project reads, within limits."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps

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

FORMATS = sorted(set(READABLE.values()))

# Tags of a TIFF that say how its pixels are stored, and tags that hold copies of the picture.
_STRUCTURAL_TAGS = (
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324),
    *(325, 330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, 33723, 34377, 34675),
)

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
) -> Iterator[Image.Image]:
    """Opens and decodes an image; whatever Pillow stumbles over becomes an `ImageError`.

    `refuse` looks at the image before it is decoded, and raises `ImageError` if it is not wanted.
    """
    with contextlib.ExitStack() as stack:
        try:
            # Opened here and not by Pillow: a missing file is not a damaged one.
            stream = source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(stream, formats=FORMATS))
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
            known = ", ".join(FORMATS)
            raise ImageError(f"{name}: it is not an image in a known format ({known})") from error
        except Image.DecompressionBombError as error:
            raise TooManyPixelsError(
                f"{name}: it has more pixels than the limit of {max_pixels}"
            ) from error
        except Exception as error:  # decoders raise whatever damage leads them to, SyntaxError too
            raise ImageError(f"{name}: it is damaged: {error}") from error
        yield image


def turn_upright(image: Image.Image) -> bytes | None:
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


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Cuts an image into strips of rows, of about `STRIP_PIXELS` pixels each."""
    step = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))
