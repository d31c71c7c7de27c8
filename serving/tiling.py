"""How a photograph of any size passes through a model that was trained at one size.

A model knows holes of the size it was trained with, at the sharpness it was trained with. A
24-megapixel photograph squeezed to 256 pixels loses every texture, and the same photograph at full
size shows the model a hole as large as all it has ever seen. So a photograph is looked at through
windows. `plan` places them, `fill` runs them:

* `crop`: one window around each hole, about twice as wide as the hole is thick, shrunk to the
  working size when it is larger. Holes that lie together share a window. A long thin hole, a
  scratch or a wire, is followed by several windows at full sharpness; each sees what the ones
  before it filled.
* `resize`: one window, the whole image, shrunk so that its longer side is the working size.
* `original`: one window, the whole image, as it is.

Only hole pixels are ever written, so known pixels are the input's own, bit for bit, whichever
strategy is used. What lies under a hole is erased before anything is resized, so it cannot bleed
into the pixels around it. Photographs are shrunk and enlarged in strips, so that a window as large
as the photograph needs no copies of it. What shrinking and enlarging took from a window of up to a
megapixel is known around the hole, and carried on into it: no soft rim, and thin strokes keep the
sharpness of what they run through.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from . import membrane

STRATEGIES = ("crop", "resize", "original")

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Fills `(image uint8 (H, W, 3), hole bool (H, W))` as it comes; returns uint8 `(H, W, 3)`."""

Progress = Callable[[int, int], None]
"""Is told `(windows done, windows in all)`, before the first window and after each."""

ERASED = 127
"""Grey level written under a hole. Any would do: the models ignore it."""

# Holes are planned on a grid this fine: close enough, and cheap at 24 megapixels.
_CELLS_PER_WORKING_SIZE = 32
_CORE = 0.75  # share of a window's side that it may fill; the rest is context
_GROUP = 0.5  # share of a window's side within which holes are gathered: what models train on
_MINIMUM_KNOWN = 0.25  # a window with less to copy from than this grows
_SCALE_STEP = 1.25  # resolution of the search for a hole's thickness
_NEARLY_ALL = 0.9  # share of the image's sides from which on a window takes the whole image
_STRETCH = 1.5  # sharpness that may be given up to fill a hole in one window rather than several
_STRIP_PIXELS = 2**20  # pixels of a photograph that are resized at a time
_FIT_PIXELS = 2**20  # pixels of the largest window whose lost sharpness is carried on into the hole


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


class Window(NamedTuple):
    """One run of the model.

    Attributes:
        view: What the model sees.
        core: Where its result is used; inside `view`.
        scale: Image pixels for one pixel of the model, >= 1.
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


def fill(
    image: np.ndarray,
    hole: np.ndarray,
    run: Run,
    working_size: int,
    strategy: str = "crop",
    progress: Progress | None = None,
) -> np.ndarray:
    """Fills the hole of an image of any size by running a model over windows of it.

    Memory beside the input: the result (3 bytes a pixel), what remains to fill (1), the plan and
    the pixels a window fills (2 at most), strips of about a megapixel, and 80 MiB at most to fit a
    shrunk window into its surroundings. The model itself never sees more than `working_size`
    squared pixels, unless the strategy is `original`.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        hole: `(H, W)` bool, True where the image must be invented; not True everywhere.
        run: The model.
        working_size: Side in pixels at which the model sees a window, usually the size it was
            trained at.
        strategy: One of `STRATEGIES`.
        progress: Is told how many windows are done. What it raises ends the filling.

    Returns:
        `(H, W, 3)` uint8 RGB, a new array that equals `image` exactly where `hole` is False.

    Raises:
        ValueError: On an unknown strategy or a working size below 1.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; valid: {', '.join(STRATEGIES)}")
    if working_size < 1:
        raise ValueError(f"working_size must be at least 1 pixel, got {working_size}")
    windows, labels, cell = plan(hole, working_size, strategy)
    result = image.copy()
    remaining = hole.copy()
    for done, (view, core, scale, components) in enumerate(windows):
        if progress is not None:
            progress(done, len(windows))
        cells = labels[
            core.top // cell : -(-core.bottom // cell), core.left // cell : -(-core.right // cell)
        ]
        mine = np.isin(cells, components).repeat(cell, axis=0).repeat(cell, axis=1)
        mine = mine[core.top % cell :, core.left % cell :][: core.height, : core.width]
        mine &= remaining[core.slices]
        if not mine.any():
            continue
        small, small_hole = _shrink(result[view.slices], remaining[view.slices], scale)
        filled = run(small, small_hole)
        target = result[core.slices]
        if scale > 1 and view.height * view.width <= _FIT_PIXELS:
            seen = result[view.slices], ~remaining[view.slices]
            parts = [(slice(0, core.height), _enlarge_to_fit(filled, view, core, *seen))]
        else:
            parts = _enlarge(filled, view, core)
        for rows, enlarged in parts:
            np.copyto(target[rows], enlarged, where=mine[rows, :, None])
        remaining[core.slices][mine] = False
    if progress is not None:
        progress(len(windows), len(windows))
    return result


