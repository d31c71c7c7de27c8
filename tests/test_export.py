"""The exported files: their contract, their agreement with Keras, and what a failure leaves."""

import hashlib
import json
import math
import os
import re
import resource
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import musical_tf
from benchmarks import measure
from export import parity, to_onnx, to_saved_model
from export.convert import build_model
from export.errors import ExportError
from export.metadata import describe, set_metadata
from export.serving_module import load_inpainting
from musical_tf import onnx_runtime
from musical_tf.contract import OUTPUTS
from musical_tf.inference import InpaintingFunction
from musical_tf.methods.musical import MusicalGenerator
from serving.memory import estimate_memory
from serving.session import InpaintingSession
from tests.processes import ROOT, added_by_fill, succeed
from tests.tiny_run import fill, holes, one_line, photographs, write_run

onnxruntime = onnx_runtime.load()


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "celeba", dataset="celeba", image_size=32)


@pytest.fixture(scope="session")
def generator(run):
    return musical_tf.load(run)


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The default export, made by the command line."""
    output = tmp_path_factory.mktemp("exported") / "new" / "model.onnx"
    assert to_onnx.main(["--run", str(run), "--output", str(output)]) == 0
    return output


@pytest.fixture(scope="session")
def session(exported):
    return onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def official_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    return write_run(folder / "run", preset="official", image_size=32)


@pytest.fixture(scope="session")
def float_session(official_run):
    """The other half of the options: official attention, float32, channels first."""
    model = official_run.with_name("model.onnx")
    to_onnx.export(official_run, model, io="float32", layout="nchw", opset=18)
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


class TestOnnxFile:
    def test_names_types_and_free_axes(self, session, float_session):
        free = ["batch", "height", "width"]
        for each, kind, axes in (
            (session, "tensor(uint8)", [*free, 3]),
            (float_session, "tensor(float)", ["batch", 3, "height", "width"]),
        ):
            described = {
                value.name: (value.type, value.shape)
                for value in (*each.get_inputs(), *each.get_outputs())
            }
            shapes = {"image": axes, "mask": free, "inpainted": axes}
            assert described == {name: (kind, shape) for name, shape in shapes.items()}

    def test_is_valid_and_says_what_it_is(self, exported, float_session, run):
        model = onnx.load(exported)
        onnx.checker.check_model(model, full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 17}
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        parity = json.loads(metadata.pop("musical_tf.parity"))
        weights = (run / "generator.keras").read_bytes()
        assert metadata == {
            "musical_tf.contract": "1",
            "musical_tf.method": "musical",
            "musical_tf.preset": "paper",
            "musical_tf.training_size": "32",
            "musical_tf.size_multiple": "16",
            "musical_tf.io": "uint8",
            "musical_tf.layout": "nhwc",
            "musical_tf.value_range": "[0, 255]",
            "musical_tf.mask_polarity": "above 127 = hole",
            "musical_tf.dataset": "celeba",
            "musical_tf.weights_sha256": hashlib.sha256(weights).hexdigest(),
            "musical_tf.project_version": musical_tf.__version__,
            "musical_tf.weights_licence": "CelebA: non-commercial research",
            "musical_tf.precision": "float32",
            "musical_tf.attention_factor": "4",
        }
        of_float = float_session.get_modelmeta().custom_metadata_map
        assert of_float["musical_tf.preset"] == "official"
        assert of_float["musical_tf.layout"] == "nchw"
        assert of_float["musical_tf.value_range"] == "[0, 1]"
        assert of_float["musical_tf.mask_polarity"] == "above 0.5 = hole"
        assert parity["max"] <= parity["tolerance"]["max"] == 1
        assert parity["mean"] <= parity["tolerance"]["mean"] == 0.05
        assert parity["known_pixels_exact"] is True
        assert parity["empty_mask_returns_image"] is True
        assert parity["all_hole_finite"] is True

    def test_the_metadata_follow_the_recipe_or_say_that_there_is_none(self, run, tmp_path):
        inpaint = InpaintingFunction(musical_tf.load(run))
        with pytest.raises(ValueError, match=r"strategy must be one of .*, got 'zoom'"):
            describe(run, inpaint, strategy="zoom")
        weights = tmp_path / "generator.keras"
        weights.write_bytes((run / "generator.keras").read_bytes())
        description = describe(weights, inpaint)
        assert description["dataset"] == "unknown"
        assert description["training_size"] == "256"
        assert description["weights_licence"] == "as its training data"
        assert "ablation" not in description
        (tmp_path / "recipe.json").write_text('{"ablation": "no_se"}')
        assert describe(tmp_path, inpaint)["ablation"] == "no_se"

    def test_holds_no_dead_weight_and_no_file_is_left_over(self, exported, run):
        assert sorted(path.name for path in exported.parent.iterdir()) == [
            "model.onnx",
            "model.parity.json",
        ]
        parameters = musical_tf.load(run).count_params()
        stored = sum(np.prod(t.dims, dtype=int) for t in onnx.load(exported).graph.initializer)
        assert parameters <= stored < parameters + 2000

    def test_parity_report_covers_what_it_claims(self, exported):
        report = json.loads(exported.with_name("model.parity.json").read_text())
        covered = {}
        for case in report["cases"]:
            assert set(case["runtimes"]) == {"saved_model", "onnx"}
            assert case["batch"] == len(case["masks"])
            covered.setdefault((case["height"], case["width"]), []).append(case["masks"])
        assert set(covered) == {(64, 64), (83, 118), (32, 32)}
        for masks in covered.values():
            single = {name for (name,) in (names for names in masks if len(names) == 1)}
            assert single == {"centre", "several", "border", "empty", "one pixel", "all"}
            assert [len(set(names)) for names in masks if len(names) > 1] == [3, 3]
        for figures in report["runtimes"].values():
            assert 0 <= figures["mean"] <= figures["max"] <= figures["tolerance"]["max"] == 1

    def test_graph_has_one_node_a_layer(self, exported, generator):
        """What a converter makes of a layer when sizes are free is dozens of nodes otherwise."""
        graph = onnx.load(exported).graph
        nodes = {}
        for node in graph.node:
            nodes.setdefault(node.op_type, []).append(node)
        layers = [type(layer).__name__ for layer in generator.layers]
        assert layers.count("GroupNormalization") == len(nodes["InstanceNormalization"]) > 0
        assert layers.count("Conv2DTranspose") == len(nodes["ConvTranspose"]) > 0
        for node in nodes["ConvTranspose"]:
            (pads,) = (each.ints for each in node.attribute if each.name == "pads")
            assert list(pads) == [1, 1, 1, 1]
        weights = {tensor.name for tensor in graph.initializer}
        # Nothing but weights and activations meets a convolution: no crop, no pad, no transpose.
        makers = {name: node.op_type for node in graph.node for name in node.output}
        for node in nodes["InstanceNormalization"]:
            assert makers[node.input[0]] in ("Conv", "ConvTranspose")
            assert weights.issuperset(node.input[1:])

    # 16 x 16 leaves one position in the innermost level, (17, 100) is padded on both sides.
    @pytest.mark.parametrize("shape", [(1, 16, 16), (3, 17, 100), (2, 64, 48)])
    def test_agrees_with_keras_at_any_size(self, session, generator, shape):
        image, mask = photographs(*shape), holes(*shape)
        result = fill(session, image, mask)
        expected = np.asarray(InpaintingFunction(generator)(image, mask))
        np.testing.assert_array_equal(result[mask <= 127], image[mask <= 127])
        assert expected[mask > 127].std() > 5  # a constant filling would prove nothing
        assert np.abs(result.astype(int) - expected).max() <= 1

    def test_official_agrees_with_keras_where_the_hole_touches_the_border(
        self, float_session, official_run
    ):
        image = (photographs(2, 64, 64) / 255).astype("float32").transpose(0, 3, 1, 2)
        mask = np.zeros((2, 64, 64), "float32")
        mask[0, :, :32] = mask[1, 40:, 20:] = 1
        function = InpaintingFunction(musical_tf.load(official_run), "float32", "nchw")
        expected = np.asarray(function(image, mask))
        assert expected.transpose(0, 2, 3, 1)[mask > 0].std() > 0.02
        np.testing.assert_allclose(fill(float_session, image, mask), expected, atol=1e-4)

    def test_nan_under_the_hole_has_no_influence(self, float_session):
        image = (photographs(3, 50, 37) / 255).astype("float32").transpose(0, 3, 1, 2)
        hole = holes(3, 50, 37) > 127
        mask = hole.astype("float32")
        other = np.where(hole[:, None], np.float32("nan"), image)
        result = fill(float_session, other, mask)
        np.testing.assert_array_equal(result, fill(float_session, image, mask))
        assert result.min() >= 0
        assert result.max() <= 1

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
    def test_an_odd_known_value_comes_back_and_spoils_nothing(self, float_session, value):
        image = (photographs(1, 50, 37) / 255).astype("float32").transpose(0, 3, 1, 2)
        mask = (holes(1, 50, 37) > 127).astype("float32")
        assert mask[0, 0, 0] == 0
        image[0, :, 0, 0] = value
        result = fill(float_session, image, mask)
        assert np.isfinite(result[:, :, mask[0] > 0.5]).all()
        np.testing.assert_array_equal(result[0, :, 0, 0], image[0, :, 0, 0])

    def test_images_of_a_batch_do_not_influence_each_other(self, float_session):
        image = (photographs(3, 50, 37) / 255).astype("float32").transpose(0, 3, 1, 2)
        mask = (holes(3, 50, 37) > 127).astype("float32")
        result = fill(float_session, image, mask)
        spoilt = image.copy()
        spoilt[0, :, 0, 0] = np.nan
        np.testing.assert_array_equal(fill(float_session, spoilt, mask)[1:], result[1:])
        alone = fill(float_session, image[1:2], mask[1:2])
        np.testing.assert_allclose(alone[0], result[1], atol=1e-5)


class TestBoundedAttention:
    """`--attention-max-scores`: the same picture in less memory."""

    BOUND = 300_000

    @pytest.fixture(scope="class")
    @classmethod
    def bounded(cls, run, tmp_path_factory):
        inpaint = load_inpainting(run, attention_max_scores=cls.BOUND)
        model = build_model(inpaint)
        description = describe(run, inpaint)
        set_metadata(model, {**description, "parity": "{}"})
        path = tmp_path_factory.mktemp("bounded") / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    def test_gives_the_same_picture(self, bounded, session):
        image, mask = photographs(2, 100, 130), holes(2, 100, 130)
        bands = onnxruntime.InferenceSession(str(bounded), providers=["CPUExecutionProvider"])
        difference = fill(bands, image, mask).astype(int) - fill(session, image, mask)
        assert np.abs(difference).max() <= 1

    def modeled_bytes(self, side, bound):
        """What docs/performance.md says of a center hole and a network of width 4, in bytes."""
        box = side // 8
        a_row = (box + 6) * (side // 4) ** 2
        rows = box
        if bound is not None:
            rows = math.ceil(box / math.ceil(box / max(bound // a_row - 6, 1)))
        return (130 + 9 * 4) * side**2 + 4 * 3 * a_row * (rows + 6)

    def test_memory_is_what_the_model_says(self, bounded, exported):
        hole = np.zeros((1, 288, 288), bool)
        hole[:, 72:216, 72:216] = True
        taken = {}
        for path, bound in ((exported, None), (bounded, self.BOUND)):
            words = (added_by_fill, str(path), 288)
            taken[bound] = measure.in_own_process(*words)
            assert 0.5 < taken[bound] / self.modeled_bytes(288, bound) < 2
            assert taken[bound] <= estimate_memory(hole, bound)
        assert taken[self.BOUND] < taken[None] / 2
        contract = InpaintingSession(bounded, ["cpu"]).contract
        assert contract.attention_max_scores == self.BOUND

    def test_a_method_without_attention_has_nothing_to_bound(self, tmp_path, capsys):
        generator = musical_tf.create("context_encoder", "lite", width=4)
        generator.save(tmp_path / "generator.keras")
        command = ["--run", str(tmp_path), "--output", str(tmp_path / "model.onnx")]
        assert to_onnx.main([*command, "--attention-max-scores", "9"]) == 2
        assert "context_encoder has no option(s) ['attention_max_scores']" in one_line(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("io", "layout", "precision"),
    [
        *(("uint8", "nhwc", "float32"), ("float32", "nchw", "float32")),
        *(("uint8", "nchw", "float16"), ("float32", "nhwc", "float16")),
        *(("uint8", "nhwc", "int8"), ("float32", "nchw", "int8")),
    ],
)
def test_every_pair_of_options_passes_its_own_check(run, tmp_path, io, layout, precision):
    report = to_onnx.export(run, tmp_path / "model.onnx", io, layout, precision)
    assert report["runtimes"]["onnx"]["precision"] == precision
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


class TestCopies:
    """A generator whose file copies, as far as Keras: the shipped `photo` has the ONNX side."""

    @pytest.fixture(scope="class")
    @staticmethod
    def generator():
        return musical_tf.create("musical", preset="lite", width=8, copying=True)

    def test_every_source_is_known_and_known_pixels_are_their_own(self, generator):
        inpaint, size = InpaintingFunction(generator), (50, 71)
        image, mask = photographs(2, *size), holes(2, *size)
        outputs = {name: np.asarray(each) for name, each in inpaint.outputs(image, mask).items()}
        assert tuple(outputs) == OUTPUTS[inpaint.contract]
        hole = mask > 127
        for name in ("inpainted", "predicted"):
            np.testing.assert_array_equal(outputs[name][~hole], image[~hole])
        source = outputs["source"]
        places = np.stack(np.indices(size), axis=-1)
        for one_source, one_hole in zip(source, hole, strict=True):
            np.testing.assert_array_equal(one_source[~one_hole], places[~one_hole])
            found = one_source[one_hole]
            copied = found[(found >= 0).all(axis=1)]
            assert len(copied) > 0.9 * len(found)
            assert not one_hole[tuple(copied.T)].any()

    def test_the_copying_can_be_left_out(self, generator, tmp_path):
        generator.save(tmp_path / "generator.keras")
        for choice, contract in ((None, "2"), ("copy", "2"), ("network", "1")):
            assert load_inpainting(tmp_path, fill=choice).contract == contract

    def test_older_files_with_detail_copy(self):
        config = {"preset": "lite", "width": 8, "width_limit": 8, "inner_levels": 1}
        assert MusicalGenerator(config | {"detail": 1.25}).config.copying
        assert not MusicalGenerator(config | {"detail": 0.0}).config.copying


class TestRefusals:
    # uint8 has no NaN: there a diverged network fills holes with one grey level, and agrees.
    @pytest.mark.parametrize("io", ["uint8", "float32"])
    def test_a_failed_export_leaves_what_was_there(self, tmp_path, capsys, io):
        def diverge(weights):
            weights[-1][0] = np.nan

        run = write_run(tmp_path / "run", attention=False, spoil=diverge, image_size=16)
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "model.onnx").write_text("an earlier export")
        arguments = ["--run", str(run), "--output", str(folder / "model.onnx"), "--io", io]
        assert to_onnx.main(arguments) == 1
        assert one_line(capsys).endswith("nothing was written")
        assert [path.name for path in folder.iterdir()] == ["model.onnx"]
        assert (folder / "model.onnx").read_text() == "an earlier export"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--run", "nowhere", "--output", "model.onnx"], "No generator at nowhere"),
            (["--run", "RUN", "--output", "folder"], "cannot write folder: it is a folder"),
            (["--run", "RUN", "--output", "file/model.onnx"], "cannot write file/model.onnx"),
            (["--run", "torn", "--output", "model.onnx"], "recipe.json must be JSON"),
            (["--run", "text.keras", "--output", "model.onnx"], "text.keras is not a readable"),
        ],
    )
    def test_bad_input_is_one_line_and_code_2(
        self, run, tmp_path, monkeypatch, capsys, arguments, message
    ):
        monkeypatch.chdir(tmp_path)
        Path("folder").mkdir()
        Path("file").write_text("")
        Path("text.keras").write_text("not a model")
        Path("torn").mkdir()
        (Path("torn") / "generator.keras").write_bytes((run / "generator.keras").read_bytes())
        (Path("torn") / "recipe.json").write_text('{"dataset": ')
        before = sorted(tmp_path.rglob("*"))
        arguments = [str(run) if argument == "RUN" else argument for argument in arguments]
        assert to_onnx.main(arguments) == 2
        assert message in one_line(capsys)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("program", [to_onnx, to_saved_model])
    def test_a_full_disk_is_one_line_and_leaves_nothing(self, program, run, tmp_path, capsys):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            code = program.main(["--run", str(run), "--output", str(tmp_path / "exported")])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert code == 1
        assert "cannot write" in one_line(capsys)
        assert list(tmp_path.iterdir()) == []

    def test_a_graph_that_onnx_runtime_refuses_and_an_unknown_precision(
        self, exported, run, tmp_path
    ):
        model = onnx.load(exported)
        model.graph.node[0].op_type = "Unheard"
        with pytest.raises(ExportError, match="ONNX Runtime does not load the graph: "):
            parity.onnx_runtime(model)
        message = "precision must be one of float32, float16, int8, got 'bfloat16'"
        with pytest.raises(ValueError, match=message):
            to_onnx.export(run, tmp_path / "model.onnx", precision="bfloat16")

    def test_a_missing_package_is_named(self, run, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "tf2onnx", None)
        output = tmp_path / "model.onnx"
        assert to_onnx.main(["--run", str(run), "--output", str(output)]) == 1
        assert "the Python package tf2onnx is not installed; pip install" in one_line(capsys)

    def test_unknown_values_list_the_known_ones(self, capsys):
        for program in (to_onnx, to_saved_model):
            with pytest.raises(SystemExit) as stop:
                program.main(["--run", "r", "--output", "o", "--layout", "chw"])
            assert stop.value.code == 2
            message = capsys.readouterr().err
            assert "nhwc" in message
            assert "nchw" in message

    def test_saved_model_never_replaces_other_files(self, run, tmp_path, capsys):
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "one.jpg").write_text("precious")
        output = str(tmp_path / "photos")
        assert to_saved_model.main(["--run", str(run), "--output", output]) == 2
        assert "holds more than a SavedModel" in one_line(capsys)
        assert [path.name for path in tmp_path.rglob("*")] == ["photos", "one.jpg"]


SERVE = """
import json, sys
sys.modules["musical_tf"] = None  # importing it from now on fails
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
def predict(request):
    # What TensorFlow Serving does: the signature's types, the request's names.
    signature = model.signatures[request.get("signature_name", "serving_default")]
    types = {name: spec.dtype for name, spec in signature.structured_input_signature[1].items()}
    rows = request.get("instances")
    inputs = {name: [row[name] for row in rows] for name in rows[0]} if rows else request["inputs"]
    assert set(inputs) == set(types), inputs
    result = signature(**{name: tf.constant(inputs[name], types[name]) for name in types})
    assert list(result) == ["inpainted"], result
    return {"predictions" if rows else "outputs": result["inpainted"].numpy().tolist()}
