"""Reads and writes 16 bits a channel, which Pillow decodes as 8.

Pillow unpacks the 16-bit colors of a PNG by their high bytes, or, told the other byte order, by
their low bytes: two decodes give both. A TIFF is decoded as gray, which Pillow reads in 16 bits:
one plane after the other, or as wide as all channels together. pillow-heif decodes the 10 and 12
bits of HEIC.
"""

import io
import re
import struct
import types
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from . import bounds, png

DEEP_FORMATS = ("PNG", "TIFF", "PPM")
"""Formats that are written with 16 bits a channel."""

_AV1_DEPTH = re.compile(rb"av1C\x81.(.)", re.DOTALL)  # the byte with the flags of 10 and 12 bits
_ICC_LAB = 9  # photometric interpretation: Lab in the bytes that a profile uses
_ROWS = 256  # that are compressed at a time
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# Tags of a plane: how the strips or tiles are stored.
_PLANE_TAGS = (254, 256, 257, 259, 266, 278, 317, 322, 323)
_PHOTOMETRIC = {0: "gray", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_PHOTOMETRIC |= {_ICC_LAB: "Lab"}


class DepthError(ValueError):
    """A depth or layout that is not read; the message says which, without the file's name."""


def bits_of(content: bytes, image_format: str) -> int:
    """Bits a channel that a file says it has, at least 8.

    Raises:
        DepthError: If it is a TIFF of a depth that is not read.
    """
    if image_format == "PNG":
        return max(8, content[24]) if len(content) > 24 else 8
    if image_format == "PPM":
        return 16 if bounds.pnm_header(content).largest > 255 else 8
    if image_format == "TIFF":
        return _tiff_bits(content)
    if image_format == "AVIF":
        flags = [found.group(1)[0] for found in _AV1_DEPTH.finditer(content)]
        return max(((12 if byte & 0x20 else 10) for byte in flags if byte & 0x40), default=8)
    if image_format == "HEIF":
        return max(8, _open_heif(content).info["bit_depth"])
    return 8


def open_image(content: bytes, image_format: str) -> Image.Image | None:
    """The image of a file that Pillow decodes wrongly or slowly, in 8 bits; None for the others."""
    if image_format == "PPM" and bounds.pnm_header(content).largest != 255:
        header = bounds.pnm_header(content)
        if header.kind == 4:
            return None
        values = _pnm_values(content, header)
        if header.kind == 5 and header.largest > 255:
            return _named(Image.fromarray(values[..., 0]), "PPM")
        return _named(_upper_bytes(values), "PPM")
    if image_format == "TIFF" and _tiff_bits(content) == 16:
        samples = _tiff_samples(content)
        is_gray = samples.shape[2] == 1
        image = Image.fromarray(samples[..., 0]) if is_gray else _upper_bytes(samples)
        image.info.update(_tiff_info(content))
        return _named(image, "TIFF", "RGB;16N")
    if image_format == "TIFF" and _is_gray_with_alpha_in_planes(content):
        image = Image.fromarray(_tiff_samples(content).astype(np.uint8))
        image.info.update(_tiff_info(content))
        return _named(image, "TIFF")
    if image_format == "TIFF" and is_multiplied(content) and _tag(content, 277) == 2:
        upright = _with_values(content, {274: 1})
        image = Image.open(io.BytesIO(upright), formats=["TIFF"]).convert("LA")
        image.info.update(_tiff_info(content))
        return _named(image, "TIFF")
    if image_format == "TIFF" and _tag(content, 262) == _ICC_LAB:
        image = Image.open(io.BytesIO(_with_values(content, {262: 2, 274: 1})), formats=["TIFF"])
        image = Image.merge("LAB", image.split())
        image.info.update(_tiff_info(content))
        return _named(image, "TIFF")
    return None


def samples_of(content: bytes, image: Image.Image, image_format: str) -> np.ndarray | None:
    """The samples of a 16-bit file, `(H, W, C)` uint16, upright, alpha last.

    None for a file of up to 8 bits. `image` is the file as decoded, not yet turned upright.
    """
    if image_format not in (*DEEP_FORMATS, "HEIF"):
        return None
    content = bounds.bounded(content, image_format, [])
    bits = bits_of(content, image_format)
    if bits <= 8:
        return None
    if image_format == "HEIF":
        return _heif_samples(content, 2**bits - 1)
    if image_format == "PPM":
        return _pnm_values(content, bounds.pnm_header(content))
    if image_format == "TIFF":
        return _upright(_tiff_samples(content), _tag(content, 274))
    samples = _png_samples(content, image)
    if "transparency" in image.info:
        key = np.atleast_1d(np.asarray(image.info["transparency"]))
        opaque = (samples != key.astype(np.uint16)).any(axis=2, keepdims=True)
        samples = np.concatenate([samples, opaque * np.uint16(65535)], axis=2)
    return _upright(samples, image.getexif().get(274))


# ---- decoding


def _png_samples(content: bytes, upper: Image.Image) -> np.ndarray:
    kind = content[25]
    if kind == 4:  # two bytes of gray and two of alpha are unpacked as four channels
        four = _decode_png(content, {"LA;16B": "RGBA"})
        return four[..., 0::2] << 8 | four[..., 1::2]
    if kind in (2, 6):
        lower = _decode_png(content, {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"})
        return np.asarray(upper).astype(np.uint16) << 8 | lower
    return _decode_png(content, {})[..., None]


def _decode_png(content: bytes, layouts: dict[str, str]) -> np.ndarray:
    """The values of a PNG whose bytes are taken for another layout."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.tile = [
            tile._replace(args=layouts.get(str(tile.args), tile.args)) for tile in image.tile
        ]
        return np.asarray(image).astype(np.uint16)


def _pnm_values(content: bytes, header: bounds.Header) -> np.ndarray:
    """`(H, W, C)` uint16, scaled to 65535."""
    channels = 3 if header.kind == 6 else 1
    shape = header.height, header.width, channels
    count = header.height * header.width * channels
    kind = ">u2" if header.largest > 255 else "u1"
    values = np.frombuffer(content, kind, count, header.end).reshape(shape)
    return _scaled(values, header.largest)


def _scaled(values: np.ndarray, largest: int) -> np.ndarray:
    """Values from 0 to `largest` as uint16 from 0 to 65535."""
    if largest == 65535:
        return values.astype(np.uint16)
    table = np.arange(65536, dtype=np.uint32)
    table = (np.minimum(table, largest) * np.uint32(65535) + np.uint32(largest // 2)) // largest
    return table.astype(np.uint16)[values]


def _open_heif(content: bytes) -> Any:
    import pillow_heif  # an extra, and here only if the file has been opened by it

    return pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False, hdr_to_16bit=False)


def _heif_samples(content: bytes, largest: int) -> np.ndarray:
    image = _open_heif(content)
    if image.premultiplied_alpha:
        raise DepthError("its colors are multiplied by its alpha: save it as PNG")
    values = np.asarray(image)
    return _scaled(values.reshape(*values.shape[:2], -1), largest)


def _squeezed(values: np.ndarray) -> np.ndarray:
    return values[..., 0] if values.shape[2] == 1 else values


def _upper_bytes(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(_squeezed((samples >> 8).astype(np.uint8)))


def _named(image: Any, image_format: str, layout: str = "") -> Image.Image:
    """The image with the attributes of one that Pillow has opened."""
    image.format = image_format
    image.tile = [types.SimpleNamespace(codec_name="", args=layout)]
    return image


def _upright(samples: np.ndarray, orientation: Any) -> np.ndarray:
    """Turns `(H, W, C)` as EXIF's orientation says."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


# ---- TIFF


def _tag(content: bytes, number: int, default: int | None = None) -> Any:
    return next(iter(_tags(content, number)), default)


def _tags(content: bytes, number: int) -> tuple[int, ...]:
    for tag in (bounds.tiff_pages(content) or [[]])[0]:
        if tag.number == number:
            return bounds.tag_value(content, tag)
    return ()


def is_multiplied(content: bytes) -> bool:
    """Whether a TIFF has colors that were multiplied by its alpha."""
    return _tags(content, 338)[:1] == (1,)


def layout_of(content: bytes) -> str:
    """The pixels of a TIFF in words, for messages."""
    model = _PHOTOMETRIC.get(_tag(content, 262, 0), "unknown")
    bits, channels = max(_tags(content, 258) or (1,)), _tag(content, 277, 1)
    extra = _tags(content, 338)
    return (
        f"a TIFF with {model} colors, {channels} channels of {bits} bits, extra samples "
        f"{', '.join(map(str, extra)) or 'none'} and compression {_tag(content, 259, 1)}"
    )


def _tiff_bits(content: bytes) -> int:
    bits = set(_tags(content, 258)) or {1}
    formats = set(_tags(content, 339)) or {1}
    photometric, channels = _tag(content, 262, 0), _tag(content, 277, 1)
    if not formats <= {1, 4}:
        names = {2: "integer", 3: "floating point"}
        found = names.get(max(formats), f"sample format {max(formats)}")
        raise DepthError(f"it is {max(bits)}-bit {found}: save it with 8 or 16 bits a channel")
    if photometric not in _PHOTOMETRIC:
        raise DepthError(f"photometric interpretation {photometric} is not read: save it as RGB")
    if bits <= {1, 2, 4, 8}:
        is_planar, extra = _tag(content, 284, 1) == 2, _tags(content, 338)
        is_gray = channels == 2 and not _is_gray_with_alpha_in_planes(content)
        if is_planar and (is_gray or extra not in ((2,), ())):
            raise DepthError(
                "its extra channels in planes must be straight alpha of 8 bits: save it as PNG"
            )
        return 8
    said = ", ".join(str(number) for number in sorted(bits))
    if bits != {16}:
        raise DepthError(f"it has {said} bits a channel: save it with 8 or 16")
    if (model := _PHOTOMETRIC[photometric]) not in ("gray", "RGB"):
        raise DepthError(f"it is {model} of 16 bits a channel: convert it to RGB")
    is_allowed = (channels, photometric) in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 2), (4, 2))
    if not is_allowed or (channels in (2, 4) and _tags(content, 338) not in ((2,), ())):
        raise DepthError(
            f"{channels} channels of 16 bits in a TIFF must be gray or RGB, or either with "
            "straight alpha: save it as PNG"
        )
    return 16


def _is_gray_with_alpha_in_planes(content: bytes) -> bool:
    return (
        (_tag(content, 277), _tag(content, 284), _tags(content, 338)) == (2, 2, (2,))
        and set(_tags(content, 258)) == {8}
        and _tag(content, 262) in (0, 1)
    )


def _tiff_gray(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content), formats=["TIFF"]) as image:
        return np.asarray(image).astype(np.uint16)


