"""One run: its folder, its checkpoints, and what is shown and written while it trains."""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from musical_tf.run_directory import RunDirectory

from . import callbacks, checkpoints, options, progress, samples, validation
from .data import pipeline
from .data.holes import HoleSource
from .data.photographs import Photographs
from .options import PROGRAM, UsageError
from .recipes import Recipe

SAMPLES = 8
"""Photographs on a sample sheet."""

VALIDATION_PHOTOGRAPHS = 64
"""Photographs of the val split that a validation measures, the first ones by name."""


@dataclass(frozen=True)
class Run:
    """What the command line asks for.

    Attributes:
        recipe: What is trained, and how.
        photographs: The training split.
        holes: Where holes come from.
        steps: Length of the whole run.
        identity: The recipe and which photographs there are; a checkpoint has to be of the same.
        checkpoint: Where the run continues; None for a new run.
        directory: Its folder; of a new run it is not made before `open_run_dir`.
    """

    recipe: Recipe
    photographs: Photographs
    holes: HoleSource
    steps: int
    identity: dict[str, Any]
    checkpoint: checkpoints.Checkpoint | None
    directory: RunDirectory

    @property
    def steps_per_epoch(self) -> Fraction:
        """Photographs / batch size, exactly."""
        return Fraction(len(self.photographs), self.recipe.batch_size)


def plan(
    arguments: argparse.Namespace, open_files: contextlib.ExitStack, is_chief: bool = True
) -> Run:
    """Resolves the recipe and opens the data, and the checkpoint of a run to continue.

    `open_files` takes the lock of a run to continue; `is_chief` says whether this process writes
    the run's folder.

    Raises:
        ValueError, OSError: If what is asked for cannot be.
    """
    stored = options.stored_recipe(arguments)
    recipe = options.continued(stored, arguments) if stored else options.resolved(arguments)
    photographs, holes = recipe.open_photographs("train"), recipe.open_masks()
    steps = recipe.total_steps(len(photographs))
    identity = dataclasses.asdict(recipe) | {"photographs": fingerprint(photographs)}
    directory, checkpoint = RunDirectory(arguments.run_dir or "runs"), None
    writes = is_chief and not arguments.dry_run
    if stored:
        if writes:
            open_files.enter_context(run_lock(directory))
        checkpoint = find_checkpoint(directory, identity)
        if checkpoint is not None and steps < checkpoint.step:
            raise UsageError(
                f"{arguments.run_dir} is at step {checkpoint.step} already, and the run would end "
                f"at step {steps}; increase --steps or --epochs"
            )
    elif writes and arguments.run_dir is not None:
        require_free(directory.path)
    return Run(recipe, photographs, holes, steps, identity, checkpoint, directory)


