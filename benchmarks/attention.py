"""Measures the attention layers: MUSICAL's, CSA's and DeepFill v1's.

    python -m benchmarks.attention [--layer musical|coherent|deepfill_v1] [--rounds 5]

`musical`: the multi-scale attention (patch sizes 1 and 3) of a 64 x 64 map with a center hole of
half its side, as in the `paper` generator at 256 x 256 pixels, is timed

* forward, and forward and backward, in TensorFlow, against `implementation="reference"`, which is
  also compiled by XLA where that is faster;
* against the matrix products that every form needs: one for the scores, query window x positions x
  channels, and one for each patch size's filling, hole x positions x channels; and against the two
  that a single patch size would need;
* in ONNX Runtime, each graph as `export/to_onnx.py` writes it;
* against the authors' kind of module in PyTorch, if torch is installed.

Every part has a process of its own, because of the memory that the literal form leaves behind. Peak
memory is that of one training step of the attention. Writes `results/attention.json`.

`coherent`: the scan of CSA over a map of 32 x 32 x 512 with a center hole of half its side, against
the loop over positions in eager TensorFlow, in PyTorch in the authors' way and in NumPy, its own
first half, the search, and its graph in ONNX Runtime. Writes `results/coherent_attention.json`.

`deepfill_v1`: the attention on the shared Gram matrix against convolutions with patches as filters,
image by image, at the size of the `paper` generator; and a training step of `lite` with its five
critic steps, and without critics, against MUSICAL's `lite`. Writes `results/deepfill_v1.json`.
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
COHERENT_SIDE, COHERENT_CHANNELS = 32, 512


def features_and_hole(batch: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 64, 64, C)` and the center hole `(B, 64, 64, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(size=(batch, SIDE, SIDE, channels)).astype("float32")
    return features, models.center_hole(SIDE, batch)


def forward(implementation: str, variant: str = "paper", dtype: str = "float32") -> Callable:
    """A function of `(features, hole)` that gives one attended map a patch size."""
    from musical_tf.layers import MultiScaleAttention

    options = {"implementation": implementation, "variant": variant, "dtype": dtype}
    return MultiScaleAttention(PATCH_SIZES, **options).attend


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


def precision_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
    """Forward and backward of the fast form by policy, on features of that precision."""
    import tensorflow as tf

    features, hole = features_and_hole(batch, channels)
    calls = {}
    for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        step = gradient_of(forward("fast", dtype=policy))
        calls[policy] = compiled(step, (tf.cast(features, dtype), hole))
    return measure.take_turns(calls, rounds)


def aligned_times(batch: int, channels: int, rounds: int) -> dict[str, Any]:
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
    "the authors' kind in PyTorch / fast": ("pytorch", "authors' kind", "fast"),
}
"""Name -> part and the two of its calls."""


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
        name = "forward and backward, reference / fast"
        of_shape = {name: min(measure.ratio(each, "reference", "fast") for each in steps)}
        for name, (part, above, below) in RATIOS.items():
            if parts[part]:
                of_shape[name] = measure.ratio(parts[part], above, below)
        said |= {f"{shape}: {name}": ratio for name, ratio in of_shape.items()}
    memory = figures["peak_bytes"]
    name = "C 128, batch 5: peak memory of a step, fast / reference"
    return said | {name: memory["fast"] / memory["reference"]}


def measure_musical(rounds: int) -> dict[str, Any]:
    times = {
        shape: {
            part: measure.in_own_process(function, *size, rounds)
            for part, function in PARTS.items()
        }
        for shape, size in SHAPES.items()
    }
    size = SHAPES["C 128, batch 5"]
    peaks = {form: measure.in_own_process(one_step_peak, form, *size) for form in FORMS}
    figures = {"times": times, "peak_bytes": peaks}
    return {**figures, "ratios": ratios(figures)}


# ---- CSA


def coherent_inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features `(B, 32, 32, 512)` and the center hole `(B, 32, 32, 1)`, float32."""
    random = np.random.default_rng(0)
    features = random.normal(
        0.5, 1.0, (batch, COHERENT_SIDE, COHERENT_SIDE, COHERENT_CHANNELS)
    ).astype("float32")
    return features, models.center_hole(COHERENT_SIDE, batch)


