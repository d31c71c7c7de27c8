"""GLC: its network, its crops, its losses, its phases, and what every method has to hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import musical_tf
from musical_tf import losses
from musical_tf.conventions import composite
from musical_tf.discriminators import local_global_discriminator
from musical_tf.methods import glc
from training import recipes

from . import method_contract
from .method_contract import batch_of

NARROW = {"width": 4, "discriminator_width": 2, "discriminator_features": 6}
TINY = glc.Config.from_preset("paper", **NARROW)
PHASED = glc.Config.from_preset(
    "paper", **NARROW, completion_steps=2, discriminator_only_steps=1, alpha=0.5
)


# --- the networks ------------------------------------------------------------------------------


def test_paper_has_the_tables_maps():
    """Table 1: names, kernels, sizes and channels, for a width of 64."""
    generator = musical_tf.create("glc", "paper")
    assert 6_000_000 < generator.count_params() < 6_200_000
    convolutions = [
        (layer.kernel_size[0], layer.strides[0], layer.dilation_rate[0], layer.filters)
        for layer in generator.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Conv2DTranspose))
    ]
    assert convolutions == [
        (5, 1, 1, 64),
        (3, 2, 1, 128),
        (3, 1, 1, 128),
        (3, 2, 1, 256),
        (3, 1, 1, 256),
        (3, 1, 1, 256),
        (3, 1, 2, 256),
        (3, 1, 4, 256),
        (3, 1, 8, 256),
        (3, 1, 16, 256),
        (3, 1, 1, 256),
        (3, 1, 1, 256),
        (4, 2, 1, 128),
        (3, 1, 1, 128),
        (4, 2, 1, 64),
        (3, 1, 1, 32),
        (3, 1, 1, 3),
    ]
    taps = {"full1_act": 40, "half2_act": 20, "dilated16_act": 10, "half4_act": 20, "full3_act": 40}
    model = keras.Model(generator.inputs, [generator.get_layer(name).output for name in taps])
    computed = [
        output.shape[1] for output in model([tf.zeros((1, 40, 40, 3)), tf.zeros((1, 40, 40, 1))])
    ]
    assert computed == list(taps.values())
    norms = [each for each in generator.layers if isinstance(each, keras.layers.BatchNormalization)]
    assert len(norms) == 16
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}


def test_the_discriminator_is_that_of_table_2():
    discriminator = glc.build_discriminators(glc.Config(), 256)["context"]
    assert [tuple(each.shape[1:3]) for each in discriminator.inputs] == [(128, 128), (256, 256)]
    for branch, channels in (
        ("local", [64, 128, 256, 512, 512]),
        ("global", [64, 128, 256, 512, 512, 512]),
    ):
        layers = [
            each
            for each in discriminator.layers
            if each.name.startswith(branch) and isinstance(each, keras.layers.Conv2D)
        ]
        assert [layer.filters for layer in layers] == channels
        assert {(layer.kernel_size, layer.strides) for layer in layers} == {((5, 5), (2, 2))}
        assert discriminator.get_layer(f"{branch}_flat").output.shape[1] == 4 * 4 * 512
        assert discriminator.get_layer(f"{branch}_features").units == 1024
    assert discriminator.output_shape == (None, 1)


def test_the_discriminator_fits_other_sizes():
    discriminator = local_global_discriminator(96, 48, 2, 4)
    assert discriminator([tf.zeros((2, 48, 48, 3)), tf.zeros((2, 96, 96, 3))]).shape == (2, 1)
    with pytest.raises(ValueError, match="at least 16, got 20 and 10"):
        local_global_discriminator(20, 10)
    with pytest.raises(ValueError, match="at least 1, got 0 and 1024"):
        local_global_discriminator(64, 32, width=0)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="width must be >= 2, got 1"):
        glc.Config(width=1)
    with pytest.raises(ValueError, match="completion_steps must be >= 0"):
        glc.Config(completion_steps=-1)


# --- losses and phases -------------------------------------------------------------------------


class Recorder:
    """Stands where the discriminator does and keeps what it is shown."""

    def __init__(self, crop_size):
        self.inputs = [tf.zeros((1, crop_size, crop_size, 3))]
        self.seen = []

    def __call__(self, inputs, training):
        assert training is True
        self.seen.append([each.numpy() for each in inputs])
        return tf.reduce_mean(inputs[0], axis=(1, 2, 3))[:, None]


def test_the_discriminator_sees_completed_images_and_a_crop_around_each_hole():
    image = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    hole = np.zeros((2, 32, 32, 1), "float32")
    hole[0, 10:14, 12:20] = 1  # its centre is (12, 16)
    hole[1, 28:, :4] = 1  # at the border: the crop is moved inside
    corners = [(4, 8), (16, 0)]
    batch = {"image": tf.constant(image), "hole": tf.constant(hole)}
    prediction = tf.constant(0.25 * image)
    completed = composite(prediction, image, hole).numpy()
    objective = glc.build_objective(TINY)

    def crops(images, at):
        return [each[y : y + 16, x : x + 16] for each, (y, x) in zip(images, at, strict=True)]

    recorder = Recorder(16)
    terms = objective.generator_terms(batch, prediction, {"context": recorder})
    np.testing.assert_array_equal(recorder.seen[0][0], crops(completed, corners))
    np.testing.assert_array_equal(recorder.seen[0][1], completed)
    error = np.square((image - 0.25 * image) / 2) * hole
    assert float(terms["mse"]) == pytest.approx(error.mean(), rel=1e-5)
    logits = recorder.seen[0][0].mean((1, 2, 3))
    assert float(terms["adversarial"]) == pytest.approx(np.log1p(np.exp(-logits)).mean(), rel=1e-5)

    recorder = Recorder(16)
    terms = objective.discriminator_terms(batch, prediction, {"context": recorder})
    real, fake = recorder.seen
    np.testing.assert_array_equal(real[0], crops(image, corners[::-1]))  # the other's hole
    np.testing.assert_array_equal(real[1], image)
    np.testing.assert_array_equal(fake[0], crops(completed, corners))
    expected = losses.discriminator_loss(real[0].mean((1, 2, 3)), fake[0].mean((1, 2, 3)))
    assert float(terms["discriminator"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_squared_error_is_in_units_of_zero_to_one():
    white, black = tf.ones((1, 2, 2, 3)), -tf.ones((1, 2, 2, 3))
    assert float(glc.hole_mse_loss(white, black, tf.ones((1, 2, 2, 1)))) == 1.0
    assert float(glc.hole_mse_loss(white, black, tf.zeros((1, 2, 2, 1)))) == 0.0


def phases(config, *steps):
    objective = glc.build_objective(config)
    for number in steps:
        step = tf.constant(number, tf.int64)
        on, weights = objective.phase(step), objective.phase_weights(step)
        assert weights.keys() == objective.generator_weights.keys()
        assert float(weights["mse"]) == 1.0
        adversarial = float(weights.get("adversarial", 0.0))
        yield bool(on["generator"]), bool(on["discriminators"]), pytest.approx(adversarial)


def test_the_papers_phases():
    alone, against, both = (True, False, 0.0), (False, True, 0.0), (True, True, 4e-4)
    assert list(phases(glc.Config(), 0, 89_999)) == [alone] * 2
    assert list(phases(glc.Config(), 90_000, 99_999)) == [against] * 2
    assert list(phases(glc.Config(), 100_000, 499_999)) == [both] * 2


def test_without_alpha_the_completion_network_is_trained_alone_and_always():
    config = glc.Config(**NARROW, alpha=0.0, completion_steps=1)
    assert list(phases(config, 0, 1, 10**6)) == [(True, False, 0.0)] * 3


@pytest.mark.usefixtures("eager")
def test_the_trainer_follows_the_phases():
    trainer = method_contract.make_trainer("glc", PHASED, 32)
    sides = {
        "generator": trainer.generator_variables,
        "discriminator": trainer.discriminator_variables["context"],
    }
    moved, totals = [], []
    for step in range(5):
        before = {name: [v.numpy().copy() for v in side] for name, side in sides.items()}
        logs = trainer.update(batch_of(32, seed=step))
        expected = logs["mse"] + (0.5 * logs["adversarial"] if step >= 3 else 0.0)
        assert logs["total"] == pytest.approx(expected, rel=1e-5)
        totals.append(logs["total"])
        moved.append(
            tuple(
                name
                for name, side in sides.items()
                if any(
                    not np.array_equal(v.numpy(), old)
                    for v, old in zip(side, before[name], strict=True)
                )
            )
        )
    both = ("generator", "discriminator")
    assert moved == [("generator",), ("generator",), ("discriminator",), both, both]
    assert int(trainer.generator_optimizer.iterations) == 4
    assert int(trainer.discriminator_optimizer.iterations) == 3


# --- what every method has to hold -------------------------------------------------------------


@pytest.mark.usefixtures("eager")
def test_resume(tmp_path):
    """Across all three phases: the checkpoint stands between the first and the second."""
    method_contract.check_resume("glc", PHASED, 32, tmp_path, steps=2)


def test_recipes():
    paper = recipes.resolve("celeba", data_dir="photographs", method="glc")
    assert (paper.batch_size, paper.epochs, paper.steps) == (96, None, 500_000)
    assert (paper.image_size, paper.mask) == (256, "box")
    assert paper.method_config() == glc.Config()
    lite = recipes.resolve("celeba", data_dir="photographs", method="glc", preset="lite")
    config = lite.method_config()
    assert config.completion_steps + config.discriminator_only_steps < lite.steps
    assert lite.ema == 0
