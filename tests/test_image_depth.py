"""Depth, color models and the odd files that every viewer shows."""

import base64
import io
import struct
import zlib

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from musical_tf import images
from musical_tf.images import bounds
from tests.pictures import SRGB, encoded, picture, png_chunk, reread
from tests.test_image_bounds import read, refusal, with_chunk


def deep(channels=3, height=24, width=32):
    rng = np.random.default_rng(channels)
    return rng.integers(0, 65536, (height, width, channels), dtype=np.uint16)


def png16(samples, extra=b"", interlace=0):
    height, width, channels = samples.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, interlace)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def tiff(samples, **options):
    options.setdefault("photometric", "rgb" if samples.shape[-1] > 2 else "minisblack")
    if options.get("planarconfig") == "separate":
        samples = samples.transpose(2, 0, 1)
    elif samples.shape[-1] == 1:
        samples = samples[..., 0]
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.ascontiguousarray(samples), metadata=None, **options)
    return stream.getvalue()


def pnm(samples):
    height, width, channels = samples.shape
    head = f"P{5 if channels == 1 else 6} {width} {height} 65535\n".encode()
    return head + samples.astype(">u2").tobytes()


ALPHA = {"extrasamples": ["unassalpha"]}
PREDICTED = {"predictor": True, **ALPHA}
DEEP_FILES = {
    **{f"PNG {channels}": (png16, channels, {}) for channels in (1, 2, 3, 4)},
    "PPM 1": (pnm, 1, {}),
    "PPM 3": (pnm, 3, {}),
    "TIFF grey": (tiff, 1, {}),
    "TIFF grey big-endian": (tiff, 1, {"byteorder": ">"}),
    "TIFF grey tiles": (tiff, 1, {"tile": (16, 16), "compression": "zlib", "predictor": True}),
    "TIFF rgb": (tiff, 3, {}),
    "TIFF rgba": (tiff, 4, ALPHA),
    "TIFF big-endian": (tiff, 3, {"byteorder": ">"}),
    "TIFF deflate": (tiff, 3, {"compression": "zlib"}),
    "TIFF planar": (tiff, 3, {"planarconfig": "separate"}),
    "TIFF planar strips": (tiff, 3, {"planarconfig": "separate", "rowsperstrip": 5}),
    "TIFF planar tiles": (tiff, 3, {"planarconfig": "separate", "tile": (16, 16)}),
    "TIFF planar deflate": (tiff, 3, {"planarconfig": "separate", "compression": "zlib"}),
    "TIFF planar big-endian": (tiff, 3, {"planarconfig": "separate", "byteorder": ">"}),
    "TIFF planar BigTIFF": (tiff, 3, {"planarconfig": "separate", "bigtiff": True}),
    "TIFF planar rgba": (tiff, 4, {"planarconfig": "separate", **ALPHA}),
    "TIFF BigTIFF": (tiff, 3, {"bigtiff": True}),
    "TIFF grey alpha": (tiff, 2, ALPHA),
    "TIFF grey alpha white is zero": (tiff, 2, {"photometric": "miniswhite", **ALPHA}),
    "TIFF grey alpha big-endian": (tiff, 2, {"byteorder": ">", "compression": "zlib", **ALPHA}),
    "TIFF grey alpha tiles": (tiff, 2, {"tile": (16, 16), "compression": "zlib", **PREDICTED}),
    "TIFF grey alpha predictor": (tiff, 2, {"compression": "zlib", **PREDICTED}),
    "TIFF grey alpha planar": (tiff, 2, {"planarconfig": "separate", **ALPHA}),
}


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_16_bits_in_16_bits_out_with_exact_known_samples(kind):
    write, channels, options = DEEP_FILES[kind]
    samples = deep(channels)
    photograph = read(write(samples, **options))
    if options.get("photometric") == "miniswhite":
        samples[..., 0] = ~samples[..., 0]
    np.testing.assert_array_equal(photograph.samples, samples)
    colors = samples[..., :3] if channels > 2 else samples[..., :1].repeat(3, axis=2)
    np.testing.assert_array_equal(photograph.pixels, colors >> 8)
    assert photograph.grey == (channels < 3)
    filled = photograph.pixels.copy()
    hole = np.zeros(filled.shape[:2], bool)
    hole[5:9, 6:12] = True
    filled[hole] = 200
    expected = samples.copy()
    expected[hole, : 1 if photograph.grey else 3] = 200 * 257
    for image_format in (None, "PNG", "TIFF", "PPM"):
        if channels in (2, 4) and image_format == "PPM":
            continue
        for where in (hole, None):
            again = images.encode_photograph(photograph, filled, image_format, hole=where)
            np.testing.assert_array_equal(read(again).samples, expected)
    other = tifffile.imread(
        io.BytesIO(images.encode_photograph(photograph, filled, "TIFF", hole=hole))
    )
    np.testing.assert_array_equal(other.reshape(expected.shape), expected)
    assert images.lost_in(photograph, "TIFF") == ()
    assert "become 8" in images.lost_in(photograph, "WEBP")[0]


