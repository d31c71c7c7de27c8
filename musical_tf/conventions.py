"""The project's conventions, in the one place that knows them.

Images are RGB, channels last, `(B, H, W, 3)`, float in [-1, 1]. A hole is `(B, H, W, 1)`, float, 1
where a pixel is missing and 0 where it is known. Everything else in `musical_tf` calls these
functions instead of repeating the arithmetic.
"""

from typing import Any

from keras import ops

Tensor = Any
"""A tensor of the active Keras backend, or anything `keras.ops.convert_to_tensor` takes."""


def normalize(image: Tensor) -> Tensor:
    """Maps an image from [0, 255] to [-1, 1]: `(..., H, W, 3)` of any real type to float32."""
    return ops.cast(image, "float32") * (2.0 / 255.0) - 1.0


def to_uint8(image: Tensor) -> Tensor:
    """Maps an image from [-1, 1] to gray levels; the inverse of `normalize`.

    Values outside [-1, 1] are clipped; levels are rounded half to even.
    """
    levels = (ops.cast(image, "float32") + 1.0) * 127.5
    return ops.cast(ops.clip(ops.round(levels), 0.0, 255.0), "uint8")


def mask_image(image: Tensor, hole: Tensor) -> Tensor:
    """Erases what lies under the hole: mid-gray (0) in the hole, NaN and infinity included.

    `(B, H, W, C)` float and `(B, H, W, 1)`, 1 = missing -> `(B, H, W, C)`, the dtype of `image`.
    """
    return ops.where(per_channel(hole, image.shape[-1]) > 0.5, ops.zeros_like(image), image)


def composite(prediction: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Pastes the prediction into the hole; known pixels keep the image's value bit for bit.

    A selection rather than `prediction * hole + image * (1 - hole)`: the sum lets a NaN or infinity
    of one side leak into the other. Prediction and image are `(B, H, W, C)` float, the hole is
    `(B, H, W, 1)`, 1 = missing.
    """
    return ops.where(per_channel(hole, image.shape[-1]) > 0.5, prediction, image)


def per_channel(maps: Tensor, channels: int) -> Tensor:
    """Repeats `(..., 1)` to `(..., channels)`. ONNX Runtime broadcasts a last axis of 1 slowly."""
    return ops.concatenate([maps] * channels, axis=-1)


def downsample_hole(hole: Tensor, factor: int) -> Tensor:
    """Brings a hole to feature resolution: a position is hole if any pixel under it is.

    Max-pooling, never nearest: a nearest-neighbor hole would hand the attention features that have
    seen missing pixels and call them known.

    Args:
        hole: `(B, H, W, 1)` float, 1 = missing; `H` and `W` divisible by `factor`.
        factor: Int >= 1, pixels per feature position along each side.

    Returns:
        `(B, H / factor, W / factor, 1)`.
    """
    if factor == 1:
        return hole
    return ops.max_pool(hole, pool_size=factor, strides=factor, padding="valid")
