"""The HTTP interface, from a request's bytes to the answer's, without a network between them."""

import asyncio
import base64
import contextlib
import io
import json
import re
import struct
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from serving import predict
from serving.server import create_app, envelope, worker
from serving.server.inpaint_request import FORMATS
from serving.server.schemas import OPTIONS
from serving.server.settings import Settings
from serving.session import InferenceError, InpaintingSession
from tests.serving_model import metadata_for, write_model

ROOT = Path(__file__).resolve().parents[1]
WAIT = 20  # seconds until a test gives up on something that takes none


@contextlib.contextmanager
def serving(session, isolate=False, **settings):
    """A client of a server; without worker processes, which take seconds to start."""
    app = create_app(session, Settings(isolate=isolate, **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        yield client


@pytest.fixture(scope="module")
def client(session):
    with serving(session, isolate=True, max_bytes=3_000_000, max_pixels=1_000_000) as client:
        yield client


@pytest.fixture(scope="module")
def locked(session):
    """A client of a server with a token, which the client does not send."""
    with serving(session, token="s3cret") as client:
        yield client


def batcher_of(client):
    """The thread that runs the only model."""
    (batcher,) = client.app.state.service.batchers.values()
    return batcher


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def png(array, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", **options)
    return stream.getvalue()


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (48, 80, 3), np.uint8)
HOLE = np.zeros(PHOTO.shape[:2], bool)
HOLE[10:20, 30:50] = True
IMAGE, MASK = png(PHOTO), png(HOLE.astype(np.uint8) * 255)


def post(client, image=IMAGE, mask=MASK, **options):
    files = {"image": ("photo", image), "mask": ("mask", mask)}
    files = {name: file for name, file in files.items() if file[1] is not None}
    return client.post("/v1/inpaint", files=files, data=options)


def post_json(client, **fields):
    return client.post("/v1/inpaint", json=fields)


def text(content):
    return base64.b64encode(content).decode()


def error_of(response):
    """Code and message; nothing else may be in an error."""
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == ["error"]
    assert sorted(answer["error"]) == ["code", "message"]
    return answer["error"]["code"], answer["error"]["message"]


# ---- what comes back


def test_the_hole_is_filled_and_every_known_pixel_is_kept(client):
    response = post(client)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == "tiny model.onnx"
    assert response.headers["x-provider"] == "CPUExecutionProvider"
    assert re.fullmatch(r"queue;dur=\d+\.\d, run;dur=\d+\.\d", response.headers["server-timing"])
    assert response.headers["cache-control"] == "no-store"
    filled = decoded(response.content)
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
    assert (filled[HOLE] != PHOTO[HOLE]).any()


def rotated_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010F] = "A camera"
    stream = io.BytesIO()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PHOTO.transpose(1, 0, 2)[::-1].copy()).save(
        stream, "JPEG", exif=exif, icc_profile=profile, quality=80
    )
    return stream.getvalue()


def with_alpha(grey=False):
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    alpha[:3] = 200
    layers = (PHOTO[..., 0], alpha) if grey else (*np.moveaxis(PHOTO, 2, 0), alpha)
    return png(np.stack(layers, axis=2))


@pytest.mark.parametrize(
    ("image", "mask", "options", "flags"),
    [
        (IMAGE, MASK, {}, []),
        (rotated_jpeg(), MASK, {"format": "jpeg"}, []),
        (rotated_jpeg(), MASK, {"format": "webp"}, []),
        (rotated_jpeg(), MASK, {}, []),
        (with_alpha(), None, {}, []),
        (with_alpha(), MASK, {"format": "webp"}, []),
        (with_alpha(grey=True), None, {}, []),
        (png(PHOTO[..., 0]), MASK, {"format": "jpeg"}, []),
        (IMAGE, png(PHOTO[..., 1]), {"threshold": 200}, ["--threshold", "200"]),
        (IMAGE, png(PHOTO[..., 1]), {"threshold": 0, "invert": "true"},
         ["--threshold", "0", "--polarity", "black"]),
        (IMAGE, MASK, {"dilate": 5, "strategy": "resize"},
         ["--dilate", "5", "--strategy", "resize"]),
        (IMAGE, MASK, {"strategy": "original"}, ["--strategy", "original"]),
        (IMAGE, png(np.zeros_like(PHOTO[..., 0])), {}, []),
    ],
)  # fmt: skip
def test_the_answer_is_the_file_that_predict_writes(
    client, model, tmp_path, image, mask, options, flags
):
    (tmp_path / "photo.png").write_bytes(image)
    (tmp_path / "mask.png").write_bytes(mask or b"")
    suffix = {"png": "png", "jpeg": "jpg", "webp": "webp"}[options.get("format", "png")]
    arguments = {
        "model": model,
        "image": tmp_path / "photo.png",
        "mask": tmp_path / "mask.png" if mask else "alpha",
        "output": tmp_path / f"filled.{suffix}",
    }
    arguments = [item for key, value in arguments.items() for item in (f"--{key}", str(value))]
    assert predict.main(arguments + flags) == 0
    response = post(client, image, mask, **options)
    assert response.status_code == 200, response.text
    assert response.content == (tmp_path / f"filled.{suffix}").read_bytes()


