"""Pictures of the positions that an attention took its features from.

An `AttentionMap` (see `musical_tf.layers.attention_maps`) comes from

    maps = RunPredictor(run).attention_maps(images, holes)  # {"1x1": ..., "3x3": ...}

and the functions here make of its first sample

* `draw_flow`: the color map of Yu et al. (CVPR 2018): the hue of a position says in which
  direction its strongest source lies, the saturation how far away; `draw_wheel` is its legend;
* `draw_usage`: light on the known positions that were used, for the hole as a whole;
* `draw_arrows`: arrows over the photograph, from the strongest source to the position it fills;
* `describe`: one line on how concentrated and how known the sources are.

A color map and an arrow show the strongest source alone, and an attention may spread its weight
over hundreds: therefore every picture goes with `describe`.
"""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from musical_tf.layers.attention_maps import AttentionMap

SIDE = 512
"""Longer side of a drawing, pixels."""

REACH = 0.4
"""Distance at which the color is fully saturated, as a share of the map's diagonal."""

ARROWS = 30
"""About as many arrows as a photograph is readable under."""

LISTED = 6
"""Sources that are drawn one by one in a page, the strongest."""

_DARK, _LIGHT = (12, 12, 16), (255, 201, 60)

OVERSAMPLED = 2
"""Pillow draws without smoothing, so everything is drawn at this multiple and shrunk."""


# ----------------------------------------------------------------------------------------- colors


def flow_colors(offsets: np.ndarray, reach: float, strength: float = 1.0) -> np.ndarray:
    """Colors of `(..., 2)` offsets to a source: direction as hue, length as saturation.

    White is no offset. Hues are in the order of Yu et al.: sources up on the right are green, those
    down on the left pink. Colors of one length are about equally light (OKLCH), so that no
    direction looks stronger than another.

    Args:
        offsets: `(..., 2)`, rows and columns from a position to its source.
        reach: Length, in the same unit, at which the color is fully saturated.
        strength: Float, 1 for areas; above it darker and more colorful, for thin lines.

    Returns:
        `(..., 3)` uint8 RGB.
    """
    down, right = np.moveaxis(np.asarray(offsets, float), -1, 0)
    length = np.minimum(np.hypot(down, right) / reach, 1.0)
    hue = np.arctan2(-down, right) + np.deg2rad(100.0)
    lightness = 1.0 - 0.27 * strength * length
    chroma = 0.145 * length
    return oklch_to_rgb(lightness, chroma, hue)


def oklch_to_rgb(
    lightness: np.ndarray | float, chroma: np.ndarray | float, hue: np.ndarray
) -> np.ndarray:
    """Björn Ottosson's OKLCH -> sRGB, uint8; what the screen cannot show is clipped."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    )
    linear = np.clip(linear, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def _reach(attention: "AttentionMap") -> float:
    """The full saturation's distance, in positions."""
    return REACH * float(np.hypot(*attention.filled.shape[1:]))


# ---------------------------------------------------------------------------------------- drawings


def draw_flow(attention: "AttentionMap", image: np.ndarray, side: int = SIDE) -> Image.Image:
    """Draws every position of the hole in the color of the way to its strongest source.

    The photograph, `image` `(H, W, 3)` uint8, is shown around it, gray and faint. `side` is the
    longer side of the drawing, pixels.
    """
    filled = attention.filled[0]
    offsets = attention.sources[0] - np.moveaxis(np.indices(filled.shape), 0, -1)
    opacity = filled.astype(np.uint8) * np.uint8(255)
    return overlay(image, flow_colors(offsets, _reach(attention)), opacity, side)


