"""CSA's consistency loss."""

from keras import ops

from musical_tf.conventions import Tensor


def consistency_loss(target: Tensor, features: Tensor, hole: Tensor) -> Tensor:
    """Squared distance of two feature maps in the hole: `mean(hole * (target - features)^2)`.

    The mean is over all positions, channels and samples, so a larger hole gives a larger loss.

    Args:
        target: `(B, H, W, C)` float, VGG16's activations of the truth. No gradient reaches them.
        features: `(B, H, W, C)` float, the generator's.
        hole: `(B, H, W, 1)` float, 1 = missing.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes disagree: broadcasting would compare the wrong things.

    Reference: Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019.
    """
    shapes = [tuple(each.shape) for each in (target, features, hole)]
    fitting = all(len(shape) == 4 for shape in shapes) and shapes[2][3] == 1
    if fitting:
        sides = zip(*(shape[:3] for shape in shapes), strict=True)
        fitting = all(len({side for side in each if side is not None}) <= 1 for each in sides)
        fitting = fitting and shapes[0][3] == shapes[1][3]
    if not fitting:
        raise ValueError(
            "target and features must have one shape (B, H, W, C) and hole (B, H, W, 1), got "
            f"{shapes[0]}, {shapes[1]}, {shapes[2]}"
        )
    target = ops.stop_gradient(ops.cast(target, "float32"))
    difference = ops.cast(features, "float32") - target
    return ops.mean(ops.square(difference) * ops.cast(hole, "float32"))