@pytest.mark.parametrize("kind", DEEP_FILES)
def test_no_cut_file_of_16_bits_is_read_with_other_samples(kind):
    write, channels, options = DEEP_FILES[kind]
    content = write(deep(channels), **options)
    samples = read(content).samples
    for cut in (*range(1, 20), 50, 100, 500):
        try:
            found = read(content[:-cut]).samples
        except images.ImageError:
            continue
        np.testing.assert_array_equal(found, samples)


def test_strips_that_are_too_short_are_damage():
    content = bytearray(tiff(deep()))
    (tag,) = (tag for tag in bounds.tiff_pages(bytes(content))[0] if tag.number == 279)
    struct.pack_into("<I", content, tag.data, 100)
    assert "its pixels reach beyond its end" in refusal(bytes(content[:-100]))


@pytest.mark.parametrize("image_format", sorted(set(images.WRITABLE.values())))
def test_every_mode_and_depth_that_is_written_is_read(image_format):
    compressions = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")
    lossy = {"JPEG": 4, "AVIF": 4}.get(image_format, 0)
    smooth = np.linspace(0, 65535, 24 * 32).reshape(24, 32, 1).astype(np.uint16)
    for channels in (1, 2, 3, 4):
        for samples in (None, smooth.repeat(channels, axis=2)):
            eight = smooth.repeat(3, axis=2).astype(np.uint16) >> 8
            alpha = (smooth[..., 0] >> 8).astype(np.uint8) if channels in (2, 4) else None
            for compression in compressions if image_format == "TIFF" else (None,):
                encoding = {"compression": compression} if compression else {}
                photograph = images.Photograph(
                    eight.astype(np.uint8), alpha, channels < 3, image_format, (32, 24),
                    encoding=encoding, samples=samples,
                )  # fmt: skip
                if alpha is not None and image_format in ("JPEG", "BMP", "PPM"):
                    with pytest.raises(images.ImageError, match="cannot hold transparency"):
                        images.encode_photograph(photograph, photograph.pixels)
                    continue
                again = read(images.encode_photograph(photograph, photograph.pixels))
                if samples is not None and image_format in ("PNG", "TIFF", "PPM"):
                    np.testing.assert_array_equal(again.samples, samples)
                difference = np.abs(again.pixels.astype(int) - photograph.pixels)
                assert difference.max() <= lossy
                if alpha is not None:
                    assert np.abs(again.alpha.astype(int) - alpha).max() <= lossy


