"""The precisions of the ONNX file: what they change, and what they must not."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import musical_tf
from export import convert, parity, to_onnx
from export.precision import PRECISIONS, in_precision, to_float16, to_int8
from musical_tf import onnx_runtime
from musical_tf.inference import InpaintingFunction
from tests.tiny_run import fill, holes, open_session, photographs, write_run

onnxruntime = onnx_runtime.load()

CONVOLUTIONS = ("Conv", "ConvTranspose")
REDUCED = ("float16", "int8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", dataset="celeba", image_size=32)


@pytest.fixture(scope="module")
def models(run):
    """The float32 graph, with float32 inputs, and what the other precisions make of it."""
    model = convert.build_model(InpaintingFunction(musical_tf.load(run), io="float32"))
    return {name: in_precision(model, name) for name in PRECISIONS}


@pytest.fixture(scope="module")
def sessions(models):
    return {name: open_session(model) for name, model in models.items()}


def arrays(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", REDUCED)
def test_the_contract_is_that_of_float32(models, sessions, precision, tmp_path):
    def described(session):
        values = [*session.get_inputs(), *session.get_outputs()]
        return [(value.name, value.type, value.shape) for value in values]

    assert described(sessions[precision]) == described(sessions["float32"])
    onnx.save(models[precision], tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


@pytest.mark.parametrize("precision", REDUCED)
def test_agrees_with_float32_and_keeps_known_pixels(sessions, precision):
    image = (photographs(3, 50, 37) / 255).astype("float32")
    mask = (holes(3, 50, 37) > 127).astype("float32")
    image[mask > 0.5] = np.nan
    result, expected = (fill(sessions[name], image, mask) for name in (precision, "float32"))
    difference = np.abs(result - expected)[mask > 0.5] * 255
    assert 0 < difference.max() <= parity.TOLERANCES[precision].max
    assert difference.mean() <= parity.TOLERANCES[precision].mean
    np.testing.assert_array_equal(result[mask < 0.5], image[mask < 0.5])


@pytest.mark.parametrize(("precision", "share"), [("float16", 0.5), ("int8", 0.25)])
def test_weights_take_their_share(models, precision, share):
    def bytes_of(model):
        return sum(array.nbytes for array in arrays(model).values())

    # What stays float32, affine parameters and biases, is a tenth of so narrow a network.
    assert share < bytes_of(models[precision]) / bytes_of(models["float32"]) < share + 0.12


def is_box_sum(node):
    """The attention's: a convolution of three dimensions, whose filter is no weight."""
    return any(each.name == "kernel_shape" and len(each.ints) == 3 for each in node.attribute)


