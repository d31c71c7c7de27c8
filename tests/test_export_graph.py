"""The hooks of the conversion to ONNX: fewer nodes, the same numbers."""

import keras
import numpy as np
import pytest

from export import to_onnx
from tests.tiny_run import fill, open_session


class Stack:
    """Some layers in the place of an `InpaintingFunction`, to be converted like one."""

    io, layout = "float32", "nhwc"
    image_shape, mask_shape = (None, None, None, 3), (None, None, None)

    def __init__(self, *layers):
        self.generator = keras.Sequential([keras.Input((None, None, 3)), *layers])
        random = np.random.default_rng(0)
        weights = self.generator.get_weights()
        self.generator.set_weights([random.normal(0, 0.5, value.shape) for value in weights])

    def __call__(self, image, mask):
        return self.generator(image) + mask[:1, :1, :1, None]


def convert(*layers):
    """Converts, compares on one batch, and returns the operators of the graph."""
    stack = Stack(*layers)
    model = to_onnx.build_model(stack)
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
