"""Scores of every query against every candidate: `(B, h, w, W, H)`, see `patch_matching`."""

from keras import ops

from musical_tf.layers.box_sums import box_sum

PATCH_NORM_FLOOR = 1e-4
"""Patches shorter than this are divided by it instead of by their norm, so that an all-zero patch
scores 0, not NaN."""

MASKED_PRODUCT = -1e20
"""The inner product of anything with a missing position. It outweighs every other, so that a patch
with a missing position in it gets no attention, and stays finite when the norms have scaled it."""


def is_known(hole, size):
    """Whether the patch at a position touches no hole position, `(B, H, W, 1)` bool."""
    return box_sum(hole, size) < 0.5


def gram_matrix(queries, keys):
    """`(B, h, w, C)` and `(B, H, W, C)` -> inner products `(B, h, w, W, H)`."""
    batch, height, width, channels = ops.shape(queries)
    key_height, key_width = ops.shape(keys)[1:3]
    flat_queries = ops.reshape(queries, (batch, height * width, channels))
    flat_keys = ops.reshape(
        ops.transpose(keys, (0, 3, 2, 1)), (batch, channels, key_width * key_height)
    )
    products = ops.matmul(flat_queries, flat_keys)
    return ops.reshape(products, (batch, height, width, key_width, key_height))


def weighted_sum(weights, features):
    """`(B, h, w, W, H)` weights on `(B, H, W, C)` features -> `(B, h, w, C)` float32."""
    batch, height, width, key_width, key_height = ops.shape(weights)
    channels = features.shape[-1]
    flat_weights = ops.reshape(weights, (batch, height * width, key_width * key_height))
    flat_features = ops.reshape(
        ops.transpose(features, (0, 2, 1, 3)), (batch, key_width * key_height, channels)
    )
    summed = ops.matmul(flat_weights, ops.cast(flat_features, weights.dtype))
    return ops.cast(ops.reshape(summed, (batch, height, width, channels)), "float32")


def times(scores, factors):
    """Scores times factors, in the dtype of the scores."""
    return scores * ops.cast(factors, scores.dtype)


def softmax(logits):
    """Softmax over the last two axes."""
    shape = ops.shape(logits)
    flat = ops.reshape(logits, (*shape[:3], shape[3] * shape[4]))
    return ops.reshape(ops.softmax(flat, axis=-1), shape)


def as_rows(maps):
    """`(B, h, w, 1)` -> `(B, h, w, 1, 1)`: one number per query."""
    return ops.expand_dims(maps, -1)


def as_columns(maps):
    """`(B, H, W, 1)` -> `(B, 1, 1, W, H)`: one number per candidate."""
    return ops.transpose(ops.expand_dims(maps, 1), (0, 1, 4, 3, 2))
