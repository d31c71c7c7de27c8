"""Places the windows through which a model sees a photograph; `tiling.fill` runs them."""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from musical_tf.contract import STRATEGIES

# Holes are planned on a grid this fine: close enough, and cheap at 24 megapixels.
_CELLS_PER_WORKING_SIZE = 32
_CORE = 0.75  # share of a window's side that it may fill; the rest is context
_GROUP = 0.5  # share of a window's side within which holes are gathered: what models train on
_MINIMUM_KNOWN = 0.25  # a window with less to copy from than this grows
_SCALE_STEP = 1.25  # resolution of the search for a hole's thickness
_NEARLY_ALL = 0.9  # share of the image's sides from which on a window takes the whole image
_STRETCH = 2.0  # times a thick hole's scale that may be given up to fill the hole in one window
_STRETCH_THIN = 1.5  # the same for a hole that the sharpest window holds by its thickness
_SMALL_GRID = 4096  # cells
# Lengths below are shares of a window's side. A long hole is followed in parts: a diagonal fills
# little of the box around it. Not in many short ones: much of a run takes as long for a small
# window as for a large one. A part and its context must stay within a window's side.
_PART = 0.4  # side of the square as large as the box around a part, at most
_PART_LENGTH = 0.85  # length of a part, at most
_PART_CONTEXT = 0.0625  # context on each side of a part
_THIN = 0.0875  # thickness to which a long hole is shrunk: sharper windows fill it no better
_SOFTEST = 3.0  # scale up to which a long hole is shrunk
_FEW = 4  # windows around compact holes that get all the context there is; more get less:
_GROUP_CONTEXT = 0.03125  # context on each side, or half a hole's length if that is more
_SOFTEST_GROUP = 1.5  # scale up to which they are shrunk to the thickness `_THIN`
_SIZES = 16  # number of lengths that a window's side may have
_WINDOW_COST = 1 / 8  # cost of a window in addition to its pixels: a square of this side
_MARGIN = 0.125  # share of a square's side that is context between the hole and the square's edge
_MOST_ENLARGED = 4.0  # times that a small photograph is enlarged for the model, at most


class Box(NamedTuple):
    """A rectangle of pixels, `bottom` and `right` exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as an index into an `(H, W, ...)` array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def cells(self, cell: int) -> tuple[slice, slice]:
        """The cells that the box touches, as an index into an array of cells of that side."""
        return (
            slice(self.top // cell, -(-self.bottom // cell)),
            slice(self.left // cell, -(-self.right // cell)),
        )

    def within(self, other: "Box") -> tuple[slice, slice]:
        """The box as an index into an array of the pixels of `other`, which holds it."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )

    def grown(self, margin: int, limit: "Box") -> "Box":
        """The box and `margin` pixels on every side, cut at `limit`."""
        return Box(
            max(self.top - margin, limit.top),
            max(self.left - margin, limit.left),
            min(self.bottom + margin, limit.bottom),
            min(self.right + margin, limit.right),
        )


class Window(NamedTuple):
    """One run of the model.

    Attributes:
        view: What the model sees.
        core: Where its result is used; inside `view`.
        scale: Image pixels for one pixel of the model; below 1 where the image is enlarged.
        components: Numbers of the components this window fills, see `Plan.labels`; of a component
            larger than `core` it fills the part inside.
    """

    view: Box
    core: Box
    scale: float
    components: np.ndarray


class Plan(NamedTuple):
    """The windows that fill a hole, in the order in which they must run.

    Attributes:
        windows: Every hole pixel belongs to exactly one of them.
        labels: `(ceil(H / cell), ceil(W / cell))` int32: the component under each cell, 0 where
            there is no hole.
        cell: Side of a cell in pixels.
    """

    windows: list[Window]
    labels: np.ndarray
    cell: int


