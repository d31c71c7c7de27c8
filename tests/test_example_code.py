"""What the examples compute themselves, without the files of the package's models."""

import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image

from serving.session import InpaintingSession

from .examples import (
    EXAMPLES,
    PHOTO,
    WEB,
    import_file,
    pixels,
    program,
)
from .processes import run, succeed
from .serving_model import write_model


def test_every_example_is_in_the_index_and_explains_itself():
    index = (EXAMPLES / "README.md").read_text("utf-8")
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"}
    assert "python" in folders
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
        f"at most 4 gray levels, 1 of {size} pixels differ\n"
    )
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    done = run(*compare, PHOTO, tmp_path / "other.png")
    assert done.returncode == 2
    assert "shapes" in done.stderr


@pytest.fixture(scope="module")
def full_size():
    """The module of the Python example, the reference for the others."""
    return import_file(EXAMPLES / "python" / "full_size.py")


class PeriodicModel:
    """Stands in for a session: copies each missing pixel from `period` cells to its left."""

    period = 16

    def __init__(self, version=2):
        self.names = ["inpainted", "source", "predicted"][: 1 if version == 1 else 3]
        self.mask = None

    def get_outputs(self):
        return [SimpleNamespace(name=name) for name in self.names]

    def run(self, names, feeds):
        image, self.mask = feeds["image"][0], feeds["mask"][0]
        source = np.moveaxis(np.indices(self.mask.shape, np.int32), 0, -1).copy()
        for column in range(self.mask.shape[1]):
            missing = self.mask[:, column] > 127
            before = source[missing, column - self.period]
            source[missing, column] = before if column >= self.period else -1
        inpainted = np.where(source[..., :1] < 0, 0, image[source[..., 0], source[..., 1]])
        outputs = {"inpainted": inpainted.astype(np.uint8), "source": source}
        return [outputs[name][None] for name in names]


def test_full_size_fill_brings_back_what_repeats(full_size):
    """A texture of single pixels, seen three times smaller, comes back without an error."""
    period = 3 * PeriodicModel.period
    tile = np.random.default_rng(0).integers(0, 256, (1, period, 3), np.uint8)
    truth = np.tile(tile, (1000, 40, 1))
    hole = np.zeros(truth.shape[:2], bool)
    hole[500:, 1000:1640] = hole[700, 1640:1650] = True  # twice that, by 512, is a third
    image = np.where(hole[..., None], 255 - truth, truth)
    session = PeriodicModel()
    filled = full_size.fill(session, image, hole)
    assert session.mask.shape == (334, 434)  # of the 1000 x 1300 pixels around it
    np.testing.assert_array_equal(filled, truth)
    blurred = full_size.fill(PeriodicModel(version=1), image, hole)
    np.testing.assert_array_equal(blurred[~hole], truth[~hole])
    assert np.abs(blurred[hole].astype(int) - truth[hole]).mean() > 10


@pytest.mark.parametrize("shape", [(1, 3000), (5, 7), (40, 1500), (700, 513)])
def test_full_size_fill_takes_any_shape(full_size, shape):
    image = np.full((*shape, 3), 77, np.uint8)
    hole = np.zeros(shape, bool)
    assert np.array_equal(full_size.fill(PeriodicModel(), image, hole), image)
    hole[:, shape[1] * 2 // 3 :] = True
    damaged = np.where(hole[..., None], 200, image).astype(np.uint8)
    session = PeriodicModel()
    session.period = 1
    np.testing.assert_array_equal(full_size.fill(session, damaged, hole), image)
    assert min(session.mask.shape) >= 16


def test_opencv_computes_every_kind_of_split_reduction(tmp_path):
    """Also the one that OpenCV 5.0.0 computes wrongly whole, axes 1, 2 and 4 of five."""
    import cv2

    split_reductions = import_file(EXAMPLES / "opencv" / "prepare.py").split_reductions
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


def test_app_has_every_function_of_the_servers_page():
    build = import_file(WEB / "build.py")
    exported = re.compile(r"^export (?:async )?(?:function|class|const) (\w+)", re.M)
    servers, own = (
        set(exported.findall((folder / "api.js").read_text("utf-8")))
        for folder in (build.PAGE, WEB)
    )
    assert servers - {"ServerError"}
    assert servers <= own
    html = (build.PAGE / "index.html").read_text("utf-8")
    page = build.page_of(html)
    assert "manifest.webmanifest" in page
    for mark in ('data-tool="select"', "mask-outline", "<dt><kbd>S</kbd>", 'value="avif"'):
        assert (mark in html, mark in page) == (True, False)
    access = (build.PAGE / "access.js").read_text("utf-8")
    script = (WEB / "api.js").read_text("utf-8")
    app = page + access.replace("This server runs {name}", "This app runs {name}") + script
    spoken = set(re.findall(r'\bt\(\s*"(.*?)"', script))
    for code, words in json.loads((WEB / "words.json").read_text("utf-8")).items():
        assert [text for text in words if text not in app] == []
        languages = json.loads((build.PAGE / "languages" / f"{code}.json").read_text("utf-8"))
        assert spoken
        assert spoken <= words.keys() | languages.keys()
    with pytest.raises(ValueError, match="once, got 2"):
        build.page_of(html + '<meta  charset="utf-8"\n/>')


@pytest.mark.examples
def test_app_chooses_a_variant_in_the_models_bytes(tmp_path):
    node = program("node", package="apt install nodejs")
    (tmp_path / "seed.mjs").write_text((WEB / "seed.js").read_text("utf-8"), "utf-8")
    script = """
        import { readFileSync, writeFileSync } from "node:fs";
        import { placeOfSeed, setSeed } from "./seed.mjs";
        const bytes = new Uint8Array(readFileSync("model.onnx"));
        setSeed(bytes, 2 ** 31 - 1);
        writeFileSync("set.onnx", bytes);
        console.log(placeOfSeed(bytes) > 0);
    """
    (tmp_path / "set.mjs").write_text(script, "utf-8")
    for has_seed, level in ((True, 147), (False, 100)):
        write_model(tmp_path / "model.onnx", copies=100, has_seed=has_seed)
        assert succeed(node, "set.mjs", cwd=tmp_path).strip() == str(has_seed).lower()
        image, hole = np.zeros((40, 48, 3), np.uint8), np.zeros((40, 48), bool)
        hole[10:20] = True
        filled = InpaintingSession(tmp_path / "set.onnx", ["cpu"]).inpaint(image, hole, "original")
        assert (filled[hole] == level).all()