def _tiff_samples(content: bytes) -> np.ndarray:
    """Samples, not yet turned upright."""
    channels = _tag(content, 277, 1) or 1
    if _tag(content, 284, 1) == 2 and channels > 1:
        samples = np.stack([_tiff_gray(plane) for plane in _planes(content)], axis=2)
    else:
        samples = _interleaved(content, channels)
    if _tag(content, 262, 0) == 0:  # white is zero
        samples[..., 0] = ~samples[..., 0]
    return samples


def _planes(content: bytes) -> Iterator[bytes]:
    """The file once for each plane, with a directory that shows this plane as a gray image."""
    values, places = _gray_tags(content)
    channels = _tag(content, 277, 1)
    each = len(values[places[0]]) // channels
    if not each or any(len(values[number]) != each * channels for number in places):
        raise DepthError("its strips do not divide into planes")
    for plane in range(channels):
        part = {number: values[number][plane * each : (plane + 1) * each] for number in places}
        yield _with_directory(content, values | part)


def _interleaved(content: bytes, channels: int) -> np.ndarray:
    """All channels, decoded as one row."""
    values, _ = _gray_tags(content)
    width = values[256][0]
    tile = values.get(322, (width,))[0]
    is_predicted = values.pop(317, (1,)) == (2,)  # from the same channel one pixel before
    values |= {256: (channels * width,)} | ({322: (channels * tile,)} if 322 in values else {})
    samples = _tiff_gray(_with_directory(content, values)).reshape(-1, width, channels)
    for left in range(0, width, tile) if is_predicted else ():
        part = samples[:, left : left + tile]
        np.cumsum(part, axis=1, dtype=np.uint16, out=part)
    return samples


