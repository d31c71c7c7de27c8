"""What the fast attention may cost: operators, passes over the scores, sizes of tensors. Not time.

The bounds are what it takes today. Whoever makes it dearer, by extracting patches, by scores of
queries that nothing asks for or by one more pass over the scores, meets them here.
"""

import json
from collections import Counter

import numpy as np
import tensorflow as tf

from export.convert import convert
from musical_tf import onnx_runtime
from musical_tf.layers import MultiScaleAttention

onnxruntime = onnx_runtime.load()

SIDE, CHANNELS, BATCH = 32, 8, 2
HALO = 3  # of a patch of 3 x 3 and propagation over 3 x 3
HOLE_SIDE = SIDE // 4
LARGEST_SCORES = 4 * BATCH * (HOLE_SIDE + 2 * HALO) ** 2 * SIDE**2
"""Bytes of the scores of the hole's bounding box with its halo."""

SMALLEST_SCORES = 4 * BATCH * HOLE_SIDE**2 * SIDE**2
"""The same without."""


VIEWS = ("Reshape", "Squeeze", "Unsqueeze")
"""Operators that read and write nothing."""

PASSES, NODES = 19, 540
PADS, SLICE_GRADIENTS = 18, 12


def features_and_hole():
    features = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, CHANNELS))
    hole = np.zeros((BATCH, SIDE, SIDE, 1), "float32")
    hole[:, 12 : 12 + HOLE_SIDE, 12 : 12 + HOLE_SIDE] = 1
    return features.astype("float32"), hole


def profile(implementation, folder):
    """The nodes of the ONNX graph, and the bytes that every node gave out when it ran."""
    features, hole = features_and_hole()
    layer = MultiScaleAttention(implementation=implementation)
    # The reference's graph is of one shape only.
    dimensions = (None,) * 3 if implementation == "fast" else (BATCH, SIDE, SIDE)
    signature = [
        tf.TensorSpec((*dimensions, channels), tf.float32, name=name)
        for name, channels in (("features", CHANNELS), ("hole", 1))
    ]
    graph = tf.function(layer.attend, input_signature=signature, autograph=False)
    model = convert(graph)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / implementation)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, {"features": features, "hole": hole})
    with open(session.end_profiling()) as file:
        events = json.load(file)
    sizes = [
        (event["args"]["op_name"], int(event["args"]["output_size"]))
        for event in events
        if event["name"].endswith("_kernel_time")
    ]
    return model.graph.node, sizes


def test_nodes_and_passes_over_the_scores(tmp_path):
    nodes, sizes = profile("fast", tmp_path)
    assert max(size for _, size in sizes) <= LARGEST_SCORES
    passes = Counter(name for name, size in sizes if size >= SMALLEST_SCORES and name not in VIEWS)
    assert passes["MatMul"] + passes["FusedMatMul"] == 1  # the others give features
    assert passes["Softmax"] == 2
    assert passes["Conv"] == 8  # two for each diagonal box sum, and nothing beside them
    assert passes["Pad"] == 0
    assert passes["Slice"] <= 1  # the part of the Gram matrix that the smaller patch needs
    assert passes.total() <= PASSES
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["MatMul"] == 3  # the scores, and the filling of each patch size
    assert kinds["Conv"] == 8
    assert kinds["Loop"] == 0
    assert len(nodes) <= NODES


def test_the_measure_sees_the_reference(tmp_path):
    """It extracts patches and has a score for every query: the bounds above would stop it."""
    nodes, sizes = profile("reference", tmp_path)
    assert max(size for _, size in sizes) > 2 * LARGEST_SCORES
    passes = [name for name, size in sizes if size >= SMALLEST_SCORES and name not in VIEWS]
    assert len(passes) > PASSES
    assert any(node.op_type == "Conv" for node in nodes)


def test_operations_of_a_training_step():
    features, hole = features_and_hole()
    layer = MultiScaleAttention()

    @tf.function(autograph=False)
    def step(features, hole):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = sum(tf.reduce_sum(tf.sin(attended)) for attended in layer.attend(features, hole))
        return tape.gradient(loss, features)

    graph = step.get_concrete_function(features, hole).graph
    kinds = Counter(operation.type for operation in graph.get_operations())
    assert kinds["BatchMatMulV2"] == 3 + 2 * 3  # each product, and its two gradients
    assert kinds["ExtractImagePatches"] == 0
    assert kinds["Pad"] <= PADS  # eight of scores: a box sum's gradient is a box sum
    assert kinds["StridedSliceGrad"] <= SLICE_GRADIENTS
