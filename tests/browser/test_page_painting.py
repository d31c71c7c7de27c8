"""Tools, zoom, keyboard and masks of the page."""

import base64

import numpy as np
import pytest
from PIL import Image

from ..pictures import encoded as encode
from .screen import BRING_FILE, decode, photograph

pytestmark = pytest.mark.browser


def test_a_mask_of_24_megapixels_is_drawn_in_strips(visit):
    screen = visit()
    encoded, count = screen.page.evaluate(
        """async () => {
            const { BrushStroke, RectangleStroke, encodeMask } = await import("/page/strokes.js");
            const line = new BrushStroke(200, false, 500, 500);
            line.extend(5500, 3500);
            const eraser = new BrushStroke(100, true, 3000, 2000);
            const box = RectangleStroke.between([-50, 3990.5], [20.2, 5000], 6000, 4000);
            const strokes = [line.finish(), eraser.finish(), box];
            const { blob, holePixels } = await encodeMask(6000, 4000, strokes);
            const bytes = new Uint8Array(await blob.arrayBuffer());
            let text = "";
            for (const byte of bytes) text += String.fromCharCode(byte);
            return [btoa(text), holePixels];
        }"""
    )
    hole = decode(base64.b64decode(encoded)) > 127
    assert hole.shape == (4000, 6000)
    assert hole.sum() == count
    assert hole[3990:, :21].all()
    hole = hole[:3990:7, ::7]  # every seventh will do
    y, x = np.mgrid[:3990:7, :6000:7] + 0.5
    along = np.clip(((x - 500) * 5000 + (y - 500) * 3000) / (5000**2 + 3000**2), 0, 1)
    distance = np.hypot(x - 500 - 5000 * along, y - 500 - 3000 * along)
    from_eraser = np.hypot(x - 3000, y - 2000)
    expected = (distance < 100) & (from_eraser > 50)
    edge = (np.abs(distance - 100) < 1) | (np.abs(from_eraser - 50) < 1)  # a matter of rounding
    assert np.array_equal(hole[~edge], expected[~edge])


def test_brush_eraser_rectangle_undo_redo_and_clear(visit, server):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    page.keyboard.press("r")
    screen.expect("[data-tool=rectangle]").to_have_attribute("aria-pressed", "true")
    screen.drag((60.4, 50.4), (20.6, 20.6))
    page.keyboard.press("e")
    screen.set_brush(10)
    screen.drag((40, 20), (40, 50))
    page.click("[data-tool=brush]")
    screen.drag((100, 10), (100, 20))
    states = {(30, 30): True, (40, 35): False, (100, 15): True}
    assert {point: screen.painted(*point) for point in states} == states

    for expected in (
        {(30, 30): True, (40, 35): False, (100, 15): False},
        {(30, 30): True, (40, 35): True, (100, 15): False},
        {(30, 30): False, (40, 35): False, (100, 15): False},
    ):
        page.click("#undo")
        assert {point: screen.painted(*point) for point in states} == expected
    assert not screen.is_on("#undo")
    assert not screen.is_on("#run")
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+Shift+z")
    page.click("#redo")
    assert {point: screen.painted(*point) for point in states} == states

    page.keyboard.press("Delete")
    assert not any(screen.painted(*point) for point in states)
    page.click("#run", force=True)  # it says that it is disabled, and why if one insists
    screen.expect_status("Nothing is painted yet")
    page.click("#undo")
    assert {point: screen.painted(*point) for point in states} == states
    page.click("#clear")
    page.keyboard.press("Control+z")
    screen.run()
    mask = server.recorder.mask()
    assert mask[20:51, 20:32].all()
    assert not mask[:20, :61].any()
    assert not mask[51:, :61].any()
    assert not mask[20:51, 37:43].any()


def test_the_ring_is_as_large_as_what_it_paints(visit):
    screen = visit().open(encode(photograph(400, 300))).wait_open()
    page = screen.page
    page.mouse.move(*screen.point(200, 150))
    for key in ("]", "]", "[", "[", "[", "["):
        page.keyboard.press(key)
        shown = int(page.inner_text("#size-value").split()[0])
        scale = page.locator("#picture").bounding_box()["width"] / 400
        ring = page.locator("#ring").bounding_box()
        assert ring["width"] == pytest.approx(shown * scale, abs=1)
        assert ring["x"] + ring["width"] / 2 == pytest.approx(screen.point(200, 150)[0], abs=1)
    before = shown
    page.focus("#size")
    page.keyboard.press("End")
    assert int(page.inner_text("#size-value").split()[0]) == 150 > before


