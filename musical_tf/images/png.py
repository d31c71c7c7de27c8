"""Reads the chunks of PNG files, without decoding them."""

import struct
import zlib
from collections.abc import Iterator

PIXELS = b"IDAT"

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First row and column of each pass of an interlaced file, and the steps between its rows, columns.
_PASSES = [
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)),
    (1, 0, 2, 1),
]
_UNPACKED_AT_ONCE = 2**20  # bytes


def chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the data of each chunk."""
    position = 8
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        yield kind, position + 8, length
        if kind == b"IEND":
            return
        position += 12 + length


def checksum(kind: bytes, data: bytes | memoryview) -> bytes:
    """What stands behind the data of a chunk."""
    return struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def has_all_rows(content: bytes) -> bool:
    """Whether the pixels unpack to as many bytes as the header says."""
    width, height, bits, kind, _, _, interlace = struct.unpack_from(">IIBBBBB", content, 16)
    left = 0
    for top, first, down, right in _PASSES if interlace else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - first) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            left += rows * (1 + (columns * bits * _CHANNELS[kind] + 7) // 8)
    unpacker = zlib.decompressobj()
    for name, start, length in chunks(content):
        packed = content[start : start + length] if name == PIXELS else b""
        while packed and left > 0:
            left -= len(unpacker.decompress(packed, _UNPACKED_AT_ONCE))
            packed = unpacker.unconsumed_tail
    return left <= 0 or left <= len(unpacker.flush())
