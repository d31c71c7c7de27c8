"""The hooks of the conversion to ONNX: fewer nodes, the same numbers."""

import keras
import numpy as np
import onnx
import pytest

from export.convert import build_model
from export.protobuf import share_constants
from musical_tf.layers import MultiScaleAttention
from tests.tiny_run import fill, open_session


class Stack:
    """Some layers in the place of an `InpaintingFunction`, to be converted like one."""

    io, layout, contract = "float32", "nhwc", "1"
    image_shape, mask_shape = (None, None, None, 3), (None, None, None)

    def __init__(self, *layers):
        self.generator = keras.Sequential([keras.Input((None, None, 3)), *layers])
        random = np.random.default_rng(0)
        weights = self.generator.get_weights()
        self.generator.set_weights([random.normal(0, 0.5, value.shape) for value in weights])

    def __call__(self, image, mask):
        return self.generator(image) + mask[:1, :1, :1, None]

    def outputs(self, image, mask):
        return {"inpainted": self(image, mask)}


def convert(*layers):
    """Converts, compares on one batch, and returns the operators of the graph."""
    stack = Stack(*layers)
    model = build_model(stack)
    image = np.random.default_rng(0).random((2, 9, 14, 3)).astype("float32")
    mask = np.zeros((2, 9, 14), "float32")
    result = fill(open_session(model), image, mask)
    np.testing.assert_allclose(result, np.asarray(stack(image, mask)), atol=2e-5)
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (4, {"strides": 2}),
        (5, {"strides": 2}),
        (2, {"strides": 2}),
        (1, {"strides": 2}),
        ((3, 2), {"strides": (2, 3)}),
        (3, {"strides": 1}),
        (3, {"dilation_rate": 2}),
    ],
)
def test_transposed_convolution_of_same_padding_is_one_node(size, options):
    nodes = convert(keras.layers.Conv2DTranspose(5, size, padding="same", **options))
    assert nodes.count("ConvTranspose") == 1
    assert "Pad" not in nodes
    assert nodes.count("Slice") == 1  # the mask's


def test_other_transposed_convolutions_are_left_to_the_library():
    assert "ConvTranspose" in convert(keras.layers.Conv2DTranspose(5, 4, strides=2))


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_instance_normalization_is_one_node(epsilon):
    layers = keras.layers
    nodes = convert(
        layers.Conv2D(6, 3), layers.GroupNormalization(-1, epsilon=epsilon), layers.Conv2D(5, 3)
    )
    assert nodes.count("InstanceNormalization") == 1
    assert nodes.count("Transpose") == 2  # in front of the first layer and after the last
    assert "ReduceMean" not in nodes


@pytest.mark.parametrize(
    ("groups", "options"), [(3, {}), (1, {}), (-1, {"scale": False}), (-1, {"center": False})]
)
def test_other_normalizations_are_left_as_they_are(groups, options):
    assert "InstanceNormalization" not in convert(
        keras.layers.Conv2D(6, 3), keras.layers.GroupNormalization(groups, **options)
    )


class Volumes(keras.layers.Layer):
    """A convolution of the image's columns, rows and channels as volumes, padded by zeros first."""

    def __init__(self, channels=1, paddings=((0, 0), (0, 0), (2, 1), (1, 0), (0, 0)), strides=1):
        super().__init__()
        self.channels, self.paddings, self.strides = channels, paddings, strides

    def call(self, image):
        batch, height, width, _ = keras.ops.shape(image)
        volumes = keras.ops.reshape(
            image, (batch, height, width, 3 // self.channels, self.channels)
        )
        volumes = keras.ops.pad(volumes, self.paddings)
        kernel = np.random.default_rng(1).normal(size=(3, 2, 1, self.channels, 1))
        summed = keras.ops.conv(volumes, kernel.astype("float32"), strides=self.strides)
        return keras.ops.sum(summed, axis=(3, 4), keepdims=True)[..., 0][:1, :1, :1]


def test_a_padded_convolution_of_one_channel_is_one_node():
    nodes = convert(Volumes())
    assert nodes.count("Conv") == 1
    assert not {"Pad", "Transpose"} & set(nodes)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 3},
        {"strides": 2},
        {"paddings": ((1, 0), (0, 0), (2, 1), (1, 0), (0, 0))},
        {"paddings": ((0, 0),) * 5},
    ],
)
def test_other_volumes_are_left_to_the_library(options):
    layer = Volumes(**options)
    assert ("Pad" in convert(layer)) == bool(np.any(layer.paddings))


