"""The square around a hole that a local discriminator judges, for holes of any number and shape."""

from keras import ops

from musical_tf.conventions import Tensor


def hole_window(hole: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The square that shows most of the hole, most of it near the middle.

    Of all squares of `size` pixels inside the image, the one with the largest sum of
    `hole * (1 - |y|) * (1 - |x|)`, y and x running from -1 to 1 across the square. For one box no
    larger than the square that is the square around its center, moved into the image where it would
    leave it; of several holes it shows the one, or the group, that covers most.

    Args:
        hole: `(B, H, W, 1)` float, 1 = missing.
        size: Int, side of the square in pixels, at most H and W.

    Returns:
        Two int32 tensors `(B,)`: the first row and the first column.
    """
    near_middle = 1.0 - ops.abs((2.0 * ops.arange(size, dtype="float32") + 1.0) / size - 1.0)
    hole = ops.stop_gradient(ops.cast(hole, "float32"))
    shown = ops.conv(hole, ops.reshape(near_middle, (size, 1, 1, 1)), padding="valid")
    shown = ops.conv(shown, ops.reshape(near_middle, (1, size, 1, 1)), padding="valid")
    batch, rows, columns, _ = ops.shape(shown)  # one for every place of the square
    best = ops.argmax(ops.reshape(shown, (batch, rows * columns)), axis=1)
    return ops.cast(best // columns, "int32"), ops.cast(best % columns, "int32")


def crop_window(maps: Tensor, window: tuple[Tensor, Tensor], size: int) -> Tensor:
    """Cuts each sample's own square of `(B, H, W, C)` maps; differentiable.

    `window` is what `hole_window` gives. Returns `(B, size, size, C)`, the dtype of `maps`.
    """
    top, left = window
    offsets = ops.arange(size, dtype="int32")
    rows = (top[:, None] + offsets)[:, :, None, None]
    columns = (left[:, None] + offsets)[:, None, :, None]
    maps = ops.take_along_axis(maps, rows, axis=1)
    return ops.take_along_axis(maps, columns, axis=2)
