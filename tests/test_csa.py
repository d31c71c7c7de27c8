"""CSA's generator, objective and discriminators."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf import losses
from musical_tf.conventions import downsample_hole
from musical_tf.discriminators import feature_patch_discriminator
from musical_tf.layers import coherent_attention_reference
from musical_tf.layers.blocks import Blocks
from musical_tf.losses.reconstruction import hole_l2_loss
from musical_tf.losses.relativistic import (
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from musical_tf.losses.vgg16 import VGG16Activations
from musical_tf.methods import csa
from training.recipes import Recipe, resolve

from . import make_goldens
from .method_contract import batch_of, inputs_of

NARROW = {"width": 4, "width_limit": 8, "levels": 4, "discriminator_width": 2}
TINY = csa.Config(**NARROW)


# --- the generator


def test_what_the_training_gets_at_any_multiple_of_8():
    generator = musical_tf.create("csa", **{**NARROW, "levels": 6})
    assert generator.output_shape == (None, None, None, 3)
    for height, width, batch in ((64, 64, 1), (24, 40, 3), (8, 16, 1)):
        outputs = generator.training_outputs(inputs_of(batch_of(height, width, batch)))
        assert outputs["prediction"].shape == outputs["rough"].shape == (batch, height, width, 3)
        small = (batch, height // 8, width // 8, 32)
        assert outputs["coherent"].shape == outputs["decoded"].shape == small


def test_paper_has_the_authors_networks():
    """As many parameters as their code prints; the maps' sizes at 256 x 256."""
    generator = musical_tf.create("csa", preset="paper")
    rough = sum(
        int(np.prod(weight.shape))
        for weight in generator.weights
        if weight.path.startswith("rough_")
    )
    assert rough == 54_419_459
    assert generator.count_params() - rough == 77_692_291
    discriminators = csa.build_discriminators(csa.Config(), 256)
    counts = {name: model.count_params() for name, model in discriminators.items()}
    assert counts == {"patch": 2_766_529, "feature_patch": 10_487_296}

    shapes = {
        "rough_down1_conv": (128, 128, 64),
        "rough_down8_conv": (1, 1, 512),
        "rough_tanh": (256, 256, 3),
        "refine_entry_conv": (256, 256, 64),
        "refine_down1_dilated_conv": (128, 128, 64),
        "refine_down2_conv": (64, 64, 256),
        "attention": (32, 32, 512),
        "refine_down7_conv": (2, 2, 512),
        "refine_down8_dilated_conv": (1, 1, 512),
        "refine_up4_norm": (32, 32, 512),
        "refine_up4_skip": (32, 32, 1024),
        "refine_up1_skip": (256, 256, 128),
        "prediction": (256, 256, 3),
    }
    found = {}
    for name in shapes:
        specs = keras.Model(generator.inputs, generator.get_layer(name).output)
        found[name] = specs.compute_output_shape([(1, 256, 256, 3), (1, 256, 256, 1)])[1:]
    assert found == shapes
    scores = [
        discriminators["patch"].compute_output_shape((1, 256, 256, 3)),
        discriminators["feature_patch"].compute_output_shape((1, 64, 64, 256)),
    ]
    assert scores == [(1, 30, 30, 1), (1, 8, 8, 512)]
    for model in (generator, *discriminators.values()):
        for layer in model.layers:
            if isinstance(layer, keras.layers.GroupNormalization):
                # One channel a group: instance normalisation.
                assert (layer.groups, layer.epsilon) == (layer.input.shape[-1], 1e-5)
            if isinstance(layer, keras.layers.LeakyReLU):
                assert layer.negative_slope == pytest.approx(0.2)
            if isinstance(layer, keras.layers.Conv2D):
                assert layer.use_bias
                if layer.kernel.shape[-1] > 3:
                    assert np.std(layer.kernel) == pytest.approx(0.02, rel=0.1)


