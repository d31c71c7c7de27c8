"""Rewrites an exported model so that OpenCV's dnn module computes it: prepare.py MODEL OUTPUT.

OpenCV 5.0.0 does two kinds of reductions wrongly. One to a scalar (`ReduceMin`, `ReduceMax`) stops
it with "Assertion failed: buf.shape() == m.shape()"; one over axes 1, 2 and 4 of five gives wrong
numbers. Here every reduction becomes a chain over one axis each, and a Squeeze where the axes are
not kept. What is computed stays the same, for any runtime; weights, names and metadata stay.
"""

import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

SPLITTABLE = ("ReduceMean", "ReduceSum", "ReduceMin", "ReduceMax")


def main() -> int:
    """Runs the command line; returns 0, 1 (it failed) or 2 (wrong use)."""
    if len(sys.argv) != 3:
        print("usage: prepare.py MODEL OUTPUT", file=sys.stderr)
        return 2
    source, output = sys.argv[1:]
    try:
        model = onnx.load(source)
        count = split_reductions(model)
        onnx.checker.check_model(model)
        onnx.save(model, output)
    except Exception as error:  # onnx raises protobuf's exceptions, its own, OSError, ValueError
        print(f"prepare.py: error: {source}: {error}", file=sys.stderr)
        return 1
    print(f"{output}: {count} reductions split")
    return 0


def split_reductions(model: onnx.ModelProto) -> int:
    """Replaces, in place, every reduction by reductions over one axis that keep it.

    Returns:
        The number of reductions replaced.

    Raises:
        ValueError: If a reduction's axes are not constant.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes, count = [], 0
    for node in graph.node:
        if node.op_type in SPLITTABLE:
            nodes += _split(node, constants, graph)
            count += 1
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return count


def _split(
    node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], graph: onnx.GraphProto
) -> list[onnx.NodeProto]:
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    axes_are_input = len(node.input) > 1  # ReduceSum since opset 13, the others since opset 18
    if axes_are_input and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    else:
        axes = attributes.get("axes")
    if not axes:
        raise ValueError(f"{node.op_type} {node.name!r} has no constant axes")

    def constant(name: str, values: list[int]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    (result,) = node.output
    value, nodes = node.input[0], []
    for axis in axes:
        inputs = [value, constant(f"{result}/axis{axis}", [axis])] if axes_are_input else [value]
        value = f"{result}/over{axis}"
        attribute = {} if axes_are_input else {"axes": [axis]}
        nodes.append(helper.make_node(node.op_type, inputs, [value], keepdims=1, **attribute))
    if attributes.get("keepdims", 1):
        nodes[-1].output[0] = result
    else:
        squeezed = constant(f"{result}/axes", axes)
        nodes.append(helper.make_node("Squeeze", [value, squeezed], [result]))
    return nodes


if __name__ == "__main__":
    sys.exit(main())
