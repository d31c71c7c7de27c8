"""Trains a network.

    python -m training.fit --dataset celeba --data-dir DIR
    python -m training.fit --run-dir runs/NAME --resume

A run is a folder, see `musical_tf.run_directory`. `generator.keras` in it has the weights to use,
replaced with every checkpoint.
"""

import argparse
import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from musical_tf.command_line import import_quietly

from . import distribution, networks, options, runs
from .data import pipeline
from .distribution import Distribution
from .options import PROGRAM, UsageError
from .recipes import Recipe
from .runs import Run

if TYPE_CHECKING:
    from .callbacks import Callback
    from .trainer import Trainer


class TrainingError(RuntimeError):
    """Training ended before its time; says why and what is left of it. Exit code 1."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line on `argv`, by default the process' own; returns the exit code."""
    started = time.monotonic()
    try:
        arguments = options.make_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with as_usage_errors():
            options.check_numbers(arguments)
            options.check_data(arguments)  # before the seconds that TensorFlow takes to start
        import_quietly("tensorflow")
        with repeatable(), contextlib.ExitStack() as open_files:
            return fit(arguments, started, open_files)
    except UsageError as error:
        return fail(PROGRAM, error, 2)
    except KeyboardInterrupt:
        return fail(PROGRAM, "interrupted before training began, nothing was written", 130)
    except (TrainingError, OSError, ValueError) as error:
        return fail(PROGRAM, error, 1)


def fail(program: str, message: object, code: int) -> int:
    """Prints an error and returns the exit code."""
    print(f"{program}: error: {message}", file=sys.stderr)
    return code


def fit(arguments: argparse.Namespace, started: float, open_files: contextlib.ExitStack) -> int:
    """Does what the parsed command line says and returns the exit code.

    `--max-minutes` counts from `started`, a `time.monotonic()`; `open_files` takes the lock of the
    run's folder.

    Raises:
        UsageError: If what is asked for cannot be.
        TrainingError: If training fails.
    """
    import tensorflow as tf

    with as_usage_errors():
        cluster = _cluster(arguments)
        run = runs.plan(arguments, open_files, is_chief=cluster is None or cluster.index == 0)
        recipe = run.recipe
        has_gpu = bool(tf.config.get_visible_devices("GPU"))
        check_precision(recipe.precision, arguments.force_precision, has_gpu)
        if cluster is not None:
            distribution.check_batch_size(recipe.batch_size, cluster.size)
        if arguments.dry_run:
            if cluster is None:
                check_parts(recipe, _open_distribution(arguments, cluster))
            built = networks.build(recipe, initial=False)
            if recipe.init is not None and run.checkpoint is None:
                networks.start_from(built.generator, recipe.init)
            print(networks.describe(recipe, built, run.photographs, run.steps))
            return 0
    from . import checkpoints
    from .callbacks import StopOnSignal

    with contextlib.closing(StopOnSignal()) as stopper:
        with as_usage_errors():
            placement = _open_distribution(arguments, cluster)
            check_parts(recipe, placement)
            placement.require_agreement(_deciding(run))
            built = networks.build(recipe, run.checkpoint is None, placement)
            trainer = networks.make_trainer(recipe, built, run.steps, placement)
            if run.checkpoint is not None:
                checkpoints.restore(run.checkpoint, trainer.state())
            if placement.processes > 1:
                # Files of the same name need not be the same on every machine.
                placement.require_agreement(_digests(trainer.state()))
            hooks: list[Callback] = [stopper]
            if placement.is_chief:
                # Last: a run that cannot be built must not leave a folder in the next try's way.
                run = runs.open_run_dir(run, arguments, open_files)
                hooks += runs.make_callbacks(trainer, run, arguments)
        hooks += runs.stop_after_minutes(arguments, started)
        if placement.strategy is not None:
            print(placement.describe())
        print(f"{run.photographs.describe()}\nrun folder {run.directory.path}", flush=True)
        done = train(trainer, run, hooks)
        if placement.is_chief and run.checkpoint is not None and done == run.checkpoint.step:
            # An earlier process may have ended between a checkpoint and its weights.
            trainer.save_generator(run.directory.weights)
        placement.wait()
    if placement.is_chief:
        command = f"python -m {__package__}.fit"
        for name in ("strategy", "replicas"):
            if (value := getattr(arguments, name)) not in ("none", None):
                command += f" --{name} {value}"
        runs.report(run, done, hooks, command)
    return 128 + stopper.received if stopper.received is not None else 0


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Inside the block, a run on processors gives the same bits every time.

    Two things would not, both by the order of a sum's terms, which decides its last bit:
    * a sum of three gradients or more takes them as they become ready, with several operations at
      once. One at a time then, each on all cores; unless TF_NUM_INTEROP_THREADS says otherwise, or
      there is a GPU, where kernels of cuDNN are not repeatable anyway.
    * the graph's arithmetic rewriting orders terms by where the process happens to lie in memory.
    """
    import tensorflow as tf

    if "TF_NUM_INTEROP_THREADS" not in os.environ and not tf.config.list_physical_devices("GPU"):
        # In a larger program TensorFlow may be running already, and cannot be told any more.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_inter_op_parallelism_threads(1)
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    try:
        yield
    finally:
        rewriting = before.get("arithmetic_optimization", True)
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": rewriting})


def _cluster(arguments: argparse.Namespace) -> distribution.Cluster | None:
    """Returns the processes of a multiworker run, None of any other."""
    distribution.check_strategy(arguments.strategy, arguments.replicas)
    if arguments.strategy != "multiworker":
        return None
    cluster = distribution.read_cluster(os.environ.get("TF_CONFIG"))
    if arguments.run_dir is None:
        raise UsageError(
            "--strategy multiworker needs --run-dir, a folder that every machine sees under this "
            "name: the first process writes there, and all of them resume from there"
        )
    return cluster


def _open_distribution(
    arguments: argparse.Namespace, cluster: distribution.Cluster | None
) -> Distribution:
    import tensorflow as tf

    addresses = ", ".join(cluster.addresses) if cluster else ""
    if cluster is not None:
        print(f"waiting for {addresses}, this is number {cluster.index}", flush=True)
    try:
        return distribution.open_distribution(arguments.strategy, arguments.replicas, cluster)
    except (RuntimeError, tf.errors.OpError) as error:
        if cluster is None:
            raise UsageError(str(error)) from error
        raise TrainingError(
            f"cannot join the processes of TF_CONFIG, {addresses}, as number {cluster.index} "
            f"({_first_line(error)}); is its port free, are the others running?"
        ) from error


def check_parts(recipe: Recipe, placement: Distribution) -> None:
    """Raises ValueError if the replicas cannot share the recipe's batch, or its parts, equally."""
    _, count = placement.local_part(recipe.batch_size)
    each = count * placement.processes // placement.replicas
    if each % recipe.gradient_accumulation:
        raise ValueError(
            f"gradient_accumulation {recipe.gradient_accumulation} must divide the {each} "
            f"photographs that each of {placement.replicas} replicas has of a batch"
        )


