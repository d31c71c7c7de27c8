"""The attention against a plain NumPy loop, fast against reference, and the layer's contract."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from musical_tf.layers import ContextualAttention, MultiScaleAttention, SqueezeExcitation
from musical_tf.layers.box_sums import box_sums_by_convolutions, diagonal_box_sum


def attend_in_loops(features, hole, patch_size, propagation_size, scale):
    """The six steps of `ContextualAttention` for one image, one position at a time, in float64."""
    height, width, channels = features.shape
    radius, reach = patch_size // 2, propagation_size // 2
    positions = [(y, x) for y in range(height) for x in range(width)]

    def window(half):
        return [(dy, dx) for dy in range(-half, half + 1) for dx in range(-half, half + 1)]

    def inside(y, x):
        return 0 <= y < height and 0 <= x < width

    def patch(y, x):
        return np.concatenate(
            [
                features[y + dy, x + dx] if inside(y + dy, x + dx) else np.zeros(channels)
                for dy, dx in window(radius)
            ]
        )

    valid = {
        (y, x): not any(
            inside(y + dy, x + dx) and hole[y + dy, x + dx] for dy, dx in window(radius)
        )
        for y, x in positions
    }
    if not any(valid.values()):
        return features.copy()
    patches = {p: patch(*p) for p in positions}
    attention = {}
    for i in positions:
        scores = {
            j: scale
            * patches[i].dot(patches[j])
            / (np.linalg.norm(patches[i]) * np.linalg.norm(patches[j]))
            for j in positions
            if valid[j]
        }
        largest = max(scores.values())
        exponentials = {j: np.exp(score - largest) for j, score in scores.items()}
        total = sum(exponentials.values())
        attention[i] = {j: value / total for j, value in exponentials.items()}
    propagated = {}
    for y, x in positions:
        row = {}
        for cy, cx in positions:
            row[cy, cx] = sum(
                attention[y + dy, x + dx].get((cy + dy, cx + dx), 0.0)
                for dy, dx in window(reach)
                if inside(y + dy, x + dx) and inside(cy + dy, cx + dx)
            )
        total = sum(row.values())
        propagated[y, x] = {j: value / total for j, value in row.items()}
    result = features.copy()
    for y, x in positions:
        if not hole[y, x]:
            continue
        pasted, count = np.zeros(channels), 0
        for dy, dx in window(radius):
            if not inside(y - dy, x - dx):
                continue
            count += 1
            for (cy, cx), weight in propagated[y - dy, x - dx].items():
                if inside(cy + dy, cx + dx):
                    pasted += weight * features[cy + dy, cx + dx]
        result[y, x] = pasted / count
    return result


def attend_as_the_authors(features, hole, patch_size, propagation_size, scale):
    """The order of the authors' code for one image, in float64: pad with zeros, then add 1e-7."""
    height, width, channels = features.shape
    radius, reach = patch_size // 2, propagation_size // 2

    def patches_of(padded):
        return np.stack(
            [
                padded[y : y + patch_size, x : x + patch_size].ravel()
                for y in range(height)
                for x in range(width)
            ]
        )

    def pad(maps, border):
        return np.pad(maps, [(border, border)] * 2 + [(0, 0)])

    candidates = patches_of(pad(features * (1 - hole), radius) + 1e-7)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    scores = patches_of(pad(features, radius)) @ candidates.T
    scores = pad(scores.reshape(height, width, -1), reach)
    scores = sum(
        scores[y : y + height, x : x + width]
        for y in range(propagation_size)
        for x in range(propagation_size)
    )
    exponentials = np.exp(scale * (scores - scores.max(axis=-1, keepdims=True)))
    attention = exponentials / exponentials.sum(axis=-1, keepdims=True)
    pasted = pad(np.zeros((height, width, channels)), radius)
    for y in range(height):
        for x in range(width):
            patch = (attention[y, x] @ candidates).reshape(patch_size, patch_size, channels)
            pasted[y : y + patch_size, x : x + patch_size] += patch
    pasted = pasted[radius : radius + height, radius : radius + width] / patch_size**2
    return np.where(hole > 0.5, pasted, features)