def test_float16_is_for_convolutions_and_what_lies_between_them(models):
    model = onnx.shape_inference.infer_shapes(models["float16"], strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    in_half, elsewhere = set(), set()
    for node in model.graph.node:
        inputs = {types.get(name) for name in node.input}
        if is_box_sum(node):
            assert TensorProto.FLOAT16 not in inputs
            continue
        (in_half if TensorProto.FLOAT16 in inputs else elsewhere).add(node.op_type)
        if node.op_type in CONVOLUTIONS:
            assert inputs == {TensorProto.FLOAT16}
    between = {"LeakyRelu", "Relu", "Concat", "Transpose", "Clip"}
    assert in_half == {*CONVOLUTIONS, *between, "Cast"}
    assert {"MatMul", "Softmax", "InstanceNormalization", "Tanh", "Where"} <= elsewhere


def test_int8_rounds_each_filter_by_its_own_scale(models):
    before, after = arrays(models["float32"]), arrays(models["int8"])
    kernels = {
        node.input[1]: node.op_type
        for node in models["float32"].graph.node
        if node.op_type in CONVOLUTIONS and not is_box_sum(node)
    }
    assert {name for name in after if name.endswith("_int8")} == {
        f"{each}_int8" for each in kernels
    }
    for name, kind in kernels.items():
        levels, scale = after[f"{name}_int8"], after[f"{name}_scale"]
        filters = 0 if kind == "Conv" else 1
        assert name not in after
        assert levels.dtype == np.int8
        assert scale.shape == tuple(
            size if axis == filters else 1 for axis, size in enumerate(before[name].shape)
        )
        assert (np.abs(levels * scale - before[name]) <= scale * 0.501).all()
        others = tuple(axis for axis in range(4) if axis != filters)
        assert (np.abs(levels).max(axis=others) == 127).all()


def test_int8_runs_as_the_float32_graph(models, tmp_path):
    """ONNX Runtime computes the weights when it loads the file, and keeps nothing of the int8."""
    operators = []
    for precision in ("float32", "int8"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{precision}.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(
            models[precision].SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load(options.optimized_model_filepath).graph
        operators.append(sorted(node.op_type for node in graph.node))
    assert operators[0] == operators[1]


def test_int8_spares_a_tensor_that_is_next_to_nothing_and_bears_an_empty_filter():
    large = np.random.default_rng(0).normal(size=(160, 3, 5, 5)).astype("float32")
    large[7] = 0
    small = np.ones((3, 3, 1, 1), "float32")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "small"], ["between"]),
            helper.make_node("Conv", ["between", "large"], ["result"]),
        ],
        "two convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 160, 4, 4])],
        [numpy_helper.from_array(small, "small"), numpy_helper.from_array(large, "large")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    stored = arrays(to_int8(model))
    assert set(stored) == {"small", "large_int8", "large_scale"}
    np.testing.assert_array_equal(stored["small"], small)
    restored = stored["large_int8"] * stored["large_scale"]
    assert not restored[7].any()
    np.testing.assert_allclose(restored, large, atol=0.02)
    image = np.ones((1, 3, 8, 8), "float32")
    (result,) = open_session(to_int8(model)).run(None, {"image": image})
    (expected,) = open_session(model).run(None, {"image": image})
    np.testing.assert_allclose(result, expected, atol=0.5)


def extreme_feeds(size=48):
    """Images at the ends of every range, each with all kinds of hole, NaN under them."""
    hole = np.zeros((4, size, size), bool)
    hole[0, size // 4 : -size // 4, size // 4 : -size // 4] = True
    hole[1] = hole[2] = True
    hole[1, 5, 7] = False  # one known pixel; none in the third; all in the fourth
    random = np.random.default_rng(0)
    spike = np.zeros((size, size, 3))
    spike[9, 9] = 1
    noise = random.random((size, size, 3))
    for picture in (spike * 0, spike, spike * 0 + 1, noise, (noise - 0.5) * 1e6):
        image = np.repeat(picture[None].astype("float32"), len(hole), axis=0)
        image[hole] = np.nan
        yield image, hole.astype("float32")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("factor", "kinds"), [(1, ()), (1e5, CONVOLUTIONS), (1e5, ("InstanceNormalization",))]
)
def test_nothing_overflows_whatever_the_input_and_the_weights(models, precision, factor, kinds):
    """1e5 is more than float16 has: one layer of such weights leaves it."""
    model = onnx.ModelProto.FromString(models["float32"].SerializeToString())
    weights = {node.input[1] for node in model.graph.node if node.op_type in kinds}
    assert bool(weights) == bool(kinds)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            larger = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(larger, tensor.name))
    session = open_session(in_precision(model, precision))
    for image, mask in extreme_feeds():
        result = fill(session, image, mask)
        assert np.isfinite(result).all()
        np.testing.assert_array_equal(result[mask < 0.5], image[mask < 0.5])