@pytest.mark.parametrize("twelve", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_heic_of_10_and_12_bits_gives_16(mode, twelve, monkeypatch):
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", twelve)
    samples = deep(len(mode))
    stream = io.BytesIO()
    pillow_heif.from_bytes(f"{mode};16", (32, 24), samples.tobytes()).save(
        stream, quality=-1, chroma=444, matrix_coefficients=0
    )
    photograph = read(stream.getvalue())
    bits = 12 if twelve else 10
    expected = np.rint((samples >> 16 - bits) * (65535 / (2**bits - 1))).astype(np.uint16)
    np.testing.assert_array_equal(photograph.samples, expected)
    assert photograph.notes == ()
    written = read(images.encode_photograph(photograph, photograph.pixels))
    assert written.format == "PNG"
    np.testing.assert_array_equal(written.samples, photograph.samples)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_of_more_than_8_bits_is_refused_by_name(bits):
    level = (2**bits - 1) * np.ones((24, 32, 3), np.uint8 if bits == 8 else np.uint16)
    _, content = cv2.imencode(".avif", level, [cv2.IMWRITE_AVIF_DEPTH, bits])
    content = content.tobytes()
    np.testing.assert_array_equal(images.read_mask(io.BytesIO(content), name="m"), True)
    if bits == 8:
        assert read(content).pixels.min() == 255
    else:
        assert f"must have 8 bits a channel in AVIF, got {bits}" in refusal_of_photograph(content)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_agrees_with_another_reader_and_writer(channels):
    samples = deep(channels)
    written = images.encode_photograph(read(png16(samples)), read(png16(samples)).pixels, "PNG")
    theirs = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)
    if channels > 2:
        theirs = theirs[..., [2, 1, 0, 3][:channels] if channels == 4 else [2, 1, 0]]
    if channels != 2:  # OpenCV makes grey with alpha four channels
        np.testing.assert_array_equal(theirs.reshape(samples.shape), samples)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG 3", "PNG 2", "TIFF rgb", "TIFF grey", "TIFF planar"])
def test_16_bits_are_turned_as_8_are(kind, orientation):
    write, channels, options = DEEP_FILES[kind]
    samples = deep(channels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if write is png16:
        content = write(samples, png_chunk(b"eXIf", exif.tobytes()[6:]))
    else:
        content = write(samples, extratags=[(274, 3, 1, orientation, True)], **options)
    photograph = read(content)
    eight = read(encoded((samples >> 8).astype(np.uint8).squeeze(), "PNG", exif=exif))
    np.testing.assert_array_equal(photograph.pixels, eight.pixels)
    upper = photograph.samples[..., : 1 if channels < 3 else 3] >> 8
    np.testing.assert_array_equal(np.broadcast_to(upper, eight.pixels.shape), eight.pixels)
    assert photograph.stored_size == (32, 24)
    again = read(images.encode_photograph(photograph, photograph.pixels))
    np.testing.assert_array_equal(again.samples, photograph.samples)


def test_metadata_of_16_bits_is_kept():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    extra = png_chunk(b"cICP", bytes([12, 13, 0, 1])) + png_chunk(b"eXIf", exif.tobytes()[6:])
    written = images.encode_photograph(read(png16(deep(), extra)), read(png16(deep())).pixels)
    assert png_chunk(b"cICP", bytes([12, 13, 0, 1])) in written
    assert reread(written).getexif()[ExifTags.Base.Make] == "Camera"
    for options in ({}, {"planarconfig": "separate"}, {"bigtiff": True}):
        content = tiff(deep(), iccprofile=SRGB, resolution=(300, 300), software="S", **options)
        photograph = read(content)
        again = reread(images.encode_photograph(photograph, photograph.pixels))
        assert again.info["icc_profile"] == SRGB
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert again.getexif()[ExifTags.Base.Software] == "S"


def test_transparent_key_of_a_16_bit_png():
    samples = deep()
    samples[2, 3] = (1000, 2000, 3000)
    photograph = read(png16(samples, png_chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))))
    assert np.argwhere(photograph.alpha == 0).tolist() == [[2, 3]]
    np.testing.assert_array_equal(photograph.samples[..., :3], samples)


def test_masks_of_16_bits_in_planes():
    mask = np.zeros((24, 32, 3), np.uint16)
    mask[5:9, 6:12] = 65535
    for options in ({}, {"planarconfig": "separate"}):
        content = tiff(mask, **options)
        np.testing.assert_array_equal(
            images.read_mask(io.BytesIO(content), name="m"), mask[..., 0] > 0
        )


@pytest.mark.parametrize("level", [1, 255, 300, 65535])
@pytest.mark.parametrize("order", ["<", ">"])
def test_gray_tiff_of_16_bits(level, order):
    mask = np.zeros((24, 32, 1), np.uint16)
    mask[5:9, 6:12] = level
    for photometric, samples in (("minisblack", mask), ("miniswhite", ~mask)):
        content = tiff(samples, photometric=photometric, byteorder=order)
        hole = images.read_mask(io.BytesIO(content), name="m")
        np.testing.assert_array_equal(hole, mask[..., 0] > 0)
        np.testing.assert_array_equal(read(content).samples, mask)


