"""A Gaussian blur of maps of any size."""

import numpy as np
from keras import ops

from musical_tf.conventions import Tensor


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Blurs `(B, H, W, C)` with a deviation of `sigma` > 0 positions, over 2.5 of them.

    At the border the weights inside are rescaled to 1.
    """
    radius = max(round(2.5 * sigma), 1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype("float32")
    return _weigh(maps, weights) / _weigh(ops.ones_like(maps[:1, :, :, :1]), weights)


def _weigh(maps, weights):
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = np.repeat(weights.reshape(shape), maps.shape[-1], axis=2)
        maps = ops.depthwise_conv(maps, kernel, padding="same")
    return maps
