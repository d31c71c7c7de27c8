"""Reads masks from image files, and works on holes."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from .opening import MAX_PIXELS, STRIP_PIXELS, ImageError, decoded, strips, turn_upright
from .photographs import Photograph

POLARITIES = ("white", "black")


def read_mask(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    polarity: str = "white",
    threshold: int = 127,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads a mask from an image file.

    A pixel's value is its brightest channel, so that strokes of any bright colour count. A
    transparent pixel is never hole. EXIF orientation is honoured.

    Args:
        source: A path, or a binary stream.
        name: What to call it in messages; the path by default.
        polarity: "white": values above the threshold are hole. "black": values up to it are.
        threshold: 0 to 255.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        OSError: If the file cannot be opened.
        ImageError: If it is no image, is damaged or too large, or holds only the values 0 and 1.
    """
    name = str(source) if name is None else name
    with decoded(source, name, max_pixels) as image:
        turn_upright(image)
        # What a PPM file has 16 bits of, Pillow opens as 32.
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            raise ImageError(f"{name}: a mask must have 8 or 16 bits a channel, it has 32")
        values = np.empty((image.height, image.width), np.uint8)
        for rows, strip in strips(image):
            values[rows] = _brightest(strip, 0 if polarity == "white" else 255)
    if threshold > 0 and values.max() == 1:
        raise ImageError(
            f"{name}: it holds only the values 0 and 1, so nothing in it is above {threshold}; "
            "save masks as 0 and 255, or set the threshold to 0"
        )
    return threshold_mask(values, polarity, threshold)


def alpha_mask(
    photograph: Photograph, *, polarity: str = "white", threshold: int = 127
) -> np.ndarray:
    """Takes the mask from a photograph's transparency.

    Args:
        photograph: A photograph with alpha.
        polarity: "white": transparent pixels are hole. "black": opaque ones are.
        threshold: 0 to 255, compared with 255 - alpha.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        ImageError: If the photograph has no alpha.
    """
    if photograph.alpha is None:
        raise ImageError("it has no alpha channel to take the mask from")
    return threshold_mask(255 - photograph.alpha, polarity, threshold)


def threshold_mask(values: np.ndarray, polarity: str = "white", threshold: int = 127) -> np.ndarray:
    """Turns grey levels into a hole.

    Args:
        values: `(H, W)` uint8.
        polarity: "white": values above the threshold are hole. "black": values up to it are.
        threshold: 0 to 255.

    Returns:
        `(H, W)` bool, True = hole.

    Raises:
        ValueError: On an unknown polarity or a threshold outside [0, 255].
    """
    if polarity not in POLARITIES:
        raise ValueError(f"unknown polarity {polarity!r}; valid: {', '.join(POLARITIES)}")
    if not 0 <= threshold <= 255:
        raise ValueError(f"threshold must be within 0 and 255, got {threshold}")
    return values > threshold if polarity == "white" else values <= threshold


def dilate(hole: np.ndarray, radius: int) -> np.ndarray:
    """Grows a hole by a disc: a pixel becomes hole if a hole pixel is within `radius` of it.

    Args:
        hole: `(H, W)` bool.
        radius: Pixels, >= 0.

    Returns:
        `(H, W)` bool, a new array.

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
    near = (
        slice(top, rows[-1] + radius + 1),
        slice(left, columns[-1] + radius + 1),
    )
    part, target = hole[near], grown[near]
    height, width = part.shape
    step = max(radius, STRIP_PIXELS // width)
    for start in range(0, height, step):
        end, above, below = (
            min(start + step, height),
            max(0, start - radius),
            min(start + step + radius, height),
        )
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
    """Refuses a mask of another size than its photograph.

    Raises:
        ImageError: With both sizes, and the reason where an EXIF rotation explains the difference.
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

    What the hole touches stays hole: where it shrinks, a pixel is hole if any part of it was.

    Args:
        hole: `(h, w)` bool.
        height: Pixels, > 0.
        width: Pixels, > 0.

    Returns:
        `(height, width)` bool; `hole` itself if it fits already.

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
    mask = Image.fromarray(hole.astype(np.float32))  # eight bits would round a speck away
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX)) > 0


def _brightest(image: Image.Image, background: int) -> np.ndarray:
    """The brightest channel of every pixel, uint8; what is transparent shows the background."""
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        flat = Image.new("RGBA", layers.size, (background,) * 3 + (255,))
        image = Image.alpha_composite(flat, layers)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB")).max(axis=2)
