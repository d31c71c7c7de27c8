"""The shared-Gram form of patch attention: no patch is ever extracted.

Let `G[p, q] = <f_p, f_q>` be the Gram matrix of the features over positions, seen as a 4-D array
over `(y, x, x', y')`, and call the sum of `G[p + d, q + d]` over a k x k window of shifts `d` its
*diagonal box sum*. Then

* the inner product of two k x k patches is the diagonal box sum of `G`,
* the squared norm of a patch is a box sum of the squared norms of its pixels,
* the propagation of Eq. (2), which shifts query and candidate together, is the diagonal box sum of
  the attention,
* "deconvolution" with the patches themselves (overlap-add) is the diagonal box sum of the attention
  followed by one matrix product with the features.

So every patch size uses one Gram matrix and the k^2-fold arithmetic of extracted patches
disappears. Only queries in the bounding box of the holes, plus a halo for the windows, are ever
needed. `attention_reference.py` writes the same function the literal way; the tests hold the two
together, values and gradients.

Scores lie as `(B, h, w, W, H)`: queries row by row, candidates column by column. The two axes along
which a diagonal box sum shifts together are then the outermost and the innermost ones, or two
neighbors; either way its sum is a three-dimensional convolution of the array as it lies.
"""

import functools
from collections.abc import Sequence

from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_scores import (
    MASKED_PRODUCT,
    PATCH_NORM_FLOOR,
    as_columns,
    as_rows,
    gram_matrix,
    is_known,
    softmax,
    times,
    weighted_sum,
)
from musical_tf.layers.box_sums import (
    box_sum,
    diagonal_box_sum,
    query_box_sum,
    without_border,
)
from musical_tf.layers.query_window import QueryWindow, Region, in_bands

KNOWN_OFFSET = 1e-7
"""What the authors' code adds to the known features and to the zeros around the map, so that a
patch inside the hole has a direction."""

ROW_SUM_FLOOR = 1e-6
"""What a row of propagated attention is divided by at least: a query beside the map's border whose
candidates all lie outside has none."""


def attend(
    features: Tensor,
    hole: Tensor,
    patch_sizes: Sequence[int],
    propagation_size: int,
    softmax_scale: float,
    variant: str,
    max_scores: int | None = None,
    dtype: str = "float32",
) -> list[Tensor]:
    """Replaces the hole of a feature map by attention over its known patches, once per patch size.

    Args:
        features: `(B, H, W, C)` float32.
        hole: `(B, H, W, 1)` float32, 1 = missing; may differ from sample to sample.
        patch_sizes: Odd ints, one result each.
        propagation_size: Odd int, side of the window of Eq. (2).
        softmax_scale: Float, multiplies the scores.
        variant: `"paper"` or `"official"`, see `ContextualAttention`.
        max_scores: Int, how many scores one tensor may hold. The queries are then processed in
            bands of rows, and each band is computed again for the gradient. A band has at least one
            row, so the bound is never below what that takes. None is no bound.
        dtype: Of the attention after the softmax and of the features it multiplies, `"float32"` or
            `"bfloat16"`. The products are summed in float32 in either.

    Returns:
        One `(B, H, W, C)` float32 tensor per patch size.
    """
    window = QueryWindow(hole)
    halo = max(_halo(size, propagation_size) for size in patch_sizes)
    margin = max(patch_sizes) // 2
    attend_one_size = (
        _attend_paper if variant == "paper" else functools.partial(_attend_official, margin=margin)
    )

    def fill(features, hole, window):
        keys = features if variant == "paper" else offset_known(features, hole, margin)
        queries = window.crop(features, halo)
        if variant == "paper":
            scores = _marked_gram(queries, features, hole)  # (B, h, w, W, H)
        else:
            scores = gram_matrix(queries, keys)
        return [
            attend_one_size(
                without_border(scores, (1, 2), halo - _halo(size, propagation_size)),
                keys,
                hole,
                window,
                size,
                propagation_size,
                softmax_scale,
                dtype,
            )
            for size in patch_sizes
        ]

    if max_scores is None:
        fillings = fill(features, hole, window)
    else:
        fillings = in_bands(fill, features, hole, window, halo, max_scores)
    attended = []
    for size, filling in zip(patch_sizes, fillings, strict=True):
        replaced = hole > 0.5
        if variant == "paper":
            has_candidate = ops.any(is_known(hole, size), axis=(1, 2, 3), keepdims=True)
            replaced = ops.logical_and(replaced, has_candidate)
        attended.append(ops.where(replaced, window.paste(filling), features))
    return attended


