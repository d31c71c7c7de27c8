"""Measures the multi-scale attention of MUSICAL against its literal form and its bare products.

    python -m benchmarks.attention [--rounds 5]

The attention (patch sizes 1 and 3) of a 64 x 64 map with a center hole of half its side, as in the
`paper` generator at 256 x 256 pixels, is timed

* forward, and forward and backward, in TensorFlow, against `implementation="reference"`, which is
  also compiled by XLA where that is faster;
* against the matrix products that every form needs: one for the scores, query window x positions x
  channels, and one for each patch size's filling, hole x positions x channels; and against the two
  that a single patch size would need;
* in bfloat16 against float32, and a box sum against sums of views that TensorFlow does not copy;
* in ONNX Runtime, each graph as `export/to_onnx.py` writes it.

Every part has a process of its own, because of the memory that the literal form leaves behind. Peak
memory is that of one training step of the attention. Writes `results/attention.json`. Needs Linux.
"""

import argparse
import functools
import sys
from collections.abc import Callable

import numpy as np

from benchmarks import measure, models

SIDE = 64
SHAPES = {"C 256, batch 1": (1, 256), "C 128, batch 5": (5, 128)}
PEAK_SHAPE = "C 128, batch 5"
PATCH_SIZES = (1, 3)
FORMS = ("fast", "reference")

Times = dict[str, dict[str, float]]


def features_and_hole(batch: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 64, 64, C)` and the center hole `(B, 64, 64, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, SIDE, SIDE, channels)).astype("float32")
    return features, models.center_hole(SIDE, batch)


def forward(implementation: str, dtype: str = "float32") -> Callable:
    """A function of `(features, hole)` that gives one attended map a patch size."""
    from musical_tf.layers import MultiScaleAttention

    return MultiScaleAttention(PATCH_SIZES, implementation=implementation, dtype=dtype).attend


def gradient_of(attend: Callable) -> Callable:
    """A function of `(features, hole)`: the gradient of a loss on the attended maps."""
    import tensorflow as tf

    def step(features, hole):
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.add_n([tf.reduce_sum(tf.sin(each)) for each in attend(features, hole)])
        return tape.gradient(loss, features)

    return step


def compiled(function: Callable, arrays: tuple, xla: bool = False) -> Callable:
    """A call of `function` on arrays, as a graph."""
    import tensorflow as tf

    arguments = [tf.constant(array) for array in arrays]
    graph = tf.function(function, jit_compile=xla, autograph=False)
    return lambda: graph(*arguments)


# ---- parts, each in a process of its own


def forward_times(batch: int, channels: int, rounds: int) -> Times:
    arrays = features_and_hole(batch, channels)
    forms = {form: compiled(forward(form), arrays) for form in FORMS}
    products = {"products": bare_products(arrays[0], len(PATCH_SIZES))}
    return timed(forms | products | {"two products": bare_products(arrays[0], 1)}, rounds)


def timed(calls: dict[str, Callable], rounds: int) -> Times:
    """Times calls, of which those of `FORMS` must compute the same."""
    difference = np.abs(np.subtract(*(calls[form]() for form in FORMS))).max()
    if not difference <= 1e-3:
        raise RuntimeError(f"the forms differ by {difference}, at most 0.001 is allowed")
    return measure.take_turns(calls, rounds)


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


