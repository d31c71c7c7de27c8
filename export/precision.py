"""The precisions of an ONNX file: float32, float16 and int8 weights."""

from typing import Any

import numpy as np

from .parity import TOLERANCES
from .protobuf import copy, replace

PRECISIONS = tuple(TOLERANCES)
_CONVOLUTIONS = ("Conv", "ConvTranspose")

_AROUND_CONVOLUTIONS = ("Clip", "Concat", "Elu", "Identity", "LeakyRelu", "Relu", "Transpose")
"""Operators that keep a value's size or move it, and so are as safe in float16 as their inputs."""

_HALF_LIMIT = float(np.finfo(np.float16).max)  # 65504
_LIMITS = ("half_lowest", "half_highest")
_SMALLEST_EPSILON = 1e-30  # not to vanish in float32


def in_precision(model: Any, precision: str) -> Any:
    """A float32 `onnx.ModelProto` in one of `PRECISIONS`; inputs and outputs stay as they are."""
    conversions = {"float32": lambda unchanged: unchanged, "float16": to_float16, "int8": to_int8}
    return conversions[precision](model)


def to_float16(model: Any) -> Any:
    """Returns a copy whose convolutions have float16 weights and activations.

    So do the operators between them. All else stays float32: attention with its scores and softmax,
    normalization, squeeze-and-excitation, scaling and compositing. Convolutions whose result is
    normalized are scaled down first, which changes nothing else: where several follow each other
    before a normalization, as in MUSICAL's innermost level, values grow beyond float16. What still
    enters float16 or comes of a convolution is clipped to its range, so that nothing becomes
    infinite, and no NaN can come of that. The nodes must be in order of computation.
    """
    from onnx import TensorProto, numpy_helper

    model = copy(model)
    graph = model.graph
    _scale_before_normalizations(graph)
    _clip_after_convolutions(graph)
    half = _half_nodes(graph)
    single = {name for node in graph.node if node.name not in half for name in _reads(node)}
    single.update(value.name for value in graph.output)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes, in_half = [], set()
    for node in graph.node:
        if node.name not in half:
            nodes.append(node)
            continue
        for name in node.input:
            if name in in_half:
                continue
            in_half.add(name)
            if name in weights:
                values = numpy_helper.to_array(weights[name]).clip(-_HALF_LIMIT, _HALF_LIMIT)
                rounded = numpy_helper.from_array(values.astype("float16"), f"{name}_half")
                graph.initializer.append(rounded)
            else:
                nodes.append(_clip(name, f"{name}_clipped"))
                nodes.append(_cast(f"{name}_clipped", f"{name}_half", TensorProto.FLOAT16))
        # A value keeps its name in float32; that of its float16 form ends in _half.
        (result,) = node.output
        replace(node.input, [f"{name}_half" for name in node.input])
        replace(node.output, [f"{result}_half"])
        in_half.add(result)
        nodes.append(node)
        if result in single:
            nodes.append(_cast(f"{result}_half", result, TensorProto.FLOAT))
    replace(graph.node, nodes)
    used = {name for node in nodes for name in _reads(node)}
    replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    return model


def _scale_before_normalizations(graph) -> None:
    """Brings filters of convolutions that a normalization follows to a norm of 1 at most.

    The normalization takes any factor out again, exactly so as its epsilon is scaled too. A factor
    passes through (leaky) ReLUs, so this goes for several convolutions in a row as well, the
    biases scaled by the product. Factors are powers of two, one a convolution, none above 1.
    """
    from onnx import numpy_helper

    makers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def scale(name: str, factor: float) -> None:
        values = numpy_helper.to_array(tensors[name]) * np.float32(factor)
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))

    def scalable(node) -> bool:
        return _is_convolution(node) and all(
            name in tensors and len(readers[name]) == 1 for name in node.input[1:]
        )

    for normalization in graph.node:
        if normalization.op_type != "InstanceNormalization":
            continue
        chain: list[Any] = []
        value = normalization.input[0]
        while value in makers and len(readers[value]) == 1:
            node = makers[value]
            if scalable(node):
                chain.insert(0, node)
            elif node.op_type not in ("Relu", "LeakyRelu"):
                break
            value = node.input[0]
        product = 1.0
        for node in chain:
            weights = numpy_helper.to_array(tensors[node.input[1]])
            within = _axes_of_a_filter(node, weights)
            largest = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=within)).max()
            factor = 2.0 ** -max(0, int(np.ceil(np.log2(max(largest, 1.0)))))
            product *= factor
            scale(node.input[1], factor)
            for bias in node.input[2:]:
                scale(bias, product)
        for attribute in normalization.attribute:
            if attribute.name == "epsilon":
                attribute.f = max(attribute.f * product**2, _SMALLEST_EPSILON)