def draw_wheel(side: int = 160) -> Image.Image:
    """Draws the legend of `draw_flow`: each place of the disc has the color of a source there.

    RGBA, transparent around the disc, whose rim is `REACH` of the map's diagonal.
    """
    full = side * OVERSAMPLED
    radius = full / 2 - 2
    axis = np.arange(full) - (full - 1) / 2
    offsets = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    disc = np.hypot(offsets[..., 0], offsets[..., 1]) <= radius
    colors = flow_colors(offsets, radius)
    rgba = np.dstack([colors, disc.astype(np.uint8) * np.uint8(255)])
    picture = Image.fromarray(rgba)
    draw = ImageDraw.Draw(picture)
    middle, cross = (full - 1) / 2, full // 32
    ink = (28, 27, 26, 150)
    draw.line([(middle - cross, middle), (middle + cross, middle)], fill=ink, width=OVERSAMPLED)
    draw.line([(middle, middle - cross), (middle, middle + cross)], fill=ink, width=OVERSAMPLED)
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def draw_usage(attention: "AttentionMap", picture: np.ndarray, side: int = SIDE) -> Image.Image:
    """Draws which known positions the hole as a whole was filled from, as light on `picture`.

    All of the weight is in it, not only that of the strongest sources. The position that gave most
    is the brightest, and brightness is proportional.
    """
    canvas, unit = darkened(picture, side, 0.62)
    full = canvas.size
    usage = attention.strongest(LISTED).usage[0]
    light = np.rint(217 * usage / max(float(usage.max()), 1e-30)).astype(np.uint8)
    light = Image.fromarray(light).resize(full, Image.Resampling.NEAREST)
    canvas.paste(Image.new("RGB", full, _LIGHT), (0, 0), light)
    draw_outline(canvas, attention.filled[0], unit)
    return canvas.reduce(OVERSAMPLED)


def draw_arrows(
    attention: "AttentionMap",
    picture: np.ndarray,
    side: int = SIDE,
    arrows: int = ARROWS,
) -> Image.Image:
    """Draws about so many arrows, from the strongest source to the position it fills.

    They are spread evenly over the hole and have the colors of `draw_flow`.
    """
    filled = attention.filled[0]
    ends = choose_positions(filled, arrows)
    starts = attention.sources[0][tuple(ends.T)]
    colors = flow_colors(starts - ends, _reach(attention), strength=1.15)
    return arrows_over(picture, filled, starts, ends, colors, side)


def arrows_over(
    picture: np.ndarray,
    outlined: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    colors: np.ndarray,
    side: int,
) -> Image.Image:
    """Draws arrows over a darkened photograph.

    Args:
        picture: `(H, W, 3)` uint8 RGB.
        outlined: `(h, w)` bool, the hole on the map.
        starts, ends: `(N, 2)`, rows and columns of the map.
        colors: `(N, 3)` uint8 RGB.
        side: Longer side of the drawing, pixels.
    """
    canvas, unit = darkened(picture, side, 0.3)
    to_canvas = draw_outline(canvas, outlined, unit)
    for start, end, color in zip(starts, ends, colors, strict=True):
        start, end = ((each + 0.5) * to_canvas for each in (start, end))
        draw_arrow(canvas, start[::-1], end[::-1], tuple(color.tolist()), unit)
    return canvas.reduce(OVERSAMPLED)


