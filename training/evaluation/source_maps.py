"""Pictures of the known pixels that a model copied into a hole: the explanation of its fill.

`source` is `(H, W, 2)` int32, as `musical_tf.inference.InpaintingFunction.outputs` gives it: row
and column of the known pixel that a pixel was copied from; a known pixel's own place; -1 twice
where the network painted.
"""

from typing import Any

import numpy as np
from PIL import Image

from .attention_maps import SIDE, arrows_over, choose_positions, oklch_to_rgb, overlay

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
    """Colors of `(..., 2)` places of a photograph: the direction from the middle as hue.

    Places close to each other have similar colors; the middle is gray. `lightness` is OKLCH's.
    """
    height, width = shape[:2]
    down = 2 * (places[..., 0] + 0.5) / height - 1
    right = 2 * (places[..., 1] + 0.5) / width - 1
    chroma = 0.17 * np.minimum(np.hypot(down, right), 1.0)
    return oklch_to_rgb(lightness, chroma, np.arctan2(-down, right))


def draw_places(source: np.ndarray, image: np.ndarray, side: int = SIDE) -> Image.Image:
    """Draws each copied pixel in the color of the place that it comes from.

    The same color marks that place outside the hole. A dark line separates neighbors that were
    copied from places further apart than `JUMP`. What the network painted is hatched.
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
    return overlay(image, field, opacity, side)


def draw_copies(
    source: np.ndarray, result: np.ndarray, side: int = SIDE, lines: int = LINES
) -> Image.Image:
    """Draws arrows over the result, from the place of a known pixel to that of its copy.

    About `lines` arrows, evenly over the copied pixels.
    """
    copied, painted, _ = _parts(source)
    ends = choose_positions(copied, lines)
    starts = source[tuple(ends.T)]
    colors = place_colors(starts, copied.shape, 0.82)
    return arrows_over(result, copied | painted, starts, ends, colors, side)


def summarize(source: np.ndarray) -> dict[str, float] | None:
    """Returns "copied", the copied share of the hole's pixels, and "offsets".

    "offsets" is the smallest number of offsets that make up `MAIN_SHARE` of the copied pixels. None
    without a hole.
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
        f"{summary['copied']:.0%} of the hole is copied, {MAIN_SHARE:.0%} of it by "
        f"{summary['offsets']:.0f} offsets; {1 - summary['copied']:.0%} is painted by the network"
    )


def positions(source: np.ndarray) -> dict[str, Any]:
    """Returns copied pixels that a reader may choose, as the page's script reads them.

    "map" is height and width; "side" of a marked square, pixels; "positions" a list of row, column
    and the one source of each.
    """
    height, width = source.shape[:2]
    chosen = choose_positions(_parts(source)[0], CHOICES)
    return {
        "map": [height, width],
        "side": max(5, max(height, width) // 32),
        "positions": [[*place.tolist(), [[*source[tuple(place)].tolist(), 1]]] for place in chosen],
    }
