"""Whatever the bytes: a photograph within the limits that can be written, or `ImageError`."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musical_tf import images

from .files import MAX_PIXELS, files, outcome, seeds

LOSSY = ("JPEG", "AVIF")
FORMATS = sorted(set(images.WRITABLE.values()))


def test_every_format_that_is_read_is_among_the_seeds():
    assert set(images.READABLE.values()) <= {name.split()[0] for name in seeds()}
    read = [outcome(images.read_photograph, content) for content in seeds().values()]
    found = {each.format for each in read if isinstance(each, images.Photograph)}
    assert found == set(images.READABLE.values())


@pytest.mark.filterwarnings("ignore")
@given(files(), st.sampled_from(FORMATS))
@example(b"", "PNG")
@example(b"II*\0", "PNG")
@example(b"II+\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "PNG")
@example(b"P6 1 1 65535\n", "PNG")
@example(b"\xff\xd8\xff\xff", "PNG")
def test_any_bytes_are_a_photograph_or_an_image_error(content, image_format):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photograph = outcome(images.read_photograph, content)
        if isinstance(photograph, images.ImageError):
            return
        height, width, channels = photograph.pixels.shape
        assert photograph.pixels.dtype == np.uint8
        assert channels == 3
        assert 0 < height * width <= MAX_PIXELS
        if photograph.samples is not None:
            assert photograph.samples.shape[:2] == (height, width)
        if photograph.alpha is not None:
            assert photograph.alpha.shape == (height, width)
        for name in (None, image_format):
            check_written(photograph, name)


def check_written(photograph, image_format):
    """What is written is read, and is the same where the format loses nothing."""
    try:
        written = images.encode_photograph(photograph, photograph.pixels, image_format)
    except images.ImageError:
        return
    again = images.read_photograph(io.BytesIO(written), name="written")
    assert again.pixels.shape == photograph.pixels.shape
    assert again.format == (image_format or again.format)
    if again.format in LOSSY:
        return
    np.testing.assert_array_equal(again.pixels, photograph.pixels)
    if photograph.samples is not None and again.samples is not None:
        channels = again.samples.shape[2]  # opaque alpha is left out where there is no room
        np.testing.assert_array_equal(again.samples, photograph.samples[..., :channels])
    if photograph.alpha is not None:
        alpha = np.full_like(photograph.alpha, 255) if again.alpha is None else again.alpha
        np.testing.assert_array_equal(alpha, photograph.alpha)


@pytest.mark.filterwarnings("ignore")
@given(files(), st.sampled_from(images.POLARITIES), st.none() | st.integers(0, 255))
def test_any_bytes_are_a_mask_or_an_image_error(content, polarity, threshold):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hole = outcome(images.read_mask, content, polarity=polarity, threshold=threshold)
        if isinstance(hole, images.ImageError):
            return
        assert hole.dtype == bool
        assert hole.ndim == 2
        assert 0 < hole.size <= MAX_PIXELS
