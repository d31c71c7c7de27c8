"""The literal reading of `StridedContextualAttention`: patches are filters of convolutions. The
oracle of the tests.

Every candidate is a filter: a convolution compares, a transposed convolution pastes. The filters
are an image's own, so the images go one by one, and their number must be known.
"""

from keras import ops

from musical_tf.conventions import Tensor, downsample_hole
from musical_tf.layers.attention_reference import MASKED_SCORE
from musical_tf.layers.attention_scores import PATCH_NORM_FLOOR


def attend(
    features: Tensor,
    hole: Tensor,
    rate: int,
    patch_size: int,
    fuse_size: int,
    softmax_scale: float,
    max_scores: int | None = None,
) -> Tensor:
    """Same arguments and result as `strided_matching.attend`; `max_scores` bounds nothing here."""
    del max_scores
    filled = [
        _attend_one(
            features[index : index + 1],
            hole[index : index + 1],
            rate,
            patch_size,
            fuse_size,
            softmax_scale,
        )
        for index in range(features.shape[0])
    ]
    return ops.concatenate(filled, axis=0)


def _attend_one(features, hole, rate, patch_size, fuse_size, softmax_scale):
    channels = features.shape[-1]
    # 1. Match at a fraction of the resolution.
    matched = features[:, ::rate, ::rate]
    coarse_hole = downsample_hole(hole, rate)
    _, height, width, _ = ops.shape(matched)
    count = height * width
    # 2. A candidate is valid if its patch touches no missing position.
    touched = ops.max(_extract_patches(coarse_hole, patch_size, 1), axis=-1)  # (1, h, w)
    valid = ops.reshape(touched, (count,)) < 0.5
    # 3. The unit-norm patches are the filters of a convolution.
    patches = ops.reshape(_extract_patches(matched, patch_size, 1), (count, -1))
    norm = ops.sqrt(ops.maximum(ops.sum(ops.square(patches), axis=1), PATCH_NORM_FLOOR**2))
    filters = ops.transpose(patches / norm[:, None])  # (k*k*C, h*w)
    filters = ops.reshape(filters, (patch_size, patch_size, channels, count))
    scores = ops.conv(matched, filters, padding="same")  # (1, h, w, h*w)
    # 4. Fuse: what neighbors found counts for the neighboring candidates.
    scores = ops.reshape(scores, (height, width, height, width))
    scores = _sum_along(scores, fuse_size, query_axis=1)
    scores = _sum_along(scores, fuse_size, query_axis=0)
    scores = ops.reshape(scores, (1, height, width, count))
    # 5. Softmax over the valid candidates.
    attention = ops.softmax(ops.where(valid, softmax_scale * scores, MASKED_SCORE), axis=-1)
    # 6. The patches of twice the stride are the filters of a transposed convolution.
    pasted = ops.reshape(_extract_patches(features, 2 * rate, rate), (count, -1))
    pasted = ops.transpose(pasted)  # (2r*2r*C, h*w)
    pasted = ops.reshape(pasted, (2 * rate, 2 * rate, channels, count))
    filling = ops.conv_transpose(attention, pasted, strides=rate, padding="same") / 4.0
    # 7. Only missing positions change; without a candidate none does.
    return ops.where(ops.logical_and(hole > 0.5, ops.any(valid)), filling, features)


def _extract_patches(maps, size, stride):
    """`(1, H, W, C)` -> `(1, H/s, W/s, size*size*C)`, zero-padded at the border."""
    return ops.image.extract_patches(maps, size, strides=stride, padding="same")


def _sum_along(scores, size, query_axis):
    """Sums `(h, w, h, w)` scores over shifts of query and candidate along one direction."""
    radius = size // 2
    axes = (query_axis, query_axis + 2)
    padded = ops.pad(scores, [(radius, radius) if axis in axes else (0, 0) for axis in range(4)])
    total = 0.0
    for shift in range(size):
        index = [slice(None)] * 4
        for axis in axes:
            index[axis] = slice(shift, shift + ops.shape(scores)[axis])
        total += padded[tuple(index)]
    return total
