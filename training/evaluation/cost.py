"""What a network costs: parameters, multiply-adds, and time against others in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

PRODUCTS = (
    *("Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative"),
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"),
)
"""TensorFlow's operations whose multiply-adds are counted: convolutions, transposed and depthwise
ones too, and products of matrices."""

UNCOUNTED_PRODUCTS = ("Einsum", "Conv3D", "_FusedConv2D", "_FusedMatMul")
"""Operations of the same kind that TensorFlow's profiler has no count for, or not under this
name."""


def count_multiply_adds(function: Callable[..., Any], *inputs: np.ndarray) -> int:
    """Counts the multiply-adds of one call, as it is run.

    One multiplication together with its addition counts as one; twice the number is what others
    call FLOPs. Only convolutions and products of matrices count, see `PRODUCTS`: normalization,
    activations, softmax and box sums are additions and single operations on memory.

    The count is that of TensorFlow's profiler on the graph with the weights frozen in. It runs the
    graph once, without rewriting it, so that windows that depend on the hole have their true size
    and the body of a loop counts as often as it ran.

    Args:
        function: From tensors to one tensor; TensorFlow or Keras.
        *inputs: What to call it with. Attention depends on the hole, and so does its count.

    Raises:
        RuntimeError: If the graph holds a product that the profiler cannot count, by name.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec(value.shape, value.dtype) for value in inputs]
    traced = tf.function(function, input_signature=signature, autograph=False)
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    graph, v1 = frozen.graph, tf.compat.v1
    uncounted = [op.name for op in graph.get_operations() if op.type in UNCOUNTED_PRODUCTS]
    if uncounted:
        raise RuntimeError(f"multiply-adds of {uncounted[0]} cannot be counted")
    config = v1.ConfigProto()
    # A rewritten graph runs under other names than those that are counted.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    metadata = v1.RunMetadata()
    feeds = {node.name: value for node, value in zip(frozen.inputs, inputs, strict=True)}
    with v1.Session(graph=_copied(graph), config=config) as session:
        session.run(
            [node.name for node in frozen.outputs],
            feeds,
            options=v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE),
            run_metadata=metadata,
        )
        wanted = v1.profiler.ProfileOptionBuilder.float_operation()
        wanted = v1.profiler.ProfileOptionBuilder(wanted).with_empty_output().build()
        root = v1.profiler.profile(session.graph, metadata, cmd="op", options=wanted)
    operations, waiting = {}, [root]
    while waiting:
        node = waiting.pop()
        operations[node.name] = node.float_ops
        waiting += node.children
    return sum(operations.get(name, 0) for name in PRODUCTS) // 2


def _copied(graph: Any) -> Any:
    """A plain graph: the profiler writes the shapes it met into it."""
    import tensorflow as tf

    plain = tf.Graph()
    with plain.as_default():
        tf.import_graph_def(graph.as_graph_def(), name="")
    return plain


def take_turns(
    callables: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1
) -> dict[str, dict[str, float]]:
    """Times callables, interleaved, so that background load affects all equally.

    Args:
        callables: Name -> what to time; it must have finished its work when it returns.
        rounds: How many times each is timed.
        warm_up: How many times each is called before, for tracing and compiling.

    Returns:
        Name -> `{"median", "least"}`, in seconds.
    """
    for _ in range(warm_up):
        for call in callables.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    for _ in range(rounds):
        for name, call in callables.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {"median": statistics.median(values), "least": min(values)}
        for name, values in seconds.items()
    }
