"""A larger canvas and a crop in the page."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..pictures import encoded as encode
from .screen import photograph

pytestmark = pytest.mark.browser


def type_sides(page, **sides):
    for side, pixels in sides.items():
        page.fill(f"#canvas-form [name={side}]", str(pixels))


def test_the_border_is_dragged_outwards_and_what_is_new_is_filled(visit, server):
    pixels = photograph()
    exif = Image.Exif()
    exif[271] = "camera"
    content = encode(pixels, "JPEG", quality=95, exif=exif)
    screen = visit().open(content, "photo.jpg", "image/jpeg").wait_open("photo.jpg")
    before = screen.pixels()[..., :3]
    page = screen.page
    page.keyboard.press("k")
    screen.expect("#canvas-form").to_be_visible()
    screen.check_accessibility()
    handle = page.locator('[data-sides="2"]').bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    right = int(page.input_value("[name=right]"))
    assert right > 5
    type_sides(page, left=-20, top=30)
    screen.expect("#canvas-size").to_have_text(f"{100 + right} × 110")
    page.click("#canvas-apply")
    screen.expect_status("Filled in")
    screen.expect("#picture img").to_have_count(1)
    assert screen.size == (100 + right, 110)
    assert screen.page.locator("#picture").bounding_box()["width"] > 400  # it fits the window again
    mask = server.recorder.mask()
    assert mask[:30].all()
    assert mask[:, 100:].all()
    assert not mask[30:, :100].any()
    assert np.array_equal(screen.pixels()[30:, :100, :3], before[:, 20:])

    page.click("#download-as")
    page.select_option("#format", "same")
    screen.kept = {"musical-settings"}
    with page.expect_download() as found:
        page.click("#save-form [value=save]")
    image = Image.open(io.BytesIO(Path(found.value.path()).read_bytes()))
    assert (image.format, image.size) == ("JPEG", (100 + right, 110))
    assert image.getexif()[271] == "camera"
    for status in ("Before it was filled", "The canvas has 120 × 80 pixels"):
        page.keyboard.press("Control+z")
        screen.expect_status(status)
    screen.expect("#file-size").to_have_text("120 × 80")
    assert np.array_equal(screen.pixels()[..., :3], before)


def test_a_crop_is_exact_and_an_impossible_canvas_is_an_error(visit):
    pixels = photograph()
    screen = visit().open(encode(pixels)).wait_open()
    page = screen.page
    screen.drag((30, 40), (60, 40))
    screen.run()
    filled = screen.pixels()[..., :3]
    page.click("#canvas")
    for sides, reason in (
        ({"right": 40_000, "bottom": 40_000}, "megapixels"),
        ({"right": -200, "bottom": 0}, "Nothing of the photograph would be left"),
    ):
        type_sides(page, **sides)
        page.click("#canvas-apply")
        screen.expect("#message-text").to_contain_text(reason)
        screen.expect("#file-size").to_have_text("120 × 80")
    type_sides(page, left=-10, top=-5, right=-7, bottom=0)
    page.keyboard.press("Enter")
    screen.expect("#file-size").to_have_text("103 × 75")
    assert np.array_equal(screen.pixels()[..., :3], filled[5:, 10:-7])
    page.keyboard.press("c")  # it is still compared with the original
    screen.expect("#divider").to_be_visible()
    page.keyboard.press("k")
    screen.expect("#toolbar").to_be_hidden()
    type_sides(page, left=-10)
    page.route("**/v1/convert", lambda route: route.abort())
    page.keyboard.press("Enter")
    screen.expect("#message-text").to_contain_text("does not answer")
    page.click("#canvas-cancel")
    screen.expect("#toolbar").to_be_visible()
    page.click("#retry")  # of a canvas that is not changed any more
    screen.expect("#message").to_be_hidden()
    screen.expect("#file-size").to_have_text("103 × 75")
