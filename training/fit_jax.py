"""Trains a generator on one GPU under Keras's JAX backend, wholly on the GPU.

    KERAS_BACKEND=jax python -m training.fit_jax --dataset folder --data-dir DIR --preset lite \\
        --run-dir DIR
    KERAS_BACKEND=jax python -m training.fit_jax --run-dir DIR --resume

Flags, recipe and run folder are those of `training.fit`, and so are the layers, the objective and
the optimizer (`optimization.py`). TensorFlow is not needed. Photographs and a store of holes lie in
the GPU's memory, crops, zooms, flips, colors and holes are drawn there, and `STEPS_A_CALL` steps
are one call, so that the GPU never waits for the processor. Differences from `training.fit`:

* methods other than MUSICAL and the adversarial term are refused: their networks change a state of
  their own in every step, which this step leaves out;
* `--strategy` is refused: the step runs on one device;
* there is no `tensorboard/`: TensorFlow writes it;
* a run is a whole number of calls, and the log has the means of a call;
* the photographs are drawn at random with replacement.
"""

import argparse
import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import callbacks, checkpoints, networks, options, runs
from .fit import fail
from .jax_data import Store, draw_batch
from .loop import Loop
from .recipes import Recipe

PROGRAM = "python -m training.fit_jax"

STEPS_A_CALL = 20
"""Steps of one compiled call; a run is a whole number of calls."""

OVERHEAD = 0.02
"""Share of `--seconds` kept for writing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is 1 if training failed, 2 for wrong input."""
    started = time.monotonic()
    arguments = _parser().parse_args(argv)
    try:
        options.check_numbers(arguments)
        options.check_data(arguments)
        with contextlib.ExitStack() as open_files:
            return train(arguments, started, open_files)
    except ModuleNotFoundError as error:
        return fail(PROGRAM, f"{error}: pip install 'jax[cuda13]', or jax for a processor", 1)
    except ArithmeticError as error:
        return fail(PROGRAM, error, 1)
    except (MemoryError, RuntimeError) as error:  # JAX's own errors are RuntimeErrors
        return fail(PROGRAM, str(error).partition("\n")[0] or "out of memory", 1)
    except (OSError, ValueError) as error:
        return fail(PROGRAM, error, 2)
    except KeyboardInterrupt:
        return fail(PROGRAM, "interrupted before training began, nothing was written", 130)


def _parser() -> argparse.ArgumentParser:
    parser = options.make_parser()
    parser.prog = PROGRAM
    parser.usage = None
    parser.description = "Trains a generator on one GPU under JAX."
    lent = parser.add_argument_group("time")
    lent.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="instead of --steps: as many as end this long after the start",
    )
    lent.add_argument(
        "--save-every",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds between two checkpoints, beside --checkpoint-every (default: %(default)g)",
    )
    return parser


