"""The exported file in other applications: each example runs, and fills as Python does.

Those that need more than this project's Python environment (Node.js, a C++ compiler, Chromium, a
model server) are marked `examples` and run by `make test-examples`.
"""

import contextlib
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from PIL import ExifTags, Image, ImageDraw

from musical_tf import onnx_runtime
from serving.session import InpaintingSession

from .examples import (
    EXAMPLES,
    MASK,
    PHOTO,
    WEB,
    free_port,
    import_file,
    pixels,
    program,
    virtual_environment,
)
from .processes import ROOT, run, succeed

onnxruntime = onnx_runtime.load()

PHOTO_MODEL = ROOT / "serving" / "models" / "photo.onnx"
TOLERANCE = 1
"""Gray levels: other builds of the kernels add in another order, so values may round otherwise."""


@pytest.fixture(scope="module")
def model() -> Path:
    """A file of version 1, as users have it; its network has every kind of layer."""
    return ROOT / "serving" / "models" / "faces.onnx"


@pytest.fixture(scope="module")
def session(model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def expected(session) -> np.ndarray:
    """What ONNX Runtime in Python makes of the sample picture."""
    return fill(session, pixels(PHOTO), pixels(MASK, "L"))


def fill(session, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return session.run(["inpainted"], {"image": image[None], "mask": mask[None]})[0][0]


def run_quietly(*command: str | Path) -> None:
    done = run(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def assert_same_picture(got: np.ndarray, expected: np.ndarray, tolerance: int = TOLERANCE) -> None:
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= tolerance, f"{np.count_nonzero(difference > tolerance)} values"
    hole = pixels(MASK, "L") > 127
    assert np.array_equal(got[~hole], pixels(PHOTO)[~hole])


# ---- all of them


def test_sample_shows_what_it_should(expected):
    hole = pixels(MASK, "L") > 127
    assert hole.shape == pixels(PHOTO).shape[:2]
    assert set(np.unique(pixels(MASK, "L"))) == {0, 255}
    assert hole.shape[0] % 16 != 0, "the graph should have to pad"
    assert expected[hole].std(axis=0).min() > 10 * TOLERANCE, "the fill should have detail"


# ---- programs: Python, Node.js, C++


def install_npm_packages(folder: Path) -> None:
    """`npm ci`, unless the folder holds what its lock file says already."""
    npm = program("npm", package="apt install nodejs npm (Node.js 20 or newer)")
    done, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        succeed(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
        done.touch()


@pytest.fixture(scope="module")
def cpp_program(tmp_path_factory) -> Path:
    cmake = program("cmake", package="apt install cmake g++")
    program("c++", "g++", "clang++", package="apt install g++")
    folder, build = EXAMPLES / "cpp", tmp_path_factory.mktemp("build")
    runtime = build / "onnxruntime"
    succeed(sys.executable, folder / "get_onnxruntime.py", runtime)
    succeed(cmake, "-S", folder, "-B", build, f"-DONNXRUNTIME_ROOT={runtime}")
    assert "warning" not in succeed(cmake, "--build", build)
    return build / "inpaint"


NEEDS_MORE = [pytest.param(name, marks=pytest.mark.examples) for name in ("node", "cpp")]


class Example(NamedTuple):
    """A command that takes a model, a photograph, a mask and an output."""

    command: tuple[str | Path, ...]
    endings: tuple[str, str] = (".png", ".png")  # of photographs and masks

    def pictures(self, folder: Path, names="photo mask filled") -> list[Path]:
        photo, mask, filled = names.split()
        return [
            (folder / photo).with_suffix(self.endings[0]),
            (folder / mask).with_suffix(self.endings[1]),
            (folder / filled).with_suffix(self.endings[0]),
        ]


@pytest.fixture(params=["python", "full_size", *NEEDS_MORE])
def example(request) -> Example:
    if request.param == "cpp":
        return Example((request.getfixturevalue("cpp_program"),), (".ppm", ".pgm"))
    if request.param == "node":
        install_npm_packages(EXAMPLES / "node")
        node = program("node", package="apt install nodejs (20 or newer)")
        return Example((node, EXAMPLES / "node" / "inpaint.mjs"))
    name = {"python": "inpaint.py", "full_size": "full_size.py"}[request.param]
    return Example((sys.executable, EXAMPLES / "python" / name))


@contextlib.contextmanager
def no_telemetry(monkeypatch, home: Path):
    """A home folder in which ONNX Runtime must leave no device id, although nothing tells it so."""
    home.mkdir()
    with monkeypatch.context() as patch:
        patch.delenv("ORT_DISABLE_TELEMETRY")
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_program_fills_as_onnx_runtime_does(example, model, expected, tmp_path, monkeypatch):
    files = example.pictures(tmp_path)
    photo, exif = Image.open(PHOTO), Image.Exif()
    if files[0].suffix == ".png":  # lies on its side, as a telephone's photographs do
        exif[ExifTags.Base.Orientation] = 6
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    photo.save(files[0], exif=exif)
    Image.open(MASK).save(files[1])
    with no_telemetry(monkeypatch, tmp_path / "home"):
        run_quietly(*example.command, model, *files)
    # Node.js has a runtime of its own; the others use one and the same library.
    tolerance = TOLERANCE if "inpaint.mjs" in str(example) else 0
    assert_same_picture(pixels(files[-1]), expected, tolerance)


@pytest.mark.parametrize("example", ["full_size", *NEEDS_MORE], indirect=True)
def test_program_says_what_is_wrong(example, model, tmp_path):
    photo, mask, none = example.pictures(tmp_path)
    Image.open(PHOTO).save(photo)
    Image.new("L", (20, 30)).save(mask)
    wrong = [((model, photo, mask), "128 x 152")]
    if mask.suffix == ".pgm":
        short = tmp_path / "short.pgm"
        short.write_bytes(mask.read_bytes()[:-1])
        whole = tmp_path / "whole.pgm"
        Image.open(MASK).save(whole)
        wrong += [
            ((model, photo, short), "ends before its last pixel"),
            ((model, photo, photo), "not a binary PGM"),
            ((tmp_path / "none.onnx", photo, whole), "none.onnx"),
        ]
    for words, message in wrong:
        done = run(*example.command, *words, none)
        assert done.returncode == 1
        assert re.match(r"[\w.]+: error: ", done.stderr)
        assert message in done.stderr
        assert not none.exists()


# ---- large photographs


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A photograph of 12 megapixels, its mask, and what the Python example makes of them.

    The hole has texture around it, so that no rounding decides what is copied.
    """
    folder = tmp_path_factory.mktemp("large")
    photo = Image.open(ROOT / "serving" / "page" / "sample-cat.jpg").resize((4000, 3000))
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((900, 1500, 1500, 2300), fill=255)
    for name in ("photo.png", "photo.ppm"):
        photo.save(folder / name, compress_level=1)
    for name in ("mask.png", "mask.pgm"):
        mask.save(folder / name)
    files = [folder / name for name in ("photo.ppm", "mask.pgm", "filled.ppm")]
    run_quietly(sys.executable, EXAMPLES / "python" / "full_size.py", PHOTO_MODEL, *files)
    hole = np.asarray(mask) > 127
    filled, image = pixels(files[2]), np.asarray(photo)
    assert np.array_equal(filled[~hole], image[~hole])
    assert (filled != image)[hole].mean() > 0.5
    return folder


@pytest.mark.parametrize("example", NEEDS_MORE, indirect=True)
def test_large_photograph_is_the_same_in_every_language(example, large, tmp_path):
    photo, mask, _ = example.pictures(large)
    *_, filled = example.pictures(tmp_path)
    run_quietly(*example.command, PHOTO_MODEL, photo, mask, filled)
    np.testing.assert_array_equal(pixels(filled), pixels(large / "filled.ppm"))


# ---- OpenCV


@pytest.fixture(scope="module")
def prepared(model, tmp_path_factory) -> Path:
    """The form of the model that OpenCV can compute."""
    output = tmp_path_factory.mktemp("opencv") / "prepared.onnx"
    out = succeed(sys.executable, EXAMPLES / "opencv" / "prepare.py", model, output)
    assert re.search(r"[1-9]\d* reductions split", out)
    return output


def test_prepared_model_is_the_same_to_onnx_runtime(model, prepared, expected):
    before, after = onnx.load(model), onnx.load(prepared)
    # What stops OpenCV is there to be split.
    assert {"ReduceMin", "ReduceMax"} <= {node.op_type for node in before.graph.node}
    assert after.metadata_props == before.metadata_props
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    session = InpaintingSession(prepared)
    filled = session.inpaint(pixels(PHOTO), pixels(MASK, "L") > 127, "original")
    assert_same_picture(filled, expected)


def test_opencv(prepared, expected, tmp_path):
    script = EXAMPLES / "opencv" / "inpaint.py"
    succeed(sys.executable, script, prepared, PHOTO, MASK, tmp_path / "filled.png")
    assert_same_picture(pixels(tmp_path / "filled.png"), expected)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 70), (96, 64)])
def test_opencv_takes_any_size_and_hole(prepared, session, height, width):
    inpaint = import_file(EXAMPLES / "opencv" / "inpaint.py")
    random = np.random.default_rng(height)
    for share in (0, 2, 3):
        image = random.integers(0, 256, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        if share:
            mask[: height // share, width // share :] = 255
            mask[height // 2 : height // 2 + 3, 1:] = 128
        got = inpaint.inpaint(str(prepared), image, mask)
        difference = np.abs(got.astype(int) - fill(session, image, mask))
        assert difference.max() <= TOLERANCE
        assert np.array_equal(got[mask <= 127], image[mask <= 127])


def test_opencv_scripts_say_what_is_wrong(prepared, tmp_path):
    prepare, inpaint = (EXAMPLES / "opencv" / name for name in ("prepare.py", "inpaint.py"))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    Image.new("L", (20, 30)).save(tmp_path / "small.png")
    output = tmp_path / "output"
    for command, message in (
        ((prepare, tmp_path / "broken.onnx", output), "broken.onnx"),
        ((prepare, tmp_path / "none.onnx", output), "none.onnx"),
        ((inpaint, prepared, tmp_path / "none.png", MASK, output), "none.png"),
        ((inpaint, prepared, PHOTO, tmp_path / "small.png", output), "128 x 152"),
    ):
        done = run(sys.executable, *command)
        assert done.returncode == 1
        assert re.search(rf"^\w+\.py: error: .*{re.escape(message)}", done.stderr, re.M)
        assert "Traceback" not in done.stderr
        assert not output.exists()


# ---- Triton


def test_triton_configuration_is_what_the_file_promises(model):
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    folder = EXAMPLES / "triton" / "model_repository" / "musical_inpaint"
    config = text_format.Parse(
        (folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig()
    )
    assert config.name == folder.name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 1
    types = {onnx.TensorProto.UINT8: model_config_pb2.TYPE_UINT8}

    def declared(tensors) -> dict:
        return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in tensors}

    def promised(values) -> dict:
        result = {}
        for value in values:
            batch, *dims = value.type.tensor_type.shape.dim
            assert batch.dim_param, "Triton needs a free batch in front"
            shape = [-1 if dim.dim_param else dim.dim_value for dim in dims]
            result[value.name] = (types[value.type.tensor_type.elem_type], shape)
        return result

    graph = onnx.load(model).graph
    assert declared(config.input) == promised(graph.input)
    assert declared(config.output) == promised(graph.output)
    assert not any(tensor.allow_ragged_batch for tensor in config.input)


# ---- the app in the browser


IS_KEPT = "crossOriginIsolated && navigator.serviceWorker.controller !== null"


class App:
    """The app in a browser, in the words of its user."""

    def __init__(self, context, url: str):
        self.page = context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def wait_until_kept(self) -> None:
        """Until the browser holds the app, and the page may use threads."""
        from playwright.sync_api import Error

        for _ in range(120):
            self.page.wait_for_timeout(500)
            with contextlib.suppress(Error):  # it reloads once
                if self.page.evaluate(IS_KEPT):
                    return
        pytest.fail("no service worker within a minute")

    def says(self, pattern: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(".notices")).to_contain_text(re.compile(pattern), timeout=300_000)

    def open(self, photo: Path, mask: Path) -> None:
        self.page.set_input_files("#file-input", photo)
        self.says("is open")
        self.page.set_input_files("#mask-input", mask)
        self.says("is painted")

    def fill(self, path: Path) -> np.ndarray:
        shown = self.page.get_attribute("#picture img", "src")
        self.page.click("#run")
        self.says("Filled in")
        self.page.wait_for_function(
            """(before) => {
                const images = document.querySelectorAll("#picture img");
                return images.length === 1 && images[0].src !== before;
            }""",
            arg=shown,
        )
        return self.download(path)

    def download(self, path: Path) -> np.ndarray:
        with self.page.expect_download() as download:
            self.page.click("#download")
        download.value.save_as(path)
        return pixels(path)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        pytest.fail("playwright is not installed: pip install 'musical-tf[examples]'")
    chromium = os.environ.get("CHROMIUM") or program(
        "chromium", "chromium-browser", "google-chrome", package="apt install chromium"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def served_app(model: Path, site: Path):
    """The address of the app behind Python's plain server for files."""
    install_npm_packages(WEB)
    succeed(sys.executable, WEB / "build.py", "--model", model, "--output", site)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.examples
@pytest.mark.browser
def test_app_fills_a_large_photograph_without_a_network(browser, large, tmp_path):
    with browser.new_context() as context:
        with served_app(PHOTO_MODEL, tmp_path / "site") as url:
            other = context.new_page()
            other.goto(url + "page/icon.svg")
            other.evaluate("() => caches.open('of another app')")
            app = App(context, url)
            app.wait_until_kept()
            assert len(app.page.evaluate("() => caches.keys()")) == 2
            session = context.new_cdp_session(app.page)
            found = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
            assert [error["errorId"] for error in found] == ["in-incognito"]
            assert session.send("Page.getAppManifest")["errors"] == []
        app.page.reload()
        app.open(large / "photo.png", large / "mask.png")
        filled = app.fill(tmp_path / "filled.png").astype(int)
        assert app.errors == []
    hole = pixels(large / "mask.png", "L") > 127
    # Its runtime rounds differently, which the joining of the copies shows in a few places.
    others = np.abs(filled - pixels(large / "filled.ppm")).max(axis=2) > TOLERANCE
    assert np.count_nonzero(others) < 0.02 * np.count_nonzero(hole)
    assert np.array_equal(filled[~hole], pixels(large / "photo.ppm")[~hole])


@pytest.mark.examples
@pytest.mark.browser
def test_app_fills_as_python_does_or_says_what_is_wrong(browser, model, expected, tmp_path):
    Image.new("L", (128, 152), 255).save(tmp_path / "all.png")
    with browser.new_context() as context, served_app(model, tmp_path / "site") as url:
        app = App(context, url)
        app.open(PHOTO, tmp_path / "all.png")
        app.page.click("#run")
        app.says("whole photograph is painted")
        app.page.click("#dismiss")
        for key in "so":  # what takes a server has no keys
            app.page.keyboard.press(key)
        assert app.page.get_attribute("[data-tool=brush]", "aria-pressed") == "true"
        assert app.page.locator("#message").is_hidden()
        app.page.set_input_files("#mask-input", MASK)
        app.says("mask.png is painted")
        assert_same_picture(app.fill(tmp_path / "filled.png"), expected)
        assert app.errors == []
    with browser.new_context() as context, served_app(model, tmp_path / "site") as url:
        (tmp_path / "site" / "model.onnx").unlink()
        app = App(context, url)
        app.open(PHOTO, MASK)
        app.page.click("#run")
        app.says("model.onnx is missing")


@pytest.mark.examples
@pytest.mark.browser
def test_app_enlarges_a_small_photograph_and_gives_another_fill(browser, tmp_path):
    from playwright.sync_api import expect

    hole = pixels(MASK, "L") > 127  # too thin to copy into, were it not enlarged
    with browser.new_context() as context, served_app(PHOTO_MODEL, tmp_path / "site") as url:
        app = App(context, url)
        app.open(PHOTO, MASK)
        button = app.page.locator("#run-label")
        expect(button).to_have_text("Fill")
        first = app.fill(tmp_path / "first.png")
        np.testing.assert_array_equal(first[~hole], pixels(PHOTO)[~hole])
        session = InpaintingSession(PHOTO_MODEL, ["cpu"])
        served, as_it_is = (
            session.inpaint(pixels(PHOTO), hole, how) for how in ("crop", "original")
        )
        close, far = (np.abs(each.astype(int) - served)[hole].mean() for each in (first, as_it_is))
        assert close < far
        expect(button).to_have_text("Another")
        another = app.fill(tmp_path / "another.png")
        assert (another[hole] != first[hole]).any(axis=1).mean() > 0.5
        np.testing.assert_array_equal(another[~hole], first[~hole])
        app.page.click("#undo")
        np.testing.assert_array_equal(app.download(tmp_path / "undone.png"), first)
        app.page.click("#redo")
        np.testing.assert_array_equal(app.download(tmp_path / "redone.png"), another)
        app.page.click("#undo")
        app.page.click("#undo")
        expect(button).to_have_text("Fill")
        assert app.errors == []


# ---- a model server


@pytest.fixture(scope="module")
def server_python() -> Path:
    """KServe and tritonclient alone."""
    return virtual_environment(EXAMPLES / "triton")


@pytest.fixture(scope="module")
def server(server_python, model):
    """KServe's own server with the model, as `host:port`."""
    port = free_port()
    script = EXAMPLES / "triton" / "kserve_server.py"
    options = ("--http_port", str(port), "--enable_grpc", "false")
    process = subprocess.Popen(
        [server_python, script, model, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ready = f"http://127.0.0.1:{port}/v2/models/musical_inpaint/ready"
    for _ in range(240):
        assert process.poll() is None, "the server ended by itself"
        try:
            urllib.request.urlopen(ready, timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=30)


KNOWN_FIELDS = """
import sys, kserve, yaml
from kubernetes import client

def check(cls, fields):
    attributes = {name: attribute for attribute, name in cls.attribute_map.items()}
    for name, value in fields.items():
        assert name in attributes, f"{cls.__name__} has no {name}"
        kind = cls.openapi_types[attributes[name]]
        if isinstance(value, dict) and not kind.startswith("Dict"):
            check(getattr(kserve, kind, None) or getattr(client, kind), value)

check(kserve.V1beta1InferenceService, yaml.safe_load(open(sys.argv[1])))
"""


@pytest.mark.examples
def test_kserve_configuration_has_known_fields_only(server_python, tmp_path):
    configuration = EXAMPLES / "triton" / "kserve.yaml"
    succeed(server_python, "-c", KNOWN_FIELDS, configuration)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(configuration.read_text("utf-8").replace("scaleTarget", "scaleAim"))
    assert "has no scaleAim" in run(server_python, "-c", KNOWN_FIELDS, wrong).stderr


@pytest.mark.examples
def test_triton_client_against_a_server_of_the_same_protocol(
    server, server_python, expected, tmp_path
):
    client = (server_python, EXAMPLES / "triton" / "client.py")
    succeed(*client, server, PHOTO, MASK, tmp_path / "filled.png")
    assert_same_picture(pixels(tmp_path / "filled.png"), expected)

    done = run(*client, server, PHOTO, MASK, tmp_path / "none.png", "--model", "other")
    assert done.returncode == 1
    assert re.fullmatch(r"client\.py: error: .*other.*\n", done.stderr)
    done = run(*client, "127.0.0.1:1", PHOTO, MASK, tmp_path / "none.png")
    assert done.returncode == 1
    assert re.fullmatch(r"client\.py: error: .+\n", done.stderr)
    assert not (tmp_path / "none.png").exists()


@pytest.mark.examples
def test_triton_client_sends_large_photographs_as_windows(server, server_python, model, tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (300, 280, 3), np.uint8)
    hole = np.zeros((300, 280), bool)
    hole[40:70, 50:80] = hole[200:240, 150:220] = True
    Image.fromarray(image).save(tmp_path / "photo.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    files = [tmp_path / name for name in ("photo.png", "mask.png", "filled.png")]
    succeed(
        *(server_python, EXAMPLES / "triton" / "client.py", server, *files),
        *("--working-size", "128"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    local = InpaintingSession(model, ["cpu"]).inpaint(image, hole, "crop")
    difference = np.abs(pixels(tmp_path / "filled.png").astype(int) - local)
    assert difference.max() <= TOLERANCE
