"""Coherent semantic attention: a hole filled position by position, each coherent with the last."""

from typing import ClassVar

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.attention_layer import AttentionLayer, check_max_scores, prepare
from musical_tf.layers.attention_maps import AttentionMap, map_of_rows

NORM_FLOOR = 1e-4
"""Features shorter than this are divided by it instead of by their norm: a zero vector is similar
to nothing, not NaN."""

SIMILARITY_FLOOR = 1e-4
"""What a position's similarity to its best match counts at least, so that one that is similar to
nothing takes its best match, and the weights have a sum to be divided by."""

STEPS_AT_ONCE = 8
"""Positions that one turn of the scan's loop computes: a turn costs as much as some of them."""

MISSING_SCORE = -1e20
"""Added to the score of a missing position, so that it is nobody's best match."""


@keras.saving.register_keras_serializable("musical_tf")
class CoherentSemanticAttention(AttentionLayer):
    """Fills the hole of a feature map in raster order, from known features and the position before.

    With f the features `(B, H, W, C)`, for each sample by itself, i = 1, 2, ... its hole positions
    row by row, and `cos` the cosine, negative ones counting 0:

    1. Search: `best_i` = the known f_j of the largest `cos(f_i, f_j)`, and `D_max_i` that cosine,
       `SIMILARITY_FLOOR` at least.
    2. Generate: `out_1 = best_1`, and then
       `out_i = (D_ad_i out_(i-1) + D_max_i best_i) / (D_ad_i + D_max_i)`
       with `D_ad_i = cos(f_i, out_(i-1))`, the similarity to what was generated last.
    3. Hole positions take `out_i`, known ones keep `f_i` bit for bit. A sample without a known
       position passes unchanged.

    Step 1 is one matrix product for all positions. Step 2 is sequential, because D_ad depends on
    the output before: it is a scan that does nothing but its two inner products and the blend, for
    the whole batch at once, as many times as the longest hole of the batch has positions. The
    scan's gradient is a second scan, linear, the other way round; that through the choice of the
    best match is zero, as for every maximum.

    Everything is float32 whatever the dtype policy.

    Args:
        max_scores: Int >= 1, the most scores of step 1 that one tensor may hold (4 bytes each), or
            None. They are hole positions x positions, of the whole batch; with a bound they are
            made for some of the hole positions at a time.

    Call arguments:
        features: `(B, H, W, C)` float, any H, W >= 1, which may be dynamic.
        hole: `(B, H, W, 1)` float, integer or bool at the resolution of the features, 1 = missing
            (above 0.5). `conventions.downsample_hole` brings a pixel hole there.

    Returns:
        `(B, H, W, C)`, the layer's compute dtype.

    Raises:
        ValueError: On shapes that disagree, or `max_scores` below 1.

    Example:
        >>> attention = CoherentSemanticAttention()
        >>> features = keras.random.normal((2, 32, 32, 512))
        >>> hole = np.zeros((2, 32, 32, 1), "float32")
        >>> hole[:, 8:24, 8:24] = 1.0
        >>> attention(features, hole).shape
        TensorShape([2, 32, 32, 512])

    Reference:
        Liu, Jiang, Xiao, Yang, "Coherent Semantic Attention for Image Inpainting", ICCV 2019.
    """

    OPTIONS: ClassVar = ("max_scores",)

    def __init__(self, max_scores: int | None = None, **kwargs):
        super().__init__(**kwargs)
        check_max_scores(max_scores)
        self.max_scores = max_scores

    def call(self, features: Tensor, hole: Tensor) -> Tensor:
        walk = _RasterWalk(features, hole)
        best, similarity = walk.search(self.max_scores)
        filled = _generate(_unit(walk.queries), best, similarity)
        return ops.cast(walk.paste(filled), self.compute_dtype)


