"""Reads the segments of JPEG files, without decoding them."""

import itertools
import re
import struct
from collections.abc import Iterator

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
END_OF_IMAGE = 0xD9
SCAN = 0xDA
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_APPLICATION = 0xE0  # the first marker of segments that applications define
# Those too short for what Pillow reads from them, and Photoshop's own.
_STUMBLES = re.compile(rb"(?:JFIF|Adobe).{,2}\Z|ICC_PROFILE\0.?\Z|Photoshop 3\.0\0", re.DOTALL)


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


def usable(content: bytes, most: int) -> bytes:
    """The file without those of its first segments that Pillow stumbles over and nobody needs.

    Args:
        content: The file.
        most: How many segments are looked at.
    """
    places = []
    for marker, start, end in itertools.islice(segments(content), most):
        if marker == SCAN:
            break
        if marker >= _APPLICATION and _STUMBLES.match(content[start + 4 : min(end, start + 18)]):
            places.append((start, end))
    return without(content, places) if places else content


def without(content: bytes, places: list[tuple[int, int]], position: int = 0) -> bytes:
    """The file from a position on, without these parts of it."""
    pieces = []
    for start, end in places:
        pieces.append(content[position:start])
        position = end
    return b"".join([*pieces, content[position:]])


def has_end_marker(content: bytes) -> bool:
    """Whether the first picture of a JPEG is followed by its end marker."""
    return any(marker == END_OF_IMAGE for marker, _, _ in segments(content))


def has_all_scans(content: bytes) -> bool:
    """Whether the scans of a JPEG have begun every coefficient of every component at full depth."""
    left: dict[int, set[int]] = {}
    for marker, start, end in segments(content):
        data = content[start + 4 : end]
        if marker in FRAMES and len(data) >= 6:
            left = {component: set(range(64)) for component in data[6::3][: data[5]]}
        elif marker == SCAN and data and len(data) >= 4 + 2 * data[0]:
            first, last, depth = data[1 + 2 * data[0] :][:3]
            if depth & 15 == 0:
                for component in data[1 : 1 + 2 * data[0] : 2]:
                    left.get(component, set()).difference_update(range(first, last + 1))
    return not any(left.values())