def _deciding(run: Run) -> dict[str, Any]:
    """Returns what has to be the same in every process of a run."""
    from . import checkpoints

    found = run.checkpoint
    values = checkpoints.flat_recipe(run.identity) | {"steps": run.steps}
    values["the checkpoint in --run-dir"] = found and dict(found.manifest["files"])
    return values


def _digests(state: dict[str, list]) -> dict[str, str]:
    """Returns a hash of every part of a trainer's state."""
    digests = {}
    for name, variables in state.items():
        digest = hashlib.sha256()
        for variable in variables:
            digest.update(variable.numpy().tobytes())
        digests[f"the state {name!r} to start from"] = digest.hexdigest()
    return digests


def _first_line(error: Exception) -> str:
    """Returns TensorFlow's message without the operations' names it puts around it."""
    text = str(getattr(error, "message", error)).strip()
    text = re.sub(r"\{\{function_node [^}]*\}\}\s*", "", text)
    # Of a failed reduction, where in our code it stands comes first.
    aborted = re.search(r"Collective ops is aborted by: (.+)", text)
    text = aborted[1] if aborted else text.split("\n", 1)[0]
    return re.sub(r"\s*\[Op:\w+\].*", "", text).rstrip(" :")


@contextlib.contextmanager
def as_usage_errors() -> Iterator[None]:
    """Until the first step, every error is one of what was asked for."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def check_precision(precision: str, forced: bool, has_gpu: bool) -> None:
    """Raises UsageError for mixed_float16 without a GPU; names what works instead."""
    if precision == "mixed_float16" and not forced and not has_gpu:
        raise UsageError(
            "mixed_float16 needs a GPU, and none was found; use float32 or "
            "mixed_bfloat16, or --force-precision to train slowly"
        )


@contextlib.contextmanager
def as_training_errors(run: Run) -> Iterator[None]:
    """While a run trains, an error of our own ends it, and names the last good checkpoint."""
    try:
        yield
    except (OSError, ValueError, ArithmeticError) as error:
        raise TrainingError(f"{error}. {_last_good(run)}") from error


def train(trainer: "Trainer", run: Run, hooks: Sequence["Callback"]) -> int:
    """Trains until the recipe is done, the time is up or a signal comes; returns the step.

    Raises:
        TrainingError: Whatever ended it before its time; names the last good checkpoint.
    """
    import tensorflow as tf

    recipe = run.recipe
    try:
        with as_training_errors(run):
            part = trainer.placement.local_part(recipe.batch_size)
            stream = pipeline.SampleStream(
                run.photographs, run.holes, recipe.seed, recipe.zoom, recipe.jitter
            )
            batches = pipeline.training_pipeline(
                stream, recipe.batch_size, trainer.finished, recipe.workers or None, part
            )
            return trainer.run(batches, run.steps, run.steps_per_epoch, hooks)
    except tf.errors.ResourceExhaustedError as error:
        reason = (
            f"out of memory at batch size {recipe.batch_size} and {recipe.image_size} pixels; "
            "lower --batch-size or --image-size, or split a batch into parts with --set "
            "gradient_accumulation=N"
        )
        raise TrainingError(f"{reason}. {_last_good(run)}") from error
    except tf.errors.OpError as error:
        reason = distribution.explain(_first_line(error), error, trainer.placement)
        raise TrainingError(f"{reason}. {_last_good(run)}") from error


def _last_good(run: Run) -> str:
    from . import checkpoints

    checkpoint, _ = checkpoints.newest(run.directory.checkpoints)
    where = checkpoint.path if checkpoint else "there is none yet"
    return f"Last good checkpoint: {where}"


if __name__ == "__main__":
    sys.exit(main())