def plan(hole: np.ndarray, working_size: int, strategy: str = "crop") -> Plan:
    """Places the windows for `fill`.

    Args:
        hole: `(H, W)` bool.
        working_size: Side in pixels at which the model sees a window.
        strategy: One of `STRATEGIES`.

    Returns:
        The plan; without windows if nothing is missing.
    """
    height, width = hole.shape
    whole = Box(0, 0, height, width)
    whole_scale = max(1.0, max(height, width) / working_size)
    cell = max(1, working_size // _CELLS_PER_WORKING_SIZE)
    cells = _any_in_cells(hole, cell)
    if not cells.any():
        return Plan([], cells.astype(np.int32), cell)
    if strategy != "crop":
        window = Window(
            view=whole,
            core=_bounds(cells, cell, whole),
            scale=whole_scale if strategy == "resize" else 1.0,
            components=np.array([1]),
        )
        return Plan([window], cells.astype(np.int32), cell)

    labels, count = label_components(cells)
    boxes = np.minimum(
        component_boxes(labels, count) * cell, np.array([height, width, height, width])
    )
    thick = np.minimum(_thickness_scales(labels, count, cell, working_size), whole_scale)
    longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    single = np.minimum(np.maximum(thick, longest / (_CORE * working_size)), whole_scale)
    in_one = single <= _STRETCH * thick
    scales = np.where(in_one, single, thick)

    windows: list[Window] = []
    waiting = np.ones(count, bool)

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
        if in_one[index]:
            # Nothing of this size waits further up, so the window is centred on what lies below.
            reach = int(_GROUP * side)
            area = Box(box.top, box.left, box.top + reach, box.left + reach)
            group = np.append(boxes[waiting_inside(area, scale)], boxes[index : index + 1], axis=0)
            corner, end = group[:, :2].min(axis=0), group[:, 2:].max(axis=0)
            cores = [Box(*corner.tolist(), *end.tolist())]
        else:
            cores = _split(box, max(cell, side // 2 // cell * cell))
        waiting[index] = False
        for core in cores:
            if not in_one[index] and not _touches(labels, cell, core, index + 1):
                continue
            view = _place(core, side, whole)
            if in_one[index]:
                core = _core_of(view, side, core, whole)
            neighbours = waiting_inside(core, scale)
            waiting[neighbours] = False
            view, grown = _grow(view, side, core, whole, cells, cell)
            if min(view.height / height, view.width / width) >= _NEARLY_ALL:
                # A little less sharp, and framed as the photographs of the training were.
                view, grown = whole, max(height, width)
            components = neighbours + 1
            windows.append(
                Window(
                    view,
                    core,
                    min(max(scale, grown / working_size), whole_scale),
                    np.append(components, index + 1),
                )
            )
    return Plan(windows, labels, cell)


def label_components(hole: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the connected parts of a hole; pixels that touch at a corner belong together.

    Every row is cut into runs of True. Runs of neighbouring rows that touch are joined, all pairs
    at once: each round hooks every tree of runs under the smallest root it touches and then
    flattens the trees, until nothing moves.

    Args:
        hole: `(H, W)` bool.

    Returns:
        `(labels, count)`: `(H, W)` int32, 0 outside the hole and 1 to `count` inside, numbered in
        reading order of each part's first pixel.
    """
    height, width = hole.shape
    stride = width + 2  # the gap keeps the end of one row from touching the start of the next
    edges = np.zeros((height, stride), np.int8)
    edges[:, :width] += hole
    edges[:, 1 : width + 1] -= hole
    flat = edges.ravel()
    starts, ends = np.flatnonzero(flat == 1), np.flatnonzero(flat == -1)  # ends are exclusive
    # A run one row up, moved down, touches [start, end) if its end >= start and its start <= end.
    above_first = np.searchsorted(ends + stride, starts)
    above_last = np.searchsorted(starts + stride, ends, side="right")
    touching = np.maximum(above_last - above_first, 0)
    below = np.repeat(np.arange(len(starts)), touching)
    offsets = np.arange(len(below)) - np.repeat(np.cumsum(touching) - touching, touching)
    above = np.repeat(above_first, touching) + offsets

    roots = np.arange(len(starts))
    while len(below):
        first, second = roots[below], roots[above]
        apart = first != second
        below, above, first, second = below[apart], above[apart], first[apart], second[apart]
        np.minimum.at(roots, np.maximum(first, second), np.minimum(first, second))
        while True:
            shorter = roots[roots]
            if np.array_equal(shorter, roots):
                break
            roots = shorter

    distinct, numbers = np.unique(roots, return_inverse=True)
    steps = np.zeros(height * stride + 1, np.int32)
    steps[starts] = numbers + 1
    steps[ends] -= (numbers + 1).astype(np.int32)
    labels = np.cumsum(steps[:-1], dtype=np.int32).reshape(height, stride)[:, :width]
    return np.ascontiguousarray(labels), len(distinct)


def component_boxes(labels: np.ndarray, count: int) -> np.ndarray:
    """Finds the bounding box of every component.

    Args:
        labels: `(H, W)` int32 from `label_components`.
        count: Number of components.

    Returns:
        `(count, 4)` int64: top, left, bottom, right of component `i + 1` in row `i`, the last two
        exclusive.
    """
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2] = max(labels.shape)
    boxes[:, 2:] = 0
    step = max(1, _STRIP_PIXELS // max(1, labels.shape[1]))
    for top in range(0, labels.shape[0], step):
        strip = labels[top : top + step]
        rows, columns = np.nonzero(strip)
        owners = strip[rows, columns] - 1
        rows += top
        np.minimum.at(boxes[:, 0], owners, rows)
        np.minimum.at(boxes[:, 1], owners, columns)
        np.maximum.at(boxes[:, 2], owners, rows + 1)
        np.maximum.at(boxes[:, 3], owners, columns + 1)
    return boxes


def _any_in_cells(hole: np.ndarray, cell: int) -> np.ndarray:
    """`(ceil(H / cell), ceil(W / cell))` bool: whether a cell holds any hole pixel."""
    rows = np.logical_or.reduceat(hole, np.arange(0, hole.shape[0], cell), axis=0)
    return np.logical_or.reduceat(rows, np.arange(0, hole.shape[1], cell), axis=1)


def _bounds(cells: np.ndarray, cell: int, whole: Box) -> Box:
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    return Box(
        int(rows[0]) * cell,
        int(columns[0]) * cell,
        min((int(rows[-1]) + 1) * cell, whole.bottom),
        min((int(columns[-1]) + 1) * cell, whole.right),
    )


def _thickness_scales(labels: np.ndarray, count: int, cell: int, working_size: int) -> np.ndarray:
    """`(count,)` float: the smallest scale at which a component is at most half a window thick.

    Thickness is the side of the largest square that fits inside. Half a window is what the models
    are trained on.
    """
    height, width = labels.shape
    sums = np.zeros((height + 1, width + 1), np.int32)
    np.cumsum(labels > 0, axis=0, out=sums[1:, 1:])
    np.cumsum(sums, axis=1, out=sums)
    scales = np.ones(count)
    scale = 1.0
    while True:
        # Two cells more than half a window: an unaligned hole reaches into up to two cells more
        # than it fills.
        side = int(working_size * scale / 2 / cell) + 2
        if side > min(height, width):
            return scales
        inside = sums[side:, side:] - sums[:-side, side:]
        inside -= sums[side:, :-side]
        inside += sums[:-side, :-side]
        full = inside == side * side
        owners = np.unique(labels[: full.shape[0], : full.shape[1]][full])
        if not len(owners):
            return scales
        scale *= _SCALE_STEP
        scales[owners - 1] = scale


def _split(box: Box, step: int) -> list[Box]:
    """Cuts a box into tiles of `step` pixels, in reading order."""
    return [
        Box(top, left, min(top + step, box.bottom), min(left + step, box.right))
        for top in range(box.top, box.bottom, step)
        for left in range(box.left, box.right, step)
    ]


def _touches(labels: np.ndarray, cell: int, box: Box, number: int) -> bool:
    return bool(
        np.any(
            labels[
                box.top // cell : -(-box.bottom // cell), box.left // cell : -(-box.right // cell)
            ]
            == number
        )
    )


def _place(core: Box, side: int, whole: Box) -> Box:
    """A square of `side` around `core`, moved into the image, cut where the image is smaller."""

    def span(low: int, high: int, limit: int) -> tuple[int, int]:
        length = min(max(side, high - low), limit)
        start = min(max((low + high - length) // 2, 0), limit - length)
        return start, start + length

    top, bottom = span(core.top, core.bottom, whole.bottom)
    left, right = span(core.left, core.right, whole.right)
    return Box(top, left, bottom, right)


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
    view: Box, side: int, core: Box, whole: Box, cells: np.ndarray, cell: int
) -> tuple[Box, int]:
    """Widens a window until enough of it is known to copy from, at most to the whole image."""
    while view != whole:
        seen = cells[
            view.top // cell : -(-view.bottom // cell), view.left // cell : -(-view.right // cell)
        ]
        if 1 - seen.mean() >= _MINIMUM_KNOWN:
            break
        side = int(np.ceil(side * 1.5))
        view = _place(core, side, whole)
    return view, max(view.height, view.width)


def _strips(rows: int, columns: int) -> list[slice]:
    """Cuts `rows` into strips of about `_STRIP_PIXELS` pixels."""
    step = max(1, _STRIP_PIXELS // max(1, columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _shrink(image: np.ndarray, hole: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Brings a window to the model's size; a shrunk pixel averages the known pixels under it only.

    Pillow resizes RGBA with the colours weighted by alpha, so with alpha 255 where a pixel is known
    this is exactly that average. A pixel is hole if less than half of what is under it is known.
    """
    if scale <= 1:
        return np.where(hole[..., None], np.uint8(ERASED), image), hole.copy()
    height, width = hole.shape
    small_height, small_width = max(1, round(height / scale)), max(1, round(width / scale))
    down = height / small_height
    small = np.empty((small_height, small_width, 4), np.uint8)
    for rows in _strips(small_height, int(width * down)):
        upper, lower = rows.start * down, rows.stop * down
        top, bottom = int(upper), min(int(np.ceil(lower)), height)
        weighted = np.empty((bottom - top, width, 4), np.uint8)
        weighted[..., :3] = image[top:bottom]
        np.multiply(~hole[top:bottom], np.uint8(255), out=weighted[..., 3])
        small[rows] = Image.fromarray(weighted).resize(
            (small_width, rows.stop - rows.start),
            Image.Resampling.BOX,
            box=(0, upper - top, width, min(lower - top, bottom - top)),
        )
    colours, coverage = small[..., :3].copy(), small[..., 3]
    small_hole = coverage < 128
    if small_hole.all():
        # Known pixels so sparse that no average keeps them: put each where it belongs, the last one
        # wins.
        rows, columns = np.nonzero(~hole)
        small_rows, small_columns = rows * small_height // height, columns * small_width // width
        colours[small_rows, small_columns] = image[rows, columns]
        small_hole[small_rows, small_columns] = False
    colours[small_hole] = ERASED
    return colours, small_hole


def _enlarge(filled: np.ndarray, view: Box, core: Box) -> Iterator[tuple[slice, np.ndarray]]:
    """The part of a filled window that lies in `core`, at the image's own size, strip by strip.

    Yields:
        `(rows, pixels)`: rows of `core`, and uint8 `(rows, core.width, 3)`.
    """
    height, width = filled.shape[:2]
    top, left = core.top - view.top, core.left - view.left
    if (height, width) == (view.height, view.width):
        yield (
            slice(0, core.height),
            filled[top : top + core.height, left : left + core.width],
        )
        return
    down, across = height / view.height, width / view.width
    # Columns first, for all strips alike: Pillow's own order depends on the size, and its rounding
    # on the order, which would show as seams.
    wide = Image.fromarray(filled).resize(
        (core.width, height),
        Image.Resampling.BICUBIC,
        box=(left * across, 0, (left + core.width) * across, height),
    )
    for rows in _strips(core.height, core.width):
        enlarged = wide.resize(
            (core.width, rows.stop - rows.start),
            Image.Resampling.BICUBIC,
            box=(0, (top + rows.start) * down, core.width, (top + rows.stop) * down),
        )
        yield rows, np.asarray(enlarged)


def _enlarge_to_fit(
    filled: np.ndarray, view: Box, core: Box, image: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """As `_enlarge`, at once, plus what enlarging lacks around the hole, carried on into it.

    Args:
        filled, view, core: As there.
        image: `(view.height, view.width, 3)` uint8, what is at the image's own size.
        known: `(view.height, view.width)` bool, where it is more than a guess.
    """
    enlarged = np.concatenate([part for _, part in _enlarge(filled, view, view)])
    lacking = membrane.span(image.astype(np.float32) - enlarged, known)
    fitted = np.clip(np.rint(enlarged + lacking), 0, 255).astype(np.uint8)
    top, left = core.top - view.top, core.left - view.left
    return fitted[top : top + core.height, left : left + core.width]
