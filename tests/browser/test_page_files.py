"""How photographs come into the page and out of it."""

import base64
import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from ..pictures import encoded as encode
from .screen import BRING_FILE, PAGE, decode, photograph

pytestmark = pytest.mark.browser


def test_paste_drop_and_samples(visit, server):
    screen = visit()
    page = screen.page
    first, second = photograph(50, 40), photograph(64, 48, seed=1)
    encoded = [base64.b64encode(encode(pixels)).decode() for pixels in (first, second)]
    page.evaluate(BRING_FILE, ["paste", encoded[0], "image.png", "image/png"])
    screen.wait_open("pasted.png")
    assert np.array_equal(screen.pixels()[..., :3], first)

    screen.expect("#drop").to_be_hidden()
    page.evaluate(BRING_FILE, ["dragenter", encoded[1], "b.png", "image/png"])
    screen.expect("#drop").to_be_visible()
    page.evaluate(BRING_FILE, ["drop", encoded[1], "b.png", "image/png"])
    screen.expect("#drop").to_be_hidden()
    screen.wait_open("b.png")
    assert np.array_equal(screen.pixels()[..., :3], second)
    # What was open before is not lost.
    page.keyboard.press("Control+z")
    screen.expect_status("Back to pasted.png")
    assert np.array_equal(screen.pixels()[..., :3], first)

    page.keyboard.press("Control+v")
    screen.expect_status("no photograph in the clipboard")

    page.evaluate(BRING_FILE, ["drop", encoded[0], "notes.txt", "text/plain"])
    screen.expect("#message").to_contain_text("notes.txt is not a photograph")
    page.evaluate(BRING_FILE, ["drop", base64.b64encode(b"no").decode(), "broken.png", "image/png"])
    screen.expect("#message-text").to_contain_text("broken.png cannot be shown")
    page.click("#dismiss")
    screen.expect("#message").to_be_hidden()

    other = visit()
    for sample in ("rocket", "cat", "portrait"):
        content = (PAGE / f"sample-{sample}.jpg").read_bytes()
        other.page.goto(server.url)
        other.page.click(f"[data-name='{sample}.jpg']")
        other.wait_open(f"{sample}.jpg")
        assert other.size == Image.open(io.BytesIO(content)).size


def test_before_and_after_and_the_downloaded_file(visit, server):
    pixels = np.full((200, 300, 3), (20, 90, 200), np.uint8)
    pixels[:100] = (220, 60, 20)
    screen = visit().open(encode(pixels), "my photo.v2.jpeg").wait_open("my photo.v2.jpeg")
    page = screen.page
    page.click("#download", force=True)
    screen.expect_status("Nothing is filled yet")
    page.keyboard.press("r")
    screen.drag((50, 20), (250, 80))
    screen.run()
    filled = screen.pixels()[..., :3].astype(int)
    assert np.abs(filled[50, 60] - pixels[50, 60]).max() > 20

    page.click("#compare")
    screen.expect("#compare").to_have_attribute("aria-pressed", "true")
    screen.expect("#divider").to_be_visible()
    assert page.get_attribute("#status", "data-shown") is None  # it would lie over the labels

    def colour(x: float, y: float) -> np.ndarray:
        left, top = screen.point(x, y)
        screen.next_frame()
        clip = {"x": left, "y": top, "width": 1, "height": 1}
        return decode(page.screenshot(clip=clip))[0, 0, :3].astype(int)

    assert np.abs(colour(60, 50) - pixels[50, 60]).max() <= 1
    assert np.abs(colour(240, 50) - filled[50, 240]).max() <= 1
    screen.drag((150, 100), (55, 100))
    screen.expect("#divider").to_have_attribute("aria-valuenow", "18")
    assert np.abs(colour(60, 50) - filled[50, 60]).max() <= 1
    assert np.abs(colour(51, 50) - pixels[50, 60]).max() <= 1
    # A press anywhere brings the divider there; it does not paint.
    page.mouse.click(*screen.point(210, 150))
    screen.expect("#divider").to_have_attribute("aria-valuenow", "70")
    page.keyboard.press("b")
    screen.expect("#divider").to_be_hidden()
    screen.expect("#picture img").to_have_count(1)

    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "my photo.v2-inpainted.png"
    assert Path(download.value.path()).read_bytes() == server.fill_again()


