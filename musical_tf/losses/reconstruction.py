"""Losses that compare pixels. Reductions are float32 whatever the dtype of the images."""

from keras import ops

from musical_tf.conventions import Tensor

SSIM_WINDOW = 7
"""Side of the square over which SSIM takes its means, in pixels: scikit-image's default."""


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


def l2_loss(image: Tensor, prediction: Tensor) -> Tensor:
    """Mean squared error: `mean((image - prediction)^2)` over everything.

    Its best guess is the mean of what could be there, that of L1 the median. PSNR asks for it.
    Arguments, result and errors: as of `l1_loss`.
    """
    return ops.mean(ops.square(_absolute_difference(image, prediction)))


def hole_l1_loss(image: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute error inside the hole: `mean(|image - prediction| * hole)`.

    The mean is over *all* pixels, as in the authors' code, so a larger hole gives a larger loss.

    Args:
        image, prediction: As of `l1_loss`.
        hole: Float tensor `(B, H, W, 1)`, 1 = missing.

    Raises:
        ValueError: If the shapes of the images differ, or `hole` is not `(B, H, W, 1)`.
    """
    _check_hole(hole)
    return ops.mean(_absolute_difference(image, prediction) * ops.cast(hole, "float32"))


def hole_l2_loss(truth: Tensor, prediction: Tensor, hole: Tensor) -> Tensor:
    """Squared error inside the hole: `mean(hole * (truth - prediction)^2)`.

    The mean is over *all* positions, channels and samples, so a larger hole gives a larger loss.
    No gradient reaches the truth. The maps are `(B, H, W, C)`; errors as of `hole_l1_loss`.
    """
    _check_hole(hole)
    error = _absolute_difference(ops.stop_gradient(truth), prediction)
    return ops.mean(ops.square(error) * ops.cast(hole, "float32"))


def ssim_loss(image: Tensor, prediction: Tensor) -> Tensor:
    """One minus the mean structural similarity, per channel and over all windows in the image.

    Means, variances and the covariance are those of 7 x 7 pixels of equal weight, the (co)variances
    unbiased, as scikit-image has them by default. A blur costs little in L1 and much here.
    Arguments and errors as of `l1_loss`; H and W are at least 7.

    Returns:
        Float32 scalar in [0, 2], 0 for equal images.

    Reference: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
    Structural Similarity", 2004, Eq. (13); as a loss: Zhao, Gallo, Frosio, Kautz, "Loss Functions
    for Image Restoration with Neural Networks", 2017.
    """
    _check_one_shape(image, prediction)
    x, y = (ops.cast(each, "float32") / 2.0 + 0.5 for each in (image, prediction))
    means = _window_mean(ops.concatenate([x, y, x * x, y * y, x * y], axis=-1))
    x, y, xx, yy, xy = ops.split(means, 5, axis=-1)
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    variances, covariance = unbiased * (xx - x * x + yy - y * y), unbiased * (xy - x * y)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2.0 * x * y + c1) / (x * x + y * y + c1)
    return ops.mean(1.0 - luminance * (2.0 * covariance + c2) / (variances + c2))


def total_variation_loss(image: Tensor) -> Tensor:
    """Total variation, `L_tv` of Eq. (7): mean absolute horizontal plus vertical difference.

    Each mean is over its own pairs of neighbors, so the loss does not depend on the size of the
    image, `(B, H, W, C)` with `H` and `W` at least 2.
    """
    image = ops.cast(image, "float32")
    vertical = ops.mean(ops.abs(image[:, 1:] - image[:, :-1]))
    horizontal = ops.mean(ops.abs(image[:, :, 1:] - image[:, :, :-1]))
    return vertical + horizontal


def _absolute_difference(image: Tensor, prediction: Tensor) -> Tensor:
    _check_one_shape(image, prediction)
    return ops.abs(ops.cast(image, "float32") - ops.cast(prediction, "float32"))


def _check_hole(hole: Tensor) -> None:
    shape = tuple(hole.shape)
    if len(shape) != 4 or shape[-1] != 1:
        raise ValueError(f"hole must have shape (B, H, W, 1), got {shape}")


def _check_one_shape(image: Tensor, prediction: Tensor) -> None:
    shapes = tuple(image.shape), tuple(prediction.shape)
    known = [(a, b) for a, b in zip(*shapes, strict=False) if a is not None and b is not None]
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in known):
        raise ValueError(f"image and prediction must have one shape, got {shapes[0]}, {shapes[1]}")


@ops.custom_gradient
def _window_mean(maps: Tensor):
    """The mean of every whole window, `(B, H - 6, W - 6, C)`.

    The gradient is the same mean over the windows that a pixel lies in, which is several times
    faster than TensorFlow's for average pooling.
    """

    def gradient(*inputs, upstream=None):
        upstream = inputs[0] if upstream is None else upstream
        margin = [SSIM_WINDOW - 1, SSIM_WINDOW - 1]
        padded = ops.pad(upstream, [[0, 0], margin, margin, [0, 0]])
        return ops.average_pool(padded, SSIM_WINDOW, 1, "valid")

    return ops.average_pool(maps, SSIM_WINDOW, 1, "valid"), gradient


def region_l1_loss(
    image: Tensor, prediction: Tensor, region: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean absolute error over a region, weighted: its sum divided by the size of the region.

    The mean is over the region's pixels, all samples together, so every pixel counts the same
    whatever the size of the region; 0 if there is no region.

    Args:
        image, prediction: As of `l1_loss`.
        region: Float tensor `(B, H, W, 1)`, 1 inside, 0 outside.
        weight: Float tensor `(B, H, W, 1)` that multiplies the errors; its sum is not divided by.

    Raises:
        ValueError: If the shapes of the images differ.
    """
    error = ops.mean(_absolute_difference(image, prediction), axis=-1, keepdims=True)
    region = ops.cast(region, "float32")
    weighted = region if weight is None else region * ops.cast(weight, "float32")
    return ops.sum(error * weighted) / ops.maximum(ops.sum(region), 1.0)


def discounted_hole(hole: Tensor, discount: float = 0.9) -> Tensor:
    """Weights that fall with the distance to what is known: `discount ** l` in the hole.

    l is the distance to the nearest known pixel of the image in steps to any of the eight
    neighbors, so 1 along the border of the hole. Deep inside a large hole many contents are right,
    and the photograph's own counts less.

    Args:
        hole: Float tensor `(B, H, W, 1)`, 1 = missing.
        discount: Float in (0, 1].

    Returns:
        Float32 tensor `(B, H, W, 1)`: 0 where pixels are known, and everywhere in a sample without
        a known pixel.

    Reference: Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018,
    Section 3, "Spatially discounted reconstruction loss".
    """
    hole = ops.stop_gradient(ops.cast(hole, "float32"))
    known = 1.0 - hole

    def spread(before, weight):
        del before
        return weight, ops.maximum(weight, discount * _largest_neighbor(weight))

    _, weight = ops.while_loop(
        lambda before, weight: ops.any(weight > before), spread, (0.0 * known - 1.0, known)
    )
    return ops.stop_gradient(weight * hole)


def _largest_neighbor(maps):
    """The maximum of non-negative `(B, H, W, 1)` maps over 3 x 3 windows."""
    for axis in (1, 2):
        margin = [[1, 1] if each == axis else [0, 0] for each in range(4)]
        padded = ops.pad(maps, margin)
        before = padded[:, :-2] if axis == 1 else padded[:, :, :-2]
        after = padded[:, 2:] if axis == 1 else padded[:, :, 2:]
        maps = ops.maximum(maps, ops.maximum(before, after))
    return maps
