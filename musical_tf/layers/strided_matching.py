"""The shared-Gram form of DeepFill's attention: no patch is ever extracted, no filter depends on
the data.

As in `patch_matching`, patch products, norms and the fusing of scores are box sums over one Gram
matrix. Pasting is one too. With r the rate, split the features into their r x r *phases*,
`f_e[q] = f[r q + e]`; the phase 0 is the map that is matched. A patch of side 2r, pasted at every
r-th position, reaches each position twice along an axis, so with a the attention

    out[r p + e] = sum over q of (a[p, q] + a[p + s, q + s]) f_e[q],   s = -1 if e < r / 2 else 1

along one axis, and the same along the other: four sums of neighbors, whatever the rate, and one
matrix product with each phase. `strided_attention_reference` writes the same function by
convolutions; the tests hold the two together, values and gradients.
"""

from keras import ops

from musical_tf.conventions import Tensor, downsample_hole
from musical_tf.layers.attention_reference import MASKED_SCORE
from musical_tf.layers.attention_scores import (
    PATCH_NORM_FLOOR,
    as_columns,
    as_rows,
    gram_matrix,
    is_known,
    softmax,
    weighted_sum,
)
from musical_tf.layers.box_sums import box_sum, diagonal_box_sum
from musical_tf.layers.query_window import QueryWindow, Region, in_bands


def attend(
    features: Tensor,
    hole: Tensor,
    rate: int,
    patch_size: int,
    fuse_size: int,
    softmax_scale: float,
    max_scores: int | None = None,
) -> Tensor:
    """Replaces the hole of a feature map by attention over its known patches.

    Args:
        features: `(B, H, W, C)` float32, H and W multiples of `rate`.
        hole: `(B, H, W, 1)` float32, 1 = missing; may differ from sample to sample.
        rate, patch_size, fuse_size, softmax_scale: As of `StridedContextualAttention`.
        max_scores: Bound on memory, as in `patch_matching.attend`.

    Returns:
        `(B, H, W, C)` float32.
    """
    phases, coarse_hole = space_to_depth(features, rate), downsample_hole(hole, rate)
    window = QueryWindow(coarse_hole)
    channels = features.shape[-1]

    def fill(phases, coarse_hole, window):
        logits = _logits(
            phases[..., :channels], coarse_hole, window, patch_size, fuse_size, softmax_scale
        )
        # A query outside the map pastes nothing.
        inside = as_rows(window.crop(ops.ones_like(coarse_hole), 1))
        return [_paste(softmax(logits) * inside, phases, rate)]

    if max_scores is None:
        (filling,) = fill(phases, coarse_hole, window)
    else:
        halo = patch_size // 2 + fuse_size // 2 + 1
        (filling,) = in_bands(fill, phases, coarse_hole, window, halo, max_scores)
    has_candidate = ops.any(is_known(coarse_hole, patch_size), axis=(1, 2, 3), keepdims=True)
    filling = depth_to_space(window.paste(filling), rate)
    return ops.where(ops.logical_and(hole > 0.5, has_candidate), filling, features)


