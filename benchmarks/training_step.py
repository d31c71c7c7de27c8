"""Measures a training step, its parts, the effect of options on it, and a step on a GPU.

    python -m benchmarks.training_step [--rounds 3] [--cases NAME ...]
    python -m benchmarks.training_step --options [...]
    python -m benchmarks.training_step --discriminator PRESET ... [--rounds 3]
    KERAS_BACKEND=jax python -m benchmarks.training_step --jax [--cases NAME ...] [--precisions P]

Every case, a preset at a size and batch in one precision, runs in a process of its own: the whole
step, its peak memory, and each part alone. Written to `results/training_step.json`.

`--options`, on the first case and precision: each part compiled by XLA; the step with the batch in
two and four parts; eight steps in one call against eight calls, on the demo's small step; CSA's
step with VGG16's activations computed once against once a side. Written to
`results/training_options.json`.

`--jax`: the step of MUSICAL without its adversarial term on a GPU under JAX: generator, VGG16,
losses, back, Adam; with float16 the loss is scaled. XLA compiles the whole step. The batch is ready
on the device, the hole is the center. A time is that of `JAX_CALLS` steps in a row. float32
multiplies in TF32, XLA's default. Memory includes compiling. Written to `results/gpu_step.json`.

`--discriminator`: the step with the adversarial term and DenseNet121 from random weights, in turns
with the step without both. Written to `results/training_discriminator.json`.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import measure, models

CALLS = 8
"""Steps in one call, where calls are compared."""


@dataclass(frozen=True)
class Case:
    """A method's preset at a size in pixels, some fields of its configuration replaced."""

    method: str
    preset: str
    size: int
    batch: int
    fields: dict[str, Any]


ALONE = {"lambda_adversarial": 0.0}
CASES = {
    f"{preset}, {size} px, batch {batch}": Case("musical", preset, size, batch, ALONE)
    for preset, size, batch in (
        *(("lite", 128, 16), ("lite", 256, 16)),
        *(("paper", 256, 5), ("paper", 256, 16)),
    )
}
DEFAULT_CASES = ("lite, 128 px, batch 16", "paper, 256 px, batch 5")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
JAX_CALLS = 20
ADVERSARIAL = {"lambda_adversarial": 0.3, "discriminator_weights": "random"}
ADVERSARIAL_SIZES = {"lite": (128, 4), "paper": (256, 2)}
"""Pixels and batch of the presets whose discriminator is measured."""


def arrays_of(size: int, batch: int) -> dict[str, np.ndarray]:
    """Random photographs, `(B, S, S, 3)` in [-1, 1], with a center hole."""
    image = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    return {"image": image, "hole": models.center_hole(size, batch)}


def batch_of(size: int, batch: int) -> dict[str, Any]:
    """`arrays_of` as TensorFlow's tensors."""
    import tensorflow as tf

    return {name: tf.constant(array) for name, array in arrays_of(size, batch).items()}


def trainer_of(case: Case, precision: str, objective=None, **options):
    """The case's trainer, from random weights."""
    from musical_tf import methods
    from training.optimization import dtype_policy
    from training.trainer import Trainer

    module = methods.get(case.method)
    config = module.Config.from_preset(case.preset, **case.fields)
    with dtype_policy(precision):
        return Trainer(
            module.build_generator(config, dtype=precision),
            (objective or module.build_objective)(config),
            module.build_discriminators(config, case.size),
            precision=precision,
            **options,
        )


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


