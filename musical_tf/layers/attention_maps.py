"""Which known positions an attention fills its hole from, as weights over the map.

What an attention puts into a hole position is a weighted sum of features. `attention_weights`
returns the weights of MUSICAL's attention: what is left for each position of the map after softmax,
propagation, rescaling and overlapping, so that weights times features are the filling. An
`AttentionMap` is the same for every method that has an attention, for people to read and to draw.

All rows together are hole positions times positions, so they are computed for the positions that
are asked for. Nothing here is part of a network.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_layer import prepare
from musical_tf.layers.attention_scores import as_columns
from musical_tf.layers.box_sums import box_sum, without_border
from musical_tf.layers.patch_matching import KNOWN_OFFSET, official_weights, paper_weights
from musical_tf.layers.query_window import Region

BAND_SCORES = 2**24
"""Weights of one band of rows, about, that an `AttentionMap` asks for at a time (64 MB)."""


def attention_weights(
    features: Tensor,
    hole: Tensor,
    region: Region,
    patch_size: int = 3,
    propagation_size: int = 3,
    softmax_scale: float = 10.0,
    variant: str = "paper",
) -> Tensor:
    """What `ContextualAttention` multiplies every position of the map with, to fill a rectangle.

    `sum over q of weights[b, y, x, q] * v[b, q]` is the filling of position `(y, x)`, v being
    `pasted_features`. The rows of `"paper"` sum to one, to less beside the border, where a part of
    the pasted patch falls outside the map. Positions of the hole have weight as well: a patch is
    pasted as a whole, and Eq. (2) shifts candidates next to the hole into it. `"official"` also
    pastes the padding around the map, whose value is that of a missing position; its weight is
    spread evenly over the hole.

    Memory: `(h + 2a)(w + 2a) H W` numbers a sample, for a rectangle of h x w and a halo
    a = 2 (patch_size // 2) + propagation_size // 2.

    Args:
        features, hole: What the layer is called with.
        region: Which positions, the same in all samples. They need not be missing.
        patch_size, propagation_size, softmax_scale, variant: As of `ContextualAttention`.

    Returns:
        `(B, h, w, H, W)` float32, >= 0. Meaningless in a sample without a valid candidate.

    Raises:
        ValueError: If the region is empty or reaches outside the map.
    """
    features, hole = prepare(features, hole)
    for extent, side in zip((region.rows, region.columns), features.shape[1:3], strict=True):
        if not 0 <= extent[0] < extent[1] <= side:
            raise ValueError(
                f"region: expected rows and columns inside the map {tuple(features.shape[1:3])}, "
                f"got {region}"
            )
    compute = paper_weights if variant == "paper" else _official_map_weights
    weights = compute(features, hole, region, patch_size, propagation_size, softmax_scale)
    return ops.swapaxes(weights, 3, 4)


def pasted_features(features: Tensor, hole: Tensor, variant: str = "paper") -> Tensor:
    """What the weights multiply: `(B, H, W, C)` float32.

    The features themselves; in the variant `"official"` 1 in the hole and a trace more than the
    features elsewhere, because a patch of the hole, all 1e-7, is brought to unit norm and pasted
    like any other.
    """
    features = ops.cast(ops.convert_to_tensor(features), "float32")
    if variant == "paper":
        return features
    return ops.where(ops.cast(hole, "float32") > 0.5, 1.0, features + KNOWN_OFFSET)


def _official_map_weights(features, hole, region, size, propagation_size, softmax_scale):
    """`official_weights` for `pasted_features`, the padding's weight spread over the hole."""
    radius = size // 2
    pasted = official_weights(features, hole, region, size, propagation_size, softmax_scale)
    pasted = pasted * KNOWN_OFFSET
    within = without_border(pasted, (3, 4), radius)
    # The padding has the value of a missing position, whose weight its own is added to.
    border = ops.pad(ops.ones_like(hole), [[0, 0], [radius, radius], [radius, radius], [0, 0]])
    outside = ops.sum(pasted * as_columns(1.0 - border), axis=(3, 4), keepdims=True)
    missing = as_columns(hole)
    share = missing / ops.maximum(ops.sum(missing, axis=(3, 4), keepdims=True), 1.0)
    return ops.where(missing > 0.5, within, within / KNOWN_OFFSET) + outside * share


@dataclass(frozen=True)
class Sources:
    """The strongest known sources of every filled position.

    Attributes:
        positions: `(B, H, W, K, 2)` int32, row and column, the strongest first; -1 where there is
            none.
        weights: `(B, H, W, K)` float32, shares of all the weight of the position, 0 where there is
            no source.
        known_share: `(B, H, W)` float32, how much of the weight lies on known positions; the rest
            is the filling's own features.
        spread: `(B, H, W)` float32, as how many equally strong known sources it is: the exponential
            of the entropy. 1 is a copy.
        usage: `(B, H, W)` float32, what each known position gave to the hole as a whole: its share
            of the weight, averaged over the filled positions. Sums to the average `known_share`.
    """

    positions: np.ndarray
    weights: np.ndarray
    known_share: np.ndarray
    spread: np.ndarray
    usage: np.ndarray


class AttentionMap:
    """Where one scale of an attention filled the hole from, for every position of its map.

    `generator.attention_maps([image, hole])` returns them, by the scale's name. Weights are
    computed when they are asked for.

    Args:
        weights_of: From a sample's number and a `Region` to `(h, w, H, W)`, what each position of
            the map is multiplied with.
        missing: `(B, H, W)` bool, missing positions of the map.
        filled: `(B, H, W)` bool, those of them that the attention fills.
        stride: Pixels of the image per position, along each side.
        patch_size: Side of the patches that are compared, in positions.

    Attributes:
        missing, filled, stride, patch_size: As given.
    """

    def __init__(
        self,
        weights_of: Callable[[int, Region], Tensor],
        missing: np.ndarray,
        filled: np.ndarray,
        stride: int,
        patch_size: int,
    ):
        self._weights_of = weights_of
        self.missing = missing
        self.filled = filled
        self.stride = stride
        self.patch_size = patch_size
        self._found: Sources | None = None

    def weights(self, sample: int, row: int, column: int) -> np.ndarray:
        """Everything one filled position was filled from.

        Returns:
            `(H, W)` float32 >= 0, a weight for each position of the map, missing ones too.

        Raises:
            ValueError: If the position is not filled.
        """
        batch, height, width = self.filled.shape
        there = 0 <= sample < batch and 0 <= row < height and 0 <= column < width
        if not there or not self.filled[sample, row, column]:
            raise ValueError(
                f"sample {sample}, row {row}, column {column}: expected a filled position of "
                f"{batch} maps of {height} x {width}; `filled` tells which are"
            )
        region = Region((row, row + 1), (column, column + 1))
        return self._region(sample, region)[0, 0]

    def weights_of_many(self, sample: int, positions: np.ndarray) -> np.ndarray:
        """`weights` at `(N, 2)` rows and columns of one sample: `(N, H, W)`."""
        rows, columns = np.asarray(positions, int).reshape(-1, 2).T
        result = np.zeros((len(rows), *self.filled.shape[1:]), "float32")
        for region in self._bands(sample):
            (top, bottom), (left, _) = region.rows, region.columns
            here = (rows >= top) & (rows < bottom)
            if here.any():
                result[here] = self._region(sample, region)[rows[here] - top, columns[here] - left]
        return result

    @property
    def sources(self) -> np.ndarray:
        """`(B, H, W, 2)` int32, the strongest known source of each position; -1 where not filled.

        What the color map of Yu et al. shows is `sources - position`.
        """
        return self.strongest(1).positions[..., 0, :]

    def strongest(self, count: int) -> Sources:
        """The `count` strongest known sources of every filled position; kept for the next call.

        Raises `ValueError` if `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"count must be >= 1, got {count}")
        count = min(count, self.filled[0].size)
        if self._found is None or self._found.weights.shape[-1] < count:
            self._found = self._find(count)
        found = self._found
        return replace(
            found, positions=found.positions[..., :count, :], weights=found.weights[..., :count]
        )

    def _find(self, count):
        batch, height, width = shape = self.filled.shape
        positions = np.full((*shape, count, 2), -1, "int32")
        weights = np.zeros((*shape, count), "float32")
        known_share, spread, usage = (np.zeros(shape, "float32") for _ in range(3))
        for sample in range(batch):
            known = ~self.missing[sample].reshape(-1)
            for region in self._bands(sample):
                chosen = self.filled[sample][region.rows[0] : region.rows[1]]
                chosen = chosen[:, region.columns[0] : region.columns[1]]
                rows, columns = np.nonzero(chosen)
                found = self._region(sample, region)[rows, columns]
                found = found.reshape(len(rows), height * width)
                shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1e-30) * known
                order = np.argsort(-shares, axis=1, kind="stable")[:, :count]
                taken = np.take_along_axis(shares, order, axis=1)
                there = np.stack([order // width, order % width], axis=-1)
                there[taken == 0] = -1
                at = (sample, rows + region.rows[0], columns + region.columns[0])
                positions[at], weights[at] = there, taken
                usage[sample] += shares.sum(axis=0).reshape(height, width)
                known_share[at] = total = shares.sum(axis=1)
                relative = shares / np.maximum(total, 1e-30)[:, None]
                logarithm = np.log(np.where(relative > 0, relative, 1.0))
                spread[at] = np.exp(-(relative * logarithm).sum(axis=1))
        usage /= np.maximum(self.filled.sum(axis=(1, 2)), 1)[:, None, None]
        return Sources(positions, weights, known_share, spread, usage)

    def _region(self, sample, region):
        return np.asarray(ops.convert_to_numpy(self._weights_of(sample, region)), "float32")

    def _bands(self, sample):
        """Rectangles of some rows that together hold what a sample has filled."""
        rows, columns = (np.flatnonzero(self.filled[sample].any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return
        left, right = int(columns[0]), int(columns[-1]) + 1
        _, height, width = self.filled.shape
        at_once = max(1, BAND_SCORES // ((right - left) * height * width))
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        for first in range(top, bottom, at_once):
            yield Region((first, min(first + at_once, bottom)), (left, right))


def map_of_patches(
    features: Tensor,
    hole: Tensor,
    stride: int,
    patch_size: int,
    propagation_size: int,
    softmax_scale: float,
    variant: str,
) -> AttentionMap:
    """The map of a `ContextualAttention`; `stride` is in pixels of the image per position."""
    features, hole = prepare(features, hole)
    missing = ops.convert_to_numpy(hole)[..., 0] > 0.5
    usable = ops.convert_to_numpy(box_sum(hole, patch_size))[..., 0] < 0.5
    has_candidate = usable.any(axis=(1, 2)) if variant == "paper" else np.ones(len(missing), bool)

    def weights_of(sample, region):
        only = slice(sample, sample + 1)
        options = (patch_size, propagation_size, softmax_scale, variant)
        return attention_weights(features[only], hole[only], region, *options)[0]

    filled = missing & has_candidate[:, None, None]
    return AttentionMap(weights_of, missing, filled, stride, patch_size)


def map_of_rows(
    rows_of: Callable[[int], np.ndarray], missing: np.ndarray, stride: int, patch_size: int
) -> AttentionMap:
    """The map of an attention whose weights are known for a sample as a whole.

    Args:
        rows_of: From a sample's number to `(N, H, W)`, the weights of its N missing positions in
            raster order.
        missing: `(B, H, W)` bool. A sample without a known position is not filled.
        stride, patch_size: As of `AttentionMap`.
    """
    filled = missing & ~missing.all(axis=(1, 2), keepdims=True)
    kept: dict[int, np.ndarray] = {}

    def weights_of(sample, region):
        if sample not in kept:
            kept.clear()  # samples come one after the other
            kept[sample] = rows_of(sample)
        inside = (slice(*region.rows), slice(*region.columns))
        rank = np.cumsum(missing[sample]).reshape(missing[sample].shape) - 1
        weights = kept[sample][np.maximum(rank[inside], 0)]
        return weights * missing[sample][inside][..., None, None]

    return AttentionMap(weights_of, missing, filled, stride, patch_size)
