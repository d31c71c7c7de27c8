"""How a photograph of any size passes through a model that was trained at one size.

A model knows holes of the size it was trained with, at the sharpness it was trained with. A
24-megapixel photograph squeezed to 256 pixels loses every texture, and the same photograph at full
size shows the model a larger hole than any that the model was trained on. So the model sees a
photograph through windows. `windows.plan` places them, `fill` runs them:

* `crop`: one window around each hole, about twice as wide as the hole is thick, shrunk to the
  working size when it is larger. Holes that lie together share a window. A long hole, a scratch or
  a wire, is followed by several small windows; each sees what the ones before it filled.
* `resize`: the framing of the training, for models of whole things such as faces. The photograph is
  resized so that its shorter side is the working size, and a square of it is filled, the one
  closest to the middle that holds the hole. A hole that is longer than a square takes several.
* `original`: one window, the whole image, as it is.

A photograph smaller than the working size is enlarged for the model with `crop` and `resize`,
because a model fills best at the scale at which it was trained.

Only hole pixels are ever written, so known pixels are the input's own, bit for bit, whichever
strategy is used. What lies under a hole is erased before anything is resized, so it cannot bleed
into the pixels around it. Photographs are shrunk and enlarged in strips, so that a window as large
as the photograph needs no copies of it. Shrinking loses sharpness. What was lost in the known
surroundings of a hole within a megapixel is carried on into the hole: no soft rim, and thin strokes
keep the sharpness of what they run through.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from musical_tf.contract import STRATEGIES

from .full_size_copies import FullSizeCopies
from .resampling import from_model, from_model_fitted, to_model
from .windows import Box, Window, bounds, plan

__all__ = ["STRATEGIES", "Progress", "Run", "fill", "plan"]

Filled = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Uint8 `(H, W, 3)`, or that and the model's output `source`, int32 `(H, W, 2)`."""

Run = Callable[[np.ndarray, np.ndarray], Sequence[Filled]]
"""Fills windows of one size: `(images uint8 (B, H, W, 3), holes bool (B, H, W))`."""

Progress = Callable[[int, int], None]
"""Is told `(windows done, windows in all)`, before the first run of the model and after each."""

_FIT_PIXELS = 2**20  # of the largest hole, with its surroundings, whose sharpness is carried on
_FIT_MARGIN = 32  # pixels around a hole from which its lost sharpness is known
_LOOKAHEAD = 256  # windows among which those that may run together are looked for


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
    windows, labels, cell = plan(hole, working_size, strategy)
    result = image.copy()
    remaining = hole.copy()
    done = 0
    for together in _runs(windows, working_size):
        if progress is not None:
            progress(done, len(windows))
        done += len(together)
        parts = []
        for window in together:
            mine = _hole_of(window, labels, cell)
            mine &= remaining[window.core.slices]
            if mine.any():
                parts.append((window, mine))
        if not parts:
            continue
        seen = [
            to_model(result[window.view.slices], remaining[window.view.slices], window.scale)
            for window, _ in parts
        ]
        made = run(*(np.stack(each) for each in zip(*seen, strict=True)))
        for (window, mine), each in zip(parts, made, strict=True):
            filled, source = each if isinstance(each, tuple) else (each, None)
            _paste(filled, source, window, mine, result, remaining)
    if progress is not None:
        progress(len(windows), len(windows))
    return result


def _runs(windows: list[Window], working_size: int) -> Iterator[list[Window]]:
    """Windows that may run together: of one size, and none sees what another one fills.

    Together they have as many pixels as one of the working size, at most. Results are those of
    windows that run one after the other.
    """
    waiting = list(windows)
    while waiting:
        first, near = waiting[0], waiting[:_LOOKAHEAD]
        pixels = first.view.height * first.view.width / first.scale**2
        most = max(1, int(working_size**2 / pixels))
        views, cores = (np.array(boxes) for boxes in zip(*[each[:2] for each in near], strict=True))
        together, left = [first], []
        for index, window in enumerate(near[1:], 1):
            is_alike = _size(window) == _size(first) and len(together) < most
            sees = is_alike and _touches(cores[:index], window.view)
            if is_alike and not sees and not _touches(views[:index], window.core):
                together.append(window)
            else:
                left.append(window)
        waiting = left + waiting[_LOOKAHEAD:]
        yield together


def _size(window: Window) -> tuple[int, int, float]:
    return window.view.height, window.view.width, window.scale


def _touches(boxes: np.ndarray, view: Box) -> bool:
    """Whether any of the boxes, `(N, 4)`, has a pixel in common with `view`."""
    top, left, bottom, right = boxes.T
    return bool(
        (
            (top < view.bottom) & (bottom > view.top) & (left < view.right) & (right > view.left)
        ).any()
    )


def _hole_of(window: Window, labels: np.ndarray, cell: int) -> np.ndarray:
    """`(core.height, core.width)` bool: the cells of the window's components."""
    core = window.core
    mine = np.isin(labels[core.cells(cell)], window.components)
    mine = mine.repeat(cell, axis=0).repeat(cell, axis=1)
    return mine[core.top % cell :, core.left % cell :][: core.height, : core.width]


def _paste(
    filled: np.ndarray,
    source: np.ndarray | None,
    window: Window,
    mine: np.ndarray,
    result: np.ndarray,
    remaining: np.ndarray,
) -> None:
    """Writes what the model made of a window into the pixels `mine` of its core.

    `result` is written in place, and `mine` is cleared in `remaining`.
    """
    view, core = window.view, window.core
    area = bounds(mine, 1, core)
    inside = area.within(core)
    target, mine = result[area.slices], mine[inside]
    around = area.grown(_FIT_MARGIN, view)
    if window.scale > 1 and around.height * around.width <= _FIT_PIXELS:
        seen = result[around.slices], ~remaining[around.slices]
        fitted = from_model_fitted(filled, view, around, *seen)
        parts = iter([(slice(0, area.height), fitted[area.within(around)])])
    else:
        parts = from_model(filled, view, area)
    copies = None
    if source is not None and window.scale > 1 and (source >= 0).any():
        copies = FullSizeCopies(filled, source, view)
    for rows, pixels in parts:
        if copies is not None:
            strip = area._replace(top=area.top + rows.start, bottom=area.top + rows.stop)
            pixels = pixels.copy()
            copies.write(pixels, mine[rows], strip, result, remaining)
        np.copyto(target[rows], pixels, where=mine[rows, :, None])
    remaining[area.slices][mine] = False
