"""The literal reading of the attention: extract patches, compare, propagate, paste. The oracle of
the tests.

Every line is one sentence of `ContextualAttention`'s numbered steps. It needs TensorFlow, `k^2`
times the memory and about ten times the time of `patch_matching.py`.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_scores import PATCH_NORM_FLOOR
from musical_tf.layers.patch_matching import KNOWN_OFFSET

MASKED_SCORE = -1e30
"""The score of a candidate that may not be used: finite, so that a row without candidates is not
NaN."""


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
    """Same arguments and result as `patch_matching.attend`, in float32 and without a bound."""
    del max_scores, dtype
    attend_one_size = _attend_paper if variant == "paper" else _attend_official
    return [
        attend_one_size(features, hole, size, propagation_size, softmax_scale)
        for size in patch_sizes
    ]


def _attend_paper(features, hole, size, propagation_size, softmax_scale):
    batch, height, width, _ = ops.shape(features)
    grid = (batch, height, width, height, width)
    # 1. A candidate is valid if its patch touches no hole position.
    touched = ops.max(_extract_patches(hole, size), axis=-1)  # (B, H*W)
    valid = touched < 0.5
    # 2. Cosine between all pairs of patches, Eq. (1).
    patches = _extract_patches(features, size)  # (B, H*W, k*k*C)
    energy = ops.sum(ops.square(patches), axis=-1, keepdims=True)
    unit_patches = patches * ops.rsqrt(ops.maximum(energy, PATCH_NORM_FLOOR**2))
    scores = softmax_scale * ops.matmul(unit_patches, ops.transpose(unit_patches, (0, 2, 1)))
    # 3. Softmax over the valid candidates.
    attention = ops.softmax(ops.where(valid[:, None, :], scores, MASKED_SCORE), axis=-1)
    # 4. Propagation, Eq. (2): query and candidate shift together; rows again sum to one.
    attention = ops.reshape(attention, grid)
    propagated = _sum_of_shifts(attention, propagation_size, axes=(1, 2, 3, 4))
    propagated = propagated / ops.sum(propagated, axis=(3, 4), keepdims=True)
    # 5. "Deconvolution": every query pastes its blend of patches, overlaps are averaged.
    blended = ops.matmul(ops.reshape(propagated, (batch, height * width, -1)), patches)
    count = _overlap_add(ops.ones_like(_extract_patches(hole, size)), (height, width), size)
    filling = _overlap_add(blended, (height, width), size) / count
    # 6. Only hole positions change; without a candidate none does.
    has_candidate = ops.any(valid, axis=1)[:, None, None, None]
    return ops.where(ops.logical_and(hole > 0.5, has_candidate), filling, features)


def _attend_official(features, hole, size, propagation_size, softmax_scale):
    batch, height, width, _ = ops.shape(features)
    around = (size // 2, size // 2)
    # The zeros around the map get the offset too.
    known = ops.pad(features * (1.0 - hole), ((0, 0), around, around, (0, 0))) + KNOWN_OFFSET
    queries = _extract_patches(features, size)
    candidates = _extract_patches(known, size, padding="VALID")
    energy = ops.sum(ops.square(candidates), axis=-1, keepdims=True)
    unit_candidates = candidates * ops.rsqrt(energy)
    scores = ops.matmul(queries, ops.transpose(unit_candidates, (0, 2, 1)))
    scores = ops.reshape(scores, (batch, height, width, height, width))
    scores = _sum_of_shifts(scores, propagation_size, axes=(1, 2))
    scores = ops.reshape(scores, (batch, height * width, height * width))
    attention = ops.softmax(softmax_scale * scores, axis=-1)
    blended = ops.matmul(attention, unit_candidates)
    filling = _overlap_add(blended, (height, width), size) / size**2
    return ops.where(hole > 0.5, filling, features)


def _extract_patches(maps, size, padding="SAME"):
    """`(B, H, W, C)` -> `(B, H*W, size*size*C)`, zero-padded at the border unless `"VALID"`."""
    import tensorflow as tf  # imported here: the layers run on any backend, only this oracle not

    patches = tf.image.extract_patches(
        maps, [1, size, size, 1], strides=[1, 1, 1, 1], rates=[1, 1, 1, 1], padding=padding
    )
    batch, height, width, _ = ops.shape(patches)
    return ops.reshape(patches, (batch, height * width, size * size * maps.shape[-1]))


def _overlap_add(patches, map_size, size):
    """`(B, H*W, size*size*C)` -> `(B, H, W, C)`: the transpose of `_extract_patches`."""
    height, width = map_size
    batch, _, depth = ops.shape(patches)
    radius = size // 2
    patches = ops.reshape(patches, (batch, height, width, size, size, depth // size**2))
    total: Any = 0.0
    for row in range(size):
        for column in range(size):
            # The patch element (row, column) of query p belongs at p + (row, column) - radius.
            margins = ((row, size - 1 - row), (column, size - 1 - column))
            total += ops.pad(patches[:, :, :, row, column], ((0, 0), *margins, (0, 0)))
    return total[:, radius : radius + height, radius : radius + width]


def _sum_of_shifts(scores, size, axes):
    """Sums `scores` over the shifts of a `size` x `size` window, all of `axes` moving together."""
    radius = size // 2
    shape = ops.shape(scores)
    margins = [(radius, radius) if axis in axes else (0, 0) for axis in range(5)]
    padded = ops.pad(scores, margins)
    total = 0.0
    for row in range(size):
        for column in range(size):
            index = [slice(None)] * 5
            for axis in axes:
                start = row if axis in (1, 3) else column
                index[axis] = slice(start, start + shape[axis])
            total += padded[tuple(index)]
    return total