def test_a_transparent_level_of_a_16_bit_mask_is_no_hole():
    mask = np.zeros((24, 32, 1), np.uint16)
    mask[5:9, 6:12], mask[12:] = 65535, 40000
    content = png16(mask, png_chunk(b"tRNS", struct.pack(">H", 40000)))
    hole = images.read_mask(io.BytesIO(content), name="m")
    np.testing.assert_array_equal(hole, mask[..., 0] == 65535)
    clear = images.read_mask(io.BytesIO(content), name="m", polarity="clear")
    np.testing.assert_array_equal(clear, mask[..., 0] == 40000)


def test_packed_12_bits_are_refused_by_name():
    content = bytearray(tiff(np.zeros((24, 32, 3), np.uint16)))
    (tag,) = (tag for tag in bounds.tiff_pages(bytes(content))[0] if tag.number == 258)
    struct.pack_into("<3H", content, tag.data, 12, 12, 12)
    assert "it has 12 bits a channel: save it with 8 or 16" in refusal(bytes(content))


@pytest.mark.parametrize(
    ("dtype", "what"),
    [(np.uint32, "32 bits"), (np.float32, "floating point"), (np.float16, "floating point")],
)
def test_other_depths_are_refused_by_name(dtype, what):
    assert what in refusal(tiff(np.zeros((24, 32, 3), dtype)))


@pytest.mark.parametrize(("photometric", "number"), [("logl", 32844), ("cfa", 32803), ("mask", 4)])
def test_other_color_models_are_refused_by_name(photometric, number):
    content = tiff(np.zeros((24, 32, 1), np.uint8), photometric=photometric)
    assert f"photometric interpretation {number} is not read" in refusal(content)


def test_jpeg_of_12_bits_is_refused_by_name():
    content = bytearray(encoded(picture(), "JPEG"))
    content[content.index(b"\xff\xc0") + 4] = 12
    assert "must have 8 bits a channel, got 12" in refusal(bytes(content))


@pytest.mark.parametrize("channels", [2, 4])
def test_colors_that_were_multiplied_by_alpha_are_divided_with_a_note(channels):
    samples = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    samples[..., -1] |= 1
    samples[..., :-1] = samples[..., :-1] * (samples[..., -1:] / 255)
    exif = {"extratags": [(274, "H", 1, 6, True)], "software": "S"}
    content = tiff(samples, extrasamples=["assocalpha"], **exif)
    photograph = read(content)
    samples = np.rot90(samples, -1)
    np.testing.assert_array_equal(photograph.alpha, samples[..., -1])
    back = photograph.pixels[..., : channels - 1] * (samples[..., -1:] / 255)
    assert np.abs(back - samples[..., :-1]).max() < 1
    assert "multiplied by its alpha" in photograph.notes[0]
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.getexif()[ExifTags.Base.Software] == "S"
    samples[..., -1] = 255
    assert read(tiff(samples, extrasamples=["assocalpha"])).notes == ()
    planes = tiff(samples, extrasamples=["assocalpha"], planarconfig="separate")
    assert "must be straight alpha" in refusal(planes)


