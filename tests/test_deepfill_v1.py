"""DeepFill v1: its attention, padding and window, its losses, and what every method has to hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf.conventions import composite
from musical_tf.discriminators import wasserstein_critic
from musical_tf.layers import MirrorPadding2D, StridedContextualAttention
from musical_tf.losses.local_window import crop_window, hole_window
from musical_tf.losses.reconstruction import discounted_hole, region_l1_loss
from musical_tf.losses.wasserstein import critic_loss, generator_critic_loss, gradient_penalty
from musical_tf.methods import deepfill_v1
from training import recipes

from . import method_contract
from .make_goldens import deepfill_generator
from .method_contract import batch_of, inputs_of

TINY = deepfill_v1.Config.from_preset("paper", width=4, critic_width=2, critic_steps=1)


# --- the attention -----------------------------------------------------------------------------


def attend_in_loops(features, hole, rate, patch_size, fuse_size, scale):
    """The seven steps of `StridedContextualAttention` for one image, in float64.

    Returns the filled features, and the source of each position.
    """
    height, width, channels = features.shape
    rows, columns = height // rate, width // rate
    positions = [(y, x) for y in range(rows) for x in range(columns)]
    matched = features[::rate, ::rate]
    missing = hole.reshape(rows, rate, columns, rate).any(axis=(1, 3))

    def window(size):
        half = size // 2
        return [(dy, dx) for dy in range(-half, half + 1) for dx in range(-half, half + 1)]

    def inside(y, x):
        return 0 <= y < rows and 0 <= x < columns

    def patch(y, x):
        return np.concatenate(
            [
                matched[y + dy, x + dx] if inside(y + dy, x + dx) else np.zeros(channels)
                for dy, dx in window(patch_size)
            ]
        )

    candidates = [
        (y, x)
        for y, x in positions
        if not any(
            inside(y + dy, x + dx) and missing[y + dy, x + dx] for dy, dx in window(patch_size)
        )
    ]
    sources = np.stack(np.meshgrid(range(height), range(width), indexing="ij"), axis=-1)
    if not candidates:
        return features.copy(), sources
    patches = {p: patch(*p) for p in positions}
    unit = {p: v / max(np.linalg.norm(v), 1e-4) for p, v in patches.items()}
    scores = {(i, j): patches[i].dot(unit[j]) for i in positions for j in positions}
    filling, best = np.zeros_like(features), {}
    for y, x in positions:
        fused = {
            (cy, cx): sum(
                scores.get(((y + dy, x + dx), (cy + dy, cx + dx)), 0.0)
                for dy, dx in window(fuse_size)
            )
            for cy, cx in candidates
        }
        best[y, x] = max(fused, key=fused.get)
        exponentials = {j: np.exp(scale * (s - fused[best[y, x]])) for j, s in fused.items()}
        total = sum(exponentials.values())
        for (cy, cx), weight in exponentials.items():
            for dy in range(2 * rate):
                for dx in range(2 * rate):
                    to = (rate * y - rate // 2 + dy, rate * x - rate // 2 + dx)
                    out_of = (rate * cy - rate // 2 + dy, rate * cx - rate // 2 + dx)
                    if all(0 <= a < height and 0 <= b < width for a, b in (to, out_of)):
                        filling[to] += weight / total * features[out_of] / 4
    result = np.where(hole[..., None] > 0, filling, features)
    for y, x in np.argwhere(hole):
        source = best[y // rate, x // rate]
        sources[y, x] = rate * source[0] + y % rate, rate * source[1] + x % rate
    return result, sources


def random_features(*shape, seed=0):
    return 0.4 * np.random.default_rng(seed).normal(size=shape).astype("float32")


def holes(batch, height, width):
    """One kind of hole per sample: two at once, along the border, a single position."""
    hole = np.zeros((batch, height, width, 1), "float32")
    for sample in range(batch):
        if sample % 3 == 0:
            hole[sample, 1 : height // 4, 2 : width // 4 + 1] = 1
            hole[sample, -3:, -2] = 1
        elif sample % 3 == 1:
            hole[sample, : height // 3] = 1
        else:
            hole[sample, height // 2, width // 2] = 1
    return hole


@pytest.mark.parametrize("implementation", ["fast", "reference"])
@pytest.mark.parametrize(
    ("rate", "patch_size", "fuse_size"), [(1, 3, 3), (2, 3, 3), (2, 1, 3), (3, 3, 1)]
)
def test_equals_the_plain_loop(implementation, rate, patch_size, fuse_size):
    height, width = 5 * rate, 6 * rate
    features, hole = random_features(3, height, width, 3), holes(3, height, width)
    layer = StridedContextualAttention(rate, patch_size, fuse_size, 3.0, implementation)
    result, sources = layer(features, hole), layer.attention_sources(features, hole)
    assert sources.dtype == tf.int32
    for i in range(3):
        expected, of = attend_in_loops(
            features[i].astype("float64"), hole[i, ..., 0], rate, patch_size, fuse_size, 3.0
        )
        np.testing.assert_allclose(result[i], expected, atol=1e-5)
        np.testing.assert_array_equal(sources[i], of)


def value_and_gradient(layer, features, hole):
    """The layer's value, and the gradient of a sum that weighs every element differently."""
    features = tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = layer(features, hole)
        weights = tf.sin(tf.range(tf.size(value), dtype=tf.float32))
        loss = tf.reduce_sum(tf.reshape(weights, tf.shape(value)) * value)
    return value, tape.gradient(loss, features)


