"""What each precision of the ONNX file costs: bytes, grey levels, decibels and time.

    python -m benchmarks.export_precision --run runs/lite --data-dir data/celeba

One generator is exported in every precision, and fills the same photographs, which its training
never saw, under the recipe's own holes. Each file is compared with Keras inside the holes, and with
the photographs. Beside ours stands ONNX Runtime's dynamic int8 quantisation, which also computes in
int8. Then all files take turns on one picture of 256 x 256 with the centre hole, on the processor;
the float32 file takes two, and how far its two times are apart says how much the others' mean.

`--simplifiers` also puts onnxslim and onnxsim over the float32 file, where they are installed, and
counts nodes. Writes `results/export_precision.json` and the table in `docs/onnx.md`.
"""

import argparse
import dataclasses
import importlib
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from musical_tf import onnx_runtime
from musical_tf.files import write_whole

MODULE = "benchmarks.export_precision"
NAME = "export_precision"
DOCUMENT = measure.ROOT / "docs" / "onnx.md"
BLOCK = re.compile(rf"(<!-- results:{NAME} -->\n).*?(<!-- /results -->)", re.DOTALL)
TIMED_SIDE = 256
BATCH = 10
DYNAMIC = "dynamic int8"
LABELS = {
    "float32": "`float32`",
    "float16": "`float16`",
    "int8": "`int8`",
    DYNAMIC: "for comparison: ONNX Runtime's dynamic int8",
}


