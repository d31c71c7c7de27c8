"""Measures a training step on a GPU under JAX, by precision, in time and in memory.

    KERAS_BACKEND=jax python -m benchmarks.gpu_step [--cases NAME ...] [--precisions P ...]

The step of MUSICAL without its adversarial term: generator, VGG16, losses, back, Adam; with float16
the loss is scaled. XLA compiles the whole step. The batch is ready on the device, the hole is the
center. Every case and precision has a process of its own; a time is that of `CALLS` steps in a row.
`float32` multiplies in TF32, XLA's default. Memory includes compiling. Writes
`results/gpu_step.json`.
"""

import argparse
import itertools
import sys
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.training_step import ALONE, Case, arrays_of

CALLS = 20
CASES = {
    f"{preset}, {size} px, batch {batch}": Case("musical", preset, size, batch, ALONE)
    for preset, size, batch in (
        *(("lite", 128, 16), ("lite", 256, 16)),
        *(("paper", 256, 5), ("paper", 256, 16)),
    )
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def measure_case(name: str, precision: str, rounds: int) -> dict[str, Any]:
    """Times steps of a case, in seconds, with the peak of the device's memory in bytes."""
    import jax
    import keras

    from musical_tf import methods
    from training import recipes
    from training.jax_step import JaxStep

    case = CASES[name]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    module = methods.get(case.method)
    config = module.Config.from_preset(case.preset, **case.fields)
    generator = module.build_generator(config, dtype=precision)
    # Adam of the paper; no averages.
    recipe = recipes.resolve("demo", preset="paper", precision=precision)
    step = JaxStep(recipe, generator, module.build_objective(config))
    batch = jax.device_put(arrays_of(case.size, case.batch))
    update = jax.jit(step.update, donate_argnums=0)
    state, losses = step.start(), []

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, terms = update(state, batch, 0, recipe.learning_rate)
        losses.append(float(terms["total"]))

    compile_seconds = measure.seconds_of(lambda: steps(1))
    seconds = [measure.seconds_of(lambda: steps(CALLS)) / CALLS for _ in range(rounds)]
    if not np.isfinite(losses).all():
        raise RuntimeError(f"{case}, {precision}: the losses are {losses}")
    (device, *_) = jax.local_devices()
    median = float(np.median(seconds))
    return {
        "device": device.device_kind,
        "step": {"median": median, "all": seconds},
        "images_per_second": case.batch / median,
        "compile_seconds": compile_seconds,
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
        "loss": [losses[0], losses[-1]],
    }


def quantities(cases: dict[str, dict[str, dict]]) -> dict[str, str]:
    """A line for each case and precision."""
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


@measure.command(
    measure.argument("--cases", nargs="+", default=list(CASES), choices=list(CASES)),
    measure.argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS),
    rounds=5,
)
def main(options: argparse.Namespace) -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
    times: dict[str, dict[str, dict]] = {}
    for name, precision in itertools.product(options.cases, options.precisions):
        found = measure.in_own_process(measure_case, name, precision, options.rounds)
        times.setdefault(name, {})[precision] = found
        print(quantities({name: times[name]})[f"{name}, {precision}"], name, precision, flush=True)
    command = f"KERAS_BACKEND=jax {options.command}"
    record = measure.record(command, {"times": times})
    device = next(iter(next(iter(times.values())).values()))["device"]
    record["hardware"] += f", {device}"
    measure.keep("gpu_step", {**record, "quantities": quantities(times)})


if __name__ == "__main__":
    sys.exit(main())
