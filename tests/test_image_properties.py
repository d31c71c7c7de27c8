"""Whatever the bytes: a photograph or mask within the limits, or `ImageError`."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from musical_tf import images
from tests.test_image_depth import DEEP_FILES, deep

MAX_PIXELS = 100_000


def seeds():
    """A file of every format and mode, and the 16-bit ones."""
    files = dict(fuzz.seed_files())
    for kind, (write, channels, options) in DEEP_FILES.items():
        files[f"deep {kind}"] = write(deep(channels), **options)
    return files


SEEDS = seeds()
SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@st.composite
def mutated(draw):
    """A file with some bytes changed, cut out, or inserted."""
    content = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "early", "cut", "end", "insert"]))
        if kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=40))
        else:
            at = at % 200 if kind == "early" else at
            new = draw(st.binary(min_size=1, max_size=4))
            content[at : at + len(new)] = new
    return bytes(content)


def outcome(read, content, **options):
    """What a reader returns, or the `ImageError` that it raises."""
    try:
        return read(io.BytesIO(content), name="file", max_pixels=MAX_PIXELS, **options)
    except images.ImageError as error:
        return error


@pytest.mark.filterwarnings("ignore")
@SETTINGS
@given(mutated())
@example(b"")
@example(b"II*\0")
@example(b"II+\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"P6 1 1 65535\n")
@example(b"\xff\xd8\xff\xff")
def test_any_bytes_are_a_photograph_or_an_image_error(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        photograph = outcome(images.read_photograph, content)
        if isinstance(photograph, images.ImageError):
            assert str(photograph).startswith("file: ")
            return
        height, width, channels = photograph.pixels.shape
        assert photograph.pixels.dtype == np.uint8
        assert channels == 3
        assert 0 < height * width <= MAX_PIXELS
        if photograph.samples is not None:
            assert photograph.samples.shape[:2] == (height, width)
        if photograph.alpha is not None:
            assert photograph.alpha.shape == (height, width)
        for image_format in ("PNG", "TIFF"):
            try:
                written = images.encode_photograph(photograph, photograph.pixels, image_format)
            except images.ImageError:
                continue
            if image_format == "TIFF" and photograph.samples is not None:
                continue  # grey with alpha is written, and not read
            again = images.read_photograph(io.BytesIO(written), name="written")
            np.testing.assert_array_equal(again.pixels, photograph.pixels)
            if photograph.samples is not None:
                np.testing.assert_array_equal(again.samples, photograph.samples)


@pytest.mark.filterwarnings("ignore")
@SETTINGS
@given(mutated(), st.sampled_from(images.POLARITIES))
def test_any_bytes_are_a_mask_or_an_image_error(content, polarity):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hole = outcome(images.read_mask, content, polarity=polarity)
        if isinstance(hole, images.ImageError):
            assert str(hole).startswith("file: ")
            return
        assert hole.dtype == bool
        assert hole.ndim == 2
        assert 0 < hole.size <= MAX_PIXELS
