"""Losses that compare pixels. Reductions are float32 whatever the dtype of the images."""

from keras import ops

from musical_tf.conventions import Tensor


def l1_loss(image: Tensor, prediction: Tensor) -> Tensor:
    """Mean absolute error, `L_l1` of Eq. (7): `mean(|image - prediction|)` over everything.

    Args:
        image: Float tensor `(B, H, W, 3)`, RGB in [-1, 1]. An error of 1.0 is half the dynamic
            range.
        prediction: Float tensor of the same shape, the generator's raw output (not composited).

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes differ: broadcasting would compare the wrong pixels.
    """
    return ops.mean(_absolute_difference(image, prediction))


def hole_l1_loss(image: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute error inside the hole: `mean(|image - prediction| * hole)`.

    The mean is over *all* pixels, as in the authors' code, so a larger hole gives a larger loss.

    Args:
        image: Float tensor `(B, H, W, 3)`, RGB in [-1, 1].
        prediction: Float tensor of the same shape.
        hole: Float tensor `(B, H, W, 1)`, 1 = missing.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes of the images differ, or `hole` is not `(B, H, W, 1)`.
    """
    shape = tuple(hole.shape)
    if len(shape) != 4 or shape[-1] != 1:
        raise ValueError(f"hole must have shape (B, H, W, 1), got {shape}")
    return ops.mean(_absolute_difference(image, prediction) * ops.cast(hole, "float32"))


def total_variation_loss(image: Tensor) -> Tensor:
    """Total variation, `L_tv` of Eq. (7): mean absolute horizontal plus vertical difference.

    Each mean is over its own pairs of neighbours, so the loss does not depend on the size of the
    image.

    Args:
        image: Float tensor `(B, H, W, C)`, `H` and `W` at least 2.

    Returns:
        Float32 scalar.
    """
    image = ops.cast(image, "float32")
    vertical = ops.mean(ops.abs(image[:, 1:] - image[:, :-1]))
    horizontal = ops.mean(ops.abs(image[:, :, 1:] - image[:, :, :-1]))
    return vertical + horizontal


def _absolute_difference(image: Tensor, prediction: Tensor) -> Tensor:
    shapes = tuple(image.shape), tuple(prediction.shape)
    known = [(a, b) for a, b in zip(*shapes, strict=False) if a is not None and b is not None]
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in known):
        raise ValueError(f"image and prediction must have one shape, got {shapes[0]}, {shapes[1]}")
    return ops.abs(ops.cast(image, "float32") - ops.cast(prediction, "float32"))