def test_rgb565_bmp_is_read():
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    header = struct.pack("<IiiHHIIiiII", 40, 4, -1, 1, 16, 3, 8, 0, 0, 0, 0)
    data = struct.pack("<4H", 0xF800, 0x07E0, 0x001F, 0xFFFF)
    start = 14 + len(header) + len(masks)
    content = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + data
    photograph = read(content)
    assert photograph.pixels[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3]
    assert photograph.samples is None


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("levels", [(0, 255), (255, 0), (255, 255), (3, 40), range(8), range(16)])
def test_bmp_of_few_colors_in_several_bits(bits, levels):
    indices = np.eye(8, 16, dtype=np.uint8) * np.uint8(len(levels) - 1)
    data = indices if bits == 8 else indices[:, ::2] << 4 | indices[:, 1::2]
    header = struct.pack("<IiiHHIIiiII", 40, 16, -8, 1, bits, 0, data.size, 0, 0, len(levels), 0)
    palette = b"".join(bytes([level, level, level, 0]) for level in levels)
    start = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + data.size, 0, 0, start) + header + palette
    photograph = read(head + data.tobytes())
    np.testing.assert_array_equal(photograph.pixels[..., 0], np.array(levels)[indices])


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "zlib", **PREDICTED}, {"tile": (16, 16)},
     {"photometric": "miniswhite"}],
)  # fmt: skip
def test_gray_and_alpha_in_planes_are_read(options):
    samples = picture(channels=2)
    turned = {"extratags": [(274, "H", 1, 6, True)], "planarconfig": "separate"}
    photograph = read(tiff(samples, **ALPHA | turned | options))
    if "photometric" in options:
        samples[..., 0] = 255 - samples[..., 0]
    samples = np.rot90(samples, -1)
    assert photograph.grey
    np.testing.assert_array_equal(photograph.pixels[..., 0], samples[..., 0])
    np.testing.assert_array_equal(photograph.alpha, samples[..., 1])


def test_layouts_of_a_tiff_that_are_not_read_are_refused_by_name():
    gray = tiff(picture(channels=2), planarconfig="separate", extrasamples=["assocalpha"])
    assert "straight alpha of 8 bits" in refusal(gray)
    content = bytearray(tiff(picture()))
    (tag,) = (tag for tag in bounds.tiff_pages(content)[0] if tag.number == 259)
    struct.pack_into("<H", content, tag.data, 34712)
    assert "RGB colors, 3 channels of 8 bits" in refusal(bytes(content))
    assert "compression 34712 is not read" in refusal(bytes(content))


def test_palette_of_a_tiff_that_holds_8_bits_a_color():
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    for order in "<>":
        indices = picture(channels=1)
        content = tiff(indices, photometric="palette", colormap=palette, byteorder=order)
        np.testing.assert_array_equal(read(content).pixels, palette.T[indices[..., 0]])


def test_a_resolution_that_no_format_holds_is_left_out():
    photograph = read(tiff(picture(), resolution=(2e9, 2e9)))
    for image_format in ("PNG", "JPEG", "TIFF", "BMP"):
        content = images.encode_photograph(photograph, photograph.pixels, image_format)
        assert reread(content).size == (32, 24)


def test_cmyk_and_lab_are_converted_or_refused_by_name():
    lab = ImageCms.profileToProfile(
        Image.fromarray(picture()),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    stream = io.BytesIO()
    lab.save(stream, "TIFF")
    photograph = read(stream.getvalue())
    assert np.abs(photograph.pixels.astype(int) - picture()).mean() < 3
    assert "converted from Lab to sRGB" in photograph.notes[0]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(photograph.icc_profile))
    assert "sRGB" in ImageCms.getProfileDescription(profile)
    for image_format in ("JPEG", "TIFF"):
        stream = io.BytesIO()
        Image.new("CMYK", (8, 8)).save(stream, image_format, icc_profile=SRGB)
        with pytest.raises(images.ImageError, match="profile does not convert CMYK to RGB"):
            read(stream.getvalue())


def in_srgb(lab):
    """CIE Lab of D50 in 8-bit sRGB, by the formulas."""
    light, a, b = np.moveaxis(np.asarray(lab, float), -1, 0)
    y = (light + 16) / 116
    cubes = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))
    linear = xyz * (0.9642, 1, 0.8249) @ np.transpose(
        [(3.1338561, -1.6168667, -0.4906146), (-0.9787684, 1.9161415, 0.0334540),
         (0.0719453, -0.2289914, 1.4052427)]
    )  # fmt: skip
    linear = linear.clip(0, 1)
    return 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


INKS = np.array(np.meshgrid(*[[0, 255]] * 4, indexing="ij"), np.uint8).reshape(4, 16).T
PRINTED = np.array([255, 128, 128]) + INKS / 255 @ np.array(
    [(-60, -20, -15), (-70, 25, -3), (-25, -3, 25), (-100, -2, -7)]
)
"""The color of each of the 16 mixtures of inks, as the bytes of Lab in a profile."""