def random_features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def holes(batch, height, width):
    """One kind of hole per sample: two at once, at the border, a single pixel, in a corner."""
    hole = np.zeros((batch, height, width, 1), "float32")
    for sample in range(batch):
        kind = sample % 4
        if kind == 0:
            hole[sample, 1:3, 1:4] = 1
            hole[sample, height - 2, width - 3 :] = 1
        elif kind == 1:
            hole[sample, :2] = 1
        elif kind == 2:
            hole[sample, height // 2, width // 2] = 1
        else:
            hole[sample, -2:, -2:] = 1
    return hole


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize(("patch_size", "propagation_size"), [(1, 3), (3, 3), (3, 1), (5, 3)])
def test_equals_the_plain_loop(implementation, patch_size, propagation_size):
    features, hole = random_features(4, 6, 7, 3), holes(4, 6, 7)
    layer = ContextualAttention(patch_size, propagation_size, 10.0, implementation)
    expected = [
        attend_in_loops(f.astype("float64"), h[..., 0], patch_size, propagation_size, 10.0)
        for f, h in zip(features, hole, strict=True)
    ]
    np.testing.assert_allclose(layer(features, hole), expected, atol=1e-5)


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_official_adds_its_offset_to_the_padding_too(implementation, patch_size):
    """A candidate in a hole at the border points elsewhere if the padding stays zero."""
    features = random_features(1, 16, 16, 16)
    hole = np.zeros((1, 16, 16, 1), "float32")
    hole[:, :, :8] = 1
    expected = attend_as_the_authors(
        features[0].astype("float64"), hole[0].astype("float64"), patch_size, 3, 0.25
    )
    layer = MultiScaleAttention(
        (patch_size, 5), 3, 0.25, implementation=implementation, variant="official"
    )
    np.testing.assert_allclose(layer.attend(features, hole)[0][0], expected, atol=2e-5)


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_official_is_the_authors_order_for_holes_everywhere(implementation):
    features, hole = random_features(5, 6, 9, 3), holes(5, 6, 9)
    hole[4] = 1
    layer = ContextualAttention(3, 3, 1.0, implementation, "official")
    expected = [
        attend_as_the_authors(f.astype("float64"), h.astype("float64"), 3, 3, 1.0)
        for f, h in zip(features, hole, strict=True)
    ]
    np.testing.assert_allclose(layer(features, hole), expected, atol=2e-5)


def value_and_gradient(layer, features, hole):
    """See `tensors`, as NumPy arrays."""
    return [tensor.numpy() for tensor in tensors(layer, features, hole)]


def tensors(layer, features, hole):
    """The layer's value, and the gradient of a sum that weighs every element differently."""
    features = tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = layer(features, hole)
        weights = tf.sin(tf.range(tf.size(value), dtype=tf.float32))
        loss = tf.reduce_sum(tf.reshape(weights, tf.shape(value)) * value)
    return value, tape.gradient(loss, features)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_fast_and_reference_agree(variant, patch_size):
    features, hole = random_features(5, 5, 11, 4), holes(5, 5, 11)
    hole[4] = 1  # nothing known: no candidate, or only hole ones
    scale = 10.0 if variant == "paper" else 1.0
    fast, reference = (
        value_and_gradient(
            ContextualAttention(patch_size, 3, scale, implementation, variant), features, hole
        )
        for implementation in ("fast", "reference")
    )
    np.testing.assert_allclose(fast[0], reference[0], atol=2e-5)
    np.testing.assert_allclose(fast[1], reference[1], atol=2e-5)
    assert np.abs(fast[1]).max() > 0.1


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("max_scores", [1, 9 * 8 * 40])
def test_bands_change_nothing(variant, max_scores):
    """One row at a time, and a few rows; in a graph of unknown shape."""
    features, hole = random_features(3, 9, 8, 6), holes(3, 9, 8)
    results = []
    for bound in (None, max_scores):
        layer = ContextualAttention(3, variant=variant, max_scores=bound)
        results.append(value_and_gradient(layer, features, hole))

        @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [n]) for n in (6, 1)])
        def run(features, hole, layer=layer):
            return tensors(layer, features, hole)

        results.append(run(features, hole))
    for value, gradient in results[1:]:
        np.testing.assert_allclose(value, results[0][0], atol=2e-5)
        np.testing.assert_allclose(gradient, results[0][1], atol=2e-5)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float64"])
