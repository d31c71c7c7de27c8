"""The shift of Shift-Net: features of the known region, copied into the hole by nearest cosine."""

import keras
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_scores import MASKED_PRODUCT
from musical_tf.layers.query_window import QueryWindow

NORM_FLOOR = 1e-4
"""Features shorter than this are divided by it instead of by their norm, so that an all-zero one
scores 0, not NaN."""


@keras.saving.register_keras_serializable(package="musical_tf")
class ShiftConnection(keras.layers.Layer):
    """Joins decoder features, encoder features and shifted encoder features.

    1. Every hole position of the decoder is compared, by cosine, with every known position of the
       encoder, and the nearest one is its source: the shift leads from there.
    2. The encoder's features at the sources are copied into the hole; the third group of channels
       is zero where nothing is missing.
    3. `[decoder, encoder, shifted]` are concatenated.

    The gradient reaches the copied values, not the choice of their sources. Every sample has its
    own hole. Where a sample has no known position nothing is copied. Comparing is done in float32
    whatever the policy, for the bounding box of the holes only.

    Call arguments:
        decoder, encoder: `(B, H, W, C)` float.
        hole: `(B, H, W, 1)` float, 1 = missing, at the features' resolution.

    Returns:
        `(B, H, W, 3C)`.

    Raises:
        ValueError: If decoder and encoder differ in channels.

    Reference:
        Yan et al., "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018,
        Section 3.2.
    """

    def build(self, decoder_shape, encoder_shape, hole_shape):
        if decoder_shape[-1] != encoder_shape[-1]:
            raise ValueError(
                "decoder and encoder must have the same number of channels, got "
                f"{decoder_shape[-1]} and {encoder_shape[-1]}"
            )

    def call(self, decoder: Tensor, encoder: Tensor, hole: Tensor) -> Tensor:
        shifted = shift(decoder, encoder, hole)
        return ops.concatenate([decoder, encoder, shifted], axis=-1)

    def compute_output_shape(self, decoder_shape, encoder_shape, hole_shape):
        return (*decoder_shape[:-1], 3 * decoder_shape[-1])


def shift(decoder: Tensor, encoder: Tensor, hole: Tensor) -> Tensor:
    """Copies to each hole position the encoder's features of its source.

    Returns:
        `(B, H, W, C)`, the dtype of `encoder`; zero at known positions, and everywhere in a sample
        that has none.
    """
    window = QueryWindow(hole)
    source = _nearest_known(window.crop(_float32(decoder), 0), encoder, hole)  # (B, h, w)
    batch, height, width, _ = ops.shape(encoder)
    channels = encoder.shape[-1]
    # One index into all samples together, because a gather along an axis repeats it per channel.
    first = ops.reshape(ops.arange(batch) * (height * width), (-1, 1, 1))
    flat = ops.reshape(_float32(encoder), (batch * height * width, channels))
    copied = window.paste(ops.take(flat, source + first, axis=0))
    return ops.cast(ops.where(_is_filled(hole), copied, 0.0), encoder.dtype)


def shift_sources(decoder: Tensor, encoder: Tensor, hole: Tensor) -> Tensor:
    """Which known position each hole position copies.

    Returns:
        `(B, H, W, 2)` int32, row and column of the source in the feature map; -1 where nothing is
        copied.
    """
    window = QueryWindow(hole)
    source = _nearest_known(window.crop(_float32(decoder), 0), encoder, hole)
    width = ops.shape(encoder)[2]
    position = ops.stack([source // width, source % width], axis=-1)
    position = window.paste(ops.cast(position, "float32"))
    return ops.cast(ops.where(_is_filled(hole), position, -1.0), "int32")


def _nearest_known(queries, encoder, hole):
    """`(B, h, w, C)` queries -> `(B, h, w)` int32, the flat index of the best known position."""
    keys = _float32(encoder)
    energy = ops.sum(ops.square(keys), axis=-1, keepdims=True)
    # The norm of a query is the same in all its scores and decides nothing.
    keys = keys * ops.rsqrt(ops.maximum(energy, NORM_FLOOR**2))
    batch, height, width, channels = ops.shape(queries)
    key_height, key_width = ops.shape(keys)[1:3]
    positions = key_height * key_width
    flat_queries = ops.reshape(queries, (batch, height * width, channels))
    flat_keys = ops.reshape(keys, (batch, positions, channels))
    scores = ops.matmul(flat_queries, ops.transpose(flat_keys, (0, 2, 1)))  # (B, hw, HW)
    scores = scores + MASKED_PRODUCT * ops.reshape(_float32(hole), (batch, 1, positions))
    # Not `argmax`: Keras' looks at the bits of zeros, which ONNX has no operator for.
    _, best = ops.top_k(scores, k=1)
    return ops.reshape(ops.cast(best, "int32"), (batch, height, width))


def _is_filled(hole):
    """`(B, H, W, 1)` bool: missing, and the sample has something known to copy."""
    missing = hole > 0.5
    has_source = ops.any(ops.logical_not(missing), axis=(1, 2, 3), keepdims=True)
    return ops.logical_and(missing, has_source)


def _float32(values):
    return ops.cast(values, "float32")
