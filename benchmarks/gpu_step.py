"""What a training step takes on a GPU under JAX, by precision, in time and in memory.

    KERAS_BACKEND=jax python -m benchmarks.gpu_step [--cases NAME ...] [--precisions P ...]

The step of MUSICAL without its adversarial term: generator, VGG16, losses, back, Adam; with float16
the loss is scaled. JAX compiles it as a whole by XLA, so there is no figure without. The batch lies
ready on the device, the hole is the centre. Every case and precision has a process of its own; a
time is that of `CALLS` steps one after the other. `float32` multiplies in TF32, which is what XLA
does on such a device unless told otherwise; `float32, exact` was told.

Prints times, images a second and peaks of memory, what compiling takes included, and writes
`results/gpu_step.json`. `benchmarks.training_step` does the same in TensorFlow, part by part.
"""

import argparse
import itertools
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.training_step import arrays_of

MODULE = "benchmarks.gpu_step"
CALLS = 20


@dataclass(frozen=True)
class Case:
    """What is trained: a preset of MUSICAL at a size, in pixels, and a batch."""

    preset: str
    size: int
    batch: int


CASES = {
    "lite, 128 px, batch 16": Case("lite", 128, 16),
    "lite, 256 px, batch 16": Case("lite", 256, 16),
    "paper, 256 px, batch 5": Case("paper", 256, 5),
    "paper, 256 px, batch 16": Case("paper", 256, 16),
}
EXACT = "float32, exact"
PRECISIONS = ("float32", EXACT, "mixed_bfloat16", "mixed_float16")


def measure_case(name: str, precision: str, rounds: int) -> dict[str, Any]:
    """Times steps of a case.

    Returns:
        `device`; `step`, seconds a step with their `median`; `images_per_second`; `compile_seconds`
        of the first call; `peak_bytes` of the device's memory; `loss`, first and last.

    Raises:
        ArithmeticError: If the loss is not finite.
    """
    import jax
    import keras

    from musical_tf import methods
    from training import recipes
    from training.jax_step import JaxStep

    case = CASES[name]
    policy = "float32" if precision == EXACT else precision
    if precision == EXACT:
        jax.config.update("jax_default_matmul_precision", "highest")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    module = methods.get("musical")
    config = module.Config.from_preset(case.preset, lambda_adversarial=0.0)
    generator = module.build_generator(config, dtype=policy)
    # Adam of the paper; no averages.
    recipe = recipes.resolve("demo", preset="paper", precision=policy)
    step = JaxStep(recipe, generator, module.build_objective(config))
    batch = jax.device_put(arrays_of(case.size, case.batch))
    update = jax.jit(step.update, donate_argnums=0)
    state = step.start()
    start = time.perf_counter()
    state, terms = update(state, batch, 0, recipe.learning_rate)
    losses = [float(terms["total"])]
    compile_seconds = time.perf_counter() - start
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(CALLS):
            state, terms = update(state, batch, 0, recipe.learning_rate)
        losses.append(float(terms["total"]))
        seconds.append((time.perf_counter() - start) / CALLS)
    if not np.isfinite(losses).all():
        raise ArithmeticError(f"{case}, {precision}: the losses are {losses}")
    (device, *_) = jax.local_devices()
    memory = device.memory_stats() or {}
    median = float(np.median(seconds))
    return {
        "device": device.device_kind,
        "step": {"median": median, "all": seconds},
        "images_per_second": case.batch / median,
        "compile_seconds": compile_seconds,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "loss": [losses[0], losses[-1]],
    }


def quantities(cases: dict[str, dict[str, dict]]) -> dict[str, str]:
    """What the figures say: a line a case and precision."""
    said = {}
    for name, by_precision in cases.items():
        plain = by_precision.get("float32")
        for precision, found in by_precision.items():
            words = [
                f"{1000 * found['step']['median']:.1f} ms",
                f"{found['images_per_second']:.0f} images/s",
            ]
            if found["peak_bytes"]:
                words.append(f"{found['peak_bytes'] / 1e9:.2f} GB")
            if plain and precision != "float32":
                ratio = plain["step"]["median"] / found["step"]["median"]
                words.append(f"{ratio:.2f} times as fast as float32")
            said[f"{name}, {precision}"] = ", ".join(words)
    return said


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=5)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
    times: dict[str, dict[str, dict]] = {}
    refused: dict[str, str] = {}
    for name, precision in itertools.product(options.cases, options.precisions):
        try:
            found = measure.in_own_process(measure_case, name, precision, options.rounds)
        except RuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            # One that does not fit leaves the others.
            refused[f"{name}, {precision}"] = str(error).strip().splitlines()[-1][:200]
            continue
        times.setdefault(name, {})[precision] = found
        print(quantities({name: times[name]})[f"{name}, {precision}"], name, precision, flush=True)
    if not times:
        raise RuntimeError(f"nothing could be measured: {refused}")
    record = measure.record(MODULE, words, {"times": times, "refused": refused})
    device = next(iter(next(iter(times.values())).values()))["device"]
    record["hardware"] += f", {device}"
    record["command"] = f"KERAS_BACKEND=jax {record['command']}"
    print(measure.keep("gpu_step", {**record, "quantities": quantities(times)}))


if __name__ == "__main__":
    sys.exit(main())