def numpy_loop(features: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The attention position by position, forward only."""
    filled = features.copy().reshape(len(features), -1, COHERENT_CHANNELS)
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
    import tensorflow as tf

    from export.convert import convert

    signature = [
        tf.TensorSpec((None, None, None, size), tf.float32, name=name)
        for name, size in (("features", COHERENT_CHANNELS), ("hole", 1))
    ]
    graph = tf.function(lambda features, hole: layer(features, hole), signature, autograph=False)
    session = models.open_session(convert(graph).SerializeToString(), threads=0)
    return lambda features, hole: session.run(None, {"features": features, "hole": hole})[0]


def coherent_times(batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of every form, forward; at batch 1, of two of them, forward and backward."""
    import tensorflow as tf

    from musical_tf.layers import coherent_attention, coherent_attention_reference

    layer = coherent_attention.CoherentSemanticAttention()
    arrays = coherent_inputs(batch)
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


def measure_coherent(rounds: int) -> dict[str, Any]:
    measured = {f"batch {batch}": coherent_times(batch, rounds) for batch in (1, 8)}
    said = {
        f"{batch}: {kind}, {name} / scan": measure.ratio(seconds, name, "scan")
        for batch, kinds in measured.items()
        for kind, seconds in kinds.items()
        for name in seconds
        if name != "scan"
    }
    return {"times": measured, "ratios": said}


# ---- DeepFill v1


def deepfill_times(rounds: int, batch: int = 4, side: int = 64, channels: int = 128) -> dict:
    """Seconds of both forms, forward, and forward and backward."""
    from musical_tf.layers import StridedContextualAttention

    random = np.random.default_rng(0)
    # ReLU comes before the attention, so no feature is negative.
    features = random.normal(0.0, 0.1, (batch, side, side, channels)).astype("float32").clip(0)
    arrays = (features, models.center_hole(side, batch))
    layers = {form: StridedContextualAttention(implementation=form) for form in FORMS}
    return {
        kind: timed({form: compiled(of(layer), arrays) for form, layer in layers.items()}, rounds)
        for kind, of in {
            "forward": lambda layer: lambda features, hole: layer(features, hole),
            "forward and backward": gradient_of,
        }.items()
    }


def deepfill_step_times(rounds: int, size: int = 128, batch: int = 16) -> dict:
    """Seconds of a training step, on random photographs."""
    from benchmarks.training_step import ALONE, Case, batch_of, trainer_of

    data, calls = batch_of(size, batch), {}
    for name, method, fields in (
        ("MUSICAL lite", "musical", ALONE),
        ("DeepFill lite", "deepfill_v1", {}),
        ("DeepFill lite without critics", "deepfill_v1", ALONE),
    ):
        case = Case(method, "lite", size, batch, fields)
        trainer = trainer_of(case, "float32", learning_rate=1e-4)
        calls[name] = functools.partial(trainer.update, data)
    return measure.take_turns(calls, rounds)


def measure_deepfill(rounds: int) -> dict[str, Any]:
    attention, step = deepfill_times(rounds), deepfill_step_times(rounds)
    said = {
        f"attention, {kind}: convolutions / shared Gram matrix": measure.ratio(
            seconds, "reference", "fast"
        )
        for kind, seconds in attention.items()
    }
    for name in ("DeepFill lite", "DeepFill lite without critics"):
        ratio = measure.ratio(step, name, "MUSICAL lite")
        said[f"training step: {name} / MUSICAL lite"] = ratio
    return {"times": {"attention": attention, "step": step}, "ratios": said}


LAYERS = {
    "musical": ("attention", measure_musical),
    "coherent": ("coherent_attention", measure_coherent),
    "deepfill_v1": ("deepfill_v1", measure_deepfill),
}
"""Name -> file of results, and measurement."""


@measure.command(measure.argument("--layer", choices=tuple(LAYERS), default="musical"), rounds=5)
def main(options: argparse.Namespace) -> None:
    name, function = LAYERS[options.layer]
    measure.publish(name, options.command, function(options.rounds))


if __name__ == "__main__":
    sys.exit(main())
