import io
import os
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin

from musical_tf import files, images
from tests.pictures import SRGB, header_only_png, picture, reread


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_grey_stays_grey_and_exact(tmp_path, suffix):
    path, grey = tmp_path / f"a{suffix}", picture()[..., 0]
    Image.fromarray(grey).save(path)
    photograph = images.read_photograph(path)
    assert photograph.grey
    np.testing.assert_array_equal(photograph.pixels, grey[..., None].repeat(3, axis=2))
    pixels = photograph.pixels.copy()
    pixels[3, 3] = (255, 0, 0)
    again = reread(images.encode_photograph(photograph, pixels))
    assert again.mode == "L"
    expected = grey.copy()
    expected[3, 3] = 76
    np.testing.assert_array_equal(np.asarray(again), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_alpha_is_kept_also_where_it_hides_colours(tmp_path, mode, suffix):
    if (mode, suffix) == ("LA", ".webp"):
        mode = "RGBA"  # WebP has no grey
    path, pixels = tmp_path / f"a{suffix}", picture(channels=len(mode))
    pixels[:4, :4, -1] = 0
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(pixels, mode).save(path, **options)
    photograph = images.read_photograph(path)
    np.testing.assert_array_equal(photograph.alpha, pixels[..., -1])
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.mode == mode
    np.testing.assert_array_equal(np.asarray(again), pixels)


def test_palette_becomes_true_colour_with_the_same_colours(tmp_path):
    indexed = Image.fromarray(picture()).quantize(16)
    for suffix in (".png", ".tiff"):
        path = tmp_path / f"a{suffix}"
        indexed.save(path)
        photograph = images.read_photograph(path)
        again = reread(images.encode_photograph(photograph, photograph.pixels))
        assert again.mode == "RGB"
        assert again.format == photograph.format
        np.testing.assert_array_equal(np.asarray(again), np.asarray(indexed.convert("RGB")))


def test_transparent_palette_and_colour_key_become_alpha(tmp_path):
    indexed = Image.fromarray(picture()).quantize(16)
    indexed.save(tmp_path / "palette.png", transparency=3)
    photograph = images.read_photograph(tmp_path / "palette.png")
    np.testing.assert_array_equal(photograph.alpha == 0, np.asarray(indexed) == 3)
    keyed = picture()
    keyed[2:5, 2:5] = (1, 2, 3)
    Image.fromarray(keyed).save(tmp_path / "key.png", transparency=(1, 2, 3))
    photograph = images.read_photograph(tmp_path / "key.png")
    np.testing.assert_array_equal(photograph.alpha == 0, (keyed == (1, 2, 3)).all(axis=2))
    np.testing.assert_array_equal(photograph.pixels, keyed)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    """Whatever the tag: what a viewer shows before and after is the same picture."""
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :16] = (200, 30, 30)  # a red corner, top left as shown
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(transposes[undo[orientation]])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Camera"
    path = tmp_path / f"a{suffix}"
    stored.save(path, exif=exif)
    photograph = images.read_photograph(path)
    assert photograph.pixels.shape == (32, 64, 3)
    assert photograph.stored_size == stored.size
    assert photograph.pixels[8, 8, 0] > 150
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.getexif()[ExifTags.Base.Orientation] == 1
    assert again.getexif()[ExifTags.Base.Make] == "Camera"
    assert again.size == (64, 32)
    assert np.asarray(again)[8, 8, 0] > 150


