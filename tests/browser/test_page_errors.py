"""What the page says when something is in the way."""

import json

import numpy as np
import pytest

from ..pictures import encoded as encode
from .screen import photograph

pytestmark = pytest.mark.browser


def test_errors_are_sentences_and_nothing_is_lost(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    page.keyboard.press("r")
    screen.drag((-5, -5), (125, 85))
    page.click("#run")
    screen.expect("#message-text").to_contain_text("The whole photograph is painted over")
    screen.expect("#message").to_have_attribute("role", "alert")
    screen.expect("#retry").to_be_hidden()
    assert screen.painted(60, 40)
    page.keyboard.press("Escape")
    screen.expect("#message").to_be_hidden()

    page.keyboard.press("Control+z")
    screen.drag((20, 20), (50, 50))
    page.route("**/v1/inpaint", lambda route: route.abort())
    page.click("#run")
    screen.expect("#message-text").to_contain_text("does not answer")
    page.click("#clear")
    page.click("#retry")
    screen.expect_status("Nothing is painted yet")
    screen.expect("#message").to_be_hidden()
    page.keyboard.press("Control+z")
    page.click("#run")
    screen.expect("#message-text").to_contain_text("does not answer")
    page.unroute("**/v1/inpaint")
    page.click("#retry")
    screen.expect_status("Filled in")
    screen.expect("#message").to_be_hidden()

    # An answer that is not the server's, as a proxy gives it.
    screen.drag((70, 20), (100, 50))
    page.route(
        "**/v1/inpaint", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>")
    )
    page.click("#run")
    screen.expect("#message-text").to_contain_text("status 502")
    page.unroute("**/v1/inpaint")

    large = encode(np.zeros((1001, 1000, 3), np.uint8))
    screen.open(large, "large.png")
    screen.expect("#message-text").to_contain_text(
        "large.png has 1.1 megapixels; this server takes up to 1.0"
    )
    screen.open(encode(photograph(800, 500)), "heavy.png")
    screen.expect("#message-text").to_contain_text(
        "heavy.png has 1.2 MB; this server takes up to 0.9"
    )
    screen.expect("#file-name").to_have_text("photo.png")


def test_of_several_files_the_first_that_can_be_shown_is(visit):
    screen = visit()
    files = [("broken.png", "image/png"), ("notes.txt", "text/plain"), ("good.png", "image/png")]
    with screen.page.expect_file_chooser() as chooser:
        screen.page.click("#pick")
    chooser.value.set_files(
        [
            {
                "name": name,
                "mimeType": kind,
                "buffer": encode(photograph()) if "good" in name else b"-",
            }
            for name, kind in files
        ]
    )
    screen.wait_open("good.png")
    for name in ("broken.png cannot be shown", "notes.txt is not a photograph"):
        screen.expect("#message-text").to_contain_text(name)

    # A folder is dropped as a file that cannot be read.
    screen.page.evaluate(
        """() => {
            const folder = new File([], "holiday");
            folder.arrayBuffer = () => Promise.reject(new DOMException("", "NotReadableError"));
            const data = new DataTransfer();
            const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
            Object.defineProperty(data, "types", { value: ["Files"] });
            Object.defineProperty(data, "files", { value: [folder] });
            document.body.dispatchEvent(event);
        }"""
    )
    screen.expect("#message-text").to_have_text("holiday cannot be shown.")


def test_while_a_photograph_is_filled_no_list_is_shown(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    page.route("**/v1/inpaint", lambda route: None)  # never answered
    screen.drag((20, 20), (50, 50))
    page.click("#run")
    screen.expect("#run").to_have_text("Cancel")
    page.click("#album", force=True)
    screen.expect_status("Being filled")
    screen.expect("#album-dialog").to_be_hidden()
    page.keyboard.press("Escape")
    screen.expect_status("Cancelled")


def test_a_busy_server_is_asked_again(visit):
    screen = visit().open(encode(photograph())).wait_open()
    page = screen.page
    answers = []

    def answer(route):
        answers.append(route)
        if len(answers) > 1:
            route.continue_()
            return
        body = {"error": {"code": "queue_full", "message": "too many requests are waiting"}}
        route.fulfill(status=503, headers={"Retry-After": "1"}, body=json.dumps(body))

    page.route("**/v1/inpaint", answer)
    screen.drag((20, 20), (50, 50))
    page.click("#run")
    screen.expect_status("busy")
    screen.expect_status("Filled in")
    assert len(answers) == 2


def test_a_token_is_asked_for_and_forgotten_with_the_tab(visit, serve):
    guarded = serve(token="open sesame")
    screen = visit(guarded.url).open(encode(photograph())).wait_open()
    page = screen.page
    screen.drag((20, 20), (50, 50))
    page.click("#run")
    screen.expect("#token-dialog").to_be_visible()
    screen.expect("#token-error").to_be_hidden()
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    screen.expect("#token-error").to_be_visible()
    page.fill("#token", "open sesame")
    page.keyboard.press("Enter")
    screen.expect_status("Filled in")
    screen.expect("#token-dialog").to_be_hidden()
    assert page.evaluate("() => Object.values(sessionStorage)") == ["open sesame"]
