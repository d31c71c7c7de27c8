"""`/v1/select`: an object in a box or below strokes becomes a mask."""

import sys
import time

import numpy as np
import pytest

from serving.server import selecting
from tests.pictures import header_only_png
from tests.server_client import (
    BYTES,
    decoded,
    error_of,
    metric,
    png,
    post,
    serving,
)
from tests.waiting import wait_until


def scene(height=300, width=400):
    """A disc with a textured surface before a shaded, noisy background, and its outline."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    disc = (x - 0.55 * width) ** 2 + (y - 0.5 * height) ** 2 < (0.25 * height) ** 2
    background = np.stack([60 + x * 80 / width, 120 + y * 60 / height, 90 + 0 * x], axis=2)
    surface = np.stack([170 + 30 * np.sin(x / 4), 60 + 0 * x, 50 + 20 * np.cos(y / 5)], axis=2)
    pixels = np.where(disc[..., None], surface, background) + noise
    return np.clip(pixels, 0, 255).astype(np.uint8), disc


PHOTO, DISC = scene()
BOX = "140,70,300,230"
STROKES = np.zeros(DISC.shape, np.uint8)
STROKES[140:160, 190:250] = 255


@pytest.fixture(scope="module")
def client(session):
    with serving(session, isolate=True, max_pixels=1_000_000) as client:
        yield client


def ask(client, photograph=None, strokes=None, **options):
    files = {"photograph": photograph or png(PHOTO), "strokes": strokes}
    files = {name: (name, content) for name, content in files.items() if content is not None}
    return client.post("/v1/select", files=files, data=options)


def overlap(answer, truth):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    mask = decoded(answer.content)
    assert (mask.shape, set(np.unique(mask))) == (truth.shape, {0, 255})
    found = mask > 127
    assert float(answer.headers["x-selected-share"]) == pytest.approx(found.mean(), abs=1e-6)
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize(
    ("strokes", "options"), [(None, {"box": BOX}), (STROKES, {}), (STROKES, {"box": BOX})]
)
def test_a_box_or_strokes_become_the_outline(client, strokes, options):
    strokes = None if strokes is None else png(strokes)
    answer = ask(client, strokes=strokes, **options)
    assert overlap(answer, DISC) > 0.95
    assert ask(client, strokes=strokes, **options).content == answer.content


def test_a_large_photograph_is_outlined_smoothly(client):
    pixels, disc = scene(900, 1100)
    answer = ask(client, png(pixels), box="360,200,850,700")
    assert overlap(answer, disc) > 0.95
    edges = np.abs(np.diff((decoded(answer.content) > 127).astype(int), axis=1)).sum(axis=1)
    assert (edges > 2).sum() < 5  # one run a row: no holes, no islands


def test_a_box_may_be_the_whole_photograph_and_reach_outside(client):
    assert overlap(ask(client, box="-50,-50,900,900"), DISC) > 0.8


def test_the_mask_fills_the_photograph(client):
    mask = ask(client, box=BOX).content
    filled = decoded(post(client, png(PHOTO), mask).content)
    np.testing.assert_array_equal(filled[decoded(mask) == 0], PHOTO[decoded(mask) == 0])


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({}, 400, "invalid_option"),
        ({"strokes": png(np.zeros_like(STROKES))}, 400, "invalid_option"),
        ({"strokes": png(STROKES[:100])}, 400, "strokes_size"),
        ({"strokes": BYTES}, 400, "invalid_strokes"),
        ({"box": BOX, "photograph": BYTES}, 400, "invalid_photograph"),
        ({"box": BOX, "photograph": header_only_png(20000, 20000)}, 413, "too_many_pixels"),
        *(
            ({"box": box}, 400, "invalid_option")
            for box in ("1,2,3", "a,b,c,d", "5,5,1,1", "900,900,990,990", "1,1,2,2", "nan,1,5,5",
                        "9" * 400 + ",1,2,3")
        ),
        ({"box": [BOX, BOX]}, 400, "invalid_form"),
        ({"box": BOX, "seed": "1"}, 400, "invalid_form"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_reason(client, given, status, code):
    answer = ask(client, **given)
    assert (answer.status_code, error_of(answer)[0]) == (status, code), answer.text


def test_a_photograph_is_needed(client):
    answer = client.post("/v1/select", data={"box": BOX}, files={"strokes": ("a", png(STROKES))})
    assert error_of(answer)[0] == "invalid_photograph"
    answer = client.post("/v1/select", json={"box": BOX})
    assert (answer.status_code, error_of(answer)[0]) == (415, "unsupported_media_type")


def test_without_opencv_the_package_is_named(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with serving(session, isolate=False) as client:
        answer = ask(client, box=BOX)
        assert (answer.status_code, error_of(answer)[0]) == (501, "missing_package")
        assert "musical-tf[select]" in error_of(answer)[1]
        assert post(client).status_code == 200


def spin(small, marks):
    time.sleep(1000)


def test_a_selection_that_never_ends_costs_one_worker(session, monkeypatch):
    with serving(session, isolate=True, timeout=2) as client:
        with monkeypatch.context() as patch:
            patch.setattr(selecting, "cut_out_within_limits", spin)
            assert ask(client, box=BOX).status_code == 504
        wait_until(lambda: metric(client, 'musical_workers_ended_total{reason="abandoned"}') == 1)
        # The import of OpenCV in a new worker may take as long as the request may.
        wait_until(lambda: ask(client, box=BOX).status_code == 200)