def step_times(batch: int, channels: int, rounds: int, xla: bool = False) -> Times:
    """Forward and backward; `xla` compiles the reference."""
    arrays = features_and_hole(batch, channels)
    calls = {
        form: compiled(gradient_of(forward(form)), arrays, xla and form == "reference")
        for form in FORMS
    }
    return timed(calls, max(2, rounds // 2))


def onnx_times(batch: int, channels: int, rounds: int) -> Times:
    """Both forms as graphs of fixed shapes in ONNX Runtime."""
    import tensorflow as tf

    from export.convert import convert

    arrays = dict(zip(("features", "hole"), features_and_hole(batch, channels), strict=True))
    signature = [
        tf.TensorSpec(array.shape, tf.float32, name=name) for name, array in arrays.items()
    ]
    calls = {}
    for form in FORMS:
        model = convert(tf.function(forward(form), signature, autograph=False))
        session = models.open_session(model.SerializeToString(), threads=0)
        calls[form] = functools.partial(session.run, None, arrays)
    return timed(calls, rounds)


def precision_times(batch: int, channels: int, rounds: int) -> Times:
    """Forward and backward of the fast form by policy, on features of that precision."""
    import tensorflow as tf

    features, hole = features_and_hole(batch, channels)
    calls = {}
    for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        step = gradient_of(forward("fast", policy))
        calls[policy] = compiled(step, (tf.cast(features, dtype), hole))
    return measure.take_turns(calls, rounds)


def aligned_times(batch: int, channels: int, rounds: int) -> Times:
    """A box sum, and the same number of scores summed as views that TensorFlow does not copy."""
    import tensorflow as tf

    from musical_tf.layers.box_sums import diagonal_box_sum

    side = SIDE // 2 + 6
    scores = np.ones((batch, side, side, SIDE, SIDE), "float32")

    def views(flat):
        for shift in (4688, 180064):  # multiples of 16 floats near those of a window of 38 x 38
            end = tf.size(flat) - 2 * shift
            flat = flat[:end] + flat[shift : end + shift] + flat[2 * shift :]
        return flat

    calls = {
        "slices": compiled(lambda scores: diagonal_box_sum(scores, 3), (scores,)),
        "views": compiled(views, (scores.ravel(),)),
    }
    return measure.take_turns(calls, rounds)


def one_step_peak(implementation: str, batch: int, channels: int) -> int:
    """Bytes that one training step of the attention adds to the memory of the process."""
    step = compiled(gradient_of(forward(implementation)), features_and_hole(batch, channels))
    before = measure.restart_peak()
    step()
    return measure.resident_peak() - before


PARTS = {
    "forward": forward_times,
    "forward and backward": step_times,
    "forward and backward, XLA": functools.partial(step_times, xla=True),
    "onnx": onnx_times,
    "precision": precision_times,
    "aligned": aligned_times,
}

RATIOS = {
    "forward, reference / fast": ("forward", "reference", "fast"),
    "forward, fast / its matrix products": ("forward", "fast", "products"),
    "forward, fast / those of one patch size": ("forward", "fast", "two products"),
    "forward and backward, float32 / mixed_bfloat16": ("precision", "float32", "mixed_bfloat16"),
    "a box sum by slices / by aligned views": ("aligned", "slices", "views"),
    "ONNX Runtime, reference / fast": ("onnx", "reference", "fast"),
}
"""Name -> part and the two of its calls."""


def ratios(times: dict[str, dict[str, Times]], peaks: dict[str, int]) -> dict[str, float]:
    """Name -> ratio of medians."""
    said = {}
    for shape, parts in times.items():
        steps = [parts["forward and backward"], parts["forward and backward, XLA"]]
        both = min(measure.ratio(each, "reference", "fast") for each in steps)
        said[f"{shape}: forward and backward, reference / fast"] = both
        for name, (part, above, below) in RATIOS.items():
            said[f"{shape}: {name}"] = measure.ratio(parts[part], above, below)
    name = f"{PEAK_SHAPE}: peak memory of a step, fast / reference"
    return said | {name: peaks["fast"] / peaks["reference"]}


@measure.command(rounds=5)
def main(options: argparse.Namespace) -> None:
    own = measure.in_own_process
    times = {
        shape: {part: own(function, *size, options.rounds) for part, function in PARTS.items()}
        for shape, size in SHAPES.items()
    }
    peaks = {form: own(one_step_peak, form, *SHAPES[PEAK_SHAPE]) for form in FORMS}
    figures = {"times": times, "peak_bytes": peaks, "ratios": ratios(times, peaks)}
    measure.publish("attention", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
