"""The exported file in other applications: each example runs, and fills as Python does.

Those that need more than this project's Python environment (Node.js, a C++ compiler, Chromium, a
model server) are marked `examples` and run by `make test-examples`.
"""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import musical_tf
from export import to_onnx
from musical_tf import onnx_runtime
from serving.session import InpaintingSession

onnxruntime = onnx_runtime.load()

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PHOTO, MASK = EXAMPLES / "photo.png", EXAMPLES / "mask.png"
TOLERANCE = 1
"""Grey levels: other builds of the kernels add in another order, so values may round otherwise."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small network with every kind of layer, exported as users export theirs.

    Its weights are large enough to show differences: an untrained one draws a nearly even colour.
    """
    generator = musical_tf.create("musical", "lite", width=4, inner_levels=2, dtype="float32")
    random = np.random.default_rng(0)
    weights = generator.get_weights()
    generator.set_weights([value + random.normal(0, 0.2, value.shape) for value in weights])
    folder = tmp_path_factory.mktemp("example")
    run = folder / "run"
    run.mkdir()
    generator.save(run / "generator.keras")
    (run / "recipe.json").write_text(json.dumps({"dataset": "folder", "image_size": 128}))
    to_onnx.export(run, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def session(model) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def expected(session) -> np.ndarray:
    """What ONNX Runtime in Python makes of the sample picture."""
    return fill(session, pixels(PHOTO), pixels(MASK, "L"))


def fill(session, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return session.run(["inpainted"], {"image": image[None], "mask": mask[None]})[0][0]


def pixels(path: Path, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(path).convert(mode))


def assert_same_picture(got: np.ndarray, expected: np.ndarray, tolerance: int = TOLERANCE) -> None:
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= tolerance, f"{np.count_nonzero(difference > tolerance)} values"
    hole = pixels(MASK, "L") > 127
    assert np.array_equal(got[~hole], pixels(PHOTO)[~hole])


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, **options
    )


def succeed(*command: str | Path, **options) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def program(*names: str, package: str) -> str:
    """The path of the first of these programs that is installed; there is no test without it."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"none of {', '.join(names)} is installed; on Debian and Ubuntu: {package}")


# ---- all of them


def test_sample_shows_what_it_should(expected):
    hole = pixels(MASK, "L") > 127
    assert hole.shape == pixels(PHOTO).shape[:2]
    assert set(np.unique(pixels(MASK, "L"))) == {0, 255}
    assert hole.shape[0] % 16 != 0, "the graph should have to pad"
    assert expected[hole].std(axis=0).min() > 10 * TOLERANCE, "the fill should have detail"


def test_every_example_is_in_the_index_and_explains_itself():
    index = (EXAMPLES / "README.md").read_text("utf-8")
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == {"cpp", "node", "opencv", "python", "triton", "web"}
    for folder in folders:
        assert f"]({folder}/)" in index
        assert (EXAMPLES / folder / "README.md").is_file()


def test_compare_says_how_far_two_pictures_are(tmp_path):
    other = pixels(PHOTO).copy()
    other[3, 4, 1] ^= 4
    Image.fromarray(other).save(tmp_path / "other.png")
    compare = (sys.executable, EXAMPLES / "compare.py")
    size = pixels(PHOTO)[..., 0].size
    assert succeed(*compare, PHOTO, tmp_path / "other.png") == (
        f"at most 4 grey levels, 1 of {size} pixels differ\n"
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    done = run(*compare, PHOTO, tmp_path / "other.png")
    assert done.returncode == 2
    assert "shapes" in done.stderr


# ---- Python


def test_python(model, expected, tmp_path):
    script = EXAMPLES / "python" / "inpaint.py"
    succeed(sys.executable, script, model, PHOTO, MASK, tmp_path / "filled.png")
    assert_same_picture(pixels(tmp_path / "filled.png"), expected, tolerance=0)


def test_python_is_fifteen_lines():
    lines = (EXAMPLES / "python" / "inpaint.py").read_text("utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.startswith('"""')]
    assert len(code) <= 15


# ---- OpenCV


@pytest.fixture(scope="module")
def prepared(model) -> Path:
    """The form of the model that OpenCV can compute."""
    output = model.with_name("prepared.onnx")
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


def test_opencv_computes_every_kind_of_split_reduction(tmp_path, monkeypatch):
    """Also the one that OpenCV 5.0.0 computes wrongly whole, axes 1, 2 and 4 of five."""
    import cv2

    monkeypatch.syspath_prepend(EXAMPLES / "opencv")
    monkeypatch.delitem(sys.modules, "prepare", raising=False)
    from prepare import split_reductions

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    data = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 1)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], axes=[1, 2, 4], keepdims=1),
        helper.make_node("ReduceMax", ["mean"], ["top"], axes=[0, 3], keepdims=0),
        helper.make_node("ReduceSum", ["top", "both"], ["sum"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "reductions",
        [helper.make_tensor_value_info("data", kind, data.shape)],
        [helper.make_tensor_value_info("sum", kind, [1, 1, 1])],
        [onnx.numpy_helper.from_array(np.array([0, 1], np.int64), "both")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert split_reductions(model) == 3
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "split.onnx")
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "split.onnx"), cv2.dnn.ENGINE_NEW)
    net.setInput(data, "data")
    expected = data.mean(axis=(1, 2, 4), keepdims=True).max(axis=(0, 3)).sum(keepdims=True)
    np.testing.assert_allclose(net.forward("sum"), expected, rtol=1e-5)
    monkeypatch.delitem(sys.modules, "prepare")


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 70), (96, 64)])
def test_opencv_takes_any_size_and_hole(prepared, session, height, width, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "opencv")
    monkeypatch.delitem(sys.modules, "inpaint", raising=False)
    import inpaint

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
    monkeypatch.delitem(sys.modules, "inpaint")


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