def _clip_after_convolutions(graph) -> None:
    from onnx import numpy_helper

    for name, limit in zip(_LIMITS, (-_HALF_LIMIT, _HALF_LIMIT), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.array(limit, "float32"), name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if _is_convolution(node):
            result = node.output[0]
            node.output[0] = f"{result}_unclipped"
            nodes.append(_clip(node.output[0], result))
    replace(graph.node, nodes)


def _half_nodes(graph) -> set[str]:
    """Names of the convolutions, and of what computes nothing but their inputs."""
    readers = _readers(graph)
    half: set[str] = set()
    for node in reversed(graph.node):
        feeds_half = readers.get(node.output[0], {""}) <= half
        if _is_convolution(node) or (node.op_type in _AROUND_CONVOLUTIONS and feeds_half):
            half.add(node.name)
    return half


def _is_convolution(node) -> bool:
    """Whether a node is one of the network's: the attention's box sums have three dimensions."""
    sides = [each.ints for each in node.attribute if each.name == "kernel_shape"]
    return node.op_type in _CONVOLUTIONS and all(len(each) == 2 for each in sides)


def _axes_of_a_filter(convolution, weights: np.ndarray) -> tuple[int, ...]:
    """The axes of a convolution's weights, all but the one that counts its filters."""
    filters = 0 if convolution.op_type == "Conv" else 1
    return tuple(axis for axis in range(weights.ndim) if axis != filters)


def _readers(graph) -> dict[str, set[str]]:
    """Value -> names of the nodes that read it; "" reads the graph's outputs."""
    readers: dict[str, set[str]] = {value.name: {""} for value in graph.output}
    for node in graph.node:
        for name in _reads(node):
            readers.setdefault(name, set()).add(node.name)
    return readers


def _reads(node) -> list[str]:
    """Names of all values a node reads, those included that its loops and branches read."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            names += [value.name for value in graph.output]
            names += [name for inner in graph.node for name in _reads(inner)]
    return names


def to_int8(model: Any) -> Any:
    """Returns a copy whose convolutions' weights are stored as int8, with a scale per filter.

    `weight = int8 * scale` is written as plain nodes over constants, which ONNX Runtime computes
    once, when it loads the file: from then on it is the float32 network with rounded weights.
    Tensors of less than a thousandth of all the weights stay float32: the first and the last
    convolution, whose rounding would show most, cost nothing.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = copy(model)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    least = sum(np.prod(tensor.dims, dtype=int) for tensor in graph.initializer) / 1000
    stored, nodes = [], []
    for node in graph.node:
        if not _is_convolution(node) or node.input[1] not in tensors:
            continue
        name = node.input[1]
        weights = numpy_helper.to_array(tensors[name])
        if weights.size < least:
            continue
        del tensors[name]  # a second convolution with these weights finds them stored
        largest = np.abs(weights).max(axis=_axes_of_a_filter(node, weights), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype("float32")
        levels = np.rint(weights / scale).astype("int8")  # -127 to 127
        stored += [
            numpy_helper.from_array(levels, f"{name}_int8"),
            numpy_helper.from_array(scale, f"{name}_scale"),
        ]
        nodes += [
            _cast(f"{name}_int8", f"{name}_levels", TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_levels", f"{name}_scale"], [name], f"{name}_weights"),
        ]
    replace(graph.node, [*nodes, *graph.node])
    replace(graph.initializer, [*tensors.values(), *stored])
    return model


def _clip(name: str, result: str):
    from onnx import helper

    return helper.make_node("Clip", [name, *_LIMITS], [result], f"{result}_clip")


def _cast(name: str, result: str, to: int):
    from onnx import helper

    return helper.make_node("Cast", [name], [result], f"{result}_cast", to=to)
