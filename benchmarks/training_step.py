"""What a training step costs, its parts, and what does and does not make it faster.

    python -m benchmarks.training_step [--rounds 3] [--cases NAME ...] [--precisions P ...]
    python -m benchmarks.training_step --options [...]

Every case, a preset at a size and batch in one precision, runs in a process of its own: the whole
step, what its memory peaks at, and each part alone: generator, VGG16 of the photograph, VGG16 of
the prediction with the losses and back, discriminators, optimizers. Written to
`results/training_step.json`.

`--options`, on the first case and precision: each part compiled by XLA, with the seconds that
takes; the step with the batch in two and four parts; eight steps in one call against eight calls,
on the demo's small step; CSA's step with VGG16's activations computed once against once a side.
Written to `results/training_options.json`.

On whatever device is there. With a GPU, float16 is measured too; only there it is of use.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import measure, models

MODULE = "benchmarks.training_step"
CALLS = 8
"""Steps in one call, where calls are compared."""


@dataclass(frozen=True)
class Case:
    """What is trained: a method's preset at a size, some fields of its configuration replaced."""

    method: str
    preset: str
    size: int
    batch: int
    fields: dict[str, Any]


CASES = {
    "lite, 128 px, batch 16": Case("musical", "lite", 128, 16, {"lambda_adversarial": 0.0}),
    "paper, 256 px, batch 5": Case("musical", "paper", 256, 5, {"lambda_adversarial": 0.0}),
    "paper with discriminator, 256 px, batch 5": Case(
        *("musical", "paper", 256, 5, {"discriminator_weights": "random"})
    ),
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def arrays_of(size: int, batch: int) -> dict[str, np.ndarray]:
    """Random photographs, `(B, S, S, 3)` in [-1, 1], with a centre hole."""
    image = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    return {"image": image, "hole": models.centre_hole(size, batch)}


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
    from training.step import detached, gradients_of, watch

    objective, networks = trainer.objective, trainer.discriminators

    def generator(batch):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watch(tape, trainer.generator_variables)
            loss = tf.reduce_sum(tf.sin(trainer.generator([batch["image"], batch["hole"]])))
        return gradients_of(loss, tape, trainer.generator_variables)

    def truth(batch):
        return [tf.reduce_sum(each) for each in objective.vgg(batch["image"])]

    def prediction(batch):
        # Maps of zeros in place of the truth's: those are the part above.
        maps = objective.vgg.compute_output_shape(tuple(batch["image"].shape))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch["image"])
            zeros, found = [tf.zeros(shape) for shape in maps], objective.vgg(batch["image"])
            loss = perceptual_loss(zeros, found) + style_loss(zeros, found)
        return tape.gradient(loss, batch["image"])

    def discriminators(batch):
        variables = trainer._all_discriminator_variables()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watch(tape, variables)
            terms = objective.discriminator_terms(batch, detached(batch["image"]), networks)
            loss = sum(tf.cast(term, tf.float32) for term in terms.values())
        return gradients_of(loss, tape, variables)

    def back_through(batch):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(batch["image"])
            logits = networks["densenet121"](batch["image"], training=True)
            loss = tf.reduce_mean(tf.cast(logits, tf.float32))
        return tape.gradient(loss, batch["image"])

    def optimizers(batch):
        del batch
        sides = [(trainer.generator_optimizer, trainer.generator_variables)]
        if networks:
            sides.append((trainer.discriminator_optimizer, trainer._all_discriminator_variables()))
        for optimizer, variables in sides:
            optimizer.apply_gradients([(tf.zeros_like(v.value), v) for v in variables])
        return tf.constant(0.0)

    found = {
        "generator": generator,
        "VGG16 of the photograph": truth,
        "VGG16 of the prediction, losses, and back": prediction,
    }
    if networks:
        found["discriminator's update"] = discriminators
        found["generator's gradient through the discriminator"] = back_through
    return {**found, "optimizers": optimizers}


def finished(function: Callable, batch: dict) -> None:
    """Calls and waits: a GPU is done only when something of the result has been fetched."""
    import tensorflow as tf

    for tensor in tf.nest.flatten(function(batch))[-1:]:
        tf.reshape(tensor, [-1])[:1].numpy()


