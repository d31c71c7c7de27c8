"""Image files of every format that is read and of some that are not, and changes of any bytes."""

import base64
import contextlib
import functools
import io
import json
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from musical_tf import images
from musical_tf.images import bounds, png
from tests.test_image_depth import DEEP_FILES, cmyk_profile, deep, tiff

MAX_PIXELS = 100_000
HEIGHT, WIDTH = 24, 32
NUMBERS = (0, 1, 2, 3, 7, 255, 256, 20_000, 32_767, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
# Bytes behind which a file says how it is to be decoded.
MARKS = (
    *(b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iCCP", b"IDAT", b"VP8X", b"VP8L", b"VP8 ", b"ALPH"),
    *(b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xda", b"\xff\xdb", b"\xff\xe1", b"\xff\xe2"),
    *(b"ftyp", b"ispe", b"pixi", b"av1C", b"hvcC", b"iloc", b"iinf", b"iref", b"colr", b"auxC"),
    *(b"irot", b"imir", b"ipma", b"mdat", b"BM", b"P5", b"P6"),
)


def _exif():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] = "lens"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return exif


def _profile():
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the time of day
    return bytes(profile)


@functools.cache
def seeds() -> dict[str, bytes]:
    """A file of every format, mode and depth."""
    assert images.opening.register_heif()
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    picture = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    rich = {"exif": _exif(), "icc_profile": _profile()}
    files = {}

    def add(kind, mode="RGB", **options):
        stream = io.BytesIO()
        with contextlib.suppress(OSError, ValueError, KeyError):  # not every format has every mode
            image = Image.new(mode, picture.size) if mode == "LAB" else picture.convert(mode)
            image.save(stream, kind, **options)
            files[" ".join((kind, mode, *options))] = stream.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"):
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "HEIF"):
            add(kind, mode)
            if kind not in ("BMP", "PPM"):
                add(kind, mode, **rich)
    for kind in ("MPO", "GIF", "ICO", "TGA", "JPEG2000", "EPS", "DDS"):
        add(kind)
    add("JPEG", progressive=True)
    add("WEBP", "RGBA", lossless=True)
    add("PNG", "P", transparency=bytes([0, 5, 200]))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add("TIFF", "RGB", compression=compression)
        files[f"TIFF {compression}"] = files.pop("TIFF RGB compression")
    add("TIFF", "1", compression="group4")
    files["TIFF ICC Lab"] = tiff((deep(3) >> 8).astype(np.uint8), photometric="icclab")
    for kind in ("TIFF", "JPEG"):
        add(kind, "CMYK", icc_profile=cmyk_profile())
    for kind in ("PNG", "TIFF", "WEBP", "AVIF"):
        add(kind, "RGB", save_all=True, append_images=[picture.convert("RGB")])
    for name, (write, channels, options) in DEEP_FILES.items():
        files[f"deep {name}"] = write(deep(channels), **options)
        with contextlib.suppress(ValueError):
            eight = (deep(channels) >> 8).astype(np.uint8)
            files[f"shallow {name}"] = tiff(eight, **options)
    for mode in ("L", "RGB", "RGBA"):
        stream = io.BytesIO()
        levels = deep(len(mode), HEIGHT, WIDTH).tobytes()
        pillow_heif.from_bytes(f"{mode};16", (WIDTH, HEIGHT), levels).save(stream)
        files[f"HEIF {mode} of 10 bits"] = stream.getvalue()
    _, ten = cv2.imencode(".avif", deep(3) >> 6, [cv2.IMWRITE_AVIF_DEPTH, 10])
    files["AVIF of 10 bits"] = ten.tobytes()
    return files


def _new_checksums(content):
    """A PNG whose chunks have the checksums of what they hold now."""
    for _, start, length in list(png.chunks(content))[:64]:
        if start + length + 4 <= len(content):
            value = zlib.crc32(bytes(content[start - 4 : start + length]))
            struct.pack_into(">I", content, start + length, value)


def positions(length):
    """A position in so many bytes; Hypothesis itself would draw the first one too often."""
    spread = st.integers(0, 2**32 - 1).map(lambda number: (number * 2_654_435_761 + 97) % 2**32)
    return spread.map(lambda number: number % max(1, length))


@st.composite
def changed(draw, content):
    """Bytes of which some are changed, cut out or inserted, or that end early."""
    content = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        at = draw(positions(len(content)))
        kinds = ["mark", "number", "change", "change", "early", "cut", "insert", "end"]
        kind = draw(st.sampled_from(kinds))
        if kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=40))
        else:
            if kind == "early":
                at = draw(positions(200))
            elif kind == "mark" and (found := [mark for mark in MARKS if mark in content]):
                mark = draw(st.sampled_from(found))
                at = content.index(mark) + len(mark) + draw(st.integers(0, 16))
            elif kind == "number" and content[:4] in (b"II*\0", b"MM\0*"):
                tags = [tag for page in bounds.tiff_pages(bytes(content)) for tag in page]
                if tags:
                    at = draw(st.sampled_from(tags)).entry + draw(st.sampled_from([0, 2, 4, 8]))
            new = draw(st.binary(min_size=1, max_size=4))
            if kind == "number" or draw(st.booleans()):
                code, limit = draw(st.sampled_from([("H", 2**16), ("I", 2**32), ("Q", 2**64)]))
                number = draw(st.sampled_from(NUMBERS)) % limit
                new = struct.pack(draw(st.sampled_from("<>")) + code, number)
            content[at : at + len(new)] = new
    if content[:4] == b"\x89PNG" and draw(st.booleans()):
        _new_checksums(content)
    return bytes(content)


@st.composite
def files(draw):
    """An image file, whole or changed."""
    content = seeds()[draw(st.sampled_from(sorted(seeds())))]
    return content if draw(st.integers(0, 9)) == 0 else draw(changed(content))


def outcome(read, content, **options):
    """What a reader returns, or the `ImageError` that it raises."""
    try:
        return read(io.BytesIO(content), name="file", max_pixels=MAX_PIXELS, **options)
    except images.ImageError as error:
        refusal = error
    assert str(refusal).startswith("file: ")
    return refusal


def in_json(fields: dict) -> bytes:
    """A body in JSON; bytes as base64."""
    fields = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in fields.items()
    }
    return json.dumps(fields).encode("utf-8", "surrogatepass")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
