"""Shift-Net: its shift, its network, its losses, and what every method has to hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf import losses
from musical_tf.conventions import downsample_hole
from musical_tf.discriminators import patch_discriminator
from musical_tf.layers.shift import ShiftConnection, shift, shift_sources
from musical_tf.losses.reconstruction import discounted_hole, region_l1_loss
from musical_tf.methods import shift_net
from training import recipes

from . import method_contract
from .method_contract import batch_of, inputs_of

NARROW = {"width": 4, "levels": 4, "discriminator_width": 4}
TINY = shift_net.Config.from_preset("paper", **NARROW)


# --- the shift ---------------------------------------------------------------------------------


def maps(batch=2, height=5, width=6, channels=4, seed=0):
    """Decoder and encoder features and a hole per sample; the last sample is all hole."""
    random = np.random.default_rng(seed)
    decoder, encoder = random.normal(size=(2, batch, height, width, channels)).astype("float32")
    hole = np.zeros((batch, height, width, 1), "float32")
    hole[0, 1:3, 2:5] = 1
    hole[0, 4, 0] = 1
    hole[1:] = 1
    return decoder, encoder, hole


def plain_loop(decoder, encoder, hole):
    """The definition of Section 3.2, one position after the other."""
    copied = np.zeros_like(encoder)
    sources = np.full((*encoder.shape[:3], 2), -1)
    for b, y, x in np.argwhere(hole[..., 0] > 0.5):
        best = -np.inf
        for u, v in np.argwhere(hole[b, ..., 0] <= 0.5):
            query, key = decoder[b, y, x], encoder[b, u, v]
            cosine = query @ key / np.linalg.norm(query) / np.linalg.norm(key)
            if cosine > best:
                best, sources[b, y, x] = cosine, (u, v)
                copied[b, y, x] = key
    return copied, sources


def test_shift_equals_the_plain_loop():
    decoder, encoder, hole = maps()
    copied, sources = plain_loop(decoder, encoder, hole)
    assert (sources[0][hole[0, ..., 0] > 0.5] >= 0).all()
    assert not copied[1].any()  # nothing is known there
    np.testing.assert_array_equal(shift(decoder, encoder, hole), copied)
    np.testing.assert_array_equal(shift_sources(decoder, encoder, hole), sources)
    assert not np.any(shift(decoder, encoder, 0 * hole))
    assert (np.asarray(shift_sources(decoder, encoder, 0 * hole)) == -1).all()
    assert np.isfinite(shift(0 * decoder, 0 * encoder, hole)).all()
    joined = ShiftConnection()(*map(tf.constant, (decoder, encoder, hole)))
    np.testing.assert_array_equal(joined, np.concatenate([decoder, encoder, copied], axis=-1))


def test_only_the_direction_of_features_counts():
    decoder, encoder, hole = maps()
    scale = np.random.default_rng(1).uniform(0.1, 9, (2, 5, 6, 1)).astype("float32")
    expected = shift_sources(decoder, encoder, hole)
    np.testing.assert_array_equal(shift_sources(decoder * scale, encoder, hole), expected)
    np.testing.assert_array_equal(shift_sources(decoder, encoder * scale, hole), expected)


def test_the_gradient_reaches_the_copied_values_and_no_choice():
    decoder, encoder, hole = map(tf.constant, maps())
    with tf.GradientTape() as tape:
        tape.watch([decoder, encoder])
        total = tf.reduce_sum(shift(decoder, encoder, hole))
    of_decoder, of_encoder = tape.gradient(total, [decoder, encoder], unconnected_gradients="none")
    assert of_decoder is None
    times = np.zeros(encoder.shape)
    for y, x in np.argwhere(hole[0, ..., 0] > 0.5):
        times[0, *plain_loop(*maps())[1][0, y, x]] += 1
    np.testing.assert_array_equal(of_encoder, times)


def test_shift_refuses_other_channels():
    with pytest.raises(ValueError, match="same number of channels, got 4 and 3"):
        ShiftConnection()(tf.zeros((1, 2, 2, 4)), tf.zeros((1, 2, 2, 3)), tf.zeros((1, 2, 2, 1)))


# --- the networks ------------------------------------------------------------------------------


def test_paper_has_the_figures_maps():
    """Names, sizes and channels at 256 x 256, for a width of 1 instead of 64."""
    paper = shift_net.Config()
    assert (paper.width, paper.levels, paper.width_limit) == (64, 8, 8)
    generator = musical_tf.create("shift_net", "paper", width=1)
    assert generator.size_multiple == 256
    shapes = {
        "down1_conv": (128, 128, 1),
        "down2_norm": (64, 64, 2),
        "down3_norm": (32, 32, 4),
        "down4_norm": (16, 16, 8),
        "down7_norm": (2, 2, 8),
        "down8_conv": (1, 1, 8),
        "up8_norm": (2, 2, 8),
        "up7_skip": (2, 2, 16),
        "up4_norm": (32, 32, 4),
        "shift": (32, 32, 12),
        "up3_norm": (64, 64, 2),
        "up2_norm": (128, 128, 1),
        "up1_skip": (128, 128, 2),
        "tanh": (256, 256, 3),
    }
    taps = keras.Model(generator.inputs, [generator.get_layer(name).output for name in shapes])
    image, hole = tf.zeros((1, 256, 256, 3)), tf.zeros((1, 256, 256, 1))
    computed = [tuple(output.shape[1:]) for output in taps([image, hole])]
    assert dict(zip(shapes, computed, strict=True)) == shapes
    names = [layer.name for layer in generator.layers]
    assert not {"down1_norm", "down8_norm", "up1_norm"} & set(names)
    assert not [variable.path for variable in generator.variables if "bias" in variable.path]


def test_the_discriminators_scores_see_70_pixels():
    discriminator = patch_discriminator(width=2)
    image = tf.random.stateless_uniform((1, 256, 256, 3), (1, 2), -1, 1)
    with tf.GradientTape() as tape:
        tape.watch(image)
        scores = discriminator(image, training=False)
        one = scores[0, 15, 15, 0]
    assert scores.shape == (1, 30, 30, 1)
    seen = np.argwhere(np.abs(tape.gradient(one, image)[0]).max(-1) > 0)
    np.testing.assert_array_equal(np.ptp(seen, axis=0) + 1, [70, 70])


@pytest.mark.parametrize(("normalization", "spectral"), [("batch", False), ("instance", True)])
def test_discriminator_variants(normalization, spectral):
    discriminator = patch_discriminator(4, normalization=normalization, spectral=spectral)
    kinds = {type(layer).__name__ for layer in discriminator.layers}
    assert ("BatchNormalization" in kinds) == (normalization == "batch")
    assert ("SpectralNormalization" in kinds) == spectral
    with pytest.raises(ValueError, match="one of 'batch', 'instance', got 'layer'"):
        patch_discriminator(normalization="layer")
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        patch_discriminator(0)


def test_sizes_that_do_not_go_through_are_refused_before_the_training():
    with pytest.raises(ValueError, match="multiple of 256, got 128; levels=7 is the most"):
        shift_net.build_discriminators(shift_net.Config(), 128)
    with pytest.raises(ValueError, match="levels must be >= 4, got 3"):
        shift_net.Config(levels=3)


# --- the losses --------------------------------------------------------------------------------


def test_objective_by_hand():
    generator, discriminators, objective = method_contract.build("shift_net", TINY, 32)
    assert objective.generator_weights == {"l1": 100.0, "guidance": 1.0, "adversarial": 0.2}
    assert objective.vgg is None
    data = batch_of(32)
    outputs = generator.training_outputs(inputs_of(data))
    terms = objective.generator_terms(data, outputs, discriminators)

    np.testing.assert_allclose(outputs["prediction"], generator(inputs_of(data)), atol=1e-6)
    # With an empty hole nothing is erased: the true image's features from the other side.
    empty = [data["image"], 0 * data["hole"]]
    encoder = keras.Model(generator.inputs, generator.get_layer("shift_encoder_act").output)
    differing = np.abs(outputs["truth"] - encoder(empty)).max()
    assert 0 < differing < 0.5 * np.abs(outputs["truth"]).max()  # only the hole's channel differs

    missing = np.asarray(downsample_hole(data["hole"], 8))
    distance = np.square(np.asarray(outputs["decoder"] - outputs["truth"])) * missing
    assert 0 < float(terms["guidance"]) == pytest.approx(distance.mean(), rel=1e-5)
    error = np.abs(np.asarray(data["image"] - outputs["prediction"]))
    assert float(terms["l1"]) == pytest.approx(error.mean(), rel=1e-5)
    logits = discriminators["patch"](outputs["prediction"], training=True)
    adversarial = losses.generator_adversarial_loss(logits)
    assert float(terms["adversarial"]) == pytest.approx(float(adversarial), rel=1e-4)


def test_official_adds_the_terms_of_the_later_code():
    config = shift_net.Config.from_preset("official", **NARROW)
    generator, discriminators, objective = method_contract.build("shift_net", config, 32)
    assert objective.generator_weights == {
        "l1": 100.0,
        "hole": 400.0,
        "guidance": 1.0,
        "style": 10.0,
        "content": 1.0,
        "adversarial": 0.2,
    }
    data = batch_of(32)
    outputs = generator.training_outputs(inputs_of(data))
    terms = objective.generator_terms(data, outputs, discriminators)
    vgg = losses.VGG16Features(normalization="none")  # the later code feeds [-1, 1] as it is
    pairs = list(zip(vgg(data["image"]), vgg(outputs["prediction"]), strict=True))
    content = sum(np.square(a - b).mean() for a, b in pairs)
    grams = [[np.asarray(losses.gram_matrix(each)) for each in pair] for pair in pairs]
    style = sum(np.square(a - b).mean() for a, b in grams)
    assert float(terms["content"]) == pytest.approx(content, rel=1e-3)
    assert float(terms["style"]) == pytest.approx(style, rel=1e-3)
    expected = region_l1_loss(
        data["image"], outputs["prediction"], data["hole"], discounted_hole(data["hole"], 0.9)
    )
    assert float(terms["hole"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_true_images_features_get_no_gradient():
    generator = method_contract.build("shift_net", TINY, 32)[0]
    with tf.GradientTape() as tape:
        truth = generator.training_outputs(inputs_of(batch_of(32)))["truth"]
    assert not [each for each in tape.gradient(truth, generator.trainable_variables) if each]


# --- what every method has to hold -------------------------------------------------------------


def test_without_the_shift_both_maps_are_joined():
    without = musical_tf.create("shift_net", "paper", shift=False, **NARROW)
    assert without.get_layer("up3_skip").output.shape[-1] == 2 * 16


def test_sources_are_known_positions_of_the_same_sample():
    generator = method_contract.random_generator("shift_net", **NARROW)
    data = batch_of(64)
    sources = np.asarray(generator.attention_sources(inputs_of(data)))
    assert sources.shape == (2, 8, 8, 2)
    missing = np.asarray(downsample_hole(data["hole"], 8))[..., 0] > 0.5
    assert missing.any(axis=(1, 2)).all()
    np.testing.assert_array_equal((sources >= 0).all(-1), missing)
    for b, y, x in np.argwhere(missing):
        assert not missing[b, *sources[b, y, x]]
    assert len(np.unique(sources[missing], axis=0)) > 1


def test_recipes():
    paper, official = (
        recipes.resolve("celeba", data_dir="photographs", method="shift_net", preset=preset)
        for preset in ("paper", "official")
    )
    for recipe in (paper, official):  # both codes: 30 epochs, none of decay
        assert (recipe.batch_size, recipe.epochs, recipe.image_size) == (1, 30, 256)
        assert (recipe.learning_rate, recipe.beta_1, recipe.schedule) == (2e-4, 0.5, "constant")
    assert paper.method_config() == shift_net.Config()
    lite = recipes.resolve("celeba", data_dir="photographs", method="shift_net", preset="lite")
    assert lite.image_size % 2 ** lite.method_config().levels == 0
    demo = recipes.resolve("demo", method="shift_net")
    shift_net.build_discriminators(demo.method_config(), demo.image_size)