def offset_known(features: Tensor, hole: Tensor, margin: int) -> Tensor:
    """The features that the authors' code cuts its candidates from.

    The known features, zero in the hole and in `margin` positions around the map, and then
    `KNOWN_OFFSET` more everywhere: `(B, H + 2 margin, W + 2 margin, C)` float32.
    """
    known = features * (1.0 - hole) + KNOWN_OFFSET
    around = [margin, margin]
    return ops.pad(known, [[0, 0], around, around, [0, 0]], constant_values=KNOWN_OFFSET)


def _attend_paper(gram, features, hole, window, size, propagation_size, softmax_scale, dtype):
    """Steps 1 to 5 of `ContextualAttention` for the window, `(B, h, w, C)`."""
    propagated = _propagate_paper(
        gram, features, hole, window, size, propagation_size, softmax_scale, dtype
    )
    inside = ops.ones_like(hole)
    if size == 1:
        # Nothing overlaps, so the rows are brought to a sum of one after the product with the
        # features, where there are fewer columns; a channel of ones gives their sums.
        summed = weighted_sum(propagated, ops.concatenate([features, inside], axis=-1))
        return summed[..., :-1] / ops.maximum(summed[..., -1:], ROW_SUM_FLOOR)
    overlapped = _overlap_paper(propagated, hole, window, size)
    count = window.crop(box_sum(inside, size), 0)
    return weighted_sum(overlapped, features) / ops.maximum(count, 1.0)


def _propagate_paper(
    gram, features, hole, window, size, propagation_size, softmax_scale, dtype="float32"
):
    """The attention of Eq. (1) and (2), with the halo that overlapping needs."""
    radius, reach = size // 2, propagation_size // 2
    inside = ops.ones_like(hole)
    energy = ops.sum(ops.square(features), axis=-1, keepdims=True)
    # The root is taken of the floored energy: the gradient of sqrt at 0 is infinite.
    inverse_norm = ops.rsqrt(ops.maximum(box_sum(energy, size), PATCH_NORM_FLOOR**2))

    inner = diagonal_box_sum(gram, size)
    query_scale = window.crop(inverse_norm, radius + reach) * softmax_scale
    logits = inner * as_rows(query_scale) * as_columns(inverse_norm)  # Eq. (1)
    attention = times(
        ops.cast(softmax(logits), dtype), as_rows(window.crop(inside, radius + reach))
    )
    return diagonal_box_sum(attention, propagation_size)  # Eq. (2)


