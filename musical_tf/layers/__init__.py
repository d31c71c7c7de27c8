"""Keras layers: contextual attention, squeeze-and-excitation and the blocks around them."""

from musical_tf.layers.attention import ContextualAttention, MultiScaleAttention
from musical_tf.layers.squeeze_excitation import SqueezeExcitation

__all__ = ["ContextualAttention", "MultiScaleAttention", "SqueezeExcitation"]
