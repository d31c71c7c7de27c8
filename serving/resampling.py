"""Brings windows of a photograph to the size at which a model sees them, and their results back."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from . import membrane
from .windows import Box

ERASED = 127
"""Gray level written under a hole. Any value works: the models ignore it."""

STRIP_PIXELS = 2**20
"""Pixels of a photograph that are resized at a time."""


def _strips(rows: int, columns: int) -> list[slice]:
    """Cuts `rows` into strips of about `STRIP_PIXELS` pixels."""
    step = max(1, STRIP_PIXELS // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def to_model(image: np.ndarray, hole: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Brings a window to the model's size, from known pixels only.

    Pillow resizes RGBA with the colors weighted by alpha. Alpha is 255 where a pixel is known, so
    each color is an average of known pixels. A pixel is hole if less than half of its weight is
    known.

    Args:
        image: `(H, W, 3)` uint8.
        hole: `(H, W)` bool.
        scale: Image pixels for one pixel of the model.

    Returns:
        `(colors, hole)`: `(H / scale, W / scale, 3)` uint8 with `ERASED` in the hole, and bool.
    """
    if scale == 1:
        return np.where(hole[..., None], np.uint8(ERASED), image), hole.copy()
    height, width = hole.shape
    size = small_height, small_width = max(1, round(height / scale)), max(1, round(width / scale))
    small = _shrink(image, hole, size) if scale > 1 else _enlarge(image, hole, size)
    colors, coverage = small[..., :3].copy(), small[..., 3]
    small_hole = coverage < 128
    if small_hole.all():
        # Known pixels so sparse that no average keeps them: put each where it belongs, the last one
        # wins.
        rows, columns = np.nonzero(~hole)
        small_rows, small_columns = rows * small_height // height, columns * small_width // width
        colors[small_rows, small_columns] = image[rows, columns]
        small_hole[small_rows, small_columns] = False
    colors[small_hole] = ERASED
    return colors, small_hole


def _enlarge(image: np.ndarray, hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RGBA at `size`, alpha the known share. Bilinear: other filters overshoot beside a hole."""
    weighted = Image.fromarray(np.dstack([image, ~hole * np.uint8(255)]))
    return np.asarray(weighted.resize(size[::-1], Image.Resampling.BILINEAR))


def _shrink(image: np.ndarray, hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """RGBA at `size`, alpha the known share, in strips."""
    height, width = hole.shape
    down = height / size[0]
    small = np.empty((*size, 4), np.uint8)
    for rows in _strips(size[0], int(width * down)):
        upper, lower = rows.start * down, rows.stop * down
        top, bottom = int(upper), min(int(np.ceil(lower)), height)
        weighted = np.empty((bottom - top, width, 4), np.uint8)
        weighted[..., :3] = image[top:bottom]
        np.multiply(~hole[top:bottom], np.uint8(255), out=weighted[..., 3])
        strip = Image.fromarray(weighted).resize(
            (size[1], rows.stop - rows.start),
            Image.Resampling.BOX,
            box=(0, upper - top, width, min(lower - top, bottom - top)),
        )
        small[rows] = np.asarray(strip)
    return small


def from_model(filled: np.ndarray, view: Box, area: Box) -> Iterator[tuple[slice, np.ndarray]]:
    """The part of a filled window that lies in `area`, at the image's own size, strip by strip.

    Yields:
        `(rows, pixels)`: rows of `area`, and uint8 `(rows, area.width, 3)`.
    """
    height, width = filled.shape[:2]
    top, left = area.top - view.top, area.left - view.left
    if (height, width) == (view.height, view.width):
        yield (
            slice(0, area.height),
            filled[top : top + area.height, left : left + area.width],
        )
        return
    down, across = height / view.height, width / view.width
    # Columns first, for all strips alike: Pillow's own order depends on the size, and its rounding
    # on the order, which would show as seams.
    wide = Image.fromarray(filled).resize(
        (area.width, height),
        Image.Resampling.BICUBIC,
        box=(left * across, 0, (left + area.width) * across, height),
    )
    for rows in _strips(area.height, area.width):
        enlarged = wide.resize(
            (area.width, rows.stop - rows.start),
            Image.Resampling.BICUBIC,
            box=(0, (top + rows.start) * down, area.width, (top + rows.stop) * down),
        )
        yield rows, np.asarray(enlarged)


def from_model_fitted(
    filled: np.ndarray, view: Box, area: Box, image: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """As `from_model`, at once, plus what enlarging lacks around the hole, carried on into it.

    Args:
        filled, view, area: As there.
        image: `(area.height, area.width, 3)` uint8, the pixels at the image's own size.
        known: `(area.height, area.width)` bool, False where a pixel is missing.

    Returns:
        `(area.height, area.width, 3)` uint8.
    """
    enlarged = np.concatenate([part for _, part in from_model(filled, view, area)])
    lacking = membrane.span(image.astype(np.float32) - enlarged, known)
    return np.clip(np.rint(enlarged + lacking), 0, 255).astype(np.uint8)