def cmyk_profile():
    """A profile of a printer: ICC version 2, one table with a color for each mixture of inks."""
    ramp = bytes(range(256))
    ones = struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + ones + ramp * 4
    table += PRINTED.astype(np.uint8).tobytes() + ramp * 3
    white = struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Inks\0" + bytes(79)
    tags = {b"desc": name, b"wtpt": b"XYZ " + bytes(4) + white, b"A2B0": table}
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    directory, data = struct.pack(">I", len(tags)), b""
    for kind, content in tags.items():
        start = 128 + 4 + 12 * len(tags) + len(data)
        directory += kind + struct.pack(">II", start, len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">4sI4s4s4s12s4s28s", bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ",
                       struct.pack(">6H", 2020, 1, 1, 0, 0, 0), b"acsp", bytes(28))  # fmt: skip
    rest = head + white + bytes(48) + directory + data
    return struct.pack(">I", 4 + len(rest)) + rest


@pytest.mark.parametrize("image_format", ["TIFF", "JPEG"])
def test_cmyk_is_converted_through_its_profile(image_format):
    inks = np.repeat(np.repeat(INKS[None], 8, axis=0), 8, axis=1)
    image = Image.fromarray(inks, "CMYK")
    stream = io.BytesIO()
    image.save(stream, image_format, icc_profile=cmyk_profile(), quality=100)
    photograph = read(stream.getvalue())
    lab = PRINTED.astype(np.uint8) * (100 / 255, 1, 1) - (0, 128, 128)
    expected = np.repeat(in_srgb(lab), 8, axis=0)[None]
    assert np.abs(photograph.pixels - expected).max() < (2 if image_format == "TIFF" else 4)
    assert "converted from CMYK to sRGB" in photograph.notes[0]
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert (again.format, again.mode) == (image_format, "RGB")
    image.save(stream := io.BytesIO(), image_format)
    assert "CMYK: without a profile its colors are unknown" in refusal_of_photograph(
        stream.getvalue()
    )


def test_lossless_jpeg_is_read_and_written():
    """8 x 8 gray pixels, by libjpeg-turbo's lossless mode, which Pillow does not write."""
    content = base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAIAAgBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAAAwQI/9oACAEBAAEA"
        "AM/qqqqrSqqqqtKqqqq0qqqqrSqqqqtKqqqq0qqqqrSqqqqv/9k="
    )
    photograph = read(content)
    expected = np.add.outer(np.arange(8) * 9, np.arange(8) * 5)
    np.testing.assert_array_equal(photograph.pixels[..., 0], expected)
    written = read(images.encode_photograph(photograph, photograph.pixels))
    assert np.abs(written.pixels[..., 0].astype(int) - expected).max() < 4


@pytest.mark.parametrize(("photometric", "offset"), [("cielab", 0), ("icclab", 128)])
def test_lab_has_the_colors_of_its_formulas(photometric, offset):
    lab = np.array([(0, 0, 0), (50, 0, 0), (99, 0, 0), (60, 40, 30), (60, -30, 20), (40, 10, -40)])
    stored = np.rint(lab * (2.55, 1, 1)) + np.array([0, offset, offset])
    content = tiff(
        (stored[None] % 256).astype(np.uint8),
        photometric=photometric,
        extratags=[(274, 3, 1, 3, True)],  # turned by 180 degrees
    )
    assert np.abs(read(content).pixels[:, ::-1] - in_srgb(lab)).max() < 3


def test_bigtiff_is_written_back_readable():
    content = tiff(picture(), bigtiff=True, software="S")
    photograph = read(content)
    np.testing.assert_array_equal(photograph.pixels, picture())
    for image_format in ("TIFF", "PNG", "JPEG", "WEBP"):
        again = reread(images.encode_photograph(photograph, photograph.pixels, image_format))
        assert again.getexif()[ExifTags.Base.Software] == "S"


