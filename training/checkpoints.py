"""Checkpoints that are whole or absent, and that know which run they belong to.

One folder per step, `step-00000123/`:
* every variable that a later step depends on: `state.index`, `state.data-...` by
  `tf.train.Checkpoint`, or `state.npz` of a run under JAX;
* `manifest.json`: step, epoch, seed, the recipe and its hash, and the size and SHA-256 of every
  other file.

The folder is written under a hidden name, flushed to disk, and renamed. A folder without a
manifest, or whose files do not match it, is torn: it is never read, and the one before it is used.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .recipes import FREE_TO_CHANGE

if TYPE_CHECKING:
    import tensorflow as tf

from musical_tf.files import sha256

FORMAT = 1

_FOLDER = re.compile(r"step-(\d{8,})")
_MANIFEST = "manifest.json"


class TornCheckpointError(ValueError):
    """A checkpoint folder that is not whole."""


class ForeignCheckpointError(ValueError):
    """A checkpoint of another recipe."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and what its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.manifest["step"]


State = Mapping[str, Sequence[Any]]
"""Named lists of TensorFlow's variables, or of arrays."""


def write_variables(folder: Path, state: State) -> None:
    """Writes TensorFlow's variables."""
    import tensorflow as tf

    with _tensorflow_as_os_errors(folder):
        tf.train.Checkpoint(**state).write(str(folder / "state"))


def write_arrays(folder: Path, state: State) -> None:
    """Writes arrays."""
    flat = {f"{name}/{n}": value for name, group in state.items() for n, value in enumerate(group)}
    with (folder / "state.npz").open("xb") as file:
        np.savez(file, allow_pickle=False, **{name: np.asarray(v) for name, v in flat.items()})


def read_arrays(checkpoint: "Checkpoint", state: State) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of a checkpoint in the order of `state`.

    Raises:
        ForeignCheckpointError: If the checkpoint is none of arrays, or holds others.
    """
    file = checkpoint.path / "state.npz"
    if not file.is_file():
        raise ForeignCheckpointError(
            f"{checkpoint.path} must be a checkpoint of training.fit_jax, got one of training.fit"
        )
    with np.load(file) as arrays:
        found = {name: list(array.shape) for name, array in arrays.items()}
        wanted = {
            f"{name}/{n}": list(np.shape(value))
            for name, group in state.items()
            for n, value in enumerate(group)
        }
        _require_same_shapes(checkpoint, found, wanted)
        return {
            name: [arrays[f"{name}/{n}"] for n in range(len(group))]
            for name, group in state.items()
        }


def save(
    folder: Path,
    state: State,
    *,
    step: int,
    epoch: int,
    recipe: Mapping[str, Any],
    keep: int = 3,
    write: Callable[[Path, State], None] = write_variables,
) -> Path:
    """Writes `folder/step-XXXXXXXX` whole, then deletes all but the newest `keep` up to it.

    A folder of a later step is torn: otherwise the run would have gone on from it. It counts for
    nothing, so that it cannot push out a whole one.

    Args:
        folder: Where the checkpoints of one run live; made if missing.
        state: `Trainer.state()`, or that of `JaxTrainer`.
        step: Int, finished steps.
        epoch: Int, finished epochs.
        recipe: JSON-like dict that decides what a step computes.
        keep: Int >= 1, how many to keep.
        write: Writes the state into a folder.

    Returns:
        The new folder.

    Raises:
        OSError: If the disk is full or the folder cannot be written. Older checkpoints are then
            untouched.
    """
    final = folder / f"step-{step:08d}"
    partial = folder / f".partial-{final.name}"
    folder.mkdir(parents=True, exist_ok=True)
    # What a killed process was writing or deleting, whatever its step.
    for remains in (*folder.glob(".partial-step-*"), *folder.glob(".deleted-step-*")):
        shutil.rmtree(remains, ignore_errors=True)
    try:
        partial.mkdir()
        write(partial, state)
        manifest = {
            "format": FORMAT,
            "step": step,
            "epoch": epoch,
            "recipe_hash": recipe_hash(recipe),
            "recipe": recipe,
            "files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(partial.iterdir())
            },
        }
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in [*partial.iterdir(), partial]:
            _flush_to_disk(path)
        # Only a torn folder, or the same step of a run that was continued from before it, can stand
        # here.
        _remove(final)
        os.replace(partial, final)
        _flush_to_disk(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    not_later = [path for number, path in _folders(folder) if number <= step]
    for old in not_later[keep:]:
        _remove(old)
    return final


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Finds the newest whole checkpoint.

    Args:
        folder: Where the checkpoints of one run live. May be missing.

    Returns:
        The checkpoint, or None; and one line for each newer folder that is torn, saying what is
        wrong with it.
    """
    torn: list[str] = []
    for _, path in _folders(folder):
        try:
            return open_checkpoint(path), torn
        except TornCheckpointError as error:
            torn.append(str(error))
    return None, torn


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint's manifest and verifies every file against it.

    Raises:
        TornCheckpointError: If the manifest or a file is missing, or a file's size or hash is not
            the manifest's.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        files = {
            name: (int(expected["bytes"]), expected["sha256"])
            for name, expected in manifest["files"].items()
        }
        step, form = int(manifest["step"]), manifest["format"]
        recipe, said = dict(manifest["recipe"]), manifest["recipe_hash"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TornCheckpointError(f"{path}: no readable {_MANIFEST} ({error})") from error
    if form != FORMAT:
        raise TornCheckpointError(f"{path}: checkpoint format {form}, this version reads {FORMAT}")
    if path.name != f"step-{step:08d}" or recipe_hash(recipe) != said:
        raise TornCheckpointError(f"{path}: {_MANIFEST} was changed after it was written")
    for name, (expected_size, expected_hash) in files.items():
        file = path / name
        if not file.is_file():
            raise TornCheckpointError(f"{path}: {name} is missing")
        size = file.stat().st_size
        if size != expected_size:
            raise TornCheckpointError(f"{path}: {name} has {size} bytes instead of {expected_size}")
        if sha256(file) != expected_hash:
            raise TornCheckpointError(f"{path}: {name} is damaged (its SHA-256 differs)")
    return Checkpoint(path, manifest)


def restore(checkpoint: Checkpoint, state: Mapping[str, Sequence["tf.Variable"]]) -> None:
    """Assigns the checkpoint's values to `state`, every variable of both sides exactly once.

    Raises:
        ForeignCheckpointError: If the checkpoint holds other variables, or other shapes.
    """
    import tensorflow as tf

    if (checkpoint.path / "state.npz").is_file():
        raise ForeignCheckpointError(
            f"{checkpoint.path} must be a checkpoint of training.fit, got one of training.fit_jax"
        )
    stem = str(checkpoint.path / "state")
    found = {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): shape
        for name, shape in tf.train.list_variables(stem)
        if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") and not name.startswith("save_counter")
    }
    wanted = {
        f"{name}/{index}": variable.shape.as_list()
        for name, variables in state.items()
        for index, variable in enumerate(variables)
    }
    _require_same_shapes(checkpoint, found, wanted)
    with _tensorflow_as_os_errors(checkpoint.path):
        tf.train.Checkpoint(**state).read(stem).assert_consumed()


