"""Measures the memory that filling a 24-megapixel photograph takes, and holds it to the bounds.

    python -m benchmarks.serving_memory --model model.onnx

Every figure is the peak of resident memory of a process of its own. "The model" is what such a
process needs once it has loaded the model and run it once at its training size, so that it holds
everything that does not grow with the photograph; the rest, divided by the photograph's pixels,
must stay below the bound, or the exit code is 1. In `session` rows that includes the photograph and
the hole that the caller has anyway, 4 bytes a pixel; in `command` rows the whole of
`musical-inpaint`: decoding, mask, filling, encoding. Runs beyond the training size are held to the
session's estimate for them. Writes results/serving_memory.json. Needs Linux, whose /proc says what
the peak was.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from serving import tiling
from serving.memory import estimate_memory
from serving.session import InpaintingSession

MODULE = "benchmarks.serving_memory"
HEIGHT, WIDTH = 4000, 6000
PIXELS = HEIGHT * WIDTH

SESSION_BOUND = 12
"""Bytes a pixel beside the model: `InpaintingSession.inpaint` with its image and hole."""

COMMAND_BOUNDS = {".jpg": 14, ".png": 14, ".tif": 14, ".webp": 42}
"""Bytes a pixel beside the model: the command line, by format."""

HOLES = ("one", "many", "huge")
ORIGINALS = ((256, 128), (512, 64), (512, 256), (1024, 16))
"""Side of the image and of the hole, for runs of the model beyond its training size."""

SPACINGS = (100, 24, 8)
"""Pixels between the small holes of the photographs that `count_windows` plans."""


def make_hole(name: str) -> np.ndarray:
    """`(HEIGHT, WIDTH)` bool: one hole of 400 x 500, 400 of up to 60 pixels, or 30 % in one."""
    hole = np.zeros((HEIGHT, WIDTH), bool)
    if name == "one":
        hole[1000:1400, 2000:2500] = True
    elif name == "many":
        rng = np.random.default_rng(0)
        for _ in range(400):
            height, width = rng.integers(10, 61, 2)
            top, left = rng.integers(HEIGHT - height), rng.integers(WIDTH - width)
            hole[top : top + height, left : left + width] = True
    else:
        hole[500:2900, 1000:4000] = True
    return hole


def make_photograph() -> np.ndarray:
    """`(HEIGHT, WIDTH, 3)` uint8: smooth colours with grain, as large in a file as a photograph."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pixels = np.array(colours.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    for row in pixels:
        grain = rng.integers(-6, 7, (WIDTH, 1), dtype=np.int16)
        row[:] = np.clip(row + grain, 0, 255)
    return pixels


