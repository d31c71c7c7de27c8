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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from serving import predict
from serving.memory import estimate_memory
from serving.session import InpaintingSession

WIDTH, HEIGHT = 6000, 4000

SESSION_BOUND = 12
"""Bytes a pixel above the base: `InpaintingSession.inpaint` with its image and hole."""

COMMAND_BOUNDS = {".jpg": 14, ".png": 14, ".tif": 14, ".webp": 42}
"""Bytes a pixel above the base: the command line, by format."""

HOLES = ("one", "many", "huge")
ORIGINALS = ((256, 128), (512, 64), (512, 256), (1024, 16))
"""Side of the image and of the hole, for runs of the model beyond its training size."""


def make_hole(name: str) -> np.ndarray:
    """`(H, W)` bool: one hole of 400 x 500, 400 of up to 60 pixels, or 30 % in one."""
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
    """`(H, W, 3)` uint8: smooth colors with grain, as large in a file as a photograph."""
    rng = np.random.default_rng(0)
    colors = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    pixels = np.array(colors.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    for row in pixels:
        grain = rng.integers(-6, 7, (WIDTH, 1), dtype=np.int16)
        row[:] = np.clip(row + grain, 0, 255)
    return pixels


def gray(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """`(H, W, 3)` uint8, which takes no other memory to make."""
    return np.full((height, width, 3), 90, np.uint8)


# ---- each in a process of its own


def load(model: str) -> InpaintingSession:
    """The model, run once at its training size."""
    session = InpaintingSession(model, ["cpu"])
    side = session.contract.training_size
    hole = np.zeros((side, side), bool)
    hole[side // 4 : -side // 4, side // 4 : -side // 4] = True
    session.inpaint(gray(side, side), hole)
    return session


def measure_base(model: str) -> int:
    """Bytes of a process with the model and without a photograph."""
    load(model)
    return measure.resident_peak()


def refusal(model: str) -> str | None:
    """The refusal to show the model a whole photograph; None without one."""
    try:
        load(model).inpaint(gray(), make_hole("one"), "original")
    except ValueError as error:
        return str(error)
    return None


def measure_session(model: str, strategy: str, hole_name: str) -> dict[str, Any]:
    """Fills a photograph."""
    session, image, hole = load(model), gray(), make_hole(hole_name)
    started = time.perf_counter()
    filled = session.inpaint(image, hole, strategy)
    seconds, peak = time.perf_counter() - started, measure.resident_peak()
    if not (filled[~hole] == 90).all():
        raise RuntimeError("known pixels have changed")
    return {"bytes": peak, "seconds": round(seconds, 2)}


def measure_command(model: str, suffix: str, folder: str) -> dict[str, Any]:
    """Runs the command line on a file."""
    words = ["--model", model, "--provider", "cpu", "--mask", f"{folder}/mask.png"]
    words += ["--image", f"{folder}/photo{suffix}", "--output", f"{folder}/out{suffix}"]
    started = time.perf_counter()
    if predict.main(words) != 0:
        raise RuntimeError("the command failed")
    return {"bytes": measure.resident_peak(), "seconds": round(time.perf_counter() - started, 2)}


def measure_original(model: str, side: int, hole_side: int) -> dict[str, Any]:
    """One run of the model beyond its training size, and the estimate for it."""
    session = load(model)
    session.memory_limit = 2**60
    before = measure.resident_peak()
    hole = np.zeros((side, side), bool)
    hole[:hole_side, :hole_side] = True
    session.inpaint(gray(side, side), hole, "original")
    added, estimate = measure.resident_peak() - before, estimate_memory(hole[None])
    return {"side": side, "hole_side": hole_side, "bytes": added, "estimate": estimate}


# ---- all


def measure_all(model: str) -> dict[str, Any]:
    """All measurements, each printed, and those that exceed their bound in `failures`."""
    own, failures = measure.in_own_process, []
    base = own(measure_base, model)
    found = {
        f"session {strategy} {hole}": (own(measure_session, model, strategy, hole), SESSION_BOUND)
        for strategy in ("crop", "resize")
        for hole in HOLES
    }
    refused = own(refusal, model)
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
        per_pixel = round((result["bytes"] - base) / (WIDTH * HEIGHT), 2)
        rows.append({"name": name, **result, "bytes_per_pixel": per_pixel, "bound": bound})
        print(f"{name}: {per_pixel} bytes a pixel, bound {bound}, {result['seconds']} s")
        if per_pixel > bound:
            failures.append(f"{name} takes {per_pixel} bytes a pixel, more than {bound}")
    originals = [own(measure_original, model, *sides) for sides in ORIGINALS]
    for row in originals:
        if row["bytes"] > row["estimate"]:
            failures.append("original {side}, hole {hole_side}: above the estimate".format(**row))
    return {
        "model": {"file_bytes": Path(model).stat().st_size, "process_bytes": base},
        "photograph": [WIDTH, HEIGHT],
        "rows": rows,
        "original_refused": refused,
        "originals": originals,
        "failures": failures,
    }


@measure.command(measure.argument("--model", required=True, metavar="FILE", help="an .onnx file"))
def main(options: argparse.Namespace) -> int:
    contract = InpaintingSession(options.model, ["cpu"]).contract  # an unusable file is one line
    figures = measure_all(str(Path(options.model).resolve()))
    figures["model"] |= {"preset": contract.preset, "training_size": contract.training_size}
    measure.publish("serving_memory", options.command, figures)
    for failure in figures["failures"]:
        print(failure, file=sys.stderr)
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
