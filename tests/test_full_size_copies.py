"""Copies at the photograph's own size: exact for equal colors, joined by the small fill's."""

import tracemalloc

import numpy as np
import pytest

from serving.full_size_copies import FullSizeCopies
from serving.windows import Box

SCALE = 4


def shrunk(image):
    height, width = (side // SCALE for side in image.shape[:2])
    cells = image.reshape(height, SCALE, width, SCALE, 3).astype(float)
    return np.rint(cells.mean(axis=(1, 3))).astype(np.uint8)


def texture(height=160, width=240, period=40):
    """Noise of single pixels that repeats every `period` pixels in both directions."""
    tile = np.random.default_rng(0).integers(0, 256, (period, period, 3), np.uint8)
    return np.tile(tile, (height // period, width // period, 1))


def own_places(small):
    return np.moveaxis(np.indices(small.shape[:2], dtype=np.int32), 0, -1)


def filled_by(source, image, hole, small, view=None):
    view = view or Box(0, 0, *hole.shape)
    rows, columns = np.nonzero(hole)
    area = Box(rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    pixels = np.full((area.height, area.width, 3), 9, np.uint8)
    copies = FullSizeCopies(small, source, view)
    copies.write(pixels, hole[area.slices], area, image, hole)
    result = image.copy()
    result[area.slices][hole[area.slices]] = pixels[hole[area.slices]]
    return result


@pytest.fixture
def hole():
    hole = np.zeros((160, 240), bool)
    hole[47:93, 81:139] = True
    return hole


@pytest.mark.parametrize("top", [0, 40])
def test_a_repeated_texture_comes_back_pixel_for_pixel(hole, top):
    truth = texture()
    view = Box(top, 0, 160, 240)
    small = shrunk(truth[view.slices])
    source = own_places(small)
    source[..., 1] += np.where(source[..., 1] < 40, 20, -20)  # two periods to either side
    result = filled_by(source, np.where(hole[..., None], 0, truth), hole, small, view)
    np.testing.assert_allclose(result, truth.astype(int), atol=1)


def test_a_copy_takes_the_color_of_the_small_fill(hole):
    truth = texture() // 4 + np.uint8(90)
    small = shrunk(truth)
    source = own_places(small)
    source[..., 1] += 20  # two periods
    brighter = small + np.where(np.arange(60) < 38, 20, 0)[None, :, None].astype(np.uint8)
    result = filled_by(source, truth, hole, brighter)
    inner = np.s_[47:93, 81:139]
    np.testing.assert_allclose(result[inner], truth[inner] + 20.0, atol=1)


def test_missing_or_painted_sources_keep_the_enlarged_fill(hole):
    truth = texture()
    small = shrunk(truth)
    for source in (np.full((40, 60, 2), -1, np.int32), own_places(small)):
        result = filled_by(source, truth, hole, small)
        assert (result[hole] == 9).all()
        np.testing.assert_array_equal(result[~hole], truth[~hole])


def test_memory_does_not_grow_with_the_window():
    view, hole = Box(0, 0, 4000, 4000), np.zeros((4000, 4000), bool)
    hole[100:400, 200:600] = True
    image = np.broadcast_to(np.uint8(80), (4000, 4000, 3))
    small = np.full((64, 64, 3), 80, np.uint8)
    source = own_places(small) + np.int32([0, 20])
    area = Box(100, 200, 400, 600)
    pixels = np.full((300, 400, 3), 9, np.uint8)
    tracemalloc.start()
    copies = FullSizeCopies(small, source, view)
    copies.write(pixels, hole[area.slices], area, image, hole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (pixels == 80).all()
    assert peak < 4000 * 4000 * 3 / 2
