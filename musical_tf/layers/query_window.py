"""The part of a map whose attention is computed."""

import copy
from dataclasses import dataclass

import keras
from keras import ops

from musical_tf.conventions import Tensor

Extent = tuple[int, int]
"""First row or column, and one past the last."""


@dataclass(frozen=True)
class Region:
    """A rectangle of the map: first row and column, and one past the last."""

    rows: Extent
    columns: Extent

    def crop(self, maps: Tensor, halo: int) -> Tensor:
        """`(B, H, W, C)` -> the rectangle and `halo` positions around it, zero outside the map."""
        return _crop(maps, self.rows, self.columns, halo)


class QueryWindow:
    """The bounding box of all holes of a batch: the only positions whose attention is ever used.

    Where shapes must be known before the data is (any backend but TensorFlow), the window is the
    whole map.
    """

    is_band = False
    """Whether it may reach below the map, by less than its height."""

    def __init__(self, hole):
        self.height, self.width = ops.shape(hole)[1:3]
        self.top, self.bottom = 0, self.height
        self.left, self.right = 0, self.width
        if keras.backend.backend() == "tensorflow":
            missing = hole > 0.5
            self.top, self.bottom = _extent(ops.any(missing, axis=(0, 2, 3)), self.height)
            self.left, self.right = _extent(ops.any(missing, axis=(0, 1, 3)), self.width)

    def crop(self, maps, halo):
        """`(B, H, W, C)` -> the window and `halo` positions around it, zero outside the map."""
        if self.is_band:
            batch, _, width, channels = ops.shape(maps)
            below = ops.zeros((batch, self.bottom - self.top, width, channels), maps.dtype)
            maps = ops.concatenate([maps, below], axis=1)
        return _crop(maps, (self.top, self.bottom), (self.left, self.right), halo)

    def band(self, top, rows):
        """The same columns, `rows` rows from `top` on."""
        band = copy.copy(self)
        band.top, band.bottom, band.is_band = top, top + rows, True
        return band

    def paste(self, window):
        """The window back in its place in a `(B, H, W, C)` map that is zero elsewhere."""
        batch, height, _, channels = ops.shape(window)
        left = ops.zeros((batch, height, self.left, channels))
        right = ops.zeros((batch, height, self.width - self.right, channels))
        band = ops.concatenate([left, window, right], axis=2)
        top = ops.zeros((batch, self.top, self.width, channels))
        bottom = ops.zeros((batch, self.height - self.bottom, self.width, channels))
        return ops.concatenate([top, band, bottom], axis=1)


def _crop(maps, rows, columns, halo):
    padded = ops.pad(maps, [[0, 0], [halo, halo], [halo, halo], [0, 0]])
    (top, bottom), (left, right) = rows, columns
    return padded[:, top : bottom + 2 * halo, left : right + 2 * halo]


def _extent(occupied, length):
    """First and one past the last True of a vector; `(0, 1)` when there is none."""
    positions = ops.arange(length)
    past = ops.max(ops.where(occupied, positions + 1, 0))
    first = ops.min(ops.where(occupied, positions, length))
    # Without a hole one position is kept, so that no tensor is empty.
    return ops.where(past > 0, first, 0), ops.maximum(past, 1)


def in_bands(fill, features, hole, window, halo, max_scores):
    """What `fill` gives for `window`, computed for as many of its rows at a time as the bound says.

    Every band has the same number of rows; the last may reach below the window.
    """
    batch, height, width, _ = ops.shape(features)
    a_row = batch * (window.right - window.left + 2 * halo) * height * width
    most = ops.maximum(max_scores // a_row - 2 * halo, 1)
    window_height = window.bottom - window.top
    count = (window_height + most - 1) // most
    rows = (window_height + count - 1) // count

    @keras.remat
    def fill_band(index, features, hole):
        return fill(features, hole, window.band(window.top + index * rows, rows))

    bands = ops.map(lambda index: fill_band(index, features, hole), ops.arange(count))
    return [_join_bands(filling)[:, :window_height] for filling in bands]


def _join_bands(bands):
    """`(N, B, h, w, C)`, one above the other -> `(B, N h, w, C)`."""
    count, batch, height, width, _ = ops.shape(bands)
    joined = ops.transpose(bands, (1, 0, 2, 3, 4))
    return ops.reshape(joined, (batch, count * height, width, bands.shape[-1]))