def measure_case(
    name: str, precision: str, rounds: int, accumulation: int = 1, xla: bool = False
) -> dict[str, Any]:
    """Whole steps, memory and, with the batch in one part, each part, with or without XLA."""
    import tensorflow as tf

    from training.fit import repeatable

    case = CASES[name]
    with repeatable():
        batch = batch_of(case.size, case.batch)
        trainer = trainer_of(case, precision, gradient_accumulation=accumulation)
        compile_seconds = measure.seconds_of(lambda: trainer.update(batch))
        step = measure.take_turns({"": lambda: trainer.update(batch)}, rounds)[""]
        found = {
            "step": step,
            "images_per_second": case.batch / step["median"],
            "first_step": compile_seconds,
            "peak_bytes": measure.resident_peak(),
        }
        if accumulation > 1:
            return found
        calls, compiling, refused = {}, {}, {}
        for part, function in parts_of(trainer).items():
            for compiled in (False, True) if xla else (False,):
                graph = tf.function(function, autograph=False, jit_compile=compiled or None)
                call = functools.partial(graph, batch)
                label = f"{part}, XLA" if compiled else part
                try:
                    compiling[label] = measure.seconds_of(call)
                except (tf.errors.OpError, NotImplementedError) as error:
                    refused[part] = str(error).strip().splitlines()[0][:200]
                    continue
                calls[label] = call
        parts = measure.take_turns(calls, rounds, warm_up=0)
    return {**found, "parts": parts, "first_call": compiling, "not_by_xla": refused}


def measure_calls(rounds: int) -> dict[str, Any]:
    """Steps in one call against a call a step, on the smallest steps, which are the demo's."""
    import tensorflow as tf

    from training.fit import repeatable

    with repeatable():
        batch = batch_of(96, 2)
        trainer = trainer_of(Case("musical", "lite", 96, 2, ALONE), "float32", ema=0.99)

        @functools.partial(tf.function, autograph=False)
        def together(batch):
            def body(number, logs):
                del logs
                return number + 1, trainer._pack(batch)

            start = (0, trainer._pack(batch))
            return tf.while_loop(lambda number, _: number < CALLS - 1, body, start)[1]

        def one_by_one():
            for _ in range(CALLS):
                trainer.update(batch)

        calls = {"calls of a step": one_by_one, "one call": lambda: together(batch).numpy()}
        return measure.take_turns(calls, rounds * 3)


def measure_sharing(rounds: int) -> dict[str, Any]:
    """CSA's step with VGG16's activations computed once, against once a side."""
    from musical_tf.methods import csa
    from training.fit import repeatable

    class Apart(csa.Objective):
        """Computes for each side what both compare."""

        def outputs(self, generator, batch):
            return generator.training_outputs([batch["image"], batch["hole"]])

        def generator_terms(self, batch, prediction, discriminators):
            both = {**prediction, **self.activations(batch, prediction)}
            return super().generator_terms(batch, both, discriminators)

        def discriminator_terms(self, batch, prediction, discriminators):
            both = {**prediction, **self.activations(batch, prediction)}
            return super().discriminator_terms(batch, both, discriminators)

    with repeatable():
        case = Case("csa", "lite", 128, 8, {})
        batch, calls = batch_of(case.size, case.batch), {}
        for name, objective in {"apart": Apart, "shared": csa.Objective}.items():
            trainer = trainer_of(case, "float32", objective)
            calls[name] = functools.partial(trainer.update, batch)
        return measure.take_turns(calls, rounds)


def measure_discriminator(presets: list[str], rounds: int) -> dict[str, Any]:
    """Steps with the adversarial term and its discriminator, in turns with steps without."""
    from training.fit import repeatable

    found = {}
    with repeatable():
        for preset in presets:
            size, count = ADVERSARIAL_SIZES[preset]
            batch, calls = batch_of(size, count), {}
            for name, fields in {"without": ALONE, "with": ADVERSARIAL}.items():
                trainer = trainer_of(Case("musical", preset, size, count, fields), "float32")
                calls[name] = functools.partial(trainer.update, batch)
            found[f"{preset}, {size} px, batch {count}"] = measure.take_turns(calls, rounds)
    return found


def ratios_of_discriminator(measured: dict[str, dict]) -> dict[str, float]:
    """Name -> the share of the step that is the discriminator's, and the ratio of the steps."""
    said = {}
    for name, times in measured.items():
        ratio = measure.ratio(times, "with", "without")
        said[f"{name}: step with discriminator / step without"] = ratio
        said[f"{name}: discriminator / step"] = 1 - 1 / ratio
    return said