def choose_positions(filled: np.ndarray, count: int) -> np.ndarray:
    """Returns about `count` of the filled positions, on a square lattice over the hole.

    From `(H, W)` bool to `(N, 2)` int, row and column; at least one where anything is filled.
    """
    there = np.argwhere(filled)
    if not len(there):
        return there
    step = max(1, round(np.sqrt(len(there) / count)))
    top, left = there.min(axis=0)
    bottom, right = there.max(axis=0)
    # Centred: as much of the hole remains on the one side of the lattice as on the other.
    first = (top + (bottom - top) % step // 2, left + (right - left) % step // 2)
    on_lattice = ((there - first) % step == 0).all(axis=1)
    return there[on_lattice] if on_lattice.any() else there[len(there) // 2][None]


def drawing_size(image: np.ndarray, side: int) -> tuple[int, int]:
    """Width and height of a drawing whose longer side is `side`."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def faint(image: np.ndarray, side: int) -> Image.Image:
    """The photograph, gray and light, to find one's way."""
    size = drawing_size(image, side)
    gray = Image.fromarray(image).convert("L").convert("RGB").resize(size, Image.Resampling.LANCZOS)
    return Image.blend(gray, Image.new("RGB", size, (250, 249, 247)), 0.55)


def overlay(image: np.ndarray, colors: np.ndarray, opacity: np.ndarray, side: int) -> Image.Image:
    """The faint photograph under a map's colors, `(h, w, 3)` and `(h, w)` uint8."""
    picture = faint(image, side)
    size, nearest = picture.size, Image.Resampling.NEAREST
    top, shape = (Image.fromarray(each).resize(size, nearest) for each in (colors, opacity))
    picture.paste(top, (0, 0), shape)
    return picture


def darkened(picture: np.ndarray, side: int, share: float) -> tuple[Image.Image, float]:
    """A dark photograph to draw on, enlarged by `OVERSAMPLED`, and the width of a thin line."""
    width, height = drawing_size(picture, side)
    full = (width * OVERSAMPLED, height * OVERSAMPLED)
    canvas = Image.fromarray(picture).resize(full, Image.Resampling.LANCZOS)
    canvas = Image.blend(canvas, Image.new("RGB", full, _DARK), share)
    return canvas, max(width, height) / SIDE * OVERSAMPLED


def draw_outline(canvas: Image.Image, filled: np.ndarray, unit: float) -> np.ndarray:
    """Draws the border of the hole, which a good fill hides.

    Returns:
        `(2,)`, the canvas' pixels of a row and of a column of the map.
    """
    to_canvas = np.array([canvas.height / filled.shape[0], canvas.width / filled.shape[1]])
    draw = ImageDraw.Draw(canvas)
    padded = np.pad(filled, 1)
    lines = []
    for row, column in np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1]):
        lines.append(((column, row), (column + 1, row)))
    for row, column in np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1]):
        lines.append(((column, row), (column, row + 1)))
    for color, thickness in (((20, 20, 24, 255), 3.0), ((255, 255, 255, 255), 1.2)):
        for start, end in lines:
            points = [(x * to_canvas[1], y * to_canvas[0]) for x, y in (start, end)]
            draw.line(points, fill=color, width=max(1, round(thickness * unit)))
    return to_canvas


def draw_arrow(
    canvas: Image.Image,
    start: np.ndarray,
    end: np.ndarray,
    color: tuple[int, ...],
    unit: float,
) -> None:
    """A slightly bent arrow from a dot; a dark rim sets it off from any photograph."""
    way = end - start
    length = float(np.hypot(*way))
    if length < 1:
        return
    normal = np.array([-way[1], way[0]]) / length
    middle = (start + end) / 2 + normal * 0.12 * length
    time = np.linspace(0.0, 1.0, 25)[:, None]
    curve = (1 - time) ** 2 * start + 2 * time * (1 - time) * middle + time**2 * end
    along = end - middle
    along = along / max(float(np.hypot(*along)), 1e-6)
    across = np.array([-along[1], along[0]])
    head = min(11.0 * unit, 0.6 * length)
    base = end - along * head
    shaft = [tuple(point) for point in curve if (point - base) @ along < 0] + [tuple(base)]
    tip = [tuple(end), tuple(base + across * head * 0.42), tuple(base - across * head * 0.42)]
    draw = ImageDraw.Draw(canvas)
    for tint, width, rim in (((20, 20, 24), 4.2, 1.3), (color, 2.2, 0.0)):
        if len(shaft) > 1:
            draw.line(shaft, fill=tint, width=max(1, round(width * unit)), joint="curve")
        draw.polygon(tip, fill=tint, outline=tint, width=max(1, round(2 * rim * unit)))
        radius = (2.6 + rim) * unit
        draw.ellipse([*(start - radius), *(start + radius)], fill=tint)


# ------------------------------------------------------------------------------------------- words


def summarize(attention: "AttentionMap") -> dict[str, float] | None:
    """Returns how concentrated and how known the sources are, medians over the positions.

    "strongest" is the share of the weight that the strongest source has; "spread" the number of
    equally strong sources with the same entropy; "known" the share of the weight on known
    positions. None where nothing is filled.
    """
    filled = attention.filled[0]
    if not filled.any():
        return None
    found = attention.strongest(LISTED)
    return {
        "strongest": float(np.median(found.weights[0][filled][:, 0])),
        "spread": float(np.median(found.spread[0][filled])),
        "known": float(np.median(found.known_share[0][filled])),
    }


def describe(attention: "AttentionMap") -> str:
    """`summarize` as a line for people."""
    summary = summarize(attention)
    if summary is None:
        return "nothing is filled: no known patch is left to take from"
    return (
        f"strongest source {_percent(summary['strongest'])} of the weight, spread as over "
        f"{summary['spread']:.0f} equal ones, {_percent(summary['known'])} known (medians)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"
