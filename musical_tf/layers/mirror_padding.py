"""Padding by reflection, however small the map."""

import keras
from keras import ops

from musical_tf.conventions import Tensor


@keras.saving.register_keras_serializable("musical_tf")
class MirrorPadding2D(keras.layers.Layer):
    """Pads height and width by reflection, the border itself not repeated: `cb|abc|ba`.

    A backend's own reflecting pad refuses a padding as long as the map, which a dilated convolution
    on a small image asks for. Here the reflection is reflected again: `abcb|abc|babc`.

    Args:
        padding: Int >= 0, positions added at each of the four sides.
        minimum_side: Int >= 1, a side that every map is promised to have. Above `padding`, the
            backend's own pad is used, one operation; otherwise rows and columns are gathered.

    Call arguments:
        features: `(B, H, W, C)` float, H and W may be dynamic.

    Returns:
        `(B, H + 2 padding, W + 2 padding, C)`.

    Raises:
        ValueError: On a padding or side out of range.
    """

    def __init__(self, padding: int, minimum_side: int = 1, **kwargs):
        super().__init__(**kwargs)
        for name, value, least in (("padding", padding, 0), ("minimum_side", minimum_side, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        self.padding = padding
        self.minimum_side = minimum_side

    def call(self, features: Tensor) -> Tensor:
        if self.padding == 0:
            return features
        margin = [self.padding, self.padding]
        if self.minimum_side > self.padding:
            return ops.pad(features, [[0, 0], margin, margin, [0, 0]], mode="reflect")
        for axis in (1, 2):
            features = ops.take(features, self._reflected(ops.shape(features)[axis]), axis=axis)
        return features

    def _reflected(self, side):
        """The index of every padded position in a row of `side`: a triangle wave."""
        period = ops.maximum(2 * (side - 1), 1)  # a map of one position repeats itself
        # The wave is even; the remainder of a negative number would not survive the way to ONNX.
        distance = ops.abs(ops.arange(-self.padding, side + self.padding))
        index = ops.mod(distance, period)
        return ops.minimum(index, period - index)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        grown = [None if side is None else side + 2 * self.padding for side in (height, width)]
        return (batch, *grown, channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "padding": self.padding, "minimum_side": self.minimum_side}
