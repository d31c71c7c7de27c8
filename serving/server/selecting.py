"""Selects an object: a box around it, or rough strokes inside it, become its outline.

OpenCV's grabCut separates two color models on a reduced copy of the box and its surroundings. The
copy is cut out and the outline enlarged here; `cut_out` runs in a worker process, within limits.
"""

import importlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from . import worker
from .inpaint_request import Filled, read_image
from .request_terms import Box, RequestError, invalid_option

OF_SELECT = ("photograph", "strokes"), ("box",)
"""Files and options of a request to select an object."""

WHAT = "selecting the object"
"""What a worker does, for messages."""

_SIDE = 512  # pixels of the longer side of the reduced copy
_CONTEXT = 0.4  # of the box's sides: what is seen of its surroundings on each side
_CORE = 0.9  # of the ellipse in the box: first guess of the object
_REACH = 1.0  # of the strokes' longer side: how far beyond them the object may extend
_SECONDS = 10.0  # of processor time; grabCut on the reduced copy takes about one
_ITERATIONS = 6
_SMALL = 0.1  # of the largest part: smaller parts are noise
_BACKGROUND, _OBJECT, _MAYBE_BACKGROUND, _MAYBE_OBJECT = range(4)  # grabCut's marks


def select_request(
    fields: Mapping[str, Any],
    box: Box | None,
    max_pixels: int,
    check: Callable[[], None],
    codec: Any,
    cut: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Filled:
    """Decodes, selects and encodes.

    Args:
        fields: `photograph` and perhaps `strokes` as binary streams.
        box: The box around the object; its part outside the photograph does not count.
        max_pixels: Larger photographs are refused before they are decoded.
        check: Called between the steps; may raise to end them.
        codec: What decodes.
        cut: `cut_out`.

    Returns:
        A PNG of the photograph's size, turned upright: 255 is the object.

    Raises:
        RequestError: If the request is at fault, or OpenCV is not installed.
    """
    if "photograph" not in fields:
        raise RequestError(400, "invalid_photograph", "there is no photograph")
    pixels = read_image(fields, "photograph", codec.read_photograph, max_pixels)[0].pixels
    height, width = pixels.shape[:2]
    check()
    strokes = np.zeros((height, width), bool)
    if "strokes" in fields:
        strokes = read_image(fields, "strokes", codec.load_mask, max_pixels)[0].hole
        if strokes.shape != pixels.shape[:2]:
            raise RequestError(
                400,
                "strokes_size",
                f"strokes must be {width} x {height} pixels like the photograph, got "
                f"{strokes.shape[1]} x {strokes.shape[0]}",
            )
    if box is not None:
        box = _within(box, width, height)
    if box is None and not strokes.any():
        raise invalid_option("box or strokes must mark the object, got neither of them")
    check()
    try:
        selected = select(pixels, box, strokes, cut)
    except ModuleNotFoundError as error:
        raise RequestError(
            501,
            "missing_package",
            f"the Python package {error.name} is not installed; "
            "pip install 'musical-tf[select]' brings what selecting needs",
        ) from None
    if not selected.any():
        raise RequestError(
            400, "nothing_selected", "nothing stands out here; draw another box or a stroke"
        )
    stream = io.BytesIO()
    Image.fromarray(selected.view(np.uint8) * np.uint8(255)).save(stream, "PNG", compress_level=1)
    share = round(float(selected.mean()), 6)
    return Filled(stream.getvalue(), "png", width, height, hole_share=share)


def _within(box: Box, width: int, height: int) -> Box:
    """The part of a box that is in the photograph."""
    inside = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
        raise invalid_option(
            f"box must have 2 x 2 pixels or more in the photograph of {width} x {height}, got "
            f"{','.join(map(str, box))}"
        )
    return inside


def select(
    pixels: np.ndarray,
    box: Box | None,
    strokes: np.ndarray,
    cut: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """`(H, W)` bool: the object in the box or below the strokes.

    Args:
        pixels: `(H, W, 3)` uint8 RGB.
        box: The box around the object.
        strokes: `(H, W)` bool, True inside the object; may be empty where there is a box.
        cut: `cut_out`.
    """
    size = pixels.shape[1], pixels.shape[0]
    stroked = _bounds(strokes)
    if box is None:
        assert stroked is not None
        box = _grown(stroked, _REACH * max(stroked[2] - stroked[0], stroked[3] - stroked[1]), size)
    elif stroked is not None:
        left, top = min(box[0], stroked[0]), min(box[1], stroked[1])
        box = left, top, max(box[2], stroked[2]), max(box[3], stroked[3])
    seen = _grown(box, _CONTEXT * max(box[2] - box[0], box[3] - box[1]), size)
    left, top, right, bottom = seen
    scale = min(1.0, _SIDE / max(right - left, bottom - top))
    shape = max(2, round((right - left) * scale)), max(2, round((bottom - top) * scale))
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])).resize(
            shape, Image.Resampling.BOX
        )
    )
    marks = np.full(small.shape[:2], _BACKGROUND, np.uint8)
    x = [round((edge - left) * scale) for edge in box[::2]]
    y = [round((edge - top) * scale) for edge in box[1::2]]
    marks[y[0] : y[1], x[0] : x[1]] = _MAYBE_BACKGROUND
    # Corners of a box are background, as a first guess.
    across, down = _from_center(shape[0], x), _from_center(shape[1], y)
    is_inside = across**2 + down[:, None] ** 2 <= _CORE**2
    marks[is_inside & (marks == _MAYBE_BACKGROUND)] = _MAYBE_OBJECT
    if stroked is not None:
        inside = Image.fromarray(strokes[top:bottom, left:right].view(np.uint8) * np.uint8(255))
        marks[np.asarray(inside.resize(shape, Image.Resampling.BOX)) > 63] = _OBJECT
    levels = Image.fromarray(cut(small, marks))
    large = levels.resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    selected = np.zeros(pixels.shape[:2], bool)
    selected[top:bottom, left:right] = np.asarray(large) > 127
    return selected


