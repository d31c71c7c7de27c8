"""An object is selected in the page by a box around it, or by a rough stroke on it."""

import json

import numpy as np
import pytest

from ..pictures import encoded as encode

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def scene():
    """A red ball on a green ground: the photograph, and where the ball is."""
    noise = np.random.default_rng(3).normal(0, 6, (160, 200, 3))
    y, x = np.mgrid[:160, :200]
    ball = np.hypot(x - 90, y - 80) < 30
    pixels = np.where(ball[..., None], (200, 40, 30), (60, 140, 70)) + noise
    return np.clip(pixels, 0, 255).astype(np.uint8), ball


def check_mask(mask: np.ndarray, ball: np.ndarray):
    """It covers the ball, and little beyond its edge."""
    assert (mask & ball).sum() > 0.98 * ball.sum()
    assert (mask & ~ball).sum() < 0.25 * ball.sum()


def test_two_actions_remove_an_object(visit, server, scene):
    pixels, ball = scene
    screen = visit().open(encode(pixels)).wait_open()
    screen.page.click("[data-tool=select]")
    screen.drag((50, 40), (130, 120))
    screen.expect_status("Selected")
    assert screen.painted(90, 80)
    assert not screen.painted(55, 45)
    screen.run()
    check_mask(server.recorder.mask(), ball)
    for _ in range(2):  # the fill, then the selection
        screen.page.keyboard.press("Control+z")
    assert not screen.painted(90, 80)
    assert not screen.is_on("#undo")


def test_a_rough_stroke_becomes_the_outline(visit, server, scene):
    pixels, ball = scene
    screen = visit().open(encode(pixels)).wait_open()
    screen.set_brush(10)
    screen.drag((75, 80), (105, 80))
    screen.page.keyboard.press("o")
    screen.expect_status("Selected")
    screen.run()
    check_mask(server.recorder.mask(), ball)


def test_what_cannot_be_selected_is_said_and_nothing_is_lost(visit, scene):
    pixels, _ = scene
    screen = visit().open(encode(pixels)).wait_open()
    page = screen.page
    screen.drag((20, 20), (40, 20))
    page.keyboard.press("s")
    page.mouse.click(*screen.point(90, 80))
    screen.expect_status("drag a box")
    screen.expect("#message").to_be_hidden()
    refusals = [("missing_package", 501), ("nothing_selected", 400)]

    def refuse(route):
        code, status = refusals.pop(0)
        body = json.dumps({"error": {"code": code, "message": "no"}})
        route.fulfill(status=status, body=body)

    page.route("**/v1/select", refuse)
    for text in ("OpenCV is missing", "No object was found"):
        screen.drag((50, 40), (130, 120))
        screen.expect("#message-text").to_contain_text(text)
        screen.expect("#retry").to_be_hidden()
        assert screen.painted(30, 20)
    page.unroute("**/v1/select")
    page.route("**/v1/select", lambda route: None)  # never answered
    screen.drag((50, 40), (130, 120))
    screen.expect("#run").to_have_text("Cancel")
    page.keyboard.press("Escape")
    screen.expect_status("Cancelled")
    assert screen.painted(30, 20)