def test_the_hole_may_be_of_any_type(dtype):
    features, hole = random_features(4, 8, 9, 4), holes(4, 8, 9)
    layer = ContextualAttention(patch_size=3)
    np.testing.assert_array_equal(layer(features, hole.astype(dtype)), layer(features, hole))


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_known_positions_keep_their_bits(implementation, variant):
    features, hole = random_features(4, 8, 9, 4), holes(4, 8, 9)
    result = ContextualAttention(3, 3, 10.0, implementation, variant)(features, hole).numpy()
    known = np.broadcast_to(hole == 0, features.shape)
    assert (result[known] == features[known]).all()
    assert (result[~known] != features[~known]).all()


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_without_a_candidate_features_pass_unchanged(implementation):
    features = random_features(2, 6, 6, 3)
    hole = np.ones((2, 6, 6, 1), "float32")
    hole[1, 2, 2] = 0  # known, but no 3 x 3 patch is free of the hole
    result, gradient = value_and_gradient(
        ContextualAttention(3, implementation=implementation), features, hole
    )
    assert (result == features).all()
    assert np.isfinite(gradient).all()
    unfilled = ContextualAttention(3, implementation=implementation)(features, 0 * hole)
    assert (unfilled.numpy() == features).all()


def test_zero_features_give_zeros_not_nan():
    hole = holes(4, 6, 6)
    for implementation in ("fast", "reference"):
        value, gradient = value_and_gradient(
            ContextualAttention(3, implementation=implementation),
            np.zeros((4, 6, 6, 2), "float32"),
            hole,
        )
        assert (value == 0).all()
        assert np.isfinite(gradient).all()


def test_copies_the_matching_texture():
    """A hole in horizontal stripes is filled with the stripe of its own row."""
    rows = np.arange(12) % 3
    features = np.zeros((1, 12, 12, 3), "float32")
    features[0, np.arange(12), :, rows] = 1.0
    hole = np.zeros((1, 12, 12, 1), "float32")
    hole[0, 3:9, 4:8] = 1
    result = ContextualAttention(3, softmax_scale=100.0)(features, hole).numpy()
    # Not exact: near the border propagation drops shifts and lets other rows' matches in.
    np.testing.assert_allclose(result, features, atol=0.1)


def test_float16_stays_finite_and_close():
    features, hole = 100 * random_features(2, 8, 8, 64), holes(2, 8, 8)
    exact = MultiScaleAttention().attend(features, hole)
    half = MultiScaleAttention(dtype="mixed_float16").attend(features.astype("float16"), hole)
    for a, b in zip(exact, half, strict=True):
        assert b.dtype == tf.float16
        np.testing.assert_allclose(b.numpy().astype("float32"), a, atol=0.5)
    layer = MultiScaleAttention(dtype="mixed_float16")
    assert np.isfinite(layer(features, hole).numpy()).all()


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_bfloat16_is_close_with_its_gradient(variant):
    """Eight times the tolerance of float16, which has three bits more."""
    features, hole = 100 * random_features(2, 8, 8, 64), holes(2, 8, 8)
    features = tf.cast(tf.cast(features, "bfloat16"), "float32")
    results, gradients = [], []
    for dtype in ("float32", "mixed_bfloat16"):
        layer = MultiScaleAttention(dtype=dtype, variant=variant)
        with tf.GradientTape() as tape:
            tape.watch(features)
            attended = layer.attend(tf.cast(features, layer.compute_dtype), hole)
            assert {each.dtype for each in attended} == {tf.as_dtype(layer.compute_dtype)}
            attended = [tf.cast(each, "float32") for each in attended]
            loss = sum(tf.reduce_sum(tf.sin(each / 100)) for each in attended)
        results.append(attended)
        gradients.append(tape.gradient(loss, features).numpy())
    for exact, rounded in zip(*results, strict=True):
        np.testing.assert_allclose(rounded, exact, atol=4.0)
    error = gradients[1] - gradients[0]
    assert np.sqrt(np.mean(error**2) / np.mean(gradients[0] ** 2)) < 0.02