def plan(hole: np.ndarray, working_size: int, strategy: str = "crop") -> Plan:
    """Places the windows for `tiling.fill`, whose arguments and errors these are.

    Returns:
        The plan; without windows if nothing is missing.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; valid: {', '.join(STRATEGIES)}")
    if working_size < 1:
        raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
    height, width = hole.shape
    whole = Box(0, 0, height, width)
    fitted = max(min(height, width) / working_size, 1 / _MOST_ENLARGED)
    cell = max(1, int(min(1.0, fitted) * working_size) // _CELLS_PER_WORKING_SIZE)
    cells = _any_in_cells(hole, cell)
    if not cells.any():
        return Plan([], cells.astype(np.int32), cell)
    if strategy == "crop":
        labels, boxes = label_components(cells)
        boxes = np.minimum(boxes * cell, np.array([height, width, height, width]))
        return Plan(_around_holes(labels, boxes, whole, cell, working_size), labels, cell)
    core = bounds(cells, cell, whole)
    if strategy == "original":
        placed = [(whole, core)]
        scale = 1.0
    else:
        scale = fitted
        placed = _squares(core, whole, int(scale * working_size + 1e-6))
    windows = [
        Window(view, core, scale, np.array([1]))
        for view, core in placed
        if cells[core.cells(cell)].any()
    ]
    return Plan(windows, cells.astype(np.int32), cell)


def label_components(hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the connected parts of a hole; pixels that touch at a corner belong together.

    Args:
        hole: `(H, W)` bool.

    Returns:
        `(labels, boxes)`: `(H, W)` int32, 0 outside the hole and 1 to `count` inside, numbered in
        reading order of each part's first pixel; and `(count, 4)` int64, the top, left, bottom and
        right of component `i + 1` in row `i`, the last two exclusive.
    """
    if hole.size <= _SMALL_GRID:
        return _label_small(hole)
    from scipy import ndimage

    labels = np.empty(hole.shape, np.int32)
    ndimage.label(hole, np.ones((3, 3), bool), output=labels)
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
    ]
    return labels, np.array(boxes, np.int64).reshape(-1, 4)