def test_the_download_has_the_chosen_format(visit, server):
    screen = visit()
    page = screen.page
    original = encode(photograph(), "JPEG", quality=71)
    screen.open(original, "photo.jpg", "image/jpeg").wait_open("photo.jpg")
    screen.drag((40, 40), (70, 40))
    screen.run()

    def download(choice: str, quality: str | None = None) -> tuple[str, Image.Image]:
        page.click("#download-as")
        screen.expect("#save-dialog").to_be_visible()
        page.select_option("#format", choice)
        if quality is None:
            screen.expect("#quality-field").to_be_hidden()
        else:
            page.fill("#quality", quality)
            screen.expect("#quality-value").to_have_text(quality)
            screen.check_accessibility()
        with page.expect_download() as found:
            page.click("#save-form [value=save]")
        content = Path(found.value.path()).read_bytes()
        return found.value.suggested_filename, Image.open(io.BytesIO(content))

    name, image = download("same")
    assert (name, image.format) == ("photo-inpainted.jpg", "JPEG")
    assert image.quantization == Image.open(io.BytesIO(original)).quantization
    for choice, suffix in (("jpeg", "jpg"), ("webp", "webp"), ("avif", "avif")):
        name, image = download(choice, "40")
        assert (name, image.format) == (f"photo-inpainted.{suffix}", choice.upper())
        assert image.size == (120, 80)
    screen.kept = {"musical-settings"}
    # The choice stays.
    screen.expect("#download").to_have_attribute("aria-label", "Download as AVIF")
    with page.expect_download() as found:
        page.keyboard.press("Control+s")
    assert found.value.suggested_filename == "photo-inpainted.avif"
    assert download("png")[0] == "photo-inpainted.png"


def test_the_server_converts_what_the_browser_cannot_show(visit, server):
    pixels = np.full((60, 80, 3), (20, 90, 200), np.uint8)
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(stream, quality=95)
    screen = visit().open(stream.getvalue(), "phone.heic", "").wait_open("phone.heic")
    assert screen.size == (80, 60)
    assert np.abs(screen.pixels()[..., :3].astype(int) - pixels).max() <= 3
    screen.drag((30, 30), (40, 30))
    screen.run()
    assert server.recorder.parts()["image"] == stream.getvalue()
    with Image.open(io.BytesIO(server.fill_again())) as answer:
        assert np.array_equal(screen.pixels()[..., :3], np.asarray(answer))
    large = io.BytesIO()
    Image.fromarray(np.zeros((1001, 1000, 3), np.uint8)).save(large, "TIFF", compression="jpeg")
    screen.open(large.getvalue(), "large.tif", "image/tiff")
    screen.expect("#message-text").to_contain_text("large.tif has 1000 x 1001 pixels")


def test_leaving_with_an_unsaved_result_is_asked_about(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    asks = "() => !window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    screen.drag((20, 20), (60, 60))
    assert not page.evaluate(asks)
    screen.run()
    assert page.evaluate(asks)
    with page.expect_download():
        page.click("#download")
    assert not page.evaluate(asks)


def test_a_result_is_copied_and_its_metadata_left_out_on_request(visit):
    exif = Image.Exif()
    exif[271] = "camera"
    content = encode(photograph(), "JPEG", exif=exif)
    screen = visit(permissions=["clipboard-read", "clipboard-write"])
    screen.open(content, "photo.jpg", "image/jpeg").wait_open("photo.jpg")
    page = screen.page
    page.keyboard.press("Control+c")
    screen.expect_status("Nothing is filled yet")
    screen.drag((40, 40), (70, 40))
    screen.run()
    page.keyboard.press("Control+c")
    screen.expect_status("Copied to the clipboard")
    copied = page.evaluate(
        """async () => {
            const [item] = await navigator.clipboard.read();
            const bitmap = await createImageBitmap(await item.getType("image/png"));
            return [bitmap.width, bitmap.height];
        }"""
    )
    assert copied == [120, 80]

    def download() -> Image.Image:
        with page.expect_download() as found:
            page.keyboard.press("Control+s")
        return Image.open(found.value.path())

    assert download().getexif()[271] == "camera"
    page.click("#download-as")
    page.select_option("#metadata", "strip")
    page.keyboard.press("Escape")
    screen.kept = {"musical-settings"}
    assert not download().getexif()