def test_halving_with_dilation_is_the_dilated_convolution_of_stride_2():
    """Against the sum that defines it, padded by 3, on an even and an odd side."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1, 8, 7, 2)).astype("float32")
    inputs = keras.Input((None, None, 2))
    block = Blocks(keras.dtype_policies.get("float32"))
    model = keras.Model(inputs, csa.halve_dilated(block, inputs, 3, "y"))
    kernel = rng.normal(size=(4, 4, 2, 3)).astype("float32")
    bias = rng.normal(size=3).astype("float32")
    model.set_weights([kernel, bias])
    padded = np.pad(features[0], ((3, 4), (3, 4), (0, 0)))
    expected = np.zeros((4, 4, 3)) + bias
    for row in range(4):
        for column in range(4):
            window = padded[2 * row : 2 * row + 7 : 2, 2 * column : 2 * column + 7 : 2]
            expected[row, column] += np.einsum("yxi,yxio->o", window, kernel)
    np.testing.assert_allclose(model(features)[0], expected, atol=1e-5)


def test_the_attention_fills_the_hole_of_the_map_and_nothing_else():
    generator = make_goldens.narrow_generator("csa")
    data = batch_of(64)
    layer = generator.get_layer("attention")
    taps = keras.Model(generator.inputs, [layer.input[0], layer.input[1], layer.output])
    features, hole, filled = (np.asarray(each) for each in taps(inputs_of(data)))
    np.testing.assert_array_equal(hole, downsample_hole(data["hole"], 8))
    expected = coherent_attention_reference.attend(features, hole)
    np.testing.assert_allclose(filled, expected, atol=1e-4)
    assert np.abs(filled - features).max() > 0.1
    sources = np.asarray(generator.attention_sources(inputs_of(data)))
    missing = hole[..., 0] > 0.5
    assert ((sources >= 0).all(-1) == missing).all()
    first = tuple(sources[0][missing[0]][0])
    np.testing.assert_allclose(filled[0][missing[0]][0], features[0][first], atol=1e-5)
    without = musical_tf.create("csa", attention=False, **NARROW)
    assert "attention" not in [each.name for each in without.layers]


def test_what_lies_under_the_hole_does_not_matter():
    generator = make_goldens.narrow_generator("csa")
    data = batch_of(32)
    spoiled = tf.where(data["hole"] > 0.5, np.float32("nan"), data["image"])
    for value in generator.training_outputs([spoiled, data["hole"]]).values():
        assert np.isfinite(value).all()


def test_a_bound_on_memory_changes_nothing(tmp_path):
    musical_tf.create("csa", "lite", **NARROW).save(tmp_path / "generator.keras")
    generator = musical_tf.load(tmp_path)
    bounded = musical_tf.load(tmp_path, attention_max_scores=50)
    data = inputs_of(batch_of(32))
    np.testing.assert_allclose(bounded(data), generator(data), atol=1e-5)


def test_wrong_options_are_named():
    for fields, message in (
        ({"levels": 3}, "levels must be >= 4, got 3"),
        ({"width": 24}, r"must divide the 512 of the consistency loss, got 192"),
    ):
        with pytest.raises(ValueError, match=message):
            csa.Config(**fields)
    assert csa.Config(width=24, lambda_consistency=0.0).width == 24


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("paper", {"batch_size": 1, "epochs": 120, "image_size": 256, "learning_rate": 2e-4}),
        ("lite", {"batch_size": 16, "image_size": 128}),
    ],
)
def test_its_recipes_resolve(preset, expected):
    recipe = resolve("celeba", "photographs", method="csa", preset=preset)
    assert expected.items() <= dataclasses.asdict(recipe).items()
    assert (recipe.beta_1, recipe.schedule) == (0.5, "cosine")
    if preset == "lite":
        assert musical_tf.create("csa", "lite").count_params() < 6_000_000
    assert Recipe.from_json(recipe.to_json()) == recipe


# --- losses and discriminators


def test_relativistic_losses_by_hand():
    real, fake = np.array([2.0, 4.0], "float32"), np.array([[1.0], [0.0], [-1.0]], "float32")
    # means 3 and 0; real - 0 - 1 = 1, 3; fake - 3 + 1 = -1, -2, -3
    expected = ((1 + 9) / 2 + (1 + 4 + 9) / 3) / 2
    assert float(relativistic_discriminator_loss(real, fake)) == pytest.approx(expected)
    # real - 0 + 1 = 3, 5; fake - 3 - 1 = -3, -4, -5
    expected = ((9 + 25) / 2 + (9 + 16 + 25) / 3) / 2
    assert float(relativistic_generator_loss(real, fake)) == pytest.approx(expected)
    same = np.ones((2, 3), "float16")
    assert float(relativistic_discriminator_loss(same, same)) == 1.0
    assert relativistic_generator_loss(same, same).dtype == "float32"


def test_consistency_by_hand_and_its_gradient():
    target = tf.constant(np.arange(8, dtype="float32").reshape(1, 2, 2, 2))
    features = tf.ones((1, 2, 2, 2))
    hole = tf.constant([[[[1.0], [0.0]], [[0.0], [1.0]]]])
    with tf.GradientTape() as tape:
        tape.watch([target, features])
        loss = hole_l2_loss(target, features, hole)
    # 0, 1 and 6, 7 against 1
    assert float(loss) == pytest.approx((1 + 0 + 25 + 36) / 8)
    to_target, to_features = tape.gradient(loss, [target, features])
    assert to_target is None
    expected = 2 * np.array([1, 0, 0, 0, 0, 0, -5, -6]) / 8
    np.testing.assert_allclose(np.ravel(to_features), expected)
    with pytest.raises(ValueError, match=r"one shape, got \(1, 2, 2, 2\), \(1, 2, 2, 1\)"):
        hole_l2_loss(target, features[..., :1], hole)


def test_vgg_activations_are_the_packaged_networks():
    """relu3_3, pooled, is the third map of the network that MUSICAL's losses use."""
    images = np.concatenate([batch_of(32)["image"], batch_of(32, seed=5)["image"]])
    middle, deep = VGG16Activations()(images)
    assert (middle.shape, deep.shape) == ((4, 8, 8, 256), (4, 4, 4, 512))
    pooled = keras.ops.max_pool(middle, 2, 2)
    np.testing.assert_allclose(pooled, losses.VGG16Features()(images)[2], atol=1e-4)
    folder = Path(musical_tf.__file__).parent / "weights"
    arrays = np.load(folder / "vgg16_torchvision_block4_fp16.npz")
    features = pooled
    for name in ("conv4_1", "conv4_2", "conv4_3"):
        kernel = tf.constant(arrays[f"{name}/kernel"], "float32")
        features = tf.nn.relu(
            tf.nn.conv2d(features, kernel, 1, "SAME") + arrays[f"{name}/bias"].astype("float32")
        )
    np.testing.assert_allclose(deep, features, rtol=1e-3, atol=1e-3)
    # A trained network: its activations are sparse, and of about one.
    assert 0.05 < float(np.mean(np.asarray(deep) > 0)) < 0.6
    assert 0.05 < float(np.mean(deep)) < 5.0