def attention_sources(features: Tensor, hole: Tensor, max_scores: int | None = None) -> Tensor:
    """Where the best match of every hole position lies; arguments as of the layer.

    `(B, H, W, 2)` int32, row and column of the known position; -1 at known positions and where a
    sample has none. Raises `ValueError` on shapes that disagree.
    """
    walk = _RasterWalk(features, hole)
    matches = ops.expand_dims(walk.best_matches(max_scores), -1)  # (B, L, 1)
    sources = ops.concatenate([matches // walk.width, matches % walk.width], axis=-1)
    nothing = ops.full((walk.batch, walk.height, walk.width, 2), -1, dtype="int32")
    return walk.replace(ops.cast(sources, "int32"), nothing)


def attention_maps(
    features: Tensor, hole: Tensor, stride: int = 1, max_scores: int | None = None
) -> dict[str, AttentionMap]:
    """What each output is made of: a blend of its own best match and of all those before it.

    Args:
        features, hole, max_scores: As of `CoherentSemanticAttention`.
        stride: Pixels of the image per position.

    Returns:
        `"1x1"` -> `AttentionMap`, whose weights times the known features are the layer's output.

    Raises:
        ValueError: On shapes that disagree.
    """
    walk = _RasterWalk(features, hole)
    best, similarity = walk.search(max_scores)
    unit_queries = _unit(walk.queries)
    generated = _generate(unit_queries, best, similarity)
    before = ops.pad(generated[:, :-1], [[0, 0], [1, 0], [0, 0]])
    coherence = ops.relu(ops.sum(unit_queries * _unit(before), axis=-1, keepdims=True))
    on_before = ops.convert_to_numpy(coherence / (coherence + similarity))[..., 0]  # (B, L)
    matches = ops.convert_to_numpy(walk.best_matches(max_scores))
    missing = ops.convert_to_numpy(walk.hole)[..., 0] > 0.5

    def rows_of(sample):
        count = int(missing[sample].sum())
        rows = np.zeros((count, walk.positions), "float32")
        for step in range(count):
            weight = on_before[sample, step]
            if step:
                rows[step] = weight * rows[step - 1]
            rows[step, matches[sample, step]] += 1.0 - weight
        return rows.reshape(count, *missing.shape[1:])

    return {"1x1": map_of_rows(rows_of, missing, stride, patch_size=1)}


class _RasterWalk:
    """The hole positions of every sample, row by row, padded to as many as the longest hole has.

    What follows a sample's own positions is computed and never used.

    Attributes:
        queries: `(B, L, C)` float32, the features at the hole positions.
    """

    def __init__(self, features, hole):
        self.features, self.hole = features, hole = prepare(features, hole)
        self.batch, self.height, self.width, self.channels = ops.shape(features)
        self.positions = self.height * self.width
        missing = ops.cast(ops.reshape(hole, (self.batch, self.positions)), "int32")
        counts = ops.sum(missing, axis=1)
        self.missing = ops.cast(missing, "float32")
        self.has_known = ops.reshape(counts < self.positions, (self.batch, 1, 1, 1))
        # Shapes must be known before the data is on any backend but TensorFlow.
        is_tensorflow = keras.backend.backend() == "tensorflow"
        self.length = ops.maximum(ops.max(counts), 1) if is_tensorflow else self.positions
        index = ops.arange(self.positions)
        # Whole numbers, exact in float32 below 2**24 positions, and all different.
        precedence = ops.cast(missing * self.positions - index, "float32")
        self.order = ops.top_k(precedence, self.length)[1]  # (B, L), position of the l-th
        self.rank = ops.maximum(ops.cumsum(missing, axis=1) - 1, 0)  # (B, HW), the inverse
        self.flat = ops.reshape(features, (self.batch, self.positions, self.channels))
        self.queries = _take_rows(self.flat, self.order)

    def best_matches(self, max_scores=None):
        """The known position that is most similar to each hole position, `(B, L)` int32."""
        # The length of the query does not change its order of preference.
        queries = ops.concatenate([self.queries, ops.ones_like(self.queries[..., :1])], axis=-1)
        mark = ops.expand_dims(MISSING_SCORE * self.missing, -1)
        keys = ops.transpose(ops.concatenate([_unit(self.flat), mark], axis=-1), (0, 2, 1))

        def match(queries):
            scores = ops.matmul(queries, keys)  # (B, L, HW)
            # Not argmax, which in Keras is four more passes over the scores.
            return ops.top_k(scores, 1)[1][..., 0]

        queries, keys = ops.stop_gradient(queries), ops.stop_gradient(keys)
        if max_scores is None:
            return match(queries)
        most = ops.maximum(max_scores // (self.batch * self.positions), 1)
        parts = (self.length + most - 1) // most
        size = (self.length + parts - 1) // parts
        queries = ops.pad(queries, [[0, 0], [0, parts * size - self.length], [0, 0]])
        queries = ops.reshape(queries, (self.batch, parts, size, self.channels + 1))
        matches = ops.map(match, ops.transpose(queries, (1, 0, 2, 3)))  # (parts, B, size)
        matches = ops.reshape(ops.transpose(matches, (1, 0, 2)), (self.batch, parts * size))
        return matches[:, : self.length]

    def search(self, max_scores=None):
        """Step 1: the best known features `(B, L, C)` and D_max, their cosine, `(B, L, 1)`."""
        best = _take_rows(self.flat, self.best_matches(max_scores))
        cosine = ops.sum(_unit(self.queries) * _unit(best), axis=-1, keepdims=True)
        return best, ops.maximum(cosine, SIMILARITY_FLOOR)

    def paste(self, filled):
        """Step 3: `(B, L, C)` in the place of the hole's features."""
        return self.replace(filled, self.features)

    def replace(self, of_walk, maps):
        """`(B, L, D)` in the hole of `(B, H, W, D)`, where the sample has a known position."""
        pasted = ops.reshape(_take_rows(of_walk, self.rank), ops.shape(maps))
        return ops.where(ops.logical_and(self.hole > 0.5, self.has_known), pasted, maps)


def _generate(unit_queries, best, similarity):
    """Step 2 for `(B, L, C)` unit queries, best matches, and `(B, L, 1)` D_max: `(B, L, C)`."""

    @ops.custom_gradient
    def generate(unit_queries, best, similarity):
        steps = ops.concatenate([unit_queries, best, similarity], axis=-1)
        generated = ops.stop_gradient(_scan(_blend, steps, best.shape[-1]))

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            return _generate_gradient(unit_queries, best, similarity, generated, upstream)

        return generated, gradient

    return generate(unit_queries, best, similarity)


def _blend(step, before):
    """One position: its unit query, best match and D_max, and the output before it."""
    channels = before.shape[-1]
    unit_query, best, similarity = ops.split(step, [channels, 2 * channels], axis=-1)
    inner = ops.sum(unit_query * before, axis=-1, keepdims=True)
    coherence = ops.relu(inner * _inverse_norm(before))  # D_ad
    weight = coherence / (coherence + similarity)
    blend = best + weight * (before - best)
    return blend, blend


def _generate_gradient(unit_queries, best, similarity, generated, upstream):
    """What `upstream`, on all outputs, is on the three inputs of `_generate`.

    All steps' derivatives follow from the outputs, so they are computed at once; only the gradient
    on an output before, `w grad + <grad, before - best> dw/dbefore`, needs the one after.
    """
    before = ops.pad(generated[:, :-1], [[0, 0], [1, 0], [0, 0]])
    inverse_norm = _inverse_norm(before)
    cosine = ops.sum(unit_queries * before, axis=-1, keepdims=True) * inverse_norm
    coherence = ops.relu(cosine)
    total = coherence + similarity
    weight = coherence / total
    by_coherence = (1.0 - weight) / total * ops.cast(cosine > 0, "float32")  # dw/dD_ad
    by_similarity = -weight / total  # dw/dD_max
    is_long = ops.cast(inverse_norm < 1.0 / NORM_FLOOR, "float32")
    by_before = unit_queries - is_long * cosine * inverse_norm * before
    by_before = by_coherence * inverse_norm * by_before
    difference = before - best

    steps = ops.concatenate([upstream, difference, by_before, weight], axis=-1)
    gradients = _scan(_blend_gradient, ops.flip(steps, axis=1), best.shape[-1])
    gradients = ops.flip(gradients, axis=1)  # (B, L, C), on every output, by every later one too
    on_weight = ops.sum(gradients * difference, axis=-1, keepdims=True)
    return (
        on_weight * by_coherence * inverse_norm * before,
        (1.0 - weight) * gradients,
        on_weight * by_similarity,
    )


def _blend_gradient(step, after):
    """The gradient on one output, and what it adds to that on the output before."""
    channels = after.shape[-1]
    cuts = [channels, 2 * channels, 3 * channels]
    upstream, difference, by_before, weight = ops.split(step, cuts, axis=-1)
    gradient = upstream + after
    on_weight = ops.sum(gradient * difference, axis=-1, keepdims=True)
    return gradient, weight * gradient + on_weight * by_before


def _scan(step, sequence, channels):
    """Runs `step(element (B, D), carry (B, C)) -> output, carry` along `(B, L, D)`: `(B, L, C)`.

    By a Keras RNN, whose loop every backend and the ONNX converter know. The carry starts at 0.
    What the last turn computes beyond L is cut off.
    """

    class Cell:
        """Some elements at once, side by side, and so their outputs."""

        state_size = channels
        output_size = STEPS_AT_ONCE * channels
        compute_dtype = "float32"

        def call(self, elements, states):
            outputs, (carry,) = [], states
            for element in ops.split(elements, STEPS_AT_ONCE, axis=-1):
                output, carry = step(element, carry)
                outputs.append(output)
            return ops.concatenate(outputs, axis=-1), [carry]

        __call__ = call

    batch, length, width = ops.shape(sequence)
    turns = (length + STEPS_AT_ONCE - 1) // STEPS_AT_ONCE
    more = [[0, 0], [0, turns * STEPS_AT_ONCE - length], [0, 0]]
    padded = ops.pad(sequence, more, constant_values=1.0)  # 0 / 0 would be NaN, if nobody's
    elements = ops.reshape(padded, (batch, turns, STEPS_AT_ONCE * width))
    outputs = keras.layers.RNN(Cell(), return_sequences=True, dtype="float32")(elements)
    return ops.reshape(outputs, (batch, turns * STEPS_AT_ONCE, channels))[:, :length]


def _take_rows(maps, rows):
    """`(B, N, C)` at `(B, L)` positions of the same sample: `(B, L, C)`."""
    batch, positions, channels = ops.shape(maps)
    first = ops.expand_dims(ops.arange(batch) * positions, -1)
    return ops.take(ops.reshape(maps, (batch * positions, channels)), rows + first, axis=0)


def _inverse_norm(vectors):
    # The root is taken of the floored square: the gradient of sqrt at 0 is infinite.
    square = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return ops.rsqrt(ops.maximum(square, NORM_FLOOR**2))


def _unit(vectors):
    return vectors * _inverse_norm(vectors)