def test_an_image_larger_than_the_model_goes_through_windows(client, session):
    photo = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    hole = np.zeros(photo.shape[:2], bool)
    hole[20:40, 30:60] = hole[200:290, 100:390] = True
    filled = decoded(post(client, png(photo), png(hole.astype(np.uint8) * 255)).content)
    np.testing.assert_array_equal(filled, session.inpaint(photo, hole))


def test_json_is_answered_with_json(client):
    response = post_json(client, image=text(IMAGE), mask=text(MASK), dilate=2, invert=False)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert base64.b64decode(answer.pop("image")) == post(client, dilate=2).content
    milliseconds = answer.pop("milliseconds")
    assert sorted(milliseconds) == ["queue", "run"]
    assert all(value >= 0 for value in milliseconds.values())
    assert answer == {
        "format": "png",
        "width": 80,
        "height": 48,
        "model": "tiny model.onnx",
        "provider": "CPUExecutionProvider",
        "mask": "gray, levels 0, 255: levels above 127 are the hole",
        "hole_share": float(response.headers["x-hole-share"]),
    }


def test_json_takes_data_urls_line_breaks_and_null(client):
    expected = post(client, with_alpha(), None).content
    url = "data:image/png;base64," + base64.encodebytes(with_alpha()).decode()
    response = post_json(client, image=url, mask=None)
    assert base64.b64decode(response.json()["image"]) == expected


def test_what_is_loaded_and_the_limits(client, session):
    answer = client.get("/v1/model").json()
    assert answer.pop("limits") == {
        "max_bytes": 3_000_000,
        "max_pixels": 1_000_000,
        "timeout": 60.0,
    }
    described = session.describe() | {"model": "tiny model.onnx"}
    assert answer == described | {"models": [described], "output_dir": None}


# ---- what is refused


def header_only_png(width, height):
    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def many_scans():
    stream = io.BytesIO()
    Image.fromarray(PHOTO[..., 0]).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    scan = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + 101 * scan + content[-2:]


ALL_HOLE = png(np.full(HOLE.shape, 255, np.uint8))
BYTES = bytes(range(256)) * 8