def test_zoom_about_the_pointer_pan_and_fit(visit):
    screen = visit().open(encode(photograph(400, 300))).wait_open()
    page = screen.page
    picture = page.locator("#picture")
    fitted = picture.bounding_box()
    x, y = screen.point(100, 200)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "width => document.getElementById('picture').offsetWidth > width + 1",
        arg=fitted["width"],
    )
    assert screen.point(100, 200) == (pytest.approx(x, abs=1), pytest.approx(y, abs=1))
    assert page.inner_text("#zoom-level") != "100\u2009%"

    def factor(**event) -> float:
        """By how much a wheel event zooms in; it keeps what the pointer is at."""
        width = picture.bounding_box()["width"]
        page.evaluate(
            """([x, y, event]) => document.getElementById("stage").dispatchEvent(new WheelEvent(
                "wheel", { clientX: x, clientY: y, cancelable: true, ...event }))""",
            [x, y, event],
        )
        screen.next_frame()
        assert screen.point(100, 200) == (pytest.approx(x, abs=1), pytest.approx(y, abs=1))
        return picture.bounding_box()["width"] / width

    notch = factor(deltaY=-100)
    assert 1.1 < notch < 1.25
    assert factor(deltaY=200) == pytest.approx(notch**-2, rel=0.01)
    assert factor(deltaY=-6.25, deltaMode=1) == pytest.approx(notch, rel=0.01)
    assert factor(deltaY=-100, ctrlKey=True) == pytest.approx(notch, rel=0.01)
    page.keyboard.down("Control")
    assert factor(deltaY=30, ctrlKey=True) == pytest.approx(notch**-0.3, rel=0.01)
    page.keyboard.up("Control")
    # Without the key it is a pinch of a touch pad, reported as -100 ln f.
    assert factor(deltaY=-10, ctrlKey=True) == pytest.approx(np.exp(0.1), rel=0.01)

    before = picture.bounding_box()
    page.keyboard.down("Space")
    screen.drag((100, 200), (120, 210))
    page.keyboard.up("Space")
    screen.drag((150, 150), (160, 150), button="middle")
    screen.expect("#status").not_to_contain_text("clipboard")  # it pastes where nobody minds it
    screen.next_frame()
    after = picture.bounding_box()
    scale = before["width"] / 400
    assert after["x"] - before["x"] == pytest.approx(30 * scale, abs=1.5)
    assert after["y"] - before["y"] == pytest.approx(10 * scale, abs=1.5)
    assert not screen.is_on("#undo")

    page.keyboard.press("0")
    screen.next_frame()
    assert picture.bounding_box() == fitted
    page.keyboard.press("1")
    screen.next_frame()
    assert picture.bounding_box()["width"] == pytest.approx(400, abs=0.5)
    page.click("#zoom-in")
    screen.next_frame()
    assert picture.bounding_box()["width"] == pytest.approx(500, abs=0.5)
    # Painting lands where it is seen at any zoom.
    screen.drag((200, 150), (220, 150))
    assert screen.painted(210, 150)


def test_everything_works_with_the_keyboard_alone(visit, server):
    screen = visit()
    page = screen.page
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.id"))
        if reached[-1] == "pick":
            break
    assert reached[-1] == "pick"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    content = encode(photograph(200, 150))
    chooser.value.set_files({"name": "photo.png", "mimeType": "image/png", "buffer": content})
    screen.wait_open()
    assert page.evaluate("() => document.activeElement.id") == "stage"
    screen.expect("#ring").to_be_visible()

    screen.set_brush(10)
    page.keyboard.press("ArrowLeft")
    page.keyboard.down("Space")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.up("Space")
    assert screen.painted(100, 75)
    page.keyboard.press("r")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    screen.expect_status("Filled in")
    mask = server.recorder.mask()
    assert mask[75, 100]
    box = np.argwhere(mask[:60])
    assert np.ptp(box[:, 0]) == 0  # the rectangle: one arrow with Alt is one pixel
    assert len(box) == np.ptp(box[:, 1]) + 1 > 5

    assert not screen.is_on("#run")
    page.keyboard.press("l")  # a triangle, corner by corner
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        for _ in range(4):
            page.keyboard.press("Shift+" + key)
        page.keyboard.press("Space")
    assert not screen.is_on("#run")
    page.keyboard.press("Enter")
    assert screen.is_on("#run")

    page.keyboard.press("c")
    screen.expect("#divider").to_be_visible()
    page.focus("#divider")
    page.keyboard.press("ArrowLeft")
    screen.expect("#divider").to_have_attribute("aria-valuenow", "48")
    page.keyboard.press("Home")
    screen.expect("#divider").to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("Escape")
    screen.expect("#divider").to_be_hidden()
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    assert download.value.suggested_filename == "photo-inpainted.png"
    page.keyboard.press("?")
    screen.expect("#keys").to_be_visible()
    page.keyboard.press("Escape")
    screen.expect("#keys").to_be_hidden()


