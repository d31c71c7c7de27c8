"""The offsets between similar patches that are frequent in a photograph.

Reference:
    He and Sun, "Statistics of Patch Offsets for Image Completion", ECCV 2012.
"""

from keras import ops

from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.offset_maps import erode, rows_of

MATCHED = (-2, 0, 2)
"""Rows and columns of the positions of a patch that are compared when candidates are found."""

QUERY_STEP = 2
"""Positions between two patches for which the most similar patch is found."""

MOST_QUERIES = 256
"""Patches for which the most similar one is found, at most; a bound on memory and time."""

KNOWN_CANDIDATES, GUIDE_CANDIDATES = 24, 16
"""Offsets from patches of the surroundings to others, and from patches of the guide."""

BAND = 33
"""Positions along each side of the window in which surroundings of the hole are searched."""

SHORTEST = 1 / 15
"""Shortest offset between two known patches, as a share of the longer side."""

UNUSABLE = 1e6
"""Squared distance of a patch that may not be matched."""


def frequent_offsets(guide, missing):
    """The most frequent offsets, `(K, 2)` int32 in positions.

    Args:
        guide: `(1, h, w, 3)`.
        missing: `(1, h, w, 1)`, 1 where a position is missing.
    """
    height, width = ops.shape(missing)[1:3]
    reach = 2 * max(MATCHED) + 1
    usable = erode(1.0 - missing, reach)
    near = 1.0 - erode(1.0 - missing, BAND)
    flat_usable = ops.reshape(usable, (height * width,))
    unusable = UNUSABLE * (1.0 - flat_usable)
    rows = ops.arange(height * width) // width
    columns = ops.arange(height * width) - rows * width
    places = ops.cast(ops.stack([rows, columns], axis=1), "float32")
    shortest = ops.cast(ops.maximum(height, width), "float32") * SHORTEST

    chosen = []
    for maps, asked, count, among_known in (
        (guide, usable * near, KNOWN_CANDIDATES, True),
        (gaussian_blur(guide, 1.5), missing, GUIDE_CANDIDATES, False),
    ):
        patches = _patches(maps)
        patches = patches - ops.mean(patches, axis=0, keepdims=True)
        grid = ops.cast(
            ops.logical_and(rows % QUERY_STEP == 0, columns % QUERY_STEP == 0), "float32"
        ) * ops.reshape(asked, (height * width,))
        queries = ops.cast(ops.nonzero(grid > 0.5)[0], "int32")
        found = ops.shape(queries)[0]
        # Without queries one is asked for, so that no tensor is empty; its vote counts 0.
        stride = ops.maximum((found + MOST_QUERIES - 1) // MOST_QUERIES, 1)
        asked_count = ops.minimum(ops.maximum(found, 1), MOST_QUERIES)
        picked = ops.arange(asked_count) * stride
        votes = ops.cast(picked < found, "float32")
        queries = ops.concatenate([queries, ops.zeros((1,), "int32")])
        queries = rows_of(queries, ops.minimum(picked, found))
        similarity = _similarity(rows_of(patches, queries), patches, unusable)
        if among_known:
            similarity = ops.minimum(
                similarity, _distance(rows_of(places, queries), places, shortest)
            )
        # Keras's `argmax` has an operation that ONNX lacks.
        match = ops.cast(ops.top_k(similarity, 1)[1][:, 0], "int32")
        down = rows_of(rows, match) - rows_of(rows, queries)
        right = rows_of(columns, match) - rows_of(columns, queries)
        chosen.append(_frequent(down, right, votes, height, width, count))
    return ops.concatenate(chosen)


def _similarity(queries, keys, penalty):
    """`(Q, C)`, `(K, C)` -> `(Q, K)`: minus the squared distances, but for the queries' squares.

    One matrix product: large arrays are not passed over a second time.
    """
    squares = (ops.sum(ops.square(keys), axis=1) + penalty)[:, None]
    queries = ops.concatenate([2.0 * queries, -ops.ones_like(queries[:, :1])], axis=1)
    return ops.matmul(queries, ops.transpose(ops.concatenate([keys, squares], axis=1)))


def _distance(queries, keys, shortest):
    """`(Q, 2)`, `(K, 2)` places -> `(Q, K)`: above `UNUSABLE` at more than `shortest`, else below.

    One matrix product as well. Squared distances are whole numbers, at least half a unit away from
    the bound.
    """
    ones, squares = (ops.ones_like(keys[:, :1]), ops.sum(ops.square(keys), axis=1, keepdims=True))
    bound = ops.floor(ops.square(shortest)) + 0.5
    own = ops.sum(ops.square(queries), axis=1, keepdims=True) - bound
    queries = ops.concatenate([-2.0 * queries, ops.ones_like(own), own], axis=1)
    keys = ops.concatenate([keys, squares, ones], axis=1)
    return ops.matmul(4.0 * UNUSABLE * queries, ops.transpose(keys))


def _frequent(down, right, votes, height, width, count):
    """The `count` highest peaks of the smoothed histogram of offsets, `(count, 2)` int32."""
    by_row = ops.one_hot(down + height, 2 * height + 1) * votes[:, None]
    by_column = ops.one_hot(right + width, 2 * width + 1)
    histogram = ops.matmul(ops.transpose(by_row), by_column)[None, :, :, None]
    histogram = gaussian_blur(histogram, 1.0)
    peaks = ops.where(histogram >= ops.max_pool(histogram, 5, 1, "same"), histogram, 0.0)
    columns = 2 * width + 1
    order = ops.top_k(ops.reshape(peaks, (1, -1)), count)[1][0]
    return ops.stack([order // columns - height, order % columns - width], axis=1)


def _patches(maps):
    """`(1, h, w, 3)` -> `(h w, 3 * taps)`: the colors at the compared positions of each patch."""
    height, width = ops.shape(maps)[1:3]
    reach = max(MATCHED)
    padded = ops.pad(maps, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
    taps = [
        padded[:, reach + down : height + reach + down, reach + right : width + reach + right]
        for down in MATCHED
        for right in MATCHED
    ]
    return ops.reshape(ops.concatenate(taps, axis=-1), (height * width, 3 * len(taps)))