@pytest.mark.parametrize(
    ("request_", "status", "code", "part"),
    [
        (partial(post, image=BYTES), 400, "invalid_image", "not an image in a known format"),
        (partial(post, image=b""), 400, "invalid_image", "image: it is empty"),
        (partial(post, image=IMAGE[:300]), 400, "invalid_image", "image: it is damaged"),
        (partial(post, image=None), 400, "invalid_image", "there is no image"),
        (partial(post, image=many_scans()), 400, "invalid_image", "at most 100 scans"),
        (partial(post, mask=BYTES), 400, "invalid_mask", "mask: it is not an image"),
        (partial(post, mask=MASK[:60]), 400, "invalid_mask", "mask: it is damaged"),
        (partial(post, mask=many_scans()), 400, "invalid_mask", "mask: a JPEG must have"),
        (partial(post, mask=None), 400, "no_mask", "no mask and no transparency"),
        (partial(post, mask=png(HOLE[:40].astype(np.uint8) * 255)), 400, "mask_size",
         "the mask is 80 x 40 pixels and the image is 80 x 48"),
        (partial(post, mask=ALL_HOLE), 400, "hole_covers_image", "(polarity)"),
        (partial(post, dilate=256), 400, "hole_covers_image", "nothing is left to copy from"),
        (partial(post, image=header_only_png(20000, 20000)), 413, "too_many_pixels",
         "more pixels than the limit"),
        (partial(post, mask=header_only_png(20000, 20000)), 413, "too_many_pixels", "mask"),
        (partial(post, image=header_only_png(2000, 501)), 413, "too_many_pixels", "limit of 1000"),
        (partial(post, image=bytes(3_000_000)), 413, "too_large", "limit of 3000000 bytes"),
        (partial(post, strategy="magic"), 400, "invalid_option", "crop, resize, original"),
        (partial(post, threshold=255), 400, "invalid_option", "0 to 254, got '255'"),
        (partial(post, threshold="1e2"), 400, "invalid_option", "a whole number"),
        (partial(post, threshold="9" * 900), 400, "invalid_option", "a whole number"),
        (partial(post, dilate=-1), 400, "invalid_option", "dilate must be a whole number"),
        (partial(post, dilate=257), 400, "invalid_option", "0 to 256"),
        (partial(post, invert="maybe"), 400, "invalid_option", "true or false, got 'maybe'"),
        (partial(post, format="gif"), 400, "invalid_option", "png, jpeg, webp"),
        (partial(post, image=with_alpha(), format="jpeg"), 400, "invalid_option", "transparency"),
        (partial(post, image=png(np.zeros((2, 17000, 3), np.uint8)), format="webp"), 400,
         "invalid_option", "webp holds 16383 pixels a side"),
        (partial(post, size=1), 400, "invalid_option",
         "unknown form field 'size'; valid: image, mask, strategy, fill, seed, threshold"),
        (partial(post, threshold=["1", "2"]), 400, "invalid_option", "more than once"),
        (partial(post, threshold="1" * 2000), 400, "invalid_form", "image, mask; short texts"),
        (partial(post_json), 400, "invalid_image", "there is no image"),
        (partial(post_json, image=text(IMAGE)[:-9] + "?"), 400, "invalid_image", "not base64"),
        (partial(post_json, image=7), 400, "invalid_image", "must be base64, got int"),
        (partial(post_json, image="data:image/png,abc"), 400, "invalid_image", "data: URL"),
        (partial(post_json, image=text(IMAGE), mask="?"), 400, "invalid_mask", "not base64"),
        (partial(post_json, image=text(IMAGE), mask=text(MASK), threshold=True), 400,
         "invalid_option", "a whole number from 0 to 254, got 'True'"),
        (partial(post_json, image=text(IMAGE), mask=text(MASK), strategy=2), 400,
         "invalid_option", "got '2'"),
        (partial(post_json, picture=""), 400, "invalid_option", "unknown JSON key 'picture'"),
        (partial(post_json, image=[1]), 400, "invalid_json", "flat JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_reason(client, request_, status, code, part):
    response = request_(client)
    found, message = error_of(response)
    assert (response.status_code, found) == (status, code), message
    assert part in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("body", [b"", b"{", b"1", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 9])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    headers = {"content-type": "application/json"}
    response = client.post("/v1/inpaint", content=body, headers=headers)
    assert response.status_code == 400
    assert error_of(response)[0] == "invalid_json"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=b", b"abc"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nabc\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="image"'
         b"\r\n\r\nno file\r\n--b--\r\n"),
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(client, content_type, body):
    response = client.post("/v1/inpaint", content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert error_of(response)[0] == "invalid_form"


def test_more_files_than_there_are_is_refused(client):
    files = [(f"image{number}", ("a", b"a")) for number in range(3)]
    response = client.post("/v1/inpaint", files=files)
    assert (response.status_code, error_of(response)[0]) == (400, "invalid_form")


def test_a_form_cut_off_by_its_sender_is_refused(client):
    request = client.build_request("POST", "/v1/inpaint", files={"image": ("a", IMAGE)})
    body = request.read()[: len(IMAGE) // 2]
    headers = {"content-type": request.headers["content-type"]}
    response = client.post("/v1/inpaint", content=body, headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_another_kind_of_body_is_refused(client, headers):
    response = client.post("/v1/inpaint", content=b"{}", headers=headers)
    assert (response.status_code, error_of(response)[0]) == (415, "unsupported_media_type")


def test_what_the_framework_refuses_is_json_too(client):
    response = client.get("/nothing")
    assert (response.status_code, error_of(response)[0]) == (404, "not_found")
    response = client.get("/v1/inpaint")
    assert (response.status_code, error_of(response)[0]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_strategy_that_needs_too_much_memory_is_refused(model):
    with serving(InpaintingSession(model, memory_limit=1)) as client:
        photo = np.zeros((100, 100, 3), np.uint8)
        mask = np.zeros((100, 100), np.uint8)
        mask[20:70, 20:70] = 255
        response = post(client, png(photo), png(mask), strategy="original")
        assert (response.status_code, error_of(response)[0]) == (413, "too_many_pixels")
        assert "use strategy crop or resize" in error_of(response)[1]
        assert post(client, png(photo), png(mask)).status_code == 200


# ---- the application as a server sees it: messages in, messages out


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


def metric(client, line):
    """The value of a line of /metrics, 0 if there is none."""
    found = re.search(rf"^{re.escape(line)} (\S+)$", client.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def test_a_body_without_length_is_read_no_further_than_the_limit(client):
    hung_up = asyncio.Event()
    hung_up.set()
    parts = [bytes(5000)] * 1000
    answered_after = None

    async def send(message):
        nonlocal answered_after
        if message["type"] == "http.response.start":
            assert message["status"] == 413
            answered_after = metric(client, "musical_requests_in_flight")

    _, read = asgi_request(
        client.app, parts, JSON_HEADERS, before_disconnect=hung_up.wait, send=send
    )
    assert answered_after is not None
    # The rest is thrown away, until the client has noticed; none of it is kept.
    assert read == 1000


def test_the_limit_is_found_before_the_body_is_asked_for(client):
    headers = [(b"content-type", b"application/json"), (b"content-length", b"3000001")]
    events = []

    async def send(message):
        events.append(message.get("status", "body"))

    async def gone():
        events.append("asked for the body")

    asgi_request(client.app, [], headers, gone, send)
    assert events[0] == 413


class GatedSession(InpaintingSession):
    """A model that runs when the test lets it."""

    def __init__(self, path):
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.begun = []
        self.batches = []
        self.failure = None

    def run_windows(self, images, holes, *how):
        self.begun.append(len(images))
        assert self.gate.wait(WAIT)
        self.batches.append(len(images))
        if self.failure is not None:
            raise self.failure
        return super().run_windows(images, holes, *how)


@pytest.fixture
def gated(model):
    session = GatedSession(model)
    yield session
    session.gate.set()


@contextlib.contextmanager
def posting(client, count=1, images=None):
    """Posts in threads; yields a dict that their answers go to, by number."""
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


def test_a_client_that_hangs_up_while_it_waits_costs_no_run(gated):
    with serving(gated, queue=8) as client:
        service = client.app.state.service
        gated.gate.clear()
        gated.batches.clear()
        with posting(client, 2):  # both threads of the queue are busy with these
            wait_until(lambda: batcher_of(client).is_running and batcher_of(client).waiting == 1)

            async def waiting():
                while service.jobs.depth != 1:
                    await asyncio.sleep(0.005)

            body, headers = form_request()
            sent, _ = asgi_request(client.app, body, headers, waiting)
            assert status_of(sent) == 499  # uvicorn has nobody to send it to
            assert service.jobs.depth == 0
            gated.gate.set()
        assert gated.batches == [1, 1]
        line = 'musical_requests_total{code="client_disconnected",route="/v1/inpaint",status="499"}'
        assert metric(client, line) == 1


def test_a_client_that_hangs_up_stops_a_run_before_its_next_window(gated):
    photo = np.zeros((64, 1200, 3), np.uint8)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[20:30, 20::150] = 255  # far apart: one window each
    with serving(gated) as client:
        body, headers = form_request(png(photo), png(hole))
        gated.batches.clear()
        asgi_request(client.app, body, headers)
        windows = len(gated.batches)
        assert windows > 3
        gated.batches.clear()
        gated.gate.clear()

        async def running():
            while not batcher_of(client).is_running:
                await asyncio.sleep(0.005)

        sent, _ = asgi_request(client.app, body, headers, running)
        assert status_of(sent) == 499
        gated.gate.set()
        assert post(client).status_code == 200
        assert len(gated.batches) == 2  # the window that ran, and that of the second request


def test_a_client_that_hangs_up_in_the_body_leaves_its_place(session):
    with serving(session, queue=0) as client:
        for _ in range(5):
            body, headers = form_request()
            sent, _ = asgi_request(
                client.app, [body[0][:500]], headers, before_disconnect="in the body"
            )
            assert status_of(sent) == 499
        assert post(client).status_code == 200


def test_a_client_that_reads_nothing_keeps_its_place_no_longer_than_the_timeout(session):
    photo = np.random.default_rng(2).integers(0, 256, (600, 600, 3), np.uint8)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[100:120, 100:120] = 255
    with serving(session, queue=0, timeout=1) as client:
        jobs = client.app.state.service.jobs
        pieces = []

        async def stuck(message):
            if message.get("body"):
                pieces.append(len(message["body"]))
                assert jobs.admitted == 1
                await asyncio.sleep(WAIT)

        body, headers = form_request(png(photo), png(mask))
        asgi_request(client.app, body, headers, send=stuck)
        assert pieces == [2**18]  # and not the whole image, which would wait in the transport
        assert jobs.admitted == 0
        line = 'musical_requests_total{code="not_read",route="/v1/inpaint",status="200"}'
        assert metric(client, line) == 1


def test_a_full_queue_is_said_at_once_with_the_time_to_wait(gated):
    with serving(gated, queue=1) as client:
        gated.gate.clear()
        with posting(client, 3) as answers:  # two threads, one place to wait
            wait_until(lambda: client.app.state.service.jobs.admitted == 3)
            response = post(client)
            assert response.status_code == 503
            code, message = error_of(response)
            assert code == "queue_full"
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert "3 requests are waiting or running already" in message
            gated.gate.set()
        assert [answer.status_code for answer in answers.values()] == [200] * 3
        assert post(client).status_code == 200


def test_a_client_with_many_requests_leaves_room_for_another(gated):
    with serving(gated, queue=3) as client:
        other = TestClient(client.app, client=("192.0.2.7", 1))
        gated.gate.clear()
        with posting(client, 5) as answers:
            wait_until(lambda: client.app.state.service.jobs.depth == 3)
            with posting(other) as served:
                wait_until(lambda: len(answers) == 1)
                (refused,) = answers.values()
                assert (refused.status_code, error_of(refused)[0]) == (503, "queue_full")
                assert refused.headers["retry-after"]
                gated.gate.set()
        assert served[0].status_code == 200
        assert sorted(answer.status_code for answer in answers.values()) == [200] * 4 + [503]


def test_a_request_that_takes_too_long_is_given_up_and_not_run_later(gated):
    with serving(gated, timeout=0.3) as client:
        gated.gate.clear()
        gated.batches.clear()
        with posting(client, 5) as answers:
            pass
        assert [answer.status_code for answer in answers.values()] == [504] * 5
        assert {error_of(answer)[0] for answer in answers.values()} == {"timeout"}
        wait_until(lambda: client.app.state.service.jobs.depth == 0)
        gated.gate.set()
        wait_until(lambda: not batcher_of(client).is_running)
        assert len(gated.batches) <= 1  # the one that had begun
        assert post(client).status_code == 200


def test_it_is_not_ready_while_given_up_requests_occupy_every_thread(gated):
    with serving(gated, timeout=0.3) as client:
        gated.gate.clear()
        with posting(client, 2) as answers:
            pass
        assert [answer.status_code for answer in answers.values()] == [504] * 2
        wait_until(lambda: client.get("/readyz").status_code == 503)
        assert error_of(client.get("/readyz")) == (
            "not_ready",
            "requests that were given up occupy every thread",
        )
        gated.gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert post(client).status_code == 200


def spin(content, **options):
    """A decoder that never ends; runs in a worker."""
    while True:
        pass


def spin_for_long(content, **options):
    """A decoder that exceeds its processor time; runs in a worker."""
    with worker.limits("image: decoding it", 2**30, 0.1):
        spin(content)


def allocate(content, **options):
    """A decoder that exceeds its memory; runs in a worker."""
    with worker.limits("image: decoding it", 2**20, 10):
        np.ones(2**24)


def test_hostile_files_cost_workers_and_the_next_request_is_served(session, monkeypatch):
    with serving(session, isolate=True, timeout=1, queue=8) as client:
        expected = post(client).content
        with monkeypatch.context() as patch:
            patch.setattr(worker, "read_photograph", spin)
            with posting(client, 10) as answers:
                pass
        assert [answer.status_code for answer in answers.values()] == [504] * 10
        wait_until(lambda: metric(client, 'musical_workers_ended_total{reason="abandoned"}') == 2)
        wait_until(lambda: post(client).status_code == 200)
        assert post(client).content == expected
        assert client.get("/readyz").status_code == 200
        wait_until(lambda: metric(client, "musical_workers") == 2)


@pytest.mark.parametrize("decoder", [spin_for_long, allocate])
def test_an_image_that_exceeds_its_limits_is_refused(client, monkeypatch, decoder):
    with monkeypatch.context() as patch:
        patch.setattr(worker, "read_photograph", decoder)
        response = post(client)
    assert (response.status_code, error_of(response)[0]) == (413, "too_costly")
    assert error_of(response)[1].startswith("image: decoding it takes more than")
    assert post(client).status_code == 200


def test_images_can_be_decoded_in_the_servers_threads(session, client):
    with serving(session) as threads:
        assert post(threads).content == post(client).content
        assert metric(threads, "musical_workers") == 0


def test_a_body_that_never_ends_is_given_up(session, monkeypatch):
    monkeypatch.setattr(envelope, "_LINGER", 0.1)
    with serving(session, timeout=0.3, queue=0) as client:
        sent, _ = asgi_request(client.app, [], JSON_HEADERS)
        assert status_of(sent) == 504
        assert client.app.state.service.jobs.admitted == 0


def test_windows_of_several_requests_go_through_the_model_together(gated):
    photos = [np.full_like(PHOTO, 20 * number) for number in range(6)]
    with serving(gated, batch=4) as client:
        gated.gate.clear()
        gated.begun.clear()
        gated.batches.clear()
        with posting(client, 6, [png(photo) for photo in photos]) as answers:
            batcher = batcher_of(client)
            # Four threads, and so four windows: one or more in the model, the others waiting.
            wait_until(lambda: gated.begun and gated.begun[0] + batcher.waiting == 4)
            gated.gate.set()
        for number, photo in enumerate(photos):
            np.testing.assert_array_equal(decoded(answers[number].content), photo)
        assert sum(gated.batches) == 6
        assert max(gated.batches) > 1
        assert metric(client, "musical_model_batch_size_sum") == 7  # one is the first run of all


# ---- tokens


def test_a_token_is_asked_for_where_the_model_is(locked):
    for method, path in (("POST", "/v1/inpaint"), ("GET", "/v1/model"), ("GET", "/metrics")):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer s3cret2"},
            {"authorization": "Bearer"},
            {"authorization": "Basic s3cret"},
            {"authorization": b"Bearer s3cr\xe9t"},
        ):
            response = locked.request(method, path, headers=headers)
            assert (response.status_code, error_of(response)[0]) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/", "/page/base.css"):
        assert locked.get(path).status_code == 200
    right = {"authorization": "Bearer s3cret"}
    assert locked.get("/v1/model", headers=right).status_code == 200
    assert locked.get("/metrics", headers=right).status_code == 200
    files = {"image": ("a", IMAGE), "mask": ("b", MASK)}
    assert locked.post("/v1/inpaint", files=files, headers=right).status_code == 200


def test_a_wrong_token_is_said_before_the_body_is_read(locked):
    events = []

    async def send(message):
        events.append(message["type"])

    async def gone():
        events.append("asked for the body")

    _, headers = form_request()
    asgi_request(locked.app, [], headers, gone, send)
    assert events[0] == "http.response.start"


# ---- state


def test_readiness_follows_the_first_run(gated):
    gated.gate.clear()
    with TestClient(create_app(gated, Settings(isolate=False))) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        for response in (client.get("/readyz"), post(client)):
            assert (response.status_code, error_of(response)[0]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
        gated.gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.head("/readyz").status_code == client.head("/healthz").status_code == 200
        client.app.state.service.is_closing = True
        for response in (client.get("/readyz"), post(client)):
            assert (response.status_code, error_of(response)[0]) == (503, "shutting_down")
            assert response.headers["retry-after"]


def test_a_model_that_does_not_run_is_never_ready(gated):
    gated.failure = InferenceError("it does not run")
    with TestClient(create_app(gated, Settings(isolate=False))) as client:
        wait_until(lambda: client.app.state.service.failure is not None)
        response = client.get("/readyz")
        assert (response.status_code, error_of(response)[0]) == (503, "not_ready")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InferenceError("a secret path"), 500, "internal"),
        (RuntimeError("a secret path"), 500, "internal"),
        (MemoryError("a secret path"), 503, "out_of_memory"),
    ],
)
def test_a_failure_inside_tells_nothing_and_is_survived(gated, caplog, failure, status, code):
    with serving(gated) as client:
        gated.failure = failure
        response = post(client)
        assert (response.status_code, error_of(response)[0]) == (status, code)
        assert "secret" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
        assert ("a secret path" in caplog.text) == (status == 500)
        gated.failure = None
        assert post(client).status_code == 200


def test_metrics_count_what_happened(session):
    with serving(session) as client:
        post(client)
        post(client, strategy="magic")
        client.get("/nothing")
        client.get("/page/nothing")
        for line, value in {
            'musical_requests_total{code="ok",route="/v1/inpaint",status="200"}': 1,
            'musical_requests_total{code="invalid_option",route="/v1/inpaint",status="400"}': 1,
            'musical_requests_total{code="not_found",route="other",status="404"}': 1,
            'musical_requests_total{code="not_found",route="/page",status="404"}': 1,
            'musical_request_seconds_count{route="/v1/inpaint"}': 2,
            "musical_queue_seconds_count": 1,
            "musical_run_seconds_count": 1,
            "musical_model_batch_size_sum": 2,
            "musical_model_seconds_count": 2,
            "musical_queue_depth": 0,
            "musical_requests_in_flight": 1,  # this one
        }.items():
            assert metric(client, line) == value, line
        assert metric(client, "musical_run_seconds_sum") > 0


# ---- several models


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A client of a server with two models, `light.onnx` and `dark.onnx`."""
    folder = tmp_path_factory.mktemp("two")
    levels = {"light": 200, "dark": 20}
    models = [write_model(folder / f"{name}.onnx", result=levels[name]) for name in levels]
    with serving([InpaintingSession(model) for model in models]) as client:
        yield client


def level(content: bytes) -> int:
    (value,) = set(np.asarray(Image.open(io.BytesIO(content)))[12:18, 12:18].flat)
    return value


def test_a_request_chooses_its_model(two):
    hole = np.zeros((32, 32), np.uint8)
    hole[10:20, 10:20] = 255
    image, mask = png(np.full((32, 32, 3), 100, np.uint8)), png(hole)
    for model, expected in ((None, 200), ("light.onnx", 200), ("dark.onnx", 20)):
        choice = {} if model is None else {"model": model}
        response = post(two, image=image, mask=mask, **choice)
        assert level(response.content) == expected
        assert response.headers["X-Model"] == (model or "light.onnx")
        answer = post_json(two, image=text(image), mask=text(mask), **choice).json()
        assert level(base64.b64decode(answer["image"])) == expected
        assert answer["model"] == (model or "light.onnx")
    response = post(two, image=image, mask=mask, model="grey.onnx")
    assert error_of(response) == (
        *("invalid_option", "model must be one of light.onnx, dark.onnx, got 'grey.onnx'"),
    )


def test_each_model_looks_at_large_photographs_in_its_own_way(tmp_path):
    photo = np.random.default_rng(1).integers(0, 64, (200, 300, 3), np.uint8)
    photo[100:] += 150
    hole = np.zeros(photo.shape[:2], bool)
    hole[20:40, 30:60] = True
    image, mask = png(photo), png(hole.astype(np.uint8) * 255)
    models = [
        InpaintingSession(
            write_model(tmp_path / f"{name}.onnx", metadata=metadata_for(strategy=strategy))
        )
        for name, strategy in (("plain", None), ("whole", "resize"))
    ]
    expected = {name: models[0].inpaint(photo, hole, name) for name in ("crop", "resize")}
    assert (expected["crop"] != expected["resize"]).any()
    with serving(models) as client:
        described = client.get("/v1/model").json()["models"]
        assert [each["strategy"] for each in described] == ["crop", "resize"]
        for model, own in (("plain.onnx", "crop"), ("whole.onnx", "resize")):
            for choice, strategy in ({}, own), ({"strategy": "crop"}, "crop"):
                form = post(client, image=image, mask=mask, model=model, **choice)
                np.testing.assert_array_equal(decoded(form.content), expected[strategy])
                body = post_json(client, image=text(image), mask=text(mask), model=model, **choice)
                assert base64.b64decode(body.json()["image"]) == form.content


def test_every_model_is_listed_and_the_first_is_the_default(two):
    answer = two.get("/v1/model").json()
    assert [each["model"] for each in answer["models"]] == ["light.onnx", "dark.onnx"]
    assert answer["model"] == "light.onnx"
    document = two.get("/openapi.json").json()
    for path, kind in (
        ("/v1/inpaint", "multipart/form-data"),
        ("/v1/inpaint/json", "application/json"),
    ):
        body = document["paths"][path]["post"]["requestBody"]["content"][kind]
        assert body["schema"]["properties"]["model"]["enum"] == ["light.onnx", "dark.onnx"]


def test_the_open_document_names_no_model_where_there_is_a_token(locked, session):
    document = locked.get("/openapi.json")
    assert document.status_code == 200
    assert session.name not in document.text
    assert '"model"' in document.text


def test_two_models_of_one_name_are_refused(session):
    with pytest.raises(ValueError, match=r"every model needs a name of its own, got tiny model"):
        create_app([session, session])


# ---- pages


SECURITY = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/page/base.css", 200),
        ("/docs", 200),
        ("/docs/assets/swagger-ui.css", 200),
        ("/openapi.json", 200),
        ("/healthz", 200),
        ("/v1/inpaint", 405),
        ("/nothing", 404),
        ("/page/nothing", 404),
        ("/page/../session.py", 404),
        ("/page/%2e%2e/session.py", 404),
        ("/docs/assets/..%2fcore.py", 404),
    ],
)
def test_every_answer_has_the_security_headers(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert {name: response.headers[name] for name in SECURITY} == SECURITY


@pytest.mark.parametrize(("page", "folder"), [("/", "serving/page"), ("/docs", "")])
def test_pages_need_nothing_but_this_server(client, page, folder):
    html = client.get(page).text
    links = re.findall(r"""(?:src|href)=["']([^"'#]+)""", html)
    assert links
    for link in links:
        assert not re.match(r"(?:\w+:)?//", link), link
        assert client.get(str(client.base_url.join(page).join(link).path)).status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)


def test_the_documentation_describes_what_there_is(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/v1/inpaint", "/v1/inpaint/json", "/v1/model", "/healthz", "/readyz", "/metrics"),
        *("/v1/convert", "/v1/select", "/v1/jobs/{job}"),
    }
    operation = document["paths"]["/v1/inpaint"]["post"]
    assert set(operation["responses"]) == {
        *("200", "400", "403", "409", "413", "415", "503", "504"),
    }
    as_json = document["paths"]["/v1/inpaint/json"]["post"]
    for content in (
        *operation["requestBody"]["content"].values(),
        *as_json["requestBody"]["content"].values(),
    ):
        properties = content["schema"]["properties"]
        assert set(properties) == {"image", "mask", *OPTIONS}
        # These differ by model, mask and format; each other default is taken.
        own = {"strategy", "threshold", "quality"}
        assert not [name for name in own if "default" in properties[name]]
        for name in set(OPTIONS) - own:
            value = json.dumps(properties[name]["default"]).strip('"')
            assert post(client, **{name: value}).content == post(client).content
        assert properties["format"]["enum"] == [*FORMATS, "same"]
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        found = document
        for part in reference.split("/"):
            found = found[part]


def test_the_documentation_knows_the_token(locked):
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/v1/inpaint"]["post"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]
