"""Reads the segments of JPEG files, without decoding them."""

import re
import struct
from collections.abc import Iterator

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
END_OF_IMAGE = 0xD9


def segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of the first picture, its end marker included."""
    position = 2
    while found := _NEXT_MARKER.search(content, position):
        marker, start = found.group()[1], found.start()
        if marker in (END_OF_IMAGE, 0xD8, 0x01):
            yield marker, start, start + 2
            if marker == END_OF_IMAGE:
                return
            position = start + 2
            continue
        if start + 4 > len(content):
            return
        position = start + 2 + max(2, struct.unpack_from(">H", content, start + 2)[0])
        yield marker, start, min(position, len(content))


def has_end_marker(content: bytes) -> bool:
    """Whether the first picture of a JPEG is followed by its end marker."""
    return any(marker == END_OF_IMAGE for marker, _, _ in segments(content))
