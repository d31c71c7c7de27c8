"""What `training.evaluate` and `training.compare` share: methods over photographs, into a folder.

A method is a function from images and holes to filled images. `measure` takes all of them over the
same photographs and holes and keeps a row an image; `OutputFolder` lets the files about it appear
together; `run_command` turns what can go wrong into one line and an exit code.
"""

import argparse
import contextlib
import inspect
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import open_dataset
from ..data.holes import HoleSource, open_masks
from ..data.listing import SPLITS
from ..data.photographs import Photographs
from ..data.pipeline import evaluation_samples
from . import baselines, provenance, report

DEFAULT_IMAGE_SIZE = 256
"""Side in pixels where neither a model nor `--image-size` says one: the papers' own."""

PICTURES = "images"
"""The folder of an output folder that holds the page's pictures."""

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images `(B, H, W, 3)` uint8 and holes `(B, H, W)` bool to filled images."""


# --- command lines --------------------------------------------------------------------------------


def at_least(minimum: int) -> Callable[[str], int]:
    """An argument type: whole numbers from `minimum` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < minimum:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}, got {text!r}"
            )
        return value

    return whole_number


def add_data_arguments(
    parser: argparse.ArgumentParser, whose: str, datasets: Iterable[str]
) -> None:
    """Adds the flags that say which photographs and holes.

    Args:
        parser: The command line.
        whose: Whose own values are the defaults, for the help.
        datasets: Their names.
    """
    data = parser.add_argument_group("on which photographs")
    data.add_argument(
        "--dataset", metavar="NAME", help=f"{', '.join(datasets)}; default: {whose} own"
    )
    data.add_argument("--data-dir", metavar="DIR", help="where the dataset is")
    data.add_argument("--split", default="test", metavar="NAME", help=", ".join(SPLITS))
    data.add_argument(
        "--image-size",
        type=at_least(16),
        metavar="N",
        help=f"side in pixels; default: {whose} own, or {DEFAULT_IMAGE_SIZE}",
    )
    data.add_argument(
        "--shorter-side",
        type=at_least(16),
        metavar="N",
        help="shorter side in pixels before the center crop; default: the image size, as in the "
        "authors' test",
    )
    data.add_argument(
        "--mask",
        metavar="center|box|irregular|DIR",
        help=f"holes; default: {whose} own, or center",
    )
    data.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N images")


