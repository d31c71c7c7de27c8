"""Measures a training step of MUSICAL, its parts, and a step on a GPU.

    python -m benchmarks.training_step [--rounds 3] [--cases NAME ...]
    KERAS_BACKEND=jax python -m benchmarks.training_step --jax [--cases NAME ...] [--precisions P]

Every case, a preset at a size and batch in one precision, runs in a process of its own: the whole
step, its peak memory, and each part alone. Written to `results/training_step.json`.

`--jax`: the step of MUSICAL without its adversarial term on a GPU under JAX: generator, VGG16,
losses, back, Adam; with float16 the loss is scaled. XLA compiles the whole step. The batch is ready
on the device, the hole is the center. A time is that of `JAX_CALLS` steps in a row. float32
multiplies in TF32, XLA's default. Memory includes compiling. Written to `results/gpu_step.json`.
"""

import argparse
import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks import measure, models
from training.evaluation import provenance


class Case(NamedTuple):
    """A preset of MUSICAL at a size in pixels."""

    preset: str
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.preset}, {self.size} px, batch {self.batch}"


SIZES = (("lite", 128, 16), ("lite", 256, 16), ("paper", 256, 5), ("paper", 256, 16))
CASES = {str(Case(*each)): Case(*each) for each in SIZES}
DEFAULT_CASES = ("lite, 128 px, batch 16", "paper, 256 px, batch 5")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
JAX_CALLS = 20
ALONE = {"lambda_adversarial": 0.0}


def arrays_of(size: int, batch: int) -> dict[str, np.ndarray]:
    """Random photographs, `(B, S, S, 3)` in [-1, 1], with a center hole."""
    image = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    return {"image": image, "hole": models.center_hole(size, batch)}


def trainer_of(case: Case, precision: str) -> Any:
    """The case's trainer, from random weights, without the adversarial term."""
    from musical_tf.methods import musical
    from training.optimization import dtype_policy
    from training.trainer import Trainer

    config = musical.Config.from_preset(case.preset, **ALONE)
    with dtype_policy(precision):
        generator = musical.build_generator(config, dtype=precision)
        discriminators = musical.build_discriminators(config, case.size)
        objective = musical.build_objective(config)
        return Trainer(generator, objective, discriminators, precision=precision)