def _from_center(length: int, edges: list[int]) -> np.ndarray:
    """Distances of pixels from the center between two edges, which are at -1 and 1."""
    middle, half = (edges[0] + edges[1]) / 2, max(1.0, (edges[1] - edges[0]) / 2)
    return (np.arange(length) + 0.5 - middle) / half


def _bounds(marked: np.ndarray) -> Box | None:
    columns, rows = (np.flatnonzero(marked.any(axis=axis)) for axis in (0, 1))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _grown(box: Box, margin: float, size: tuple[int, int]) -> Box:
    by = max(2, round(margin))
    return (
        max(0, box[0] - by),
        max(0, box[1] - by),
        min(size[0], box[2] + by),
        min(size[1], box[3] + by),
    )


def cut_out_within_limits(small: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """`cut_out`, in a worker process."""
    importlib.import_module("cv2")  # before the limits: its libraries take address space
    with worker.limits(WHAT, worker.MEMORY, _SECONDS):
        return cut_out(small, marks)


def cut_out(small: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Separates an object from its surroundings.

    Args:
        small: `(H, W, 3)` uint8 RGB.
        marks: `(H, W)` uint8, one of grabCut's marks for each pixel.

    Returns:
        `(H, W)` uint8, above 127 is the object; smooth along its outline.
    """
    import cv2

    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)  # the same answer every time
    certain = (marks == _OBJECT).astype(np.uint8)
    if not (marks == _BACKGROUND).any():  # the box is the whole photograph
        marks[[0, -1]] = marks[:, [0, -1]] = _BACKGROUND
        marks[certain > 0] = _OBJECT
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    lightness_and_color = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    cv2.grabCut(
        lightness_and_color,
        marks,
        (0, 0, 1, 1),  # unused
        background,
        foreground,
        _ITERATIONS,
        cv2.GC_INIT_WITH_MASK,
    )
    found = np.isin(marks, (_OBJECT, _MAYBE_OBJECT)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) | certain
    count, parts, numbers, _ = cv2.connectedComponentsWithStats(found)
    areas = numbers[:, cv2.CC_STAT_AREA]
    kept = [
        part
        for part in range(1, count)
        if areas[part] > _SMALL * areas[1:].max() or certain[parts == part].any()
    ]
    outlines, _ = cv2.findContours(
        np.isin(parts, kept).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    filled = cv2.drawContours(np.zeros(marks.shape, np.uint8), outlines, -1, 255, cv2.FILLED)
    return cv2.GaussianBlur(filled, (0, 0), 1.0)