# ---- Node.js


def install_npm_packages(folder: Path) -> None:
    """`npm ci`, unless the folder holds what its lock file says already."""
    npm = program("npm", package="apt install nodejs npm (Node.js 20 or newer)")
    done, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    if not done.exists() or done.stat().st_mtime < lock.stat().st_mtime:
        succeed(npm, "ci", "--no-audit", "--no-fund", cwd=folder)
        done.touch()


@pytest.mark.examples
def test_node(model, expected, tmp_path, monkeypatch):
    node = program("node", package="apt install nodejs (20 or newer)")
    folder = EXAMPLES / "node"
    install_npm_packages(folder)
    script = folder / "inpaint.mjs"
    with no_telemetry(monkeypatch, tmp_path / "home"):
        succeed(node, script, model, PHOTO, MASK, tmp_path / "filled.png")
    assert_same_picture(pixels(tmp_path / "filled.png"), expected)

    Image.new("L", (20, 30)).save(tmp_path / "small.png")
    done = run(node, script, model, PHOTO, tmp_path / "small.png", tmp_path / "none.png")
    assert done.returncode == 1
    assert done.stderr.startswith("inpaint.mjs: error: ")
    assert "128 x 152" in done.stderr
    assert not (tmp_path / "none.png").exists()


# ---- C++