@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize(("patch_size", "fuse_size"), [(3, 3), (1, 5), (5, 1)])
def test_fast_and_reference_agree_with_their_gradients(rate, patch_size, fuse_size):
    features, hole = random_features(4, 6 * rate, 8 * rate, 4), holes(4, 6 * rate, 8 * rate)
    hole[3] = 1  # nothing known
    fast, reference = (
        value_and_gradient(
            StridedContextualAttention(rate, patch_size, fuse_size, 5.0, implementation),
            features,
            hole,
        )
        for implementation in ("fast", "reference")
    )
    np.testing.assert_allclose(fast[0], reference[0], atol=1e-5)
    np.testing.assert_allclose(fast[1], reference[1], atol=2e-5)
    assert np.abs(fast[1]).max() > 0.5
    assert np.abs(fast[0] - features).max() > 0.3


@pytest.mark.parametrize("max_scores", [None, 3 * 48 * 30])
def test_bands_and_unknown_shapes_change_nothing(max_scores):
    features, hole = random_features(3, 12, 16, 4), holes(3, 12, 16)
    expected = value_and_gradient(StridedContextualAttention(), features, hole)
    layer = StridedContextualAttention(max_scores=max_scores)

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [n]) for n in (4, 1)])
    def run(features, hole):
        return value_and_gradient(layer, features, hole)

    for ours, theirs in zip(run(features, hole), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    row_by_row = StridedContextualAttention(max_scores=1)(features, hole)
    np.testing.assert_allclose(row_by_row, expected[0], atol=2e-5)


@pytest.mark.parametrize("implementation", ["fast", "reference"])
def test_only_the_hole_changes_and_never_to_nan(implementation):
    features, hole = random_features(5, 12, 12, 4), holes(5, 12, 12)
    hole[3], hole[4] = 1, 0
    layer = StridedContextualAttention(implementation=implementation)
    result, gradient = (each.numpy() for each in value_and_gradient(layer, features, hole))
    known = np.broadcast_to(hole == 0, features.shape)
    assert (result[known] == features[known]).all()
    assert (result[:3][~known[:3]] != features[:3][~known[:3]]).all()
    assert (result[3] == features[3]).all()  # no candidate
    assert np.isfinite(gradient).all()
    for values in value_and_gradient(layer, np.zeros_like(features), hole):
        assert np.isfinite(values).all()
    own = np.stack(np.meshgrid(range(12), range(12), indexing="ij"), axis=-1)
    sources = layer.attention_sources(features, hole).numpy()
    assert (sources[3:] == own).all()
    assert (
        sources[hole[..., 0] == 0] == np.broadcast_to(own, sources.shape)[hole[..., 0] == 0]
    ).all()


def test_finds_and_copies_what_looks_the_same():
    """A hole that already holds a rough copy of another place is filled from that place."""
    features = random_features(1, 32, 32, 8)
    hole = np.zeros((1, 32, 32, 1), "float32")
    hole[0, 4:12, 6:14] = 1
    features[0, 0:16, 2:18] = features[0, 16:32, 14:30]
    truth = features[0, 4:12, 6:14].copy()
    features[0, 4:12, 6:14] *= 0.8
    layer = StridedContextualAttention(softmax_scale=100.0)
    sources = layer.attention_sources(features, hole).numpy()[0, 4:12, 6:14]
    offsets = sources - np.stack(np.meshgrid(range(4, 12), range(6, 14), indexing="ij"), axis=-1)
    assert (offsets == (16, 12)).all()
    np.testing.assert_allclose(layer(features, hole)[0, 4:12, 6:14], truth, atol=1e-3)


def test_float16_stays_finite_and_known_positions_keep_their_bits():
    features, hole = 50 * random_features(3, 16, 16, 64), holes(3, 16, 16)
    half = features.astype("float16")
    result = StridedContextualAttention(dtype="mixed_float16")(half, hole).numpy()
    assert result.dtype == np.float16
    exact = StridedContextualAttention()(half.astype("float32"), hole)
    np.testing.assert_allclose(result.astype("float32"), exact, rtol=2e-3, atol=1e-2)
    assert (result[np.broadcast_to(hole == 0, half.shape)] == half[hole[..., 0] == 0].ravel()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0}, "rate must be an integer >= 1, got 0"),
        ({"patch_size": 2}, "patch_size must be an odd integer >= 1, got 2"),
        ({"fuse_size": 4}, "fuse_size must be an odd integer"),
        ({"softmax_scale": 0}, "softmax_scale must be above 0"),
        ({"implementation": "quick"}, r"one of \['fast', 'reference'\], got 'quick'"),
        ({"max_scores": 0}, "max_scores must be an integer >= 1 or None, got 0"),
    ],
)
def test_wrong_options_of_the_attention_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        StridedContextualAttention(**arguments)