def exif_with_details_and_preview():
    """EXIF as a camera writes it: sub-directories for details and position, and a preview."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "M1"
    exif[ExifTags.Base.Orientation] = 6
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.LensModel] = "50mm"
    details[ExifTags.Base.ExifImageWidth] = 64
    details[ExifTags.Base.ExifImageHeight] = 32
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    content = exif.tobytes()
    preview = io.BytesIO()
    Image.new("RGB", (16, 8), (255, 0, 0)).save(preview, "JPEG")
    # A second directory behind the first: JPEGInterchangeFormat and its length.
    tiff = bytearray(content[6:])
    order = "<" if tiff[:2] == b"II" else ">"
    first = struct.unpack(order + "I", tiff[4:8])[0]
    link = first + 2 + 12 * struct.unpack(order + "H", tiff[first : first + 2])[0]
    tiff[link : link + 4] = struct.pack(order + "I", len(tiff))
    start = len(tiff) + 2 + 24 + 4
    tiff += struct.pack(order + "H", 2)
    tiff += struct.pack(order + "HHII", 513, 4, 1, start)
    tiff += struct.pack(order + "HHII", 514, 4, 1, len(preview.getvalue()))
    tiff += struct.pack(order + "I", 0) + preview.getvalue()
    return b"Exif\0\0" + bytes(tiff), preview.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_exif_details_are_kept_and_the_preview_of_what_was_removed_is_not(tmp_path, suffix, capfd):
    content, preview = exif_with_details_and_preview()
    path = tmp_path / f"a{suffix}"
    if suffix == ".tiff":  # has its own way of holding EXIF, and no preview to lose
        exif = Image.Exif()
        exif.load(content)
        content, preview = exif.tobytes(), b"Exif\0\0"
    Image.fromarray(picture(32, 64)).save(path, exif=content)
    assert suffix == ".tiff" or preview in path.read_bytes()
    photograph = images.read_photograph(path)
    written = images.encode_photograph(photograph, photograph.pixels)
    assert preview not in written
    exif = reread(written).getexif()
    assert exif[ExifTags.Base.Model] == "M1"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.LensModel] == "50mm"
    assert details[ExifTags.Base.ExifImageWidth] == 32  # turned upright
    assert details[ExifTags.Base.ExifImageHeight] == 64
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert capfd.readouterr().err == ""  # libtiff prints what it cannot write


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_the_photograph(tmp_path):
    path = tmp_path / "a.jpg"
    content, _ = exif_with_details_and_preview()
    for broken in (b"Exif\0\0garbage", content[:40], content[:12] + bytes(60)):
        Image.fromarray(picture()).save(path, exif=broken)
        photograph = images.read_photograph(path)
        assert sorted(photograph.pixels.shape) == [3, 24, 32]
        reread(images.encode_photograph(photograph, photograph.pixels)).load()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff", ".webp"])
def test_profile_and_resolution_are_kept(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(picture()).save(path, icc_profile=SRGB, dpi=(300, 300))
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.info["icc_profile"] == SRGB
    if suffix != ".webp":  # the format has no resolution
        assert again.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize(("quality", "sampling"), [(60, 2), (85, 1), (97, 0)])
def test_jpeg_is_written_with_its_own_tables(tmp_path, quality, sampling):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture(64, 96)).save(path, quality=quality, subsampling=sampling)
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.quantization == Image.open(path).quantization
    assert JpegImagePlugin.get_sampling(again) == sampling
    error = np.abs(np.asarray(again).astype(int) - photograph.pixels)
    assert error.mean() < 0.5  # encoding a decoded JPEG with the same tables is nearly exact


def test_grey_and_progressive_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()[..., 0]).save(path, progressive=True)
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.mode == "L"
    assert again.info.get("progressive")


def test_tiff_keeps_a_lossless_compression(tmp_path):
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        path = tmp_path / "a.tiff"
        # With a resolution, as nearly every TIFF: a tag, and so the beginning of EXIF.
        Image.fromarray(picture()).save(path, compression=compression, dpi=(300, 300))
        photograph = images.read_photograph(path)
        again = reread(images.encode_photograph(photograph, photograph.pixels))
        assert again.info["compression"] == compression
        assert again.info["dpi"] == (300, 300)
    Image.fromarray(picture()).save(path, compression="jpeg")
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    np.testing.assert_array_equal(np.asarray(again), photograph.pixels)


def test_a_tiff_does_not_leak_its_structure_into_a_jpeg(tmp_path):
    path = tmp_path / "a.tiff"
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A"
    Image.fromarray(picture()).save(path, exif=exif)
    photograph = images.read_photograph(path)
    tags = reread(images.encode_photograph(photograph, photograph.pixels, "JPEG")).getexif()
    assert tags[ExifTags.Base.Artist] == "A"
    assert not {256, 257, 273, 277, 279} & set(tags)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF"])
def test_quality_decides_the_size(image_format):
    """Also of a photograph that was a JPEG with tables of its own."""
    stream = io.BytesIO()
    Image.fromarray(picture(96, 128)).save(stream, "JPEG", quality=95)
    photograph = images.read_photograph(io.BytesIO(stream.getvalue()), name="photograph")
    sizes = []
    for quality in (20, 95):
        content = images.encode_photograph(
            photograph, photograph.pixels, image_format, quality=quality
        )
        assert reread(content).format == image_format
        sizes.append(len(content))
    assert sizes[0] < 0.7 * sizes[1]
    for quality in (0, 101):
        with pytest.raises(ValueError, match=f"quality must be from 1 to 100, got {quality}"):
            images.encode_photograph(photograph, photograph.pixels, image_format, quality=quality)


@pytest.mark.parametrize("channels", [3, 4])
def test_avif_is_written_as_it_was_read(tmp_path, channels):
    path = tmp_path / "a.avif"
    Image.fromarray(picture(48, 64, channels)).save(path, icc_profile=SRGB)
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert (again.format, again.mode) == ("AVIF", "RGBA" if channels == 4 else "RGB")
    assert again.info["icc_profile"] == SRGB
    error = np.abs(np.asarray(again)[..., :3].astype(int) - photograph.pixels)
    assert error.mean() < 3


def test_another_format_on_request_and_what_it_cannot_hold():
    photograph = images.Photograph(picture(), alpha=np.full((24, 32), 9, np.uint8))
    with pytest.raises(images.ImageError, match="JPEG cannot hold transparency; write one of PNG"):
        images.encode_photograph(photograph, photograph.pixels, "JPEG")
    assert reread(images.encode_photograph(photograph, photograph.pixels, "WEBP")).mode == "RGBA"
    with pytest.raises(images.ImageError, match=r"must be one of \.png .*, got '\.xyz'"):
        images.format_of("a.xyz")
    with pytest.raises(images.ImageError, match=r"must be one of \.png .*, got '\.heic'"):
        images.format_of("a.heic")
    assert images.format_of("A.JPG") == "JPEG"


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.jpg", lambda p: Image.new("CMYK", (8, 8)).save(p), "it is CMYK: .*convert it to RGB"),
        ("a.tif", lambda p: Image.new("F", (8, 8)).save(p), "32-bit floating point"),
        ("a.tif", lambda p: Image.new("I", (8, 8)).save(p), "32-bit integer"),
        (
            "a.webp",
            lambda p: Image.new("L", (8, 8)).save(
                p, save_all=True, append_images=[Image.new("L", (8, 8), 9)]
            ),
            "it has several frames",
        ),
        (
            "a.tif",
            lambda p: Image.new("L", (8, 8)).save(
                p, save_all=True, append_images=[Image.new("L", (8, 8), 9)]
            ),
            "it has several frames",
        ),
        ("a.png", lambda p: p.write_bytes(b""), "not an image in a known format"),
        ("a.png", lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not an image in a known"),
    ],
)
def test_what_is_refused_is_named(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(images.ImageError, match=message) as error:
        images.read_photograph(path)
    assert str(error.value).startswith(str(path))


def test_missing_file_and_folder_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        images.read_photograph(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        images.read_photograph(tmp_path)


def test_pixel_limit_is_checked_before_decoding(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(header_only_png(20000, 20000))
    for read in (images.read_photograph, images.read_mask):
        with pytest.raises(images.ImageError, match=r"more .*than the limit of"):
            read(path)
    Image.fromarray(picture(10, 10)).save(path)
    with pytest.raises(images.ImageError, match="it has 10 x 10 pixels, more than the limit of 99"):
        images.read_photograph(path, max_pixels=99)
    assert images.read_photograph(path, max_pixels=100).pixels.shape == (10, 10, 3)


def test_bilevel_becomes_grey(tmp_path):
    path = tmp_path / "scan.png"
    Image.fromarray(picture(channels=1)[..., 0] > 60).save(path)
    assert Image.open(path).mode == "1"
    photograph = images.read_photograph(path)
    assert photograph.grey
    assert set(np.unique(photograph.pixels)) == {0, 255}
    again = reread(images.encode_photograph(photograph, photograph.pixels))
    assert again.mode == "L"
    np.testing.assert_array_equal(np.asarray(again), photograph.pixels[..., 0])


def test_what_a_png_says_about_its_colours_is_kept(tmp_path):
    path, info = tmp_path / "a.png", PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100000))
    info.add(b"cHRM", struct.pack(">8I", *range(30000, 38000, 1000)))
    info.add(b"sRGB", b"\1")
    Image.fromarray(picture()).save(path, pnginfo=info)
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels)).info
    assert again["gamma"] == 1.0
    assert again["srgb"] == 1
    assert again["chromaticity"] == Image.open(path).info["chromaticity"]
    assert "gamma" not in reread(images.encode_photograph(photograph, picture(), "JPEG")).info
    Image.fromarray(picture()).save(path, pnginfo=info, icc_profile=SRGB)
    photograph = images.read_photograph(path)
    again = reread(images.encode_photograph(photograph, photograph.pixels)).info
    assert again["icc_profile"] == SRGB
    assert "gamma" not in again


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_strips_change_nothing(tmp_path, monkeypatch, mode):
    path, exif = tmp_path / "a.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    colours = Image.fromarray(picture(60, 80, 4), "RGBA").convert(mode)
    colours.save(path, exif=exif)
    whole, mask = images.read_photograph(path), images.read_mask(path)
    assert whole.pixels.shape == (80, 60, 3)
    monkeypatch.setattr(images.opening, "STRIP_PIXELS", 130)
    strips = images.read_photograph(path)
    np.testing.assert_array_equal(strips.pixels, whole.pixels)
    assert (whole.alpha is None) == (mode in ("1", "L", "RGB"))
    np.testing.assert_array_equal(strips.alpha, whole.alpha)
    np.testing.assert_array_equal(images.read_mask(path), mask)


def test_writing_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.png"
    files.write_whole(path, b"first")
    files.write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    with pytest.raises(TypeError):
        files.write_whole(path, ["neither text nor bytes"])
    assert path.read_bytes() == b"second"
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.png'$"):
        files.write_whole(tmp_path / "folder.png", b"x")
    with pytest.raises(FileNotFoundError, match=r"gone/a\.png"):
        files.write_whole(tmp_path / "gone" / "a.png", b"x")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "folder.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