def _gray_tags(content: bytes) -> tuple[dict[int, tuple[int, ...]], tuple[int, int]]:
    """The tags of a gray image of the file's strips or tiles, and the numbers of their two tags."""
    tags = {tag.number: tag for tag in bounds.tiff_pages(content)[0]}
    bits = max(_tags(content, 258))
    places = (324, 325) if 324 in tags else (273, 279)
    values = {
        number: bounds.tag_value(content, tags[number]) for number in _PLANE_TAGS if number in tags
    }
    starts, sizes = (_all_numbers(content, tags[number]) for number in places)
    ends = (start + size for start, size in zip(starts, sizes, strict=True))
    needed = 0  # without compression, a decoder reads as many bytes, whatever the sizes are
    if values.get(259, (1,)) == (1,) and 322 not in values:
        needed = bits // 8 * values[256][0] * values[257][0] * _tag(content, 277, 1)
    if max(ends) > len(content) or sum(sizes) < needed:  # it would read what is appended
        raise DepthError("it is damaged: its pixels reach beyond its end")
    values |= {258: (bits,), 262: (1,), 277: (1,), 284: (1,)}
    return values | dict(zip(places, (starts, sizes), strict=True)), places


def _all_numbers(content: bytes, tag: bounds.Tag) -> tuple[int, ...]:
    code = {3: "H", 4: "I", 13: "I", 16: "Q"}[tag.kind]
    return struct.unpack_from(
        f"{bounds.tiff_order(content)[0]}{tag.count}{code}", content, tag.data
    )


