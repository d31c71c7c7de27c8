"""Pictures of the known pixels that a model copied into a hole: the explanation of its fill.

`source` is `(H, W, 2)` int32, as `musical_tf.inference.InpaintingFunction.outputs` gives it: row
and column of the known pixel that a pixel was copied from; a known pixel's own place; -1 twice
where the network painted.
"""

from typing import Any

import numpy as np
from PIL import Image

from .attention_maps import (
    OVERSAMPLED,
    SIDE,
    choose_positions,
    darkened,
    draw_arrow,
    draw_outline,
    faint,
    oklch_to_rgb,
)

LINES = 16
"""About as many copies are drawn one by one."""

CHOICES = 400
"""About as many pixels of the hole can be chosen on a page."""

JUMP = 4
"""Difference of two offsets, pixels, that still looks like one piece."""

MAIN_SHARE = 0.9
"""Share of the copied pixels that the main offsets make up."""


def _parts(source: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(H, W)` bool: the copied and the painted pixels; and `(H, W, 2)`, the offsets."""
    own = np.moveaxis(np.indices(source.shape[:2]), 0, -1)
    painted = source[..., 0] < 0
    copied = (source != own).any(axis=-1) & ~painted
    return copied, painted, source - own


def place_colors(places: np.ndarray, shape: tuple[int, ...], lightness: float = 0.76) -> np.ndarray:
    """A color for each place of a photograph: its direction from the middle as hue.

    Places close to each other have similar colors; the middle is gray.

    Args:
        places: `(..., 2)`, rows and columns.
        shape: Height and width of the photograph.
        lightness: Of all colors (OKLCH).

    Returns:
        `(..., 3)` uint8 RGB.
    """
    height, width = shape[:2]
    down = 2 * (places[..., 0] + 0.5) / height - 1
    right = 2 * (places[..., 1] + 0.5) / width - 1
    chroma = 0.17 * np.minimum(np.hypot(down, right), 1.0)
    return oklch_to_rgb(lightness, chroma, np.arctan2(-down, right))


def draw_places(source: np.ndarray, image: np.ndarray, side: int = SIDE) -> Image.Image:
    """A field of places: each copied pixel has the color of the place that it comes from.

    The same color marks that place outside the hole. A dark line separates neighbors that were
    copied from places further apart than `JUMP`. What the network painted is hatched.

    Args:
        source: Of one photograph.
        image: `(H, W, 3)` uint8 RGB, the photograph.
        side: Longer side of the drawing, pixels.

    Returns:
        An RGB picture.
    """
    copied, painted, offsets = _parts(source)
    used = np.zeros(copied.shape, bool)
    used[tuple(source[copied].T)] = True
    own = np.moveaxis(np.indices(copied.shape), 0, -1)
    field = place_colors(np.where(copied[..., None], source, own), copied.shape)
    for axis in (0, 1):
        jump = np.abs(offsets - np.roll(offsets, 1, axis)).max(axis=-1) > JUMP
        edge = jump & copied & np.roll(copied, 1, axis)
        field[edge] = field[edge] // 2
    stripe = np.add(*np.indices(copied.shape)) % 8 < 3
    field[painted] = np.where(stripe[painted][:, None], np.uint8(150), np.uint8(225))
    opacity = np.select([copied | painted, used], [255, 200], 0).astype(np.uint8)
    picture = faint(image, side)
    nearest = Image.Resampling.NEAREST
    shape = Image.fromarray(opacity).resize(picture.size, nearest)
    picture.paste(Image.fromarray(field).resize(picture.size, nearest), (0, 0), shape)
    return picture


def draw_copies(
    source: np.ndarray, result: np.ndarray, side: int = SIDE, lines: int = LINES
) -> Image.Image:
    """Arrows over the result, from the place of a known pixel to the place it was copied to.

    Args:
        source: Of one photograph.
        result: `(H, W, 3)` uint8 RGB, what was made of it.
        side: Longer side of the drawing, pixels.
        lines: About how many, evenly over the copied pixels.

    Returns:
        An RGB picture.
    """
    copied, painted, _ = _parts(source)
    canvas, unit = darkened(result, side, 0.3)
    to_canvas = draw_outline(canvas, copied | painted, unit)
    for place in choose_positions(copied, lines):
        origin = source[tuple(place)]
        color = tuple(place_colors(origin, copied.shape, 0.82).tolist())
        start, end = ((np.asarray(each) + 0.5) * to_canvas for each in (origin, place))
        draw_arrow(canvas, start[::-1], end[::-1], color, unit)
    return canvas.reduce(OVERSAMPLED)


def summarize(source: np.ndarray) -> dict[str, float] | None:
    """How much of the hole was copied, and from how many offsets.

    Returns:
        "copied", the share of the hole's pixels; "offsets", the smallest number of offsets that
        make up `MAIN_SHARE` of them. None without a hole.
    """
    copied, painted, offsets = _parts(source)
    missing = int((copied | painted).sum())
    if not missing:
        return None
    counts = np.unique(offsets[copied], axis=0, return_counts=True)[1]
    shares = np.cumsum(np.sort(counts)[::-1]) / max(copied.sum(), 1)
    offsets_needed = int(np.searchsorted(shares, MAIN_SHARE)) + 1 if len(counts) else 0
    return {"copied": copied.sum() / missing, "offsets": offsets_needed}


def describe(source: np.ndarray) -> str:
    """`summarize` as a line for people."""
    summary = summarize(source)
    if summary is None:
        return "nothing is missing"
    return (
        f"{summary['copied']:.0%} of the hole copied, {MAIN_SHARE:.0%} of that by "
        f"{summary['offsets']:.0f} offsets; the network painted the rest"
    )


def positions(source: np.ndarray) -> dict[str, Any]:
    """Copied pixels that a reader may choose, as the page's script reads them.

    Returns:
        "map", height and width; "side" of a marked square, pixels; "positions", a list of row,
        column and the one source of each.
    """
    height, width = source.shape[:2]
    chosen = choose_positions(_parts(source)[0], CHOICES)
    return {
        "map": [height, width],
        "side": max(5, max(height, width) // 32),
        "positions": [[*place.tolist(), [[*source[tuple(place)].tolist(), 1]]] for place in chosen],
    }
