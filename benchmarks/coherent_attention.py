"""Measures how much faster the coherent semantic attention is than the loop over positions.

    python -m benchmarks.coherent_attention [--rounds 5]

A map of 32 x 32 x 512 with a center hole of half its side, as in the `paper` generator of CSA at
256 x 256 pixels; batch 1, as the authors run it, and batch 8. The layer, compiled by TensorFlow, is
timed forward, at batch 1 also forward and backward, against

* the same position by position in eager TensorFlow (`coherent_attention_reference`);
* the authors' kind of module in PyTorch, if torch is installed;
* the shortest loop in NumPy, which has no gradient;
* its own first half, the search for the best matches, and its graph in ONNX Runtime.

All in turns in one process. Writes `results/coherent_attention.json`.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measure, models
from benchmarks.attention import compiled, gradient_of

SIDE = 32
CHANNELS = 512
BATCHES = (1, 8)


def features_and_hole(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 32, 32, 512)` and the center hole `(B, 32, 32, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(0.5, 1.0, (batch, SIDE, SIDE, CHANNELS)).astype("float32")
    return features, models.center_hole(SIDE, batch)


def numpy_loop(features: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The attention position by position, forward only."""
    filled = features.copy().reshape(len(features), -1, CHANNELS)
    for sample, missing in zip(filled, hole.reshape(len(hole), -1) > 0.5, strict=True):
        known = sample[~missing]
        candidates = known / np.linalg.norm(known, axis=-1, keepdims=True)
        before = None
        for position in np.flatnonzero(missing):
            query = sample[position] / np.linalg.norm(sample[position])
            cosines = candidates @ query
            best = cosines.argmax()
            if before is None:
                before = known[best]
            else:
                to_before = max(before @ query / np.linalg.norm(before), 0.0)
                weight = to_before / (to_before + max(cosines[best], 0.0))
                before = weight * before + (1.0 - weight) * known[best]
            sample[position] = before
    return filled.reshape(features.shape)


def pytorch_loop() -> Callable | None:
    """The authors' kind of module in PyTorch; None without torch.

    Known patches become kernels, one by one; a convolution scores them everywhere. Then every
    position of the map gets a row of attention, in the hole after a convolution of the last output
    with the position's own patch; a transposed convolution pastes by the rows.
    """
    try:
        import torch
        from torch.nn import functional
    except ModuleNotFoundError:
        return None

    def fill(sample, missing):
        patches = sample.flatten(1).T[:, :, None, None]  # (HW, C, 1, 1)
        known = patches[~missing]
        kernels = known.clone()
        for index in range(len(kernels)):
            kernels[index] = kernels[index] / (kernels[index].norm() + 1e-8)
        similarity, best = functional.conv2d(sample[None], kernels)[0].flatten(1).max(0)
        place_of_known = torch.cumsum(~missing, 0) - 1
        attention = torch.zeros(len(known), len(missing))
        before = row = None
        for position in range(len(missing)):
            if not missing[position]:
                attention[place_of_known[position], position] = 1.0
                continue
            patch, match = patches[position], known[best[position]]
            length = patch.norm() + 1e-8
            if before is None:
                before = match
                row = torch.zeros(len(known))
                row[best[position]] = 1.0
            else:
                kernel = (patch / length)[None]
                to_before = functional.conv2d(before[None], kernel).squeeze() / before.norm()
                weight = to_before / (to_before + similarity[position] / length)
                before = weight * before + (1.0 - weight) * match
                row = row * weight
                row[best[position]] += 1.0 - weight
            attention[:, position] = row
        rows = attention.reshape(1, len(known), *sample.shape[1:])
        return functional.conv_transpose2d(rows, known)[0]

    @torch.inference_mode()
    def loop(features: np.ndarray, hole: np.ndarray) -> np.ndarray:
        maps = torch.from_numpy(features.transpose(0, 3, 1, 2).copy())
        gaps = torch.from_numpy(hole.reshape(len(hole), -1) > 0.5)
        filled = [fill(sample, gap) for sample, gap in zip(maps, gaps, strict=True)]
        return torch.stack(filled).numpy().transpose(0, 2, 3, 1)

    return loop


def onnx_scan(layer: Callable) -> Callable:
    """The layer's graph in ONNX Runtime, of any batch and size."""
    from musical_tf import onnx_runtime

    onnxruntime = onnx_runtime.load()
    import tensorflow as tf
    import tf2onnx

    graph = tf.function(lambda features, hole: layer(features, hole), autograph=False)
    signature = [
        tf.TensorSpec((None, None, None, CHANNELS), tf.float32, name="features"),
        tf.TensorSpec((None, None, None, 1), tf.float32, name="hole"),
    ]
    model, _ = tf2onnx.convert.from_function(graph, input_signature=signature, opset=17)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda features, hole: session.run(None, {"features": features, "hole": hole})[0]


def times(batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of every form, forward; at batch 1, of two of them, forward and backward."""
    import tensorflow as tf

    from musical_tf.layers import coherent_attention, coherent_attention_reference

    layer = coherent_attention.CoherentSemanticAttention()
    arrays = features_and_hole(batch)
    tensors = [tf.constant(array) for array in arrays]

    def search(features, hole):
        return coherent_attention._RasterWalk(features, hole).search()

    def loop():
        return coherent_attention_reference.attend(*tensors)

    scan = compiled(lambda features, hole: layer(features, hole), arrays)
    torch_loop, runtime = pytorch_loop(), onnx_scan(layer)
    # In this order: threads of PyTorch and ONNX Runtime spin for a while after their work, which
    # hardly changes the time of the slow loop.
    forward = {"the authors' kind in PyTorch": lambda: torch_loop(*arrays)} if torch_loop else {}
    forward |= {"loop": loop, "scan": scan, "its search alone": compiled(search, arrays)}
    forward |= {
        "loop in NumPy": lambda: numpy_loop(*arrays),
        "scan in ONNX Runtime": lambda: runtime(*arrays),
    }
    for name, call in forward.items():
        if name != "its search alone":
            measure.check_same(call(), scan(), f"{name} and the scan")
    measured = {"forward": measure.take_turns(forward, rounds)}
    if batch > 1:
        return measured
    loop_step = gradient_of(coherent_attention_reference.attend)
    both = {"scan": compiled(gradient_of(layer), arrays), "loop": lambda: loop_step(*tensors)}
    measure.check_same(*(tf.convert_to_tensor(call()) for call in both.values()), "the gradients")
    return {**measured, "forward and backward": measure.take_turns(both, rounds)}


@measure.command(rounds=5)
def main(options: argparse.Namespace) -> None:
    measured = {f"batch {batch}": times(batch, options.rounds) for batch in BATCHES}
    ratios = {
        f"{batch}: {kind}, {name} / scan": measure.ratio(seconds, name, "scan")
        for batch, kinds in measured.items()
        for kind, seconds in kinds.items()
        for name in seconds
        if name != "scan"
    }
    measure.publish("coherent_attention", options.command, {"times": measured, "ratios": ratios})


if __name__ == "__main__":
    sys.exit(main())
