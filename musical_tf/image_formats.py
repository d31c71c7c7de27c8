"""Formats and limits of image files, and the parts of a mask. Standard library only.

Command lines show these in `--help`, which need not wait for NumPy and Pillow.
"""

from typing import Literal, get_args

MAX_PIXELS = 89_478_485
"""Largest image that is decoded by default: Pillow's own limit against decompression bombs."""

_SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg .jpeg .jpe .jfif .pjpeg .pjp .mpo",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "BMP": ".bmp .dib",
    "PPM": ".ppm .pgm .pbm .pnm",
    "AVIF": ".avif",
    "HEIF": ".heic .heif .hif",
}
READABLE = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
"""Suffix -> format. Pillow knows more, among them formats that start other programs to decode."""

WRITABLE = {
    suffix: name for suffix, name in READABLE.items() if suffix != ".pbm" and name != "HEIF"
}
"""Suffix -> format of the outputs. A bilevel PBM has no room for filled pixels."""

FORMATS = sorted(set(READABLE.values()))

Polarity = Literal["white", "black", "clear"]
POLARITIES: tuple[str, ...] = get_args(Polarity)
"""The parts of a mask that may be the hole."""