def test_shapes_that_disagree_or_do_not_divide_are_named():
    layer = StridedContextualAttention(rate=2)
    with pytest.raises(ValueError, match=r"hole \(B, H, W, 1\) .* hole \(1, 4, 4, 1\)"):
        layer(random_features(1, 8, 8, 3), np.zeros((1, 4, 4, 1), "float32"))
    with pytest.raises(ValueError, match=r"multiples of 2, got features \(1, 8, 7, 3\)"):
        layer(random_features(1, 8, 7, 3), np.zeros((1, 8, 7, 1), "float32"))


def test_the_attention_keeps_its_options():
    layer = StridedContextualAttention(3, 5, 1, 4.0, "reference", 99)
    assert StridedContextualAttention.from_config(layer.get_config()).get_config() == (
        layer.get_config()
    )


# --- padding and window ------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 3, 7])
@pytest.mark.parametrize("padding", [0, 1, 2, 6, 16])
def test_mirror_padding_is_numpys(side, padding):
    features = np.arange(2 * side * 5 * 2.0).reshape(2, side, 5, 2)
    margins = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    expected = np.pad(features, margins, mode="reflect")
    np.testing.assert_array_equal(MirrorPadding2D(padding)(features), expected)
    if min(side, 5) > padding:
        by_pad = MirrorPadding2D(padding, minimum_side=min(side, 5))
        np.testing.assert_array_equal(by_pad(features), expected)
        assert by_pad.compute_output_shape((2, None, 5, 2)) == (2, None, 5 + 2 * padding, 2)


def test_wrong_paddings_are_named():
    with pytest.raises(ValueError, match="padding must be an integer >= 0, got -1"):
        MirrorPadding2D(-1)
    with pytest.raises(ValueError, match="minimum_side must be an integer >= 1, got 0"):
        MirrorPadding2D(1, 0)


def test_the_window_is_the_box_where_there_is_one():
    hole = np.zeros((5, 24, 32, 1), "float32")
    hole[0, 5:13, 20:28] = 1  # as large as the window
    hole[1, 9:13, 10:12] = 1  # smaller: in its middle
    hole[2, :3, -4:] = 1  # in a corner
    hole[3, 2:4, 3:5] = 1
    hole[3, 15:22, 18:25] = 1  # the larger of two
    windows = np.stack(hole_window(hole, 8), axis=1)
    assert windows[:4].tolist() == [[5, 20], [7, 7], [0, 24], [14, 17]]
    assert (windows[4] == 0).all()  # without a hole any will do

    image = tf.constant(random_features(5, 24, 32, 3))
    with tf.GradientTape() as tape:
        tape.watch(image)
        crop = crop_window(image, hole_window(hole, 8), 8)
        loss = tf.reduce_sum(crop)
    gradient = tape.gradient(loss, image).numpy()
    for i, (top, left) in enumerate(windows):
        inside = np.zeros((24, 32, 3))
        inside[top : top + 8, left : left + 8] = 1
        np.testing.assert_array_equal(crop[i], image[i, top : top + 8, left : left + 8])
        np.testing.assert_array_equal(gradient[i], inside)