def test_scales_share_nothing_but_the_gram_matrix():
    features, hole = random_features(3, 7, 9, 5), holes(3, 7, 9)
    together = MultiScaleAttention((1, 3, 5)).attend(features, hole)
    for size, attended in zip((1, 3, 5), together, strict=True):
        np.testing.assert_allclose(attended, ContextualAttention(size)(features, hole), atol=1e-6)


@pytest.mark.parametrize(("variant", "close"), [("paper", 0.05), ("official", 0)])
def test_module_starts_as_identity(variant, close):
    keras.utils.set_random_seed(0)
    layer = MultiScaleAttention(variant=variant, kernel_initializer="random_normal")
    features, hole = random_features(2, 8, 8, 6), holes(2, 8, 8)
    assert np.abs(layer(features, hole) - features).max() > 0.5
    layer.start_as_identity()
    assert np.abs(layer(features, hole) - features).max() <= close * np.abs(features).max()


def test_every_weight_of_the_module_gets_a_gradient():
    keras.utils.set_random_seed(0)  # a bottleneck of one or two units could be born dead
    for variant in ("paper", "official"):
        layer = MultiScaleAttention(variant=variant)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(random_features(2, 8, 8, 32), holes(2, 8, 8)) ** 2)
        gradients = tape.gradient(loss, layer.trainable_variables)
        assert len(gradients) == (6 if variant == "paper" else 8)
        for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
            assert gradient is not None, variable.path
            assert np.abs(gradient).max() > 0, variable.path


def test_squeeze_excitation_by_hand():
    layer = SqueezeExcitation(ratio=2)
    features = random_features(2, 3, 4, 4)
    layer(features)
    reduce_kernel, reduce_bias, expand_kernel, expand_bias = (w.numpy() for w in layer.weights)
    pooled = features.mean(axis=(1, 2))
    bottleneck = np.maximum(pooled @ reduce_kernel + reduce_bias, 0)
    assert bottleneck.shape == (2, 2)
    weights = 1 / (1 + np.exp(-(bottleneck @ expand_kernel + expand_bias)))
    np.testing.assert_allclose(layer(features), features * weights[:, None, None], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 2}, "patch_size must be an odd integer >= 1, got 2"),
        ({"patch_size": 0}, "got 0"),
        ({"propagation_size": 4}, "propagation_size must be an odd integer"),
        ({"softmax_scale": 0}, "softmax_scale must be above 0"),
        ({"implementation": "quick"}, r"one of \['fast', 'reference'\], got 'quick'"),
        ({"variant": "ours"}, r"one of \['official', 'paper'\], got 'ours'"),
    ],
)
def test_wrong_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContextualAttention(**arguments)


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match=r"features \(1, 8, 8, 3\), hole \(1, 16, 16, 1\)"):
        ContextualAttention()(random_features(1, 8, 8, 3), np.zeros((1, 16, 16, 1), "float32"))
    layer = MultiScaleAttention()
    layer(random_features(1, 8, 8, 3), holes(1, 8, 8))
    with pytest.raises(ValueError, match=r"features \(1, 8, 8, 3\), hole \(1, 4, 4, 1\)"):
        layer(random_features(1, 8, 8, 3), holes(1, 4, 4))
    with pytest.raises(ValueError, match="must name at least one patch size"):
        MultiScaleAttention(())
    with pytest.raises(ValueError, match="ratio must be an integer >= 1"):
        SqueezeExcitation(0)


@pytest.mark.parametrize("size", [3, 5])
def test_box_sums_by_convolutions_are_those_by_slices(size):
    scores = np.random.default_rng(0).normal(size=(2, 7, 6, 9, 8)).astype("float32")
    expected = np.asarray(diagonal_box_sum(scores, size))
    with box_sums_by_convolutions():
        found = np.asarray(diagonal_box_sum(scores, size))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.shape == (2, 8 - size, 7 - size, 9, 8)
    shifts = [(y, x) for y in range(size) for x in range(size)]
    inner = size // 2  # of the candidates, all of whose neighbours are in the map
    assert expected[1, 1, 0, 4, 5] == pytest.approx(
        sum(scores[1, 1 + y, x, 4 - inner + x, 5 - inner + y] for y, x in shifts), abs=1e-5
    )
