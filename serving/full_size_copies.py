"""Copies pixels of a photograph at its own size, where a model says from which small pixel.

A model sees a window shrunk to its training size. Its output `source` says for every pixel of the
small window which known pixel it was copied from. The same offsets, enlarged, lead to pixels of the
photograph at its own size.

The small window is joined without seams already. A copied pixel keeps its difference from the small
window at the place it comes from, and takes the small window's color at the place it goes to. This
is a Laplacian pyramid of two levels (Burt and Adelson, "A Multiresolution Spline With Application
to Image Mosaics", 1983).
"""

import numpy as np

from .resampling import STRIP_PIXELS
from .windows import Box

_POINTS = STRIP_PIXELS // 16  # pixels that are copied at a time


class FullSizeCopies:
    """The copies in one window of a photograph.

    Args:
        small: `(h, w, 3)` uint8, the window as a model filled it.
        source: `(h, w, 2)` int32, row and column of the small pixel that a small pixel was copied
            from, negative where it was not.
        view: The window.
    """

    def __init__(self, small: np.ndarray, source: np.ndarray, view: Box) -> None:
        height, width = source.shape[:2]
        scale = np.array([view.height / height, view.width / width])
        own = np.moveaxis(np.indices((height, width)), 0, -1)
        self._view = view
        self._offsets = np.rint((source - own) * scale).astype(np.int32)
        self._is_copied = source[..., 0] >= 0
        self._top, self._bottom, self._down = _between(height, view.height)
        # Rows are enlarged beforehand: two values are looked up for each pixel, not four.
        left, right, across = _between(width, view.width)
        values = small.astype(np.float32)
        wide = values[:, left]
        self._wide = (wide + across * (values[:, right] - wide)).reshape(-1, 3)

    def write(
        self,
        pixels: np.ndarray,
        missing: np.ndarray,
        area: Box,
        image: np.ndarray,
        remaining: np.ndarray,
    ) -> None:
        """Writes copies over the enlarged fill of a part of the window.

        Args:
            pixels: `(area.height, area.width, 3)` uint8, the enlarged fill; copies are written in
                place. Pixels that were not copied, or whose source is missing, keep their value.
            missing: `(area.height, area.width)` bool, the pixels to fill.
            area: The part of the window.
            image: `(H, W, 3)` uint8, the photograph.
            remaining: `(H, W)` bool, its missing pixels.
        """
        view, (height, width) = self._view, self._is_copied.shape
        seen, is_missing = image[view.slices], remaining[view.slices]
        top, left = area.top - view.top, area.left - view.left
        # The small pixel under each row and column of the area.
        cell_row = np.arange(top, top + area.height) * height // view.height
        cell_column = np.arange(left, left + area.width) * width // view.width
        rows, columns = np.nonzero(missing & self._is_copied[cell_row[:, None], cell_column])
        for start in range(0, len(rows), _POINTS):
            row, column = (each[start : start + _POINTS] for each in (rows, columns))
            offset = self._offsets[cell_row[row], cell_column[column]]
            down, across = row + top, column + left
            from_row = np.clip(down + offset[:, 0], 0, view.height - 1)
            from_column = np.clip(across + offset[:, 1], 0, view.width - 1)
            copied = self._enlarged(down, across)
            copied -= self._enlarged(from_row, from_column)
            copied += seen[from_row, from_column]
            copied = np.clip(np.rint(copied), 0, 255).astype(np.uint8)
            usable = ~is_missing[from_row, from_column]
            pixels[row[usable], column[usable]] = copied[usable]

    def _enlarged(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Bilinear values `(n, 3)` float32 of the small window at `n` pixels of the large one."""
        upper = self._wide.take(self._top[rows] * self._view.width + columns, axis=0)
        lower = self._wide.take(self._bottom[rows] * self._view.width + columns, axis=0)
        return upper + self._down[rows] * (lower - upper)


def _between(side: int, full: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `full` places the two of `side` around it, and the share of the second."""
    place = np.clip((np.arange(full) + 0.5) * (side / full) - 0.5, 0, side - 1)
    low = place.astype(np.int32)
    return low, np.minimum(low + 1, side - 1), (place - low).astype(np.float32)[:, None]
