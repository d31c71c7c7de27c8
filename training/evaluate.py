"""Measures a trained run or an exported ONNX file on a dataset's photographs.

    python -m training.evaluate --dataset celeba --data-dir DIR --run runs/celeba --output DIR

writes into the output folder

* `results.json`: every number, per image and averaged, with what is needed to measure it again;
* `results.md`: the table, per protocol and per hole size;
* `index.html` and `images/`: input, result and truth side by side, worst or best first;
* `contact_sheet.png`: the worst and the best as one picture.

With `--attention-maps` the page also shows which known positions the holes were filled from. With
`--baselines` the same photographs and holes go through mean fill, Telea, Navier-Stokes and
PatchMatch too; without `--run` and `--onnx` through nothing else. Files appear when all of them are
finished, `results.json` last: where it is, the evaluation is whole.
"""

import argparse
import contextlib
import inspect
import json
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import attention_maps, baselines, provenance, report
from .datasets import DATASETS, SPLITS, evaluation_samples, open_dataset
from .masks import open_masks
from .predictors import OnnxPredictor, RunPredictor

FORMAT = "musical-tf evaluation 1"
"""Names the layout of `results.json`; another layout gets another number."""

DEFAULT_PROTOCOLS = ("authors", "hole", "lpips")
DEFAULT_IMAGE_SIZE = 256
"""Side in pixels where neither a model nor `--image-size` says one: the papers' own."""

ATTENTION_IMAGES = 8
"""How many images `--attention-maps` means without a number."""

