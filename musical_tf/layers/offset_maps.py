"""Operations on maps and flat positions that the copying of pixels shares."""

from keras import ops


def with_margin(maps, value=None):
    """`(1, H, W, C)` -> `(P, C)`: a margin of one, of a value or of the outermost ones."""
    margin = [[0, 0], [1, 1], [1, 1], [0, 0]]
    if value is None:
        maps = ops.pad(maps, margin, mode="symmetric")
    else:
        maps = ops.pad(maps, margin, constant_values=value)
    return ops.reshape(maps, (-1, maps.shape[-1]))


def rows_of(values, indices):
    """`values[indices]` along the first axis."""
    return ops.take(values, indices, axis=0)


def erode(known, size):
    """1 where the whole window is 1; positions outside the image do not count."""
    for window in ((size, 1), (1, size)):
        known = 1.0 - ops.max_pool(1.0 - known, window, 1, "same")
    return known


def squared_norm(difference):
    """Sum of squares over the channels."""
    return ops.sum(ops.square(difference), axis=-1)