@pytest.mark.parametrize("profile", [None, SRGB])
def test_cicp_is_kept_in_a_png(profile):
    options = {"icc_profile": profile} if profile else {}
    content = with_chunk(encoded(picture(), "PNG", **options), b"cICP", bytes([12, 13, 0, 1]))
    photograph = read(content)
    written = images.encode_photograph(photograph, photograph.pixels)
    assert png_chunk(b"cICP", bytes([12, 13, 0, 1])) in written
    assert reread(written).info.get("icc_profile") == profile
    assert "cICP" in images.lost_in(photograph, "TIFF")[0]


def test_exif_too_large_for_a_jpeg_is_said():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    exif.get_ifd(ExifTags.IFD.Exif)[0x9286] = b"ASCII\0\0\0" + b"x" * 70000
    photograph = read(encoded(picture(), "PNG", exif=exif))
    assert images.lost_in(photograph, "PNG") == ()
    assert "write a PNG to keep it" in images.lost_in(photograph, "JPEG")[0]
    assert not reread(images.encode_photograph(photograph, photograph.pixels, "JPEG")).getexif()
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert len(again.getexif().get_ifd(ExifTags.IFD.Exif)[0x9286]) > 70000


@pytest.mark.parametrize("number", [1, 2, 3])
def test_jpeg_whose_only_table_has_another_number(number):
    content = bytearray(encoded(picture()[..., 0], "JPEG", quality=90))
    content[content.index(b"\xff\xdb") + 4] = number
    content[content.index(b"\xff\xc0") + 12] = number
    photograph = read(bytes(content))
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert list(again.quantization.values()) == list(reread(content).quantization.values())


def pages(*kinds):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for kind in kinds:
            writer.write(picture(), photometric="rgb", subfiletype=kind, metadata=None)
    return stream.getvalue()


def test_preview_pages_of_a_tiff_are_no_pages():
    np.testing.assert_array_equal(read(pages(0, 1, 1)).pixels, picture())
    assert "several frames" in refusal_of_photograph(pages(0, 0))
    assert "several frames" in refusal_of_photograph(pages(0, 1, 2))
    assert "first page is a preview" in refusal_of_photograph(pages(1, 0))


def refusal_of_photograph(content):
    with pytest.raises(images.ImageError) as error:
        read(content)
    return str(error.value)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cut", [1, 2])
def test_jpeg_without_its_end_marker_is_read(progressive, cut):
    whole = encoded(picture(60, 80), "JPEG", progressive=progressive)
    photograph = read(whole[:-cut])
    np.testing.assert_array_equal(photograph.pixels, read(whole).pixels)
    assert "without its end marker" in photograph.notes[0]
    for missing in (12, 100, 400):
        assert "it is damaged" in refusal(whole[:-missing])


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0, "quality": 95}],
)
def test_no_cut_jpeg_is_read_with_other_pixels(options):
    """A cut may end behind a whole scan, before a restart marker or within a code."""
    smooth = Image.fromarray(picture(8, 8)).resize((48, 40), Image.Resampling.BICUBIC)
    whole = encoded(np.asarray(smooth), "JPEG", **options)
    pixels, accepted = read(whole).pixels, 0
    for cut in range(1, len(whole) - whole.index(b"\xff\xc4")):
        try:
            found = read(whole[:-cut]).pixels
        except images.ImageError:
            continue
        np.testing.assert_array_equal(found, pixels)
        accepted += 1
    assert accepted >= 2


@pytest.mark.parametrize(
    ("channels", "lost"),
    [
        (4, ["unspecified"]),
        (5, ["unspecified"] * 2),
        (4, ["unassalpha"]),
        (5, ["unassalpha", "unspecified"]),
    ],
)
def test_channels_of_no_known_meaning_are_named(tmp_path, channels, lost):
    samples = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    file = tmp_path / "extra.tif"
    tifffile.imwrite(file, samples, photometric="rgb", extrasamples=lost, planarconfig="contig")
    photograph = images.read_photograph(file)
    np.testing.assert_array_equal(photograph.pixels, samples[..., :3])
    if lost == ["unassalpha"]:
        assert photograph.notes == ()
    else:
        count = lost.count("unspecified")
        words = f"{count} extra channel(s) were dropped: they are not marked as opacity"
        assert photograph.notes == (words,)
