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
from PIL import Image

from .resampling import STRIP_PIXELS
from .windows import Box


def enlarge(small: np.ndarray, view: Box) -> np.ndarray:
    """The window as a model filled it, `(view.height, view.width, 3)` uint8."""
    size = (view.width, view.height)
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))


def copy_full_size(
    pixels: np.ndarray,
    missing: np.ndarray,
    enlarged: np.ndarray,
    source: np.ndarray,
    view: Box,
    area: Box,
    image: np.ndarray,
    remaining: np.ndarray,
) -> None:
    """Writes copies over the enlarged fill of a part of a window.

    Args:
        pixels: `(area.height, area.width, 3)` uint8, the enlarged fill; copies are written in
            place. Pixels that were not copied, or whose source is missing, keep their value.
        missing: `(area.height, area.width)` bool, the pixels to fill.
        enlarged: Of `enlarge`.
        source: `(h, w, 2)` int32, row and column of the small pixel that a small pixel was copied
            from, negative where it was not.
        view: The window.
        area: A part of the window.
        image: `(H, W, 3)` uint8, the photograph.
        remaining: `(H, W)` bool, its missing pixels.
    """
    height, width = source.shape[:2]
    scale = np.array([view.height / height, view.width / width])
    own = np.moveaxis(np.indices((height, width)), 0, -1)
    offsets = np.rint((source - own) * scale).astype(np.int32)
    is_copied = source[..., 0] >= 0
    seen, is_missing = image[view.slices], remaining[view.slices]
    # The small pixel under each row and column of the window.
    cell_row = (np.arange(view.height) * height // view.height).astype(np.int32)
    cell_column = (np.arange(view.width) * width // view.width).astype(np.int32)
    rows, columns = np.nonzero(missing)
    for start in range(0, len(rows), STRIP_PIXELS // 4):
        row, column = (each[start : start + STRIP_PIXELS // 4] for each in (rows, columns))
        down, across = row + (area.top - view.top), column + (area.left - view.left)
        cell = cell_row[down], cell_column[across]
        offset = offsets[cell]
        from_row = np.clip(down + offset[:, 0], 0, view.height - 1)
        from_column = np.clip(across + offset[:, 1], 0, view.width - 1)
        copied = seen[from_row, from_column].astype(np.int16)
        copied += enlarged[down, across]
        copied -= enlarged[from_row, from_column]
        usable = is_copied[cell] & ~is_missing[from_row, from_column]
        copied = np.clip(copied, 0, 255).astype(np.uint8)
        pixels[row[usable], column[usable]] = copied[usable]
