"""Clients that are generated from the server's OpenAPI document, in Python and TypeScript."""

import base64
import importlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.server import create_app
from serving.server.settings import Settings
from tests.server_client import HOLE, IMAGE, MASK, PHOTO, decoded, text
from tests.test_examples import EXAMPLES, install_npm_packages, program
from tests.test_server_process import running

pytestmark = pytest.mark.examples


TYPESCRIPT = EXAMPLES / "typescript"


@pytest.fixture(scope="module")
def document(session):
    """The OpenAPI document as text."""
    return json.dumps(create_app(session, Settings(isolate=False)).openapi())


@pytest.fixture(scope="module")
def server(model):
    """A server of the tiny model."""
    with running(model) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def generated(document, tmp_path_factory):
    """The generated package."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(document)
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


def test_the_form_is_filled(generated, server):
    api, models = part(generated, "api.default.inpaint"), part(generated, "models")
    file = part(generated, "types").File
    body = models.InpaintBody(
        image=file(io.BytesIO(IMAGE), "photo.png"),
        mask=file(io.BytesIO(MASK), "mask.png"),
        invert=False,
        dilate=1,
    )
    response = api.sync_detailed(client=generated.Client(base_url=server), body=body)
    assert response.status_code == 200, response.content
    filled = decoded(response.content)
    grown = np.pad(HOLE, 1)
    grown = np.lib.stride_tricks.sliding_window_view(grown, (3, 3)).any((2, 3))
    np.testing.assert_array_equal(filled[~grown], PHOTO[~grown])


def test_json_is_filled_and_a_refusal_is_typed(generated, server):
    api, models = part(generated, "api.default.inpaint_json"), part(generated, "models")
    client = generated.Client(base_url=server)
    body = models.InpaintJsonBody(image=text(IMAGE), mask=text(MASK), invert=False)
    answer = api.sync(client=client, body=body)
    refused = api.sync(client=client, body=models.InpaintJsonBody(image=text(IMAGE)))
    assert isinstance(answer, models.InpaintAnswer)
    assert (answer.format_.value, answer.width, answer.height) == ("png", 80, 48)
    filled = decoded(base64.b64decode(answer.image))
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
    assert isinstance(refused, models.ErrorAnswer)
    assert refused.error.code == "no_mask"


def test_the_typescript_client_works_and_a_wrong_value_is_a_type_error(document, server, tmp_path):
    install_npm_packages(TYPESCRIPT)
    for name in ("package.json", "tsconfig.json", "client.ts"):
        shutil.copy(TYPESCRIPT / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    (tmp_path / "openapi.json").write_text(document)
    (tmp_path / "photo.png").write_bytes(IMAGE)
    (tmp_path / "mask.png").write_bytes(MASK)
    npm, node = program("npm", package="apt install npm"), program("node", package="nodejs")

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    for script in ("generate", "build"):
        done = run(npm, "run", script)
        assert done.returncode == 0, done.stdout + done.stderr
    client = (node, "build/client.js", server, "photo.png")
    done = run(*client, "mask.png", "filled.png")
    assert done.stdout == "80 x 48 pixels, filled by tiny model.onnx\n", done.stderr
    filled = decoded((tmp_path / "filled.png").read_bytes())
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
    done = run(*client, "package.json", "none.png")
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "invalid_mask")
    source = (tmp_path / "client.ts").read_text()
    (tmp_path / "client.ts").write_text(source.replace('fill: "auto"', 'fill: "magic"'))
    assert '"magic"' in run(npm, "run", "build").stdout
