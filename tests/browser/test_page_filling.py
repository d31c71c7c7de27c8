"""Filling through the page: the pixels of the API, formats, progress, several models."""

import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from serving.session import InpaintingSession

from ..pictures import encoded as encode
from ..serving_model import write_model
from .screen import DESKTOP, PHONE, Server, decode, photograph

pytestmark = pytest.mark.browser


def test_painted_hole_is_filled_with_the_pixels_of_the_api(visit, server):
    pixels = photograph()
    content = encode(pixels)
    screen = visit().open(content).wait_open()
    assert not screen.is_on("#run")
    size = screen.set_brush(12)
    screen.drag((40, 40), (70, 40))
    assert screen.painted(55, 40)
    assert not screen.painted(55, 60)
    assert np.array_equal(screen.pixels()[..., :3], pixels)
    screen.run()

    assert server.recorder.parts()["image"] == content
    mask = server.recorder.mask()
    rows, columns = np.nonzero(mask)
    assert mask.shape == pixels.shape[:2]
    assert abs(rows.min() - (40 - size / 2)) <= 1
    assert abs(rows.max() + 1 - (40 + size / 2)) <= 1
    assert abs(columns.min() - (40 - size / 2)) <= 1
    assert abs(columns.max() + 1 - (70 + size / 2)) <= 1

    seen = screen.pixels()
    answer = decode(server.fill_again())
    assert np.array_equal(seen[..., :3], answer)
    assert np.array_equal(seen[~mask][:, :3], pixels[~mask])
    assert (seen[mask][:, :3] != pixels[mask]).any()
    assert not screen.painted(55, 40)


def test_a_result_is_the_photograph_of_the_next_round_and_every_round_can_be_undone(visit, server):
    pixels = photograph()
    screen = visit().open(encode(pixels)).wait_open()
    screen.set_brush(10)
    screen.drag((20, 20), (30, 20))
    screen.run()
    first = screen.pixels()
    answer = server.fill_again()
    screen.drag((80, 60), (90, 60))
    screen.run()
    second = screen.pixels()
    assert server.recorder.parts()["image"] == answer
    assert np.array_equal(first[20, 20], second[20, 20])

    keyboard = screen.page.keyboard
    keyboard.press("Control+z")
    screen.expect_status("Before it was filled")
    screen.expect_pixels(first)
    assert screen.painted(85, 60)
    keyboard.press("Control+z")
    assert not screen.painted(85, 60)
    keyboard.press("Control+z")
    screen.expect_status("Before it was filled")
    screen.expect_pixels(pixels)
    assert screen.painted(25, 20)
    for _ in range(3):
        keyboard.press("Control+Shift+z")
    screen.expect_pixels(second)
    screen.expect_status("Filled.")
    assert not screen.is_on("#redo")


def test_orientation_alpha_and_other_formats(visit, server):
    pixels = photograph(60, 40)
    exif = Image.Exif()
    exif[274] = 6
    screen = visit().open(encode(pixels, "JPEG", quality=95, exif=exif), "turned.jpg", "image/jpeg")
    screen.wait_open("turned.jpg")
    assert screen.size == (40, 60)
    screen.drag((20, 50), (30, 50))
    screen.run()
    assert server.recorder.mask().shape == (60, 40)
    assert np.array_equal(screen.pixels()[..., :3], decode(server.fill_again()))

    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    alpha[:10, :, 3] = 0
    screen.open(encode(alpha), "alpha.png").wait_open("alpha.png")
    screen.drag((30, 30), (40, 30))
    screen.run()
    answer = decode(server.fill_again())
    assert np.array_equal(answer[..., 3], alpha[..., 3])
    assert np.array_equal(screen.pixels()[..., 3], alpha[..., 3])

    # The server does not take GIF; the page sends what the browser shows of it.
    screen.open(encode(pixels, "GIF"), "old.gif", "image/gif").wait_open("old.gif")
    screen.drag((30, 30), (40, 30))
    screen.run()
    sent = server.recorder.parts()["image"]
    assert Image.open(io.BytesIO(sent)).format == "PNG"
    with Image.open(io.BytesIO(encode(pixels, "GIF"))) as old:
        assert np.array_equal(decode(sent)[..., :3], np.asarray(old.convert("RGB")))


