"""MUSICAL's generator, objective and registry."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf import losses, methods
from musical_tf.conventions import composite
from musical_tf.methods import musical

from .method_contract import batch_of

NARROW = {"width": 8, "inner_levels": 2}


def test_paper_has_the_figures_maps():
    """Names, sizes and channels of Figure 1 at 256 x 256."""
    generator = musical_tf.create("musical", preset="paper")
    assert 43_000_000 < generator.count_params() < 45_000_000
    image, hole = np.zeros((1, 256, 256, 3), "float32"), np.zeros((1, 256, 256, 1), "float32")
    shapes = {
        "down1_conv": (128, 128, 64),
        "down2_norm": (64, 64, 128),
        "down3_norm": (32, 32, 256),
        "down4_norm": (16, 16, 512),
        "down7_dilated_conv": (16, 16, 512),
        "down8_dilated_conv": (16, 16, 512),
        "up8_skip": (16, 16, 1024),
        "up5_skip": (16, 16, 1024),
        "up4_skip": (32, 32, 512),
        "attention": (64, 64, 128),
        "up3_skip": (64, 64, 256),
        "up2_skip": (128, 128, 128),
        "tanh": (256, 256, 3),
    }
    taps = keras.Model(generator.inputs, [generator.get_layer(name).output for name in shapes])
    computed = [tuple(output.shape[1:]) for output in taps([image, hole])]
    assert dict(zip(shapes, computed, strict=True)) == shapes
    assert not [layer.name for layer in generator.layers if "up1_norm" in layer.name]
    for layer in generator.layers:
        if isinstance(layer, keras.layers.GroupNormalization):
            assert layer.groups == layer.gamma.shape[0]  # one channel a group: instance norm
            assert (layer.epsilon, layer.scale, layer.center) == (1e-5, True, True)
        if isinstance(layer, keras.layers.LeakyReLU):
            assert layer.negative_slope == pytest.approx(0.2)
        if isinstance(layer, keras.layers.Conv2D):
            assert layer.use_bias
            assert np.std(layer.kernel) == pytest.approx(0.02, rel=0.1)


def test_the_attention_may_stand_one_level_further_in():
    generator = musical_tf.create("musical", preset="lite", attention_level=4, **NARROW)
    assert generator.get_layer("attention").output.shape[1:] == (None, None, 4 * NARROW["width"])
    found = generator.attention_maps(list(batch_of(64).values()))["3x3"]
    assert (found.stride, found.missing.shape[1:]) == (8, (8, 8))
    with pytest.raises(ValueError, match="attention_level must be within 2 and 4"):
        musical_tf.create("musical", attention_level=5)


def test_a_field_that_leaves_the_weights_alone_may_differ_when_loaded(tmp_path):
    musical_tf.create("musical", preset="lite", **NARROW).save(tmp_path / "g.keras")
    bounded = musical_tf.load(tmp_path / "g.keras", attention_max_scores=40 * 256)
    assert bounded.config.attention_max_scores == 40 * 256
    data = batch_of(64)
    inputs = [data["image"], data["hole"]]
    np.testing.assert_allclose(
        bounded(inputs), musical_tf.load(tmp_path / "g.keras")(inputs), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"musical has no option\(s\) \['unheard_of'\]"):
        musical_tf.load(tmp_path / "g.keras", unheard_of=1)


def test_registry_knows_its_methods():
    assert "musical" in methods.names()
    with pytest.raises(ValueError, match=r"Unknown method 'musicall', expected one of \[.*musical"):
        musical_tf.create("musicall")


def test_load_says_what_is_wrong(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    whole = (tmp_path / "other.keras").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"expected a \.keras file, a run directory"):
        musical_tf.load(tmp_path)
    for content in (b"not a model", whole[: len(whole) // 2]):
        (tmp_path / "generator.keras").write_bytes(content)
        with pytest.raises(ValueError, match="is not a readable generator: it is damaged"):
            musical_tf.load(tmp_path)
    os.mkfifo(tmp_path / "fifo.keras")
    with pytest.raises(ValueError, match="is not a readable generator: it is damaged"):
        musical_tf.load(tmp_path / "fifo.keras")
    with pytest.raises(ValueError, match="holds a Sequential, expected a generator of one of"):
        musical_tf.load(tmp_path / "other.keras")


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_objective_is_equation_7(preset):
    """Every term against the loss functions, put together by hand."""
    config = musical.Config.from_preset(preset, lambda_adversarial=0.0)
    objective = musical.build_objective(config)
    assert objective.generator_weights == {
        "l1": 100.0,
        **({"hole": 6.0} if preset == "official" else {}),
        "perceptual": 0.07,
        "style": 250.0,
        "tv": 0.001,
    }
    data = batch_of(32)
    prediction = tf.random.stateless_uniform(data["image"].shape, (1, 2), -1, 1)
    terms = objective.generator_terms(data, prediction, {})
    assert set(terms) == set(objective.generator_weights)

    error = np.abs(prediction - data["image"])
    terms = {name: float(value) for name, value in terms.items()}
    assert terms["l1"] == pytest.approx(error.mean(), rel=1e-5)
    if preset == "official":
        assert terms["hole"] == pytest.approx((error * data["hole"]).numpy().mean(), rel=1e-5)
    vgg = losses.VGG16Features(normalization="imagenet" if preset == "paper" else "none")
    pasted = composite(prediction, data["image"], data["hole"])
    candidates = [prediction] if preset == "paper" else [prediction, pasted]
    truth = vgg(data["image"])
    perceptual = sum(losses.perceptual_loss(truth, vgg(each)) for each in candidates)
    style = sum(losses.style_loss(truth, vgg(each)) for each in candidates)
    assert terms["perceptual"] == pytest.approx(float(perceptual), rel=1e-4)
    assert terms["style"] == pytest.approx(float(style), rel=1e-4)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_adversarial_weight(preset):
    config = musical.Config.from_preset(preset, discriminator_weights="random")
    expected = 0.3 if preset == "paper" else 0.06
    weights = musical.Objective(config).generator_weights
    assert musical.build_discriminators(musical.Config(adversarial_factor=0), 256) == {}
    assert weights["adversarial"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="adversarial_factor must be >= 0"):
        musical.Config(adversarial_factor=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_full_size_step_reaches_every_variable(preset):
    """At 256 x 256 and full width: a gradient for every variable of both networks."""
    config = musical.Config.from_preset(preset, discriminator_weights="random")
    generator = musical.build_generator(config)
    discriminators = musical.build_discriminators(config, 256)
    objective = musical.build_objective(config)
    data = batch_of(256, batch=1)
    with tf.GradientTape(persistent=True) as tape:
        prediction = generator([data["image"], data["hole"]], training=True)
        terms = objective.generator_terms(data, prediction, discriminators)
        total = sum(objective.generator_weights[name] * term for name, term in terms.items())
        critic = objective.discriminator_terms(data, prediction, discriminators)["discriminator"]
    assert set(terms) == set(objective.generator_weights)
    networks = ((total, generator), (critic, discriminators["densenet121"]))
    for loss, network in networks:
        gradients = tape.gradient(loss, network.trainable_variables)
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            assert gradient is not None, variable.path
            assert np.abs(gradient).max() > 0, variable.path
