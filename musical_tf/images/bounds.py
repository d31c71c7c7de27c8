"""Checks the bytes of an image file before a decoder reads them.

A few bytes can make a decoder use minutes of processor time or gigabytes of memory. Every function
here takes time and memory in proportion to the file, and refuses the file or mends it.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from . import jpeg, png

# The most that is read or kept. Every number that a tag holds would become a Python object, each
# tag, chunk and segment takes some microseconds, and a scan is decoded over the whole image.
MAX_BYTES = 2 * 2**30  # of a file: 178 million pixels of 8 bytes fit
MAX_METADATA = 2**20  # bytes of EXIF, of XMP and of a single tag
MAX_PROFILE = 16 * 2**20  # bytes of a color profile: the most that a JPEG can hold
MAX_NUMBERS = 4096  # in a tag
MAX_ALL_NUMBERS = 2**18  # in all tags together
MAX_TAGS = 2**14  # of all directories, which may overlap; files have some dozens a page
MAX_EXIF_BLOCKS = 8  # in AVIF and HEIC, which may overlap; files have one or two
MAX_STRIPS = 2**16  # or tiles of a TIFF: the decoder is called for each
MAX_TILE = 4096  # pixels by which a side of a tile of a TIFF may be longer than the image's
MAX_PAGES = 64  # of a TIFF
MAX_CHUNKS = 100_000  # of a PNG
MAX_UNPACKED = 2**20  # bytes of a compressed chunk that is not the profile: Pillow's own limit
MAX_SEGMENTS = 10_000  # of a JPEG
MAX_SCANS = 100  # of a JPEG; encoders write about ten
MAX_RUN_LENGTH_PIXELS = 16_000_000  # of a BMP, which Pillow decodes in Python
MAX_RUN_LENGTH_BYTES = 8 * 2**20

_HEADER_BYTES = 2**16  # of a PNM file, comments included
_NUMBER = rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})"
_PNM = {kind: re.compile(b"P%d" % kind + (2 if kind == 4 else 3) * _NUMBER) for kind in (4, 5, 6)}
_EXIF = re.compile(rb"(?:\0\0\0\0|Exif\0\0)(?=II\*\0|MM\0\*)")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TYPE_SIZES |= dict.fromkeys((16, 17, 18), 8)
_TYPES_OF_BYTES = (1, 2, 7)
_STRIP_TAGS = {273: "strips", 279: "strips", 324: "tiles", 325: "tiles"}
_PROFILE_TAG = 34675
_DIRECTORY_TAGS = (34665, 34853, 40965)  # EXIF, GPS, interoperability
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_TEXT_READ = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # for the orientation
# Bytes of chunks of which Pillow wants all; those of a transparent color by the kind of the colors.
_CHUNK_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8, b"fcTL": 26}
_KEY_SIZES = {b"\0": {b"tRNS": 2}, b"\2": {b"tRNS": 6}}
_FEW_BITS = (b"\1\0", b"\2\0", b"\4\0")  # depth and kind of gray of less than 8 bits

SEVERAL_FRAMES = (
    "it has several frames, and all but the first would be lost; "
    "save the one you want as a file of its own"
)


class BoundError(ValueError):
    """A file that would cost too much to decode; the message says why, without the file's name."""


Content = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Tag:
    """An entry of a TIFF directory: its number, type and count, and the positions of both."""

    number: int
    kind: int
    count: int
    entry: int
    data: int


@dataclass(frozen=True)
class Header:
    """The header of a binary PNM file."""

    kind: int
    width: int
    height: int
    largest: int
    end: int


def format_of_content(content: bytes) -> str | None:
    """Pillow's name of the format that the first bytes say; None if it is not read."""
    head = bytes(content[:64])
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:4] in _TIFF_HEADS:
        return "TIFF"
    if head[:2] == b"BM":
        return "BMP"
    if re.match(rb"P[456][\s#]", head):
        return "PPM"
    if head[4:8] == b"ftyp":
        size = struct.unpack(">I", head[:4])[0]
        brands = {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, 64), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    return None


