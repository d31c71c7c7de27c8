"""The aggregation of residuals: its definition, its contract, and what it does for a fill."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import musical_tf
from musical_tf.layers import ResidualAggregation
from musical_tf.layers import residual_aggregation as module


def photograph(height, width, seed=0):
    """Smooth colours with a texture on them, `(1, H, W, 3)` in [-1, 1]."""
    noise = np.random.default_rng(seed)
    broad = ndimage.gaussian_filter(noise.normal(size=(height, width, 3)), (12, 12, 0)) * 15
    fine = ndimage.gaussian_filter(noise.normal(size=(height, width, 3)), (1, 1, 0)) * 0.3
    return np.clip(broad + fine, -1, 1)[None].astype("float32")


def box(height, width, top, bottom, left, right):
    hole = np.zeros((1, height, width, 1), "float32")
    hole[:, top:bottom, left:right] = 1
    return hole


def filled_softly(image, hole):
    soft = ndimage.gaussian_filter(image, (0, 5, 5, 0))
    return np.where(hole > 0, soft, image).astype("float32")


def patch(grid, y, x, size):
    """Places of a patch that lie on the grid, as `{offset: values}`."""
    reach = range(-(size // 2), size // 2 + 1)
    height, width = grid.shape[:2]
    places = ((y + v, x + u, v, u) for v in reach for u in reach)
    return {(v, u): grid[j, i] for j, i, v, u in places if 0 <= j < height and 0 <= i < width}


def aggregate(image, residual, energy, hole):
    """The definition, one query and one candidate after the other."""
    cell = module.CELL
    height, width = hole.shape[0] // cell, hole.shape[1] // cell
    marks = np.concatenate([image, 2 * np.sqrt(energy)], axis=-1)
    marks = marks.reshape(height, cell, width, cell, 4).mean((1, 3))
    side, middle = np.exp(-2.0), 1.0
    weights = np.array([side, middle, side]) / (2 * side + middle)
    counted = np.ones((height, width))
    for axis in (0, 1):
        marks = ndimage.correlate1d(marks, weights, axis, mode="constant")
        counted = ndimage.correlate1d(counted, weights, axis, mode="constant")
    marks /= counted[..., None]
    missing = hole.reshape(height, cell, width, cell).max((1, 3))
    places = list(np.ndindex(height, width))
    usable = [
        len(known := patch(1 - missing, *place, 3)) == 9 and min(known.values()) > 0
        for place in places
    ]
    rows, columns = (np.flatnonzero(missing.any(axis)) for axis in (1, 0))
    queries = [
        (y, x)
        for y in range(rows[0] - 1, rows[-1] + 2)
        for x in range(columns[0] - 1, columns[-1] + 2)
    ]
    distance = np.full((len(queries), len(places)), 1e4)
    for row, query in enumerate(queries):
        wanted = patch(marks, *query, 5)
        for column, place in enumerate(places):
            if usable[column]:
                found = patch(marks, *place, 5)
                both = wanted.keys() & found.keys()
                distance[row, column] = np.mean(
                    [np.square(wanted[each] - found[each]).sum() for each in both]
                )
    least = distance.min(1, keepdims=True)
    asked = [missing[place] > 0 if min(place) >= 0 else False for place in queries]
    temperature = least[asked].mean() + module.LEAST_TEMPERATURE
    likeness = np.exp(np.maximum((least - distance) / temperature, -60)) * usable
    shape = (rows[-1] - rows[0] + 3, columns[-1] - columns[0] + 3, height, width)
    attention = likeness / likeness.sum(1, keepdims=True)
    for _ in range(module.PROPAGATIONS):
        heard = np.zeros(shape)
        current = attention.reshape(shape)
        for y, x, j, i in np.ndindex(shape):
            for v, u in np.ndindex(5, 5):
                place = (y + v - 2, x + u - 2, j + v - 2, i + u - 2)
                if all(0 <= at < length for at, length in zip(place, shape, strict=True)):
                    heard[y, x, j, i] += current[place]
        attention = likeness * heard.reshape(attention.shape)
        attention /= attention.sum(1, keepdims=True)
    attention = attention**module.SHARPNESS
    attention /= attention.sum(1, keepdims=True)
    unlike = (attention * distance).sum(1, keepdims=True)
    attention *= np.exp(-unlike / module.TOLERANCE)

    hann = np.hanning(3 * cell + 2)[1:-1]
    window = np.outer(hann, hann)[..., None]
    pasted = np.zeros((hole.shape[0] + 2 * cell, hole.shape[1] + 2 * cell, 3))
    total = np.zeros_like(pasted)
    padded = np.pad(residual, [[cell, cell], [cell, cell], [0, 0]])
    for (y, x), of_query in zip(queries, attention, strict=True):
        target = np.s_[y * cell : (y + 3) * cell, x * cell : (x + 3) * cell]
        for (j, i), weight in zip(places, of_query, strict=True):
            source = padded[j * cell : (j + 3) * cell, i * cell : (i + 3) * cell]
            pasted[target] += weight * window * source
        total[target] += window
    return (pasted / np.maximum(total, 1e-12))[cell:-cell, cell:-cell]


def test_it_is_what_its_definition_says():
    image, hole = photograph(64, 72), box(64, 72, 24, 41, 27, 52)
    filled = filled_softly(image, hole)
    residual = np.random.default_rng(1).normal(size=image.shape).astype("float32")
    energy = 0.1 * np.abs(photograph(64, 72, seed=2)[..., :1])
    data = [filled, residual, energy]
    expected = aggregate(*(np.float64(each[0]) for each in data), hole[0, ..., 0])
    found = module._aggregate(*(tf.constant(each) for each in (*data, hole)))[0]
    inside = hole[0, ..., 0] > 0
    np.testing.assert_allclose(found.numpy()[inside], expected[inside], atol=2e-3)
    assert np.abs(expected[inside]).mean() > 0.05


def test_texture_comes_back_in_its_place():
    """A soft fill of stripes gets stripes, where the surroundings say that they go on."""
    y, x = np.mgrid[0:128, 0:128]
    stripes = 0.3 * np.sin(2 * np.pi * x / 8) + 0.3 * np.sin(2 * np.pi * y / 32)
    truth = np.repeat(stripes[None, ..., None], 3, -1).astype("float32")
    hole = box(128, 128, 32, 96, 32, 96)
    filled = filled_softly(truth, hole)
    detailed = ResidualAggregation()(filled, filled, hole).numpy()
    middle = np.s_[:, 52:76, 52:76]
    before, after = (np.abs(each - truth)[middle].mean() for each in (filled, detailed))
    assert after < 0.5 * before


def test_each_of_a_batch_is_its_own():
    images = np.concatenate([photograph(96, 96), photograph(96, 96, seed=1)])
    holes = np.concatenate([box(96, 96, 0, 30, 8, 96), box(96, 96, 40, 80, 40, 96)])
    filled = filled_softly(images, holes)
    together = ResidualAggregation()(filled, filled, holes).numpy()
    alone = ResidualAggregation()(filled[1:], filled[1:], holes[1:]).numpy()
    np.testing.assert_allclose(together[1:], alone, atol=1e-4)
    assert np.abs(together - filled).max((1, 2, 3)).min() > 0.01


def test_known_pixels_and_the_range_stay():
    image, hole = photograph(96, 96), box(96, 96, 30, 66, 30, 66)
    filled = filled_softly(image, hole)
    detailed = ResidualAggregation(50.0)(filled, filled, hole).numpy()
    np.testing.assert_array_equal(detailed[hole[..., 0] == 0], filled[hole[..., 0] == 0])
    assert np.abs(detailed).max() <= 1
    assert np.abs(detailed - filled).max() > 0.1


@pytest.mark.parametrize("hole", [np.zeros((1, 48, 32, 1)), np.ones((1, 48, 32, 1))])
def test_nothing_to_fill_or_nothing_to_take(hole):
    image = photograph(48, 32)
    found = ResidualAggregation()(image, np.where(hole, np.nan, image), hole > 0)
    np.testing.assert_array_equal(found, image)


def test_it_keeps_out_of_training_and_of_strength_zero():
    image, hole = photograph(96, 96), box(96, 96, 32, 64, 32, 64)
    filled = filled_softly(image, hole)
    raw = filled + 0.01
    found = ResidualAggregation()(raw, image, hole, training=True)
    np.testing.assert_array_equal(found, raw)  # known pixels too: losses see them
    np.testing.assert_array_equal(ResidualAggregation(0.0)(filled, filled, hole), filled)
    with pytest.raises(ValueError, match="strength must be >= 0 and finite, received: -1"):
        ResidualAggregation(-1)
    with pytest.raises(ValueError, match=r"multiples of 8, received: \(1, 92, 96, 3\)"):
        ResidualAggregation()(filled[:, 4:], image[:, 4:], hole[:, 4:])
    with pytest.raises(ValueError, match="detail must be >= 0, received: -1"):
        musical_tf.create("musical", preset="lite", width=8, detail=-1)


@pytest.mark.parametrize("width", [8, 28])
def test_a_stroke_is_left_as_it_is(width):
    image = photograph(64, 64)
    hole = box(64, 64, 20, 20 + width, 0, 64)
    filled = filled_softly(image, hole)
    np.testing.assert_array_equal(ResidualAggregation()(filled, filled, hole), filled)


def test_a_generator_with_detail_is_stored_with_it(tmp_path):
    generator = musical_tf.create("musical", preset="lite", width=8, detail=0.75)
    last = generator.get_layer("up1_conv").kernel
    last.assign(0 * last)  # or it would paint noise, which lacks no detail
    generator.save(tmp_path / "generator.keras")
    loaded = musical_tf.load(tmp_path / "generator.keras")
    assert loaded.config.detail == loaded.get_layer("detail").strength == 0.75
    image, hole = photograph(96, 96), box(96, 96, 32, 64, 32, 64)
    found = loaded([image, hole], training=False)
    np.testing.assert_array_equal(found, generator([image, hole], training=False))
    plain = musical_tf.create("musical", preset="lite", width=8)
    plain.set_weights(generator.get_weights())
    known = hole[..., 0] == 0
    assert np.abs(found - plain([image, hole]))[~known].max() > 0
    np.testing.assert_allclose(found[known], image[known], atol=1e-6)
    # Trained is what the weights are responsible for.
    trained = generator([image, hole], training=True)
    np.testing.assert_allclose(trained, plain([image, hole]), atol=1e-6)


def test_its_gradient_is_finite():
    image, hole = photograph(96, 96), box(96, 96, 32, 64, 32, 64)
    fill = tf.constant(filled_softly(image, hole))
    with tf.GradientTape() as tape:
        tape.watch(fill)
        total = tf.reduce_sum(ResidualAggregation()(fill, image, hole))
    gradient = tape.gradient(total, fill).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[hole[..., 0] == 0], 0)


def test_attention_may_join_a_generator_that_had_no_detail():
    trained = musical_tf.create("musical", preset="lite", width=8, attention=False)
    generator = musical_tf.create("musical", preset="lite", width=8, detail=1.0)
    generator.start_without_attention(trained)
    first = (each.get_layer("down1_conv").kernel for each in (trained, generator))
    np.testing.assert_array_equal(*first)


def test_it_is_registered():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(ResidualAggregation(0.5))
    )
    assert isinstance(layer, ResidualAggregation)
    assert layer.strength == 0.5
