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
    """Maps an image from [0, 255] to [-1, 1].

    Args:
        image: `(..., H, W, 3)` RGB, uint8 or any real type, in [0, 255].

    Returns:
        Float32 tensor of the same shape: 0 becomes -1, 255 becomes 1.
    """
    return ops.cast(image, "float32") * (2.0 / 255.0) - 1.0


def to_uint8(image: Tensor) -> Tensor:
    """Maps an image from [-1, 1] to whole grey levels; the inverse of `normalize`.

    Args:
        image: `(..., H, W, 3)` RGB, float. Values outside [-1, 1] are clipped.

    Returns:
        uint8 tensor of the same shape, rounded half to even.
    """
    levels = (ops.cast(image, "float32") + 1.0) * 127.5
    return ops.cast(ops.clip(ops.round(levels), 0.0, 255.0), "uint8")


def mask_image(image: Tensor, hole: Tensor) -> Tensor:
    """Erases what lies under the hole: `image * (1 - hole)`, mid-grey (0) in the hole.

    Args:
        image: `(B, H, W, C)` float.
        hole: `(B, H, W, 1)` float, 1 = missing.

    Returns:
        `(B, H, W, C)`, the dtype of `image`.
    """
    return ops.where(hole > 0.5, ops.zeros_like(image), image)


def composite(prediction: Tensor, image: Tensor, hole: Tensor) -> Tensor:
    """Pastes the prediction into the hole; known pixels keep the image's value bit for bit.

    A selection rather than `prediction * hole + image * (1 - hole)`: the sum lets a NaN or infinity
    of one side leak into the other.

    Args:
        prediction: `(B, H, W, C)` float, a generator's raw output.
        image: `(B, H, W, C)` float, the photograph.
        hole: `(B, H, W, 1)` float, 1 = missing.

    Returns:
        `(B, H, W, C)`.
    """
    return ops.where(hole > 0.5, prediction, image)


def downsample_hole(hole: Tensor, factor: int) -> Tensor:
    """Brings a hole to feature resolution: a position is hole if any pixel under it is.

    Max-pooling, never nearest: a nearest-neighbour hole would hand the attention features that have
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
