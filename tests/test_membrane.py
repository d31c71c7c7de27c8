"""The membrane against Laplace's equation, its contract, and what it does for a generator."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse
from scipy.sparse.linalg import spsolve

import musical_tf
from musical_tf.layers import Membrane, membrane


def random_values(height, width, channels=2, batch=2, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (batch, height, width, channels)).astype("f")


def boxes(height, width, batch=2):
    """A different box in every sample, the second at the border."""
    hole = np.zeros((batch, height, width, 1), "float32")
    hole[0, height // 4 : -(height // 4), width // 3 : -2] = 1
    hole[1:, : height // 3, width // 2 :] = 1
    return hole


def solve(values, hole):
    """Laplace's equation in the hole, each neighbour that there is counting the same."""
    height, width = hole.shape
    missing = np.argwhere(hole)
    number = {tuple(place): index for index, place in enumerate(missing)}
    system, right = sparse.lil_matrix((len(missing),) * 2), np.zeros(len(missing))
    for (y, x), index in number.items():
        for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= place[0] < height and 0 <= place[1] < width):
                continue
            system[index, index] += 1
            if place in number:
                system[index, number[place]] -= 1
            else:
                right[index] += values[place]
    solution = values.copy()
    solution[tuple(missing.T)] = spsolve(system.tocsr(), right)
    return solution


def test_it_solves_laplaces_equation():
    y, x = np.mgrid[0:64, 0:64] / 64
    values = np.stack([x + 0.3 * np.sin(5 * y), y * y - x], axis=-1)[None]
    hole = boxes(64, 64)[:1]
    filled = Membrane()(values, hole).numpy()
    for channel in range(2):
        exact = solve(values[0, ..., channel], hole[0, ..., 0])
        error = np.abs(filled[0, ..., channel] - exact)
        constant = np.abs(values[0, ..., channel] - values[..., channel][hole[..., 0] == 0].mean())
        inside = hole[0, ..., 0] == 1
        assert error[inside].mean() < 0.1 * constant[inside].mean()
        assert error.max() < 0.12


@pytest.mark.parametrize("side", [(32, 48), (17, 19), (16, 16), (1, 5)])
def test_known_values_stay_and_the_rest_lies_between_them(side):
    values, hole = random_values(*side), boxes(*side)
    hole[0, 0, 0] = 0
    filled = Membrane()(values, hole).numpy()
    assert filled.shape == values.shape
    np.testing.assert_array_equal(filled, np.where(hole > 0, filled, values))
    for sample in range(2):
        known = values[sample][hole[sample, ..., 0] == 0]
        assert (filled[sample] <= known.max(axis=0) + 1e-6).all()
        assert (filled[sample] >= known.min(axis=0) - 1e-6).all()


def test_it_is_linear_and_blind_to_what_lies_under_the_hole():
    first, second, hole = random_values(32, 32), random_values(32, 32, seed=1), boxes(32, 32)
    layer = Membrane()
    both = layer(2 * first - second, hole)
    np.testing.assert_allclose(both, 2 * layer(first, hole) - layer(second, hole), atol=1e-5)
    broken = np.where(hole > 0, np.nan, first)
    np.testing.assert_array_equal(layer(broken, hole), layer(first, hole))


def test_without_known_values_it_is_zero_and_without_a_hole_nothing():
    values = random_values(32, 32)
    np.testing.assert_array_equal(Membrane()(values, np.ones((2, 32, 32, 1))), 0 * values)
    np.testing.assert_array_equal(Membrane()(values, np.zeros((2, 32, 32, 1))), values)


@pytest.mark.parametrize("side", [(32, 48), (17, 19)])
def test_its_gradient_is_its_transpose(side):
    """Of a linear map L: <L(x), y> is <x, gradient of <L(x), y>>."""
    values, upstream = tf.constant(random_values(*side)), random_values(*side, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(values)
        product = tf.reduce_sum(Membrane()(values, boxes(*side)) * upstream)
    gradient = tape.gradient(product, values)
    np.testing.assert_allclose(product, tf.reduce_sum(gradient * values), rtol=1e-4)
    assert np.abs(gradient).max() > 1  # what is known counts for more than itself


def test_smoothing_has_the_gradient_of_the_mean():
    values = tf.constant(random_values(7, 9))
    weights = random_values(7, 9, seed=1)
    found = []
    for smooth in (membrane._smooth, lambda x: tf.nn.avg_pool2d(x, 3, 1, "SAME")):
        with tf.GradientTape() as tape:
            tape.watch(values)
            product = tf.reduce_sum(smooth(values) * weights)
        found.append(tape.gradient(product, values))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_a_generators_colour_shift_ends_at_the_border_of_the_hole():
    """A prediction off by a constant is the same picture: the membrane knows the constant."""
    generator = musical_tf.create("musical", preset="lite", width=8, membrane=True)
    image, hole = tf.constant(random_values(64, 64, 3) * 0.2), tf.constant(boxes(64, 64))
    picture = generator([image, hole])
    np.testing.assert_allclose(picture, tf.where(hole > 0, picture, image), atol=1e-6)
    plain = musical_tf.create("musical", preset="lite", width=8)
    plain.set_weights(generator.get_weights())
    before = plain([image, hole])
    for model in (generator, plain):
        bias = model.get_layer("up1_conv").bias
        bias.assign(bias + 0.1)
    moved = np.abs(generator([image, hole]) - picture)[hole[..., 0] > 0].mean()
    assert moved < 0.1 * np.abs(plain([image, hole]) - before)[hole[..., 0] > 0].mean()


def test_a_generator_with_a_membrane_is_stored_with_it(tmp_path):
    generator = musical_tf.create("musical", preset="lite", width=8, membrane=True)
    generator.save(tmp_path / "generator.keras")
    loaded = musical_tf.load(tmp_path / "generator.keras")
    assert loaded.config.membrane
    data = [random_values(32, 32, 3), boxes(32, 32)]
    np.testing.assert_array_equal(loaded(data), generator(data))
    assert isinstance(loaded.get_layer("membrane"), keras.layers.Layer)
