"""Draws twenty objects removed from eight photographs, by `photo` and by MI-GAN.

    python -m benchmarks.removals --photographs DIR --output docs/images/removals.jpg

The objects and their outlines, drawn by hand, are in `removals.json`, in pixels of photographs that
are 2,400 pixels wide. The photographs are CC0; training never saw them, and they are no part of the
repository. `photo` fills as `musical-inpaint` does. MI-GAN's pipeline reads pixels under the mask,
so its hole is filled before (see `benchmarks.shipped_models`).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import measure, models, readme_strip, shipped_models
from serving.session import InpaintingSession
from training.evaluation import drawings

REMOVALS = Path(__file__).with_suffix(".json")
CELL = 320
CONTEXT = 1.7
"""Side of what is shown, in sides of the object."""


def hole_of(outline: list[list[int]], shape: tuple[int, ...]) -> np.ndarray:
    """`(H, W)` bool, True inside the outline."""
    mask = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=1)
    return np.array(mask)


def window(outline: list[list[int]], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of a square around the object, as far as the photograph reaches."""
    low, high = np.min(outline, axis=0)[::-1], np.max(outline, axis=0)[::-1]
    sides = np.minimum(int(max(high - low) * CONTEXT), shape[:2])
    starts = np.clip((low + high - sides) // 2, 0, shape[:2] - sides)
    rows, columns = (slice(a, a + b) for a, b in zip(starts, sides, strict=True))
    return rows, columns


def outlined(image: np.ndarray, outline: list[list[int]], side: int) -> np.ndarray:
    """The photograph with the outline of what is removed; `side` is that of the part shown."""
    picture = Image.fromarray(image)
    points = [tuple(point) for point in [*outline, outline[0]]]
    for color, share in (("black", 60), ("white", 110)):
        ImageDraw.Draw(picture).line(points, color, max(2, side // share), joint="curve")
    return np.asarray(picture)


def sheet(photographs: Path, folder: Path, threads: int) -> Image.Image:
    """Two removals a row: what is removed, `photo`, MI-GAN."""
    session = InpaintingSession("photo", ["cpu"], threads=threads)
    migan = shipped_models.migan(folder, threads)[shipped_models.MIGAN]
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    removals: list[dict[str, Any]] = json.loads(REMOVALS.read_text(encoding="utf-8"))
    for number, removal in enumerate(removals, 1):
        with Image.open(photographs / f"{removal['photograph']}.jpg") as file:
            image = np.asarray(file.convert("RGB"))
        hole = hole_of(removal["outline"], image.shape)
        shown = window(removal["outline"], image.shape)
        filled = session.inpaint(image, hole), migan.fill(image[None], hole[None])[0]
        marked = outlined(image, removal["outline"], shown[0].stop - shown[0].start)
        pictures += [each[shown] for each in (marked, *filled)]
        captions += [f"{number}. {removal['photograph']}, {removal['object']}", "photo", "MI-GAN"]
        print(captions[-3], file=sys.stderr, flush=True)
    rows = [slice(start, start + 6) for start in range(0, len(pictures), 6)]
    return drawings.framed(
        drawings.grid([pictures[r] for r in rows], CELL, captions=[captions[r] for r in rows]), 16
    )


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser("benchmarks.removals", __doc__)
    parser.add_argument("--photographs", required=True, type=Path, metavar="DIR")
    parser.add_argument("--output", required=True, type=Path)
    models.add_arguments(parser)
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    picture = sheet(options.photographs, options.models, options.threads)
    readme_strip.write(picture, options.output, format="JPEG", quality=88)


if __name__ == "__main__":
    sys.exit(main())