def test_vgg_activations_by_name(tmp_path):
    layer = VGG16Activations(["relu1_2", "relu2_1"], normalization="none", dtype="mixed_float16")
    assert [each.dtype for each in layer(np.zeros((1, 8, 8, 3)))] == ["float32", "float32"]
    assert [tuple(each.shape) for each in layer(np.zeros((1, 8, 8, 3)))] == [
        (1, 8, 8, 64),
        (1, 4, 4, 128),
    ]
    again = VGG16Activations.from_config(layer.get_config())
    assert (again.activations, again.normalization) == (("relu1_2", "relu2_1"), "none")
    assert not layer.trainable_variables
    for bad in ([], ["relu9_9"], ["relu2_1", "relu1_2"]):
        with pytest.raises(ValueError, match="activations must be some of relu1_1, relu1_2"):
            VGG16Activations(bad)
    with pytest.raises(FileNotFoundError, match=r"no such file; expected 'torchvision'"):
        VGG16Activations(weights="nowhere.npz")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="not there: conv1_1/bias"):
        VGG16Activations(weights=tmp_path / "w.npz")


def test_feature_patches():
    keras.utils.set_random_seed(0)
    model = feature_patch_discriminator(6, channels=5)
    features = np.random.default_rng(0).normal(size=(2, 16, 16, 5)).astype("float32")
    scores = model(features).numpy()
    assert scores.shape == (2, 2, 2, 6)
    changed = features.copy()
    changed[1] += 1.0
    np.testing.assert_array_equal(model(changed).numpy()[0], scores[0])
    assert (
        feature_patch_discriminator(2, 3, dtype="mixed_float16")(np.zeros((1, 8, 8, 3))).dtype
        == tf.float32
    )
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 256"):
        feature_patch_discriminator(0)
    with pytest.raises(ValueError, match="at least 64 x 64 pixels, got 32"):
        csa.build_discriminators(csa.Config(), 32)


# --- the objective


@pytest.fixture(scope="module")
def objective():
    return csa.build_objective(csa.Config(**NARROW, lambda_hole=5.0))


@pytest.fixture(scope="module")
def discriminators():
    return csa.build_discriminators(TINY, 64)


