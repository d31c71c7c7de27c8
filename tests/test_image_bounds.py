"""Files that would make a decoder take minutes or gigabytes, and the formats that are read."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from musical_tf import images
from musical_tf.images import bounds, png
from tests.pictures import encoded, picture, png_chunk


def read(content):
    return images.read_photograph(io.BytesIO(content), name="image")


def refusal(content):
    """The message by which photograph and mask are refused, and that it comes at once."""
    started = time.process_time()
    messages = []
    for function in (images.read_photograph, images.read_mask):
        with pytest.raises(images.ImageError) as error:
            function(io.BytesIO(content), name="image")
        messages.append(str(error.value))
    assert time.process_time() - started < 2
    assert messages[0].startswith("image: ")
    return messages[0]


def exif_of(kind, count, data):
    """EXIF of one tag that holds `data`."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 33434, kind, count, 26) + bytes(4) + data


def with_chunk(content, kind, data):
    return content[:33] + png_chunk(kind, data) + content[33:]


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3"])
def test_plain_pnm_is_refused_before_it_is_parsed(magic):
    assert "plain PNM" in refusal(magic + b" 400 400\n" + b"#\n0" * 2**19)


@pytest.mark.parametrize("suffix", ["GIF", "ICO", "TGA", "JPEG2000", "EPS", "PDF"])
def test_other_formats_are_refused(suffix):
    assert "not an image in a known format" in refusal(encoded(picture(), suffix))


def test_pnm_headers_with_comments():
    pixels = picture(4, 5)
    photograph = read(b"P6\n# a comment\n5 # another\n4\n255\n" + pixels.tobytes())
    np.testing.assert_array_equal(photograph.pixels, pixels)
    assert "PNM header" in refusal(b"P6 " + b"#" * 10_000_000 + b"\n5 4 255\n" + pixels.tobytes())
    assert "PNM header" in refusal(b"P6 5 4 99999\n" + pixels.tobytes())


