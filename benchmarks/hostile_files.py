"""Files that cost a careless decoder minutes of processor time or gigabytes of memory."""

import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"


def requests(photograph: bytes, mask: bytes) -> dict[str, dict[str, bytes]]:
    """Hostile and damaged requests by kind, the fields of a form, from a good PNG and its mask."""
    broken = {
        "plain PBM, comments": b"P1 400 400\n" + b"#\n0" * 2**20,
        "plain PPM, comments": b"P3 400 400 255\n" + b"#\n9 " * 2**19,
        "PNG, EXIF tag of a huge count": _with_chunk(photograph, b"eXIf", _exif(4 * 2**20)),
        "PNG, colour profile that unpacks to 256 MB": _with_chunk(
            photograph, b"iCCP", b"icc\0\0" + _deflated_zeros(2**28)
        ),
        "PNG, 49 megapixels in 150 kB": _png(7000, 7000, _deflated_zeros(7000 * 21001)),
        "PNG, 400 megapixels in its header": _png(20000, 20000, zlib.compress(b"")),
        "TIFF of a million strips": _tiff(2**20),
        "BMP, run-length of single pixels": _bmp(4000, 4000, b"\1\0" * 2**20),
        "truncated PNG": photograph[: len(photograph) // 2],
        "no image": np.random.default_rng(0).bytes(100_000),
        "GIF of 2000 frames": _gif(2000),
    }
    forms = {name: {"image": content, "mask": mask} for name, content in broken.items()}
    forms["plain PBM, comments, as the mask"] = {
        "image": photograph,
        "mask": broken["plain PBM, comments"],
    }
    return forms


def json_with_blanks(photograph: bytes, mask: bytes, megabytes: int) -> bytes:
    """A JSON body whose base64 is mostly blanks."""
    text = base64.b64encode(photograph).decode()
    blanks = " " * (megabytes * 2**20 // len(text))
    body = {"image": blanks.join(text), "mask": base64.b64encode(mask).decode()}
    return json.dumps(body).encode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def _with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    end_of_header = len(_PNG) + 25
    return png[:end_of_header] + _chunk(kind, content) + png[end_of_header:]


def _png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _deflated_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    content = b"".join(packer.compress(bytes(2**20)) for _ in range(count >> 20))
    return content + packer.compress(bytes(count & (2**20 - 1))) + packer.flush()


def _exif(count: int) -> bytes:
    """A directory of one tag of `count` numbers of two bytes."""
    entry = struct.pack("<HHHII", 1, 33434, 3, count, 26)
    return b"II*\0\x08\0\0\0" + entry + bytes(4) + b"\1\0" * count


def _tiff(strips: int) -> bytes:
    """A grey TIFF of one row a strip, 16 pixels wide."""
    tags = [
        (256, 4, 1, 16),
        (257, 4, 1, strips),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, strips, 8 + 2 + 9 * 12 + 4 + 4 * strips),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    offsets = struct.pack("<I", 8) * strips
    sizes = struct.pack("<I", 16) * strips
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + bytes(4) + offsets + sizes
    )


def _bmp(width: int, height: int, pixels: bytes) -> bytes:
    """A BMP of 256 greys, run-length encoded."""
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 1, 1, 256, 0)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return head + header + palette + pixels


def _gif(frames: int) -> bytes:
    stream = io.BytesIO()
    first, *others = (
        Image.new("P", (64, 64), number % 2).point(lambda value: value) for number in range(frames)
    )
    first.save(stream, "GIF", save_all=True, append_images=others, optimize=False)
    return stream.getvalue()
