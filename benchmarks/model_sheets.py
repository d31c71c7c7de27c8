"""Draws what a shipped model makes of photographs: the best, a typical and the worst one.

    python -m benchmarks.model_sheets --model photo --output docs/images/model_photo.jpg

The photographs arrive with scikit-image and scikit-learn and may be shown; none was trained on.
Nobody chooses: the fillings are ranked by PSNR in the hole, and the best, the middle and the worst
of each kind of hole are drawn. `faces` has one face, the astronaut's, cut as CelebA's alignment
does; its last row is what it was not made for, a cat's.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn import datasets as sklearn_datasets

from benchmarks import measure, readme_strip
from musical_tf.metrics import evaluate_pair
from serving.session import InpaintingSession
from training.data import holes
from training.evaluation import drawings

SIDE = readme_strip.SIZE
SHARES = {"center": None, "free-form 10%": 0.1, "free-form 30%": 0.3}
HOLES_OF_A_FACE = 4
"""Holes of each kind that the one face gets."""
CAT = (140, 45, 350, 255)  # left, top, right, bottom of the face in scikit-image's `chelsea`


@dataclass(frozen=True)
class Filled:
    """One row: what was filled, and how well.

    Args:
        caption: What stands below it.
        tiles: Input, Telea, model, photograph, `(S, S, 3)` uint8 each.
        psnr: Of the model's result, in the hole.
    """

    caption: str
    tiles: list[np.ndarray]
    psnr: float


def crop(image: np.ndarray, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """`(S, S, 3)` uint8: the box, or the largest square in the middle."""
    picture = Image.fromarray(image)
    if box is None:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        box = (left, top, left + side, top + side)
    return np.asarray(picture.crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def photographs(model: str) -> dict[str, np.ndarray]:
    """Name -> `(S, S, 3)` uint8."""
    if model == "faces":
        return {"astronaut": readme_strip.face()}
    china, flower = sklearn_datasets.load_sample_images().images
    return {
        "astronaut": crop(data.astronaut()),
        "chelsea": crop(data.chelsea()),
        "china": crop(china),
        "coffee": crop(data.coffee()),
        "flower": crop(flower),
        "rocket": crop(data.rocket()),
    }


def hole_of(share: float | None, index: int) -> np.ndarray:
    """`(S, S)` bool."""
    source = holes.CenterHole(SIDE) if share is None else holes.IrregularHole(SIDE, share)
    return source.deterministic(index)


def fill(
    session: InpaintingSession, name: str, kind: str, image: np.ndarray, hole: np.ndarray
) -> Filled:
    """One row."""
    tiles = readme_strip.tiles(session, image, hole)
    psnr = evaluate_pair(image, tiles[2], hole, ["hole"])["hole/psnr"]
    return Filled(f"{name}, {kind}: {psnr:.1f} dB in the hole", tiles, psnr)


def rows(model: str) -> list[tuple[str, Filled]]:
    """What to draw, each with the reason: best, typical, worst of every kind of hole."""
    session = InpaintingSession(model)
    chosen = []
    for kind, share in SHARES.items():
        pictures = photographs(model)
        holes = range(HOLES_OF_A_FACE if len(pictures) == 1 and share is not None else 1)
        filled = [
            fill(session, name, kind, image, hole_of(share, HOLES_OF_A_FACE * number + index))
            for number, (name, image) in enumerate(pictures.items())
            for index in holes
        ]
        filled.sort(key=lambda each: -each.psnr)
        picks = {"best": 0, "typical": len(filled) // 2, "worst": len(filled) - 1}
        if len(filled) == 1:
            picks = {"the only one": 0}
        chosen += [(why, filled[index]) for why, index in picks.items()]
    if model == "faces":
        cat = crop(data.chelsea(), CAT)
        chosen.append(
            ("not a human face", fill(session, "chelsea", "center", cat, hole_of(None, 0)))
        )
    return chosen


def sheet(model: str, chosen: list[tuple[str, Filled]]) -> Image.Image:
    """The rows below each other."""
    captions = [[f"{why}: {filled.caption}", "", "", ""] for why, filled in chosen]
    heads = ("Input", "Telea", model, "Photograph")
    return drawings.grid([filled.tiles for _, filled in chosen], SIDE, heads, captions)


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser("benchmarks.model_sheets", __doc__)
    parser.add_argument("--model", required=True, choices=("faces", "photo"))
    parser.add_argument("--output", required=True, type=Path)
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    picture = sheet(options.model, rows(options.model))
    readme_strip.write(picture, options.output, format="JPEG", quality=90, subsampling=0)


if __name__ == "__main__":
    sys.exit(main())