def test_objective_is_the_papers(objective, discriminators):
    """Every term against the losses, put together by hand."""
    assert csa.build_objective(csa.Config()).generator_weights == {
        "l1": 100.0,
        "rough_l1": 100.0,
        "consistency": 1.0,
        "adversarial": 0.2,
        "feature_adversarial": 0.2,
    }
    generator = make_goldens.narrow_generator("csa")
    data = batch_of(64)
    image, hole = inputs_of(data)
    outputs = objective.outputs(generator, data)
    terms = objective.generator_terms(data, outputs, discriminators)
    assert set(terms) == set(objective.generator_weights)
    terms = {name: float(value) for name, value in terms.items()}
    errors = [np.abs(outputs[name] - image) for name in ("prediction", "rough")]
    assert terms["l1"] == pytest.approx(errors[0].mean(), rel=1e-5)
    assert terms["rough_l1"] == pytest.approx(errors[1].mean(), rel=1e-5)
    in_hole = sum(float((error * hole).numpy().mean()) for error in errors)
    assert terms["hole"] == pytest.approx(in_hole, rel=1e-5)

    vgg = VGG16Activations()
    (real_middle, target), fake_middle = vgg(image), vgg(outputs["prediction"])[0]
    target = np.asarray(target).reshape(2, 8, 8, 32, 16).mean(-1)
    small = np.asarray(downsample_hole(hole, 8))
    expected = sum(
        np.mean(small * (np.asarray(outputs[name]) - target) ** 2)
        for name in ("coherent", "decoded")
    )
    assert terms["consistency"] == pytest.approx(float(expected), rel=1e-4)
    scores = {
        "patch": [discriminators["patch"](each) for each in (image, outputs["prediction"])],
        "feature_patch": [
            discriminators["feature_patch"](each) for each in (real_middle, fake_middle)
        ],
    }
    found = objective.discriminator_terms(data, outputs, discriminators)
    assert set(found) == set(discriminators)
    for name, term in (("patch", "adversarial"), ("feature_patch", "feature_adversarial")):
        expected = relativistic_generator_loss(*scores[name])
        assert terms[term] == pytest.approx(float(expected), rel=1e-4)
        expected = relativistic_discriminator_loss(*scores[name])
        assert float(found[name]) == pytest.approx(float(expected), rel=1e-4)


def biases_before_normalisation(model):
    """They have no effect: the normalisation takes the mean away again."""
    normalised = {
        id(layer.input)
        for layer in model.layers
        if isinstance(layer, keras.layers.GroupNormalization)
    }
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return {layer.bias.path for layer in convolutions if id(layer.output) in normalised}


def gradients_of(tape, loss, variables):
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    return {
        variable.path: None if gradient is None else float(np.abs(gradient).max())
        for variable, gradient in zip(variables, gradients, strict=True)
    }


def test_every_variable_gets_a_gradient(objective, discriminators):
    generator = make_goldens.narrow_generator("csa")
    data = batch_of(64)
    with tf.GradientTape(persistent=True) as tape:
        outputs = objective.outputs(generator, data)
        terms = objective.generator_terms(data, outputs, discriminators)
        total = sum(objective.generator_weights[name] * term for name, term in terms.items())
        critic = objective.discriminator_terms(data, outputs, discriminators)
        critic = sum(critic.values())
    found = gradients_of(tape, total, generator.trainable_variables)
    assert len(found) == len(generator.trainable_variables)
    without_effect = biases_before_normalisation(generator)
    assert len(without_effect) == 5 + 12  # of the rough network, of the refinement
    for model in discriminators.values():
        found |= gradients_of(tape, critic, model.trainable_variables)
        without_effect |= biases_before_normalisation(model)
        without_effect.add(model.layers[-2].bias.path)  # scores are compared: their offset cancels
    assert None not in found.values()
    assert {path for path, gradient in found.items() if gradient == 0} <= without_effect

    # The attention's consistency reaches the encoder in front of it, and no decoder.
    path = gradients_of(tape, terms["consistency"], generator.trainable_variables)
    assert path["refine_entry_conv/kernel"] > 0
    assert path["refine_up4_double/kernel"] > 0
    assert path["refine_up1_double/kernel"] is None
    # The rough network learns from its own L1 alone.
    rough = [path for path in found if path.startswith("rough_")]
    for name, value in terms.items():
        reached = gradients_of(tape, value, generator.trainable_variables)
        assert all((reached[path] is not None) == (name in ("rough_l1", "hole")) for path in rough)
