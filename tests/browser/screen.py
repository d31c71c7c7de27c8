"""The real server with a tiny model, and headless Chromium as a visitor uses it.

The server's side of every request is recorded, so that a test can send the same bytes to the API
by itself and compare.
"""

import base64
import email
import email.policy
import io
import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

from serving.server import create_app

PAGE = Path(__file__).parents[2] / "serving" / "page"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 640}


class Recorder:
    """Keeps the headers and the body of every request to fill something."""

    def __init__(self, app):
        self.app = app
        self.requests: list[tuple[str, bytes]] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/v1/inpaint":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        content_type = dict(scope["headers"])[b"content-type"].decode()

        async def record():
            message = await receive()
            body.extend(message.get("body", b""))
            if message["type"] == "http.request" and not message.get("more_body"):
                self.requests.append((content_type, bytes(body)))
            return message

        await self.app(scope, record, send)

    def parts(self, index: int = -1) -> dict[str, bytes]:
        """The fields of a recorded form."""
        content_type, body = self.requests[index]
        message = email.message_from_bytes(
            f"Content-Type: {content_type}\r\n\r\n".encode() + body, policy=email.policy.HTTP
        )
        return {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.iter_parts()
        }

    def mask(self, index: int = -1) -> np.ndarray:
        """The mask of a recorded form, `(H, W)` bool."""
        image = Image.open(io.BytesIO(self.parts(index)["mask"]))
        assert image.format == "PNG"
        assert image.mode == "L"
        values = np.asarray(image)
        assert set(np.unique(values)) <= {0, 255}
        return values > 127


class Server:
    """A running server: `url` and `recorder`."""

    def __init__(self, session, **settings):
        import uvicorn

        from serving.server.app import Settings

        self.recorder = Recorder(create_app(session, Settings(**settings)))
        config = uvicorn.Config(self.recorder, port=0, log_level="warning", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.02)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        while not self._is_ready():
            assert time.monotonic() < deadline + 40, "the server did not get ready in time"
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz"):
                return True
        except urllib.error.HTTPError:
            return False

    def fill_again(self, index: int = -1) -> bytes:
        """What the API answers to a recorded request."""
        content_type, body = self.recorder.requests[index]
        request = urllib.request.Request(
            f"{self.url}/v1/inpaint", body, {"Content-Type": content_type}
        )
        with urllib.request.urlopen(request) as response:
            content = response.read()
        del self.recorder.requests[-1]
        return content

    def close(self):
        self._server.should_exit = True
        self._thread.join(20)


