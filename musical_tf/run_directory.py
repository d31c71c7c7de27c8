"""The folder of a training run: names, readers and writers of its files. Standard library only."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .files import write_whole

WEIGHTS = "generator.keras"
"""Weights of the last checkpoint, averaged where the recipe averages."""
BEST_WEIGHTS = "best.keras"
"""Weights of the best validation."""


class RunDirectory:
    """What a run leaves, by name.

    Args:
        path: The folder, or a `.keras` file in it. The folder need not exist.

    Attributes:
        path: The folder.
        recipe_file: What is trained and how, JSON.
        weights, best_weights: `WEIGHTS` and `BEST_WEIGHTS`.
        log, table: Every term of a step, as JSON lines and as CSV.
        validation: Metrics on the val split, CSV.
        time_file: Duration of each part of the run, JSON.
        photographs_file: Number and hash of the photographs, JSON; the first runs under JAX.
        skipped_file: Photographs that could not be used.
        lock_file: Held while a process trains.
        checkpoints, samples, tensorboard: Folders.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        self.path = path.parent if path.suffix == ".keras" else path
        self.recipe_file = self.path / "recipe.json"
        self.weights = self.path / WEIGHTS
        self.best_weights = self.path / BEST_WEIGHTS
        self.log = self.path / "log.jsonl"
        self.table = self.path / "log.csv"
        self.validation = self.path / "validation.csv"
        self.time_file = self.path / "time.json"
        self.photographs_file = self.path / "photographs.json"
        self.skipped_file = self.path / "skipped.txt"
        self.lock_file = self.path / ".lock"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"

    @property
    def is_run(self) -> bool:
        """Whether a recipe is there."""
        return self.recipe_file.is_file()

    def recipe(self) -> dict[str, Any]:
        """The recipe as JSON has it.

        Raises `FileNotFoundError` if the folder has none, `ValueError` if it is no JSON object.
        """
        return self._read(self.recipe_file, dict)

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Writes the recipe whole or not at all."""
        write_whole(self.recipe_file, json.dumps(recipe, indent=2, allow_nan=False) + "\n")

    def times(self) -> list[dict[str, float]]:
        """The parts of the run: `from_step`, `to_step`, `seconds`, `cpu_seconds` of each.

        Raises as `recipe`.
        """
        return self._read(self.time_file, list)

    def write_times(self, parts: Iterable[Mapping[str, float]]) -> None:
        """Writes `times` whole or not at all."""
        write_whole(self.time_file, json.dumps(list(parts), indent=1) + "\n")

    def duration(self) -> dict[str, float | None]:
        """Finished "steps", "minutes" of the clock and "cpu_minutes" of all cores.

        Each is None where the run keeps no record. Raises `ValueError` if the record holds no step.
        """
        try:
            parts = self.times()
        except FileNotFoundError:
            names = [path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*")]
            steps = max((int(name) for name in names if name.isdigit()), default=None)
            return {"steps": steps, "minutes": None, "cpu_minutes": None}
        try:
            return {
                "steps": int(parts[-1]["to_step"]),
                "minutes": sum(part["seconds"] for part in parts) / 60,
                "cpu_minutes": sum(part["cpu_seconds"] for part in parts) / 60,
            }
        except (ValueError, OverflowError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{self.time_file} must record a part of a run: {error!r}") from error

    def validations(self) -> list[dict[str, float]]:
        """`step` and the metrics of each validation, see `training.validation`; empty without one.

        Raises `ValueError` if a line is no row of numbers, or `step` or `psnr` is missing.
        """
        if not self.validation.is_file():
            return []
        try:
            table = csv.DictReader(self.validation.read_text(encoding="utf-8").splitlines())
            rows = [{k: float(v) for k, v in row.items()} for row in table]
        except (csv.Error, TypeError, ValueError) as error:
            raise ValueError(f"{self.validation} must hold a number a column: {error}") from error
        for name in ("step", "psnr") if rows else ():
            if name not in rows[0]:
                raise ValueError(f"{self.validation} must have the column {name}, got none")
        return rows

    def losses(self) -> list[dict[str, float]]:
        """The log: `step` and every term of each line. A torn last line is left out.

        Raises `FileNotFoundError` if the folder has no log.
        """
        rows: list[dict[str, float]] = []
        if not self.log.is_file():
            raise FileNotFoundError(f"{self.path} is not a whole run: no {self.log.name}")
        for line in self.log.read_bytes().splitlines():
            try:
                row = json.loads(line)
                row["step"] + 0
            except (ValueError, RecursionError, KeyError, TypeError):
                break
            rows.append(row)
        return rows

    def photographs(self) -> str | None:
        """How many photographs the run saw and a hash of their names; None if not recorded."""
        manifests = sorted(self.checkpoints.glob("step-*/manifest.json"))
        if self.photographs_file.is_file():
            return self._read(self.photographs_file, dict).get("photographs")
        return self._read(manifests[-1], dict)["recipe"].get("photographs") if manifests else None

    def note_skipped(self, skipped: Mapping[str, str]) -> None:
        """Adds photographs that could not be used, one `path: reason` a line.

        What an earlier part of the run could not use stays: this part may not have come to it yet.
        """
        file, unicode = self.skipped_file, ("utf-8", "surrogateescape")  # names may be any bytes
        before = file.read_text(*unicode).splitlines() if file.is_file() else []
        lines = sorted({*before, *(f"{path}: {reason}" for path, reason in skipped.items())})
        write_whole(file, "".join(f"{line}\n" for line in lines).encode(*unicode))

    def _read(self, file: Path, kind: type) -> Any:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path} is not a whole run: no {file.name}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} must be JSON: {error}") from error
        if not isinstance(content, kind):
            expected = "a JSON object" if kind is dict else "a JSON list"
            raise ValueError(f"{file} must be {expected}, got {type(content).__name__}")
        return content
