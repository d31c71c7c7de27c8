"""Measures how much faster the shared-Gram attention is than the literal form, and its memory.

    python -m benchmarks.attention [--rounds 5]

The multi-scale attention (patch sizes 1 and 3) of a 64 x 64 map with a center hole of half its
side, as in the `paper` generator at 256 x 256 pixels, is timed

* forward, and forward and backward, in TensorFlow, against `implementation="reference"`, which is
  also compiled by XLA where that is faster;
* against the matrix products that every form needs: one for the scores, query window x positions x
  channels, and one for each patch size's filling, hole x positions x channels; and against the two
  that a single patch size would need;
* in ONNX Runtime, each graph as `export/to_onnx.py` writes it;
* against the authors' kind of module in PyTorch, if torch is installed: patches as convolution
  kernels, sample by sample.

Every part has a process of its own, because of the memory that the literal form leaves behind. Peak
memory is that of one training step of the attention. Writes `results/attention.json`.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measure, models

SIDE = 64
SHAPES = {"C 256, batch 1": (1, 256), "C 128, batch 5": (5, 128)}
PATCH_SIZES = (1, 3)
FORMS = ("fast", "reference")


def features_and_hole(batch: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 64, 64, C)` and the center hole `(B, 64, 64, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, SIDE, SIDE, channels)).astype("float32")
    return features, models.center_hole(SIDE, batch)


def forward(implementation: str, variant: str = "paper") -> Callable:
    """A function of `(features, hole)` that gives one attended map a patch size."""
    from musical_tf.layers import MultiScaleAttention

    layer = MultiScaleAttention(PATCH_SIZES, implementation=implementation, variant=variant)
    return layer.attend


def gradient_of(attend: Callable) -> Callable:
    """A function of `(features, hole)`: the gradient of a loss on the attended map or maps."""
    import tensorflow as tf

    def step(features, hole):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.add_n(
                [tf.reduce_sum(tf.sin(m)) for m in tf.nest.flatten(attend(features, hole))]
            )
        return tape.gradient(loss, features)

    return step


def compiled(function: Callable, arrays: tuple, xla: bool = False) -> Callable:
    """A call of `function` on arrays, as a graph."""
    import tensorflow as tf

    arguments = [tf.constant(array) for array in arrays]
    graph = tf.function(function, jit_compile=xla, autograph=False)
    return lambda: graph(*arguments)


def timed(calls: dict[str, Callable], rounds: int) -> dict[str, Any]:
    """Times calls of which the first two must compute the same."""
    one, other = list(calls.values())[:2]
    measure.check_same(one(), other())
    return measure.take_turns(calls, rounds)


def forward_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    arrays = features_and_hole(batch, channels)
    calls = {form: compiled(forward(form), arrays) for form in FORMS}
    calls["products"] = bare_products(arrays[0], len(PATCH_SIZES))
    calls["two products"] = bare_products(arrays[0], 1)
    return timed(calls, rounds)


def bare_products(features: np.ndarray, fillings: int) -> Callable:
    """A call of the product for the scores and of one for each filling."""
    import tensorflow as tf

    batch, _, _, channels = features.shape
    hole_side, window_side = SIDE // 2, SIDE // 2 + 6
    positions = tf.reshape(features, (batch, SIDE * SIDE, channels))
    queries = tf.random.normal((batch, window_side**2, channels))
    weights = [tf.random.normal((batch, hole_side**2, SIDE * SIDE)) for _ in range(fillings)]

    @functools.partial(tf.function, autograph=False)
    def products(queries, weights, positions):
        scores = tf.matmul(queries, positions, transpose_b=True)
        return [scores, *(tf.matmul(each, positions) for each in weights)]

    return lambda: products(queries, weights, positions)


def step_times(batch: int, channels: int, rounds: int, xla: bool = False) -> dict[str, Any]:
    """Forward and backward; `xla` compiles the reference."""
    arrays = features_and_hole(batch, channels)
    calls = {
        form: compiled(gradient_of(forward(form)), arrays, xla and form == "reference")
        for form in FORMS
    }
    return timed(calls, max(2, rounds // 2))


def xla_step_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    return step_times(batch, channels, rounds, xla=True)


def onnx_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """Both forms as graphs of fixed shapes in ONNX Runtime."""
    from musical_tf import onnx_runtime

    onnxruntime = onnx_runtime.load()
    import tensorflow as tf

    from export.convert import convert

    features, hole = features_and_hole(batch, channels)
    signature = [
        tf.TensorSpec(features.shape, tf.float32, name="features"),
        tf.TensorSpec(hole.shape, tf.float32, name="hole"),
    ]
    calls = {}
    for form in FORMS:
        model = convert(tf.function(forward(form), signature, autograph=False))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        feed = {"features": features, "hole": hole}
        calls[form] = functools.partial(session.run, None, feed)
    return timed(calls, rounds)


def pytorch_times(batch: int, channels: int, rounds: int) -> dict[str, Any] | None:
    """`variant="official"` and the same function in the authors' way; None without torch.

    Every patch of a sample becomes a kernel: a convolution scores the kernel at every position, a
    transposed one pastes it. Kernels differ from sample to sample, so the batch is a loop.
    """
    try:
        import torch
        from torch.nn import functional
    except ModuleNotFoundError:
        return None
    features, hole = features_and_hole(batch, channels)
    maps = torch.from_numpy(features.transpose(0, 3, 1, 2).copy())
    missing = torch.from_numpy(hole.transpose(0, 3, 1, 2).copy())

    def attend_sample(sample, gap, size):
        known = sample * (1.0 - gap) + 1e-7
        patches = functional.unfold(known, size, padding=size // 2)[0].T
        kernels = patches.reshape(-1, channels, size, size)
        kernels = kernels / kernels.flatten(1).norm(dim=1)[:, None, None, None]
        scores = functional.conv2d(sample, kernels, padding=size // 2)
        scores = functional.avg_pool2d(scores, 3, 1, padding=1) * 9.0
        attention = torch.softmax(10.0 * scores, dim=1)
        pasted = functional.conv_transpose2d(attention, kernels, padding=size // 2) / size**2
        return sample * (1.0 - gap) + pasted * gap

    @torch.inference_mode()
    def authors():
        samples = [(maps[i : i + 1], missing[i : i + 1]) for i in range(batch)]
        return [torch.cat([attend_sample(*each, size) for each in samples]) for size in PATCH_SIZES]

    fast = compiled(forward("fast", variant="official"), (features, hole))
    measure.check_same(fast(), [each.numpy().transpose(0, 2, 3, 1) for each in authors()])
    return measure.take_turns({"fast": fast, "authors' kind": authors}, rounds)


PARTS = {
    "forward": forward_times,
    "forward and backward": step_times,
    "forward and backward, XLA": xla_step_times,
    "onnx": onnx_times,
    "pytorch": pytorch_times,
}


def one_step_peak(implementation: str, batch: int, channels: int) -> int:
    """Bytes that one training step of the attention adds to the memory of the process."""
    step = compiled(gradient_of(forward(implementation)), features_and_hole(batch, channels))
    before = measure.resident_peak()
    step()
    return measure.resident_peak() - before


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Name -> ratio of medians."""
    said = {}
    for shape, parts in figures["times"].items():
        steps = [parts["forward and backward"], parts["forward and backward, XLA"]]
        of_shape = {
            "forward, reference / fast": measure.ratio(parts["forward"], "reference", "fast"),
            "forward and backward, reference / fast": min(
                measure.ratio(each, "reference", "fast") for each in steps
            ),
            "forward, fast / its matrix products": measure.ratio(
                parts["forward"], "fast", "products"
            ),
            "forward, fast / those of one patch size": measure.ratio(
                parts["forward"], "fast", "two products"
            ),
            "ONNX Runtime, reference / fast": measure.ratio(parts["onnx"], "reference", "fast"),
        }
        if parts["pytorch"]:
            ratio = measure.ratio(parts["pytorch"], "authors' kind", "fast")
            of_shape["the authors' kind in PyTorch / fast"] = ratio
        said |= {f"{shape}: {name}": ratio for name, ratio in of_shape.items()}
    memory = figures["peak_bytes"]
    name = "C 128, batch 5: peak memory of a step, fast / reference"
    return said | {name: memory["fast"] / memory["reference"]}


@measure.command(rounds=5)
def main(options: argparse.Namespace) -> None:
    times = {
        shape: {
            part: measure.in_own_process(function, *size, options.rounds)
            for part, function in PARTS.items()
        }
        for shape, size in SHAPES.items()
    }
    size = SHAPES["C 128, batch 5"]
    peaks = {form: measure.in_own_process(one_step_peak, form, *size) for form in FORMS}
    figures = {"times": times, "peak_bytes": peaks}
    measure.publish("attention", options.command, {**figures, "ratios": ratios(figures)})


if __name__ == "__main__":
    sys.exit(main())
