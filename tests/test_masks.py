"""Masks: which pixels they mark, in every mode and depth, and how they are grown and scaled."""

import numpy as np
import pytest
from PIL import Image

from musical_tf import images
from tests.pictures import picture

LEVELS = np.array([[0, 1, 127, 128, 254, 255]], np.uint8)


def test_mask_polarity_and_threshold(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(LEVELS).save(path)
    assert images.read_mask(path).tolist() == [[False, False, False, True, True, True]]
    inverted = images.read_mask(path, polarity="black")
    assert inverted.tolist() == [[True, True, True, False, False, False]]
    assert images.read_mask(path, threshold=0).tolist() == [[False] + [True] * 5]
    assert images.read_mask(path, threshold=254).tolist() == [[False] * 5 + [True]]
    with pytest.raises(ValueError, match="unknown polarity 'grey'; valid: white, black, clear"):
        images.read_mask(path, polarity="grey")
    with pytest.raises(ValueError, match="threshold must be within 0 and 255, got 256"):
        images.read_mask(path, threshold=256)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_masks_of_every_mode(tmp_path, mode):
    hole = np.zeros((6, 9), bool)
    hole[1:4, 2:7] = True
    grey = Image.fromarray(np.where(hole, 255, 0).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.where(hole, 65535, 0).astype(np.uint16))
    else:
        image = grey.convert(mode)
    path = tmp_path / ("mask.tif" if mode == "CMYK" else "mask.png")
    image.save(path)
    np.testing.assert_array_equal(images.read_mask(path), hole)
    np.testing.assert_array_equal(images.read_mask(path, polarity="black"), ~hole)


def test_coloured_strokes_count_and_transparent_pixels_do_not(tmp_path):
    path = tmp_path / "mask.png"
    strokes = np.zeros((2, 4, 4), np.uint8)
    strokes[0, 0] = (255, 0, 0, 255)
    strokes[0, 1] = (0, 0, 255, 255)
    strokes[0, 2] = (255, 255, 255, 0)
    strokes[0, 3] = (0, 0, 0, 255)
    Image.fromarray(strokes).save(path)
    assert images.read_mask(path).tolist() == [[True, True, False, False], [False] * 4]
    black = images.read_mask(path, polarity="black")
    assert black.tolist() == [[False, False, False, True], [False] * 4]


@pytest.mark.parametrize("largest", [65535, 1000])
def test_a_mask_may_be_a_netpbm_file_of_16_bits(tmp_path, largest):
    levels = np.array([[0, 0.4, 0.6, 1]]) * largest
    path = tmp_path / "mask.pgm"
    path.write_bytes(b"P5 4 1 %d\n" % largest + levels.astype(">u2").tobytes())
    np.testing.assert_array_equal(images.read_mask(path), [[False, False, True, True]])


DISC = np.hypot(*np.mgrid[-20:20, -30:30]) < 9


def _drawn(ink, background=(0, 0, 0, 0)):
    return Image.fromarray(np.where(DISC[..., None], ink, background).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(DISC),
        Image.fromarray((DISC * 255).astype(np.uint8)),
        Image.fromarray((DISC * 1).astype(np.uint8)),
        Image.fromarray((DISC * 2).astype(np.uint8)),
        Image.fromarray((DISC * 1).astype(np.uint16)),
        Image.fromarray((DISC * 255).astype(np.uint16)),
        Image.fromarray((DISC * 300).astype(np.uint16)),
        Image.fromarray((DISC * 65535).astype(np.uint16)),
        Image.fromarray((DISC * (1 + np.arange(60) % 2)).astype(np.uint8)),  # labels 1 and 2
        Image.fromarray((DISC[..., None] * np.array([70, 0, 0])).astype(np.uint8)),
        Image.fromarray((DISC[..., None] * np.array([0, 0, 120])).astype(np.uint8)),
        Image.fromarray((DISC * 255).astype(np.uint8)).convert("P"),
        _drawn((255, 255, 255, 255)),
        _drawn((255, 255, 255, 90)),
        _drawn((0, 0, 0, 255)),
        _drawn((0, 0, 0, 90)),
        _drawn((40, 40, 60, 255), (255, 255, 255, 0)),
        _drawn((255, 0, 0, 128)),
    ],
)
def test_what_a_person_marks_is_the_hole(tmp_path, image):
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "mask.png"), DISC)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray((~DISC * 255).astype(np.uint8)),
        Image.fromarray((~DISC * 1).astype(np.uint8)),
        Image.fromarray((~DISC * 1).astype(np.uint16)),
        _drawn((0, 0, 0, 255)),
        _drawn((0, 0, 0, 90)),
    ],
)
def test_what_a_person_marks_in_black_is_the_hole(tmp_path, image):
    image.save(tmp_path / "mask.png")
    hole = images.read_mask(tmp_path / "mask.png", polarity="black")
    np.testing.assert_array_equal(hole, DISC)


