"""Contextual attention over known patches, at one patch size and at several (Section 3.2)."""

from collections.abc import Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers import attention_reference, patch_matching
from musical_tf.layers.attention_layer import (
    AttentionLayer,
    check_max_scores,
    check_odd,
    check_one_of,
    check_scale,
    check_shapes,
    prepare,
)
from musical_tf.layers.attention_maps import AttentionMap, map_of_patches
from musical_tf.layers.squeeze_excitation import SqueezeExcitation

IMPLEMENTATIONS = {"fast": patch_matching.attend, "reference": attention_reference.attend}
VARIANTS = ("paper", "official")

_OPTIONS = ("propagation_size", "softmax_scale", "implementation", "variant", "max_scores")


@keras.saving.register_keras_serializable("musical_tf")
class ContextualAttention(AttentionLayer):
    """Fills the hole of a feature map with a blend of its known patches.

    With f the features `(B, H, W, C)`, P_i the k x k patch around position i (zero-padded at the
    border), and all of it per sample, `variant="paper"` computes:

    1. Candidate j is valid if its patch touches no hole position; positions outside the map do not
       count.
    2. `s_ij = softmax_scale * <P_i, P_j> / (|P_i| |P_j|)`, Eq. (1); `(B, H, W, H, W)`.
    3. `s*_ij` = softmax over the valid j, 0 elsewhere.
    4. `s'_ij` = sum over d in the propagation window of `s*_(i+d)(j+d)`, Eq. (2), terms outside the
       map dropped; then each row is rescaled to sum to one.
    5. `out_i` = mean over d in the k x k window, i - d inside the map, of
       `sum_j s'_(i-d)j f_(j+d)`: every query pastes its blend of patches and overlaps are averaged
       ("deconvolution").
    6. Hole positions take `out_i`, known ones keep `f_i` bit for bit. A sample without a valid
       candidate passes unchanged.

    `variant="official"` follows the authors' code instead: all patches of `f * (1 - hole)` are
    candidates, zero-padded first and then 1e-7 more everywhere, the padding included. Queries are
    not normalized, the propagation window sums the scores over query positions *before* the
    softmax, and the unit-norm patches are pasted, divided by k^2.

    Scores, softmax and sums of products are float32 whatever the dtype policy. A policy that
    computes in bfloat16 rounds the attention after the softmax, which halves the traffic of the
    sums after it; the rounding of the result is about as large.

    Args:
        patch_size: Odd int >= 1, side k of a patch in positions.
        propagation_size: Odd int >= 1, side of the window of Eq. (2); 1 switches propagation off.
        softmax_scale: Float > 0. The paper takes its scores from Yu et al., who use 10.
        implementation: `"fast"` (shared Gram matrix, only the hole's window of queries) or
            `"reference"` (`tf.image.extract_patches`, step by step; TensorFlow only). Same values,
            same gradients.
        variant: `"paper"` or `"official"`.
        max_scores: Int >= 1, the most scores one tensor may hold (4 bytes each), or None. The
            memory of the fast form grows with the hole's bounding box times the map; with a bound
            it processes the hole in bands of rows, and computes each band again for the gradient.

    Call arguments:
        features: `(B, H, W, C)` float, any H, W >= 1, which may be dynamic.
        hole: `(B, H, W, 1)` float, integer or bool at the resolution of the features, 1 = missing
            (above 0.5). `conventions.downsample_hole` brings a pixel hole there.

    Returns:
        `(B, H, W, C)`, the layer's compute dtype.

    Raises:
        ValueError: On an even or non-positive size, an unknown implementation or variant, or shapes
            that disagree.

    Example:
        >>> attention = ContextualAttention(patch_size=3)
        >>> features = keras.random.normal((2, 32, 32, 64))
        >>> hole = np.zeros((2, 32, 32, 1), "float32")
        >>> hole[:, 8:24, 8:24] = 1.0
        >>> attention(features, hole).shape
        TensorShape([2, 32, 32, 64])

    Reference:
        Wang et al., "MUSICAL: Multi-Scale Image Contextual Attention Learning for Inpainting",
        IJCAI 2019, Section 3.2; Yu et al., "Generative Image Inpainting with Contextual Attention",
        CVPR 2018.
    """

    OPTIONS: ClassVar = ("patch_size", *_OPTIONS)

    def __init__(
        self,
        patch_size: int = 3,
        propagation_size: int = 3,
        softmax_scale: float = 10.0,
        implementation: str = "fast",
        variant: str = "paper",
        max_scores: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _set_options(self, propagation_size, softmax_scale, implementation, variant, max_scores)
        check_odd(patch_size=patch_size)
        self.patch_size = patch_size

    def call(self, features: Tensor, hole: Tensor) -> Tensor:
        (attended,) = _attend(self, features, hole, (self.patch_size,))
        return attended


@keras.saving.register_keras_serializable("musical_tf")
class MultiScaleAttention(AttentionLayer):
    """The multi-scale attention module of Figure 2: attend at several patch sizes, reweight, merge.

    1. `ContextualAttention` at every patch size, all on one Gram matrix: n maps `(B, H, W, C)`.
    2. Concatenate `<f, att_1, ..., att_n>`: `(B, H, W, (n + 1) C)`.
    3. Squeeze-and-excitation reweights the channels, image by image.
    4. 1 x 1 convolution back to `(B, H, W, C)`, Eq. (3).

    `variant="official"` leaves f out of steps 2 and 3, whose SE has ratio 1, then concatenates the
    result with f and merges by a 3 x 3 convolution.

    Args:
        patch_sizes: Odd ints, one attended map each.
        propagation_size, softmax_scale, implementation, variant, max_scores: See
            `ContextualAttention`.
        squeeze_ratio: Int >= 1, reduction of the SE bottleneck; None takes the variant's own, 16
            (Hu et al.) for `"paper"`, 1 for `"official"`; 0 leaves the SE out.
        kernel_initializer: Keras initializer of the convolutions.

    Call arguments:
        features: `(B, H, W, C)` float.
        hole: `(B, H, W, 1)` float at the resolution of the features, 1 = missing.

    Returns:
        `(B, H, W, C)`, the layer's compute dtype.

    Raises:
        ValueError: As `ContextualAttention`, and on empty `patch_sizes`.

    Example:
        >>> features = keras.Input((None, None, 128))
        >>> hole = keras.Input((None, None, 1))
        >>> merged = MultiScaleAttention(patch_sizes=(1, 3))(features, hole)

    Reference:
        Wang et al., IJCAI 2019, Section 3.2, Figure 2, Eq. (1)-(3).
    """

    OPTIONS: ClassVar = ("patch_sizes", *_OPTIONS, "squeeze_ratio")

    def __init__(
        self,
        patch_sizes: Sequence[int] = (1, 3),
        propagation_size: int = 3,
        softmax_scale: float = 10.0,
        implementation: str = "fast",
        variant: str = "paper",
        squeeze_ratio: int | None = None,
        kernel_initializer="glorot_uniform",
        max_scores: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _set_options(self, propagation_size, softmax_scale, implementation, variant, max_scores)
        self.patch_sizes = tuple(patch_sizes)
        if not self.patch_sizes:
            raise ValueError("patch_sizes must name at least one patch size, got ()")
        for size in self.patch_sizes:
            check_odd(patch_size=size)
        self.squeeze_ratio = squeeze_ratio
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, features_shape, hole_shape):
        super().build(features_shape, hole_shape)
        channels = features_shape[-1]
        attended_channels = channels * len(self.patch_sizes)
        is_paper = self.variant == "paper"
        squeezed_channels = attended_channels + (channels if is_paper else 0)
        ratio = self.squeeze_ratio
        if ratio is None:
            ratio = 16 if is_paper else 1
        self.squeeze = None
        if ratio:
            self.squeeze = SqueezeExcitation(ratio, dtype=self.dtype_policy, name="squeeze")
            self.squeeze.build((*features_shape[:-1], squeezed_channels))
        self.reduce = self._convolution(channels, 1, "reduce")
        self.reduce.build((*features_shape[:-1], squeezed_channels))
        self.merge = None
        if not is_paper:
            self.merge = self._convolution(channels, 3, "merge")
            self.merge.build((*features_shape[:-1], 2 * channels))

    def _convolution(self, filters, size, name):
        return keras.layers.Conv2D(
            filters,
            size,
            padding="same",
            kernel_initializer=keras.initializers.get(self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def start_as_identity(self) -> None:
        """Sets the merge so that the layer gives out what comes in, for a network trained without.

        Exactly so for `"official"` and without squeeze-and-excitation; with it about, because the
        weight of a channel is near one half at first and the merge makes up for one half.
        """
        # Where f stands in the concatenation: first for the paper's merge, last for the authors'.
        if self.merge is None:
            last, own = self.reduce, np.s_[: self.reduce.filters]
            gain = 1.0 if self.squeeze is None else 2.0
        else:
            last, own, gain = self.merge, np.s_[-self.merge.filters :], 1.0
        kernel = np.zeros(last.kernel.shape, "float32")
        channels = kernel.shape[-1]
        middle = kernel.shape[0] // 2
        kernel[middle, middle, own] = gain * np.eye(channels)
        last.kernel.assign(kernel)
        last.bias.assign(np.zeros(channels, "float32"))

    def attend(self, features: Tensor, hole: Tensor) -> list[Tensor]:
        """The attended maps before the merge: one `(B, H, W, C)` tensor for each patch size."""
        return _attend(self, features, hole, self.patch_sizes)

    def attention_maps(
        self, features: Tensor, hole: Tensor, stride: int = 1
    ) -> dict[str, AttentionMap]:
        """Where `attend` takes what it fills the hole with, per scale, for drawings.

        Args:
            features, hole: What the layer is called with.
            stride: Pixels of the image per position.

        Returns:
            `"1x1"`, `"3x3"`, ... by patch size -> `AttentionMap`: `weights` of a position times the
            features are its attended features, see `attention_weights`.
        """
        check_shapes(features.shape, hole.shape)
        options = (self.propagation_size, self.softmax_scale, self.variant)
        return {
            f"{size}x{size}": map_of_patches(features, hole, stride, size, *options)
            for size in self.patch_sizes
        }

    def call(self, features: Tensor, hole: Tensor) -> Tensor:
        attended = self.attend(features, hole)
        if self.merge is not None:
            merged = self.reduce(self._reweight(ops.concatenate(attended, axis=-1)))
            return self.merge(ops.concatenate([merged, features], axis=-1))
        return self.reduce(self._reweight(ops.concatenate([features, *attended], axis=-1)))

    def _reweight(self, features):
        return features if self.squeeze is None else self.squeeze(features)

    def get_config(self) -> dict:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "kernel_initializer": initializer}


def _attend(layer, features, hole, patch_sizes):
    attended = IMPLEMENTATIONS[layer.implementation](
        *prepare(features, hole),
        patch_sizes,
        layer.propagation_size,
        layer.softmax_scale,
        layer.variant,
        layer.max_scores,
        "bfloat16" if layer.compute_dtype == "bfloat16" else "float32",
    )
    # float16 rounds the filling only; a known position casts back to the value it had.
    return [ops.cast(each, layer.compute_dtype) for each in attended]


def _set_options(layer, propagation_size, softmax_scale, implementation, variant, max_scores):
    check_odd(propagation_size=propagation_size)
    check_scale(softmax_scale)
    check_one_of(IMPLEMENTATIONS, implementation=implementation)
    check_one_of(VARIANTS, variant=variant)
    check_max_scores(max_scores)
    layer.propagation_size = propagation_size
    layer.softmax_scale = softmax_scale
    layer.implementation = implementation
    layer.variant = variant
    layer.max_scores = max_scores