def test_float16_follows_where_float32_leaves_its_range(models):
    """Trained, the innermost convolutions reach 3e5: nothing but the last is normalised."""
    model = onnx.ModelProto.FromString(models["float32"].SerializeToString())
    makers = {name: node for node in model.graph.node for name in node.output}

    def convolutions_before(normalization):
        found, maker = [], makers[normalization.input[0]]
        while maker.op_type in (*CONVOLUTIONS, "Relu", "LeakyRelu"):
            found += [maker] if maker.op_type in CONVOLUTIONS else []
            maker = makers[maker.input[0]]
        return found

    normalizations = [each for each in model.graph.node if each.op_type == "InstanceNormalization"]
    innermost = max(map(convolutions_before, normalizations), key=len)
    assert len(innermost) == 3
    weights = {name for node in innermost for name in node.input[1:]}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            larger = numpy_helper.to_array(tensor) * np.float32(1024)
            tensor.CopyFrom(numpy_helper.from_array(larger, tensor.name))
    image, mask = (photographs(1, 64, 64) / 255).astype("float32"), holes(1, 64, 64) > 127
    half, single = (
        fill(open_session(in_precision(model, name)), image, mask.astype("float32"))
        for name in ("float16", "float32")
    )
    assert np.abs(half - single).max() * 255 <= parity.TOLERANCES["float16"].max


def test_float16_leaves_alone_what_a_branch_reads():
    """The branches of an `If` read outer values by their names, which stay those of float32."""

    def branch(operator):
        value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
        return helper.make_graph(
            [helper.make_node(operator, ["activated"], ["chosen"])], operator, [], [value]
        )

    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], "convolution"),
        helper.make_node("Relu", ["features"], ["activated"], "activation"),
        helper.make_node("ReduceMax", ["image"], ["brightest"], "brightest", keepdims=0),
        helper.make_node("Greater", ["brightest", "threshold"], ["bright"], "comparison"),
        helper.make_node(
            "If",
            ["bright"],
            ["result"],
            "choice",
            then_branch=branch("Neg"),
            else_branch=branch("Exp"),
        ),
    ]
    shape = [1, 1, 4, 4]
    graph = helper.make_graph(
        nodes,
        "branches",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.full((1, 1, 1, 1), 2, "float32"), "kernel"),
            numpy_helper.from_array(np.float32(0.5), "threshold"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    half = to_float16(model)
    onnx.checker.check_model(half, full_check=True)
    for value, expected in ((1, -2), (0.25, np.exp(0.5))):
        image = np.full(shape, value, "float32")
        (result,) = open_session(half).run(None, {"image": image})
        np.testing.assert_allclose(result, np.full(shape, expected), rtol=1e-3)


@pytest.fixture(scope="module")
def half_file(run, models, tmp_path_factory):
    """A float16 file from the command line; its conversion, tested elsewhere, is the one above."""
    output = tmp_path_factory.mktemp("half") / "model.onnx"
    arguments = ["--run", str(run), "--output", str(output), "--io", "float32"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "build_model", lambda inpaint, opset: models["float32"])
        assert to_onnx.main([*arguments, "--precision", "float16"]) == 0
    return output


def test_the_file_says_its_precision_and_what_it_costs(half_file):
    model = onnx.load(half_file)
    onnx.checker.check_model(half_file, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["musical_tf.precision"] == "float16"
    assert metadata["musical_tf.io"] == "float32"
    report = json.loads(half_file.with_name("model.parity.json").read_text())["runtimes"]
    assert report["saved_model"]["precision"] == "float32"
    assert json.loads(metadata["musical_tf.parity"]) == report["onnx"]
    assert report["onnx"]["precision"] == "float16"
    assert report["onnx"]["tolerance"] == {"max": 2, "mean": 0.2}
    assert report["saved_model"]["max"] < report["onnx"]["max"] <= 2
    assert 0 < report["onnx"]["mean"] <= 0.2
    assert report["onnx"]["known_pixels_exact"] is True


def test_above_the_tolerance_nothing_is_written(run, models, tmp_path, monkeypatch, capsys):
    strict = {**parity.TOLERANCES, "int8": parity.Tolerance(max=0.001, mean=0.0001)}
    monkeypatch.setattr(parity, "TOLERANCES", strict)
    monkeypatch.setattr(convert, "build_model", lambda inpaint, opset: models["float32"])
    arguments = ["--run", str(run), "--output", str(tmp_path / "model.onnx"), "--io", "float32"]
    assert to_onnx.main([*arguments, "--precision", "int8"]) == 1
    message = capsys.readouterr().err
    assert "onnx differs from Keras by" in message
    assert "at most 0.001 is allowed in int8, so nothing was written" in message
    assert list(tmp_path.iterdir()) == []