def grow(call):
    """Bytes that Python's objects take at most while `call` runs, beyond what they take before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "unit"), [(3, b"\1\0"), (5, b"\1\0\0\0\1\0\0\0"), (6, b"\1")])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF", "JPEG"])
def test_numbers_of_a_huge_tag_never_become_objects(kind, unit, image_format):
    count = 60_000 // len(unit) if image_format == "JPEG" else 900_000 // len(unit)
    exif = exif_of(kind, count, unit * count)
    if image_format == "TIFF":
        content = tagged_tiff(65000, kind, count, unit * count)
    else:
        content = encoded(picture(), image_format, exif=b"Exif\0\0" + exif)
    result = []
    assert grow(lambda: result.append(read(content))) < 8 * len(content) + 2**20
    assert "tags that are too large were dropped" in " ".join(result[0].notes)
    np.testing.assert_array_equal(result[0].pixels.shape, (24, 32, 3))


def tagged_tiff(number, kind, count, data):
    """A TIFF of one strip that has one more tag."""
    pixels = picture()
    extra = [(number, kind, count, data, True)]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(pixels, photometric="rgb", extratags=extra, metadata=None)
    return stream.getvalue()


def test_large_exif_is_dropped_with_a_note_and_the_photograph_kept():
    exif = exif_of(3, 2**20, b"\1\0" * 2**20)
    photograph = read(with_chunk(encoded(picture(), "PNG"), b"eXIf", exif))
    assert photograph.exif is None
    assert "its EXIF was dropped" in photograph.notes[0]
    np.testing.assert_array_equal(photograph.pixels, picture())


def test_exif_in_many_segments_of_a_jpeg_is_bounded():
    jpeg = encoded(picture(), "JPEG")
    whole = exif_of(3, 10**6, b"\1\0" * 10**6)
    segments = [
        b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part
        for part in (whole[at : at + 65000] for at in range(0, len(whole), 65000))
    ]
    content = jpeg[:2] + b"".join(segments) + jpeg[2:]
    photographs = []
    assert grow(lambda: photographs.append(read(content))) < 8 * len(content) + 2**20
    assert "EXIF was dropped" in photographs[0].notes[0]
    content = jpeg[:2] + b"".join(segments[:3]) + jpeg[2:]
    assert "too large" in " ".join(read(content).notes)


def test_exif_of_ordinary_size_has_no_note():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    for image_format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
        photograph = read(encoded(picture(), image_format, exif=exif))
        assert photograph.notes == ()
        loaded = Image.Exif()
        loaded.load(photograph.exif)
        assert loaded[ExifTags.Base.Make] == "Camera"


def test_a_big_endian_bigtiff_is_refused_by_name():
    stream = io.BytesIO()
    tifffile.imwrite(stream, picture(), photometric="rgb", bigtiff=True, byteorder=">")
    assert "big-endian BigTIFF, which is not read: save it as" in refusal(stream.getvalue())


def test_strips_of_a_tiff_are_bounded():
    count = bounds.MAX_STRIPS + 1
    content = bytearray(encoded(picture(), "TIFF"))
    (tag,) = (tag for tag in bounds.tiff_pages(content)[0] if tag.number == 273)
    struct.pack_into("<II", content, tag.entry + 4, count, len(content))
    content += struct.pack("<I", 8) * count
    assert f"at most {bounds.MAX_STRIPS} strips, got {count}" in refusal(bytes(content))


def nested_exif(count):
    """EXIF whose tags all point to directories of as many tags, which overlap."""
    start = 14 + 12 * count
    pointers = (struct.pack("<HHII", 34665, 4, 1, start + 2 * index) for index in range(count))
    rest = struct.pack("<H", count) * (7 * count + 10)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(pointers) + bytes(4) + rest


@pytest.mark.parametrize(("image_format", "count"), [("JPEG", 2500), ("PNG", 40_000)])
def test_directories_of_exif_that_overlap_are_bounded(image_format, count):
    exif = b"Exif\0\0" + nested_exif(count)
    started = time.process_time()
    photograph = read(encoded(picture(), image_format, exif=exif))
    assert time.process_time() - started < 2
    assert any("dropped" in note for note in photograph.notes)


def test_a_pointer_into_garbage_costs_its_tag_alone():
    make = struct.pack("<HHII", ExifTags.Base.Make, 2, 7, 38)
    pointer = struct.pack("<HHII", 34665, 4, 1, 100)
    tags = b"II*\0\x08\0\0\0\2\0" + make + pointer + bytes(4)
    content = tags + b"camera\0" + b"\xff" * 300_000
    photograph = read(encoded(picture(), "PNG", exif=b"Exif\0\0" + content))
    assert photograph.notes == ("tags that are too large were dropped: 34665 (4 bytes)",)
    kept = Image.Exif()
    kept.load(photograph.exif)
    assert kept[ExifTags.Base.Make] == "camera"


def test_blocks_of_exif_in_avif_are_bounded():
    count = 2000
    heads = b"".join(
        b"\0\0\0\0II*\0" + struct.pack("<I", 12 * count - 12 * index - 4) for index in range(count)
    )
    tags = struct.pack("<H", 65535) + struct.pack("<HHII", 1, 7, 1, 0) * 65535
    box = struct.pack(">I", 8 + len(heads + tags)) + b"free" + heads + tags
    assert "blocks of EXIF" in refusal(encoded(picture(), "AVIF") + box)


def test_pages_of_a_tiff_that_overlap_are_bounded():
    content = bytearray(encoded(picture(), "TIFF"))
    order, _ = bounds.tiff_order(content)
    (first,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, first)
    struct.pack_into(order + "I", content, first + 2 + 12 * count, len(content))
    rest = bytearray(b"\xff" * (2 + 12 * 65535 + 4 * 64))
    for page in range(63):
        following = len(content) + 4 * (page + 1)
        struct.pack_into(order + "I", rest, 4 * page + 2 + 12 * 65535, following)
    assert f"at most {bounds.MAX_TAGS} tags" in refusal(bytes(content + rest))


def test_a_pointer_behind_the_last_page_of_a_tiff_is_no_page():
    for following in (3, 10**9):
        content = bytearray(encoded(picture(), "TIFF"))
        first = struct.unpack_from("<I", content, 4)[0]
        count = struct.unpack_from("<H", content, first)[0]
        struct.pack_into("<I", content, first + 2 + 12 * count, following)
        np.testing.assert_array_equal(read(bytes(content)).pixels, picture())


def test_tiles_of_a_tiff_are_bounded():
    stream = io.BytesIO()
    tifffile.imwrite(stream, picture(), photometric="rgb", tile=(16, 32), metadata=None)
    content = bytearray(stream.getvalue())
    np.testing.assert_array_equal(read(bytes(content)).pixels, picture())
    (tag,) = (tag for tag in bounds.tiff_pages(content)[0] if tag.number == 323)
    struct.pack_into("<H", content, tag.data, 32768)
    assert "tiles of a TIFF must be at most" in refusal(bytes(content))


def test_large_profiles_are_dropped_with_a_note():
    content = tagged_tiff(34675, 7, bounds.MAX_PROFILE + 1, bytes(bounds.MAX_PROFILE + 1))
    photograph = read(content)
    assert photograph.icc_profile is None
    assert "34675" in photograph.notes[0]


def test_a_large_profile_of_a_png_is_kept():
    profile = np.random.default_rng(0).bytes(3 * 2**19)
    photograph = read(with_chunk(encoded(picture(), "PNG"), b"iCCP", packed(profile)))
    assert photograph.icc_profile == profile
    assert photograph.notes == ()


def packed(data):
    return b"name\0\0" + zlib.compress(data)


ZEROS = bytes(bounds.MAX_PROFILE + 1)


@pytest.mark.parametrize(
    ("kind", "data", "note"),
    [
        (b"zTXt", packed(ZEROS), ""),
        (b"tEXt", b"name\0" + ZEROS[: 2**26], ""),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(ZEROS), "dropped: zTXt"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(ZEROS), "dropped: iTXt"),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + ZEROS, "dropped: iTXt"),
        (b"iCCP", packed(ZEROS), "color profile was dropped"),
        *((kind, b"\0", f"dropped: {kind.decode()}") for kind in (b"gAMA", b"cHRM", b"pHYs")),
        (b"sRGB", b"", "dropped: sRGB"),
        *((kind, b"x\0", f"dropped: {kind.decode()}") for kind in (b"iCCP", b"acTL", b"tRNS")),
        (b"fcTL", b"", "dropped: fcTL"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_chunks_that_no_viewer_needs_cost_themselves_alone(kind, data, note, last):
    content = encoded(picture(), "PNG")
    at = -12 if last and kind.endswith(b"t") else 33
    content = content[:at] + png_chunk(kind, data) * 5 + content[at:]
    tracemalloc.start()
    photograph = read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(photograph.pixels, picture())
    assert len(photograph.notes) == bool(note)
    assert note in "".join(photograph.notes)
    assert peak < 3 * len(content) + 2 * bounds.MAX_PROFILE


def test_many_chunks_unpack_to_no_more_than_one():
    text = b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(2**20))
    content = with_chunk(encoded(picture(), "PNG"), b"zTXt", text)
    content = content[:33] + content[33 : 45 + len(text)] * 20_000 + content[33:]
    started = time.process_time()
    assert "dropped: zTXt" in read(content).notes[0]
    assert time.process_time() - started < 2


@pytest.mark.parametrize("kind", [b"iCCP", b"eXIf", b"tIME", b"iTXt"])
def test_chunks_of_a_wrong_checksum_are_dropped(kind):
    data = b"XML:com.adobe.xmp\0\0\0\0\0" if kind == b"iTXt" else packed(b"a")
    content = with_chunk(encoded(picture(), "PNG"), kind, data)
    photograph = read(content.replace(png_chunk(kind, data), png_chunk(kind, data)[:-1] + b"?"))
    np.testing.assert_array_equal(photograph.pixels, picture())
    assert photograph.icc_profile is None
    assert f"dropped: {kind.decode()}" in photograph.notes[0]


def test_damaged_pixels_of_a_png_are_refused():
    pixels = picture()
    pixels[-3:] = 0  # a black border is no damage
    content = encoded(pixels, "PNG")
    np.testing.assert_array_equal(read(content).pixels, pixels)
    np.testing.assert_array_equal(read(content[:-14]).pixels, pixels)  # cut in the checksum
    assert "checksum" in refusal(content[:-13] + bytes([content[-13] ^ 1]) + content[-12:])
    header, end = content[:33], content[-12:]
    rows = np.pad(pixels.reshape(24, 96), ((0, 0), (1, 0)))  # each begins with its filter
    for missing in (1, 2, 23):
        data = png_chunk(b"IDAT", zlib.compress(rows[: 24 - missing].tobytes()))
        assert "before its last row" in refusal(header + data + end)
    passes = [pixels[y::down, x::right] for y, x, down, right in png._PASSES]
    rows_of_passes = [np.pad(each.reshape(len(each), -1), ((0, 0), (1, 0))) for each in passes]
    header = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", content[16:28] + b"\1")
    for count in (7, 6):
        data = zlib.compress(b"".join(each.tobytes() for each in rows_of_passes[:count]))
        content = header + png_chunk(b"IDAT", data) + end
        if count == 7:
            np.testing.assert_array_equal(read(content).pixels, pixels)
        else:
            assert "before its last row" in refusal(content)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_pixels_of_a_png_are_unpacked_once_whatever_they_are(mode, monkeypatch):
    monkeypatch.setattr(png, "has_all_rows", lambda content: pytest.fail("unpacked again"))
    size = 100, 70
    for content in (bytes(100 * 70 * 4), b"\xff" * 100 * 70 * 4):
        stream = io.BytesIO()
        length = len(Image.new(mode, size).tobytes())
        Image.frombytes(mode, size, content[:length]).save(stream, "PNG")
        assert read(stream.getvalue()).pixels.shape == (70, 100, 3)


@pytest.mark.parametrize(
    "segment",
    [b"\xe0JFIF", b"\xe0JFIF\0", b"\xeeAdobe\0", b"\xe2ICC_PROFILE\0",
     b"\xedPhotoshop 3.0\x008BIM\0"],
)  # fmt: skip
def test_segments_of_a_jpeg_that_are_cut_off_cost_themselves_alone(segment):
    jpeg = encoded(picture(), "JPEG")
    head = 4 + struct.unpack_from(">H", jpeg, 4)[0]  # behind its JFIF
    size = struct.pack(">H", len(segment) + 1)
    odd = b"\xff" + segment[:1] + size + segment[1:]
    expected = read(jpeg).pixels
    for content in (jpeg[:head] + odd + jpeg[head:], jpeg[:2] + odd + jpeg[head:]):
        np.testing.assert_array_equal(read(content).pixels, expected)


def test_a_png_without_its_palette_is_damaged():
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 3, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes(3)))
    assert "damaged" in refusal(b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_transparent_key_of_a_png_of_few_bits(bits):
    levels = np.arange(16)[None] % 2**bits
    row = "".join(f"{level:0{bits}b}" for level in levels[0])
    data = zlib.compress(bytes([0, *int(row, 2).to_bytes(2 * bits, "big")]))
    for key, unused in [(key, unused) for key in range(2**bits) for unused in (0, 0xFFF0)]:
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            png_chunk(*chunk)
            for chunk in (
                (b"IHDR", struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)),
                (b"tRNS", struct.pack(">H", key | unused)),
                (b"IDAT", data),
                (b"IEND", b""),
            )
        )
        photograph = read(content)
        np.testing.assert_array_equal(photograph.alpha == 0, levels == key)
        np.testing.assert_array_equal(photograph.pixels[..., 0], levels * 255 // (2**bits - 1))
        hole = images.read_mask(io.BytesIO(content), name="mask", polarity="clear")
        np.testing.assert_array_equal(hole, levels == key)


def test_run_length_encoded_bmp_is_bounded_and_read():
    def bmp(width, height, data):
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
        palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
        start = 14 + len(header) + len(palette)
        return (
            b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data
        )

    photograph = read(bmp(4, 2, b"\4\x07\0\0\4\x09\0\1"))
    assert photograph.pixels[..., 0].tolist() == [[9] * 4, [7] * 4]
    assert "run-length encoded BMP must have" in refusal(bmp(9000, 9000, b"\0\0" * 10))
    assert "run-length encoded BMP must have" in refusal(bmp(9, 9, b"\1\1" * 2**23))


def test_scans_segments_and_chunks_are_bounded():
    jpeg = encoded(picture(), "JPEG", progressive=True)
    scan = jpeg.rindex(b"\xff\xda")
    assert "at most 100 scans" in refusal(jpeg[:scan] + jpeg[scan:-2] * 200 + jpeg[-2:])
    assert "segments" in refusal(jpeg[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg[2:])
    chunks = png_chunk(b"teSt", b"") * 100_001
    content = encoded(picture(), "PNG")
    assert "chunks" in refusal(content[:33] + chunks + content[33:])


def test_a_film_behind_a_jpeg_holds_no_scans():
    """Motion photographs: random bytes look like markers."""
    content = encoded(picture(), "JPEG") + b"\xff\xda\0\2" * 1000
    assert read(content).format == "JPEG"


def test_avif_and_heic_are_read():
    assert images.opening.register_heif()
    smooth = np.asarray(Image.fromarray(picture(8, 8)).resize((64, 48), Image.Resampling.BICUBIC))
    for image_format in ("AVIF", "HEIF"):
        photograph = read(encoded(smooth, image_format, quality=95))
        assert photograph.format == image_format
        assert np.abs(photograph.pixels.astype(int) - smooth).mean() < 6


def test_heic_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(images.opening, "register_heif", lambda: False)
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    assert "pip install 'musical-tf[heif]'" in refusal(content)