FILES = ("index.html", "contact_sheet.png", "results.md", "results.json")
PICTURES = "images"

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images `(B, H, W, 3)` uint8 and holes `(B, H, W)` bool to filled images."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="musical-evaluate",
        description="Measure a trained run or an ONNX file: tables, a contact sheet and a page of "
        "the images side by side, worst first.",
    )
    model = parser.add_argument_group("what to measure (one of both, or --baselines alone)")
    model = model.add_mutually_exclusive_group()
    model.add_argument("--run", metavar="DIR", help="run directory written by training.fit")
    model.add_argument("--onnx", metavar="FILE", help="file written by export/to_onnx.py")
    parser.add_argument(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help=f"measure classical methods too: {', '.join(baselines.BASELINES)}; all without a name",
    )
    data = parser.add_argument_group("on which photographs")
    data.add_argument(
        "--dataset", metavar="NAME", help=f"{', '.join(DATASETS)}; default: the run's own"
    )
    data.add_argument("--data-dir", metavar="DIR", help="where the dataset is")
    data.add_argument("--split", default="test", metavar="NAME", help=", ".join(SPLITS))
    data.add_argument(
        "--image-size",
        type=_at_least(16),
        metavar="N",
        help=f"side in pixels; default: what the model was trained at, or {DEFAULT_IMAGE_SIZE}",
    )
    data.add_argument(
        "--shorter-side",
        type=_at_least(16),
        metavar="N",
        help="shorter side in pixels before the centre crop; default: the dataset's own",
    )
    data.add_argument(
        "--mask",
        metavar="center|box|irregular|DIR",
        help="holes; default: the run's own, or center",
    )
    data.add_argument("--limit", type=_at_least(1), metavar="N", help="only the first N images")
    parser.add_argument(
        "--protocol",
        nargs="+",
        metavar="NAME",
        help="definitions of the metrics: authors, hole, deepfill, lpips; "
        f"default: {' '.join(DEFAULT_PROTOCOLS)}",
    )
    parser.add_argument(
        "--batch-size", type=_at_least(1), default=8, metavar="N", help="images at once (8)"
    )
    parser.add_argument(
        "--page-images",
        type=_at_least(2),
        default=100,
        metavar="N",
        help="images on the page, half of them the worst and half the best (100)",
    )
    parser.add_argument(
        "--attention-maps",
        type=_at_least(2),
        nargs="?",
        const=ATTENTION_IMAGES,
        metavar="N",
        help="show for N images, half of them the worst and half the best, which known positions "
        f"the hole was filled from ({ATTENTION_IMAGES} without a number); needs --run",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments; None takes the process' own.

    Returns:
        0, 2 for bad usage or input, 1 for a failure while measuring, 130 when interrupted.
    """
    # TensorFlow's chatter would bury the one line that matters; what fails raises as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    command = shlex.join(["python", "-m", "training.evaluate", *argv])
    try:
        evaluation = Evaluation(args, command)
    except (OSError, ValueError) as error:
        return _fail(parser.prog, error, 2)
    except ModuleNotFoundError as error:
        if "pip install" in str(error):
            return _fail(parser.prog, error, 2)
        package = (error.name or str(error)).partition(".")[0]
        extra = "pip install 'musical-tf[train]' brings what this command needs"
        return _fail(parser.prog, f"the package {package} is not installed; {extra}", 2)
    try:
        results = evaluation.run()
    except KeyboardInterrupt:
        return _fail(parser.prog, "interrupted; nothing written", 130)
    except OSError as error:
        # A full disk fails in the middle of a file, and the error does not say of which.
        named = error.filename or not error.strerror
        return _fail(parser.prog, error if named else f"{args.output}: {error.strerror}", 1)
    except (ValueError, RuntimeError, MemoryError) as error:
        return _fail(parser.prog, error, 1)
    print(report.markdown(results))
    print(f"Page: {Path(args.output) / 'index.html'}")
    return 0


def _fail(program: str, error: BaseException | str, code: int) -> int:
    print(f"{program}: error: {error or type(error).__name__}", file=sys.stderr)
    return code


class Evaluation:
    """One evaluation: everything that can be wrong is found on construction, `run` measures.

    Args:
        args: What `build_parser` parsed.
        command: The command line, for the record.

    Raises:
        OSError, ValueError, ModuleNotFoundError: On bad input; the message names it.
    """

    def __init__(self, args: argparse.Namespace, command: str):
        self.command = command
        self.output = Path(args.output)
        _check_output(self.output)
        self.baselines = _choose_baselines(args.baselines)
        self.predictor = _open_model(args)
        recipe = {} if self.predictor is None else self.predictor.recipe
        trained_at = None if self.predictor is None else self.predictor.training_size
        self.image_size = args.image_size or trained_at or DEFAULT_IMAGE_SIZE
        if args.onnx and not (args.image_size or trained_at):
            raise ValueError(f"ONNX file {args.onnx}: it names no training size; give --image-size")
        dataset = args.dataset or recipe.get("dataset")
        if dataset is None or (args.dataset is None and dataset not in DATASETS):
            raise ValueError(f"--dataset is missing; choose from {', '.join(DATASETS)}")
        same = dataset == recipe.get("dataset")
        data_dir = args.data_dir or (recipe.get("data_dir") if same else None)
        shorter_side = args.shorter_side
        if shorter_side is None and same and self.image_size == recipe.get("image_size"):
            shorter_side = recipe.get("shorter_side")
        self.photographs = open_dataset(
            dataset,
            data_dir,
            args.split,
            self.image_size,
            shorter_side=shorter_side,
            # Every photograph is looked at once.
            cache_bytes=0,
        )
        self.data_dir = data_dir
        self.mask = str(args.mask or recipe.get("mask") or "center")
        self.holes = open_masks(self.mask, self.image_size)
        self.limit = args.limit
        self.batch_size = args.batch_size
        self.page_images = args.page_images
        self.protocols = _choose_protocols(args.protocol, self.image_size)
        self.source = args.run or args.onnx
        self.attention_maps = args.attention_maps
        if self.attention_maps is not None:
            self._check_attention_maps()

    def _check_attention_maps(self) -> None:
        """Raises ValueError where a generator would only after everything has been measured."""
        if not isinstance(self.predictor, RunPredictor):
            raise ValueError(
                "--attention-maps needs --run: an ONNX file tells nothing but its result"
            )
        blank = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        try:
            self.predictor.attention_maps(blank, self.holes.deterministic(0)[None])
        except ValueError as error:
            raise ValueError(f"--attention-maps: {error}") from error

    def run(self) -> dict[str, Any]:
        """Measures, writes the output folder and returns the results.

        Raises:
            OSError: If it cannot be written; what an earlier evaluation left there is untouched.
            ValueError: If not one photograph can be read.
            RuntimeError: If the model fails.
        """
        with _staging(self.output) as stage:
            results, samples = self._measure()
            report.write_page(stage, results, samples)
            report.contact_sheet(results, samples).save(stage / "contact_sheet.png")
            (stage / "results.md").write_text(report.markdown(results), encoding="utf-8")
            text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
            (stage / "results.json").write_text(text + "\n", encoding="utf-8")
            _publish(stage, self.output)
        return results

    def _methods(self) -> dict[str, tuple[str, Fill]]:
        """Name -> label and function; the model first."""
        methods: dict[str, tuple[str, Fill]] = {}
        if self.predictor is not None:
            label, ablation = self.predictor.label, self.predictor.recipe.get("ablation")
            if ablation:
                label += f", {ablation.replace('_', ' ')}"
            methods["model"] = (label, self.predictor.predict)
        for name in self.baselines:
            methods[name] = (baselines.LABELS[name], _one_by_one(baselines.BASELINES[name]))
        return methods

    def _measure(self) -> tuple[dict[str, Any], list[report.Sample]]:
        from musical_tf.metrics import evaluate_pair

        methods = self._methods()
        ranking = None
        seconds = dict.fromkeys(methods, 0.0)
        rows: list[dict[str, Any]] = []
        kept: list[report.Sample] = []
        samples = evaluation_samples(self.photographs, self.holes, self.image_size)
        if self.limit is not None:
            samples = _first(samples, self.limit)
        progress = _Progress(min(len(self.photographs), self.limit or len(self.photographs)))
        for number, (paths, images, holes) in enumerate(_batches(samples, self.batch_size)):
            filled = {}
            for name, (_, fill) in methods.items():
                if number == 0 and name == "model":
                    # The first call compiles, which is no part of the time an image takes.
                    fill(images, holes)
                start = time.perf_counter()
                filled[name] = fill(images, holes)
                seconds[name] += time.perf_counter() - start
            for i, path in enumerate(paths):
                fraction = float(holes[i].mean())
                measured = {
                    name: evaluate_pair(images[i], results[i], holes[i], self.protocols)
                    for name, results in filled.items()
                }
                rows.append(
                    {
                        "file": self._relative(path),
                        "hole_fraction": fraction,
                        "bucket": report.hole_bucket(fraction),
                        "metrics": {
                            name: {key: _finite(value) for key, value in metrics.items()}
                            for name, metrics in measured.items()
                        },
                    }
                )
                predictions = {name: results[i] for name, results in filled.items()}
                kept.append(report.Sample(len(rows) - 1, images[i], holes[i], predictions))
            if ranking is None:
                ranking = report.first_ranked(next(iter(methods)), rows[0])
            if len(kept) > 2 * self.page_images:
                kept = report.worst_and_best(rows, kept, ranking, self.page_images)
            progress.show(len(rows))
        progress.finish()
        shown = report.worst_and_best(rows, kept, ranking, self.page_images)
        if self.attention_maps is not None:
            self._add_attention_maps(
                rows, report.worst_and_best(rows, shown, ranking, self.attention_maps)
            )
        return self._describe(rows, methods, seconds), shown

    def _add_attention_maps(
        self, rows: list[dict[str, Any]], samples: Sequence[report.Sample]
    ) -> None:
        for sample in samples:
            maps = self.predictor.attention_maps(sample.image[None], sample.hole[None])
            sample.attention.update(maps)
            rows[sample.number]["attention"] = {
                name: attention_maps.summarize(scale) for name, scale in maps.items()
            }

    def _describe(
        self,
        rows: list[dict[str, Any]],
        methods: dict[str, tuple[str, Fill]],
        seconds: dict[str, float],
    ) -> dict[str, Any]:
        from musical_tf import __version__
        from musical_tf.metrics import PROTOCOLS

        described = []
        for name, (label, _) in methods.items():
            model = name == "model"
            described.append(
                {
                    "name": name,
                    "label": label,
                    "kind": self.predictor.kind if model else "baseline",
                    "source": str(self.source) if model else None,
                    "sha256": self.predictor.source_hash if model else None,
                    "seconds_per_image": seconds[name] / len(rows),
                    "aggregates": report.aggregate(rows, name),
                }
            )
        return {
            "format": FORMAT,
            "command": self.command,
            "version": __version__,
            **provenance.describe(),
            "dataset": self.photographs.name,
            "data_dir": None if self.data_dir is None else str(self.data_dir),
            "split": self.photographs.split,
            "split_note": self.photographs.note,
            "image_size": self.image_size,
            "shorter_side": self.photographs.shorter_side,
            "mask": self.mask,
            "batch_size": self.batch_size,
            "count": len(rows),
            "skipped": {
                self._relative(path): reason for path, reason in self.photographs.skipped.items()
            },
            "protocols": {
                name: inspect.getdoc(PROTOCOLS[name]).splitlines()[0] for name in self.protocols
            },
            "methods": described,
            "images": rows,
        }

    def _relative(self, path: str) -> str:
        """The path below the data directory: a record need not tell where somebody's disk is."""
        if self.data_dir is None:
            return Path(path).name
        relative = os.path.relpath(path, self.data_dir)
        return path if relative.startswith("..") else Path(relative).as_posix()


def _at_least(minimum: int) -> Callable[[str], int]:
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


def _choose_baselines(names: Sequence[str] | None) -> list[str]:
    chosen = [] if names is None else list(dict.fromkeys(names)) or list(baselines.BASELINES)
    for name in chosen:
        baselines.require(name)
    return chosen


def _choose_protocols(names: Sequence[str] | None, image_size: int) -> list[str]:
    from musical_tf.metrics import LPIPS, PROTOCOLS

    if names is None:
        return [n for n in DEFAULT_PROTOCOLS if n != "lpips" or image_size >= LPIPS.minimum_size]
    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    if "lpips" in names and image_size < LPIPS.minimum_size:
        raise ValueError(
            f"protocol lpips needs images of at least {LPIPS.minimum_size} pixels a side, "
            f"got --image-size {image_size}"
        )
    return list(dict.fromkeys(names))


def _open_model(args: argparse.Namespace) -> RunPredictor | OnnxPredictor | None:
    if args.run:
        return RunPredictor(args.run)
    if args.onnx:
        return OnnxPredictor(args.onnx)
    if args.baselines is None:
        raise ValueError("nothing to measure: give --run DIR, --onnx FILE or --baselines")
    return None


def _one_by_one(fill: Fill) -> Fill:
    def fill_batch(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return np.stack([fill(image, hole) for image, hole in zip(images, holes, strict=True)])

    return fill_batch


def _first(samples: Iterable, count: int) -> Iterator:
    for number, sample in enumerate(samples, start=1):
        yield sample
        if number == count:
            return


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


class _Progress:
    """A line on stderr: rewritten on a terminal, every tenth of the way elsewhere."""

    def __init__(self, total: int):
        self.total = total
        self.start = time.perf_counter()
        self.shown = 0
        self.terminal = sys.stderr.isatty()

    def show(self, done: int) -> None:
        if not self.terminal and done < self.total and done - self.shown < self.total / 10:
            return
        self.shown = done
        left = (time.perf_counter() - self.start) / done * max(self.total - done, 0)
        text = f"{done} / {self.total} images, {left:.0f} s left"
        print(f"\r{text}  " if self.terminal else text, end="", file=sys.stderr, flush=True)
        if not self.terminal:
            print(file=sys.stderr)

    def finish(self) -> None:
        if self.terminal:
            print(file=sys.stderr)


def _check_output(output: Path) -> None:
    """Refuses a folder in which publishing would overwrite what no evaluation wrote."""
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"--output {output}: not a folder")
    there = [name for name in (*FILES, PICTURES) if (output / name).exists()]
    if not there:
        return
    try:
        text = (output / "results.json").read_text(encoding="utf-8")
        ours = json.loads(text).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise FileExistsError(
            f"--output {output}: holds {', '.join(there)}, which no finished evaluation left; "
            "choose another folder"
        )


@contextlib.contextmanager
def _staging(output: Path) -> Iterator[Path]:
    """A hidden folder inside `output`, made before anything is measured and always removed.

    Inside rather than beside: the output may be a mount, whose sibling is another file system.
    """
    created = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".evaluation-", dir=output))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if created and not any(output.iterdir()):
            output.rmdir()


def _publish(stage: Path, output: Path) -> None:
    """Moves the finished files into place, `results.json` last."""
    # Without it first, so that a replacement cut short is not taken for either evaluation.
    (output / "results.json").unlink(missing_ok=True)
    if (output / PICTURES).exists():
        os.replace(output / PICTURES, stage / "earlier-images")
    os.replace(stage / PICTURES, output / PICTURES)
    for name in FILES:
        os.replace(stage / name, output / name)


if __name__ == "__main__":
    sys.exit(main())
