"""A client that openapi-python-client generates from the server's OpenAPI document."""

import base64
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.server import create_app
from serving.server.settings import Settings
from serving.session import InpaintingSession
from tests.test_server import HOLE, IMAGE, MASK, PHOTO, decoded, text
from tests.test_server_process import running

pytestmark = pytest.mark.examples


@pytest.fixture(scope="module")
def generated(model, tmp_path_factory):
    """The generated package."""
    folder = tmp_path_factory.mktemp("client")
    app = create_app(InpaintingSession(model), Settings(isolate=False))
    (folder / "openapi.json").write_text(json.dumps(app.openapi()))
    program = Path(sys.executable).with_name("openapi-python-client")
    done = subprocess.run(
        [program, "generate", "--path", "openapi.json", "--meta", "none",
         "--output-path", "musical_client"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module("musical_client")
    sys.path.remove(str(folder))


def part(generated, name):
    return importlib.import_module(f"{generated.__name__}.{name}")


def test_the_form_is_filled(generated, model):
    api, models = part(generated, "api.default.inpaint"), part(generated, "models")
    file = part(generated, "types").File
    with running(model) as server:
        client = generated.Client(base_url=f"http://127.0.0.1:{server.port}")
        body = models.InpaintBody(
            image=file(io.BytesIO(IMAGE), "photo.png"),
            mask=file(io.BytesIO(MASK), "mask.png"),
            invert=False,
            dilate=1,
        )
        response = api.sync_detailed(client=client, body=body)
    assert response.status_code == 200, response.content
    filled = decoded(response.content)
    grown = np.pad(HOLE, 1)
    grown = np.lib.stride_tricks.sliding_window_view(grown, (3, 3)).any((2, 3))
    np.testing.assert_array_equal(filled[~grown], PHOTO[~grown])


def test_json_is_filled_and_a_refusal_is_typed(generated, model):
    api, models = part(generated, "api.default.inpaint_json"), part(generated, "models")
    with running(model) as server:
        client = generated.Client(base_url=f"http://127.0.0.1:{server.port}")
        body = models.InpaintJsonBody(image=text(IMAGE), mask=text(MASK), invert=False)
        answer = api.sync(client=client, body=body)
        refused = api.sync(client=client, body=models.InpaintJsonBody(image=text(IMAGE)))
    assert isinstance(answer, models.InpaintAnswer)
    assert (answer.format_.value, answer.width, answer.height) == ("png", 80, 48)
    filled = decoded(base64.b64decode(answer.image))
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
    assert isinstance(refused, models.ErrorAnswer)
    assert refused.error.code == "no_mask"
