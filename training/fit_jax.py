"""Trains a generator on one GPU under Keras's JAX backend, wholly on the GPU.

    python -m training.fit_jax --dataset folder --data-dir DIR --preset lite --run-dir DIR
    python -m training.fit_jax --run-dir DIR --resume

Flags, recipe and run folder are those of `training.fit`, and so are the layers, the objective and
the optimizer (`optimization.py`). TensorFlow is not needed. Photographs and a store of holes lie in
the GPU's memory, crops, zooms, flips, colors and holes are drawn there, and `STEPS_A_CALL` steps
are one call, so that the GPU never waits for the processor. Differences from `training.fit`:

* methods other than MUSICAL and the adversarial term are refused: their networks change a state of
  their own in every step, which this step leaves out;
* `--strategy` and `--replicas` are refused: the step runs on one device;
* a dataset larger than the device's memory is refused by JAX;
* there is no `tensorboard/`: TensorFlow writes it;
* a run is a whole number of calls, the log has the means of a call, and Ctrl-C finishes a call;
* the photographs are drawn at random with replacement.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Sequence

from . import callbacks, distribution, networks, options, runs
from .fit import TrainingError, as_training_errors, as_usage_errors, check_precision, fail
from .options import UsageError
from .recipes import Recipe

PROGRAM = "python -m training.fit_jax"

STEPS_A_CALL = 20
"""Steps of one compiled call; a run is a whole number of calls."""

SAVE_SECONDS = 60.0
"""Longest time between two checkpoints: a GPU makes thousands of steps in that time."""

OVERHEAD = 0.02
"""Share of `--seconds` kept for writing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is 1 if training failed, 2 for wrong input."""
    started = time.monotonic()
    arguments = _parser().parse_args(argv)
    try:
        with as_usage_errors():
            _check(arguments)
            options.check_data(arguments)  # before the seconds that Keras takes to start
        with contextlib.ExitStack() as open_files:
            return train(arguments, started, open_files)
    except UsageError as error:
        return fail(PROGRAM, error, 2)
    except ModuleNotFoundError as error:
        return fail(PROGRAM, f"{error}: pip install 'jax[cuda13]', or jax for a processor", 1)
    except (TrainingError, OSError, ValueError) as error:
        return fail(PROGRAM, error, 1)
    except (MemoryError, RuntimeError) as error:  # JAX's own errors are RuntimeErrors
        return fail(PROGRAM, str(error).partition("\n")[0] or "out of memory", 1)
    except KeyboardInterrupt:
        return fail(PROGRAM, "interrupted before training began, nothing was written", 130)


def _parser() -> argparse.ArgumentParser:
    parser = options.make_parser()
    parser.prog = PROGRAM
    parser.usage = f"{PROGRAM} --dataset NAME [options]\n       {PROGRAM} --run-dir DIR --resume"
    parser.description = "Trains a MUSICAL generator on one GPU under JAX."
    parser.add_argument_group("time").add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="instead of --steps: train until S seconds after the start",
    )
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if the flags do not go together."""
    options.check_numbers(arguments)
    distribution.check_strategy(arguments.strategy, arguments.replicas)
    if arguments.strategy != "none":
        raise ValueError(f"--strategy must be none here, got {arguments.strategy}")
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


def _import_jax() -> None:
    """Imports Keras, and with it JAX; raises ValueError if Keras has another backend."""
    import keras

    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(f"Keras's backend must be jax, got {backend}: set KERAS_BACKEND=jax")


def train(arguments: argparse.Namespace, started: float, open_files: contextlib.ExitStack) -> int:
    """Trains, writes the run's folder and returns the exit code.

    `--seconds` counts from `started`, a `time.monotonic()`; `open_files` takes the lock of the
    run's folder.

    Raises:
        UsageError: If what is asked for cannot be.
        TrainingError: If training fails; the last checkpoint stays.
    """
    with as_usage_errors():
        run = runs.plan(arguments, open_files)
        recipe = run.recipe
        _check_recipe(recipe)
        _import_jax()
        import jax

        has_gpu = jax.default_backend() != "cpu"
        check_precision(recipe.precision, arguments.force_precision, has_gpu)
        built = networks.build(recipe, run.checkpoint is None)
        if arguments.dry_run:
            print(networks.describe(recipe, built, run.photographs, _whole_calls(run.steps)))
            return 0
    from .jax_data import Store
    from .jax_trainer import JaxTrainer

    with contextlib.closing(callbacks.StopOnSignal()) as stopper:
        with as_usage_errors():
            store = Store.read(recipe, run.photographs)
        device = jax.devices()[0].device_kind
        print(
            f"{store.describe()} on {device} after {time.monotonic() - started:.0f} s", flush=True
        )
        total = _whole_calls(run.steps)
        trainer = JaxTrainer(recipe, built, store, total, STEPS_A_CALL)
        if run.checkpoint is not None:
            with as_usage_errors():
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
        with as_usage_errors():
            run = runs.open_run_dir(run, arguments, open_files)
            hooks = [
                stopper,
                *runs.make_callbacks(trainer, run, arguments, SAVE_SECONDS, tensorboard=False),
                *runs.stop_after_minutes(arguments, started),
            ]
        with as_training_errors(run):
            done = trainer.run(itertools.repeat(True), total, run.steps_per_epoch, hooks)
        if run.checkpoint is not None and done == run.checkpoint.step:
            # An earlier process may have ended between a checkpoint and its weights.
            trainer.save_generator(run.directory.weights)
    runs.report(run, done, hooks, PROGRAM)
    return 128 + stopper.received if stopper.received is not None else 0


def _whole_calls(steps: int) -> int:
    return -(-steps // STEPS_A_CALL) * STEPS_A_CALL


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    # Keras imports TensorFlow to seed it, under any backend: seconds, and lines on stderr.
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    sys.exit(main())
