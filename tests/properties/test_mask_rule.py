"""The rule for what a mask means, said a second time, on masks of any levels in any format."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from musical_tf import images
from tests.test_image_depth import png16, pnm, tiff

from .files import outcome

LEVELS = st.integers(0, 255) | st.sampled_from([0, 1, 126, 127, 128, 254, 255])


@st.composite
def levels(draw):
    """A mask of few or many levels, `(H, W)` uint8."""
    count = draw(st.sampled_from([1, 2, 3, 15, 16, 17, 40]))
    choice = draw(st.lists(LEVELS, min_size=count, max_size=count))
    shape = draw(st.sampled_from([(1, 1), (1, 9), (7, 8)]))
    picked = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=56))
    return np.resize(np.array(choice, np.uint8)[picked], shape)


def saved(kind, channels=None):
    def write(values):
        values = three(values) if channels == 3 else values
        stream = io.BytesIO()
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        Image.fromarray(values).save(stream, kind, **options)
        return stream.getvalue()

    return write


def three(values):
    return values[..., None].repeat(3, axis=2)


def with_alpha(values, alpha=255):
    return np.dstack([three(values), np.broadcast_to(np.uint8(alpha), values.shape)])


WRITERS = {
    **{f"grey {kind}": saved(kind) for kind in ("PNG", "TIFF", "BMP", "PPM")},
    **{f"RGB {kind}": saved(kind, 3) for kind in ("PNG", "TIFF", "BMP", "PPM", "WEBP")},
    "opaque PNG": lambda values: saved("PNG")(with_alpha(values)),
    "16-bit PNG": lambda values: png16(values[..., None].astype(np.uint16) * 257),
    "16-bit TIFF": lambda values: tiff(values[..., None].astype(np.uint16) * 257),
    "16-bit PGM": lambda values: pnm(values[..., None].astype(np.uint16) * 257),
    "16-bit PNG of 8-bit values": lambda values: png16(values[..., None].astype(np.uint16)),
}


def expected(values, polarity, threshold):
    """The hole by the rule of `images.masks`, or None where nothing is selected."""
    found, limit = np.unique(values), 127 if threshold is None else threshold
    few = len(found) <= 16
    if threshold is None and len(found) > 1:
        if found[-1] <= limit:
            limit = 0 if few else found[-1] // 2
        elif polarity == "black" and limit < found[0]:
            limit = 254 if few else (int(found[0]) + 255) // 2
    hole = values <= limit if polarity == "black" else values > limit
    is_empty = found.tolist() == [255 if polarity == "black" else 0]
    return hole if hole.any() or is_empty else None


@given(
    levels(),
    st.sampled_from(sorted(WRITERS)),
    st.sampled_from(["white", "black"]),
    st.none() | st.integers(0, 255),
)
def test_the_hole_is_that_of_the_rule_in_every_format(values, kind, polarity, threshold):
    found = outcome(images.read_mask, WRITERS[kind](values), polarity=polarity, threshold=threshold)
    hole = expected(values, polarity, threshold)
    if hole is None:
        assert isinstance(found, images.ImageError)
    else:
        np.testing.assert_array_equal(found, hole)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_scaled_hole_has_the_pixels_that_the_hole_touches(height, width, rows, columns, data):
    flags = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    hole = np.array(data.draw(flags)).reshape(height, width)
    stretched = images.stretch_hole(hole, rows, columns)
    touched = [
        [
            any(
                row * rows < (y + 1) * height
                and y * height < (row + 1) * rows
                and column * columns < (x + 1) * width
                and x * width < (column + 1) * columns
                for row, column in np.argwhere(hole).tolist()
            )
            for x in range(columns)
        ]
        for y in range(rows)
    ]
    np.testing.assert_array_equal(stretched, touched)


@given(
    levels(), levels(), st.sampled_from(["PNG", "TIFF", "WEBP"]), st.none() | st.integers(0, 255)
)
def test_the_clear_part_is_the_hole(values, alpha, kind, threshold):
    alpha = np.resize(alpha, values.shape)
    content = saved(kind)(with_alpha(values, alpha))
    found = outcome(images.read_mask, content, polarity="clear", threshold=threshold)
    hole = 255 - alpha > (127 if threshold is None else threshold)
    if isinstance(found, images.ImageError):
        assert not hole.any()
        return
    assert alpha.min() < 255
    np.testing.assert_array_equal(found, hole)
    photograph = images.read_photograph(io.BytesIO(content), name="photograph")
    np.testing.assert_array_equal(found, images.alpha_mask(photograph, threshold=threshold))