def test_escape_takes_back_what_is_being_painted(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    page.mouse.move(*screen.point(40, 40))
    page.mouse.down()
    page.mouse.move(*screen.point(60, 40), steps=3)
    assert screen.painted(50, 40)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert not screen.painted(50, 40)
    page.keyboard.press("r")
    page.mouse.down()
    page.mouse.move(*screen.point(90, 70), steps=3)
    screen.expect("#rectangle-preview").to_be_visible()
    page.keyboard.press("Escape")
    page.mouse.up()
    screen.next_frame()
    screen.expect("#rectangle-preview").to_be_hidden()
    assert not screen.is_on("#undo")


def test_masks_come_in_and_out_grow_and_shrink(visit, server):
    screen = visit().open(encode(photograph(400, 300))).wait_open()
    page = screen.page
    hole = np.zeros((300, 400), np.uint8)
    hole[100:140, 50:90] = hole[200:210, 300:330] = 255

    def choose(action: str):
        page.click("#mask")
        page.click(f"#mask-form [value={action}]")

    def open_mask(content: bytes, name: str = "mask.png"):
        with page.expect_file_chooser() as chooser:
            choose("mask-open")
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})

    def saved() -> np.ndarray:
        with page.expect_download() as found:
            choose("mask-save")
        assert found.value.suggested_filename == "photo-mask.png"
        return np.asarray(Image.open(found.value.path()))

    for content, reason in (
        (encode(hole[:-1]), "must have the size of its photograph"),
        (encode(hole * 0), "marks nothing"),
        (b"no image", "cannot be shown"),
    ):
        open_mask(content)
        screen.expect("#message-text").to_contain_text(reason)
        assert not screen.is_on("#undo")
    open_mask(encode(hole))
    screen.expect_status("mask.png is painted")
    assert screen.painted(70, 120)
    assert not screen.painted(150, 120)
    assert np.array_equal(saved(), hole)
    page.keyboard.press("}")  # 300 pixels: 2 on every side
    screen.expect_status("Grown by 2 px")
    larger = saved() > 0
    expected = np.zeros_like(larger)
    expected[98:142, 48:92] = expected[198:212, 298:332] = True
    assert np.array_equal(larger, expected)
    choose("mask-shrink")
    screen.expect_status("Shrunk by 2 px")
    assert np.array_equal(saved(), hole)
    screen.run()
    assert np.array_equal(server.recorder.mask(), hole > 0)
    assert not screen.painted(70, 120)
    page.keyboard.press("m")
    assert screen.painted(70, 120)
    screen.run()
    assert np.array_equal(server.recorder.mask(), hole > 0)
    encoded = base64.b64encode(encode(hole)).decode()
    page.evaluate(BRING_FILE, ["drop", encoded, "photo-mask.png", "image/png"])
    screen.expect_status("photo-mask.png is painted")
    page.click("#mask")
    screen.check_accessibility()


def test_lines_lasso_brush_by_wheel_and_peek(visit):
    pixels = np.full((200, 300, 3), (20, 90, 200), np.uint8)
    pixels[:100] = (220, 60, 20)
    screen = visit().open(encode(pixels)).wait_open()
    page = screen.page
    screen.set_brush(12)
    page.mouse.click(*screen.point(20, 20))
    page.keyboard.down("Shift")
    page.mouse.click(*screen.point(100, 60))
    page.mouse.click(*screen.point(180, 20))
    page.keyboard.up("Shift")
    assert screen.painted(60, 40)
    assert screen.painted(140, 40)
    assert not screen.painted(60, 20)

    page.keyboard.press("l")
    screen.drag((200, 100), (280, 100), (280, 180), (200, 180), (200, 110))
    assert screen.painted(240, 140)
    assert not screen.painted(190, 140)

    for corner in ((20, 100), (80, 100), (80, 180), (20, 180)):
        page.mouse.click(*screen.point(*corner))
    assert screen.is_on("#undo")
    page.mouse.click(*screen.point(20, 100))  # the first corner closes it
    assert screen.painted(50, 140)
    assert not screen.painted(120, 140)
    page.mouse.click(*screen.point(100, 150))
    page.mouse.click(*screen.point(120, 150))
    page.keyboard.press("Enter")  # two corners enclose nothing
    screen.expect("#picture img").to_have_count(1)

    page.keyboard.press("b")
    page.mouse.move(*screen.point(150, 150))
    zoom = page.inner_text("#zoom-level")
    page.keyboard.down("Alt")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Alt")
    screen.expect("#size-value").not_to_have_text("12 px")
    assert 13 < int(page.inner_text("#size-value").split()[0]) < 20
    assert page.inner_text("#zoom-level") == zoom

    screen.run()
    page.keyboard.down("p")
    screen.expect("#picture img").to_have_count(2)
    screen.next_frame()
    x, y = screen.point(240, 140)
    shown = decode(page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1}))[0, 0, :3]
    assert np.abs(shown.astype(int) - pixels[140, 240]).max() <= 1
    page.keyboard.up("p")
    screen.expect("#picture img").to_have_count(1)
