"""Classical baselines: the contract they share, hand-computed values, and what they refuse."""

import sys

import numpy as np
import pytest
from skimage import data

from training.evaluation import baselines
from training.evaluation.baselines import BASELINES, LABELS

ALL = sorted(BASELINES)


def error_of(name, image, hole):
    """Mean absolute error in the hole, in grey levels."""
    return np.abs(BASELINES[name](image, hole).astype(int) - image)[hole].mean()


@pytest.fixture(scope="module")
def photograph():
    return np.ascontiguousarray(data.astronaut()[:192:2, 128:320:2])


@pytest.fixture(scope="module")
def hole():
    hole = np.zeros((96, 96), bool)
    hole[30:60, 34:62] = True
    hole[0:9, 80:96] = True
    return hole


@pytest.mark.parametrize("name", ALL)
def test_the_hole_is_filled_from_known_pixels_and_those_stay(name, photograph, hole):
    before = photograph.copy()
    result = BASELINES[name](photograph, hole)
    assert result.dtype == np.uint8
    assert result.shape == photograph.shape
    np.testing.assert_array_equal(result[~hole], photograph[~hole])
    np.testing.assert_array_equal(photograph, before)
    assert 0 < error_of(name, photograph, hole) < 90
    assert result[hole].max() > 0
    other = photograph.copy()
    other[hole] = 255 - other[hole]
    np.testing.assert_array_equal(BASELINES[name](other, hole)[hole], result[hole])
    np.testing.assert_array_equal(BASELINES[name](photograph, np.zeros_like(hole)), photograph)


@pytest.mark.parametrize("name", ALL)
def test_one_colour_is_continued(name):
    colour = np.array([200, 90, 20], np.uint8)
    image = np.tile(colour, (64, 64, 1))
    hole = np.zeros((64, 64), bool)
    hole[16:48, 16:48] = True
    result = BASELINES[name](image, hole)
    # OpenCV's Telea overshoots a flat colour by up to 4 grey levels; the others keep it.
    assert np.abs(result.astype(int) - colour).max() <= (4 if name == "telea" else 1)


@pytest.mark.parametrize("name", ALL)
def test_channels_stay_apart(name):
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0] = 250
    hole = np.zeros((64, 64), bool)
    hole[20:40, 20:40] = True
    result = BASELINES[name](image, hole)
    assert result[hole][:, 0].min() > 240
    assert result[hole][:, 1:].max() < 5


def test_mean_fill_by_hand():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0] = [[10, 0, 255], [20, 0, 255], [90, 9, 9]]
    image[1] = [[30, 1, 255], [45, 1, 255], [90, 9, 9]]
    hole = np.array([[False, False, True], [False, False, True]])
    result = baselines.mean_fill(image, hole)
    # Mean of 10, 20, 30, 45 is 26.25; of 0, 0, 1, 1 is 0.5, rounded half to even.
    np.testing.assert_array_equal(result[hole], [[26, 0, 255]] * 2)
    np.testing.assert_array_equal(result[~hole], image[~hole])


def test_diffusion_continues_a_ramp_better_than_the_mean():
    image = np.repeat(np.linspace(0, 250, 64).astype(np.uint8)[None, :, None], 64, axis=0)
    image = np.repeat(image, 3, axis=2)
    hole = np.zeros((64, 64), bool)
    hole[16:48, 8:40] = True
    assert error_of("telea", image, hole) < error_of("mean", image, hole) / 2
    assert error_of("navier_stokes", image, hole) < error_of("mean", image, hole) / 2
    # A ramp's biharmonic operator is zero: nothing but rounding is left.
    assert error_of("biharmonic", image, hole) < 1


def test_biharmonic_continues_what_diffusion_flattens():
    """A saddle: its curvature is known at the border of the hole, and its operator is zero."""
    y, x = np.mgrid[-32:32, -32:32]
    image = np.repeat((128 + (x**2 - y**2) * 0.1).astype(np.uint8)[..., None], 3, axis=2)
    hole = np.zeros((64, 64), bool)
    hole[20:44, 20:44] = True
    assert error_of("biharmonic", image, hole) < error_of("navier_stokes", image, hole) / 4


def test_patchmatch_continues_stripes():
    stripes = np.where((np.arange(96) // 8) % 2 == 0, 230, 20).astype(np.uint8)
    image = np.broadcast_to(stripes[None, :, None], (96, 96, 3)).copy()
    hole = np.zeros((96, 96), bool)
    hole[36:60, 36:60] = True
    assert error_of("patchmatch", image, hole) < error_of("telea", image, hole) / 2


def test_patchmatch_gives_the_same_answer_twice(photograph, hole):
    first = baselines.patchmatch(photograph, hole)
    np.testing.assert_array_equal(first, baselines.patchmatch(photograph, hole))


@pytest.mark.parametrize("name", ALL)
def test_scattered_pixels_are_filled_from_their_neighbours(name, photograph):
    hole = np.random.default_rng(0).random((96, 96)) < 0.4
    assert error_of(name, photograph, hole) < (90 if name == "mean" else 15)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [70, 90, 95])
def test_a_hole_that_leaves_little(name, photograph, rows):
    hole = np.zeros((96, 96), bool)
    hole[:rows] = True
    result = BASELINES[name](photograph, hole)
    np.testing.assert_array_equal(result[~hole], photograph[~hole])


@pytest.mark.parametrize(
    ("image", "hole", "message"),
    [
        (np.zeros((32, 32, 3), np.float32), np.zeros((32, 32), bool), "uint8.*float32"),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), bool), r"\(32, 32\)"),
        (np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32), bool), r"\(32, 32, 4\)"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 31), bool), r"\(32, 31\)"),
        (np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8), "bool.*uint8"),
        (np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool), "whole image"),
    ],
)
def test_wrong_input_is_named(image, hole, message):
    for name in ALL:
        with pytest.raises(ValueError, match=message):
            BASELINES[name](image, hole)


def test_patchmatch_refuses_a_tiny_image():
    with pytest.raises(ValueError, match="16 pixels a side, got 12 x 40"):
        baselines.patchmatch(np.zeros((12, 40, 3), np.uint8), np.eye(12, 40, dtype=bool))


def test_require_names_an_unknown_baseline():
    assert set(LABELS) == set(BASELINES)
    for name in ALL:
        baselines.require(name)
    with pytest.raises(
        ValueError, match=r"'lama'.*mean, telea, navier_stokes, biharmonic, patchmatch"
    ):
        baselines.require("lama")


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "patchmatch_cython", None)
    with pytest.raises(ModuleNotFoundError, match="pip install patchmatch-cython"):
        baselines.require("patchmatch")
