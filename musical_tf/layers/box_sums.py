"""Sums over windows of positions: of maps, and of the scores of every pair of positions.

Scores lie as `(B, h, w, W, H)`, see `musical_tf.layers.patch_matching`.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
from keras import ops

from musical_tf.conventions import Tensor


def box_sum(maps: Tensor, size: int) -> Tensor:
    """Sum of `(B, H, W, C)` over the window of odd `size` around each position; 0 outside."""
    if size == 1:
        return maps
    radius = size // 2
    maps = ops.pad(maps, [[0, 0], [radius, radius], [radius, radius], [0, 0]])
    maps = _sum(_shifted(maps, (1,), shift, size) for shift in range(size))
    return _sum(_shifted(maps, (2,), shift, size) for shift in range(size))


def diagonal_box_sum(scores: Tensor, size: int) -> Tensor:
    """Sum over a `size` x `size` window of shifts that move query and candidate together.

    `out[p, q] = sum over d of scores[p + d, q + d]`. Candidates outside the map count 0; queries
    carry a halo, which the sum uses up. Separable: first the shifts along `(y, y')`, then those
    along `(x, x')`. Its gradient is written out, because a box sum's gradient is a box sum, while
    automatic differentiation of the slices pads every one of them back to full size.

    `(B, h, w, W, H)` -> `(B, h - size + 1, w - size + 1, W, H)`; `size` is odd.
    """
    if size == 1:
        return scores
    if _by_convolutions:
        return _convolved_box_sum(scores, size)
    return _differentiable_box_sum(size)(scores)


_by_convolutions = False


@contextlib.contextmanager
def box_sums_by_convolutions() -> Iterator[None]:
    """Within it, diagonal box sums are traced as convolutions, their gradient not written out.

    For runtimes that are faster so. TensorFlow is not, on a processor.
    """
    global _by_convolutions
    before, _by_convolutions = _by_convolutions, True
    try:
        yield
    finally:
        _by_convolutions = before


def _convolved_box_sum(scores, size):
    batch, height, width, key_width, key_height = ops.shape(scores)
    radius = size // 2
    rows = ops.reshape(scores, (batch, height, width * key_width, key_height, 1))
    rows = ops.pad(rows, [[0, 0], [0, 0], [0, 0], [radius, radius], [0, 0]])
    summed = ops.conv(rows, _diagonal(size, (size, 1, size)))
    height = height - size + 1
    columns = ops.reshape(summed, (batch * height, width, key_width, key_height, 1))
    columns = ops.pad(columns, [[0, 0], [0, 0], [radius, radius], [0, 0], [0, 0]])
    summed = ops.conv(columns, _diagonal(size, (size, size, 1)))
    return ops.reshape(summed, (batch, height, width - size + 1, key_width, key_height))


def _diagonal(size, shape):
    """The kernel of one channel that sums along the diagonal of its two long axes."""
    return np.eye(size, dtype="float32").reshape(*shape, 1, 1)


def _differentiable_box_sum(size):
    @ops.custom_gradient
    def summed(scores):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return _diagonal_box_sum(upstream, size, margin=size - 1)

        return _diagonal_box_sum(scores, size), gradient

    return summed


def _diagonal_box_sum(scores, size, margin=0):
    # Padded once for both directions, and for the margin of queries too: a pad is a whole pass.
    queries, candidates = [margin, margin], [size // 2, size // 2]
    scores = ops.pad(scores, [[0, 0], queries, queries, candidates, candidates])
    for axes in ((1, 4), (2, 3)):
        scores = _sum(_shifted(scores, axes, shift, size) for shift in range(size))
    return scores


def query_box_sum(scores: Tensor, size: int) -> Tensor:
    """Sum over a window of query positions, the candidate fixed.

    `(B, h, w, W, H)` -> `(B, h - size + 1, w - size + 1, W, H)`.
    """
    for axis in (1, 2):
        scores = _sum(_shifted(scores, (axis,), shift, size) for shift in range(size))
    return scores


def without_border(tensor, axes, border):
    """`tensor` less `border` positions at both ends of each of `axes`."""
    return _shifted(tensor, axes, border, 2 * border + 1) if border else tensor


def _shifted(tensor, axes, shift, size):
    """What position `shift` of a window of `size` sees while the window slides along `axes`.

    The bounds are constants, counted from both ends: bounds taken from a dynamic shape are thirty
    nodes each in an exported graph.
    """
    index = [slice(None)] * len(tensor.shape)
    for axis in axes:
        index[axis] = slice(shift, (shift - size + 1) or None)
    return tensor[tuple(index)]


def _sum(terms):
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total
