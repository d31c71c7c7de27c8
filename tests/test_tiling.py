import numpy as np
import pytest

from serving import membrane, resampling, tiling, windows
from tests.serving_model import reference_fill


def square_hole(shape, *boxes):
    hole = np.zeros(shape, bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def photograph(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fill(image, hole, run, *options):
    """`tiling.fill` with a model that fills one window, `(H, W, 3)` and `(H, W)`."""

    def run_each(images, holes):
        return [run(*each) for each in zip(images, holes, strict=True)]

    return tiling.fill(image, hole, run_each, *options)


def test_small_grids_are_labeled_as_large_ones(monkeypatch):
    """SciPy labels the large ones; `plan` searches boxes by their first row."""
    drawing = ["#..#", ".#.#", "....", "##.#"]
    labels, _ = windows.label_components(np.array([[c == "#" for c in row] for row in drawing]))
    assert labels.tolist() == [[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 0], [3, 3, 0, 4]]
    rng = np.random.default_rng(1)
    for density in (0, 0.02, 0.3, 0.5, 0.8, 1):
        hole = rng.random(rng.integers(1, 60, 2)) < density
        monkeypatch.setattr(windows, "_SMALL_GRID", hole.size)
        small, small_boxes = windows.label_components(hole)
        monkeypatch.setattr(windows, "_SMALL_GRID", 0)
        labels, boxes = windows.label_components(hole)
        np.testing.assert_array_equal(small, labels)
        np.testing.assert_array_equal(small_boxes, boxes)
        assert boxes.shape == (labels.max(), 4)
        assert (np.diff(boxes[:, 0]) >= 0).all()
        for label, (top, left, bottom, right) in enumerate(boxes, 1):
            rows, columns = np.nonzero(labels == label)
            tight = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            assert tight == [top, left, bottom, right]


@pytest.mark.parametrize("strategy", tiling.STRATEGIES)
@pytest.mark.parametrize(
    ("shape", "density"),
    [((300, 200), 0.001), ((97, 413), 0.3), ((1, 500), 0.2), ((500, 1), 0.5), ((20, 20), 0.97)],
)
def test_known_pixels_are_untouched_and_every_hole_pixel_is_filled(strategy, shape, density):
    rng = np.random.default_rng(2)
    image = photograph(*shape) // 2  # below 128
    hole = np.zeros(shape, bool)
    for _ in range(4):
        top, left = (rng.integers(0, side) for side in shape)
        hole[top : top + shape[0] // 3, left : left + shape[1] // 5] = True
    hole |= rng.random(shape) < density
    hole[0, 0] = False
    image[hole] = 255

    def run(window, window_hole):
        return np.where(window_hole[..., None], np.uint8(200), window)

    filled = fill(image, hole, run, 64, strategy)
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    if strategy == "original":
        assert (filled[hole] == 200).all()
    # Elsewhere enlarged 200s mix with what surrounds them; no pixel keeps its 255.
    assert filled[hole].max() < 235


def test_every_hole_pixel_belongs_to_exactly_one_window():
    rng = np.random.default_rng(3)
    for _ in range(20):
        hole = np.zeros((400, 500), bool)
        for _ in range(6):
            top, left = rng.integers(0, 400), rng.integers(0, 500)
            height, width = (int(side) for side in rng.choice([2, 10, 60, 200], 2))
            hole[top : top + height, left : left + width] = True
        times = np.zeros(hole.shape, int)

        def run(window, window_hole):
            return window

        placed, labels, cell = tiling.plan(hole, 64)
        for window in placed:
            upsampled = np.isin(labels, window.components).repeat(cell, 0).repeat(cell, 1)
            times[window.core.slices] += upsampled[:400, :500][window.core.slices]
            view, core = window.view, window.core
            assert view.top <= core.top < core.bottom <= view.bottom
            assert view.left <= core.left < core.right <= view.right
            assert 0 <= view.top < view.bottom <= 400
            assert 0 <= view.left < view.right <= 500
        assert times[hole].min() == 1
        assert times.max() == 1


@pytest.mark.parametrize("strategy", tiling.STRATEGIES)
def test_what_lies_under_the_hole_never_reaches_the_model(strategy):
    image = photograph(300, 260)
    hole = square_hole((300, 260), (40, 50, 200, 180), (250, 10, 253, 250), (0, 0, 20, 20))
    other = image.copy()
    other[hole] = photograph(300, 260, seed=9)[hole]
    seen = []

    def run(window, window_hole):
        seen.append((window.copy(), window_hole.copy()))
        return reference_fill(window, window_hole)

    first = fill(image, hole, run, 64, strategy)
    half = len(seen)
    second = fill(other, hole, run, 64, strategy)
    assert len(seen) == 2 * half
    for (window, window_hole), (other_window, other_hole) in zip(
        seen[:half], seen[half:], strict=True
    ):
        np.testing.assert_array_equal(window, other_window)
        np.testing.assert_array_equal(window_hole, other_hole)
    np.testing.assert_array_equal(first, second)


def test_image_of_training_size_is_seen_whole_and_unchanged():
    image, hole = photograph(64, 64), square_hole((64, 64), (16, 16, 48, 48))
    calls = []

    def run(window, window_hole):
        calls.append((window, window_hole))
        return reference_fill(window, window_hole)

    filled = fill(image, hole, run, 64)
    ((window, window_hole),) = calls
    np.testing.assert_array_equal(window_hole, hole)
    np.testing.assert_array_equal(window[~hole], image[~hole])
    np.testing.assert_array_equal(filled, reference_fill(image, hole))


def test_small_hole_in_a_large_image_is_seen_at_full_sharpness_with_its_surroundings():
    (window,) = tiling.plan(square_hole((1000, 1500), (500, 700, 530, 730)), 64).windows
    assert window.scale == 1
    assert (window.view.height, window.view.width) == (64, 64)
    assert window.view.top < 500 - 8
    assert window.view.bottom > 530 + 8


@pytest.mark.parametrize(("shape", "scale"), [((70, 68), 70 / 64), ((72, 70), 1), ((68, 80), 1)])
def test_a_window_that_would_leave_out_a_tenth_at_most_takes_the_whole_image(shape, scale):
    hole = np.zeros(shape, bool)
    hole[4:20, 40:60] = True
    (window,) = tiling.plan(hole, 64).windows
    assert window.scale == scale
    whole = windows.Box(0, 0, *shape)
    assert (window.view == whole) == (scale > 1)


def test_large_hole_gets_twice_its_thickness_and_the_model_the_working_size():
    hole = square_hole((1000, 1500), (300, 600, 620, 920))
    (window,) = tiling.plan(hole, 64).windows
    assert 640 <= window.view.height <= 900
    shapes = []

    def run(small, small_hole):
        shapes.append(small.shape)
        assert 0.1 < small_hole.mean() < 0.3
        return small

    fill(photograph(1000, 1500), hole, run, 64)
    assert max(shapes[0][:2]) == 64


def wire(height, width, thickness):
    """A slanting line from the upper left to the right."""
    rows, columns = np.mgrid[:height, :width]
    return np.abs(rows - height / 4 - columns / 10) < thickness / 2


def test_long_scratch_is_followed_by_small_sharp_windows():
    hole = np.zeros((600, 900), bool)
    for row in range(600):
        hole[row, row : row + 4] = True
    placed = tiling.plan(hole, 64).windows
    assert {window.scale for window in placed} == {1.0}
    assert sum(window.view.height * window.view.width for window in placed) < 12 * 64 * 64


DIGITS = [(2800, 3300 + 60 * i, 2880, 3340 + 60 * i) for i in range(9)]


@pytest.mark.parametrize(
    ("make", "scale", "most"),
    [
        (lambda shape: wire(*shape, 8), 1, 6.5),
        (lambda shape: wire(*shape, 80), 3, 2.8),
        (lambda shape: square_hole(shape, *DIGITS), 1.5, 2),
        (lambda shape: square_hole(shape, (1100, 1750, 2500, 2250)), 7.4, 1),
    ],
    ids=["wire", "stroke", "date stamp", "person"],
)
def test_twelve_megapixels_take_little_work(make, scale, most):
    """Pixels of the model, in whole windows."""
    placed = tiling.plan(make((3000, 4000)), 256).windows
    assert max(window.scale for window in placed) <= scale
    pixels = sum(window.view.height * window.view.width / window.scale**2 for window in placed)
    assert pixels <= most * 256**2


def test_holes_that_lie_together_share_a_window():
    boxes = [
        (200 + 8 * i, 300 + 8 * j, 202 + 8 * i, 302 + 8 * j) for i in (0, 1, 2) for j in (0, 1)
    ]
    assert len(tiling.plan(square_hole((500, 700), *boxes), 64).windows) == 1


def test_later_windows_see_what_earlier_ones_filled():
    hole = square_hole((64, 400), (30, 20, 34, 380))
    sees_filled = []

    def run(window, window_hole):
        sees_filled.append((window[~window_hole] == 200).any())
        return np.where(window_hole[..., None], np.uint8(200), window)

    filled = fill(np.full((64, 400, 3), 77, np.uint8), hole, run, 64)
    assert (filled[hole] == 200).all()
    assert len(sees_filled) > 2
    assert not sees_filled[0]
    assert all(sees_filled[1:])


def test_a_hole_that_leaves_almost_nothing_still_has_something_to_copy_from():
    hole = np.ones((500, 400), bool)
    hole[3, 5] = False
    image = np.zeros((500, 400, 3), np.uint8)
    image[3, 5] = (10, 20, 30)
    for strategy in ("crop", "resize"):
        filled = fill(image, hole, lambda w, h: reference_fill(w, h), 64, strategy)
        assert (filled[hole] == (10, 20, 30)).all()


@pytest.mark.parametrize("strategy", ["crop", "resize"])
def test_shrinking_averages_known_pixels_only(strategy):
    # Black photograph, white under the hole: any leak would lighten the rim.
    hole = square_hole((256, 256), (61, 67, 189, 195))
    image = np.where(hole[..., None], 255, 0).repeat(3, axis=2).astype(np.uint8)

    def run(window, window_hole):
        assert window[~window_hole].max() == 0
        return reference_fill(window, window_hole)

    assert fill(image, hole, run, 64, strategy).max() == 0


def test_resize_matches_positions():
    # A horizontal ramp, shrunk, filled with its own true values and enlarged, stays where it was.
    ramp = np.broadcast_to(np.linspace(0, 255, 512).astype(np.uint8)[None, :, None], (300, 512, 3))
    hole = square_hole((300, 512), (100, 200, 200, 300))

    def run(window, window_hole):
        columns = (np.arange(window.shape[1]) + 0.5) / window.shape[1] * 255
        return np.broadcast_to(columns.astype(np.uint8)[None, :, None], window.shape).copy()

    filled = fill(np.ascontiguousarray(ramp), hole, run, 64, "resize")
    assert np.abs(filled.astype(int) - ramp)[hole].max() <= 3


@pytest.mark.parametrize("strategy", ["crop", "resize"])
def test_strips_leave_no_seams(monkeypatch, strategy):
    image = photograph(700, 900)
    hole = square_hole((700, 900), (101, 203, 577, 761))
    seen = []

    def run(window, window_hole):
        seen.append((window, window_hole))
        return window[::-1]

    monkeypatch.setattr(tiling, "_FIT_PIXELS", 0)
    whole = fill(image, hole, run, 64, strategy)
    monkeypatch.setattr(resampling, "STRIP_PIXELS", 5000)
    # Pillow keeps a box's edges in single precision, which may tip a rounding.
    np.testing.assert_allclose(fill(image, hole, run, 64, strategy), whole, rtol=0, atol=1)
    (window, window_hole), (strips, strips_hole) = seen
    np.testing.assert_array_equal(strips, window)
    np.testing.assert_array_equal(strips_hole, window_hole)


def test_what_enlarging_lacks_is_carried_on_into_the_hole(monkeypatch):
    """Stripes that the shrunk window blurs are sharper again in a thin hole between them."""
    stripes = np.where(np.arange(256) // 6 % 2, 80, 160).astype(np.uint8)
    image = np.broadcast_to(stripes[None, :, None], (256, 256, 3)).copy()
    hole = square_hole((256, 256), (100, 20, 101, 236))
    truth, _ = resampling.to_model(image, np.zeros_like(hole), 4.0)

    def error():
        filled = fill(image, hole, lambda window, _: truth, 64, "resize")
        return np.abs(filled.astype(int) - image)[hole].mean()

    fitted = error()
    monkeypatch.setattr(tiling, "_FIT_PIXELS", 0)
    assert fitted < 0.75 * error()


@pytest.mark.parametrize("shape", [(40, 64), (33, 17), (1, 1)])
def test_a_membrane_keeps_what_is_known_and_stays_between_it(shape):
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (*shape, 3)).astype(np.float32)
    known = np.ones(shape, bool)
    known[shape[0] // 4 :, shape[1] // 3 : -2] = False
    spanned = membrane.span(np.where(known[..., None], values, np.nan), known)
    np.testing.assert_array_equal(spanned[known], values[known])
    low, high = values[known].min(axis=0), values[known].max(axis=0)
    assert (spanned >= low - 1e-6).all()
    assert (spanned <= high + 1e-6).all()
    np.testing.assert_array_equal(membrane.span(values, np.zeros(shape, bool)), 0)


def test_a_membrane_is_straight_between_straight_banks():
    ramp = np.broadcast_to(np.linspace(-1, 1, 64, dtype=np.float32)[None, :, None], (64, 64, 1))
    known = ~square_hole((64, 64), (4, 28, 60, 36))
    assert np.abs(membrane.span(ramp, known) - ramp).max() < 0.1 * (ramp[0, 36] - ramp[0, 27])


def test_progress_is_told_before_the_first_window_and_after_each():
    hole = square_hole((64, 400), (30, 20, 34, 60), (30, 350, 34, 360))
    calls = []
    run = reference_fill
    fill(photograph(64, 400), hole, run, 64, "crop", lambda *call: calls.append(call))
    assert calls == [(0, 2), (1, 2), (2, 2)]
    calls.clear()
    fill(photograph(8, 8), np.zeros((8, 8), bool), run, 64, "crop", lambda *c: calls.append(c))
    assert calls == [(0, 0)]


def test_many_holes_take_windows_by_their_area_and_not_by_their_number():
    counts = []
    for step in (64, 16, 8, 4):
        hole = np.zeros((600, 900), bool)
        hole[::step, ::step] = True
        placed = tiling.plan(hole, 64).windows
        assert {window.scale for window in placed} == {1.0}
        assert sum(window.view.height * window.view.width for window in placed) < 1.6 * hole.size
        counts.append(len(placed))
    assert counts[0] == 150  # far apart: a small window for each
    # One window's share is half its side squared at the least.
    assert counts[-1] <= 1.2 * (600 / 32) * (900 / 32)


def test_windows_that_run_together_give_what_they_give_one_after_the_other(monkeypatch):
    hole = np.zeros((200, 900), bool)
    hole[20:180:50, 20::60] = True  # far apart
    hole[24:28, 700:860] = True  # long: a chain of windows
    hole[100:103, 30:60:6] = True  # close together
    image, runs = photograph(200, 900), []

    def run(images, holes):
        runs.append(holes.shape)
        return [reference_fill(*each) for each in zip(images, holes, strict=True)]

    together = tiling.fill(image, hole, run, 64)
    count = len(runs)
    assert sum(shape[0] for shape in runs) > 2 * count
    assert max(np.prod(shape) for shape in runs) <= 64 * 64
    runs.clear()
    monkeypatch.setattr(tiling, "_LOOKAHEAD", 1)
    np.testing.assert_array_equal(tiling.fill(image, hole, run, 64), together)
    assert {shape[0] for shape in runs} == {1}


def test_errors_say_what_is_valid():
    image, hole = photograph(8, 8), square_hole((8, 8), (1, 1, 2, 2))
    with pytest.raises(ValueError, match="unknown strategy 'zoom'; valid: crop, resize, original"):
        fill(image, hole, reference_fill, 64, "zoom")
    with pytest.raises(ValueError, match="working_size must be at least 1 pixel, got 0"):
        fill(image, hole, reference_fill, 0)


@pytest.mark.parametrize(
    ("shape", "hole", "views"),
    [
        # CelebA at half its size and at its own: the middle square of the training.
        ((109, 89), (32, 22, 76, 66), [(10, 0, 99, 89)]),
        ((218, 178), (64, 44, 152, 132), [(20, 0, 198, 178)]),
        # A hole outside the middle: the closest square that holds its cells with a margin.
        ((200, 100), (0, 10, 30, 40), [(0, 0, 100, 100)]),
        ((100, 200), (40, 140, 60, 160), [(0, 74, 100, 174)]),
        # A hole longer than a square.
        ((200, 100), (5, 10, 195, 40), [(0, 0, 100, 100), (50, 0, 150, 100), (100, 0, 200, 100)]),
    ],
)
def test_resize_frames_squares_by_the_shorter_side(shape, hole, views):
    placed = tiling.plan(square_hole(shape, hole), 128, "resize").windows
    assert [tuple(window.view) for window in placed] == views
    assert {window.scale for window in placed} == {min(shape) / 128}


@pytest.mark.parametrize("strategy", ["crop", "resize"])
def test_a_small_photograph_is_enlarged_to_the_working_size(strategy):
    image, hole = photograph(109, 89) // 2, square_hole((109, 89), (32, 22, 76, 66))
    image[hole] = 255
    shapes = []

    def run(small, small_hole):
        shapes.append(small.shape)
        assert small[~small_hole].max() < 128  # nothing from under the hole
        return np.where(small_hole[..., None], np.uint8(90), small)

    filled = fill(image, hole, run, 128, strategy)
    assert shapes == [(128, 128, 3)]
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    assert (filled[36:72, 26:62] == 90).all()


@pytest.mark.parametrize("shape", [(1, 1000), (8, 8), (3, 400)])
def test_enlarging_is_bounded(shape):
    hole = np.zeros(shape, bool)
    hole[0, 1:5] = True
    for strategy in ("crop", "resize"):
        placed = tiling.plan(hole, 256, strategy).windows
        assert {window.scale for window in placed} == {0.25}
        assert max(window.view.width for window in placed) <= 64