def ratios_of_steps(cases: dict[str, dict]) -> dict[str, float]:
    """Name -> ratio of medians, or of peaks of memory."""
    said = {}
    for name, by_precision in cases.items():
        plain = by_precision.get("float32")
        for precision, found in by_precision.items():
            label, step = f"{name}, {precision}", found["step"]["median"]
            if plain and precision != "float32":
                said[f"{label}: step, float32's / this"] = plain["step"]["median"] / step
                memory = found["peak_bytes"] / plain["peak_bytes"]
                said[f"{label}: memory, this / float32's"] = memory
            for part, seconds in found["parts"].items():
                said[f"{label}: {part} / step"] = seconds["median"] / step
    return said


def ratios_of_options(measured: dict[str, dict]) -> dict[str, float]:
    """Name -> ratio of medians, or of peaks of memory."""
    said = {}
    whole, parts = measured["xla"], measured["xla"]["parts"]
    for part in parts:
        if f"{part}, XLA" in parts:
            said[f"{part}: under XLA / without"] = measure.ratio(parts, f"{part}, XLA", part)
    for count, split in measured["in_parts"].items():
        label = f"batch in {count} parts / in one"
        said[f"step: {label}"] = split["step"]["median"] / whole["step"]["median"]
        said[f"memory: {label}"] = split["peak_bytes"] / whole["peak_bytes"]
    calls = measure.ratio(measured["calls"], "calls of a step", "one call")
    said[f"demo's step: {CALLS} calls / one call of {CALLS} steps"] = calls
    sharing = measure.ratio(measured["sharing"], "apart", "shared")
    said["step of CSA's lite, 128 px, batch 8: VGG16 once a side / once a step"] = sharing
    return said


def measure_jax_case(name: str, precision: str, rounds: int) -> dict[str, Any]:
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


def measure_jax(options: argparse.Namespace) -> None:
    import keras

    if keras.backend.backend() != "jax":
        raise ValueError(f"KERAS_BACKEND must be jax, got {keras.backend.backend()}")
    times: dict[str, dict[str, dict]] = {}
    for name in options.cases:
        for precision in options.precisions:
            found = measure.in_own_process(measure_jax_case, name, precision, options.rounds)
            times.setdefault(name, {})[precision] = found
    said = quantities(times)
    for name, text in said.items():
        print(f"{name}: {text}")
    record = measure.record(f"KERAS_BACKEND=jax {options.command}", {"times": times})
    record["hardware"] += f", {found['device']}"
    measure.keep("gpu_step", {**record, "quantities": said})


@measure.command(
    measure.argument("--cases", nargs="+", default=list(DEFAULT_CASES), choices=list(CASES)),
    measure.argument("--precisions", nargs="+", default=list(PRECISIONS[:2]), choices=PRECISIONS),
    measure.argument("--options", action="store_true", help="measure the effect of options"),
    measure.argument("--jax", action="store_true", help="measure the step under JAX"),
    measure.argument(
        "--discriminator",
        nargs="+",
        choices=list(ADVERSARIAL_SIZES),
        help="presets; measure its share of a step",
    ),
    rounds=3,
)
def main(options: argparse.Namespace) -> None:
    if options.jax:
        return measure_jax(options)

    def child(case: str, precision: str, *more: Any) -> dict[str, Any]:
        print(case, precision, *more, sep=", ", file=sys.stderr, flush=True)
        return measure.in_own_process(measure_case, case, precision, options.rounds, *more)

    measured: dict[str, Any]
    if options.options:
        case, precision = options.cases[0], options.precisions[0]
        splits = [count for count in (2, 4) if CASES[case].batch % count == 0]
        measured = {
            "xla": child(case, precision, 1, True),
            "in_parts": {count: child(case, precision, count) for count in splits},
            "calls": measure_calls(options.rounds),
            "sharing": measure_sharing(options.rounds),
        }
        name, said = "training_options", ratios_of_options(measured)
    elif options.discriminator:
        measured = measure_discriminator(options.discriminator, options.rounds)
        name, said = "training_discriminator", ratios_of_discriminator(measured)
    else:
        measured = {
            case: {precision: child(case, precision) for precision in options.precisions}
            for case in options.cases
        }
        name, said = "training_step", ratios_of_steps(measured)
    measure.publish(name, options.command, {"times": measured, "ratios": said})


if __name__ == "__main__":
    sys.exit(main())
