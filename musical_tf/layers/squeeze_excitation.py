"""Squeeze-and-excitation, the reweighting of channels inside the multi-scale attention module."""

import keras
from keras import ops

from musical_tf.conventions import Tensor


@keras.saving.register_keras_serializable("musical_tf")
class SqueezeExcitation(keras.layers.Layer):
    """Weighs every channel of `(B, H, W, C)` by what the whole image needs.

    1. Global average pool: `(B, C)`.
    2. Dense to `max(1, C / ratio)`, ReLU.
    3. Dense to C, sigmoid.
    4. Scale: `features * weights`, `(B, H, W, C)`.

    Args:
        ratio: Int >= 1, reduction of the bottleneck; 16 in Hu et al.

    Raises:
        ValueError: On a ratio that is not an integer >= 1.

    Reference:
        Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.
    """

    def __init__(self, ratio: int = 16, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(ratio, int) or ratio < 1:
            raise ValueError(f"ratio must be an integer >= 1, got {ratio!r}")
        self.ratio = ratio

    def build(self, input_shape):
        channels = input_shape[-1]
        bottleneck = max(1, channels // self.ratio)
        self.reduce = keras.layers.Dense(
            bottleneck, activation="relu", dtype=self.dtype_policy, name="reduce"
        )
        self.reduce.build((input_shape[0], channels))
        self.expand = keras.layers.Dense(
            channels, activation="sigmoid", dtype=self.dtype_policy, name="expand"
        )
        self.expand.build((input_shape[0], bottleneck))

    def call(self, features: Tensor) -> Tensor:
        # float16 would overflow in the sum behind the mean.
        pooled = ops.mean(ops.cast(features, "float32"), axis=(1, 2))
        weights = self.expand(self.reduce(ops.cast(pooled, self.compute_dtype)))
        return features * weights[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "ratio": self.ratio}
