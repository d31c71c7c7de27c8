"""Measures the memory of filling a 24-megapixel photograph, and compares it with the bounds.

    python -m benchmarks.serving_memory [--model MODEL]

Every figure is the peak of a process of its own. The base is a process that has loaded the model
and run it once at its training size; the difference, divided by the photograph's pixels, must stay
below the bound, or the exit code is 1. `session` rows include the caller's photograph and hole, 4
bytes a pixel; `command` rows all of `musical-inpaint`: decoding, mask, filling, encoding. Runs
beyond the training size must stay below the session's estimate. Writes
`results/serving_memory.json`. Needs Linux.
"""

import argparse
import itertools
import sys
import tempfile
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
    boxes = {"one": [(1000, 2000, 400, 500)], "huge": [(500, 1000, 2400, 3000)]}
    random = np.random.default_rng(0)
    many = random.integers((0, 0, 10, 10), (HEIGHT, WIDTH, 61, 61), (400, 4))
    hole = np.zeros((HEIGHT, WIDTH), bool)
    for top, left, height, width in boxes.get(name, many):
        hole[top : top + height, left : left + width] = True
    return hole


def write_photographs(folder: Path) -> None:
    """Smooth colors with grain, so that a file is as large as a photograph's; and a mask."""
    random = np.random.default_rng(0)
    colors = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
    pixels = np.array(colors.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.int16)
    pixels += random.integers(-6, 7, (HEIGHT, WIDTH, 1), np.int16)
    photograph = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    for suffix in COMMAND_BOUNDS:
        photograph.save(folder / f"photo{suffix}")
    Image.fromarray(make_hole("one")).save(folder / "mask.png")


def gray(height: int, width: int) -> np.ndarray:
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


def session_peak(model: str, strategy: str | None = None, hole_name: str = "one") -> int:
    """Bytes of a process that fills a photograph, with None of one that only has the model."""
    session = load(model)
    if strategy is None:
        return measure.resident_peak()
    image, hole = gray(HEIGHT, WIDTH), make_hole(hole_name)
    filled = session.inpaint(image, hole, strategy)
    peak = measure.resident_peak()  # before the check, which copies the photograph
    if not (filled[~hole] == 90).all():
        raise RuntimeError("known pixels have changed")
    return peak


def command_peak(model: str, suffix: str, folder: str) -> int:
    """Bytes of the command line that fills a file."""
    words = ["--model", model, "--provider", "cpu", "--mask", f"{folder}/mask.png"]
    words += ["--image", f"{folder}/photo{suffix}", "--output", f"{folder}/out{suffix}"]
    if predict.main(words) != 0:
        raise RuntimeError("the command failed")
    return measure.resident_peak()


def measure_original(model: str, side: int, hole_side: int) -> dict[str, Any]:
    """One run of the model beyond its training size, and the estimate for it."""
    session = load(model)
    session.memory_limit = 2**60
    before = measure.resident_peak()
    hole = np.zeros((side, side), bool)
    hole[:hole_side, :hole_side] = True
    session.inpaint(gray(side, side), hole, "original")
    added = measure.resident_peak() - before
    estimate = estimate_memory(hole[None], factor=session.contract.attention_factor)
    return {"side": side, "hole_side": hole_side, "bytes": added, "estimate": estimate}


# ---- all


@measure.command(
    measure.argument("--model", default="photo", metavar="MODEL", help="name or .onnx file")
)
def main(options: argparse.Namespace) -> int:
    model = str(InpaintingSession(options.model, ["cpu"]).model_path.resolve())
    own, failures, rows = measure.in_own_process, [], []
    base = own(session_peak, model)

    def add(name: str, peak: int, bound: int) -> None:
        per_pixel = round((peak - base) / (WIDTH * HEIGHT), 2)
        rows.append({"name": name, "bytes": peak, "bytes_per_pixel": per_pixel, "bound": bound})
        print(f"{name}: {per_pixel} bytes a pixel, bound {bound}", flush=True)
        if per_pixel > bound:
            failures.append(f"{name} takes {per_pixel} bytes a pixel, more than {bound}")

    for strategy, hole in itertools.product(("crop", "resize"), HOLES):
        peak = own(session_peak, model, strategy, hole)
        add(f"session {strategy} {hole}", peak, SESSION_BOUND)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        for suffix, bound in COMMAND_BOUNDS.items():
            add(f"command {suffix}", own(command_peak, model, suffix, folder), bound)
    originals = [own(measure_original, model, *sides) for sides in ORIGINALS]
    for row in originals:
        if row["bytes"] > row["estimate"]:
            failures.append("original {side}, hole {hole_side}: above the estimate".format(**row))
    figures = {"process_bytes": base, "photograph": [WIDTH, HEIGHT], "rows": rows}
    figures |= {"originals": originals, "failures": failures}
    measure.publish("serving_memory", options.command, figures)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
