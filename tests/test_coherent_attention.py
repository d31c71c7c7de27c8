"""The coherent semantic attention: against the loop to the letter, by hand, and in ONNX Runtime."""

import numpy as np
import pytest
import tensorflow as tf
import tf2onnx

from musical_tf import onnx_runtime
from musical_tf.layers import coherent_attention_reference
from musical_tf.layers.coherent_attention import (
    CoherentSemanticAttention,
    attention_sources,
)

onnxruntime = onnx_runtime.load()


def features_and_holes(seed=0, height=6, width=7, channels=5):
    """Five samples: scattered holes, few and many, one block, none and all."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0.3, 1.0, (5, height, width, channels))
    hole = np.zeros((5, height, width, 1))
    hole[0] = rng.uniform(size=hole[0].shape) < 0.25
    hole[1] = rng.uniform(size=hole[1].shape) < 0.8
    hole[2, 2:5, 1:6] = 1
    hole[4] = 1
    features[0, 1] = 0.0  # a row that is similar to nothing, in the hole and outside
    return features.astype("float32"), hole.astype("float32")


@pytest.mark.parametrize("max_scores", [None, 5 * 42 * 7, 1])
@pytest.mark.parametrize("in_graph", [False, True])
def test_equals_the_loop_position_by_position(max_scores, in_graph):
    features, hole = features_and_holes()
    expected = coherent_attention_reference.attend(features.astype("float64"), hole)
    layer = CoherentSemanticAttention(max_scores=max_scores)
    attend = layer
    if in_graph:
        free = tf.TensorSpec((None, None, None, 5)), tf.TensorSpec((None, None, None, 1))
        attend = tf.function(lambda f, h: layer(f, h), input_signature=free, autograph=False)
    np.testing.assert_allclose(attend(features, hole), expected, atol=2e-6)
    known = np.broadcast_to(hole < 0.5, features.shape)
    result = np.asarray(attend(features, hole))
    np.testing.assert_array_equal(result[known], features[known])
    np.testing.assert_array_equal(result[4], features[4])  # nothing to copy from
    assert np.abs(result - features)[2].max() > 0.5


@pytest.mark.parametrize("in_graph", [False, True])
def test_its_gradient_is_the_loops(in_graph):
    features, hole = features_and_holes(seed=1)
    weights = np.random.default_rng(2).normal(size=features.shape)

    def gradient(attend, features, weights):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(tf.sin(attend(features, hole)) * weights)
        return tape.gradient(total, features)

    exact = tf.constant(features.astype("float64"))
    expected = gradient(coherent_attention_reference.attend, exact, weights).numpy()
    layer = CoherentSemanticAttention()
    if in_graph:
        gradient = tf.function(gradient, autograph=False)
    found = gradient(layer, tf.constant(features), tf.constant(weights, "float32"))
    np.testing.assert_allclose(tf.convert_to_tensor(found), expected, atol=1e-4, rtol=1e-4)
    # The hole's own features matter through the similarities alone, and they do matter.
    inside = (hole[2] > 0.5)[..., 0]
    assert np.abs(expected[2][inside]).max() > 1e-2


def test_two_positions_by_hand():
    """Known (1, 0) and (0, 2); missing (1, 1) twice: a tie, then a blend with what came before."""
    features = np.array([[[[1, 0], [0, 2], [3, 3], [0, 5]]]], "float32")
    hole = np.array([[[[0], [0], [1], [1]]]], "float32")
    result = CoherentSemanticAttention()(features, hole).numpy()[0, 0]
    # Position 2 is as similar to both, so the first one: (1, 0). Position 3 is (0, 2)'s: D_max 1,
    # and its cosine to (1, 0) is 0, so nothing of it stays.
    np.testing.assert_allclose(result[2:], [[1, 0], [0, 2]], atol=1e-6)
    features[0, 0, 3] = [3, 4]
    result = CoherentSemanticAttention()(features, hole).numpy()[0, 0]
    # D_ad = cos((3, 4), (1, 0)) = 0.6, D_max = cos((3, 4), (0, 2)) = 0.8.
    np.testing.assert_allclose(result[3], [0.6 / 1.4, 2 * 0.8 / 1.4], rtol=1e-6)


def test_every_output_is_between_the_known_features():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(1, 8, 8, 3)).astype("float32")  # half of all cosines are negative
    hole = (rng.uniform(size=(1, 8, 8, 1)) < 0.9).astype("float32")
    result = CoherentSemanticAttention()(features, hole).numpy()
    known = features[0][hole[0, ..., 0] < 0.5]
    assert (result <= known.max(0) + 1e-6).all()
    assert (result >= known.min(0) - 1e-6).all()


def test_the_order_is_row_by_row_inside_the_hole():
    """What comes later in reading order does not matter to what comes before."""
    features, hole = features_and_holes(seed=4)
    features = np.abs(features)  # every cosine is above 0
    base = CoherentSemanticAttention()(features, hole).numpy()[2]
    changed = features.copy()
    changed[2, 3, 3] = features[2, 3, 3, ::-1]
    result = CoherentSemanticAttention()(changed, hole).numpy()[2]
    differs = np.abs(result - base).max(-1) > 0
    assert not differs[:3].any()
    assert not differs[3, :3].any()
    assert differs[3, 3]
    assert differs[3, 4]


def test_sources_are_the_best_known_matches():
    features, hole = features_and_holes(seed=5)
    unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-4)
    for max_scores in (None, 300):
        sources = attention_sources(features, hole, max_scores).numpy()
        assert sources.dtype == np.int32
        for sample in range(5):
            missing = hole[sample, ..., 0] > 0.5
            if missing.all():
                assert (sources[sample] == -1).all()
                continue
            assert (sources[sample][~missing] == -1).all()
            rows, columns = sources[sample][missing].T
            assert not missing[rows, columns].any()
            scores = np.einsum("qc,hwc->qhw", unit[sample][missing], unit[sample])
            best = np.where(missing, -np.inf, scores).max((1, 2))
            found = scores[np.arange(len(rows)), rows, columns]
            np.testing.assert_allclose(found, best, atol=1e-6)


def test_half_precision_rounds_the_filling_only():
    features, hole = features_and_holes(seed=6)
    layer = CoherentSemanticAttention(dtype="mixed_float16")
    result = layer(features.astype("float16"), hole)
    assert result.dtype == "float16"
    expected = CoherentSemanticAttention()(features.astype("float16").astype("float32"), hole)
    np.testing.assert_allclose(result, expected, atol=2e-3)


def test_wrong_arguments_are_refused():
    for bad in (0, 1.5):
        with pytest.raises(ValueError, match=f"max_scores must be .* got {bad}"):
            CoherentSemanticAttention(max_scores=bad)
    layer = CoherentSemanticAttention()
    with pytest.raises(ValueError, match=r"got features \(1, 4, 4, 2\), hole \(1, 4, 3, 1\)"):
        layer(np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 3, 1)))
    with pytest.raises(ValueError, match="Expected features"):
        attention_sources(np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4)))


@pytest.mark.parametrize("max_scores", [None, 400])
def test_onnx_runtime_agrees_at_any_size(max_scores):
    layer = CoherentSemanticAttention(max_scores=max_scores, name="here")
    layer = CoherentSemanticAttention.from_config(layer.get_config())
    assert (layer.max_scores, layer.name) == (max_scores, "here")
    signature = [
        tf.TensorSpec((None, None, None, 5), name="features"),
        tf.TensorSpec((None, None, None, 1), name="hole"),
    ]
    graph = tf.function(lambda features, hole: {"filled": layer(features, hole)}, autograph=False)
    model, _ = tf2onnx.convert.from_function(graph, input_signature=signature, opset=17)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Loop") == (1 if max_scores is None else 2)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for size in ((6, 7), (9, 4)):
        features, hole = features_and_holes(7, *size)
        (filled,) = session.run(["filled"], {"features": features, "hole": hole})
        np.testing.assert_allclose(filled, layer(features, hole), atol=2e-6)