@pytest.mark.parametrize("alpha", [128, 180, 254])
def test_a_clear_part_that_is_mostly_opaque_is_an_error(tmp_path, alpha):
    path = tmp_path / "mask.png"
    Image.fromarray(np.where(DISC, alpha, 255).astype(np.uint8)).save(path)
    layer = np.dstack([np.zeros((*DISC.shape, 3), np.uint8), np.asarray(Image.open(path))])
    Image.fromarray(layer).save(path)
    with pytest.raises(images.ImageError, match=f"levels {alpha}, 255, so nothing is selected"):
        images.read_mask(path, polarity="clear")
    layer[..., 3] = 255
    Image.fromarray(layer).save(path)
    with pytest.raises(images.ImageError, match="must have a clear part"):
        images.read_mask(path, polarity="clear")


@pytest.mark.parametrize("mark", [(255, 0, 0, 255), (255, 255, 255, 0)])
def test_black_says_that_a_bright_mark_selects_nothing(tmp_path, mark):
    path = tmp_path / "mask.png"
    Image.fromarray(np.where(DISC[..., None], np.uint8(mark), np.uint8(255))).save(path)
    with pytest.raises(images.ImageError, match="level 255 everywhere, so nothing is selected"):
        images.read_mask(path, polarity="black")
    for plain in ((255, 255, 255, 255), (255, 255, 255, 0)):
        Image.new("RGBA", (8, 8), plain).save(path)
        assert not images.read_mask(path, polarity="black").any()


def test_the_clear_part_can_be_the_hole(tmp_path):
    path = tmp_path / "mask.png"
    _drawn((9, 200, 30, 0), (255, 128, 7, 255)).save(path)
    np.testing.assert_array_equal(images.read_mask(path, polarity="clear"), DISC)
    Image.fromarray(DISC).save(path)
    with pytest.raises(images.ImageError, match="must have an alpha channel for polarity clear"):
        images.read_mask(path, polarity="clear")


def test_a_mask_that_marks_something_and_selects_nothing_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray((DISC * 100).astype(np.uint8)).save(path)
    with pytest.raises(images.ImageError, match=r"levels above 127, got levels 0, 100, so nothing"):
        images.read_mask(path, threshold=127)
    Image.fromarray(np.full((4, 4), 100, np.uint8)).save(path)
    with pytest.raises(images.ImageError, match="got level 100 everywhere"):
        images.read_mask(path)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    assert not images.read_mask(path).any()
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(path)
    assert not images.read_mask(path).any()


def test_labels_of_one_color_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    labels = Image.fromarray(DISC.astype(np.uint8), "P")
    labels.putpalette(bytes(6))
    labels.save(path)
    with pytest.raises(images.ImageError, match="got level 0 everywhere, so nothing"):
        images.read_mask(path)
    Image.new("P", (8, 8)).save(path)
    assert not images.read_mask(path).any()