def _overlap_paper(propagated, hole, window, size):
    """The sum over the patches that cover a position, each with rows that sum to one."""
    total = ops.sum(ops.cast(propagated, "float32"), axis=(3, 4), keepdims=True)
    # Queries outside the map may have caught a neighbor's attention; `inside` drops them.
    query_inside = as_rows(window.crop(ops.ones_like(hole), size // 2))
    rescaled = times(propagated, query_inside / ops.maximum(total, ROW_SUM_FLOOR))
    # The element d of the patch that query i - d pastes of candidate j lands on i, and is f_(j+d).
    return diagonal_box_sum(rescaled, size)


def paper_weights(
    features: Tensor,
    hole: Tensor,
    window: Region | QueryWindow,
    size: int,
    propagation_size: int,
    softmax_scale: float,
) -> Tensor:
    """What the variant `"paper"` multiplies the features with, to fill a window.

    Arguments: as of `attend`; `window.crop(maps, halo)` cuts the filled positions out.

    Returns:
        `(B, h, w, W, H)`.
    """
    queries = window.crop(features, _halo(size, propagation_size))
    gram = _marked_gram(queries, features, hole)
    options = (size, propagation_size, softmax_scale)
    propagated = _propagate_paper(gram, features, hole, window, *options)
    count = window.crop(box_sum(ops.ones_like(hole), size), 0)
    return _overlap_paper(propagated, hole, window, size) / as_rows(ops.maximum(count, 1.0))


def _attend_official(
    gram, keys, hole, window, size, propagation_size, softmax_scale, dtype, margin
):
    """The same in the order and with the normalization of the authors' code.

    `keys`, and with them the candidates of `gram`, have `margin` positions around the map, see
    `offset_known`: a patch at the border has `KNOWN_OFFSET` where it lies outside.
    """
    keys = without_border(keys, (1, 2), margin - size // 2)
    gram = without_border(diagonal_box_sum(gram, size), (3, 4), margin)
    options = (size, propagation_size, softmax_scale, dtype)
    weights = _overlap_official(gram, keys, hole, window, *options)
    return weighted_sum(weights, keys) * (1.0 / size**2)


def _overlap_official(
    inner, keys, hole, window, size, propagation_size, softmax_scale, dtype="float32"
):
    """From the inner products of patches to what the `keys`, with their margin, are times."""
    radius, reach = size // 2, propagation_size // 2
    inside = ops.ones_like(hole)
    energy = ops.sum(ops.square(keys), axis=-1, keepdims=True)
    energy = without_border(box_sum(energy, size), (1, 2), radius)
    inverse_norm = as_columns(ops.rsqrt(energy))

    scores = inner * inverse_norm * as_rows(window.crop(inside, radius + reach))
    attention = softmax(softmax_scale * query_box_sum(scores, propagation_size))
    attention = times(ops.cast(attention, dtype), as_rows(window.crop(inside, radius)))
    return paste_with_margin(times(attention, inverse_norm), size)


def official_weights(
    features: Tensor,
    hole: Tensor,
    window: Region | QueryWindow,
    size: int,
    propagation_size: int,
    softmax_scale: float,
) -> Tensor:
    """What the variant `"official"` multiplies `offset_known` with; arguments as `paper_weights`.

    Returns:
        `(B, h, w, W + 2 r, H + 2 r)`, r the radius of a patch.
    """
    radius = size // 2
    keys = offset_known(features, hole, radius)
    gram = gram_matrix(window.crop(features, _halo(size, propagation_size)), keys)
    inner = without_border(diagonal_box_sum(gram, size), (3, 4), radius)
    options = (size, propagation_size, softmax_scale)
    return _overlap_official(inner, keys, hole, window, *options) * (1.0 / size**2)


def paste_with_margin(attention: Tensor, size: int) -> Tensor:
    """The diagonal box sum of `(B, h, w, W, H)` attention, for patches beyond the map.

    Returns:
        `(B, h - size + 1, w - size + 1, W + size - 1, H + size - 1)`.
    """
    around = [size // 2, size // 2]
    return diagonal_box_sum(ops.pad(attention, [[0, 0], [0, 0], [0, 0], around, around]), size)


def _halo(size: int, propagation_size: int) -> int:
    """Positions around the hole whose Gram rows the score, propagation and overlap need."""
    return 2 * (size // 2) + propagation_size // 2


def _marked_gram(queries, keys, hole):
    """`gram_matrix` in which every product with a missing position is `MASKED_PRODUCT`.

    One channel more marks them, and the box sums carry the mark to every patch that touches one: no
    pass over the scores is spent on masking them.
    """
    ones = ops.ones_like(queries[..., :1])  # outside the map too: a mark there counts as well
    return gram_matrix(
        ops.concatenate([queries, ones], axis=-1),
        ops.concatenate([keys, MASKED_PRODUCT * hole], axis=-1),
    )
