"""Context Encoder: its window, its network, its losses, and what every method has to hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf import losses
from musical_tf.conventions import mask_image
from musical_tf.discriminators import dcgan_discriminator
from musical_tf.methods import context_encoder
from musical_tf.methods.context_encoder import context_window
from training import recipes

from . import method_contract
from .method_contract import batch_of, inputs_of

NARROW = {"width": 2, "bottleneck": 6, "discriminator_width": 2}
TINY = context_encoder.Config.from_preset("paper", **NARROW)
TINY_ANY = context_encoder.Config.from_preset("paper", **NARROW, region="any")


def hole_of(height, width, top, bottom, left, right):
    hole = np.zeros((1, height, width, 1), "float32")
    hole[:, top:bottom, left:right] = 1
    return tf.constant(hole)


def image_of(height, width, batch=1, seed=0):
    random = np.random.default_rng(seed)
    return tf.constant(random.uniform(-1, 1, (batch, height, width, 3)).astype("float32"))


# --- the window --------------------------------------------------------------------------------


def test_of_the_papers_geometry_the_window_is_the_image():
    """128 x 128 with the central 64 x 64 missing: nothing is resampled."""
    image, hole = image_of(128, 128), hole_of(128, 128, 32, 96, 32, 96)
    window = context_window(hole, "center", overlap=4)
    np.testing.assert_array_equal(window.cut_frame(image), image)
    np.testing.assert_array_equal(window.cut_patch(image), image[:, 32:96, 32:96])
    patch = image_of(64, 64, seed=1)
    pasted = window.paste(patch, image)
    np.testing.assert_array_equal(pasted[:, 32:96, 32:96], patch)
    np.testing.assert_array_equal(np.where(hole > 0.5, image, pasted), image)

    generator = method_contract.random_generator("context_encoder", **NARROW)
    prediction = generator([image, hole])
    network = generator.network(mask_image(image, hole))
    np.testing.assert_array_equal(prediction[:, 32:96, 32:96], network)


@pytest.mark.parametrize(
    ("size", "box", "side", "patch_side"),
    [
        ((128, 128), (32, 96, 32, 96), 128, 64),  # no room for an overlap
        ((256, 256), (64, 192, 64, 192), 256, 128),
        ((400, 300), (100, 156, 30, 60), 128, 64),  # 4 of 64 pixels on each side
        ((400, 300), (0, 28, 272, 300), 64, 32),  # at a corner: the window leaves the image
        ((400, 300), (7, 8, 9, 10), 32, 16),  # a speck
        ((400, 300), (0, 400, 100, 110), 800, 400),  # a scratch from side to side
        ((20, 30), (5, 6, 7, 8), 20, 10),  # a speck in a small image
        ((40, 60), (0, 40, 0, 60), 120, 60),  # nothing is known
        ((40, 60), (0, 0, 0, 0), 120, 60),  # nothing is missing
    ],
)
def test_the_window_is_centred_on_the_hole(size, box, side, patch_side):
    window = context_window(hole_of(*size, *box), "center", overlap=4)
    assert float(window.side[0]) == pytest.approx(side)
    assert float(window.patch_side[0]) == pytest.approx(patch_side)
    top, bottom, left, right = box if any(box) else (0, size[0], 0, size[1])
    assert float(window.rows[0]) == (top + bottom) / 2
    assert float(window.columns[0]) == (left + right) / 2


def test_every_hole_lies_in_its_predicted_square():
    random = np.random.default_rng(0)
    generator = method_contract.random_generator("context_encoder", **NARROW)
    for _ in range(20):
        height, width = random.integers(16, 90, 2)
        top, left = random.integers(0, height), random.integers(0, width)
        bottom, right = random.integers(top + 1, height + 1), random.integers(left + 1, width + 1)
        hole = hole_of(height, width, top, bottom, left, right)
        window = generator.window_of(hole)
        marked = window.paste(tf.ones((1, 64, 64, 1)), tf.zeros_like(hole))
        assert np.asarray(marked)[np.asarray(hole) > 0.5].min() == pytest.approx(1.0)


def test_resampling_keeps_what_is_smooth():
    """A ramp comes back from the window's pixels to the image's, within a pixel of its slope."""
    ramp = np.linspace(-1, 1, 200, dtype="float32")
    image = tf.constant(np.broadcast_to(ramp[None, :, None, None], (1, 200, 150, 3)))
    for box in ((60, 110, 40, 100), (90, 98, 40, 50)):
        window = context_window(hole_of(200, 150, *box), "center", overlap=4)
        back = window.paste(window.cut_patch(image), tf.zeros_like(image))
        inside = np.s_[:, box[0] : box[1], box[2] : box[3]]
        np.testing.assert_allclose(back[inside], image[inside], atol=0.02)
        frame = window.cut_frame(image).numpy()
        assert (np.diff(frame[0, 1:-1, 64, 0]) > 0).all()


def test_outside_the_image_it_is_reflected():
    image, hole = image_of(64, 64), hole_of(64, 64, 0, 32, 0, 32)
    window = context_window(hole, "center", overlap=0)
    assert (float(window.rows[0]), float(window.side[0])) == (16, 64)
    frame = window.cut_frame(image)[0, ::2, ::2, 0].numpy()  # two samples a pixel
    expected = np.pad(image[0, :, :, 0], ((16, 0), (16, 0)), mode="reflect")[:64, :64]
    assert np.corrcoef(frame.ravel(), expected.ravel())[0, 1] > 0.8


def test_any_sees_all_of_the_image():
    image, hole = image_of(128, 128), hole_of(128, 128, 3, 9, 100, 120)
    window = context_window(hole, "any", overlap=4)
    np.testing.assert_array_equal(window.cut_frame(image), image)
    np.testing.assert_array_equal(window.cut_patch(image), image)
    np.testing.assert_array_equal(window.paste(0.5 * image, image), 0.5 * image)
    wide = context_window(hole_of(100, 300, 3, 9, 100, 120), "any", overlap=4)
    assert float(wide.side[0]) == float(wide.patch_side[0]) == 300


# --- the networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["center", "any"])
def test_paper_has_the_figures_maps(region):
    """Figure 9 of the supplement, for a width of 1 and a bottleneck of 5."""
    paper = context_encoder.Config()
    assert (paper.width, paper.bottleneck, paper.region, paper.overlap) == (64, 4000, "center", 4)
    network = musical_tf.create("context_encoder", region=region, width=1, bottleneck=5).network
    shapes = {
        "encoder1_conv": (64, 64, 1),
        "encoder2_norm": (32, 32, 1),
        "encoder3_norm": (16, 16, 2),
        "encoder4_norm": (8, 8, 4),
        "encoder5_norm": (4, 4, 8),
        "bottleneck_norm": (1, 1, 5),
        "decoder1_norm": (4, 4, 8),
        "decoder2_norm": (8, 8, 4),
        "decoder3_norm": (16, 16, 2),
        "decoder4_norm": (32, 32, 1),
        "tanh": (64, 64, 3) if region == "center" else (128, 128, 3),
    }
    if region == "any":
        shapes["decoder5_norm"] = (64, 64, 1)
    computed = {name: network.get_layer(name).output.shape[1:] for name in shapes}
    assert computed == shapes
    norms = [each for each in network.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert len(norms) == len(shapes) - 2
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
    assert not [variable.path for variable in network.variables if "bias" in variable.path]


@pytest.mark.parametrize(("size", "channels"), [(64, [2, 4, 8, 16, 1]), (128, [2, 2, 4, 8, 16, 1])])
def test_the_discriminator_ends_in_one_score(size, channels):
    discriminator = dcgan_discriminator(size, width=2)
    convolutions = [
        layer for layer in discriminator.layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert [layer.filters for layer in convolutions] == channels
    assert discriminator.output_shape == (None, 1)
    with pytest.raises(ValueError, match="power of two, at least 64, got 96"):
        dcgan_discriminator(96)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        dcgan_discriminator(64, width=0)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"region must be one of \['center', 'any'\]"):
        context_encoder.Config(region="centre")
    with pytest.raises(ValueError, match="overlap must be at least 0 and below 32, got 32"):
        context_encoder.Config(overlap=32)
    with pytest.raises(ValueError, match="known_weight must be >= 0"):
        context_encoder.Config(known_weight=-1.0)


def test_one_photograph_a_batch_is_refused_in_training():
    generator = musical_tf.create("context_encoder", **NARROW)
    generator(inputs_of(batch_of(32, batch=1)))
    with pytest.raises(ValueError, match="at least 2 photographs, got 1"):
        generator.training_outputs(inputs_of(batch_of(32, batch=1)))


# --- the losses --------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "known_weight"), [(TINY, 10.0), (TINY_ANY, 1.0)])
def test_objective_by_hand(config, known_weight):
    generator, discriminators, objective = method_contract.build("context_encoder", config, 128)
    assert objective.generator_weights == {"l2": 0.999, "adversarial": 0.001}
    hole = tf.concat([hole_of(128, 128, 50, 80, 40, 70), hole_of(128, 128, 32, 96, 32, 96)], 0)
    data = {"image": image_of(128, 128, 2), "hole": hole}
    outputs = generator.training_outputs(inputs_of(data))
    terms = objective.generator_terms(data, outputs, discriminators)
    size = config.patch_size
    assert outputs["patch"].shape == (2, size, size, 3)
    known = 1 - np.asarray(outputs["patch_hole"])
    if config.region == "center":
        # A border of 4 pixels in the first; in the second there is no room for one. A pixel of the
        # patch is missing if any pixel under it is.
        assert not known[0, 4:60, 4:60].any()
        assert known[0, :3].all()
        assert known[0, :, 61:].all()
        assert not known[1].any()
        np.testing.assert_array_equal(outputs["truth"][1], data["image"][1, 32:96, 32:96])
    else:
        np.testing.assert_array_equal(1 - known, hole)
        np.testing.assert_array_equal(outputs["truth"], data["image"])
    error = np.square(np.asarray(outputs["truth"] - outputs["patch"]))
    weight = 1 + (known_weight - 1) * known
    assert float(terms["l2"]) == pytest.approx((error * weight).mean(), rel=1e-5)
    logits = discriminators["patch"](outputs["patch"], training=True)
    adversarial = losses.generator_adversarial_loss(logits)
    assert float(terms["adversarial"]) == pytest.approx(float(adversarial), rel=1e-4)
    real = discriminators["patch"](outputs["truth"], training=True)
    against = objective.discriminator_terms(data, outputs, discriminators)["discriminator"]
    assert float(against) == pytest.approx(float(losses.discriminator_loss(real, logits)), rel=1e-4)


def test_the_weight_of_known_pixels_may_be_set_and_terms_left_out():
    config = context_encoder.Config(**NARROW, known_weight=0.0, lambda_adversarial=0.0)
    objective = context_encoder.build_objective(config)
    truth, patch = tf.zeros((1, 2, 2, 3)), tf.ones((1, 2, 2, 3))
    missing = tf.reshape(tf.constant([1.0, 0.0, 0.0, 0.0]), (1, 2, 2, 1))
    outputs = {"truth": truth, "patch": patch, "patch_hole": missing}
    terms = objective.generator_terms({}, outputs, {})
    assert {name: float(value) for name, value in terms.items()} == {"l2": 0.25}


# --- what every method has to hold -------------------------------------------------------------


def test_recipes():
    paper = recipes.resolve("celeba", data_dir="photographs", method="context_encoder")
    assert (paper.batch_size, paper.epochs, paper.image_size) == (64, 500, 128)
    assert (paper.learning_rate, paper.mask) == (2e-3, "center")
    assert paper.method_config() == context_encoder.Config()
    lite = recipes.resolve(
        "celeba", data_dir="photographs", method="context_encoder", preset="lite"
    )
    assert (lite.image_size, lite.ema) == (128, 0)
    assert lite.batch_size >= 2