# --- the losses --------------------------------------------------------------------------------


def test_weights_fall_with_the_distance_to_the_nearest_known_pixel():
    hole = np.zeros((3, 12, 14, 1), "float32")
    hole[0, 2:9, 3:13] = 1
    hole[1, :5, :6] = 1  # nothing is known beyond the border
    hole[1, 8, 8] = 1
    hole[2] = 1
    expected = np.zeros_like(hole)
    for i in range(2):
        known = np.argwhere(hole[i, ..., 0] == 0)
        for y, x in np.argwhere(hole[i, ..., 0] == 1):
            expected[i, y, x] = 0.9 ** np.abs(known - [y, x]).max(axis=1).min()
    np.testing.assert_allclose(discounted_hole(hole, 0.9), expected, atol=1e-6)
    # The authors' formula for a box, its rows and columns counted from 1.
    i, j = np.arange(1, 8)[:, None], np.arange(1, 11)
    of_box = np.maximum(0.9 ** np.minimum(i, 8 - i), 0.9 ** np.minimum(j, 11 - j))
    np.testing.assert_allclose(discounted_hole(hole, 0.9)[0, 2:9, 3:13, 0], of_box, atol=1e-6)
    np.testing.assert_array_equal(discounted_hole(hole[:2], 1.0), hole[:2])


def test_region_l1_by_hand():
    image = np.zeros((2, 2, 2, 3), "float32")
    prediction = np.zeros_like(image)
    prediction[0, 0, 0], prediction[1, 1, 1], prediction[0, 1, 1] = 0.3, (0.6, 0, 0), 9.0
    region = np.zeros((2, 2, 2, 1), "float32")
    region[0, 0, 0] = region[1, 1, 1] = region[1, 0, 0] = region[1, 0, 1] = 1
    assert float(region_l1_loss(image, prediction, region)) == pytest.approx((0.3 + 0.2) / 4)
    weight = np.where(np.arange(2) == 0, 1.0, 0.5)[None, :, None, None] * np.ones_like(region)
    assert float(region_l1_loss(image, prediction, region, weight)) == pytest.approx(0.4 / 4)
    assert float(region_l1_loss(image, prediction, 0 * region)) == 0.0


def test_wasserstein_losses_by_hand():
    real, fake = np.array([[1.0], [4.0]]), np.array([[-2.0], [3.0]])
    assert float(critic_loss(real, fake)) == 0.5 - 2.5
    assert float(generator_critic_loss(fake)) == -0.5


def test_the_penalty_is_that_of_the_slope_inside_the_hole():
    """For `critic(x) = c * sum(x^2) / 2` the slope at x is `c * x`."""
    real, fake = (tf.constant(random_features(2, 4, 4, 3, seed=i)) for i in (1, 2))
    hole = np.zeros((2, 4, 4, 1), "float32")
    hole[0, 1:3, 1:] = hole[1, 0, 0] = 1
    fraction = tf.constant([0.25, 0.75])[:, None, None, None]
    factor = tf.Variable(1.7)

    def critic(images):
        return factor * tf.reduce_sum(images**2, axis=(1, 2, 3), keepdims=True) / 2

    with tf.GradientTape() as tape:
        penalty = gradient_penalty(critic, real, fake, fraction, hole)
    length = np.sqrt(
        np.sum((((1 - fraction) * real + fraction * fake) * hole) ** 2, axis=(1, 2, 3))
    )
    assert float(penalty) == pytest.approx(np.mean((1.7 * length - 1) ** 2), rel=1e-5)
    # d/dfactor (factor * length - 1)^2: the gradient of a gradient.
    expected = np.mean(2 * (1.7 * length - 1) * length)
    assert float(tape.gradient(penalty, factor)) == pytest.approx(expected, rel=1e-4)


def test_a_sample_without_a_hole_has_no_penalty_gradient():
    critic = wasserstein_critic(16, [2, 2])
    image = tf.constant(random_features(2, 16, 16, 3))
    hole = np.zeros((2, 16, 16, 1), "float32")
    with tf.GradientTape() as tape:
        penalty = gradient_penalty(critic, image, image, tf.zeros((2, 1, 1, 1)), hole)
    assert float(penalty) == 1.0
    for gradient in tape.gradient(penalty, critic.trainable_variables):
        assert gradient is None or not np.any(gradient)