def test_progress_is_shown_and_cancel_stops_the_server(visit, serve, tmp_path):
    gate = threading.Event()

    class Slow(InpaintingSession):
        batches = 0

        def run_windows(self, images, holes, *how):
            self.batches += 1
            if self.batches > 3:  # the first ones are the server's own and progress to show
                gate.wait(120)
            return super().run_windows(images, holes, *how)

    slow = Slow(write_model(tmp_path / "model.onnx"))
    slow_server = serve(slow)
    screen = visit(slow_server.url).open(encode(photograph(2400, 64))).wait_open()
    page = screen.page
    screen.set_brush(10)
    screen.drag((40, 30), (2360, 30))  # long: windows that run one after the other
    page.click("#run")
    screen.expect("#progress-text").to_have_text(re.compile(r"[1-9]\d* of \d+ parts filled"))
    windows = int(page.get_attribute("#progress-bar", "max"))
    assert windows > 6
    screen.check_accessibility()
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.click("#run")
    screen.expect_status("Cancelled")
    screen.expect("#progress").to_be_hidden()
    cancelled = slow.batches
    gate.set()
    counts = []
    for _ in range(2):  # the server fills one after the other: whatever is left comes first
        if counts:
            page.keyboard.press("Control+z")
            screen.expect_status("Before it was filled")
        screen.run()
        counts.append(slow.batches)
    assert counts[0] - cancelled == counts[1] - counts[0] > 3


