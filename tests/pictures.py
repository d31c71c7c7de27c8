"""Pictures, and the files that hold them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms


def picture(height=24, width=32, channels=3, seed=0):
    """A smooth picture with some texture, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([y * 5, x * 4, (x + y) * 3, 255 - y * 4], axis=-1)[..., :channels]
    return np.clip(base + rng.integers(0, 8, base.shape), 0, 255).astype(np.uint8)


def reread(content):
    return Image.open(io.BytesIO(content))


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(pixels, image_format="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, image_format, **options)
    return stream.getvalue()


def header_only_png(width, height):
    """A PNG of a few bytes that claims to be as large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return head + png_chunk(b"IDAT", zlib.compress(b""))
