"""Cropping one map to the size of another, which only running shows."""

import keras
from keras import ops

from musical_tf.conventions import Tensor


@keras.saving.register_keras_serializable("musical_tf")
class CropLike(keras.layers.Layer):
    """Cuts rows and columns off the end: what doubling a halved odd map has too many.

    Call arguments:
        features: `(B, H, W, C)`.
        reference: `(B, h, w, D)`, h at most H and w at most W.

    Returns:
        `(B, h, w, C)`.
    """

    def build(self, features_shape, reference_shape):
        pass

    def call(self, features: Tensor, reference: Tensor) -> Tensor:
        height, width = ops.shape(reference)[1:3]
        return features[:, :height, :width]

    def compute_output_shape(self, features_shape, reference_shape):
        return (features_shape[0], *reference_shape[1:3], features_shape[3])