def test_float16_penalises_as_float32_does():
    keras.utils.set_random_seed(0)
    exact = wasserstein_critic(32, [8, 16, 16, 16])
    half = wasserstein_critic(32, [8, 16, 16, 16], dtype="mixed_float16")
    half.set_weights(exact.get_weights())
    real, fake = (tf.constant(random_features(2, 32, 32, 3, seed=i)) for i in (1, 2))
    hole, fraction = np.ones((2, 32, 32, 1), "float32"), tf.fill((2, 1, 1, 1), 0.5)
    gradients = []
    for critic in (exact, half):
        assert critic(real).dtype == tf.float32
        with tf.GradientTape() as tape:
            # As the loss scale does.
            penalty = 1024.0 * gradient_penalty(critic, real, fake, fraction, hole)
        gradients.append(tape.gradient(penalty, critic.trainable_variables[0]).numpy() / 1024)
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(gradients[1], gradients[0], atol=0.02 * np.abs(gradients[0]).max())


# --- the networks ------------------------------------------------------------------------------


def test_paper_has_the_figures_layers():
    """Kernels, strides, dilations and channels of the three encoders and the two decoders."""
    generator = musical_tf.create("deepfill_v1", "paper")
    assert 3_600_000 < generator.count_params() < 3_602_000

    def described(name):
        layers = [
            layer
            for layer in generator.layers
            if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith(name + "_")
        ]
        return [
            (layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0], layer.filters)
            for layer in sorted(layers, key=lambda layer: int(layer.name.split("conv")[1]))
        ]

    dilated = [(3, 1, dilation, 128) for dilation in (2, 4, 8, 16)]
    plain = (3, 1, 1, 128)
    decoder = [(3, 1, 1, 64), (3, 1, 1, 64), (3, 1, 1, 32), (3, 1, 1, 16), (3, 1, 1, 3)]
    first = (5, 1, 1, 32)
    assert described("coarse") == [
        *(first, (3, 2, 1, 64), (3, 1, 1, 64), (3, 2, 1, 128), plain, plain),
        *dilated,
        *(plain, plain),
        *decoder,
    ]
    assert described("dilated") == [
        *(first, (3, 2, 1, 32), (3, 1, 1, 64), (3, 2, 1, 64), plain, plain),
        *dilated,
    ]
    assert described("attention") == [
        *(first, (3, 2, 1, 32), (3, 1, 1, 64), (3, 2, 1, 128), plain, plain),
        *(plain, plain),
    ]
    assert described("refined") == [plain, plain, *decoder]
    assert generator.get_layer("refined_conv11").kernel.shape == (3, 3, 256, 128)
    assert generator.get_layer("coarse_conv1").kernel.shape == (5, 5, 5, 32)

    kinds = {type(layer) for layer in generator.layers}
    assert not [kind for kind in kinds if "Normalization" in kind.__name__]
    for layer in generator.layers:
        if isinstance(layer, keras.layers.Conv2D):
            expected = {"conv17": "linear", "attention_conv6": "relu"}
            activation = next((a for n, a in expected.items() if layer.name.endswith(n)), "elu")
            assert layer.activation.__name__ == activation, layer.name
            assert layer.padding == "valid"
    attention = generator.get_layer("attention")
    assert (attention.rate, attention.patch_size, attention.fuse_size) == (2, 3, 3)
    assert attention.softmax_scale == 10.0

    shapes = {"coarse_conv10": 64, "attention": 64, "branches": 64, "refined_conv14": 128}
    taps = keras.Model(generator.inputs, [generator.get_layer(n).output for n in shapes])
    image, hole = np.zeros((1, 256, 256, 3), "float32"), np.zeros((1, 256, 256, 1), "float32")
    assert [each.shape[1] for each in taps([image, hole])] == list(shapes.values())


def test_the_critics_are_the_papers():
    critics = deepfill_v1.build_discriminators(deepfill_v1.Config(), 256)
    described = {}
    for name, critic in critics.items():
        convolutions = [each for each in critic.layers if isinstance(each, keras.layers.Conv2D)]
        assert {(each.kernel_size, each.strides) for each in convolutions} == {((5, 5), (2, 2))}
        described[name] = (critic.input_shape[1], [each.filters for each in convolutions])
        assert critic.output_shape == (None, 1)
        slopes = {
            each.negative_slope
            for each in critic.layers
            if isinstance(each, keras.layers.LeakyReLU)
        }
        assert [round(slope, 6) for slope in slopes] == [0.2]
    assert described == {
        "global": (256, [64, 128, 256, 256]),
        "local": (128, [64, 128, 256, 512]),
    }
    with pytest.raises(ValueError, match=r"must be at least 1, got 16 and \[\]"):
        wasserstein_critic(16, [])


