"""DeepFill's contextual attention: matched at a fraction of the resolution, pasted in strides."""

from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor, downsample_hole
from musical_tf.layers import strided_attention_reference, strided_matching
from musical_tf.layers.attention_layer import (
    AttentionLayer,
    check_max_scores,
    check_odd,
    check_one_of,
    check_scale,
    prepare,
)
from musical_tf.layers.attention_maps import AttentionMap
from musical_tf.layers.box_sums import box_sum
from musical_tf.layers.query_window import Region

IMPLEMENTATIONS = {"fast": strided_matching.attend, "reference": strided_attention_reference.attend}


@keras.saving.register_keras_serializable("musical_tf")
class StridedContextualAttention(AttentionLayer):
    """Fills the hole of a feature map with a blend of its known patches, found at 1 / rate of it.

    With f the features `(B, H, W, C)`, r the rate, k the patch size, and all of it per sample:

    1. `f'` = every r-th row and column of f, `(B, H/r, W/r, C)`. A position of it is missing if any
       of the r x r positions it stands for is.
    2. Candidate j is valid if its k x k patch of `f'` touches no missing position; positions
       outside the map do not count.
    3. `s_ij = <P_i, P_j> / |P_j|`, P the k x k patch of `f'`, zero-padded at the border: the
       candidate has unit norm, the query has not.
    4. `s'_ij` = sum over d in the fuse window of `s_(i+d)(j+d)`, terms outside the map dropped: a
       pass along the rows, then one along the columns.
    5. `a_ij` = softmax of `softmax_scale * s'_ij` over the valid j, 0 elsewhere.
    6. Every i pastes its blend of the 2r x 2r patches of f that start at `r j - r // 2`, zero
       outside the map, at `r i - r // 2`; what overlaps is summed and divided by 4, the number of
       patches over a position.
    7. Missing positions of f take the result, known ones keep `f` bit for bit. A sample without a
       valid candidate passes unchanged.

    Everything is float32 whatever the dtype policy.

    Args:
        rate: Int >= 1, the step of the positions that are matched.
        patch_size: Odd int >= 1, side of the patches that are compared.
        fuse_size: Odd int >= 1, side of the window of step 4; 1 switches it off.
        softmax_scale: Float > 0.
        implementation: `"fast"` (shared Gram matrix, only the hole's window of queries) or
            `"reference"` (convolutions with patches as filters, image by image; the batch must be
            known). Same values, same gradients.
        max_scores: Int >= 1 or None, the most scores one tensor may hold, see
            `ContextualAttention`.

    Call arguments:
        features: `(B, H, W, C)` float, H and W multiples of `rate`, which may be dynamic.
        hole: `(B, H, W, 1)` float, integer or bool at the resolution of the features, 1 = missing
            (above 0.5). `conventions.downsample_hole` brings a pixel hole there.

    Returns:
        `(B, H, W, C)`, the layer's compute dtype.

    Raises:
        ValueError: On an argument out of range, or shapes that disagree or do not divide.

    Example:
        >>> attention = StridedContextualAttention(rate=2)
        >>> features = keras.random.normal((2, 64, 64, 128))
        >>> hole = np.zeros((2, 64, 64, 1), "float32")
        >>> hole[:, 16:48, 16:48] = 1.0
        >>> attention(features, hole).shape
        TensorShape([2, 64, 64, 128])

    Reference:
        Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018, Section 4.
    """

    OPTIONS: ClassVar = (
        *("rate", "patch_size", "fuse_size", "softmax_scale", "implementation", "max_scores"),
    )

    def __init__(
        self,
        rate: int = 2,
        patch_size: int = 3,
        fuse_size: int = 3,
        softmax_scale: float = 10.0,
        implementation: str = "fast",
        max_scores: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(rate, int) or rate < 1:
            raise ValueError(f"rate must be an integer >= 1, got {rate!r}")
        check_odd(patch_size=patch_size, fuse_size=fuse_size)
        check_scale(softmax_scale)
        check_one_of(IMPLEMENTATIONS, implementation=implementation)
        check_max_scores(max_scores)
        self.rate = self.multiple = rate
        self.patch_size = patch_size
        self.fuse_size = fuse_size
        self.softmax_scale = softmax_scale
        self.implementation = implementation
        self.max_scores = max_scores

    def call(self, features: Tensor, hole: Tensor) -> Tensor:
        attend = IMPLEMENTATIONS[self.implementation]
        prepared = prepare(features, hole, self.rate)
        # float16 rounds the filling only; a known position casts back to the value it had.
        return ops.cast(attend(*prepared, *self._matching, self.max_scores), self.compute_dtype)

    @property
    def _matching(self) -> tuple[Any, Any, Any, Any]:
        return self.rate, self.patch_size, self.fuse_size, self.softmax_scale

    def attention_sources(self, features: Tensor, hole: Tensor) -> Tensor:
        """Which known position each missing one was filled from: the best match of step 5.

        `(B, H, W, 2)` int32, row and column in the same map. A known position, and every position
        of a sample without a valid candidate, is its own source. The color map of the paper's
        figures is `sources - position`.
        """
        return strided_matching.sources(*prepare(features, hole, self.rate), *self._matching)

    def attention_maps(
        self, features: Tensor, hole: Tensor, stride: int = 1
    ) -> dict[str, AttentionMap]:
        """Where the layer takes what it fills the hole with, as weights over the map.

        Args:
            features, hole: What the layer is called with.
            stride: Pixels of the image per position.

        Returns:
            `"3x3"`, the patch size -> `AttentionMap` of `(B, H, W)` positions. Up to four patches
            overlap at a position, so its strongest source need not be `attention_sources`, the best
            match of the patch in whose middle it lies.
        """
        features, hole = prepare(features, hole, self.rate)
        rate, size = self.rate, self.patch_size
        missing = ops.convert_to_numpy(hole)[..., 0] > 0.5
        unusable = ops.convert_to_numpy(box_sum(downsample_hole(hole, rate), size))[..., 0] > 0.5
        has_candidate = ~unusable.all(axis=(1, 2))

        def weights_of(sample, region):
            only = slice(sample, sample + 1)
            (top, bottom), (left, right) = region.rows, region.columns
            coarse = Region((top // rate, -(-bottom // rate)), (left // rate, -(-right // rate)))
            phases = strided_matching.weights(features[only], hole[only], coarse, *self._matching)
            phases = ops.convert_to_numpy(phases)[0]
            weights = np.zeros((bottom - top, right - left, *missing.shape[1:]), "float32")
            for row in range(top, bottom):
                for column in range(left, right):
                    of_position = phases[row // rate - coarse.rows[0]]
                    of_position = of_position[column // rate - coarse.columns[0]]
                    e, f = row % rate, column % rate
                    weights[row - top, column - left, e::rate, f::rate] = of_position[e, f]
            return weights

        filled = missing & has_candidate[:, None, None]
        return {f"{size}x{size}": AttentionMap(weights_of, missing, filled, stride, size * rate)}
