"""Measures how well boxes select objects: the overlap with outlines drawn by hand.

    python -m benchmarks.selections --data DIR

DIR holds the photographs that `benchmarks/outlines.json` names. Each box is the outline's own, 3 %
larger on each side. The outlines were drawn before the first selection, but the settings of
`serving.server.selecting` were chosen on these objects. Writes `results/selections.json`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import measure
from musical_tf.images import read_photograph
from serving.server import selecting

ENOUGH = 0.8
"""Intersection over union of a selection that is good enough."""


def hole_of(outline: list[list[int]], shape: tuple[int, ...]) -> np.ndarray:
    """`(H, W)` bool, True inside the outline."""
    mask = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=1)
    return np.array(mask)


def select_one(entry: dict, folder: Path) -> dict:
    """Selects one object by its box."""
    pixels = read_photograph(folder / entry["file"]).pixels
    truth = hole_of(entry["outline"], pixels.shape)
    left, top, right, bottom = Image.fromarray(truth).getbbox()
    margin = round(0.03 * max(right - left - 1, bottom - top - 1))
    box = (
        *(max(0, left - margin), max(0, top - margin)),
        *(min(truth.shape[1], right - 1 + margin), min(truth.shape[0], bottom - 1 + margin)),
    )
    started = time.process_time()
    found = selecting.select(pixels, box, np.zeros_like(truth), selecting.cut_out)
    seconds = time.process_time() - started
    return {
        "object": entry["object"],
        "overlap": round(float((found & truth).sum() / (found | truth).sum()), 3),
        "processor_seconds": round(seconds, 2),
    }


@measure.command(
    measure.argument("--data", type=Path, required=True, metavar="DIR", help="the photographs")
)
def main(options: argparse.Namespace) -> None:
    entries = json.loads(Path(__file__).with_name("outlines.json").read_text("utf-8"))
    rows = [select_one(entry, options.data) for entry in entries]
    for row in rows:
        print("{object:16} {overlap:.3f} {processor_seconds:5.2f} s".format(**row))
    good = sum(row["overlap"] >= ENOUGH for row in rows)
    print(f"{good} of {len(rows)} with an overlap of {ENOUGH} or more")
    measure.publish("selections", options.command, {"good": good, "rows": rows})


if __name__ == "__main__":
    sys.exit(main())