@contextlib.contextmanager
def run_lock(run: RunDirectory) -> Iterator[None]:
    """Holds a run's folder; the system releases the lock when the process ends, even by a kill.

    Raises:
        UsageError: If another process trains there.
    """
    lock = filelock.FileLock(run.lock_file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(
            f"--run-dir must be free, got {run.path}, where another process is training; wait for "
            "it to end, or choose another --run-dir"
        ) from error
    except NotImplementedError:
        print(f"{PROGRAM}: warning: {run.path} is on a file system without locks", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def open_run_dir(run: Run, arguments: argparse.Namespace, open_files: contextlib.ExitStack) -> Run:
    """Makes the run's folder, or finds that of a run to continue, and writes the recipe.

    Without `--run-dir` the run gets a new numbered folder in `runs/`. `open_files` takes the lock
    of a new folder.

    Raises:
        UsageError: If another run is there.
        OSError: If it cannot be written to.
    """
    if arguments.run_dir is None:
        recipe = run.recipe
        path = _next_run_dir(Path("runs"), f"{recipe.dataset}-{recipe.method}-{recipe.preset}")
        run = dataclasses.replace(run, directory=RunDirectory(path))
    directory = run.directory
    if not arguments.resume:
        require_free(directory.path)
        directory.path.mkdir(parents=True, exist_ok=True)
        open_files.enter_context(run_lock(directory))
        require_free(directory.path)  # again: another run may have started before the lock
    directory.write_recipe(dataclasses.asdict(run.recipe))
    return run


def require_free(path: Path) -> None:
    """Raises UsageError if a run is there already."""
    lock = RunDirectory(path).lock_file.name
    if path.is_dir() and any(each.name != lock for each in path.iterdir()):
        raise UsageError(
            f"{path} is not empty; continue its run with --resume, or choose another --run-dir"
        )


def _next_run_dir(parent: Path, name: str) -> Path:
    """Returns and makes `parent/0007-name`, one above the highest number there."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = (re.match(r"(\d{4,})-", path.name) for path in parent.iterdir())
    number = max((int(match[1]) for match in numbers if match), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            path = parent / f"{number:04d}-{name}"
            path.mkdir()
            return path


def fingerprint(photographs: Photographs) -> str:
    """Returns the number of photographs and a hash of their names: both decide the data order."""
    names = "\n".join("/".join(Path(path).parts[-2:]) for path in photographs.paths)
    digest = hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()
    return f"{len(photographs)} files, {digest[:12]}"


def find_checkpoint(run: RunDirectory, identity: dict[str, Any]) -> checkpoints.Checkpoint | None:
    """Returns the newest whole checkpoint of a run, None before the first.

    Raises:
        ValueError: If there are checkpoints and none is whole, or it is of another recipe.
    """
    checkpoint, torn = checkpoints.newest(run.checkpoints)
    for problem in torn:
        print(f"{PROGRAM}: warning: skipped an incomplete checkpoint: {problem}", file=sys.stderr)
    if checkpoint is None:
        if torn:
            raise ValueError(f"nothing to resume: no checkpoint in {run.checkpoints} is complete")
        print(f"no checkpoint in {run.checkpoints} yet, starting at step 0")
        return None
    # A checkpoint from before a key was known is of a run as the key's default has it.
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.default is not dataclasses.MISSING
    }
    saved = defaults | dict(checkpoint.manifest["recipe"])
    checkpoints.check_recipe(saved, identity, str(checkpoint.path))
    print(f"resuming from {checkpoint.path}")
    return checkpoint


def samples_of(
    recipe: Recipe, splits: tuple[str, ...], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first photographs of the first split that has usable ones, and their holes.

    `(N, H, W, 3)` uint8 RGB and `(N, H, W)` bool, N at most `count`. Raises FileNotFoundError or
    ValueError if no split has any.
    """
    source = recipe.open_masks()
    for split in splits:
        try:
            samples = pipeline.evaluation_samples(recipe.open_photographs(split), source)
            _, images, holes = zip(*itertools.islice(samples, count), strict=True)
            return np.stack(images), np.stack(holes)
        except (FileNotFoundError, ValueError):
            if split == splits[-1]:
                raise
    raise AssertionError("splits is empty")


def make_callbacks(
    trainer: Any,
    run: Run,
    arguments: argparse.Namespace,
    save_seconds: float = 900.0,
    tensorboard: bool = True,
) -> list[callbacks.Callback]:
    """Returns what a run shows and writes: progress, logs, validations, checkpoints, samples.

    `save_seconds` is the longest time between two checkpoints. `tensorboard` takes TensorFlow.
    """
    recipe, folder = run.recipe, run.directory
    times = callbacks.TimeLog(folder)

    def save(step: int) -> None:
        trainer.save(
            folder.checkpoints,
            step=step,
            epoch=step // run.steps_per_epoch,
            recipe=run.identity,
            keep=arguments.keep,
        )
        trainer.save_generator(folder.weights)
        times.write(step)

    bar = progress.ProgressBar if sys.stdout.isatty() else progress.ProgressLines
    hooks: list[callbacks.Callback] = [times, bar(run.steps, run.steps_per_epoch)]
    board = None
    if tensorboard:
        board = callbacks.TensorBoard(folder.tensorboard, every=max(10, arguments.log_every))
        hooks.append(board)
    if recipe.validate_every:
        val = samples_of(recipe, ("val",), VALIDATION_PHOTOGRAPHS)
        hooks.append(
            validation.Validation(folder, *val, recipe.validate_every, recipe.patience, board)
        )
    # Where the dataset has no test photographs, or none that can be used, those of training.
    shown = samples_of(recipe, ("test", "train"), SAMPLES)
    show = board.show if board else None
    return [
        *hooks,
        callbacks.LossLog(folder, arguments.log_every),
        callbacks.Saver(save, recipe.checkpoint_every, save_seconds),
        samples.SampleSheet(folder.samples, *shown, show, every=recipe.sample_every),
    ]


def stop_after_minutes(arguments: argparse.Namespace, started: float) -> list[callbacks.Callback]:
    """Returns what `--max-minutes` asks for, counted from `started`, a `time.monotonic()`."""
    if arguments.max_minutes is None:
        return []
    return [callbacks.StopAfter(started + 60.0 * arguments.max_minutes)]


def report(run: Run, done: int, hooks: Sequence[callbacks.Callback], command: str) -> None:
    """Prints how a run ended, the photographs that it could not use, and how to continue it."""
    folder = run.directory
    if run.photographs.skipped:
        print(f"{run.photographs.describe()}; all of them in {folder.skipped_file}")
        folder.note_skipped(run.photographs.skipped)
    judged = [each for each in hooks if isinstance(each, validation.Validation) and each.rows]
    for each in judged:
        print(f"best validation: {each.describe_best()}, weights in {folder.best_weights}")
    if any(each.exhausted for each in judged):
        print(
            f"stopped early at step {done} of {run.steps}: no better PSNR in "
            f"{run.recipe.patience} validations"
        )
    elif done < run.steps:
        again = f"{command} --run-dir {shlex.quote(str(folder.path))} --resume"
        print(f"stopped at step {done} of {run.steps}; continue with\n  {again}")
    else:
        print(f"done: {run.steps} steps, weights in {folder.weights}")