def _with_values(content: bytes, values: dict[int, int]) -> bytes:
    """The file with other numbers in those of its tags that hold one number of two bytes."""
    changed = bytearray(content)
    for tag in bounds.tiff_pages(content)[0]:
        if tag.number in values and (tag.kind, tag.count) == (3, 1):
            struct.pack_into(
                f"{bounds.tiff_order(content)[0]}H", changed, tag.data, values[tag.number]
            )
    return bytes(changed)


def _with_directory(content: bytes, values: dict[int, tuple[int, ...]]) -> bytes:
    """The file with one more directory, of whole numbers, as its first."""
    order, big = bounds.tiff_order(content)
    word, entry, head = ("Q", "HHQQ", "Q") if big else ("I", "HHII", "H")
    kind, size = (16, 8) if big else (4, 4)
    pad = bytes(-len(content) % 16)
    start = len(content) + len(pad)
    entries = len(values) * struct.calcsize(order + entry)
    end = start + struct.calcsize(order + head) + entries + size
    directory, behind = struct.pack(order + head, len(values)), b""
    for number, numbers in sorted(values.items()):
        data = numbers[0] if len(numbers) == 1 else end + len(behind)
        if len(numbers) != 1:
            behind += struct.pack(f"{order}{len(numbers)}{word}", *numbers)
        directory += struct.pack(order + entry, number, kind, len(numbers), data)
    directory += struct.pack(order + word, 0) + behind
    at = 8 if big else 4
    first = struct.pack(order + word, start)
    return b"".join([content[:at], first, content[at + size :], pad, directory])