@pytest.mark.parametrize("level", [12, 20, 60, 120, 127, 180])
def test_a_dark_mark_in_a_jpeg_is_the_hole(tmp_path, level):
    path = tmp_path / "mask.jpg"
    mark = np.kron(DISC[::8, ::12], np.ones((8, 12), bool))
    Image.fromarray((mark * level).astype(np.uint8)).save(path, quality=90)
    assert np.mean(images.read_mask(path) != mark) < 0.01
    if level > 20:
        Image.fromarray((255 - mark * level).astype(np.uint8)).save(path, quality=90)
        assert np.mean(images.read_mask(path, polarity="black") != mark) < 0.01


def test_a_mask_says_how_it_was_read(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray((DISC * 255).astype(np.uint16)).save(path)
    assert images.load_mask(path).reading == (
        "16-bit gray, levels 0, 255: levels above 127 are the hole"
    )


def test_mask_from_alpha():
    photograph = images.Photograph(picture(1, 6), alpha=LEVELS)
    expected = [[True, True, True, False, False, False]]
    assert images.alpha_mask(photograph).tolist() == expected
    opaque = images.alpha_mask(photograph, polarity="black")
    assert opaque.tolist() == [[False, False, False, True, True, True]]
    with pytest.raises(images.ImageError, match="no alpha channel"):
        images.alpha_mask(images.Photograph(picture()))


@pytest.mark.parametrize("strip_pixels", [2**20, 50])
def test_dilation_is_a_disc(monkeypatch, strip_pixels):
    monkeypatch.setattr(images.masks, "STRIP_PIXELS", strip_pixels)
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :30]
    for radius in (0, 1, 2, 5, 40, 300):
        hole = rng.random((20, 30)) < 0.01
        hole[0, 29] = True
        expected = np.zeros_like(hole)
        for row, column in zip(*np.nonzero(hole), strict=True):
            expected |= (y - row) ** 2 + (x - column) ** 2 <= radius * radius
        np.testing.assert_array_equal(images.dilate(hole, radius), expected)
    tall = np.zeros((900, 7), bool)
    tall[450, 3] = True
    assert images.dilate(tall, 300).sum() == 601 + 2 * (599 + 599 + 599)
    assert not images.dilate(np.zeros((4, 4), bool), 3).any()
    with pytest.raises(ValueError, match="dilation must be 0 pixels or more, got -1"):
        images.dilate(hole, -1)


def test_masks_are_scaled_to_images_of_the_same_shape():
    hole = np.zeros((40, 60), bool)
    hole[10, 20] = True
    assert images.fit_mask(hole, 40, 60) is hole
    larger = images.fit_mask(hole, 120, 180)
    assert larger.sum() == 9
    assert larger[30:33, 60:63].all()
    smaller = images.fit_mask(hole, 13, 20)  # a single pixel is not lost
    assert 1 <= smaller.sum() <= 4
    assert smaller[3, 6]
    assert images.fit_mask(np.ones((1333, 2000), bool), 2667, 4000).shape == (2667, 4000)
    speck = np.zeros((4000, 6000), bool)
    speck[1234, 4567] = True
    assert np.argwhere(images.fit_mask(speck, 100, 150)).tolist() == [[30, 114]]
    for shape in ((60, 40), (40, 70), (400, 620)):
        with pytest.raises(images.ImageError, match=r"a mask of 60 x 40 pixels has another shape"):
            images.fit_mask(hole, *shape)


def test_size_mismatch_gives_both_sizes_and_mentions_rotation():
    photograph = images.Photograph(picture(20, 30), stored_size=(20, 30))
    images.check_sizes(photograph, np.zeros((20, 30), bool), "m.png")
    with pytest.raises(
        images.ImageError, match=r"m\.png: the mask is 5 x 4 pixels and the image is 30 x 20$"
    ):
        images.check_sizes(photograph, np.zeros((4, 5), bool), "m.png")
    with pytest.raises(images.ImageError, match="EXIF rotation"):
        images.check_sizes(photograph, np.zeros((30, 20), bool), "m.png")