def _require_same_shapes(
    checkpoint: Checkpoint, found: Mapping[str, list[int]], wanted: Mapping[str, list[int]]
) -> None:
    differing = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    if differing:
        name = differing[0]
        raise ForeignCheckpointError(
            f"{checkpoint.path} does not fit this model: {len(differing)} variables differ, "
            f"the first is {name}: shape {found.get(name, 'absent')} in the checkpoint, "
            f"{wanted.get(name, 'absent')} in the model"
        )


def check_recipe(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuses to continue a run under a recipe that computes something else.

    Args:
        saved: Recipe of the checkpoint, JSON-like.
        wanted: Recipe of this run, JSON-like.
        where: What `saved` was read from, for the message.

    Raises:
        ForeignCheckpointError: Naming every key that differs and is not in `FREE_TO_CHANGE`.
    """
    before, after = _flatten(saved), _flatten(wanted)
    differing = [
        f"{key} is {_show(before.get(key, _ABSENT))} there, {_show(after.get(key, _ABSENT))} here"
        for key in sorted(before.keys() | after.keys())
        if key.split(".")[-1] not in FREE_TO_CHANGE
        # A key that is newer than the checkpoint is None where nobody asks for it.
        and before.get(key) != after.get(key)
    ]
    if differing:
        raise ForeignCheckpointError(f"{where} belongs to another recipe: {'; '.join(differing)}")


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the recipe without the keys in `FREE_TO_CHANGE`."""
    return hashlib.sha256(json.dumps(flat_recipe(recipe), sort_keys=True).encode()).hexdigest()


def flat_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe as one level of keys, `config.width`, without those in
    `FREE_TO_CHANGE`."""
    return {
        key: value
        for key, value in _flatten(recipe).items()
        if key.split(".")[-1] not in FREE_TO_CHANGE
    }


_ABSENT = object()


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            # Through JSON, so that a tuple equals the list it is read back as.
            flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return flat


def _folders(folder: Path) -> list[tuple[int, Path]]:
    """Returns (step, path) of every folder with a checkpoint's name, newest first."""
    if not folder.is_dir():
        return []
    matches = ((_FOLDER.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _remove(path: Path) -> None:
    """Deletes a folder, renamed first: an interruption leaves no half of it under its own name."""
    if path.exists():
        doomed = path.with_name(f".deleted-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _tensorflow_as_os_errors(path: Path) -> Iterator[None]:
    """TensorFlow reports a full or unreadable disk in its own classes; callers expect OSError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message.splitlines()[0]}") from error