def find_chromium() -> str | None:
    """The path of Debian's Chromium, or of one under another name."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Screen:
    """A page in the browser, and what went wrong in it."""

    def __init__(self, chromium, url: str, **options):
        self.context = chromium.new_context(**{"viewport": DESKTOP, **options})
        self.context.set_default_timeout(20_000)  # milliseconds, for a busy machine
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.urls: list[str] = []
        self.kept: set[str] = set()  # what the browser may keep after the visit
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._listen)
        self.page.on("request", lambda request: self.urls.append(request.url))
        self.page.on("dialog", self._refuse)
        # Whoever listens from the start does not race with the key that opens a file chooser.
        self.page.on("filechooser", lambda _: None)
        self.url = url
        self.page.goto(url)

    def _listen(self, message):
        # Chromium logs every status from 400 on; those the tests provoke on purpose.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def _refuse(self, dialog):
        self.problems.append(f"a {dialog.type} dialog: {dialog.message}")
        dialog.dismiss()

    def check(self):
        """That nothing failed, nothing else was asked, and nothing was left behind."""
        assert self.problems == []
        foreign = [url for url in self.urls if not url.startswith((self.url, "blob:", "data:"))]
        assert foreign == []
        assert self.context.cookies() == []
        assert set(self.page.evaluate("() => Object.keys(localStorage)")) == self.kept

    def check_accessibility(self):
        """That axe finds nothing, in what is on the screen."""
        from axe_playwright_python.sync_playwright import Axe

        # What is still rising or fading in counts as invisible.
        self.page.evaluate(
            """() => Promise.allSettled(document.getAnimations()
                .filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
                .map((one) => one.finished))"""
        )
        violations = Axe().run(self.page).response["violations"]
        assert [
            (each["id"], [node["target"] for node in each["nodes"]]) for each in violations
        ] == []

    # what a visitor does

    def open(self, content: bytes, name: str = "photo.png", media_type: str = "image/png"):
        """Chooses a file, as the button asks for one."""
        button = "#open" if self.page.locator("#stage").is_visible() else "#pick"
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files({"name": name, "mimeType": media_type, "buffer": content})
        return self

    def wait_open(self, name: str = "photo.png"):
        """Waits until the photograph is open and in its place, in any language."""
        self.expect("#file-name").to_have_text(name)
        self.expect_status(name)
        self.next_frame()
        return self

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the photograph, in its pixels, is in the window."""
        box = self.page.locator("#picture").bounding_box()
        width, height = self.size
        return box["x"] + x / width * box["width"], box["y"] + y / height * box["height"]

    @property
    def size(self) -> tuple[int, int]:
        return tuple(map(int, re.findall(r"\d+", self.page.inner_text("#file-size"))))

    def drag(self, *points: tuple[float, float], button: str = "left"):
        """Drags the mouse through points of the photograph."""
        places = [self.point(*point) for point in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down(button=button)
        for place in places[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up(button=button)

    def set_brush(self, size: int):
        for _ in range(60):
            shown = int(self.page.inner_text("#size-value").split()[0])
            if shown <= size:
                return shown
            self.page.keyboard.press("[")
        raise AssertionError("the brush does not get smaller")

    def run(self):
        self.page.click("#run")
        self.expect_status("Filled in")
        self.expect("#picture img").to_have_count(1)

    # what a visitor sees

    def expect(self, selector: str):
        """Playwright's assertions, which wait until they hold."""
        from playwright.sync_api import expect

        return expect(self.page.locator(selector))

    def expect_status(self, text: str):
        self.expect("#status").to_contain_text(text)

    def expect_hidden_status(self):
        self.expect("#status").not_to_have_attribute("data-shown", "")

    def next_frame(self):
        """Waits until what has been done is on the screen."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def pixels(self) -> np.ndarray:
        """The photograph on the screen, `(H, W, 4)` uint8."""
        encoded, width, height = self.page.evaluate(
            """() => {
                const image = document.querySelector("#picture img");
                const canvas = document.createElement("canvas");
                canvas.width = image.naturalWidth;
                canvas.height = image.naturalHeight;
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
                let text = "";
                for (const byte of data) text += String.fromCharCode(byte);
                return [btoa(text), canvas.width, canvas.height];
            }"""
        )
        return np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(height, width, 4)

    def expect_pixels(self, expected: np.ndarray):
        """Waits until this photograph is on the screen: first it is decoded."""
        deadline = time.monotonic() + 20
        while not np.array_equal(self.pixels()[..., : expected.shape[2]], expected):
            assert time.monotonic() < deadline, "another photograph is on the screen"
            self.page.wait_for_timeout(100)

    def painted(self, x: float, y: float) -> bool:
        """Whether a point of the photograph is covered with paint on the screen."""
        left, top = self.point(x, y)
        self.next_frame()
        return self.page.evaluate(
            """([x, y]) => {
                const canvas = document.getElementById("overlay");
                const ratio = canvas.width / canvas.clientWidth;
                const context = canvas.getContext("2d");
                return context.getImageData(x * ratio, y * ratio, 1, 1).data[3] > 127;
            }""",
            [left, top],
        )

    def is_on(self, button: str) -> bool:
        return self.page.get_attribute(button, "aria-disabled") != "true"


def photograph(width: int = 120, height: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def decode(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


# Pastes or drops a file.
BRING_FILE = """([type, base64, name, media]) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type: media }));
    const event = type === "paste"
        ? new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true })
        : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
}"""
