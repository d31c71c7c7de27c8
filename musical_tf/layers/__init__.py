"""Keras layers: contextual attention, squeeze-and-excitation and the blocks around them."""

from musical_tf.layers.attention import ContextualAttention, MultiScaleAttention
from musical_tf.layers.membrane import Membrane
from musical_tf.layers.mirror_padding import MirrorPadding2D
from musical_tf.layers.offset_copying import OffsetCopying
from musical_tf.layers.squeeze_excitation import SqueezeExcitation
from musical_tf.layers.strided_attention import StridedContextualAttention

__all__ = [
    "ContextualAttention",
    "Membrane",
    "MirrorPadding2D",
    "MultiScaleAttention",
    "OffsetCopying",
    "SqueezeExcitation",
    "StridedContextualAttention",
]
