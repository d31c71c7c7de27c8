"""Holes: where the paper's is, what random ones keep to, and which mask images are refused."""

import numpy as np
import pytest
from PIL import Image

from training.data import holes
from training.data.holes import open_masks

SIZE = 64


def rng(seed=0):
    return np.random.default_rng(seed)


def write_mask(path, hole):
    Image.fromarray(np.asarray(hole, np.uint8) * 255).save(path)


def square(size=64, start=8, stop=24):
    hole = np.zeros((size, size), bool)
    hole[start:stop, start:stop] = True
    return hole


def test_the_center_hole_is_the_papers():
    hole = open_masks("center", 256).hole(rng())
    expected = np.zeros((256, 256), bool)
    expected[64:192, 64:192] = True
    np.testing.assert_array_equal(hole, expected)
    assert hole.dtype == bool


def test_boxes_are_anywhere_and_a_quarter_to_a_half_of_each_side():
    source, random = open_masks("box", SIZE), rng()
    sides, covered = set(), np.zeros((SIZE, SIZE), bool)
    for _ in range(500):
        hole = source.hole(random)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert columns[-1] - columns[0] + 1 == len(columns)
        sides |= {len(rows), len(columns)}
        covered |= hole
    assert sides == set(range(SIZE // 4, SIZE // 2 + 1))
    for border in (covered[0], covered[-1], covered[:, 0], covered[:, -1]):
        assert border.mean() > 0.5


@pytest.mark.parametrize("size", [64, 128, 256])
def test_irregular_holes_cover_one_to_fifty_percent(size):
    source, random = open_masks("irregular", size), rng()
    ratios = np.array([source.hole(random).mean() for _ in range(150)])
    assert ratios.min() >= 0.01
    assert ratios.max() <= 0.5
    # The shares are spread over the whole range, not gathered at one end of it.
    counts, _ = np.histogram(ratios, bins=5, range=(0, 0.5))
    assert counts.min() >= 10


def test_irregular_holes_are_strokes_and_not_one_box():
    source = open_masks("irregular", SIZE)
    boxes = 0
    for index in range(20):
        hole = source.deterministic(index)
        boxes += hole.sum() == hole.any(1).sum() * hole.any(0).sum()
    assert boxes < 3


@pytest.mark.parametrize("kind", holes.KINDS)
def test_holes_come_from_the_generator_alone(kind):
    source = open_masks(kind, SIZE)
    for seed in range(5):
        np.testing.assert_array_equal(source.hole(rng(seed)), source.hole(rng(seed)))
        hole = source.hole(rng(seed))
        assert hole.shape == (SIZE, SIZE)
        assert hole.any()
        assert not hole.all()


def test_mixed_holes_come_equally_often_from_each_kind():
    source = open_masks("center+irregular", SIZE)
    centre = open_masks("center", SIZE).hole(rng())
    centres = sum(np.array_equal(source.hole(rng(seed)), centre) for seed in range(200))
    assert 70 < centres < 130
    for seed in range(5):
        np.testing.assert_array_equal(source.hole(rng(seed)), source.hole(rng(seed)))
    np.testing.assert_array_equal(source.deterministic(3), source.deterministic(3))
    for spec in ("center+centre", "center+", "+", "center+masks"):
        with pytest.raises(ValueError, match=r"several of them joined by \+"):
            open_masks(spec, SIZE)


@pytest.mark.parametrize("kind", ["box", "irregular"])
def test_evaluation_holes_differ_by_index_and_stay(kind):
    first = [open_masks(kind, SIZE).deterministic(index) for index in range(6)]
    second = [open_masks(kind, SIZE).deterministic(index) for index in reversed(range(6))]
    for one, other in zip(first, reversed(second), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({hole.tobytes() for hole in first}) == 6


def test_evaluation_boxes_are_pinned():
    # Published figures hold for these holes: changing them silently would make runs incomparable.
    hole = open_masks("box", 128).deterministic(0)
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (54, 106, 37, 85)


def test_a_folder_of_masks_is_walked_in_order_and_drawn_at_random(tmp_path):
    (tmp_path / "deep").mkdir()
    holes = [square(start=start) for start in (2, 6, 10)]
    write_mask(tmp_path / "a.png", holes[0])
    write_mask(tmp_path / "b.png", holes[1])
    write_mask(tmp_path / "deep" / "c.png", holes[2])
    source = open_masks(tmp_path, SIZE)
    for index in range(7):
        np.testing.assert_array_equal(source.deterministic(index), holes[index % 3])
    drawn = {source.hole(rng(seed)).tobytes() for seed in range(30)}
    assert drawn == {hole.tobytes() for hole in holes}


def test_one_missing_pixel_of_a_large_mask_survives(tmp_path):
    hole = np.zeros((2048, 2048), bool)
    hole[1000, 700] = True
    write_mask(tmp_path / "a.png", hole)
    shrunk = open_masks(tmp_path, SIZE).deterministic(0)
    assert np.argwhere(shrunk).tolist() == [[1000 // 32, 700 // 32]]


@pytest.mark.parametrize(
    ("hole", "message"),
    [
        (np.zeros((40, 40)), r"bad\.png is empty: no pixel above 127"),
        (np.ones((40, 40)), r"bad\.png is all hole at 64 x 64"),
        # Known pixels so sparse that none is left at the training size.
        (np.arange(640 * 640).reshape(640, 640) % 11 != 0, r"bad\.png is all hole at 64 x 64"),
    ],
)
def test_a_mask_without_use_is_refused_by_name(tmp_path, hole, message):
    write_mask(tmp_path / "good.png", square())
    write_mask(tmp_path / "bad.png", hole)
    with pytest.raises(ValueError, match=message):
        open_masks(tmp_path, SIZE)


def test_a_folder_without_masks_or_with_a_bad_one_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no images"):
        open_masks(tmp_path, SIZE)
    (tmp_path / "bad.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"bad\.png: it is not an image"):
        open_masks(tmp_path, SIZE)


@pytest.mark.parametrize(
    ("spec", "hint"), [("centre", "'center'"), ("irreglar", "'irregular'"), ("Box", "'box'")]
)
def test_an_unknown_mask_lists_the_known(spec, hint):
    with pytest.raises(ValueError, match="mask must be center, box, irregular, several") as e:
        open_masks(spec, SIZE)
    assert f"did you mean {hint}" in str(e.value)


def test_a_share_that_is_asked_for_is_what_is_missing():
    for share in (0.01, 0.1, 0.3, 0.5):
        for side in (64, 256):
            source = holes.IrregularHole(side, share)
            for index in range(4):
                missing = source.deterministic(index).mean()
                assert share <= missing <= share + 0.01
    assert not np.array_equal(source.deterministic(0), source.deterministic(1))
    for wrong in (0.0, 0.51):
        with pytest.raises(ValueError, match=r"share must be within 0\.01 and 0\.5, got"):
            holes.IrregularHole(64, wrong)