def bounded(content: bytes, image_format: str, notes: list[str]) -> bytes:
    """The file as it may be decoded; `notes` gets a sentence for everything that is left out.

    Raises:
        BoundError: If decoding the file would take more than its size explains.
    """
    if image_format == "JPEG":
        return _bounded_jpeg(content, notes)
    if image_format == "TIFF":
        return _bounded_tiff(content, notes)
    if image_format == "PNG":
        return _bounded_png(content, notes)
    if image_format in ("AVIF", "HEIF"):  # whose decoders parse EXIF while they open the file
        places = [(found.end(), len(content)) for found in _EXIF.finditer(content)]
        if len(places) > MAX_EXIF_BLOCKS:
            raise BoundError(
                f"{image_format} must have at most {MAX_EXIF_BLOCKS} blocks of EXIF, "
                f"got {len(places)}; save it as PNG"
            )
        return _mended(content, places, notes)
    if image_format == "BMP":
        return _bounded_bmp(content)
    if image_format == "PPM":
        pnm_header(content)
    return content


def bounded_exif(exif: bytes, notes: list[str]) -> bytes | None:
    """EXIF without tags that are too large; None above `MAX_METADATA` bytes or `MAX_TAGS` tags."""
    if len(exif) > MAX_METADATA:
        notes.append(
            f"its EXIF was dropped: it has {len(exif)} bytes, more than the limit of {MAX_METADATA}"
        )
        return None
    marks = re.match(rb"(?:Exif\0\0){1,2}", exif)
    start = marks.end() if marks else 0
    try:
        return exif[:start] + _mended(exif[start:], [(0, len(exif))], notes)
    except BoundError as error:
        notes.append(f"its EXIF was dropped: {error}")
        return None


def pnm_header(content: bytes) -> Header:
    """Reads the header of a binary PNM file; `BoundError` if damaged or longer than 64 KiB."""
    head = bytes(content[:_HEADER_BYTES])
    kind = head[1] - ord("0")
    found = _PNM[kind].match(head)
    numbers = [*map(int, found.groups()), 1] if found else []
    if not found or not all(numbers) or numbers[2] > 65535:
        raise BoundError(f"a PNM header must be whole within {_HEADER_BYTES} bytes, got another")
    return Header(kind, numbers[0], numbers[1], numbers[2], found.end() + 1)


# ---- PNG


def _bounded_png(content: bytes, notes: list[str]) -> bytes:
    """Leaves out text that is not read, and chunks that are damaged or unpack to too much.

    No viewer needs these chunks, and for some of them Pillow refuses the whole file.
    """
    pieces, position, dropped = [], 0, set()
    left = MAX_PROFILE
    sizes = _CHUNK_SIZES | _KEY_SIZES.get(content[25:26], {})
    for number, (kind, start, length) in enumerate(png.chunks(content)):
        if number >= MAX_CHUNKS:
            raise BoundError(f"a PNG must have at most {MAX_CHUNKS} chunks, got more")
        end = start + length
        checksum = content[end : end + 4]
        is_whole = checksum == png.checksum(kind, memoryview(content)[start:end])
        if kind == png.PIXELS and len(checksum) == 4 and not is_whole:
            raise BoundError("it is damaged: the checksum of its pixels is wrong")
        if not kind[0] & 0x20:  # the image cannot be shown without it
            continue
        data, new = content[start:end], b""
        if kind == b"tRNS" and content[24:26] in _FEW_BITS and length == 2:
            new = _scaled_key(data, content[24])  # Pillow compares it with levels of 8 bits
        elif kind not in _TEXT_CHUNKS or data[:80].split(b"\0")[0] in _TEXT_READ:
            most = min(MAX_UNPACKED, left)
            unpacked = _unpacked(kind, data, most)
            left = max(0, left - len(unpacked))
            is_read = is_whole and len(unpacked) <= most and length == sizes.get(kind, length)
            if is_read and kind != b"iCCP":
                continue
            if kind != b"iCCP" or not is_whole or not unpacked:  # `png_profile` reads the others
                dropped.add(kind.decode() if kind.isalpha() else "one of no name")
        pieces += [content[position : start - 8], new]
        position = end + 4
    if dropped:
        names = ", ".join(sorted(dropped)[:8])
        notes.append(f"chunks that are damaged or unpack to too much were dropped: {names}")
    return b"".join([*pieces, content[position:]]) if pieces else content