def dynamic_int8(model: Any) -> Any:
    """ONNX Runtime's dynamic quantisation of the convolutions and of products with weights.

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
    for package, simplify in (
        ("onnxslim", lambda module: module.slim(_copy(model))),
        ("onnxsim", lambda module: module.simplify(_copy(model))[0]),
    ):
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        found[f"{package} {metadata.version(package)}"] = simplify(module)
    return found


def _copy(model: Any) -> Any:
    duplicate = type(model)()
    duplicate.CopyFrom(model)
    return duplicate


def held_out(run: Path, data_dir: str | None, count: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """The first photographs of the recipe's test split and their holes.

    Returns:
        What the recipe says of them, `(N, S, S, 3)` uint8 and `(N, S, S)` bool.
    """
    from musical_tf.run_directory import RunDirectory
    from training.data import pipeline
    from training.recipes import Recipe

    recipe = Recipe.of(RunDirectory(run).recipe())
    if data_dir:
        recipe = dataclasses.replace(recipe, data_dir=data_dir)
    samples = pipeline.evaluation_samples(
        recipe.open_photographs("test"), recipe.open_masks(), recipe.image_size
    )
    pairs = [(image, hole) for (_, image, hole), _ in zip(samples, range(count), strict=False)]
    images, holes = (np.stack(each) for each in zip(*pairs, strict=True))
    described = {
        key: getattr(recipe, key) for key in ("dataset", "method", "preset", "image_size", "mask")
    }
    return {**described, "photographs": len(images)}, images, holes


def quality(run: Any, images: np.ndarray, holes: np.ndarray, reference: np.ndarray) -> dict:
    """Differences from `reference` in the holes, in grey levels, and from the photographs in dB."""
    from musical_tf.metrics import authors_metrics

    results = in_batches(run, images, holes)
    difference = np.abs(results[holes].astype("int16") - reference[holes])
    metrics = [
        authors_metrics(image, result, hole)
        for image, result, hole in zip(images, results, holes, strict=True)
    ]
    return {
        "grey_levels_max": int(difference.max()),
        "grey_levels_mean": float(difference.mean()),
        "psnr": float(np.mean([each["authors/psnr"] for each in metrics])),
        "ssim": float(np.mean([each["authors/ssim"] for each in metrics])),
        "known_pixels_exact": bool(np.array_equal(results[~holes], images[~holes])),
    }


def in_batches(run: Any, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    masks = holes.astype("uint8") * 255
    return np.concatenate(
        [
            np.asarray(run(images[start : start + BATCH], masks[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
    )


def timed_call(run: Any):
    image = np.random.default_rng(0).integers(0, 256, (1, TIMED_SIDE, TIMED_SIDE, 3), "uint8")
    mask = np.zeros((1, TIMED_SIDE, TIMED_SIDE), "uint8")
    mask[:, TIMED_SIDE // 4 : -TIMED_SIDE // 4, TIMED_SIDE // 4 : -TIMED_SIDE // 4] = 255
    return lambda: run(image, mask)


def compare(run: Path, data_dir: str | None, count: int, rounds: int, simplifiers: bool) -> dict:
    """All figures, ready for JSON."""
    from export import command_line, convert, parity, precision, serving_module

    command_line.quiet_tensorflow()
    described, images, holes = held_out(run, data_dir, count)
    inpaint = serving_module.load_inpainting(run)
    model = convert.build_model(inpaint)
    models = {each: precision.in_precision(model, each) for each in precision.PRECISIONS}
    models[DYNAMIC] = dynamic_int8(model)
    if simplifiers:
        models |= simplified(model)
    runtimes = {label: parity.onnx_runtime(each) for label, each in models.items()}
    reference = in_batches(inpaint, images, holes)
    timed = {**runtimes, "again": parity.onnx_runtime(model)}
    seconds = measure.take_turns({label: timed_call(each) for label, each in timed.items()}, rounds)
    ratios = {
        label: {kind: value / seconds["float32"][kind] for kind, value in each.items()}
        for label, each in seconds.items()
    }
    files = {}
    for label, each in models.items():
        files[label] = {
            "bytes": each.ByteSize(),
            "nodes": len(each.graph.node),
            **quality(runtimes[label], images, holes, reference),
            "time_of_float32": ratios[label],
        }
    timing = {"timed_side": TIMED_SIDE, "rounds": rounds, "float32_again": ratios["again"]}
    return {**described, **timing, "files": files}


def table(figures: dict) -> str:
    """The Markdown of the figures: a row a file, then what was measured and how."""
    lines = [
        "| precision | file | grey levels from Keras: most, mean | PSNR | time |",
        "|---|---|---|---|---|",
    ]
    for name, file in figures["files"].items():
        lines.append(
            f"| {LABELS.get(name, f'float32 through {name}')} "
            f"| {file['bytes'] / 2**20:.1f} MiB, {file['nodes']} nodes "
            f"| {file['grey_levels_max']}, {file['grey_levels_mean']:.3f} "
            f"| {file['psnr']:.2f} dB "
            f"| {file['time_of_float32']['median']:.2f} |"
        )
    side, size = figures["timed_side"], figures["image_size"]
    lines += [
        "",
        f"{figures['method']}, preset `{figures['preset']}`, {figures['photographs']} photographs "
        f"of {figures['dataset']}'s test split, {size} x {size}, {figures['mask']} hole; "
        "differences in the hole, PSNR of the whole picture. Time: the median, relative to "
        f"`float32`, for one picture of {side} x {side}; the `float32` file timed a second time: "
        f"{figures['float32_again']['median']:.2f}. {figures['rounds']} rounds in turns, ONNX "
        f"Runtime {figures['software']['onnxruntime']}, {figures['hardware']}:",
        "",
        "```",
        figures["command"],
        "```",
    ]
    return "\n".join(lines) + "\n"


def with_table(document: str, figures: dict) -> str:
    """`document` with its block of these results written anew."""
    return BLOCK.sub(lambda match: match[1] + table(figures) + match[2], document)


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=40)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--data-dir", metavar="DIR", help="default: the recipe's own")
    parser.add_argument("--photographs", type=int, default=100, metavar="N")
    parser.add_argument("--simplifiers", action="store_true", help="try onnxslim and onnxsim too")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    what = (options.run, options.data_dir, options.photographs, options.rounds)
    figures = measure.record(MODULE, words, compare(*what, options.simplifiers))
    print(table(figures))
    print(measure.keep(NAME, figures))
    write_whole(DOCUMENT, with_table(DOCUMENT.read_text(encoding="utf-8"), figures).encode())


if __name__ == "__main__":
    sys.exit(main())