class Rows(keras.layers.Layer):
    """Rows of the image, by indices that a function makes of -3, -2, ..."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose

    def call(self, image):
        index = keras.ops.arange(keras.ops.shape(image)[1]) - 3
        return keras.ops.take(image, self.choose(index), axis=1)


def test_negative_indices_are_left_to_gather():
    nodes = convert(Rows(lambda index: index))
    assert not {"Less", "Where"} & set(nodes)


@pytest.mark.parametrize(
    "choose",
    [
        lambda index: keras.ops.where(index < 1, index + 4, index),
        lambda index: keras.ops.where(index < 0, index + 4, index + 1),
        lambda index: keras.ops.where(index < 0, index * 0, index),
    ],
)
def test_other_selections_of_indices_stay(choose):
    assert convert(Rows(choose)).count("Where") == 1


class Shift(keras.layers.Layer):
    def call(self, image):
        return keras.ops.maximum(1.0 - image[..., :1], 0.25) * image + 0.5


def test_scalars_beside_maps_of_one_channel_have_the_rank_of_the_map():
    graph = build_model(Stack(Shift())).graph
    constants = [(each.name, each) for each in graph.initializer]
    constants += [
        (node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == "Constant"
    ]
    sizes = {name: list(tensor.dims) for name, tensor in constants}
    operands = [
        (node.op_type, sizes[name]) for node in graph.node for name in node.input if name in sizes
    ]
    assert ("Sub", [1, 1, 1, 1]) in operands
    assert ("Max", [1, 1, 1, 1]) in operands
    convert(Shift())


@pytest.mark.parametrize("max_scores", [None, 3000])
def test_an_attention_is_the_same_by_convolutions(max_scores):
    class Attend(keras.layers.Layer):
        def call(self, image):
            hole = keras.ops.cast(image[..., :1] > 0.7, "float32")
            layer = MultiScaleAttention(max_scores=max_scores)
            return keras.ops.concatenate(layer.attend(image, hole), axis=-1)

    nodes = convert(Attend())
    assert nodes.count("Conv") == (8 if max_scores is None else 0)
    assert nodes.count("Loop") == (0 if max_scores is None else 1)


def test_equal_constants_are_stored_once():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        outer (float[N] x, float[1] seed) => (float[N] y, float[1] given)
        <int64 count = {3}, bool yes = {1}, float[1] seed = {1.0}, float[1] a = {1.0}>
        {
            z = Mul(x, a)
            y = Loop(count, yes, z) <body = loop
                (int64 i, bool going, float[N] sum) => (bool still, float[N] more)
                <float[1] one = {1.0}, float[1] same = {1.0}, bool still = {1}>
                {
                    added = Add(sum, one)
                    more = Mul(added, same)
                }>
            given = Identity(seed)
        }"""
    )
    x = np.array([2, 5], "float32")
    before = open_session(model).run(None, {"x": x})
    share_constants(model)
    onnx.checker.check_model(model, full_check=True)
    for one, other in zip(before, open_session(model).run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[0], x + 3)
    assert [tensor.name for tensor in model.graph.initializer] == ["count", "yes", "seed", "a"]
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    # `still` is an output of the body and keeps its name.
    assert [tensor.name for tensor in loop.attribute[0].g.initializer] == ["still"]
    assert open_session(model).run(["given"], {"x": x, "seed": x[:1]})[0] == 2