def _tiff_info(content: bytes) -> dict[str, Any]:
    """Resolution, profile and EXIF of a TIFF whose pixels Pillow does not decode."""
    directory = Image.Exif()
    directory.endian, big = bounds.tiff_order(content)
    directory.bigtiff = big
    word = directory.endian + ("Q" if big else "I")
    directory.load_from_fp(
        io.BytesIO(content), struct.unpack_from(word, content, 8 if big else 4)[0]
    )
    info: dict[str, Any] = {}
    from PIL import TiffImagePlugin  # slow to import

    if (compression := TiffImagePlugin.COMPRESSION_INFO.get(_tag(content, 259, 1))) is not None:
        info["compression"] = compression
    if isinstance(directory.get(34675), bytes):
        info["icc_profile"] = directory[34675]
    resolution: tuple[Any, Any] = (directory.get(282), directory.get(283))
    if all(resolution) and directory.get(296, 2) in (2, 3):
        inches = 1 if directory.get(296, 2) == 2 else 2.54
        info["dpi"] = tuple(float(value) * inches for value in resolution)
    directory.bigtiff = False
    for number in (273, 279, 324, 325, 34675):
        directory.pop(number, None)
    info["exif"] = directory.tobytes()
    return info


# ---- encoding


def encode(samples: np.ndarray, image_format: str, options: dict[str, Any]) -> bytes:
    """Encodes `(H, W, C)` uint16 as PNG, TIFF or PPM, with Pillow's options for the format."""
    if image_format == "PNG":
        return _encode_png(samples, options)
    if image_format == "TIFF":
        return _encode_tiff(samples, options)
    height, width, channels = samples.shape
    head = f"P{6 if channels == 3 else 5} {width} {height} 65535\n".encode()
    return head + samples.astype(">u2").tobytes()


def _encode_png(samples: np.ndarray, options: dict[str, Any]) -> bytes:
    """Pillow writes the metadata around one pixel, and the pixel is replaced."""
    height, width, channels = samples.shape
    stream = io.BytesIO()
    Image.new(_MODES[channels], (1, 1)).save(stream, "PNG", **options)
    kind = next(kind for kind, count in _PNG_CHANNELS.items() if count == channels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    packer = zlib.compressobj(options.get("compress_level", 4))
    packed = []
    for top in range(0, height, _ROWS):
        rows = samples[top : top + _ROWS].astype(">u2").view(np.uint8)
        rows = rows.reshape(len(rows), -1)
        filtered = np.ones((len(rows), 1 + rows.shape[1]), np.uint8)  # 1: the filter Sub
        filtered[:, 1:] = rows
        filtered[:, 1 + 2 * channels :] -= rows[:, : -2 * channels]
        packed.append(packer.compress(filtered.tobytes()))
    packed.append(packer.flush())
    pieces = [b"\x89PNG\r\n\x1a\n"]
    written = stream.getvalue()
    replaced = {b"IHDR": header, png.PIXELS: b"".join(packed)}
    for chunk, start, length in png.chunks(written):
        data = replaced.get(chunk, written[start : start + length])
        pieces += [struct.pack(">I", len(data)), chunk, data]
        pieces.append(png.checksum(chunk, data))
    return b"".join(pieces)


def _encode_tiff(samples: np.ndarray, options: dict[str, Any]) -> bytes:
    """Pillow writes the bytes as an image of twice the width, whose size and depth are mended."""
    height, width, channels = samples.shape
    rows = samples.astype("<u2").view(np.uint8).reshape(height, 2 * width, channels)
    stream = io.BytesIO()
    Image.fromarray(_squeezed(rows)).save(stream, "TIFF", **options)
    written = bytearray(stream.getvalue())
    order, _ = bounds.tiff_order(written)
    for tag in bounds.tiff_pages(written)[0]:
        if tag.number == 256:
            struct.pack_into(order + {3: "H", 4: "I"}[tag.kind], written, tag.data, width)
        if tag.number == 258:
            struct.pack_into(f"{order}{tag.count}H", written, tag.data, *[16] * tag.count)
    return bytes(written)
