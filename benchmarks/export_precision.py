"""Measures what each precision of the ONNX file costs: bytes, gray levels, decibels and time.

    python -m benchmarks.export_precision --run runs/lite --data-dir data/celeba

One generator is exported in every precision and fills photographs of its test split under the
recipe's holes. Each file is compared with Keras inside the holes, and with the photographs. Then
all files take turns on one image of 256 x 256 with the center hole, on the processor. The float32
file takes two turns; the difference between them is the noise.

Writes `results/export_precision.json`, and `python -m benchmarks.publish_results tables` from it
docs/onnx.md.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, models

TIMED_SIDE = 256
BATCH = 10

Run = Callable[[np.ndarray, np.ndarray], Any]


def held_out(run: Path, data_dir: str | None, count: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """The first photographs of the recipe's test split: the recipe, images, and holes as bool."""
    from musical_tf.run_directory import RunDirectory
    from training.evaluation.measuring import EvaluationSet

    recipe = RunDirectory(run).recipe()
    described = {key: recipe[key] for key in ("dataset", "method", "preset", "image_size", "mask")}
    names = recipe["dataset"], data_dir or recipe["data_dir"], "test", recipe["image_size"]
    test = EvaluationSet(*names, None, recipe["mask"], count)
    _, images, holes = (np.stack(each) for each in zip(*test.samples(), strict=True))
    return {**described, "photographs": len(images)}, images, holes


def quality(results: np.ndarray, images: np.ndarray, holes: np.ndarray, reference: np.ndarray):
    """Differences from `reference` in the holes, in gray levels, and from the photographs in dB."""
    from musical_tf.metrics import authors_metrics

    difference = np.abs(results[holes].astype("int16") - reference[holes])
    metrics = [authors_metrics(*each) for each in zip(images, results, holes, strict=True)]
    return {
        "grey_levels_max": int(difference.max()),
        "grey_levels_mean": float(difference.mean()),
        "psnr": float(np.mean([each["authors/psnr"] for each in metrics])),
        "ssim": float(np.mean([each["authors/ssim"] for each in metrics])),
        "known_pixels_exact": bool(np.array_equal(results[~holes], images[~holes])),
    }


def in_batches(run: Run, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    masks = holes.astype("uint8") * 255
    parts = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    outputs = [run(images[part], masks[part])["inpainted"] for part in parts]
    return np.concatenate([np.asarray(each) for each in outputs])


@measure.command(
    measure.argument("--run", required=True, type=Path, metavar="DIR", help="run directory"),
    measure.argument("--data-dir", metavar="DIR", help="default: the recipe's own"),
    measure.argument("--photographs", type=measure.at_least(1), default=100, metavar="N"),
    rounds=40,
)
def main(options: argparse.Namespace) -> None:
    from export import command_line, convert, parity, precision, serving_module

    command_line.quiet_tensorflow()
    described, images, holes = held_out(options.run, options.data_dir, options.photographs)
    inpaint = serving_module.load_inpainting(options.run)
    model = convert.build_model(inpaint)
    found = {each: precision.in_precision(model, each) for each in precision.PRECISIONS}
    runtimes = {label: parity.onnx_runtime(each) for label, each in found.items()}
    image = np.random.default_rng(0).integers(0, 256, (1, TIMED_SIDE, TIMED_SIDE, 3), "uint8")
    mask = models.square_hole(TIMED_SIDE, TIMED_SIDE // 2)
    timed = {**runtimes, "again": parity.onnx_runtime(model)}
    calls = {label: partial(run, image, mask) for label, run in timed.items()}
    seconds = measure.take_turns(calls, options.rounds)
    ratios = {
        label: {kind: value / seconds["float32"][kind] for kind, value in each.items()}
        for label, each in seconds.items()
    }
    reference = in_batches(inpaint.outputs, images, holes)
    files = {
        label: {
            "bytes": each.ByteSize(),
            "nodes": len(each.graph.node),
            **quality(in_batches(runtimes[label], images, holes), images, holes, reference),
            "time_of_float32": ratios[label],
        }
        for label, each in found.items()
    }
    timing = {"timed_side": TIMED_SIDE, "rounds": options.rounds, "float32_again": ratios["again"]}
    figures = {**described, **timing, "files": files}
    measure.publish("export_precision", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