@pytest.mark.examples
def test_cpp(model, expected, tmp_path, monkeypatch):
    cmake = program("cmake", package="apt install cmake g++")
    program("c++", "g++", "clang++", package="apt install g++")
    folder, runtime, build = EXAMPLES / "cpp", tmp_path / "onnxruntime", tmp_path / "build"
    succeed(sys.executable, folder / "get_onnxruntime.py", runtime)
    succeed(cmake, "-S", folder, "-B", build, f"-DONNXRUNTIME_ROOT={runtime}")
    assert "warning" not in succeed(cmake, "--build", build)

    photo, mask, filled = (tmp_path / name for name in ("photo.ppm", "mask.pgm", "filled.ppm"))
    Image.open(PHOTO).save(photo)
    Image.open(MASK).save(mask)
    with no_telemetry(monkeypatch, tmp_path / "home"):
        succeed(build / "inpaint", model, photo, mask, filled)
    # The shared library is the one that Python uses, so nothing may differ.
    assert_same_picture(pixels(filled), expected, tolerance=0)

    Image.new("L", (20, 30)).save(tmp_path / "small.pgm")
    (tmp_path / "short.pgm").write_bytes(mask.read_bytes()[:-1])
    none = tmp_path / "none.ppm"
    for words, message in (
        ((model, photo, tmp_path / "small.pgm"), "128 x 152"),
        ((model, photo, tmp_path / "short.pgm"), "ends before its last pixel"),
        ((model, photo, photo), "not a binary PGM"),
        ((tmp_path / "none.onnx", photo, mask), "none.onnx"),
    ):
        done = run(build / "inpaint", *words, none)
        assert done.returncode == 1
        assert done.stderr.startswith("inpaint: error: ")
        assert message in done.stderr
        assert not none.exists()


# ---- the browser


@pytest.fixture(scope="module")
def site(model, tmp_path_factory) -> Path:
    """What a web server would be given: the page's own files, ort/ and the model."""
    folder = EXAMPLES / "web"
    install_npm_packages(folder)
    site = tmp_path_factory.mktemp("site")
    for name in ("index.html", "app.js", "serve.py"):
        shutil.copy(folder / name, site)
    shutil.copytree(folder / "ort", site / "ort")
    shutil.copy(model, site / "model.onnx")
    return site


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


