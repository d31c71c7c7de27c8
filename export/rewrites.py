"""Rewrites of TensorFlow graphs that tf2onnx applies while it converts them.

Each makes one ONNX node of what tf2onnx would make many of, with the same numbers.
"""

import numpy as np


def select_as_where(context, node, name, arguments):
    """Converts a selection to ONNX `Where`.

    tf2onnx writes `where(c, x, y)` as `c * x + (1 - c) * y`: a NaN under the hole would then reach
    every pixel.
    """
    del context, name, arguments
    node.type = "Where"
    return node


def transpose_convolution(context, node, name, arguments):
    """Converts a transposed convolution of "same" padding to `ConvTranspose` with fixed pads.

    Keras' output is then exactly `stride` times the input, whatever its size. tf2onnx itself
    computes pads and crop from a size that is not known before it runs, forty nodes each time.
    """
    del name, arguments
    from tf2onnx.onnx_opset import nn

    strides = nn.parse_dims_attr(node, node.get_attr("strides").ints, 2)
    dilations = nn.parse_dims_attr(node, node.get_attr("dilations").ints, 2)
    sizes = (context.get_shape(node.input[1]) or [-1, -1])[:2]
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    surplus = [reach - stride for reach, stride in zip(reaches, strides, strict=True)]
    if node.get_attr_str("padding") != "SAME" or min(sizes) < 0:
        nn.ConvTranspose.version_11(context, node)
        return
    node.type = "ConvTranspose"
    nn.conv_kernel_shape(context, node, 1)
    nn.conv_dims_attr(node, "strides")
    nn.conv_dims_attr(node, "dilations")
    _, kernel, features, *bias = node.input  # the first is the output's shape
    context.replace_inputs(node, [features, kernel, *bias])
    nn.conv_convert_inputs(context, node, with_kernel=True)
    cut = [max(total, 0) for total in surplus]
    before = [total // 2 for total in cut]
    after = [total - first for total, first in zip(cut, before, strict=True)]
    node.set_attr("pads", before + after)
    node.set_attr("output_padding", [max(-total, 0) for total in surplus])
    node.set_attr("auto_pad", "NOTSET")


def merge_instance_normalization(graph, nodes):
    """Merges Keras' `GroupNormalization` of one channel a group to `InstanceNormalization`.

    Without it each is some twenty nodes and two transposes. A normalization of another form is left
    as it is, which is slower and just as right.
    """
    from tf2onnx import utils
    from tf2onnx.graph_matcher import GraphMatcher

    for match in GraphMatcher(_normalization_pattern(), allow_reorder=True).match_ops(nodes):
        grouped, factor, result = (match.get_op(key) for key in ("grouped", "factor", "result"))
        gamma, beta = (
            match.get_op(key).get_tensor_value(as_list=False) for key in ("gamma", "beta")
        )
        axes = [match.get_op(key).get_tensor_value() for key in ("axes_mean", "axes_variance")]
        of_same = {match.get_op(key).name for key in ("compared", "of_mean", "of_subtracted")}
        if (
            not gamma.shape == beta.shape == (1, 1, 1, gamma.size, 1)
            or axes != [[1, 2, 4], [1, 2, 4]]
            or of_same != {grouped.name}
            or match.get_op("same_factor").name != factor.name
        ):
            continue
        affine = [
            graph.make_const(utils.make_name(result.name), values.ravel()).output[0]
            for values in (gamma, beta)
        ]
        planes = graph.make_node("Transpose", [grouped.input[0]], attr={"perm": [0, 3, 1, 2]})
        merged = graph.make_node(
            "InstanceNormalization",
            [planes.output[0], *affine],
            attr={"epsilon": match.get_op("epsilon").get_tensor_value(as_list=False).item()},
        )
        back = graph.make_node(
            "Transpose",
            merged.output,
            attr={"perm": [0, 2, 3, 1]},
            shapes=[graph.get_shape(result.output[0])],
            dtypes=[graph.get_dtype(result.output[0])],
        )
        graph.replace_all_inputs(result.output[0], back.output[0])
    return graph.get_nodes()


def _normalization_pattern():
    """TensorFlow's nodes of `GroupNormalization`, from its second reshape up to its first."""
    from tf2onnx.graph_matcher import OpTypePattern

    def pattern(kind, name=None, inputs=(), ordered=None):
        return OpTypePattern(kind, name, list(inputs), allow_reorder=False if ordered else None)

    def mean(name):
        return pattern(
            "Mean", inputs=[pattern("Reshape", f"of_{name}"), pattern("Const", f"axes_{name}")]
        )

    difference = pattern(
        "SquaredDifference",
        inputs=[pattern("Reshape", "compared"), pattern("StopGradient", inputs=[mean("mean")])],
    )
    variance = pattern("Mean", inputs=[difference, pattern("Const", "axes_variance")])
    above_zero = pattern("AddV2", inputs=[variance, pattern("Const", "epsilon")])
    inverse_deviation = pattern("Rsqrt", inputs=[above_zero])
    factor = pattern("Mul", "factor", [inverse_deviation, pattern("Const", "gamma")])
    scaled = pattern("Mul", inputs=[pattern("Reshape", "grouped"), factor])
    minus_mean = pattern("Neg", inputs=[mean("subtracted")])
    shift = pattern(
        "AddV2",
        inputs=[
            pattern("Mul", inputs=[minus_mean, pattern("Mul", "same_factor")]),
            pattern("Const", "beta"),
        ],
    )
    normalized = pattern("AddV2", inputs=[scaled, shift])
    return pattern("Reshape", "result", [normalized, pattern("*")], ordered=True)


def convolve_one_channel(graph, nodes):
    """Converts three-dimensional convolutions of one channel, with the zeros around them, to one.

    With one channel there is nothing to transpose, and what tf2onnx pads by a pass of its own is an
    attribute in ONNX. They are the attention's box sums, see `musical_tf.layers.box_sums`.
    """
    from tf2onnx import utils

    def axes(node, positions):
        return graph.make_const(utils.make_name(node.name), np.array(positions, "int64")).output[0]

    for node in nodes:
        padded = node.inputs[0] if node.type == "Conv3D" else None
        if padded is None or padded.type != "Pad":
            continue
        if not (node.inputs[1].is_const() and padded.inputs[1].is_const()):
            continue
        kernel = node.inputs[1].get_tensor_value(as_list=False)
        margins = padded.inputs[1].get_tensor_value(as_list=False)
        steps = {*node.get_attr("strides").ints, *node.get_attr("dilations").ints}
        if (
            kernel.shape[3:] != (1, 1)
            or node.get_attr_str("padding") != "VALID"
            or node.get_attr_str("data_format") != "NDHWC"
            or steps != {1}
            or margins[[0, 4]].any()
        ):
            continue
        channel_last = axes(node, [4])
        channel_first = axes(node, [1])
        weights = graph.make_const(utils.make_name(node.name), kernel[None, None, ..., 0, 0])
        value = padded.input[0]
        for kind, at in (("Squeeze", channel_last), ("Unsqueeze", channel_first)):
            value = graph.make_node(kind, [value, at]).output[0]
        value = graph.make_node(
            "Conv",
            [value, weights.output[0]],
            name=utils.make_name(node.name),
            attr={"kernel_shape": list(kernel.shape[:3]), "pads": margins[1:4].T.ravel().tolist()},
        ).output[0]
        value = graph.make_node("Squeeze", [value, channel_first]).output[0]
        result = graph.make_node(
            "Unsqueeze",
            [value, channel_last],
            shapes=[graph.get_shape(node.output[0])],
            dtypes=[graph.get_dtype(node.output[0])],
        )
        graph.replace_all_inputs(node.output[0], result.output[0])
    return graph.get_nodes()


def gather_without_wrapping(graph, nodes):
    """Lets `Gather` take negative indices itself, as ONNX's does.

    `keras.ops.take` adds the size to negative indices, four passes over what may be large.
    """
    for node in nodes:
        chosen = node.inputs[1] if node.type in ("Gather", "GatherV2") else None
        if chosen is None or chosen.type not in ("Select", "SelectV2"):
            continue
        is_negative, wrapped, _ = chosen.inputs
        index = chosen.input[2]
        if (
            is_negative.type == "Less"
            and is_negative.input[0] == index
            and is_negative.inputs[1].is_const()
            and not np.any(is_negative.inputs[1].get_tensor_value(as_list=False))
            and wrapped.type in ("Add", "AddV2")
            and index in wrapped.input
        ):
            graph.replace_input(node, node.input[1], index, 1)
    return graph.get_nodes()


_ARITHMETIC = {"Add", "AddV2", "Sub", "Mul", "RealDiv", "Maximum", "Minimum"}
_COMPARING = {"Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"}
_BROADCASTING = {*_ARITHMETIC, *_COMPARING, "Select", "SelectV2"}


def give_scalars_a_rank(graph, nodes):
    """Reshapes scalar constants that are combined with maps of one channel to the map's rank.

    ONNX Runtime broadcasts a scalar of rank 0 over a last axis of size 1 sixty times as slowly.
    """
    from tf2onnx import utils

    for node in nodes:
        if node.type not in _BROADCASTING:
            continue
        shapes = [graph.get_shape(name) for name in node.input]
        ranks = {len(shape) for shape in shapes if shape}
        if None in shapes or len(ranks) != 1 or any(shape and shape[-1] != 1 for shape in shapes):
            continue
        for index, (given, shape) in enumerate(zip(node.inputs, shapes, strict=True)):
            if shape == [] and given.is_const():
                value = given.get_tensor_value(as_list=False).reshape((1,) * max(ranks))
                constant = graph.make_const(utils.make_name(node.name), value)
                graph.replace_input(node, node.input[index], constant.output[0], index)
    return graph.get_nodes()