def measure_all(measure_one: Callable, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Case -> precision -> what `measure_one` finds in a process of its own."""
    times: dict[str, dict[str, Any]] = {name: {} for name in options.cases}
    for name, precision in itertools.product(options.cases, options.precisions):
        print(name, precision, sep=", ", file=sys.stderr, flush=True)
        words = name, precision, options.rounds
        times[name][precision] = measure.in_own_process(measure_one, *words)
    return times


# ---- TensorFlow


def parts_of(trainer) -> dict[str, Callable[[dict], Any]]:
    """The parts of MUSICAL's step, each a function of the batch that returns a few tensors."""
    import tensorflow as tf

    from musical_tf.losses import perceptual_loss, style_loss
    from training.step import gradients_of, watch

    objective = trainer.objective
    tape_of = functools.partial(tf.GradientTape, watch_accessed_variables=False)

    def generator(batch):
        with tape_of() as tape:
            watch(tape, trainer.generator_variables)
            loss = tf.reduce_sum(tf.sin(trainer.generator([batch["image"], batch["hole"]])))
        return gradients_of(loss, tape, trainer.generator_variables)

    def truth(batch):
        return [tf.reduce_sum(each) for each in objective.vgg(batch["image"])]

    def prediction(batch):
        # Maps of zeros in place of the truth's, which are the part above.
        maps = objective.vgg.compute_output_shape(tuple(batch["image"].shape))
        with tape_of() as tape:
            tape.watch(batch["image"])
            zeros, found = [tf.zeros(shape) for shape in maps], objective.vgg(batch["image"])
            loss = perceptual_loss(zeros, found) + style_loss(zeros, found)
        return tape.gradient(loss, batch["image"])

    def optimizers(batch):
        del batch
        variables = trainer.generator_variables
        gradients = [(tf.zeros_like(each.value), each) for each in variables]
        trainer.generator_optimizer.apply_gradients(gradients)
        return tf.constant(0.0)

    return {
        "generator": generator,
        "VGG16 of the photograph": truth,
        "VGG16 of the prediction, losses, and back": prediction,
        "optimizers": optimizers,
    }


def measure_case(name: str, precision: str, rounds: int) -> dict[str, Any]:
    """Whole steps, memory, and each part."""
    import tensorflow as tf

    from training.fit import repeatable

    case = CASES[name]
    with repeatable():
        arrays, trainer = arrays_of(case.size, case.batch), trainer_of(case, precision)
        batch = {name: tf.constant(each) for name, each in arrays.items()}
        first_step = measure.seconds_of(lambda: trainer.update(batch))
        step = measure.take_turns({"": lambda: trainer.update(batch)}, rounds)[""]
        peak = measure.resident_peak()
        calls = {
            part: functools.partial(tf.function(function, autograph=False), batch)
            for part, function in parts_of(trainer).items()
        }
        parts = measure.take_turns(calls, rounds)
    return {
        "step": step,
        "images_per_second": case.batch / step["median"],
        "first_step": first_step,
        "peak_bytes": peak,
        "parts": parts,
    }


def measure_steps(options: argparse.Namespace) -> None:
    times, said = measure_all(measure_case, options), {}
    for name, found_in in times.items():
        for precision, found in found_in.items():
            label, step = f"{name}, {precision}", found["step"]["median"]
            plain = found_in.get("float32")
            if plain and precision != "float32":
                said[f"{label}: step, float32's / this"] = plain["step"]["median"] / step
                memory = found["peak_bytes"] / plain["peak_bytes"]
                said[f"{label}: memory, this / float32's"] = memory
            for part, seconds in found["parts"].items():
                said[f"{label}: {part} / step"] = seconds["median"] / step
    measure.publish("training_step", options.command, {"times": times, "ratios": said})


# ---- JAX


def measure_jax_case(name: str, precision: str, rounds: int) -> dict[str, Any]:
    """Times steps of a case, in seconds, with the peak of the device's memory in bytes."""
    import jax
    import keras

    from musical_tf.methods import musical
    from training import recipes
    from training.jax_step import JaxStep

    case = CASES[name]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    config = musical.Config.from_preset(case.preset, **ALONE)
    generator = musical.build_generator(config, dtype=precision)
    # Adam of the paper; no averages.
    recipe = recipes.resolve("demo", preset="paper", precision=precision)
    step = JaxStep(recipe, generator, musical.build_objective(config))
    batch = jax.device_put(arrays_of(case.size, case.batch))
    update = jax.jit(step.update, donate_argnums=0)
    state, losses = step.start(), []

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, terms = update(state, batch, 0, recipe.learning_rate)
        losses.append(float(terms["total"]))

    compile_seconds = measure.seconds_of(lambda: steps(1))
    seconds = [measure.seconds_of(lambda: steps(JAX_CALLS)) / JAX_CALLS for _ in range(rounds)]
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


def in_words(found: dict[str, Any], plain: dict[str, Any] | None) -> str:
    """A line for a case and precision; `plain` is the case in float32."""
    words = [
        f"{1000 * found['step']['median']:.1f} ms",
        f"{found['images_per_second']:.0f} images/s",
    ]
    if found["peak_bytes"]:
        words.append(f"{found['peak_bytes'] / 1e9:.2f} GB")
    if plain and plain is not found:
        ratio = plain["step"]["median"] / found["step"]["median"]
        words.append(f"{ratio:.2f} times as fast as float32")
    return ", ".join(words)


def measure_jax(options: argparse.Namespace) -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
    times = measure_all(measure_jax_case, options)
    said = {
        f"{name}, {precision}": in_words(found, found_in.get("float32"))
        for name, found_in in times.items()
        for precision, found in found_in.items()
    }
    print(*(f"{name}: {words}" for name, words in said.items()), sep="\n")
    first = times[options.cases[0]][options.precisions[0]]
    hardware = f"{provenance.hardware()}, {first['device']}"
    figures = {"hardware": hardware, "times": times, "quantities": said}
    measure.publish("gpu_step", f"KERAS_BACKEND=jax {options.command}", figures)


@measure.command(
    measure.argument("--cases", nargs="+", default=list(DEFAULT_CASES), choices=list(CASES)),
    measure.argument("--precisions", nargs="+", default=list(PRECISIONS[:2]), choices=PRECISIONS),
    measure.argument("--jax", action="store_true", help="measure the step under JAX"),
    rounds=3,
)
def main(options: argparse.Namespace) -> None:
    if options.jax:
        measure_jax(options)
    else:
        measure_steps(options)


if __name__ == "__main__":
    sys.exit(main())
