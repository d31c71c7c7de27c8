"""Measures whether photographs arrive faster than a training step at 256 x 256 pixels takes them.

    python -m benchmarks.input_pipeline [--seconds 5] [--rounds 3]

1. Images a second of `training_pipeline`, decoded, resized, cropped, flipped and with their holes,
   every file read again: JPEGs of the sizes of CelebA, Places and Paris StreetView, and of 12
   megapixels; and from memory, as from the second epoch on.
2. Images a second of the steps of MUSICAL's presets, in float32 and in bfloat16.
3. The step fed by the pipeline against the step on a batch that is ready: the cost of reading for a
   run in which both share the processor.

The photographs are scikit-image's, cut and scaled to size. Writes `results/input_pipeline.json`.
"""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure, training_step
from training.data import datasets
from training.data.holes import open_masks
from training.data.photographs import CACHE_BYTES
from training.data.pipeline import SampleStream, training_pipeline

SIZE = 256
FILES = 64
STREET = "Paris StreetView, 936 x 537"
SOURCES = {
    # width, height, shorter side / image size, crop, holes
    "CelebA, 178 x 218": ((178, 218), 1.0, "center", "center"),
    "Places, 341 x 256": ((341, 256), 350 / 256, "random", "center"),
    STREET: ((936, 537), 350 / 256, "random", "center"),
    f"{STREET}, brush strokes": ((936, 537), 350 / 256, "random", "irregular"),
    "12 megapixels, 4000 x 3000": ((4000, 3000), 350 / 256, "random", "center"),
}
STEPS = {"lite, batch 16": ("lite", 16), "paper, batch 5": ("paper", 5)}
PRECISIONS = ("float32", "mixed_bfloat16")


def write_photographs(folder: Path, size: tuple[int, int], count: int = FILES) -> None:
    """Writes JPEGs of one size, no two alike."""
    from skimage import data

    folder.mkdir(parents=True)
    originals = [Image.fromarray(each()) for each in (data.astronaut, data.chelsea, data.coffee)]
    random = np.random.default_rng(0)
    for number in range(count):
        original = originals[number % len(originals)]
        part = 0.7 + 0.3 * random.random()
        width = min(original.width, original.height * size[0] / size[1]) * part
        height = width * size[1] / size[0]
        left = random.random() * (original.width - width)
        top = random.random() * (original.height - height)
        box = (left, top, left + width, top + height)
        photograph = original.resize(size, Image.Resampling.BICUBIC, box=box)
        photograph.save(folder / f"{number:03d}.jpg", quality=90)


def pipeline(folder: Path, source: str, batch: int, in_memory: bool):
    """The endless batches of one source."""
    _, ratio, crop, holes = SOURCES[source]
    photographs = datasets.open_dataset(
        *("folder", folder, "train", SIZE),
        shorter_side=round(ratio * SIZE),
        crop=crop,
        cache_bytes=CACHE_BYTES if in_memory else 0,
    )
    return training_pipeline(SampleStream(photographs, open_masks(holes, SIZE), 0), batch)


def arriving(folder: Path, source: str, in_memory: bool, seconds: float, batch: int = 16) -> float:
    """Images a second, after the first batches, from memory after two epochs."""
    stream = iter(pipeline(folder, source, batch, in_memory))
    for _ in range(2 * FILES // batch if in_memory else 4 + 2):
        next(stream)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(stream)["image"].numpy()
        count += batch
    return count / (time.perf_counter() - start)


def step_times(folder: Path, preset: str, batch: int, precision: str, rounds: int) -> dict:
    """Seconds of a step on a batch that is ready, and of one that the pipeline feeds."""
    from training.fit import repeatable

    with repeatable():
        case = training_step.Case("musical", preset, SIZE, batch, training_step.ALONE)
        trainer = training_step.trainer_of(case, precision)
        ready = training_step.batch_of(SIZE, batch)
        fed = iter(pipeline(folder, STREET, batch, in_memory=False))
        calls = {"ready": lambda: trainer.update(ready), "fed": lambda: trainer.update(next(fed))}
        seconds = measure.take_turns(calls, rounds)
    return {**seconds, "images_per_second": batch / seconds["ready"]["median"]}


def measure_all(seconds: float, rounds: int) -> dict[str, Any]:
    """Images a second of every source and every step."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {}
        for source, (size, *_) in SOURCES.items():
            folders[source] = Path(temporary) / f"{size[0]}x{size[1]}"
            if not folders[source].exists():
                write_photographs(folders[source], size)
        arrive = {
            f"{source}, {where}": arriving(folder, source, where == "from memory", seconds)
            for source, folder in folders.items()
            for where in ("from files", "from memory")
        }
        steps = {
            f"{name}, {precision}": step_times(folders[STREET], preset, batch, precision, rounds)
            for (name, (preset, batch)), precision in itertools.product(STEPS.items(), PRECISIONS)
        }
    return {"images_per_second": arrive, "steps": steps}


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """Arriving relative to the step that takes most, and fed relative to ready."""
    steps = measured["steps"]
    fastest = max(steps, key=lambda name: steps[name]["images_per_second"])
    most = steps[fastest]["images_per_second"]
    said = {
        f"{source}: images a second / of the step of {fastest}": value / most
        for source, value in measured["images_per_second"].items()
    }
    for name, found in steps.items():
        label = f"step of {name}: fed from files of 936 x 537 / on a batch that lies ready"
        said[label] = measure.ratio(found, "fed", "ready")
    return said


@measure.command(
    measure.argument("--seconds", type=float, default=5.0, help="for each source"), rounds=3
)
def main(options: argparse.Namespace) -> None:
    measured = measure_all(options.seconds, options.rounds)
    figures = {"times": measured, "ratios": ratios(measured)}
    measure.publish("input_pipeline", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
