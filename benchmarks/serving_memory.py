"""Measures the memory of filling a 24-megapixel photograph, and compares it with the bounds.

    python -m benchmarks.serving_memory --model model.onnx

Every figure is the peak of a process of its own. The base is a process that has loaded the model
and run it once at its training size; the difference, divided by the photograph's pixels, must stay
below the bound, or the exit code is 1. `session` rows include the caller's photograph and hole, 4
bytes a pixel; `command` rows all of `musical-inpaint`: decoding, mask, filling, encoding. Runs
beyond the training size must stay below the session's estimate. Writes
`results/serving_memory.json`. Needs Linux."""

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
from serving import predict, tiling
from serving.memory import estimate_memory
from serving.session import InpaintingSession

HEIGHT, WIDTH = 4000, 6000
PIXELS = HEIGHT * WIDTH

SESSION_BOUND = 12
"""Bytes a pixel above the base: `InpaintingSession.inpaint` with its image and hole."""

COMMAND_BOUNDS = {".jpg": 14, ".png": 14, ".tif": 14, ".webp": 42}
"""Bytes a pixel above the base: the command line, by format."""

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
    """`(HEIGHT, WIDTH, 3)` uint8: smooth colors with grain, as large in a file as a photograph."""
    rng = np.random.default_rng(0)
    colors = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pixels = np.array(colors.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    for row in pixels:
        grain = rng.integers(-6, 7, (WIDTH, 1), dtype=np.int16)
        row[:] = np.clip(row + grain, 0, 255)
    return pixels


def gray() -> np.ndarray:
    """`(HEIGHT, WIDTH, 3)` uint8, which takes no other memory to make."""
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def load(model: str) -> InpaintingSession:
    """The model, run once at its training size."""
    session = InpaintingSession(model, ["cpu"])
    side = session.contract.training_size
    hole = np.zeros((side, side), bool)
    hole[side // 4 : -side // 4, side // 4 : -side // 4] = True
    session.inpaint(np.zeros((side, side, 3), np.uint8), hole)
    return session


def measure_model(model: str) -> dict[str, Any]:
    """The base: a process with the model and without a photograph."""
    load(model)
    return {"bytes": measure.resident_peak()}


def is_refused(model: str) -> str | None:
    """The refusal to show the model a whole photograph; None without one."""
    try:
        load(model).inpaint(gray(), make_hole("one"), "original")
    except ValueError as error:
        return str(error)
    return None


def measure_session(model: str, strategy: str, hole_name: str) -> dict[str, Any]:
    """Fills a photograph in one process."""
    session = load(model)
    image, hole = gray(), make_hole(hole_name)
    totals, started = [0], time.perf_counter()
    filled = session.inpaint(image, hole, strategy, progress=lambda _, all_: totals.append(all_))
    seconds, peak = time.perf_counter() - started, measure.resident_peak()
    if not (filled[~hole] == 90).all():
        raise RuntimeError("known pixels have changed")
    side = session.contract.training_size
    paste = partial(tiling.fill, image, hole, lambda window, _: window, side, strategy)
    return {
        "bytes": peak,
        "windows": totals[-1],
        "seconds": round(seconds, 2),
        "seconds_without_model": round(measure.seconds_of(paste), 2),
    }


def measure_command(model: str, suffix: str, folder: str) -> dict[str, Any]:
    """Runs the command line on a file."""
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
    added, estimate = measure.resident_peak() - before, estimate_memory(hole[None])
    return {"side": side, "hole_side": hole_side, "bytes": added, "estimate": estimate}


def count_windows(model: str, spacing: int) -> dict[str, Any]:
    """Plans and pastes a photograph full of single missing pixels, without running the model."""
    side = InpaintingSession(model, ["cpu"]).contract.training_size
    image, hole = gray(), np.zeros((HEIGHT, WIDTH), bool)
    hole[::spacing, ::spacing] = True
    seconds = measure.seconds_of(lambda: tiling.fill(image, hole, lambda window, _: window, side))
    return {
        "holes": int(hole.sum()),
        "windows": len(tiling.plan(hole, side).windows),
        "seconds_without_model": round(seconds, 2),
    }


def measure_all(model: str) -> dict[str, Any]:
    """All measurements, each printed, and those that exceed their bound in `failures`."""
    own, failures = measure.in_own_process, []
    base = own(measure_model, model)["bytes"]
    found = {
        f"session {strategy} {hole}": (own(measure_session, model, strategy, hole), SESSION_BOUND)
        for strategy in ("crop", "resize")
        for hole in HOLES
    }
    refused = own(is_refused, model)
    if not refused:
        failures.append("strategy original was not refused")
    with tempfile.TemporaryDirectory() as folder:
        photograph = Image.fromarray(make_photograph())
        Image.fromarray(make_hole("one")).save(f"{folder}/mask.png")
        for suffix, bound in COMMAND_BOUNDS.items():
            photograph.save(f"{folder}/photo{suffix}")
            found[f"command {suffix}"] = own(measure_command, model, suffix, folder), bound
    rows = []
    for name, (result, bound) in found.items():
        per_pixel = round((result["bytes"] - base) / PIXELS, 2)
        rows.append({"name": name, **result, "bytes_per_pixel": per_pixel, "bound": bound})
        print(
            f"{name}: {per_pixel} bytes a pixel, bound {bound}, {result['seconds']} s", flush=True
        )
        if per_pixel > bound:
            failures.append(f"{name} takes {per_pixel} bytes a pixel, more than {bound}")
    originals = [own(measure_original, model, *sides) for sides in ORIGINALS]
    for row in originals:
        if row["bytes"] > row["estimate"]:
            failures.append("original {side}, hole {hole_side}: above the estimate".format(**row))
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
        "window_counts": [own(count_windows, model, spacing) for spacing in SPACINGS],
        "failures": failures,
    }


@measure.command(measure.argument("--model", required=True, metavar="FILE", help="an .onnx file"))
def main(options: argparse.Namespace) -> int:
    InpaintingSession(options.model, ["cpu"])  # an unusable file is one line
    figures = measure_all(str(Path(options.model).resolve()))
    measure.publish("serving_memory", options.command, figures)
    for failure in figures["failures"]:
        print(failure, file=sys.stderr)
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
