"""Candidates over photographs and holes: figures of every image, and the images to show."""

import inspect
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ..data.datasets import open_dataset
from ..data.holes import HoleSource, open_masks
from ..data.photographs import Photographs
from ..data.pipeline import evaluation_samples
from . import baselines
from .sample import Sample
from .statistics import first_ranked, hole_bucket, worst_and_best

if TYPE_CHECKING:
    from .predictors import Predictor

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From images `(B, H, W, 3)` uint8 and holes `(B, H, W)` bool to filled images."""


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        name: Its key in the results and in the names of pictures.
        label: What a reader sees.
        kind: "run", "onnx" or "baseline".
        fill: The function.
        source: Run directory, named model or file; None of a baseline.
        predictor: What runs it; None of a baseline. The first call of a size compiles.
    """

    name: str
    label: str
    kind: str
    fill: Fill
    source: str | None = None
    predictor: "Predictor | None" = None


def baseline_candidates(names: Iterable[str]) -> list[Candidate]:
    """Baselines as candidates."""
    return [
        Candidate(name, baselines.LABELS[name], "baseline", _one_by_one(baselines.BASELINES[name]))
        for name in names
    ]


def _one_by_one(fill: Fill) -> Fill:
    def fill_batch(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
        return np.stack([fill(image, hole) for image, hole in zip(images, holes, strict=True)])

    return fill_batch


class EvaluationSet:
    """The photographs and holes that every method is measured on.

    Args:
        dataset, data_dir, split, image_size, shorter_side: See `datasets.open_dataset`.
        mask: See `holes.open_masks`.
        limit: Largest number of photographs, None for all.
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
        samples = evaluation_samples(self.photographs, self.holes)
        return itertools.islice(samples, self.count)

    def relative(self, path: str) -> str:
        """The path below the data directory: a record need not tell where somebody's disk is."""
        if self.data_dir is None:
            return Path(path).name
        relative = os.path.relpath(path, self.data_dir)
        return path if relative.startswith("..") else Path(relative).as_posix()

    def describe(self, protocols: Sequence[str], count: int) -> dict[str, Any]:
        """What the results say of the photographs, holes and metrics; `count` were measured."""
        from musical_tf.metrics import PROTOCOLS

        photographs = self.photographs
        definitions = {name: inspect.getdoc(PROTOCOLS[name]) or "" for name in protocols}
        return {
            "dataset": photographs.name,
            "data_dir": None if self.data_dir is None else str(self.data_dir),
            "split": photographs.split,
            "split_note": photographs.note,
            "image_size": self.image_size,
            "shorter_side": photographs.shorter_side,
            "resampling": photographs.resampling,
            "mask": self.mask,
            "count": count,
            "skipped": {self.relative(path): why for path, why in photographs.skipped.items()},
            "protocols": {name: text.partition("\n")[0] for name, text in definitions.items()},
        }


@dataclass
class Measured:
    """What `measure` found.

    Attributes:
        rows: One an image: file, hole_fraction, bucket, and metrics by method.
        samples: The worst and best by the first method's first metric, for showing.
        first: The first images of the split, for figures without a selection.
        seconds: Method -> seconds it took in all.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    first: list[Sample] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def measure(
    candidates: Sequence[Candidate],
    test: EvaluationSet,
    protocols: Sequence[str],
    batch_size: int,
    page_images: int,
    first: int = 0,
) -> Measured:
    """Measures every candidate on the same photographs and holes.

    Args:
        candidates: At least one; the first one's results order the samples.
        test: Photographs and holes.
        protocols: Names of `musical_tf.metrics.PROTOCOLS`.
        batch_size: Images at once.
        page_images: Samples to keep.
        first: Images to keep from the beginning of the split besides.

    Raises:
        ValueError: If no photograph can be read.
        RuntimeError: If a model fails.
    """
    from musical_tf.metrics import evaluate_pair

    measured = Measured(seconds={candidate.name: 0.0 for candidate in candidates})
    rows, kept = measured.rows, measured.samples
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("measuring", total=test.count)
        for paths, images, holes in _batches(test.samples(), batch_size):
            filled = {}
            for candidate in candidates:
                if not rows and candidate.predictor is not None:
                    # The first call compiles, which is no part of the time an image takes.
                    candidate.fill(images, holes)
                start = time.perf_counter()
                filled[candidate.name] = candidate.fill(images, holes)
                measured.seconds[candidate.name] += time.perf_counter() - start
            for i, path in enumerate(paths):
                predictions = {name: results[i] for name, results in filled.items()}
                fraction = float(holes[i].mean())
                metrics = {
                    name: evaluate_pair(images[i], result, holes[i], protocols)
                    for name, result in predictions.items()
                }
                kept.append(Sample(len(rows), images[i], holes[i], predictions))
                rows.append(
                    {
                        "file": test.relative(path),
                        "hole_fraction": fraction,
                        "bucket": hole_bucket(fraction),
                        "metrics": {
                            # JSON has no infinity: a result that equals the truth has no PSNR.
                            name: {k: v if math.isfinite(v) else None for k, v in values.items()}
                            for name, values in metrics.items()
                        },
                    }
                )
                if len(measured.first) < first:
                    measured.first.append(kept[-1])
            if len(kept) > 2 * page_images:
                ranking = first_ranked(candidates[0].name, rows[0])
                kept[:] = worst_and_best(rows, kept, ranking, page_images)
            progress.update(task, completed=len(rows))
    kept[:] = worst_and_best(rows, kept, first_ranked(candidates[0].name, rows[0]), page_images)
    return measured


def _batches(
    samples: Iterable[tuple[str, np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[tuple[str, ...], np.ndarray, np.ndarray]]:
    samples = iter(samples)
    while batch := list(itertools.islice(samples, size)):
        paths, images, holes = zip(*batch, strict=True)
        yield paths, np.stack(images), np.stack(holes)
