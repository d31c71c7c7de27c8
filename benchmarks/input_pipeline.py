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
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure, models, training_step
from benchmarks.training_step import Case
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
STEPS = {"lite, batch 16": Case("lite", SIZE, 16), "paper, batch 5": Case("paper", SIZE, 5)}
PRECISIONS = ("float32", "mixed_bfloat16")


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


def step_times(folder: Path, case: Case, precision: str, rounds: int) -> dict[str, Any]:
    """Seconds of a step on a batch that is ready, and of one that the pipeline feeds."""
    from training.fit import repeatable

    with repeatable():
        trainer = training_step.trainer_of(case, precision)
        ready = training_step.batch_of(case)
        fed = iter(pipeline(folder, STREET, case.batch, in_memory=False))
        calls = {"ready": lambda: trainer.update(ready), "fed": lambda: trainer.update(next(fed))}
        seconds = measure.take_turns(calls, rounds)
    return {**seconds, "images_per_second": case.batch / seconds["ready"]["median"]}


@measure.command(
    measure.argument("--seconds", type=float, default=5.0, help="for each source"), rounds=3
)
def main(options: argparse.Namespace) -> None:
    arrive, steps, said = {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        for source, (size, *_) in SOURCES.items():
            folder = Path(temporary) / f"{size[0]}x{size[1]}"
            if not folder.exists():
                models.write_photographs(folder, size, FILES)
            for place in ("from files", "from memory"):
                rate = arriving(folder, source, place == "from memory", options.seconds)
                arrive[f"{source}, {place}"] = rate
        street = Path(temporary) / "936x537"
        for name, case in STEPS.items():
            for precision in PRECISIONS:
                found = step_times(street, case, precision, options.rounds)
                steps[f"{name}, {precision}"] = found
    fastest = max(steps, key=lambda name: steps[name]["images_per_second"])
    for source, rate in arrive.items():
        label = f"{source}: images a second / of the step of {fastest}"
        said[label] = rate / steps[fastest]["images_per_second"]
    for name, found in steps.items():
        label = f"step of {name}: fed from files of 936 x 537 / on a batch that lies ready"
        said[label] = measure.ratio(found, "fed", "ready")
    times = {"images_per_second": arrive, "steps": steps}
    measure.publish("input_pipeline", options.command, {"times": times, "ratios": said})


if __name__ == "__main__":
    sys.exit(main())
