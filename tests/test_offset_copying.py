"""The copying layer: its contract for every input, and its fills of textured images."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve

from musical_tf.layers import OffsetCopying
from musical_tf.layers import offset_copying as module
from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.offset_graph import NEIGHBORS, SEEDS, WEIGHTS, Nodes

LAYER = OffsetCopying()


@tf.function(
    input_signature=[
        *(tf.TensorSpec((None, None, None, channels), tf.float32) for channels in (3, 3, 1)),
        tf.TensorSpec((), tf.int64),
    ]
)
def traced(prediction, image, hole, seed):
    return LAYER(prediction, image, hole, seed=seed)


def copy(prediction, image, hole, seed=0):
    return tuple(each.numpy() for each in traced(prediction, image, hole, seed))


def box(height, width, top, bottom, left, right):
    hole = np.zeros((1, height, width, 1), "float32")
    hole[:, top:bottom, left:right] = 1
    return hole


def tiled(height, width, seed=0):
    """A random tile of 16 x 16 pixels, repeated: `(1, H, W, 3)` in [-1, 1]."""
    tile = np.random.default_rng(seed).uniform(-0.9, 0.9, (16, 16, 3)).astype("float32")
    return np.tile(tile, (height // 16, width // 16, 1))[None]


def textured(height, width, seed=0):
    noise = np.random.default_rng(seed)
    broad = ndimage.gaussian_filter(noise.normal(size=(height, width, 3)), (12, 12, 0)) * 8
    fine = ndimage.gaussian_filter(noise.normal(size=(height, width, 3)), (1, 1, 0)) * 0.4
    return np.clip(broad + fine, -1, 1)[None].astype("float32")


def smooth(image, sigma=6):
    return ndimage.gaussian_filter(image, (0, sigma, sigma, 0))


def assert_contract(prediction, image, hole, seed=0):
    """What holds for every input; returns the result."""
    filled, source = copy(prediction, image, hole, seed)
    missing = hole[..., 0] > 0.5
    np.testing.assert_array_equal(filled[~missing], image[~missing])
    assert np.isfinite(filled).all()
    assert np.abs(filled).max() <= 1
    places = np.stack(np.indices(missing.shape[1:]), axis=-1)
    for one_source, one_missing in zip(source, missing, strict=True):
        np.testing.assert_array_equal(one_source[~one_missing], places[~one_missing])
        found = one_source[one_missing]
        painted = (found == module.PAINTED).all(axis=1)
        assert ((found >= 0).all(axis=1) | painted).all()
        rows, columns = found[~painted].T
        assert not one_missing[rows, columns].any()
    return filled, source


def test_a_repeated_tile_is_continued():
    image = tiled(128, 128)
    hole = box(128, 128, 44, 84, 40, 88)
    prediction = smooth(image, 2)
    filled, source = assert_contract(prediction, image, hole)
    missing = hole[0, ..., 0] > 0.5
    places = np.stack(np.indices(missing.shape), axis=-1)
    assert ((source[0] - places)[missing] % 16 == 0).all(axis=1).mean() > 0.8
    error, before = (np.abs(each - image)[0][missing].mean() for each in (filled, prediction))
    assert error < 0.3 * before


def test_texture_is_as_rough_as_its_surroundings():
    image, hole = textured(128, 128), box(128, 128, 40, 88, 40, 88)
    prediction = smooth(image)
    filled, _ = assert_contract(prediction, image, hole)

    def roughness(picture):
        inside = picture[0, 44:84, 44:84]
        return np.std(inside - ndimage.gaussian_filter(inside, (2, 2, 0)))

    assert roughness(prediction) < 0.3 * roughness(image)
    assert roughness(filled) == pytest.approx(roughness(image), rel=0.3)


@pytest.mark.parametrize(
    "name",
    ["almost all", "border", "specks", "row", "nothing", "everything", "one color", "two tones"],
)
def test_awkward_holes_and_images_keep_the_contract(name):
    height, width = (16, 400) if name == "row" else (64, 96)
    image = textured(height, width, 1)
    hole = box(height, width, 20, 44, 30, 60)
    if name == "almost all":
        hole = np.ones_like(hole)
        hole[:, 2:8, 3:9] = 0
    if name == "border":
        hole = 1 - box(height, width, 12, 50, 12, 80)
    if name == "specks":
        hole = (np.random.default_rng(2).random(hole.shape) < 0.05).astype("float32")
    if name == "row":
        hole = box(height, width, 0, 16, 150, 170)
    if name == "nothing":
        hole = np.zeros_like(hole)
    if name == "everything":
        hole = np.ones_like(hole)
    if name == "one color":
        image = np.full_like(image, 0.25)
    if name == "two tones":
        image = np.where(np.arange(width)[:, None] < 45, 0.8, -0.8) * np.ones_like(image)
    prediction = smooth(image.astype("float32")).astype("float32")
    filled, source = assert_contract(prediction, image.astype("float32"), hole)
    if name == "one color":
        np.testing.assert_allclose(filled, image, atol=1e-5)
    if name == "everything":
        assert (source == module.PAINTED).all()
        np.testing.assert_allclose(filled, prediction, atol=1e-3)


def test_samples_of_a_batch_do_not_influence_each_other_and_runs_repeat():
    images = np.concatenate([textured(64, 64, seed) for seed in (3, 4, 5)])
    boxes = (0, 12, 40, 64), (20, 40, 16, 22), (20, 40, 16, 44)
    holes = np.concatenate([box(64, 64, *corners) for corners in boxes])
    together = copy(smooth(images), images, holes)
    copies = [
        (source[hole[..., 0] > 0] >= 0).any()
        for source, hole in zip(together[1], holes, strict=True)
    ]
    assert copies == [True, False, True]  # the second hole is thin
    for index in range(3):
        one = slice(index, index + 1)
        alone = copy(smooth(images)[one], images[one], holes[one])
        for left, right in zip(together, alone, strict=True):
            np.testing.assert_array_equal(left[one], right)


def test_what_lies_under_the_hole_does_not_matter():
    image, hole = textured(64, 64, 5), box(64, 64, 20, 44, 20, 44)
    other = np.where(hole > 0, -image, image)
    for left, right in zip(
        copy(smooth(image), image, hole), copy(smooth(image), other, hole), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_joining_solves_the_equations():
    """A few rounds of conjugate gradients against a direct solver."""
    image, hole = textured(48, 48, 6)[:, ::1], box(48, 48, 16, 30, 18, 34)
    guide = tf.constant(0.5 * np.where(hole > 0, smooth(image), image) + 0.5)
    graph = Nodes(guide, tf.constant(hole))
    known_share = gaussian_blur(1.0 - tf.constant(hole), module.TRUST_SIGMA)
    count = int(graph.count) - 1
    offsets = np.tile(np.int32([[-15, 3]]), (count + 1, 1))
    offsets[: count // 2] = (14, -2)
    labels = graph.here + (offsets @ [[int(graph.pitch)], [1]]).astype("int32")
    joined = module._join(graph, labels, known_share).numpy()[:count]

    pixels = guide.numpy()[0]
    number = {
        place: index for index, place in enumerate(map(tuple, np.argwhere(hole[0, ..., 0] > 0)))
    }
    trust = np.square(known_share.numpy()[0, ..., 0])
    entries, right_side = [], np.zeros((count, 3))
    for place, index in number.items():
        here = np.array(place)
        screen = WEIGHTS.screen + WEIGHTS.trusted_screen * trust[place]
        diagonal = screen
        right_side[index] += screen * pixels[place]
        for step in np.array(NEIGHBORS):
            beside = tuple(here + step)
            diagonal += 1
            mine = offsets[index]
            gradient = pixels[tuple(here + mine)] - pixels[tuple(here + mine + step)]
            if beside in number:
                theirs = offsets[number[beside]]
                across = pixels[tuple(here + theirs)] - pixels[tuple(here + theirs + step)]
                gradient = 0.5 * (gradient + across)
                entries.append((index, number[beside], -1.0))
            else:
                right_side[index] += pixels[beside]
            right_side[index] += gradient
        entries.append((index, index, diagonal))
    rows, columns, values = zip(*entries, strict=True)
    expected = spsolve(coo_matrix((values, (rows, columns))).tocsc(), right_side)
    np.testing.assert_allclose(joined, expected, atol=2e-3)


@pytest.mark.parametrize(("width", "copies"), [(module.THICK, True), (module.THICK - 1, False)])
def test_thin_holes_are_painted(width, copies):
    image, hole = textured(64, 64), box(64, 64, 8, 40, 20, 20 + width)
    prediction = smooth(image)
    filled, source = assert_contract(prediction, image, hole)
    missing = hole[0, ..., 0] > 0
    assert (source[0][missing] >= 0).any() == copies
    if not copies:
        np.testing.assert_allclose(filled[0][missing], prediction[0][missing], atol=1e-6)


def test_a_seed_gives_another_fill_and_the_same_one_twice():
    image, hole = textured(96, 96), box(96, 96, 32, 64, 32, 64)
    best, *others = (copy(smooth(image), image, hole, seed)[1] for seed in (0, 1, 2, 1))
    missing = hole[0, ..., 0] > 0

    def share_that_differs(one, other):
        return (one != other).any(axis=-1)[0][missing].mean()

    assert share_that_differs(best, others[0]) > 0.1
    assert share_that_differs(others[0], others[1]) > 0.1
    np.testing.assert_array_equal(others[0], others[2])
    np.testing.assert_array_equal(copy(smooth(image), image, hole, SEEDS)[1], best)


@pytest.mark.parametrize("seed", [1, 2**62, -5])
def test_every_seed_keeps_the_contract(seed):
    image, hole = textured(64, 64), box(64, 64, 16, 48, 0, 32)
    assert_contract(smooth(image), image, hole, seed)


def test_training_returns_the_prediction():
    image, hole = textured(32, 32), box(32, 32, 8, 20, 8, 20)
    filled, source = LAYER(smooth(image), image, hole, training=True)
    np.testing.assert_array_equal(filled, smooth(image))
    assert (source.numpy()[hole[..., 0] > 0] == module.PAINTED).all()


def test_an_odd_side_is_an_error():
    with pytest.raises(ValueError, match="multiples of 2"):
        OffsetCopying()(*(np.zeros((1, 31, 32, channels), "float32") for channels in (3, 3, 1)))