print(json.dumps([predict(request) for request in json.load(open(sys.argv[2]))]))
"""


@pytest.fixture(scope="session")
def saved_model(run, tmp_path_factory):
    """A SavedModel written over an older one."""
    output = tmp_path_factory.mktemp("saved") / "inpainting" / "1"
    output.mkdir(parents=True)
    (output / "saved_model.pb").write_text("an older one")
    assert to_saved_model.main(["--run", str(run), "--output", str(output)]) == 0
    return output


def documented(document, language):
    """The code blocks of a page of the documents that are in `language`."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_saved_model_serves_requests_without_our_package(saved_model, generator, tmp_path):
    image, mask = photographs(2, 20, 33), holes(2, 20, 33)
    columns = {"image": image.tolist(), "mask": mask.tolist()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    requests = [{"inputs": columns}, {"instances": rows}]
    requests += [json.loads(block) for block in documented("serving_savedmodel.md", "json")]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    (tmp_path / "serve.py").write_text(SERVE)
    answers = succeed(sys.executable, "serve.py", saved_model, "requests.json", cwd=tmp_path)
    by_column, by_row, *of_documents = json.loads(answers)
    expected = np.asarray(InpaintingFunction(generator)(image, mask)).astype(int)
    assert np.abs(np.array(by_column["outputs"]) - expected).max() <= 1
    assert by_row == {"predictions": by_column["outputs"]}
    assert [list(answer) for answer in of_documents] == [["outputs"], ["predictions"]]
    for answer in of_documents:
        ((first, missing), second) = next(iter(answer.values()))[0]
        assert [first, *second] == [[255, 0, 0]] * 3
        assert len(missing) == 3


def test_saved_model_has_the_signature_that_tensorflow_serving_reads(saved_model):
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    stored = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    (graph,) = stored.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    described = {
        name: (value.dtype, [dimension.size for dimension in value.tensor_shape.dim])
        for values in (signature.inputs, signature.outputs)
        for name, value in values.items()
    }
    uint8 = types_pb2.DT_UINT8
    assert described == {
        "image": (uint8, [-1, -1, -1, 3]),
        "mask": (uint8, [-1, -1, -1]),
        "inpainted": (uint8, [-1, -1, -1, 3]),
    }
    assert set(graph.signature_def) == {"serving_default", "__saved_model_init_op"}


def test_saved_model_folder_is_complete_and_alone(saved_model):
    assert [path.name for path in saved_model.parent.iterdir()] == ["1"]
    description = json.loads((saved_model / to_saved_model.DESCRIPTION_FILE).read_text())
    assert description["contract"] == "1"
    assert description["dataset"] == "celeba"
    assert list(description["parity_report"]["runtimes"]) == ["saved_model"]
    assert (saved_model / "saved_model.pb").stat().st_size > 1000


class TestDocument:
    """docs/onnx.md and its tutorial, for those who run the file."""

    def test_its_program_runs(self, exported, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("model.onnx").write_bytes(exported.read_bytes())
        image, mask = photographs(1, 40, 61)[0], holes(1, 40, 61)[0]
        Image.fromarray(image).save("photo.png")
        Image.fromarray(mask).save("mask.png")
        names = {}
        for block in documented("tutorials/application.md", "python"):
            exec(block, names)
        filled = np.asarray(Image.open("filled.png"))
        np.testing.assert_array_equal(filled[mask <= 127], names["image"][mask <= 127])
        assert (filled[mask > 127] != names["image"][mask > 127]).any()

    def test_it_names_all_of_the_metadata(self, exported):
        text = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
        table = text[text.index("| key | value |") : text.index("The opset is")]
        named = {
            key
            for line in table.splitlines()[2:]
            for key in re.findall(r"`(\w+)`", line.split("|")[1] if line else "")
        }
        stored = {entry.key for entry in onnx.load(exported).metadata_props}
        assert {f"musical_tf.{key}" for key in named} == stored


@pytest.mark.parametrize(
    "command", [["to_onnx.py"], ["to_saved_model.py"], ["-m", "export.to_onnx"]]
)
def test_help_states_the_contract(command, tmp_path):
    """A script puts its checkout on the path: the working directory may be any."""
    script = [] if "-m" in command else [ROOT / "export" / command.pop(0)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    words = [sys.executable, *script, *command, "--help"]
    shown = succeed(*words, cwd=tmp_path if script else ROOT, env=environment)
    for words in ("--run DIR", "{uint8,float32}", "{nhwc,nchw}", "above 127 = hole", "inpainted"):
        assert words in " ".join(shown.split())