@pytest.fixture
def plain_server(site):
    """`python -m http.server`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def isolated_server(site):
    """The example's own server, with the headers that allow threads."""
    server = subprocess.Popen(
        [sys.executable, site / "serve.py", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield server.stdout.readline().strip()
    server.terminate()
    server.wait(timeout=10)


class Page:
    """The example's page in a browser, in the words of its user."""

    def __init__(self, browser, url: str):
        self.page = browser.new_page()
        self.addresses, self.errors = [], []
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def says(self, pattern: str) -> str:
        from playwright.sync_api import expect

        status = self.page.locator("#status")
        expect(status).to_contain_text(re.compile(pattern), timeout=120_000)
        return status.text_content()

    def open(self, photo: Path, mask: Path | None = None) -> None:
        from playwright.sync_api import expect

        self.page.set_input_files("#picture", photo)
        expect(self.page.locator("#frame")).to_be_visible()
        if mask is not None:
            self.page.set_input_files("#mask-file", mask)
            expect(self.page.locator("#undo")).to_be_enabled()

    def paint(self, *points: tuple[float, float]) -> np.ndarray:
        """One stroke, points in shares of the picture; returns the hole, `(H, W)` bool."""
        box = self.page.locator("#mask").bounding_box()
        for index, (x, y) in enumerate(points):
            self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if index == 0:
                self.page.mouse.down()
        self.page.mouse.up()
        return self.hole()

    def hole(self) -> np.ndarray:
        width, height, alpha = self.page.evaluate("""() => {
            const canvas = document.getElementById("mask");
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const alpha = Array.from({ length: width * height }, (_, i) => data[4 * i + 3]);
            return [width, height, alpha];
        }""")
        return np.array(alpha).reshape(height, width) > 127

    def fill(self, path: Path) -> tuple[np.ndarray, str]:
        """Fills, downloads; returns the picture and what the page said."""
        self.page.click("#fill")
        said = self.says("Filled|failed|Error")
        assert "Filled" in said, said
        with self.page.expect_download() as download:
            self.page.click("#download")
        download.value.save_as(path)
        return pixels(path), said


@pytest.mark.examples
@pytest.mark.browser
def test_web_page_fills_as_python_does(browser, plain_server, expected, tmp_path):
    page = Page(browser, plain_server)
    page.says("ready")
    assert page.page.input_value("#working-size") == "128"  # what the model was trained at
    page.page.select_option("#working-size", "256")  # larger than the photograph: it goes as it is
    page.open(PHOTO, MASK)
    assert np.array_equal(page.hole(), pixels(MASK, "L") > 127)
    filled, said = page.fill(tmp_path / "filled.png")
    assert "1 thread)" in said
    assert_same_picture(filled, expected)
    assert page.errors == []
    own = (plain_server, "blob:", "data:")
    assert [address for address in page.addresses if not address.startswith(own)] == []


@pytest.mark.examples
@pytest.mark.browser
def test_web_page_uses_threads_where_it_may(browser, isolated_server, session, tmp_path):
    page = Page(browser, isolated_server)
    page.says("ready")
    page.page.select_option("#working-size", "256")
    page.open(PHOTO)
    first = page.paint((0.2, 0.3), (0.5, 0.5))
    assert first.any()
    both = page.paint((0.7, 0.2), (0.7, 0.6))
    assert both.sum() > first.sum()
    page.page.click("#undo")
    assert np.array_equal(page.hole(), first)
    filled, said = page.fill(tmp_path / "filled.png")
    threads = min(4, os.cpu_count())
    assert f"{threads} thread" in said
    image, mask = pixels(PHOTO), first.astype(np.uint8) * np.uint8(255)
    difference = np.abs(filled.astype(int) - fill(session, image, mask))
    assert difference.max() <= TOLERANCE
    assert not page.hole().any(), "what is filled is no hole any more"


@pytest.mark.examples
@pytest.mark.browser
def test_web_page_keeps_the_known_pixels_of_a_large_picture(browser, plain_server, tmp_path):
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (15, 20, 3), np.uint8)
    Image.fromarray(coarse).resize((600, 450), Image.Resampling.BICUBIC).save(tmp_path / "big.png")
    image = pixels(tmp_path / "big.png")
    page = Page(browser, plain_server)
    page.says("ready")
    page.open(tmp_path / "big.png")
    hole = page.paint((0.3, 0.3), (0.6, 0.6))
    filled, _ = page.fill(tmp_path / "filled.png")
    assert filled.shape == image.shape
    assert np.array_equal(filled[~hole], image[~hole])
    changed = np.abs(filled.astype(int) - image).max(axis=2) > TOLERANCE
    assert changed[hole].mean() > 0.9


@pytest.mark.examples
@pytest.mark.browser
def test_web_page_says_what_is_wrong(browser, plain_server, site, tmp_path):
    Image.new("L", (20, 30)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    page = Page(browser, plain_server)
    page.says("ready")
    page.page.set_input_files("#picture", tmp_path / "text.png")
    page.says("text.png cannot be read")
    page.open(PHOTO)
    page.page.set_input_files("#mask-file", tmp_path / "small.png")
    page.says("must be 128 x 152")
    (site / "model.onnx").rename(site / "elsewhere.onnx")
    try:
        page = Page(browser, plain_server)
        page.says("no model.onnx")
        page.page.set_input_files("#model", tmp_path / "text.png")
        page.says("not a model exported by musical-tf")
        page.page.set_input_files("#model", site / "elsewhere.onnx")
        page.says("ready")
    finally:
        (site / "elsewhere.onnx").rename(site / "model.onnx")


# ---- a model server


@pytest.fixture(scope="module")
def server_python() -> Path:
    """An environment for KServe and tritonclient alone: they pin what TensorFlow uses too."""
    folder = EXAMPLES / "triton"
    environment, wanted = folder / ".venv", folder / "requirements.txt"
    python, stamp = environment / "bin" / "python", environment / "installed"
    if not stamp.exists() or stamp.stat().st_mtime < wanted.stat().st_mtime:
        venv.create(environment, clear=True, with_pip=True)
        succeed(python, "-m", "pip", "install", "-q", "--no-compile", "-r", wanted)
        stamp.touch()
    return python


@pytest.fixture(scope="module")
def server(server_python, model):
    """KServe's own server with the model, as `host:port`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
    local = InpaintingSession(model, ["cpu"]).inpaint(image, hole)
    difference = np.abs(pixels(tmp_path / "filled.png").astype(int) - local)
    assert difference.max() <= TOLERANCE