def _label_small(hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels a small grid in less time than the import of SciPy takes, 0.5 s."""
    numbers = np.arange(hole.size, 0, -1).reshape(hole.shape)
    marks, grown = np.zeros_like(numbers), numbers * hole
    while (grown != marks).any():  # the first pixel's number spreads over its component
        marks = grown
        padded = np.pad(marks, 1)
        rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
        grown = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:]) * hole
    firsts = _distinct(marks[hole])[::-1]
    label_of = np.zeros(hole.size + 1, np.int32)
    label_of[firsts] = np.arange(1, len(firsts) + 1)
    labels, whole = label_of[marks], Box(0, 0, *hole.shape)
    boxes = [bounds(labels == label, 1, whole) for label in range(1, len(firsts) + 1)]
    return labels, np.array(boxes, np.int64).reshape(-1, 4)


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """`np.unique` of whole numbers, without its import of `numpy.ma`, 0.05 s."""
    return np.flatnonzero(np.bincount(numbers.reshape(-1)))


def _squares(hole: Box, whole: Box, side: int) -> list[tuple[Box, Box]]:
    """Squares in a row, as few as cover a hole with a margin, as `(view, core)`.

    A photograph of training is fitted by its shorter side and cut to a square, usually the middle
    one: a hole that one square holds is seen in the square closest to the middle.
    """
    wide = whole.width > whole.height
    low, high = (hole.left, hole.right) if wide else (hole.top, hole.bottom)
    limit = max(whole.width, whole.height)
    length = min(side, limit)
    margin = int(_MARGIN * length)
    if high - low <= length - margin:  # one square holds it, with the context that is left
        margin = min(margin, (length - (high - low)) // 2)
    start, end = max(low - margin, 0), min(high + margin, limit)
    if end - start <= length:
        starts = [min(max((limit - length) // 2, end - length, 0), start, limit - length)]
    else:
        count = 1 + int(np.ceil((end - start - length) / max(1, length - 2 * margin)))
        starts = np.linspace(start, end - length, count).round().astype(int).tolist()
    inner = [(after + before + length) // 2 for before, after in pairwise(starts)]
    placed = []
    for position, first, last in zip(starts, [low, *inner], [*inner, high], strict=True):
        if wide:
            view = Box(0, position, whole.height, position + length)
            core = Box(hole.top, first, hole.bottom, last)
        else:
            view = Box(position, 0, position + length, whole.width)
            core = Box(first, hole.left, last, hole.right)
        placed.append((view, core))
    return placed


def _around_holes(
    labels: np.ndarray, boxes: np.ndarray, whole: Box, cell: int, working_size: int
) -> list[Window]:
    """The windows of the strategy `crop`.

    One window holds a compact hole, or several of them. A long hole takes a chain of small ones.
    `labels` are those of the cells, and the boxes `(count, 4)` of the components are in pixels.
    """
    # A photograph smaller than the working size is enlarged to it by its shorter side.
    sharpest = max(min(whole.height, whole.width) / working_size, 1 / _MOST_ENLARGED)
    sharpest = min(1.0, sharpest)
    whole_scale = max(sharpest, max(whole.height, whole.width) / working_size)
    # Half a window is as thick as the holes that the models are trained on.
    thick = _thickness_scales(labels, len(boxes), cell, working_size / 2, sharpest)
    thin = _thickness_scales(labels, len(boxes), cell, _THIN * working_size, sharpest)
    longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    single = np.maximum(thick, longest / (_CORE * working_size))
    thick, single = np.minimum(thick, whole_scale), np.minimum(single, whole_scale)
    soft = np.minimum(np.maximum(thick, np.minimum(thin, _SOFTEST)), whole_scale)
    stretch = np.where(thick > sharpest, _STRETCH, _STRETCH_THIN)
    in_one = single <= np.maximum(soft, stretch * thick)
    scales = np.where(in_one, single, soft)
    # Thicker ones take longer parts and more context.
    excess = np.maximum(thin / scales, 1.0)
    parts = np.clip(1.5 * _THIN * excess, _PART, _CORE)
    contexts = np.where(in_one, 1.0, _PART_CONTEXT * excess)
    chain = partial(_chain, labels, boxes, in_one, parts, whole, cell, working_size, whole_scale)
    windows = chain(scales, contexts)
    if sum(in_one[window.components[-1] - 1] for window in windows) > _FEW:
        softer = np.maximum(scales, np.minimum(thin, min(_SOFTEST_GROUP, whole_scale)))
        narrow = np.maximum(_GROUP_CONTEXT, longest / scales / working_size / 2)
        windows = chain(np.where(in_one, softer, scales), np.where(in_one, narrow, contexts))
    return windows


def _chain(
    labels: np.ndarray,
    boxes: np.ndarray,
    in_one: np.ndarray,
    parts: np.ndarray,
    whole: Box,
    cell: int,
    working_size: int,
    whole_scale: float,
    scales: np.ndarray,
    contexts: np.ndarray,
) -> list[Window]:
    """Windows for components whose scales are chosen, in the order in which they must run.

    Args:
        labels, boxes, whole, cell, working_size: As in `_around_holes`.
        in_one: `(count,)` bool, whether one window fills a component.
        parts: `(count,)` float, the side of a part, see `_PART`, where several do.
        whole_scale: The scale at which the photograph's longer side is the working size.
        scales: `(count,)` float, of each component.
        contexts: `(count,)` float, context on each side as a share of a window's side.
    """
    height, width = whole.height, whole.width
    windows: list[Window] = []
    waiting = np.ones(len(boxes), bool)

    def waiting_inside(area: Box, scale: float) -> np.ndarray:
        """Components that fit into `area` and may be shrunk by `scale`, none of them done."""
        # They are numbered by their first row, so only a band of them needs looking at.
        first, last = np.searchsorted(boxes[:, 0], (area.top, area.bottom))
        band = boxes[first:last]
        fits = waiting[first:last] & (scales[first:last] <= _SCALE_STEP * scale)
        fits &= (band[:, 1] >= area.left) & (band[:, 3] <= area.right)
        fits &= band[:, 2] <= area.bottom
        return np.flatnonzero(fits) + first

    # Small holes first: they are filled sharply, and then they are context for the large ones.
    for index in np.lexsort((boxes[:, 1], boxes[:, 0], scales)):
        if not waiting[index]:
            continue
        box, scale = Box(*boxes[index].tolist()), float(scales[index])
        side = int(scale * working_size + 1e-6)
        context = int(contexts[index] * side)
        if in_one[index]:
            # Nothing of this size waits further up, so the window is centred on what lies below.
            reach = int(_GROUP * side)
            area = Box(box.top, box.left, box.top + reach, box.left + reach)
            group = np.append(boxes[waiting_inside(area, scale)], boxes[index : index + 1], axis=0)
            around = np.append(group[:, :2].min(axis=0), group[:, 2:].max(axis=0))[None]
            if _cost(around, side, context) > _cost(group, side, context):
                around = boxes[index : index + 1]  # each hole has a window of its own
            cores = [Box(*around[0].tolist())]
        else:
            length = max(cell, int(max(parts[index], _PART_LENGTH) * side))
            most = max(cell, int(parts[index] * side)) ** 2
            cores = _split(labels, index + 1, box, length, most, cell)
        waiting[index] = False
        for core in cores:
            view = _place(core, side, context, whole)
            if in_one[index]:
                core = _core_of(view, side, core, whole)
            neighbors = waiting_inside(core, scale)
            waiting[neighbors] = False
            view, grown = _grow(view, side, context, core, whole, labels, cell)
            if min(view.height / height, view.width / width) >= _NEARLY_ALL:
                # A little less sharp, and framed as the photographs of the training were.
                view, grown = whole, max(height, width)
            components = neighbors + 1
            shrunk = min(max(scale, grown / working_size), whole_scale)
            windows.append(Window(view, core, shrunk, np.append(components, index + 1)))
    return windows


def _any_in_cells(hole: np.ndarray, cell: int) -> np.ndarray:
    """`(ceil(H / cell), ceil(W / cell))` bool: whether a cell holds any hole pixel."""
    # By `any`, which is four times as fast as `np.logical_or.reduceat`.
    rows = [hole[top : top + cell].any(axis=0) for top in range(0, hole.shape[0], cell)]
    strips, columns = np.stack(rows), range(0, hole.shape[1], cell)
    return np.stack([strips[:, left : left + cell].any(axis=1) for left in columns], axis=1)


def bounds(cells: np.ndarray, cell: int, area: Box) -> Box:
    """The box around what is True.

    Args:
        cells: `(ceil(area.height / cell), ceil(area.width / cell))` bool, not False everywhere.
        cell: Side of a cell in pixels.
        area: What the cells cover, from its top left corner on.
    """
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    return Box(
        area.top + int(rows[0]) * cell,
        area.left + int(columns[0]) * cell,
        min(area.top + (int(rows[-1]) + 1) * cell, area.bottom),
        min(area.left + (int(columns[-1]) + 1) * cell, area.right),
    )


def _thickness_scales(
    labels: np.ndarray, count: int, cell: int, most: float, sharpest: float
) -> np.ndarray:
    """`(count,)` float: the smallest scale at which a component is at most `most` pixels thick.

    No scale is below `sharpest`. Thickness is the side of the largest square that fits inside.
    """
    height, width = labels.shape
    sums = np.zeros((height + 1, width + 1), np.int32)
    np.cumsum(labels > 0, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    scales = np.full(count, sharpest)
    scale = sharpest
    while True:
        # Two cells more: an unaligned hole reaches into up to two cells more
        # than it fills.
        side = int(most * scale / cell) + 2
        if side > min(height, width):
            return scales
        inside = sums[side:, side:] - sums[:-side, side:]
        inside -= sums[side:, :-side]
        inside += sums[:-side, :-side]
        full = inside == side * side
        owners = _distinct(labels[: full.shape[0], : full.shape[1]][full])
        if not len(owners):
            return scales
        scale *= _SCALE_STEP
        scales[owners - 1] = scale


def _split(
    labels: np.ndarray, number: int, box: Box, length: int, area: int, cell: int
) -> list[Box]:
    """Boxes around parts of a component, cut along its longer side.

    A part's longer side has at most `length` pixels, its box at most `area`.
    """
    if max(box.height, box.width) <= length and box.height * box.width <= area:
        return [box]
    down = box.height >= box.width
    low, high = (box.top, box.bottom) if down else (box.left, box.right)
    count = max(2, -(-(high - low) // length))
    cut = max(cell, -(-(high - low) // count // cell) * cell)
    boxes = []
    for start in range(low, high, cut):
        end = min(start + cut, high)
        part = box._replace(
            **({"top": start, "bottom": end} if down else {"left": start, "right": end})
        )
        found = labels[part.cells(cell)] == number
        if found.any():
            tight = bounds(found, cell, part)
            boxes += _split(labels, number, tight, length, area, cell)
    return boxes


def _place(core: Box, side: int, context: int, whole: Box) -> Box:
    """`core` with `context` on each side, at most a square of `side`, moved into the image.

    Few different sizes: windows of one size can run together.
    """

    def span(low: int, high: int, limit: int) -> tuple[int, int]:
        length = int(_length(high - low + 2 * context, side))
        length = min(max(length, high - low), limit)
        start = min(max((low + high - length) // 2, 0), limit - length)
        return start, start + length

    top, bottom = span(core.top, core.bottom, whole.bottom)
    left, right = span(core.left, core.right, whole.right)
    return Box(top, left, bottom, right)


def _cost(boxes: np.ndarray, side: int, context: int) -> int:
    """Cost of a window around each of the boxes, `(N, 4)`, together and in pixels."""
    sides = _length(boxes[:, 2:] - boxes[:, :2] + 2 * context, side)
    return int((sides.prod(axis=1) + (_WINDOW_COST * side) ** 2).sum())


def _length(least: Any, side: int) -> Any:
    """The shortest of the lengths a window may have that is at least `least`, or else `side`."""
    unit = max(1, side // _SIZES)
    return np.minimum(-(-least // unit) * unit, side)


def _core_of(view: Box, side: int, box: Box, whole: Box) -> Box:
    """The part of a window far enough from its border, or at the image's own; holds `box`."""
    margin = int(side * (1 - _CORE) / 2)
    return Box(
        min(box.top, view.top + (margin if view.top > 0 else 0)),
        min(box.left, view.left + (margin if view.left > 0 else 0)),
        max(box.bottom, view.bottom - (margin if view.bottom < whole.bottom else 0)),
        max(box.right, view.right - (margin if view.right < whole.right else 0)),
    )


def _grow(
    view: Box, side: int, context: int, core: Box, whole: Box, labels: np.ndarray, cell: int
) -> tuple[Box, int]:
    """Widens a window until enough of it is known to copy from, at most to the whole image."""
    while view != whole:
        if (labels[view.cells(cell)] == 0).mean() >= _MINIMUM_KNOWN:
            break
        side, context = int(np.ceil(side * 1.5)), int(np.ceil(context * 1.5)) + 1
        view = _place(core, side, context, whole)
    return view, max(view.height, view.width)
