"""Reads masks from image files, and works on holes."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from musical_tf.image_formats import MAX_PIXELS, POLARITIES

from .opening import STRIP_PIXELS, ImageError, decoded, strips, turn_upright
from .photographs import Photograph

THRESHOLD = 127
"""The level above which a pixel of a mask is white, where no threshold is given."""

_FEW_LEVELS = 16  # a file of more levels is shaded, not labeled
_JPEG_NOISE = 8  # levels by which a JPEG's black differs from 0
_JPEG_RINGING = 64  # levels by which a JPEG's gray differs at the edge of what was drawn


@dataclass(frozen=True)
class Mask:
    """A hole and how it was read.

    Attributes:
        hole: `(H, W)` bool, True = hole.
        kind: The part of the file that was read, for the user.
        levels: The levels found.
        rule: The rule that selected the hole.
    """

    hole: np.ndarray
    kind: str
    levels: str
    rule: str

    @property
    def reading(self) -> str:
        """All of it in one line."""
        return f"{self.kind}, {self.levels}: {self.rule}"


def read_mask(source: str | Path | BinaryIO, **options) -> np.ndarray:
    """Returns the hole of `load_mask`: `(H, W)` bool, True = hole."""
    return load_mask(source, **options).hole


def load_mask(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    polarity: str = "white",
    threshold: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Mask:
    """Reads a mask from an image file: a path, or a binary stream.

    The rule, for every program of this project:

    1. EXIF orientation is honored. The level of a pixel is its brightest channel, 0 to 255. A
       file of 16 bits whose values all fit in 8 bits keeps its values; otherwise the upper 8 bits
       count.
    2. Transparent pixels are not hole. If a partly transparent file has no bright visible pixel,
       the level is the opacity, so that black drawn on a clear layer marks the hole.
    3. Levels above the threshold are the hole ("white"), or levels up to the threshold ("black").
    4. Without a given threshold, the threshold is 127, and strongly colored pixels count as white.
       If no level is above 127, every level but 0 is white where the file has at most 16 levels
       (labels). In a JPEG, if no level is above 191, levels above half of the highest are, and so
       they are in other files of more levels. "black" treats a file that has no level up to 127
       (63 in a JPEG) alike, from the other end.
    5. "clear" reads the opacity alone: the transparent part is the hole.

    Args:
        source, name, max_pixels: As of `read_photograph`.
        polarity: One of `POLARITIES`.
        threshold: 0 to 255, taken literally; None for the automatic choice of step 4.

    Raises:
        OSError: If the file cannot be opened.
        ImageError: If the file is no image, is damaged or too large, or marks something and selects
            nothing.
        ValueError: On an unknown polarity or a threshold outside [0, 255].
    """
    _check_choice(polarity, THRESHOLD if threshold is None else threshold)
    name = str(source) if name is None else name
    deep: list[Any] = []

    def note_depth(image: Any, _: str) -> None:
        deep.extend(tile for tile in image.tile if ";16" in str(tile.args))

    with decoded(source, name, max_pixels, note_depth) as image:
        turn_upright(image)
        cut_off = bool(deep) and not image.mode.startswith("I")
        if image.mode.startswith("I;16") and "transparency" in image.info:
            image = _with_alpha_of_key(image)
        if image.mode in ("I", "F"):
            raise ImageError(f"{name}: a mask must have 8 or 16 bits a channel, it has 32")
        values, kind = _levels(image, name, polarity, threshold)
        noise = _JPEG_NOISE if image.format in ("JPEG", "MPO") else 0
        is_white = polarity == "black" and values.min() >= 255 - noise
        is_plain = not is_white or image.mode.startswith("I") or _is_plain(image, noise)
        if image.mode == "P" and not image.has_transparency_data:
            is_plain = is_plain and len(image.getcolors() or ()) == 1  # labels, maybe of one color
    found = _found_levels(values)
    levels = _say_levels(found)
    if cut_off and found[-1] == 0:
        raise ImageError(
            f"{name}: its 16-bit values must use the upper 8 bits, got only values below 256; "
            "save the mask with 8 bits a channel"
        )
    if polarity == "clear":
        level = 254 - (THRESHOLD if threshold is None else threshold)
        return Mask(
            _clear_part(values, found, level, name), kind, levels, "the clear part is the hole"
        )
    level = THRESHOLD if threshold is None else threshold
    are_labels = len(found) <= _FEW_LEVELS and not noise
    if threshold is None and len(found) > 1:
        margin = _JPEG_RINGING if noise else 0
        if noise < found[-1] <= level + margin:  # nothing is bright
            level = 0 if are_labels else int(found[-1]) // 2
        elif polarity == "black" and level - margin < found[0] < 255 - noise:  # nothing is dark
            level = 254 if are_labels else (int(found[0]) + 255) // 2
    hole = threshold_mask(values, polarity, level)
    side = "above" if polarity == "white" else "up to"
    nothing = len(found) == 1 and found[0] == (0 if polarity == "white" else 255)
    quiet = found[-1] <= noise if polarity == "white" else found[0] >= 255 - noise
    if not (is_plain and (nothing or quiet)) and not hole.any():
        raise ImageError(
            f"{name}: the mask must have levels {side} {level}, got {levels}, so "
            "nothing is selected; set the threshold or the polarity"
        )
    return Mask(hole, kind, levels, f"levels {side} {level} are the hole")


def _found_levels(values: np.ndarray) -> np.ndarray:
    """The levels that occur, sorted."""
    flat = values.reshape(-1)
    counts = np.zeros(256, int)
    for start in range(0, flat.size, STRIP_PIXELS):
        counts += np.bincount(flat[start : start + STRIP_PIXELS], minlength=256)
    return np.flatnonzero(counts)


def _clear_part(opacity: np.ndarray, found: np.ndarray, level: int, name: str) -> np.ndarray:
    if found[0] == 255:
        raise ImageError(
            f"{name}: a mask must have a clear part for polarity clear, got opaque pixels only; "
            "set the polarity"
        )
    hole = opacity <= level
    if not hole.any():
        raise ImageError(
            f"{name}: the opacity must have levels up to {level}, got {_say_levels(found)}, so "
            "nothing is selected; set the threshold or the polarity"
        )
    return hole


def _say_levels(found: np.ndarray) -> str:
    if len(found) == 1:
        return f"level {found[0]} everywhere"
    if len(found) <= 4:
        return f"levels {', '.join(map(str, found))}"
    return f"{len(found)} levels from {found[0]} to {found[-1]}"


def _levels(
    image: Image.Image, name: str, polarity: str, threshold: int | None
) -> tuple[np.ndarray, str]:
    """The levels of a mask, `(H, W)` uint8, and the words for where they come from."""
    values = np.empty((image.height, image.width), np.uint8)
    is_deep = image.mode.startswith("I")
    if is_deep or not image.has_transparency_data:
        if polarity == "clear":
            raise ImageError(f"{name}: a mask must have an alpha channel for polarity clear")
        extrema: Any = image.getextrema() if is_deep else None
        for rows, strip in strips(image):
            if is_deep:
                values[rows] = _in_8_bits(np.asarray(strip).astype(np.uint16), extrema[1])
            else:
                values[rows] = _brightest(strip, polarity, threshold)
        if is_deep:
            return values, "16-bit gray"
        return values, "gray" if image.mode in ("1", "L") else "color"
    alpha = np.empty_like(values)
    bright = False
    paper = 0 if polarity == "white" else 255
    for rows, strip in strips(image):
        layers = strip.convert("RGBA")
        alpha[rows] = opacity = np.asarray(layers.getchannel("A"))
        if polarity == "clear" or not opacity.any():
            values[rows] = paper
            continue
        colors = _brightest(layers.convert("RGB"), polarity, threshold)
        bright = bright or bool((colors[opacity > 0] > (threshold or THRESHOLD)).any())
        flat = Image.new("RGBA", layers.size, (paper, paper, paper, 255))
        flat.alpha_composite(layers)
        values[rows] = _brightest(flat.convert("RGB"), polarity, threshold)
    if polarity == "clear":
        return alpha, "opacity"
    if polarity == "white" and not bright and alpha.min() < 255:
        return alpha, "opacity of a dark drawing"
    return values, "color on a clear layer" if alpha.min() < 255 else "color"


def _in_8_bits(levels: np.ndarray, most: int) -> np.ndarray:
    """Levels of 16 bits, of which `most` is the highest, in 8; none but 0 becomes 0."""
    return levels if most <= 255 else np.maximum(levels >> 8, levels > 0)


def _with_alpha_of_key(image: Image.Image) -> Image.Image:
    """Gray of 16 bits, of which one level is transparent, as 8 bits with alpha."""
    levels = np.asarray(image).astype(np.uint16)
    alpha = np.where(levels == image.info["transparency"], 0, 255)
    return Image.fromarray(np.dstack([_in_8_bits(levels, levels.max()), alpha]).astype(np.uint8))


def _is_plain(image: Image.Image, noise: int) -> bool:
    """Whether the visible pixels of an image are all of one color, up to `noise` levels."""
    ranges = [strip.convert("RGBA").getextrema() for _, strip in strips(image)]
    lowest, highest = np.min(ranges, axis=(0, 2)), np.max(ranges, axis=(0, 2))
    return bool(highest[3] == 0 or (highest - lowest <= noise).all())


def _brightest(image: Image.Image, polarity: str, threshold: int | None) -> np.ndarray:
    """The brightest channel of every pixel, uint8; strong colors are white by default."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    channels = np.asarray(image.convert("RGB"))
    level = channels.max(axis=2)
    if polarity == "white" and threshold is None:
        chroma = level - channels.min(axis=2)
        level = np.where((level >= 32) & (chroma >= level // 2 + 1), np.uint8(255), level)
    return level


def _check_choice(polarity: str, threshold: int) -> None:
    if polarity not in POLARITIES:
        raise ValueError(f"unknown polarity {polarity!r}; valid: {', '.join(POLARITIES)}")
    if not 0 <= threshold <= 255:
        raise ValueError(f"threshold must be within 0 and 255, got {threshold}")


def alpha_mask(
    photograph: Photograph, *, polarity: str = "white", threshold: int | None = None
) -> np.ndarray:
    """Takes the mask from a photograph's transparency, `(H, W)` bool, True = hole.

    Args:
        photograph: A photograph with alpha.
        polarity: "white" or "clear": transparent pixels are hole. "black": opaque ones are.
        threshold: 0 to 255, compared with 255 - alpha; 127 by default.

    Raises:
        ImageError: If the photograph has no alpha.
    """
    if photograph.alpha is None:
        raise ImageError("it has no alpha channel to take the mask from")
    threshold = THRESHOLD if threshold is None else threshold
    polarity = "white" if polarity == "clear" else polarity
    return threshold_mask(255 - photograph.alpha, polarity, threshold)


def threshold_mask(values: np.ndarray, polarity: str = "white", threshold: int = 127) -> np.ndarray:
    """Turns `(H, W)` uint8 gray levels into a hole, `(H, W)` bool.

    Values above the threshold are hole, with the polarity "black" values up to it.

    Raises:
        ValueError: On an unknown polarity or a threshold outside [0, 255].
    """
    _check_choice(polarity, threshold)
    return values <= threshold if polarity == "black" else values > threshold


def dilate(hole: np.ndarray, radius: int) -> np.ndarray:
    """Grows a hole `(H, W)` by a disc: every pixel within `radius` of a hole pixel.

    Returns a new array.

    Raises:
        ValueError: On a negative radius.
    """
    if radius < 0:
        raise ValueError(f"dilation must be 0 pixels or more, got {radius}")
    grown = hole.copy()
    if radius == 0 or not hole.any():
        return grown
    # Only the hole's surroundings change; on a large photograph that is most of the work saved.
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    top, left = max(0, rows[0] - radius), max(0, columns[0] - radius)
    near = (slice(top, rows[-1] + radius + 1), slice(left, columns[-1] + radius + 1))
    part, target = hole[near], grown[near]
    height, width = part.shape
    step = max(radius, STRIP_PIXELS // width)
    for start in range(0, height, step):
        end, above = min(start + step, height), max(0, start - radius)
        below = min(end + radius, height)
        distance = _distance_in_column(part[above:below], radius)[start - above : end - above]
        strip = target[start:end]
        for shift in range(min(radius, width - 1) + 1):
            close = distance <= math.isqrt(radius * radius - shift * shift)
            strip[:, shift:] |= close[:, : width - shift]
            strip[:, : width - shift] |= close[:, shift:]
    return grown


def _distance_in_column(hole: np.ndarray, limit: int) -> np.ndarray:
    """Rows from each pixel to the nearest hole pixel above or below, `limit + 1` if further."""
    distance = np.where(hole, 0, limit + 1).astype(np.uint8 if limit < 254 else np.uint16)
    for rows in (distance, distance[::-1]):
        for row, before in zip(rows[1:], rows[:-1], strict=True):
            np.minimum(row, before + 1, out=row)
    return distance


def check_sizes(photograph: Photograph, hole: np.ndarray, name: str) -> None:
    """Refuses a mask of another size than its photograph: `ImageError` with both sizes.

    It gives the reason where an EXIF rotation explains the difference.
    """
    height, width = photograph.pixels.shape[:2]
    if hole.shape == (height, width):
        return
    message = (
        f"{name}: the mask is {hole.shape[1]} x {hole.shape[0]} pixels and the image is "
        f"{width} x {height}"
    )
    if photograph.stored_size == (hole.shape[1], hole.shape[0]):
        message += (
            "; the image is stored lying on its side with an EXIF rotation, and the mask must "
            "match it as it is shown"
        )
    raise ImageError(message)


def fit_mask(hole: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales a hole to an image of the same shape and another size.

    A pixel is hole if any part of it was. A hole that fits already is returned itself.

    Raises:
        ImageError: If the sides' ratios differ by more than rounding explains.
    """
    if hole.shape == (height, width):
        return hole
    rounding = (height + width + sum(hole.shape)) / 2  # half a pixel of every side
    if abs(hole.shape[0] * width - hole.shape[1] * height) > rounding:
        raise ImageError(
            f"a mask of {hole.shape[1]} x {hole.shape[0]} pixels has another shape than an image "
            f"of {width} x {height}, so it cannot be scaled to it"
        )
    return stretch_hole(hole, height, width)


def stretch_hole(hole: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales a hole to any size; a pixel is hole if any pixel that it touches is.

    Nearest neighbor would lose thin strokes, and call pixels known that were not.
    """
    return np.ascontiguousarray(_any_of_rows(_any_of_rows(hole, height).T, width).T)


def _any_of_rows(hole: np.ndarray, count: int) -> np.ndarray:
    """Scales a hole to `count` rows, each of them hole where a row that it touches is."""
    edges = np.arange(count + 1) * len(hole)
    first, last = edges[:-1] // count, (edges[1:] - 1) // count
    found = hole[first]
    for step in range(1, (last - first).max() + 1):
        found |= hole[np.minimum(first + step, last)]
    return found
