"""Perceptual loss, Eq. (4), and style loss, Eq. (5) and (6), on feature maps of VGG16.

The trade-off weights of the paper (0.07 and 250) were tuned on the VGG16 that torchvision
distributes, see `musical_tf.losses.vgg16`.
"""

from collections.abc import Sequence

from keras import ops

from musical_tf.conventions import Tensor


def perceptual_loss(features_true: Sequence[Tensor], features_pred: Sequence[Tensor]) -> Tensor:
    """Perceptual loss, Eq. (4): the sum over maps of `mean(|true - pred|)`.

    The mean is over height, width and channel (the equation's `1 / HWC`) and over the batch.

    Args:
        features_true, features_pred: Feature maps `(B, H_i, W_i, C_i)` of the truth and of the
            prediction, such as `VGG16Features` returns.

    Returns:
        Float32 scalar.
    """
    return sum(
        ops.mean(ops.abs(ops.cast(true, "float32") - ops.cast(pred, "float32")))
        for true, pred in zip(features_true, features_pred, strict=True)
    )


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix, Eq. (6), normalized as in Eq. (5): `F^T F / (H W C)`, `F` being `(H W, C)`.

    `(B, H, W, C)` -> `(B, C, C)`, always float32: the sum over positions leaves the range of
    float16.
    """
    height, width, channels = ops.shape(features)[1:]
    flat = ops.reshape(ops.cast(features, "float32"), (-1, height * width, channels))  # (B, HW, C)
    gram = ops.matmul(ops.transpose(flat, (0, 2, 1)), flat)  # (B, C, C)
    return gram / ops.cast(height * width * channels, "float32")


def style_loss(features_true: Sequence[Tensor], features_pred: Sequence[Tensor]) -> Tensor:
    """Style loss, Eq. (5): the sum over maps of `mean(|gram(true) - gram(pred)|)`.

    The mean is over the `C x C` entries and the batch. Arguments and result as of
    `perceptual_loss`; height and width of the two may differ.
    """
    return sum(
        ops.mean(ops.abs(gram_matrix(true) - gram_matrix(pred)))
        for true, pred in zip(features_true, features_pred, strict=True)
    )