def load(model: str) -> InpaintingSession:
    """The model, run once at its training size."""
    session = InpaintingSession(model, ["cpu"])
    side = session.contract.training_size
    hole = np.zeros((side, side), bool)
    hole[side // 4 : -side // 4, side // 4 : -side // 4] = True
    session.inpaint(np.zeros((side, side, 3), np.uint8), hole)
    return session


def measure_model(model: str) -> dict[str, Any]:
    """What a process needs with the model and without a photograph."""
    load(model)
    return {"bytes": measure.resident_peak()}


def measure_session(model: str, strategy: str, hole_name: str) -> dict[str, Any]:
    """Fills a photograph that is as cheap to make as an array can be."""
    session = load(model)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    hole = make_hole(hole_name)
    if strategy == "original":
        try:
            session.inpaint(image, hole, strategy)
        except ValueError as error:
            return {"refused": str(error)}
        return {"refused": None}
    windows = 0

    def count(done: int, total: int) -> None:
        nonlocal windows
        windows = total

    started = time.perf_counter()
    filled = session.inpaint(image, hole, strategy, progress=count)
    seconds = time.perf_counter() - started
    result = {"bytes": measure.resident_peak(), "windows": windows, "seconds": round(seconds, 2)}
    if not (filled[~hole] == 90).all():
        raise RuntimeError("known pixels have changed")
    side = session.contract.training_size
    paste = partial(tiling.fill, image, hole, lambda window, _: window, side, strategy)
    return result | {"seconds_without_model": round(measure.seconds_of(paste), 2)}


def measure_command(model: str, suffix: str, folder: str) -> dict[str, Any]:
    """Runs the command line on a file."""
    from serving import predict

    arguments = ["--model", model, "--provider", "cpu", "--mask", f"{folder}/mask.png"]
    arguments += ["--image", f"{folder}/photo{suffix}", "--output", f"{folder}/out{suffix}"]
    started = time.perf_counter()
    if predict.main(arguments) != 0:
        raise RuntimeError("the command failed")
    return {"bytes": measure.resident_peak(), "seconds": round(time.perf_counter() - started, 2)}


def measure_original(model: str, side: int, hole_side: int) -> dict[str, Any]:
    """One run of the model beyond its training size, and the estimate for it."""
    session = load(model)
    session.memory_limit = 2**60
    before = measure.resident_peak()
    image, hole = np.full((side, side, 3), 90, np.uint8), np.zeros((side, side), bool)
    hole[:hole_side, :hole_side] = True
    session.inpaint(image, hole, "original")
    return {"bytes": measure.resident_peak() - before, "estimate": estimate_memory(hole[None])}


def count_windows(model: str, spacing: int) -> dict[str, Any]:
    """Plans and pastes a photograph full of single missing pixels, without running the model."""
    side = InpaintingSession(model, ["cpu"]).contract.training_size
    image, hole = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.zeros((HEIGHT, WIDTH), bool)
    hole[::spacing, ::spacing] = True
    seconds = measure.seconds_of(lambda: tiling.fill(image, hole, lambda window, _: window, side))
    return {
        "holes": int(hole.sum()),
        "windows": len(tiling.plan(hole, side).windows),
        "seconds_without_model": round(seconds, 2),
    }


def measure_all(model: str) -> dict[str, Any]:
    """All measurements, each printed as it comes, with what exceeds its bound in `failures`."""
    failures: list[str] = []
    base = measure.in_own_process(measure_model, model)["bytes"]
    print(f"the model: {base / 2**20:.0f} MiB")
    rows = []

    def add(name: str, result: dict[str, Any], bound: float) -> None:
        per_pixel = (result["bytes"] - base) / PIXELS
        rows.append({"name": name, **result, "bytes_per_pixel": round(per_pixel, 2)})
        rows[-1]["bound"] = bound
        windows = f", {result['windows']} windows" if "windows" in result else ""
        print(
            f"{name}: {result['bytes'] / 2**20:.0f} MiB, {per_pixel:.1f} bytes a pixel (bound "
            f"{bound}), {result['seconds']} s{windows}",
            flush=True,
        )
        if per_pixel > bound:
            failures.append(f"{name} takes {per_pixel:.1f} bytes a pixel, more than {bound}")

    for strategy in ("crop", "resize"):
        for hole in HOLES:
            result = measure.in_own_process(measure_session, model, strategy, hole)
            add(f"session {strategy} {hole}", result, SESSION_BOUND)
    refused = measure.in_own_process(measure_session, model, "original", "one")["refused"]
    print(f"session original one: {refused or 'not refused'}", flush=True)
    if not refused:
        failures.append("strategy original was not refused")
    with tempfile.TemporaryDirectory() as folder:
        photograph = Image.fromarray(make_photograph())
        Image.fromarray(make_hole("one")).save(f"{folder}/mask.png")
        for suffix, bound in COMMAND_BOUNDS.items():
            photograph.save(f"{folder}/photo{suffix}")
            add(
                f"command {suffix}",
                measure.in_own_process(measure_command, model, suffix, folder),
                bound,
            )
    originals = []
    for side, hole_side in ORIGINALS:
        result = measure.in_own_process(measure_original, model, side, hole_side)
        originals.append({"side": side, "hole_side": hole_side, **result})
        print(
            f"original {side}, hole {hole_side}: {result['bytes'] / 2**20:.0f} MiB, estimate "
            f"{result['estimate'] / 2**20:.0f} MiB",
            flush=True,
        )
        if result["bytes"] > result["estimate"]:
            failures.append(f"original {side} with a hole of {hole_side} exceeds its estimate")
    counts = [measure.in_own_process(count_windows, model, spacing) for spacing in SPACINGS]
    for row in counts:
        print("{holes} holes: {windows} windows, {seconds_without_model} s".format(**row))
    contract = InpaintingSession(model, ["cpu"]).contract
    return {
        "model": {
            "preset": contract.preset,
            "training_size": contract.training_size,
            "file_bytes": Path(model).stat().st_size,
            "process_bytes": base,
        },
        "photograph": [WIDTH, HEIGHT],
        "rows": rows,
        "original_refused": refused,
        "originals": originals,
        "window_counts": counts,
        "failures": failures,
    }


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument("--model", metavar="FILE", help="a file that export/to_onnx.py wrote")
    return measure.run(parser, argv, work, wrong_input=2)


def work(options: argparse.Namespace, words: list[str]) -> int:
    if options.model is None:
        raise ValueError("--model is missing")
    InpaintingSession(options.model, ["cpu"])
    figures = measure_all(str(Path(options.model).resolve()))
    measure.publish("serving_memory", MODULE, ["--model", Path(options.model).name], figures)
    for failure in figures["failures"]:
        print(failure, file=sys.stderr)
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
