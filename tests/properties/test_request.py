"""Any body gets the filled image, or a 4xx answer that gives its reason; through the whole app."""

import atexit
import base64
import functools
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from musical_tf import images
from serving.server import create_app
from serving.server.inpaint_request import FILES
from serving.server.schemas import OPTIONS
from serving.server.settings import Settings
from serving.session import InpaintingSession
from tests.pictures import encoded
from tests.serving_model import write_model

from .files import MAX_PIXELS, changed, files, in_json, json_values

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
HOLE = np.zeros(PHOTO.shape[:2], bool)
HOLE[5:9, 6:20] = True
CHOICES = {
    "strategy": ["crop", "resize", "original", "CROP"],
    "threshold": [0, "127", 254, 127.0],
    "polarity": ["white", "WHITE", ""],
    "invert": [False, "false", "0", 0],
    "fill": ["auto", "network", "Network", ""],
    "dilate": [0, 1, "2", "256"],
    "format": ["png", "jpg", "webp", "avif", "same", "tiff"],
    "quality": [1, "50", 100],
    "model": ["tiny.onnx", ""],
    "metadata": ["keep", "Strip", ""],
    "seed": [0, "0", ""],
}


@functools.cache
def client():
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    session = InpaintingSession(write_model(Path(folder.name) / "tiny.onnx"))
    settings = Settings(isolate=False, max_pixels=MAX_PIXELS, max_bytes=2**19)
    client = TestClient(create_app(session, settings), base_url="http://localhost")
    client.__enter__()
    atexit.register(client.__exit__, None, None, None)
    while client.get("/readyz").status_code != 200:
        pass
    return client


@st.composite
def requests(draw):
    """The fields of a request, and whether they are as they should be."""
    fields = {"image": encoded(PHOTO), "mask": encoded(HOLE.astype(np.uint8) * 255)}
    for name in draw(st.sets(st.sampled_from(OPTIONS), max_size=3)):
        fields[name] = draw(st.sampled_from(CHOICES[name]))
    is_good = fields.get("format") != "tiff" and fields.get("dilate") != "256"
    for _ in range(draw(st.integers(0, 2))):
        is_good = False
        name = draw(st.sampled_from([*FILES, *OPTIONS, "other"]))
        kind = draw(st.sampled_from(["file", "value", "nothing"]))
        if kind == "nothing":
            fields.pop(name, None)
        else:
            fields[name] = draw(files() if kind == "file" else json_values)
    return fields, is_good


def check(answer, fields, is_good):
    if answer.status_code == 200:
        kind = answer.headers["content-type"]
        content = answer.content
        if kind == "application/json":
            content = base64.b64decode(answer.json()["image"])
        filled = images.read_photograph(io.BytesIO(content), name="answer").pixels
        if is_good and filled.shape == PHOTO.shape and not fields.get("dilate"):
            asked = fields.get("format", "png")
            if asked in ("png", "same") or (asked == "webp" and "quality" not in fields):
                np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
        return
    assert 400 <= answer.status_code < 500, answer.text
    assert not is_good, answer.text
    error = answer.json()["error"]
    assert isinstance(error["code"], str)
    assert isinstance(error["message"], str)
    assert error["message"]


def post(body, kind, path="/v1/inpaint"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return client().post(path, content=body, headers={"Content-Type": kind})


@pytest.mark.filterwarnings("ignore")
@given(
    st.data(),
    requests(),
    st.sampled_from(["/v1/inpaint", "/v1/inpaint/json"]),
    st.sampled_from(
        ["application/json"] * 5 + ["application/json; charset=utf-16", "text/plain", ""]
    ),
)
def test_any_json_is_filled_or_refused(data, request, path, kind):
    fields, is_good = request
    body = in_json(fields)
    if data.draw(st.sampled_from([False, False, True])):
        body, is_good = data.draw(changed(body)), False
    check(post(body, kind, path), fields, is_good and kind == "application/json")


def in_form(fields, boundary):
    parts = []
    for name, value in fields.items():
        head = f'Content-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += f'; filename="{name}"'
        else:
            value = str(value).encode("utf-8", "replace")
        parts.append(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, head.encode(), value))
    return b"".join(parts) + b"--%s--\r\n" % boundary


@pytest.mark.filterwarnings("ignore")
@given(
    st.data(),
    requests(),
    st.sampled_from(["", "", "", "; charset=utf-8", "; charset=undefined", "; boundary=b"]),
)
def test_any_form_is_filled_or_refused(data, request, parameter):
    fields, is_good = request
    body = in_form(fields, b"a-random-boundary")
    if data.draw(st.sampled_from([False, False, True])):
        body, is_good = data.draw(changed(body)), False
    kind = "multipart/form-data; boundary=a-random-boundary" + parameter
    check(post(body, kind), fields, is_good and parameter in ("", "; charset=utf-8"))
