"""Known values continued into a hole as smoothly as possible: a membrane.

A membrane is stretched over the hole and held at its border: every value is the mean of its
neighbors. That is the solution of Laplace's equation, which Pérez et al. use to join images without
a seam. A pyramid solves it here: known values are averaged down to one, and on the way back each
level starts from the coarser one and is smoothed a few times. This is linear in the number of
pixels, and the same few dozen operations for any hole.

References:
    Pérez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003.
    Gortler, Grzeszczuk, Szeliski, Cohen, "The Lumigraph", SIGGRAPH 1996 (pull and push).
"""

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor, per_channel

LEVELS = 8
"""Pyramid levels; known values propagate 256 pixels, beyond which values go to 0."""

SMOOTHINGS = 2
"""Smoothing passes on a level. They do not converge; a network does not need that."""


@keras.saving.register_keras_serializable("musical_tf")
class Membrane(keras.layers.Layer):
    """Fills holes with the membrane spanned by the values around them.

    Linear in the known values, within their range as far as `LEVELS` reaches, and differentiable.
    Computed in float32 whatever the policy. Nothing to learn.

    Call arguments:
        values: `(B, H, W, C)` float. Values under the hole have no influence.
        hole: `(B, H, W, 1)`, 1 = missing.

    Returns:
        `(B, H, W, C)` float32, known values as they were; 0 where an image is all hole.
    """

    def __init__(self, **options):
        super().__init__(**{**options, "dtype": "float32"})

    def build(self, values_shape, hole_shape):
        pass

    def call(self, values: Tensor, hole: Tensor) -> Tensor:
        # Sums and products below, because ONNX Runtime selects slowly.
        hole = per_channel(hole, values.shape[-1])
        missing = ops.cast(hole > 0.5, "float32")
        values = ops.where(hole > 0.5, 0.0, ops.cast(values, "float32"))
        levels = [(values, missing)]
        for _ in range(LEVELS):
            share = 1.0 - ops.average_pool(missing, 2, 2, "same")
            missing = ops.cast(share <= 0.0, "float32")
            values = ops.average_pool(values, 2, 2, "same") / ops.maximum(share, 1e-3)
            levels.append((values, missing))
        filled = levels.pop()[0]
        while levels:
            values, missing = levels.pop()  # values are 0 where they are missing
            filled = values + missing * _double(filled, values)
            for _ in range(SMOOTHINGS):
                filled = values + missing * _smooth(filled)
        return filled

    def compute_output_shape(self, values_shape, hole_shape):
        return values_shape


def _double(coarse: Tensor, like: Tensor) -> Tensor:
    """Twice as high and wide by linear interpolation, less the row or column too many."""
    height, width = ops.shape(like)[1:3]
    # A resize takes no size that only running shows.
    shares = _spread(ops.ones_like(coarse[:1, :, :, :1]))
    doubled = _spread(coarse) / per_channel(shares, coarse.shape[-1])
    return doubled[:, :height, :width]


def _spread(coarse: Tensor) -> Tensor:
    weights = np.array([1, 3, 3, 1], "float32") / 4
    kernel = np.einsum("i,j,cd->ijcd", weights, weights, np.eye(coarse.shape[-1], dtype="float32"))
    return ops.conv_transpose(coarse, kernel, 2, "same")


@ops.custom_gradient
def _smooth(values: Tensor):
    """The mean of each value and its eight neighbors, of those there are at the border.

    Its gradient is the same mean, weighted by the number of neighbors: five times faster than
    what TensorFlow has for average pooling.
    """

    def gradient(*inputs, upstream=None):
        upstream = inputs[0] if upstream is None else upstream
        ones = ops.pad(ops.ones_like(upstream[:1, :, :, :1]), [[0, 0], [1, 1], [1, 1], [0, 0]])
        neighbors = ops.average_pool(ones, 3, 1, "valid")  # as a share of nine
        return ops.average_pool(upstream / neighbors, 3, 1, "same") * neighbors

    return ops.average_pool(values, 3, 1, "same"), gradient
