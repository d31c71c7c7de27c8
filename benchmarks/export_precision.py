"""Measures what each precision of the ONNX file costs: bytes, gray levels, decibels and time.

    python -m benchmarks.export_precision --run runs/lite --data-dir data/celeba

One generator is exported in every precision and fills photographs of its test split under the
recipe's holes. Each file is compared with Keras inside the holes, and with the photographs; ONNX
Runtime's dynamic int8 quantization, which also computes in int8, is added. Then all files take
turns on one image of 256 x 256 with the center hole, on the processor. The float32 file takes two
turns; the difference between them is the noise.

`--simplifiers` adds onnxslim and onnxsim where they are installed. Writes
`results/export_precision.json`; `python -m benchmarks.publish_results tables` writes docs/onnx.md.
"""

import argparse
import dataclasses
import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, models
from musical_tf import onnx_runtime

TIMED_SIDE = 256
BATCH = 10

Run = Callable[[np.ndarray, np.ndarray], Any]


def dynamic_int8(model: Any) -> Any:
    """ONNX Runtime's dynamic quantization of the convolutions and of products with weights.

    In unsigned int8: with signed weights its convolution takes twice the time on x86.
    """
    import onnx

    quantization = importlib.import_module(f"{onnx_runtime.load().__name__}.quantization")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        quantization.quantize_dynamic(
            source,
            target,
            weight_type=quantization.QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},  # the attention's products have no weights
        )
        return onnx.load(target)


def simplified(model: Any) -> dict[str, Any]:
    """The graph after each simplifier that is installed, label -> model."""
    found = {}
    for package, name in (("onnxslim", "slim"), ("onnxsim", "simplify")):
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        copy = type(model)()
        copy.CopyFrom(model)
        result = getattr(module, name)(copy)
        label = f"{package} {metadata.version(package)}"
        found[label] = result[0] if isinstance(result, tuple) else result
    return found


def held_out(run: Path, data_dir: str | None, count: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """The first photographs of the recipe's test split: the recipe, images, and holes as bool."""
    from musical_tf.run_directory import RunDirectory
    from training.data import pipeline
    from training.recipes import Recipe

    recipe = Recipe.of(RunDirectory(run).recipe())
    if data_dir:
        recipe = dataclasses.replace(recipe, data_dir=data_dir)
    samples = pipeline.evaluation_samples(recipe.open_photographs("test"), recipe.open_masks())
    pairs = [(image, hole) for (_, image, hole), _ in zip(samples, range(count), strict=False)]
    images, holes = (np.stack(each) for each in zip(*pairs, strict=True))
    keys = ("dataset", "method", "preset", "image_size", "mask")
    described = {key: getattr(recipe, key) for key in keys}
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
    return np.concatenate([np.asarray(run(images[part], masks[part])) for part in parts])


@measure.command(
    measure.argument("--run", required=True, type=Path, metavar="DIR", help="run directory"),
    measure.argument("--data-dir", metavar="DIR", help="default: the recipe's own"),
    measure.argument("--photographs", type=measure.at_least(1), default=100, metavar="N"),
    measure.argument("--simplifiers", action="store_true", help="add onnxslim and onnxsim"),
    rounds=40,
)
def main(options: argparse.Namespace) -> None:
    from export import command_line, convert, parity, precision, serving_module

    command_line.quiet_tensorflow()
    described, images, holes = held_out(options.run, options.data_dir, options.photographs)
    inpaint = serving_module.load_inpainting(options.run)
    model = convert.build_model(inpaint)
    found = {each: precision.in_precision(model, each) for each in precision.PRECISIONS}
    found["dynamic int8"] = dynamic_int8(model)
    if options.simplifiers:
        found |= simplified(model)
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
    reference = in_batches(inpaint, images, holes)
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