def sources(
    features: Tensor,
    hole: Tensor,
    rate: int,
    patch_size: int,
    fuse_size: int,
    softmax_scale: float,
) -> Tensor:
    """Where the patch with the largest weight of every position comes from.

    Returns:
        `(B, H, W, 2)` int32, row and column; a position that keeps its features is its own source.
    """
    coarse_hole = downsample_hole(hole, rate)
    window = QueryWindow(coarse_hole)
    matched = features[:, ::rate, ::rate]
    logits = _logits(matched, coarse_hole, window, patch_size, fuse_size, softmax_scale)
    logits = logits[:, 1:-1, 1:-1]  # (B, h, w, W/r, H/r)
    batch, rows, columns, width, height = ops.shape(logits)
    best = ops.argmax(ops.reshape(logits, (batch, rows, columns, width * height)), axis=-1)
    best = ops.cast(ops.stack([best % height, best // height], axis=-1), "float32")
    best = ops.repeat(ops.repeat(window.paste(best), rate, axis=1), rate, axis=2)
    # The element of the patch that lands on a position is the one with the same phase.
    row = ops.arange(height * rate)[None, :, None]
    column = ops.arange(width * rate)[None, None, :]
    own = ops.stack([row + 0 * column, column + 0 * row], axis=-1)  # (1, H, W, 2)
    found = rate * ops.cast(best, own.dtype) + own % rate
    has_candidate = ops.any(is_known(coarse_hole, patch_size), axis=(1, 2, 3), keepdims=True)
    replaced = ops.logical_and(hole > 0.5, has_candidate)
    return ops.cast(ops.where(replaced, found, own), "int32")


def weights(
    features: Tensor,
    hole: Tensor,
    region: Region,
    rate: int,
    patch_size: int,
    fuse_size: int,
    softmax_scale: float,
) -> Tensor:
    """What `attend` multiplies the features with, to fill a rectangle of the matched map.

    The position `r p + e`, p in the `region`, is filled from the positions `r q + e` of the same
    phase e alone.

    Returns:
        `(B, h, w, r, r, H / r, W / r)` float32: p, e, q.
    """
    coarse_hole = downsample_hole(hole, rate)
    matched = features[:, ::rate, ::rate]
    logits = _logits(matched, coarse_hole, region, patch_size, fuse_size, softmax_scale)
    attention = softmax(logits) * as_rows(region.crop(ops.ones_like(coarse_hole), 1))
    # As in `_paste`: which neighbor a position lies in the patch of, along each axis.
    steps = [-1 if each < (rate + 1) // 2 else 1 for each in range(rate)]
    of_rows = []
    for row_step in steps:
        along_rows = _with_neighbor(attention, 1, row_step)
        of_rows.append(ops.stack([_with_neighbor(along_rows, 2, step) for step in steps], axis=3))
    return ops.swapaxes(ops.stack(of_rows, axis=3), -1, -2) / 4.0


def _logits(matched, hole, window, patch_size, fuse_size, softmax_scale):
    """Steps 2 to 4 of `StridedContextualAttention`, `(B, h + 2, w + 2, W', H')`.

    The window carries one position more at each side: its neighbors paste into it.
    """
    reach = fuse_size // 2
    halo = patch_size // 2 + reach + 1
    energy = ops.sum(ops.square(matched), axis=-1, keepdims=True)
    # The root is taken of the floored energy: the gradient of sqrt at 0 is infinite.
    inverse_norm = ops.rsqrt(ops.maximum(box_sum(energy, patch_size), PATCH_NORM_FLOOR**2))

    inner = diagonal_box_sum(gram_matrix(window.crop(matched, halo), matched), patch_size)
    query_inside = as_rows(window.crop(ops.ones_like(hole), reach + 1))
    scores = inner * as_columns(softmax_scale * inverse_norm) * query_inside
    fused = diagonal_box_sum(scores, fuse_size)
    # After the fusing, which takes the scores of all candidates.
    return fused + as_columns(ops.where(is_known(hole, patch_size), 0.0, MASKED_SCORE))


def _paste(attention, phases, rate):
    """`(B, h + 2, w + 2, W', H')` attention on `(B, H', W', r r C)` -> `(B, h, w, r r C)`."""
    channels = phases.shape[-1] // rate**2
    middle = (rate + 1) // 2
    pasted = []  # of each phase, row by row
    for step, rows in ((-1, range(middle)), (1, range(middle, rate))):
        along_rows = _with_neighbor(attention, 1, step)
        left = _with_neighbor(along_rows, 2, -1)
        right = _with_neighbor(along_rows, 2, 1)
        for row in rows:
            first, half, last = (channels * (rate * row + each) for each in (0, middle, rate))
            pasted.append(weighted_sum(left, phases[..., first:half]))
            if rate > 1:
                pasted.append(weighted_sum(right, phases[..., half:last]))
    return ops.concatenate(pasted, axis=-1) / 4.0


def _with_neighbor(attention, axis, step):
    """`a[p, q] + a[p + step, q + step]` along one axis, whose halo of queries it uses up.

    Its gradient is written out, because a sum of two shifts has a sum of two shifts as gradient,
    while automatic differentiation of the slices pads every one of them back to full size.
    """

    @ops.custom_gradient
    def paired(attention):
        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            halo = [[0, 0]] * 5
            halo[axis] = [2, 2]
            return _pair(ops.pad(upstream, halo), axis, -step)

        return _pair(attention, axis, step), gradient

    return paired(attention)


def _pair(scores, axis, step):
    """`s[p, q] + s[p + step, q + step]` without the first and the last p along `axis`."""
    queries, keys = [slice(None)] * 5, [[0, 0]] * 5
    key_axis = 5 - axis
    queries[axis] = slice(1, -1)
    centre = scores[tuple(queries)]
    queries[axis] = slice(0, -2) if step < 0 else slice(2, None)
    queries[key_axis] = slice(0, -1) if step < 0 else slice(1, None)
    keys[key_axis] = [1, 0] if step < 0 else [0, 1]
    return centre + ops.pad(scores[tuple(queries)], keys)


def space_to_depth(maps: Tensor, rate: int) -> Tensor:
    """`(B, H, W, C)` -> `(B, H / rate, W / rate, rate * rate * C)`, channels innermost."""
    if rate == 1:
        return maps
    _, height, width, _ = ops.shape(maps)
    channels = maps.shape[-1]
    height, width = height // rate, width // rate
    maps = ops.reshape(maps, (-1, height, rate, width, rate * channels))
    maps = ops.transpose(maps, (0, 1, 3, 2, 4))
    return ops.reshape(maps, (-1, height, width, rate * rate * channels))


def depth_to_space(maps: Tensor, rate: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    if rate == 1:
        return maps
    _, height, width, _ = ops.shape(maps)
    channels = maps.shape[-1] // rate**2
    maps = ops.reshape(maps, (-1, height, width, rate, rate * channels))
    maps = ops.transpose(maps, (0, 1, 3, 2, 4))
    return ops.reshape(maps, (-1, height * rate, width * rate, channels))