def test_the_generator_tells_where_it_copied_from():
    generator = deepfill_generator()
    data = inputs_of(batch_of(32, 48))
    sources = generator.attention_sources(data).numpy()
    assert sources.shape == (2, 8, 12, 2)
    hole = np.max(data[1].numpy().reshape(2, 8, 4, 12, 4), axis=(2, 4)) > 0
    own = np.stack(np.meshgrid(range(8), range(12), indexing="ij"), axis=-1)
    assert (sources[~hole] == np.broadcast_to(own, sources.shape)[~hole]).all()
    for sample, missing in enumerate(hole):
        rows, columns = sources[sample][missing].T
        assert not missing[rows, columns].any()


# --- the objective -----------------------------------------------------------------------------


def test_objective_by_hand():
    generator, critics, objective = method_contract.build("deepfill_v1", TINY, 32)
    assert objective.discriminator_steps == 1
    assert objective.generator_weights == {
        "hole": 1.2,
        "coarse_hole": pytest.approx(1.44),
        "known": 1.2,
        "coarse_known": pytest.approx(1.44),
        "adversarial_global": 0.001,
        "adversarial_local": 0.001,
    }
    data = batch_of(32)
    image, hole = (each.numpy() for each in inputs_of(data))
    outputs = generator.training_outputs(inputs_of(data))
    np.testing.assert_array_equal(outputs["prediction"], generator(inputs_of(data)))
    terms = {
        name: float(value)
        for name, value in objective.generator_terms(data, outputs, critics).items()
    }
    weight = discounted_hole(hole, 0.9)
    for prefix, output in (("", outputs["prediction"]), ("coarse_", outputs["coarse"])):
        error = np.abs(image - output)
        in_hole = np.sum(error * weight) / (3 * np.sum(hole))
        outside = np.sum(error * (1 - hole)) / (3 * np.sum(1 - hole))
        assert terms[f"{prefix}hole"] == pytest.approx(in_hole, rel=1e-5)
        assert terms[f"{prefix}known"] == pytest.approx(outside, rel=1e-5)
    fake = composite(outputs["prediction"], image, hole)
    window = hole_window(hole, 16)
    views = {"global": (image, fake), "local": [crop_window(e, window, 16) for e in (image, fake)]}
    against = objective.discriminator_terms(data, outputs, critics)
    assert list(against) == ["critic_global", "critic_local", "penalty_global", "penalty_local"]
    for name, (real, composited) in views.items():
        real, fake = (np.mean(critics[name](each)) for each in (real, composited))
        assert terms[f"adversarial_{name}"] == pytest.approx(-fake, abs=1e-6)
        assert float(against[f"critic_{name}"]) == pytest.approx(fake - real, abs=1e-6)
        assert 0 < float(against[f"penalty_{name}"]) <= 10 * 1.5


def test_the_penalty_is_taken_elsewhere_each_time():
    _, critics, objective = method_contract.build("deepfill_v1", TINY, 32)
    data = batch_of(32)
    outputs = {"prediction": -data["image"], "coarse": data["image"]}
    penalties = [
        float(objective.discriminator_terms(data, outputs, critics)["penalty_global"])
        for _ in range(2)
    ]
    assert penalties[0] != penalties[1]


def test_wrong_options_are_named():
    for fields, message in (
        ({"width": 1}, "width must be >= 2, got 1"),
        ({"critic_steps": 0}, "critic_steps must be >= 1"),
        ({"discount": 0.0}, "discount must be above 0 and <= 1, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            deepfill_v1.Config(**fields)


@pytest.mark.parametrize("preset", deepfill_v1.PRESETS)
def test_recipe_is_the_papers(preset, tmp_path):
    recipe = recipes.resolve("folder", tmp_path, method="deepfill_v1", preset=preset)
    assert (recipe.batch_size, recipe.beta_1, recipe.beta_2, recipe.mask) == (16, 0.5, 0.9, "box")
    if preset == "paper":
        assert (recipe.image_size, recipe.learning_rate) == (256, 1e-4)
        assert recipe.schedule == "constant"
        assert recipe.config["critic_steps"] == 5


# --- what every method has to hold -------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_resume(tmp_path):
    method_contract.check_resume("deepfill_v1", TINY, 32, tmp_path)
