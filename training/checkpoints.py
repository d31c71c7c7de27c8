"""Checkpoints that are whole or absent, and that know which run they belong to.

One folder per step, `step-00000123/`:
* `state.npz`: every variable that a later step depends on. Older runs under TensorFlow have
  `state.index` and `state.data-...` by `tf.train.Checkpoint` instead, which are still read;
* `manifest.json`: step, epoch, the recipe and its hash, and the size and SHA-256 of every other
  file.

The folder is written under a hidden name, flushed to disk, and renamed. A folder without a
manifest, or whose files do not match it, is torn: it is never read, and the one before it is used.
`tf.train.CheckpointManager` would keep the newest few; it verifies nothing.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.files import sha256

from .recipes import FREE_TO_CHANGE

FORMAT = 1

_FOLDER = re.compile(r"step-(\d{8,})")
_MANIFEST = "manifest.json"
_STATE = "state.npz"

State = Mapping[str, Sequence[Any]]
"""Named lists of TensorFlow's variables, or of arrays."""


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


def save(
    folder: Path, state: State, *, step: int, epoch: int, recipe: Mapping[str, Any], keep: int = 3
) -> Path:
    """Writes `folder/step-XXXXXXXX` whole, then deletes all but the newest `keep` up to it.

    `step` and `epoch` are finished ones, `recipe` decides what a step computes. A folder of a later
    step is torn, otherwise the run would have continued from it: it does not count as one to keep.

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
    arrays = {name: to_array(value) for name, value in _named(state).items()}
    try:
        partial.mkdir()
        with (partial / _STATE).open("xb") as file:
            np.savez(file, allow_pickle=False, **arrays)
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
        # A torn folder, or the same step of a run that was continued from before it.
        _remove(final)
        os.replace(partial, final)
        _flush_to_disk(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise
    not_later = [path for number, path in _folders(folder) if number <= step]
    for old in not_later[keep:]:
        _remove(old)
    return final


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Returns the newest whole checkpoint or None, and a line about each newer, torn folder."""
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
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
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


def read(checkpoint: Checkpoint, state: State) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of a checkpoint, named and ordered as `state`.

    Raises:
        ForeignCheckpointError: If the checkpoint holds other variables, or other shapes.
    """
    if (checkpoint.path / _STATE).is_file():
        with np.load(checkpoint.path / _STATE) as arrays:
            found = dict(arrays)
    else:
        found = _read_tensorflow(checkpoint.path / "state")
    shapes = {name: list(value.shape) for name, value in found.items()}
    wanted = {name: list(np.shape(value)) for name, value in _named(state).items()}
    names = sorted(shapes.keys() | wanted.keys())
    differing = [name for name in names if shapes.get(name) != wanted.get(name)]
    if differing:
        name = differing[0]
        raise ForeignCheckpointError(
            f"{checkpoint.path} does not fit this model: {len(differing)} variables differ, "
            f"the first is {name}: shape {shapes.get(name, 'absent')} in the checkpoint, "
            f"{wanted.get(name, 'absent')} in the model; training.fit and training.fit_jax cannot "
            "continue each other's runs"
        )
    return {
        name: [found[f"{name}/{n}"] for n in range(len(group))] for name, group in state.items()
    }


def restore(checkpoint: Checkpoint, state: State) -> None:
    """Assigns the checkpoint's values to TensorFlow's variables; raises as `read`."""
    for name, values in read(checkpoint, state).items():
        for variable, value in zip(state[name], values, strict=True):
            variable.assign(value)


def to_array(value: Any) -> np.ndarray:
    """Returns the value of a TensorFlow variable, on any number of replicas, or of an array."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def _read_tensorflow(stem: Path) -> dict[str, np.ndarray]:
    import tensorflow as tf

    reader, end = tf.train.load_checkpoint(str(stem)), "/.ATTRIBUTES/VARIABLE_VALUE"
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith(end)]
    return {
        name.removesuffix(end): reader.get_tensor(name)
        for name in names
        if not name.startswith("save_counter")
    }


def _named(state: State) -> dict[str, Any]:
    return {f"{name}/{n}": value for name, group in state.items() for n, value in enumerate(group)}


def check_recipe(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Refuses to continue a run under a recipe that computes something else.

    A key that one of both lacks is None there. `where` names what `saved` was read from.

    Raises:
        ForeignCheckpointError: Naming every key that differs and is not in `FREE_TO_CHANGE`.
    """
    before, after = flat_recipe(saved), flat_recipe(wanted)
    differing = [
        f"{key} is {json.dumps(before.get(key))} in the run, got {json.dumps(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if differing:
        raise ForeignCheckpointError(f"{where}: recipe mismatch: {'; '.join(differing)}")


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the recipe without the keys in `FREE_TO_CHANGE`."""
    return hashlib.sha256(json.dumps(flat_recipe(recipe), sort_keys=True).encode()).hexdigest()


def flat_recipe(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the recipe as one level of keys, `config.width`, without `FREE_TO_CHANGE`."""
    flat: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_recipe(value, f"{prefix}{key}.")
        elif key not in FREE_TO_CHANGE:
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