def peak_memory() -> int:
    """Bytes: the GPU's, if there is one, otherwise this process's."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return measure.resident_peak()


def measure_case(
    name: str, precision: str, accumulation: int, xla: bool, rounds: int
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
            "peak_bytes": peak_memory(),
        }
        if accumulation > 1:
            return found
        calls, compiling, refused = {}, {}, {}
        for part, function in parts_of(trainer).items():
            for compiled in (False, True) if xla else (False,):
                graph = tf.function(function, autograph=False, jit_compile=compiled or None)
                call = functools.partial(finished, graph, batch)
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
    """Steps in one call against a call a step, where steps are smallest: the demo's."""
    import tensorflow as tf

    from training.fit import repeatable

    with repeatable():
        batch = batch_of(96, 2)
        case = Case("musical", "lite", 96, 2, {"lambda_adversarial": 0.0})
        trainer = trainer_of(case, "float32", ema=0.99)

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
    """CSA's step with VGG16's activations once, against once for either side as before."""
    from musical_tf.methods import csa
    from training.fit import repeatable

    class Apart(csa.Objective):
        """Each side computes for itself what both compare."""

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


def ratios_of_steps(cases: dict[str, dict]) -> dict[str, float]:
    """What the steps say, name -> ratio of medians, or of peaks of memory."""
    said = {}
    for name, by_precision in cases.items():
        plain = by_precision.get("float32")
        for precision, found in by_precision.items():
            label, step = f"{name}, {precision}", found["step"]["median"]
            if plain and precision != "float32":
                said[f"{label}: step, float32's / this"] = plain["step"]["median"] / step
                said[f"{label}: memory, this / float32's"] = (
                    found["peak_bytes"] / plain["peak_bytes"]
                )
            for part, seconds in found["parts"].items():
                said[f"{label}: {part} / step"] = seconds["median"] / step
    return said


def ratios_of_options(measured: dict[str, dict]) -> dict[str, float]:
    """What the options say, name -> ratio of medians, or of peaks of memory."""
    said = {}
    whole, parts = measured["xla"], measured["xla"]["parts"]
    for part in [part for part in parts if not part.endswith(", XLA")]:
        if f"{part}, XLA" in parts:
            ratio = parts[f"{part}, XLA"]["median"] / parts[part]["median"]
            said[f"{part}: under XLA / without"] = ratio
    for count, split in measured["in_parts"].items():
        label = f"batch in {count} parts / in one"
        said[f"step: {label}"] = split["step"]["median"] / whole["step"]["median"]
        said[f"memory: {label}"] = split["peak_bytes"] / whole["peak_bytes"]
    calls, sharing = measured["calls"], measured["sharing"]
    said[f"demo's step: {CALLS} calls / one call of {CALLS} steps"] = (
        calls["calls of a step"]["median"] / calls["one call"]["median"]
    )
    said["step of CSA's lite, 128 px, batch 8: VGG16 once a side / once a step"] = (
        sharing["apart"]["median"] / sharing["shared"]["median"]
    )
    return said


def child(
    name: str, precision: str, rounds: int, accumulation: int = 1, xla: bool = False
) -> dict[str, Any]:
    """`measure_case` in a process of its own."""
    case = (name, precision, accumulation, xla, rounds)
    print(*case, sep=", ", file=sys.stderr, flush=True)
    return measure.in_own_process(measure_case, *case)


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: all of use")
    parser.add_argument("--options", action="store_true", help="what makes a step faster or not")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    rounds, precisions = options.rounds, options.precisions
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    for device in devices:  # the processes of the cases need its memory
        tf.config.experimental.set_memory_growth(device, True)
    precisions = precisions or list(PRECISIONS if devices else PRECISIONS[:2])
    measured: dict[str, Any]
    if options.options:
        case, precision = options.cases[0], precisions[0]
        measured = {
            "xla": child(case, precision, rounds, xla=True),
            "in_parts": {
                count: child(case, precision, rounds, count)
                for count in (2, 4)
                if CASES[case].batch % count == 0
            },
            "calls": measure_calls(rounds),
            "sharing": measure_sharing(rounds),
        }
        said = ratios_of_options(measured)
    else:
        measured = {
            case: {precision: child(case, precision, rounds) for precision in precisions}
            for case in options.cases
        }
        said = ratios_of_steps(measured)
    name = "training_options" if options.options else "training_step"
    measure.publish(name, MODULE, words, {"times": measured, "ratios": said})


if __name__ == "__main__":
    sys.exit(main())
