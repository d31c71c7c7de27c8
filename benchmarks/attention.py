"""How much faster the shared-Gram attention is than the literal one, and how much memory it saves.

    python -m benchmarks.attention [--rounds 5]

The multi-scale attention (patch sizes 1 and 3) of a 64 x 64 map with a centre hole of half its
side, which is what the `paper` generator has at 256 x 256 pixels, is timed

* forward, and forward and backward, in TensorFlow, against `implementation="reference"`, which is
  also compiled by XLA where that is faster;
* against the matrix products that no form can do without: one for the scores, query window x
  positions x channels, and one for each patch size's filling, hole x positions x channels; and
  against the two of them that a single patch size would need;
* in ONNX Runtime, each graph as `export/to_onnx.py` writes it;
* against the kind of module the authors wrote in PyTorch, if torch is installed: patches as
  convolution kernels, sample by sample.

What a ratio compares takes turns in one process; every part has a process of its own, because what
the literal form leaves behind in one is more than the next can spare. Peak memory is that of a
process that does one training step of the attention. Prints the ratios and writes
`results/attention.json`.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measure, models

MODULE = "benchmarks.attention"
SIDE = 64
SHAPES = {"C 256, batch 1": (1, 256), "C 128, batch 5": (5, 128)}
PATCH_SIZES = (1, 3)


def features_and_hole(batch: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 64, 64, C)` and the centre hole `(B, 64, 64, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, SIDE, SIDE, channels)).astype("float32")
    return features, models.centre_hole(SIDE, batch)


def forward(implementation: str, variant: str = "paper") -> Callable:
    """A function of `(features, hole)` that gives one attended map a patch size."""
    from musical_tf.layers import MultiScaleAttention

    layer = MultiScaleAttention(PATCH_SIZES, implementation=implementation, variant=variant)
    return layer.attend


def training_step(implementation: str) -> Callable:
    """A function of `(features, hole)` that gives the gradient of a loss on the attended maps."""
    import tensorflow as tf

    attend = forward(implementation)

    def step(features, hole):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = sum(tf.reduce_sum(tf.sin(attended)) for attended in attend(features, hole))
        return tape.gradient(loss, features)

    return step


def forward_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """Times both forms and the bare products."""
    features, _ = features_and_hole(batch, channels)
    calls = {
        "fast": compiled(forward("fast"), batch, channels),
        "reference": compiled(forward("reference"), batch, channels),
        "products": bare_products(features, len(PATCH_SIZES)),
        "two products": bare_products(features, 1),
    }
    measure.check_same(calls["fast"](), calls["reference"]())
    return measure.take_turns(calls, rounds)


def bare_products(features: np.ndarray, fillings: int) -> Callable:
    """A call of the product for the scores and of one for each filling, of weights of its own."""
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


def step_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """Times forward and backward of both forms."""
    calls = {
        "fast": compiled(training_step("fast"), batch, channels),
        "reference": compiled(training_step("reference"), batch, channels),
    }
    measure.check_same(calls["fast"](), calls["reference"]())
    return measure.take_turns(calls, max(2, rounds // 2))


def xla_step_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """The same with the reference compiled by XLA."""
    calls = {
        "fast": compiled(training_step("fast"), batch, channels),
        "reference": compiled(training_step("reference"), batch, channels, xla=True),
    }
    measure.check_same(calls["fast"](), calls["reference"]())
    return measure.take_turns(calls, max(2, rounds // 2))


def compiled(function: Callable, batch: int, channels: int, xla: bool = False) -> Callable:
    """A call of `function` on features and hole, as a graph."""
    import tensorflow as tf

    arguments = [tf.constant(array) for array in features_and_hole(batch, channels)]
    graph = tf.function(function, jit_compile=xla, autograph=False)
    return lambda: graph(*arguments)


def onnx_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """Times both forms as graphs in ONNX Runtime, of fixed shapes, without which one would fail."""
    from musical_tf import onnx_runtime

    onnxruntime = onnx_runtime.load()
    import tensorflow as tf

    from export.convert import convert

    features, hole = features_and_hole(batch, channels)
    calls = {}
    for implementation in ("fast", "reference"):
        signature = [
            tf.TensorSpec(features.shape, tf.float32, name="features"),
            tf.TensorSpec(hole.shape, tf.float32, name="hole"),
        ]
        attend = tf.function(forward(implementation), signature, autograph=False)
        model = convert(attend)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        feed = {"features": features, "hole": hole}
        calls[implementation] = lambda session=session, feed=feed: session.run(None, feed)
    measure.check_same(calls["fast"](), calls["reference"]())
    return measure.take_turns(calls, rounds)


def pytorch_times(batch: int, channels: int, rounds: int) -> dict[str, Any] | None:
    """Times `variant="official"` against the same function in the authors' way; None without torch.

    Every patch of a sample becomes a kernel: a convolution scores it at every position, another,
    transposed, pastes it. Kernels differ from sample to sample, so the batch is a loop.
    """
    try:
        import torch
        from torch.nn import functional
    except ModuleNotFoundError:
        return None
    import tensorflow as tf

    features, hole = features_and_hole(batch, channels)
    graph = tf.function(forward("fast", variant="official"), autograph=False)
    arguments = [tf.constant(features), tf.constant(hole)]
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
        return [
            torch.cat(
                [attend_sample(maps[i : i + 1], missing[i : i + 1], size) for i in range(batch)]
            )
            for size in PATCH_SIZES
        ]

    calls = {"fast": lambda: graph(*arguments), "authors' kind": authors}
    measure.check_same(calls["fast"](), [each.numpy().transpose(0, 2, 3, 1) for each in authors()])
    return measure.take_turns(calls, rounds)


PARTS = {
    "forward": forward_times,
    "forward and backward": step_times,
    "forward and backward, XLA": xla_step_times,
    "onnx": onnx_times,
    "pytorch": pytorch_times,
}


def one_step_peak(implementation: str, batch: int, channels: int) -> int:
    """Bytes one training step of the attention adds to what the process held before it."""
    import tensorflow as tf

    arguments = [tf.constant(array) for array in features_and_hole(batch, channels)]
    step = tf.function(training_step(implementation), autograph=False)
    step.get_concrete_function(*arguments)
    before = measure.resident_peak()
    step(*arguments)
    return measure.resident_peak() - before


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What the measurement says, name -> ratio of medians."""
    said = {}
    for shape, parts in figures["times"].items():

        def ratio(part, slow, fast, parts=parts):
            return parts[part][slow]["median"] / parts[part][fast]["median"]

        said[f"{shape}: forward, reference / fast"] = ratio("forward", "reference", "fast")
        said[f"{shape}: forward and backward, reference / fast"] = min(
            ratio("forward and backward", "reference", "fast"),
            ratio("forward and backward, XLA", "reference", "fast"),
        )
        said[f"{shape}: forward, fast / its matrix products"] = ratio("forward", "fast", "products")
        said[f"{shape}: forward, fast / those of one patch size"] = ratio(
            "forward", "fast", "two products"
        )
        said[f"{shape}: ONNX Runtime, reference / fast"] = ratio("onnx", "reference", "fast")
        if parts["pytorch"]:
            said[f"{shape}: the authors' kind in PyTorch / fast"] = ratio(
                "pytorch", "authors' kind", "fast"
            )
    memory = figures["peak_bytes"]
    said["C 128, batch 5: peak memory of a step, fast / reference"] = (
        memory["fast"] / memory["reference"]
    )
    return said


def main(argv: list[str] | None = None) -> int:
    return measure.run(measure.parser(MODULE, __doc__, rounds=5), argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    times = {
        shape: {
            part: measure.in_own_process(function, *size, options.rounds)
            for part, function in PARTS.items()
        }
        for shape, size in SHAPES.items()
    }
    peaks = {
        form: measure.in_own_process(one_step_peak, form, *SHAPES["C 128, batch 5"])
        for form in ("fast", "reference")
    }
    figures = {"times": times, "peak_bytes": peaks}
    measure.publish("attention", MODULE, words, {**figures, "ratios": ratios(figures)})


if __name__ == "__main__":
    sys.exit(main())
