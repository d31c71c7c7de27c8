"""What tests of the server share: photographs, a client without a network, and gated models."""

import asyncio
import base64
import contextlib
import io
import re
import threading

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from serving.server import create_app
from serving.server.settings import Settings
from serving.session import InpaintingSession
from tests.pictures import SRGB
from tests.pictures import encoded as png
from tests.waiting import WAIT, wait_until


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def text(content):
    return base64.b64encode(content).decode()


def rotated_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010F] = "A camera"
    stream = io.BytesIO()
    Image.fromarray(PHOTO.transpose(1, 0, 2)[::-1].copy()).save(
        stream, "JPEG", exif=exif, icc_profile=SRGB, quality=80
    )
    return stream.getvalue()


def with_alpha(grey=False):
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    alpha[:3] = 200
    layers = (PHOTO[..., 0], alpha) if grey else (*np.moveaxis(PHOTO, 2, 0), alpha)
    return png(np.stack(layers, axis=2))


PHOTO = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
HOLE = np.zeros(PHOTO.shape[:2], bool)
HOLE[10:20, 30:50] = True
IMAGE, MASK = png(PHOTO), png(HOLE.astype(np.uint8) * 255)
BYTES = bytes(range(256)) * 8


@contextlib.contextmanager
def serving(session, isolate=False, address="http://testserver", **settings):
    """A client of a server; without worker processes, which take seconds to start."""
    app = create_app(session, Settings(isolate=isolate, **settings))
    with TestClient(app, base_url=address, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


def batcher_of(client):
    """The thread that runs the only model."""
    (batcher,) = client.app.state.service.batchers.values()
    return batcher


def post(client, image=IMAGE, mask=MASK, **options):
    files = {"image": ("photo", image), "mask": ("mask", mask)}
    files = {name: file for name, file in files.items() if file[1] is not None}
    return client.post("/v1/inpaint", files=files, data=options)


def post_json(client, **fields):
    return client.post("/v1/inpaint", json=fields)


def error_of(response):
    """Code and message; nothing else may be in an error."""
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert sorted(answer["error"]) == ["code", "message"]
    return answer["error"]["code"], answer["error"]["message"]


def metric(client, line):
    """The value of a line of /metrics, 0 if there is none."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def asgi_request(app, body=(), headers=(), before_disconnect=None, send=None, path="/v1/inpaint"):
    """Runs one request; returns the messages sent and how many pieces of the body were read.

    Args:
        app: The application; its threads must have been started.
        body: Pieces of the body. After the last one the client says nothing more.
        headers: Pairs of bytes.
        before_disconnect: Awaited after the body, and then the client hangs up.
        send: In place of a client that reads everything.
    """
    sent, read = [], 0

    async def receive():
        nonlocal read
        if read < len(body):
            read += 1
            more = read < len(body) or before_disconnect == "in the body"
            return {"type": "http.request", "body": body[read - 1], "more_body": more}
        if before_disconnect is None:
            await asyncio.sleep(WAIT)
        elif before_disconnect != "in the body":
            await before_disconnect()
        return {"type": "http.disconnect"}

    async def keep(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": list(headers),
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send or keep))
    return sent, read


JSON_HEADERS = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]


def form_request(image=IMAGE, mask=MASK, **options):
    request = TestClient(lambda _: None).build_request(
        "POST", "/", files={"image": ("a", image), "mask": ("b", mask)}, data=options
    )
    body = request.read()
    return [body], [(name.lower(), value) for name, value in request.headers.raw]


def status_of(messages):
    return messages[0]["status"] if messages else None


class GatedSession(InpaintingSession):
    """A model that runs when the test lets it."""

    def __init__(self, path):
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = []
        self.batches = []
        self.failure = None

    def run_windows(self, images, holes, *options):
        self.begun.append(len(images))
        assert self.gate.wait(WAIT)
        self.batches.append(len(images))
        if self.failure is not None:
            raise self.failure
        return super().run_windows(images, holes, *options)


@contextlib.contextmanager
def posting(client, count=1, images=None):
    """Posts in threads; yields a dict that receives their answers by number."""
    images = images or [IMAGE] * count
    answers = {}

    def send(number):
        answers[number] = post(client, images[number])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