def add_measuring_arguments(
    parser: argparse.ArgumentParser, protocols: Sequence[str], page_images: int
) -> None:
    """Adds the flags that say what is measured and shown; the arguments are the defaults."""
    parser.add_argument(
        "--protocol",
        nargs="+",
        metavar="NAME",
        help="definitions of the metrics: authors, hole, deepfill, lpips; "
        f"default: {' '.join(protocols)}",
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), default=8, metavar="N", help="images at once (8)"
    )
    parser.add_argument(
        "--page-images",
        type=at_least(2),
        default=page_images,
        metavar="N",
        help="images on the page, half of them the worst and half the best of the first method "
        f"({page_images})",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")


def add_baselines_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--baselines`."""
    parser.add_argument(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help=f"measure classical methods too: {', '.join(baselines.BASELINES)}; all without a name",
    )


def choose_baselines(names: Sequence[str] | None) -> list[str]:
    """The baselines that `--baselines` asks for.

    Raises:
        ValueError, ModuleNotFoundError: As `baselines.require`.
    """
    chosen = [] if names is None else list(dict.fromkeys(names)) or list(baselines.BASELINES)
    for name in chosen:
        baselines.require(name)
    return chosen


def choose_protocols(
    names: Sequence[str] | None, default: Sequence[str], image_size: int
) -> list[str]:
    """The protocols that `--protocol` asks for; of the default those that the image size allows.

    Raises:
        ValueError: On an unknown name (lists the known ones), or images too small for LPIPS.
    """
    from musical_tf.metrics import LPIPS, PROTOCOLS

    if names is None:
        return [n for n in default if n != "lpips" or image_size >= LPIPS.minimum_size]
    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    if "lpips" in names and image_size < LPIPS.minimum_size:
        raise ValueError(
            f"protocol lpips needs images of at least {LPIPS.minimum_size} pixels a side, "
            f"got --image-size {image_size}"
        )
    return list(dict.fromkeys(names))


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    prepare: Callable[[argparse.Namespace], Callable[[], Any]],
    finish: Callable[[argparse.Namespace, Any], None],
) -> int:
    """Runs a command line in two parts, so that its exit code tells wrong input from a failure.

    Args:
        parser: Its parser; the arguments have an `output`.
        argv: Arguments.
        prepare: From parsed arguments to the work; finds whatever can be wrong with them.
        finish: Called with the arguments and what the work returned.

    Returns:
        0, 2 for bad usage or input, 1 for a failure while working, 130 when interrupted.
    """
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        work = prepare(args)
    except (OSError, ValueError) as error:
        return _fail(parser.prog, error, 2)
    except ModuleNotFoundError as error:
        if "pip install" in str(error):
            return _fail(parser.prog, error, 2)
        package = (error.name or str(error)).partition(".")[0]
        extra = "pip install 'musical-tf[train]' brings what this command needs"
        return _fail(parser.prog, f"the package {package} is not installed; {extra}", 2)
    try:
        results = work()
    except KeyboardInterrupt:
        return _fail(parser.prog, "interrupted; nothing written", 130)
    except OSError as error:
        # A full disk fails in the middle of a file, and the error does not say of which.
        named = error.filename or not error.strerror
        return _fail(parser.prog, error if named else f"{args.output}: {error.strerror}", 1)
    except (ValueError, RuntimeError, MemoryError) as error:
        return _fail(parser.prog, error, 1)
    finish(args, results)
    return 0


def _fail(program: str, error: BaseException | str, code: int) -> int:
    print(f"{program}: error: {error or type(error).__name__}", file=sys.stderr)
    return code


# --- measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """Something to measure.

    Args:
        name: Its key in the results and in the names of pictures.
        label: What a reader sees.
        kind: "run", "onnx" or "baseline".
        fill: The function.
        compiles: Whether the first call of a size takes longer than the others.
    """

    name: str
    label: str
    kind: str
    fill: Fill
    compiles: bool = False


def baseline_methods(names: Iterable[str]) -> list[Method]:
    """Baselines as methods."""
    return [
        Method(name, baselines.LABELS[name], "baseline", _one_by_one(baselines.BASELINES[name]))
        for name in names
    ]


def _one_by_one(fill: Fill) -> Fill:
    def fill_batch(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return np.stack([fill(image, hole) for image, hole in zip(images, holes, strict=True)])

    return fill_batch


class EvaluationSet:
    """The photographs and holes that every method is measured on.

    Args:
        dataset, data_dir, split, image_size, shorter_side: See `data.datasets.open_dataset`.
        mask: See `data.holes.open_masks`.
        limit: At most so many photographs, None for all.

    Raises:
        OSError, ValueError: If there are none; the message names what is missing.
    """

    def __init__(
        self,
        dataset: str,
        data_dir: str | None,
        split: str,
        image_size: int,
        shorter_side: int | None,
        mask: str,
        limit: int | None,
    ):
        self.photographs: Photographs = open_dataset(
            dataset,
            data_dir,
            split,
            image_size,
            shorter_side=shorter_side,
            # Every photograph is looked at once.
            cache_bytes=0,
        )
        self.data_dir = data_dir
        self.image_size = image_size
        self.mask = mask
        self.holes: HoleSource = open_masks(mask, image_size)
        self.count = min(len(self.photographs), limit or len(self.photographs))

    def samples(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Path, image `(H, W, 3)` uint8 and hole `(H, W)` bool of each, always in one order."""
        samples = evaluation_samples(self.photographs, self.holes, self.image_size)
        for _, sample in zip(range(self.count), samples, strict=False):
            yield sample

    def relative(self, path: str) -> str:
        """The path below the data directory: a record need not tell where somebody's disk is."""
        if self.data_dir is None:
            return Path(path).name
        relative = os.path.relpath(path, self.data_dir)
        return path if relative.startswith("..") else Path(relative).as_posix()

    def describe(self, protocols: Sequence[str], count: int) -> dict[str, Any]:
        """What the results say of the photographs, holes and metrics; `count` were measured."""
        from musical_tf.metrics import PROTOCOLS

        return {
            "dataset": self.photographs.name,
            "data_dir": None if self.data_dir is None else str(self.data_dir),
            "split": self.photographs.split,
            "split_note": self.photographs.note,
            "image_size": self.image_size,
            "shorter_side": self.photographs.shorter_side,
            "resampling": self.photographs.resampling,
            "mask": self.mask,
            "count": count,
            "skipped": {
                self.relative(path): reason for path, reason in self.photographs.skipped.items()
            },
            "protocols": {
                name: inspect.getdoc(PROTOCOLS[name]).splitlines()[0] for name in protocols
            },
        }


@dataclass
class Measured:
    """What `measure` found.

    Attributes:
        rows: One an image: file, hole_fraction, bucket, and metrics by method.
        samples: The worst and best by the first method's first metric, for showing.
        first: The first images of the split, for figures that nobody chose.
        seconds: Method -> seconds it took in all.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[report.Sample] = field(default_factory=list)
    first: list[report.Sample] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def measure(
    methods: Sequence[Method],
    test: EvaluationSet,
    protocols: Sequence[str],
    batch_size: int,
    page_images: int,
    first: int = 0,
) -> Measured:
    """Takes every method over the same photographs and holes.

    Args:
        methods: At least one; the first one's results order the samples.
        test: Photographs and holes.
        protocols: Names of `musical_tf.metrics.PROTOCOLS`.
        batch_size: Images at once.
        page_images: Samples to keep.
        first: Images to keep from the beginning of the split besides.

    Raises:
        ValueError: If not one photograph can be read.
        RuntimeError: If a model fails.
    """
    from musical_tf.metrics import evaluate_pair

    measured = Measured(seconds={method.name: 0.0 for method in methods})
    rows, kept = measured.rows, measured.samples
    ranking = None
    progress = Progress(test.count)
    for number, (paths, images, holes) in enumerate(_batches(test.samples(), batch_size)):
        filled = {}
        for method in methods:
            if number == 0 and method.compiles:
                # The first call compiles, which is no part of the time an image takes.
                method.fill(images, holes)
            start = time.perf_counter()
            filled[method.name] = method.fill(images, holes)
            measured.seconds[method.name] += time.perf_counter() - start
        for i, path in enumerate(paths):
            fraction = float(holes[i].mean())
            metrics = {
                name: evaluate_pair(images[i], results[i], holes[i], protocols)
                for name, results in filled.items()
            }
            rows.append(
                {
                    "file": test.relative(path),
                    "hole_fraction": fraction,
                    "bucket": report.hole_bucket(fraction),
                    "metrics": {
                        name: {key: _finite(value) for key, value in values.items()}
                        for name, values in metrics.items()
                    },
                }
            )
            predictions = {name: results[i] for name, results in filled.items()}
            sample = report.Sample(len(rows) - 1, images[i], holes[i], predictions)
            kept.append(sample)
            if len(measured.first) < first:
                measured.first.append(sample)
        if ranking is None:
            ranking = report.first_ranked(methods[0].name, rows[0])
        if len(kept) > 2 * page_images:
            kept[:] = report.worst_and_best(rows, kept, ranking, page_images)
        progress.show(len(rows))
    progress.finish()
    kept[:] = report.worst_and_best(rows, kept, ranking, page_images)
    return measured


def describe_program() -> dict[str, Any]:
    """Version, time, commit, hardware and software, for the results."""
    from musical_tf import __version__

    return {"version": __version__, **provenance.describe()}


def _batches(
    samples: Iterable[tuple[str, np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    batch: list[tuple[str, np.ndarray, np.ndarray]] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield _stack(batch)
            batch = []
    if batch:
        yield _stack(batch)


def _stack(batch: list[tuple[str, np.ndarray, np.ndarray]]):
    paths, images, holes = zip(*batch, strict=True)
    return list(paths), np.stack(images), np.stack(holes)


def _finite(value: float) -> float | None:
    """JSON knows no infinity: the PSNR of a result that equals the truth has no value."""
    return value if math.isfinite(value) else None


class Progress:
    """A line on stderr: rewritten on a terminal, every tenth of the way elsewhere."""

    def __init__(self, total: int):
        self.total = total
        self.start = time.perf_counter()
        self.shown = 0
        self.terminal = sys.stderr.isatty()

    def show(self, done: int) -> None:
        """Says how many are done and how long the rest takes."""
        if not self.terminal and done < self.total and done - self.shown < self.total / 10:
            return
        self.shown = done
        left = (time.perf_counter() - self.start) / done * max(self.total - done, 0)
        text = f"{done} / {self.total} images, {left:.0f} s left"
        print(f"\r{text}  " if self.terminal else text, end="", file=sys.stderr, flush=True)
        if not self.terminal:
            print(file=sys.stderr)

    def finish(self) -> None:
        """Ends the line."""
        if self.terminal:
            print(file=sys.stderr)


# --- the output folder ----------------------------------------------------------------------------


class OutputFolder:
    """Where results go: its files appear when all of them are finished, `results.json` last.

    Args:
        folder: The folder; need not exist.
        form: The `format` of the `results.json` that may be replaced.
        files: Names of the files, `results.json` the last.
        what: What leaves them, for the message.

    Raises:
        FileExistsError, NotADirectoryError: If publishing would overwrite what no such command
            wrote.
    """

    def __init__(self, folder: str | Path, form: str, files: Sequence[str], what: str):
        self.folder = Path(folder)
        self.files = tuple(files)
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"--output {folder}: not a folder")
        there = [name for name in (*files, PICTURES) if (self.folder / name).exists()]
        if there and self._format() != form:
            raise FileExistsError(
                f"--output {folder}: holds {', '.join(there)}, which no finished {what} left; "
                "choose another folder"
            )

    def _format(self) -> str | None:
        try:
            text = (self.folder / "results.json").read_text(encoding="utf-8")
            return json.loads(text).get("format")
        except (OSError, ValueError, AttributeError):
            return None

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder inside, made before anything is measured and always removed.

        Inside rather than beside: the output may be a mount, whose sibling is another file system.
        """
        created = not self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".evaluation-", dir=self.folder))
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if created and not any(self.folder.iterdir()):
                self.folder.rmdir()

    def publish(self, stage: Path, results: Mapping[str, Any]) -> None:
        """Writes `results.json` into the stage and moves the finished files into place, it last.

        Files that the stage lacks are removed: they would be another measurement's.
        """
        text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
        (stage / "results.json").write_text(text + "\n", encoding="utf-8")
        # Without it first, so that a replacement cut short is not taken for either evaluation.
        (self.folder / "results.json").unlink(missing_ok=True)
        if (self.folder / PICTURES).exists():
            os.replace(self.folder / PICTURES, stage / "earlier-images")
        if (stage / PICTURES).exists():
            os.replace(stage / PICTURES, self.folder / PICTURES)
        for name in self.files:
            if (stage / name).exists():
                os.replace(stage / name, self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