def _require_jax() -> None:
    import keras  # with KERAS_BACKEND=jax it imports jax itself

    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(f"Keras's backend must be jax, got {backend}: set KERAS_BACKEND=jax")


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if the flags do not go together."""
    if arguments.run_dir is None:
        raise ValueError("--run-dir must name a folder, got none")
    if arguments.strategy != "none":
        raise ValueError(f"--strategy must be none here, got {arguments.strategy}")
    if not arguments.save_every > 0:
        raise ValueError(f"--save-every must be above 0, got {arguments.save_every}")
    if arguments.seconds is not None:
        if not 0 < arguments.seconds < float("inf"):
            raise ValueError(f"--seconds must be above 0, got {arguments.seconds}")
        if arguments.steps is not None or arguments.epochs is not None:
            raise ValueError("--seconds takes the place of --steps and --epochs")
        if not arguments.resume:
            arguments.steps = STEPS_A_CALL  # until it is known how long they take


def _check_recipe(recipe: Recipe) -> None:
    """Raises ValueError if the recipe is for `training.fit` only."""
    if recipe.method != "musical":
        raise ValueError(f"method must be musical here, got {recipe.method}: use training.fit")
    config = recipe.method_config()
    if config.lambda_adversarial * config.adversarial_factor:
        raise ValueError(
            "the adversarial term is for training.fit only: --preset lite or "
            "--set lambda_adversarial=0 is without it"
        )


def train(arguments: argparse.Namespace, started: float, open_files: contextlib.ExitStack) -> int:
    """Trains, writes the run's folder and returns the exit code.

    `--seconds` counts from `started`, a `time.monotonic()`; `open_files` takes the lock of the
    run's folder.

    Raises:
        ArithmeticError: If a loss is not finite; the last checkpoint stays.
        ValueError, OSError: If what is asked for cannot be.
    """
    _check(arguments)
    run = runs.plan(arguments, open_files)
    _check_recipe(run.recipe)
    _require_jax()
    import jax

    recipe = run.recipe
    built = networks.build(recipe, run.checkpoint is None)
    if arguments.dry_run:
        print(networks.describe(recipe, built, run.photographs, _whole_calls(run.steps)))
        return 0
    with contextlib.closing(callbacks.StopOnSignal()) as stopper:
        store = Store.read(recipe)
        device = jax.devices()[0].device_kind
        print(
            f"{store.describe()} on {device} after {time.monotonic() - started:.0f} s", flush=True
        )
        total = _whole_calls(run.steps)
        trainer = JaxTrainer(recipe, built, store, total)
        if run.checkpoint is not None:
            trainer.restore(run.checkpoint)
        a_call = trainer.warm_up()
        print(f"{1000 * a_call / STEPS_A_CALL:.1f} ms a step of {recipe.batch_size}", flush=True)
        if arguments.seconds is not None:
            left = arguments.seconds * (1.0 - OVERHEAD) - (time.monotonic() - started)
            total = trainer.finished + STEPS_A_CALL * max(1, int(left / a_call))
        trainer.plan_rates(total)
        run = dataclasses.replace(
            run,
            recipe=dataclasses.replace(recipe, steps=total, epochs=None),
            steps=total,
            identity=run.identity | {"steps": total},
        )
        run = runs.open_run_dir(run, arguments, open_files)
        hooks = [
            stopper,
            *runs.make_callbacks(trainer, run, arguments, arguments.save_every, tensorboard=False),
            *runs.stop_after_minutes(arguments, started),
        ]
        done = trainer.run(itertools.repeat(True), total, run.steps_per_epoch, hooks)
        if not run.directory.weights.is_file():
            trainer.save_generator(run.directory.weights)
    runs.report(run, done, hooks, PROGRAM)
    return 128 + stopper.received if stopper.received is not None else 0


def _whole_calls(steps: int) -> int:
    return -(-steps // STEPS_A_CALL) * STEPS_A_CALL


class JaxTrainer(Loop):
    """Calls of `STEPS_A_CALL` steps each, on batches that are drawn on the device."""

    steps_a_call = STEPS_A_CALL

    def __init__(self, recipe: Recipe, built: networks.Networks, store: Store, steps: int):
        import jax

        from .jax_step import JaxStep

        self.recipe = recipe
        self.generator = built.generator
        self.step = JaxStep(recipe, built.generator, built.objective)
        self.arrays = {name: jax.device_put(value) for name, value in store.arrays.items()}
        self.key = jax.random.key(recipe.seed)
        self.values = self.step.start()
        self.done = 0
        self.call = jax.jit(self._call)
        self.plan_rates(steps)

    @property
    def finished(self) -> int:
        """Steps done so far."""
        return self.done

    def plan_rates(self, steps: int) -> None:
        """Computes the learning rate of each step of a run of `steps` steps."""
        import jax
        from jax import numpy as jnp

        from . import optimization

        recipe = self.recipe
        rate = optimization.learning_rate_schedule(
            recipe.schedule, recipe.learning_rate, steps, recipe.warmup_steps
        )
        if callable(rate):
            self.rates = jax.jit(jax.vmap(rate))(jnp.arange(steps))
        else:
            self.rates = jnp.full((steps,), rate, "float32")

    def warm_up(self) -> float:
        """Returns the seconds of a call. The first one compiles; what both give is dropped."""
        import jax

        for _ in range(2):
            before = time.monotonic()
            rates = self.rates[:STEPS_A_CALL]
            jax.block_until_ready(self.call(self.values, self.arrays, self.key, np.int32(0), rates))
            seconds = time.monotonic() - before
        return seconds

    def update(self, batch: Any) -> dict[str, float]:
        """Makes `STEPS_A_CALL` steps on batches of its own; returns the means of the terms.

        Raises:
            NonFiniteError: If one of them is not finite.
        """
        first = self.done
        rates = self.rates[first : first + STEPS_A_CALL]
        self.values, means = self.call(self.values, self.arrays, self.key, np.int32(first), rates)
        self.done += STEPS_A_CALL
        terms = {name: float(value) for name, value in means.items()}
        self.check_terms(terms)
        return terms

    def _call(self, values: Any, arrays: Any, key: Any, first: Any, rates: Any) -> Any:
        import jax
        from jax import numpy as jnp

        def step(values: Any, numbered: Any) -> Any:
            number, rate = numbered
            batch = draw_batch(arrays, jax.random.fold_in(key, number), self.recipe)
            return self.step.update(values, batch, number, rate)

        numbers = first + jnp.arange(STEPS_A_CALL)
        values, terms = jax.lax.scan(step, values, (numbers, rates))
        return values, {name: jnp.mean(each) for name, each in terms.items()}

    def state(self) -> checkpoints.State:
        """Returns everything that a later step depends on."""
        return {"step": [np.int64(self.done)], **self.values}

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Takes the state of a checkpoint."""
        from jax import numpy as jnp

        found = checkpoints.read(checkpoint, self.state())
        self.done = int(found.pop("step")[0])
        self.values = {name: list(map(jnp.asarray, group)) for name, group in found.items()}

    @contextlib.contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Gives the generator the averaged weights, or the last where none are averaged."""
        kept = self.step.inference_weights(self.values)
        for variable, value in zip(self.generator.trainable_variables, kept, strict=True):
            variable.assign(value)
        yield

    def predict(self, image: Any, missing: np.ndarray) -> Any:
        """Returns the generator's output with the averaged weights."""
        weights = self.step.inference_weights(self.values)
        return self.step.predict(weights, image, missing).astype("float32")


if __name__ == "__main__":
    sys.exit(main())