def png_profile(content: bytes) -> bytes | None:
    """The color profile of a PNG, at most `MAX_PROFILE` + 1 bytes of it."""
    for kind, start, length in png.chunks(content):
        end = start + length
        data = content[start:end] if kind == b"iCCP" else b""
        if data and content[end : end + 4] == png.checksum(kind, data):
            return _unpacked(kind, data, MAX_PROFILE) or None
        if kind == png.PIXELS:
            break
    return None


def _unpacked(kind: bytes, data: bytes, limit: int) -> bytes:
    """At most `limit` + 1 bytes of what a text or a profile holds; none for other chunks."""
    if kind not in (*_TEXT_CHUNKS, b"iCCP"):
        return b""
    _, _, packed = data.partition(b"\0")
    if kind == b"iTXt":
        is_packed, packed = packed[:1] == b"\1", b"\0" + packed[2:].split(b"\0", 2)[-1]
    else:
        is_packed = kind != b"tEXt"
    if not is_packed:
        return packed[: limit + 1]
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj().decompress(packed[1:], limit + 1)
    return b""


def _scaled_key(data: bytes, bits: int) -> bytes:
    """The chunk of a transparent gray level of a few bits, for levels of 8 bits."""
    most = 2**bits - 1
    data = struct.pack(">H", (data[1] & most) * (255 // most))
    return struct.pack(">I", 2) + b"tRNS" + data + png.checksum(b"tRNS", data)


# ---- JPEG


def _bounded_jpeg(content: bytes, notes: list[str]) -> bytes:
    """Counts segments and scans, and bounds the EXIF, of which Pillow joins all segments."""
    content = jpeg.usable(content, MAX_SEGMENTS)
    exif: list[tuple[int, int]] = []
    scans = 0
    for number, (marker, start, end) in enumerate(jpeg.segments(content)):
        scans += marker == jpeg.SCAN
        if scans > MAX_SCANS:
            raise BoundError(f"a JPEG must have at most {MAX_SCANS} scans, got more")
        if number >= MAX_SEGMENTS:
            raise BoundError(f"a JPEG must have at most {MAX_SEGMENTS} segments, got more")
        bits = content[start + 4 : start + 5]
        if marker in jpeg.FRAMES and bits not in (b"\x08", b""):
            raise BoundError(f"a JPEG must have 8 bits a channel, got {bits[0]}; save it as PNG")
        if marker == 0xE1 and scans == 0 and content[start + 4 : start + 10] == b"Exif\0\0":
            exif.append((start, end))
    if len(exif) < 2:
        return _mended(content, [(start + 10, end) for start, end in exif], notes)
    whole = bounded_exif(b"".join(content[start + 10 : end] for start, end in exif), notes) or b""
    parts = [
        b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part
        for part in (whole[at : at + 65000] for at in range(0, len(whole), 65000))
    ]
    first, *others = exif
    return b"".join([content[: first[0]], *parts, jpeg.without(content, others, first[1])])


# ---- BMP


def _bounded_bmp(content: bytes) -> bytes:
    """Bounds run-length encoding, which Pillow decodes in Python, and mends a palette.

    Pillow takes pixels of 4 or 8 bits for single bits if they have black and white alone to choose
    from, and pixels of 4 bits for bytes if each color is the gray of its own number. More colors,
    of whatever follows, keep it from that.
    """
    if len(content) < 54 or struct.unpack_from("<I", content, 14)[0] < 40:
        return content
    width, height = struct.unpack_from("<ii", content, 18)
    bits, compression, colors = struct.unpack_from("<HI12xI", content, 28)
    if bits in (4, 8) and colors == 2:
        content = content[:46] + struct.pack("<I", 3) + content[50:]
    elif bits == 4:
        content = content[:46] + struct.pack("<I", 256) + content[50:]
    if compression not in (1, 2):
        return content
    if abs(width * height) > MAX_RUN_LENGTH_PIXELS or len(content) > MAX_RUN_LENGTH_BYTES:
        raise BoundError(
            f"a run-length encoded BMP must have at most {MAX_RUN_LENGTH_PIXELS} pixels and "
            f"{MAX_RUN_LENGTH_BYTES} bytes, got {abs(width * height)} and {len(content)}; "
            "save it as PNG"
        )
    return content


# ---- TIFF


def tiff_order(content: Content) -> tuple[str, bool]:
    """The byte order of a TIFF or of EXIF, as `struct` spells it, and whether it is a BigTIFF."""
    order = "<" if content[:2] == b"II" else ">"
    return order, content[2:4] in (b"+\0", b"\0+")


def tiff_pages(content: Content) -> list[list[Tag]]:
    """The tags of each page, at most `MAX_PAGES` + 1; `BoundError` above `MAX_TAGS` tags."""
    order, big = tiff_order(content)
    pages: list[list[Tag]] = []
    seen: set[int] = set()
    left = MAX_TAGS
    with contextlib.suppress(struct.error):  # cut off: the decoder says so if it matters
        position = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)[0]
        while position and position not in seen and len(pages) <= MAX_PAGES:
            seen.add(position)
            tags, position = _directory(content, position, order, big, left)
            pages.append(tags)
            left -= len(tags)
    return pages


def tiff_size(content: bytes, numbers: tuple[int, int] = (256, 257)) -> tuple[int, int]:
    """Width and height of the first page as stored, or of a tile; (0, 0) where it does not say."""
    first = {
        tag.number: tag_value(content, tag) for page in tiff_pages(content)[:1] for tag in page
    }
    width, height = (next(iter(first.get(number, ())), 0) for number in numbers)
    return width, height


def lost_pages(content: bytes) -> str:
    """The reason why the first page of a TIFF is not all of it; empty if it is.

    Previews, and masks of transparency, are no pages of their own.
    """
    pages = [{tag.number: tag for tag in page} for page in tiff_pages(content)]
    # The others have no pixels: damaged pointers, and previews in JPEG.
    pages = [page for page in pages if {256, 257} <= page.keys() and page.keys() & {273, 324}]
    kinds = [tag_value(content, page[254]) if 254 in page else (0,) for page in pages]
    old = [tag_value(content, page[255]) if 255 in page else (1,) for page in pages]
    smaller = [
        bool(kind[:1] and kind[0] & 1) or kind_of_old == (2,)
        for kind, kind_of_old in zip(kinds, old, strict=True)
    ]
    if smaller and smaller[0]:
        return "its first page is a preview; save the photograph as a file of its own"
    others = zip(smaller[1:], kinds[1:], strict=True)
    if len(pages) > MAX_PAGES or any(
        not small and not (kind[:1] and kind[0] & 4) for small, kind in others
    ):
        return SEVERAL_FRAMES
    return ""


def tag_value(content: Content, tag: Tag) -> tuple[int, ...]:
    """The whole numbers of a tag; empty where they are of another type or beyond the file."""
    codes = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
    if tag.kind not in codes or tag.count > MAX_NUMBERS:
        return ()
    try:
        order = tiff_order(content)[0]
        return struct.unpack_from(f"{order}{tag.count}{codes[tag.kind]}", content, tag.data)
    except (struct.error, OverflowError):
        return ()


def _directory(
    content: Content, position: int, order: str, big: bool, most: int
) -> tuple[list[Tag], int]:
    """The tags of the directory at `position`, and the position of the next directory.

    Of a directory that is cut off, the tags before the cut, as Pillow reads it. `BoundError` if it
    has more than `most` tags, which is the part of `MAX_TAGS` that is left.
    """
    head, entry, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    word = order + ("Q" if big else "I")
    step = struct.calcsize(order + entry) + inline
    tags: list[Tag] = []
    with contextlib.suppress(struct.error):
        (count,) = struct.unpack_from(order + head, content, position)
        position += struct.calcsize(order + head)
        if min(count, (len(content) - position) // step) > most:
            raise BoundError(f"a TIFF or EXIF must have at most {MAX_TAGS} tags, got more")
        for start in range(position, position + count * step, step):
            number, kind, numbers = struct.unpack_from(order + entry, content, start)
            data = start + step - inline
            if numbers * _TYPE_SIZES.get(kind, 1) > inline:
                (data,) = struct.unpack_from(word, content, data)
            tags.append(Tag(number, kind, numbers, start, data))
        return tags, struct.unpack_from(word, content, position + count * step)[0]
    return tags, 0


def _bounded_tiff(content: bytes, notes: list[str]) -> bytes:
    """Bounds the tags of the first page, and refuses pages that would be lost."""
    if tiff_order(content) == (">", True):
        raise BoundError("it is a big-endian BigTIFF, which is not read: save it as TIFF or PNG")
    pages = tiff_pages(content)
    for page in pages[:1]:
        for tag in page:
            if tag.number in _STRIP_TAGS and tag.count > MAX_STRIPS:
                what = _STRIP_TAGS[tag.number]
                raise BoundError(
                    f"a TIFF must have at most {MAX_STRIPS} {what}, got {tag.count}; "
                    "save it with larger ones"
                )
    for side, tile in zip(tiff_size(content), tiff_size(content, (322, 323)), strict=True):
        if tile > side + MAX_TILE:
            raise BoundError(
                f"the tiles of a TIFF must be at most {MAX_TILE} pixels longer than the image, got "
                f"{tile} for {side}; save it with smaller ones"
            )
    return _with_wide_palette(_mended(content, [(0, len(content))], notes))


def _with_wide_palette(content: bytes) -> bytes:
    """The file with the levels of its palette in 16 bits; old writers stored 8."""
    for tag in (tiff_pages(content) or [[]])[0]:
        levels = tag_value(content, tag) if (tag.number, tag.kind) == (320, 3) else ()
        if levels and max(levels) < 256:
            wide = struct.pack(
                f"{tiff_order(content)[0]}{tag.count}H", *(257 * level for level in levels)
            )
            content = content[: tag.data] + wide + content[tag.data + len(wide) :]
    return content


def _mended(content: bytes, places: list[tuple[int, int]], notes: list[str]) -> bytes:
    """The file with the count of each tag that is too large set to 0, so that Pillow skips it.

    `places` are start and end of each TIFF or EXIF; `notes` gets a sentence about the tags.
    """
    parts, dropped = memoryview(content), []
    counts = []
    for start, end in places:
        part = parts[start:end]
        if bytes(part[:4]) not in _TIFF_HEADS:
            continue
        order, big = tiff_order(part)
        for tag, size in _oversized(part):
            counts.append((start + tag.entry + 4, order + ("Q" if big else "I")))
            dropped.append(f"{tag.number} ({size} bytes)")
    if not dropped:
        return content
    more = ", ..." if len(dropped) > 8 else ""
    notes.append(f"tags that are too large were dropped: {', '.join(dropped[:8])}{more}")
    mended = bytearray(content)
    for position, code in counts:
        struct.pack_into(code, mended, position, 0)
    return bytes(mended)


def _oversized(content: memoryview) -> Iterator[tuple[Tag, int]]:
    """The tags of the first directory, and of those in it, that are too large; their bytes."""
    order, big = tiff_order(content)
    numbers, left, seen = 0, MAX_TAGS, set()
    with contextlib.suppress(struct.error):  # cut off: the parser skips the rest as well
        word = order + ("Q" if big else "I")
        first = struct.unpack_from(word, content, 8 if big else 4)[0]
        waiting: list[tuple[int, Tag | None]] = [(first, None)]
        while waiting:
            position, pointer = waiting.pop()
            if position in seen:
                continue
            try:
                tags, _ = _directory(content, position, order, big, left)
            except BoundError:
                if pointer is None:
                    raise
                yield pointer, _TYPE_SIZES[pointer.kind]  # without it, the parser does not follow
                continue
            seen.add(position)
            left -= len(tags)
            for tag in tags:
                size = tag.count * _TYPE_SIZES.get(tag.kind, 1)
                if tag.number in _DIRECTORY_TAGS and tag.count == 1:
                    waiting += ((inner, tag) for inner in tag_value(content, tag))
                if tag.number in _STRIP_TAGS:
                    continue
                if tag.kind not in _TYPES_OF_BYTES:
                    numbers += tag.count
                limit = MAX_PROFILE if tag.number == _PROFILE_TAG else MAX_METADATA
                many = tag.kind not in _TYPES_OF_BYTES and tag.count > MAX_NUMBERS
                if size > limit or many or numbers > MAX_ALL_NUMBERS:
                    yield tag, size