def test_filling_can_be_cancelled(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    held = []
    page.route("**/v1/inpaint", lambda route: held.append(route))  # never answered
    screen.drag((20, 20), (50, 50))
    for cancel in (lambda: page.keyboard.press("Escape"), lambda: page.click("#run")):
        page.click("#run")
        screen.expect_status("Filling")
        screen.expect("#run").to_have_text("Cancel")
        screen.expect("#stage").to_have_attribute("aria-busy", "true")
        screen.drag((80, 20), (90, 20))
        assert not screen.painted(85, 20)
        cancel()
        screen.expect_status("Cancelled")
        screen.expect("#run").to_have_text("Fill")
        assert screen.painted(35, 35)
    assert len(held) == 2


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """A server with two models, of which the second fills with darkness."""
    folder = tmp_path_factory.mktemp("two")
    light, dark = folder / "light.onnx", folder / "dark.onnx"
    server = Server(
        [InpaintingSession(write_model(light)), InpaintingSession(write_model(dark, result=3))]
    )
    yield server
    server.close()


def test_one_model_is_no_choice(visit):
    screen = visit()
    screen.expect("#about").to_contain_text("trained on")
    screen.expect("#choice").to_be_hidden()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_chosen_model_fills(visit, two_models, viewport):
    screen = visit(two_models.url, viewport=viewport)
    screen.expect("#choice").to_be_visible()
    assert screen.page.locator("#model-choice option").all_inner_texts() == ["light", "dark"]
    screen.open(encode(photograph())).wait_open()
    screen.drag((30, 40), (60, 40))
    screen.page.select_option("#model-choice", label="dark")
    screen.run()
    screen.expect_status("Filled in")
    assert two_models.recorder.parts()["model"] == b"dark.onnx"
    hole = two_models.recorder.mask()
    assert (screen.pixels()[hole][:, :3] == 3).all()
    box = screen.page.locator("#settings").bounding_box()
    assert box["x"] + box["width"] <= viewport["width"]


def test_sharp_or_smooth_is_a_setting_that_is_kept(visit, server, serve, tmp_path):
    screen = visit()
    page = screen.page
    page.click("#settings")
    screen.check_accessibility()
    screen.expect("[name=fill] [value=copy]").to_be_disabled()  # this file copies nothing
    page.select_option("[name=fill]", "network")
    page.keyboard.press("Escape")
    screen.open(encode(photograph())).wait_open()
    screen.drag((30, 40), (60, 40))
    screen.run()
    assert server.recorder.parts()["fill"] == b"network"
    screen.kept = {"musical-settings"}

    copying = serve(InpaintingSession(write_model(tmp_path / "copying.onnx", copies=7)))
    other = visit(copying.url)
    other.kept = {"musical-settings"}
    other.page.click("#settings")
    other.page.select_option("[name=fill]", "copy")
    other.page.reload()
    other.open(encode(photograph())).wait_open()
    other.drag((30, 40), (60, 40))
    other.run()
    assert copying.recorder.parts()["fill"] == b"copy"


NARROW = {"width": 320, "height": 568}


@pytest.mark.parametrize(
    ("code", "names"),
    [("en", ["Everything else", "Portrait"]), ("de", ["Alles andere", "Porträt"])],
)
def test_models_of_the_package_are_offered_by_what_they_are_for(visit_both_models, code, names):
    screen = visit_both_models(viewport=NARROW, locale=code)
    screen.expect("#model-choice option").to_have_text(names)

    def check_room():
        """That the screen has room for the longest name."""
        width, wanted, content = screen.page.evaluate(
            """() => {
                const choice = document.getElementById("model-choice");
                const { width } = choice.getBoundingClientRect();
                choice.style.width = "max-content";
                const wanted = choice.getBoundingClientRect().width;
                choice.style.width = "";
                return [width, wanted, document.documentElement.scrollWidth];
            }"""
        )
        assert width >= wanted
        assert content == NARROW["width"]

    check_room()
    screen.open(encode(photograph())).wait_open()
    check_room()
    choice, buttons = (
        screen.page.locator(f".bar > {each}").bounding_box() for each in ("#choice", ".group")
    )
    assert buttons["y"] + buttons["height"] <= choice["y"] + 1


def test_a_stroke_is_filled_on_release_if_that_is_set(visit, server):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    screen.kept = {"musical-settings"}
    page.click("#settings")
    page.check("[name=fillOnRelease]")
    page.keyboard.press("Escape")
    screen.drag((30, 40), (60, 40))
    screen.expect_status("Filled in")
    screen.expect("#picture img").to_have_count(1)
    assert server.recorder.mask()[40, 45]
    count = len(server.recorder.requests)
    page.keyboard.press("e")
    screen.drag((30, 40), (60, 40))  # an eraser fills nothing
    screen.next_frame()
    assert len(server.recorder.requests) == count


@pytest.fixture(scope="module")
def variants(tmp_path_factory):
    """A server whose model has variants."""
    path = tmp_path_factory.mktemp("variants") / "variants.onnx"
    server = Server(InpaintingSession(write_model(path, copies=100, has_seed=True)))
    yield server
    server.close()


def fill_by(screen, act):
    """Has the page fill something, and waits until the result is on the screen."""
    with screen.page.expect_response("**/v1/inpaint"):
        act()
    screen.expect("#stage").to_have_attribute("aria-busy", "false")
    screen.expect("#picture img").to_have_count(1)


def test_another_click_fills_the_same_area_in_another_way(visit, variants):
    pixels = photograph()
    content = encode(pixels)
    screen = visit(variants.url).open(content).wait_open()
    page, run = screen.page, screen.expect("#run")
    screen.set_brush(12)
    screen.drag((40, 40), (70, 40))
    run.to_have_text("Fill")
    fill_by(screen, lambda: page.click("#run"))
    seen, mask = [screen.pixels()], variants.recorder.mask()
    for seed, act in enumerate((lambda: page.click("#run"), lambda: page.keyboard.press("Enter"))):
        run.to_have_text("Another")
        run.to_have_attribute("data-tip", "Fill the same area in another way")
        screen.check_accessibility()
        fill_by(screen, act)
        parts = variants.recorder.parts()
        assert (parts["seed"], parts["image"]) == (str(seed + 1).encode(), content)
        assert np.array_equal(variants.recorder.mask(), mask)
        seen.append(screen.pixels())
        assert np.array_equal(seen[-1][..., :3], decode(variants.fill_again()))
        assert np.array_equal(seen[-1][~mask][:, :3], pixels[~mask])
    assert len({each.tobytes() for each in seen}) == 3

    # Each variant is one step; what is painted on a result is filled as ever.
    for before in (seen[1], seen[0]):
        page.keyboard.press("Control+z")
        screen.expect_pixels(before)
    fill_by(screen, lambda: page.click("#run"))
    assert np.array_equal(screen.pixels(), seen[1])
    screen.drag((20, 20), (24, 20))
    run.to_have_text("Fill")
    fill_by(screen, lambda: page.click("#run"))
    assert variants.recorder.parts()["seed"] == b"0"
    run.to_have_text("Another")
    page.click("#settings")
    page.select_option("[name=fill]", "network")
    run.to_have_text("Fill")
    assert not screen.is_on("#run")
    page.select_option("[name=fill]", "auto")
    run.to_have_text("Another")
    page.keyboard.press("Escape")


def test_another_fill_by_touch_in_german_can_be_cancelled(visit, variants):
    screen = visit(variants.url, viewport=PHONE, has_touch=True, locale="de-DE")
    page, run = screen.page, screen.expect("#run")
    screen.open(encode(photograph())).wait_open()
    screen.drag((40, 40), (70, 40))
    fill_by(screen, lambda: page.tap("#run"))
    first = screen.pixels()
    run.to_have_text("Anders")
    box = page.locator("#toolbar").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    page.route("**/v1/inpaint", lambda route: None)  # never answered
    page.tap("#run")
    run.to_have_text("Abbrechen")
    page.tap("#run")
    run.to_have_text("Anders")
    assert np.array_equal(screen.pixels(), first)
    page.unroute("**/v1/inpaint")
    fill_by(screen, lambda: page.tap("#run"))
    assert not np.array_equal(screen.pixels(), first)


def test_a_model_without_variants_offers_no_other_fill(visit):
    screen = visit().open(encode(photograph())).wait_open()
    screen.drag((40, 40), (70, 40))
    screen.run()
    screen.expect("#run").to_have_text("Fill")
    assert not screen.is_on("#run")
