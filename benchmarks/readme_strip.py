"""Draws the README's picture strip: two photographs that nobody trained on, filled by the models of
the package.

    python -m benchmarks.readme_strip --output docs/images/strip.png

The face is scikit-image's `astronaut` (NASA, public domain), cut so that eyes and mouth lie about
where CelebA's alignment puts them, brought to the detail of the 89 pixel wide faces that `faces`
was trained on, with the paper's centre hole. CelebA's own photographs may not be shown here. The
building is scikit-learn's `china` (danielbuechele, CC BY 2.0), brush strokes over it, for `photo`.
Beside the models: the input, Telea's diffusion, and the photograph itself.
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data
from sklearn import datasets as sklearn_datasets

from benchmarks import measure
from musical_tf.files import write_whole
from serving.session import InpaintingSession
from training.data import holes
from training.evaluation import baselines, drawings

SIZE = 256
DETAIL = 89
FACE = (136, 10, 316, 190)  # left, top, right, bottom of the aligned face in the photograph
BUILDING = (0, 0, 427, 427)
STROKES = 0.2  # of the picture


def face() -> np.ndarray:
    """`(S, S, 3)` uint8, as detailed as the faces that `faces` has seen."""
    picture = Image.fromarray(data.astronaut()).crop(FACE)
    picture = picture.resize((DETAIL, DETAIL), Image.Resampling.LANCZOS)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def building() -> np.ndarray:
    """`(S, S, 3)` uint8."""
    picture = Image.fromarray(sklearn_datasets.load_sample_image("china.jpg")).crop(BUILDING)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def tiles(session: InpaintingSession, image: np.ndarray, hole: np.ndarray) -> list[np.ndarray]:
    """Input, Telea's diffusion, what a model of the package makes of it, photograph."""
    return [
        np.where(hole[..., None], np.uint8(128), image),
        baselines.telea(image, hole),
        session.inpaint(image, hole),
        image,
    ]


def row(model: str, image: np.ndarray, hole: np.ndarray) -> dict[str, np.ndarray]:
    """Label -> tile."""
    labels = ("Input", "Telea", f"MUSICAL, {model}", "Photograph")
    return dict(zip(labels, tiles(InpaintingSession(model), image, hole), strict=True))


def strip(rows: list[dict[str, np.ndarray]]) -> Image.Image:
    """The tiles side by side, each above its label."""
    pictures = [list(tiles.values()) for tiles in rows]
    return drawings.grid(pictures, SIZE, captions=[list(tiles) for tiles in rows], gap=12)


def write(picture: Image.Image, file: Path, **options: Any) -> None:
    """Writes a picture, whole or not at all, with options of `Image.save`."""
    stream = io.BytesIO()
    picture.save(stream, optimize=True, **options)
    write_whole(file, stream.getvalue())


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser("benchmarks.readme_strip", __doc__)
    parser.add_argument("--output", required=True, type=Path)
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    rows = [
        row("faces", face(), holes.CenterHole(SIZE).deterministic(0)),
        row("photo", building(), holes.IrregularHole(SIZE, STROKES).deterministic(0)),
    ]
    write(strip(rows), options.output, format="PNG")


if __name__ == "__main__":
    sys.exit(main())
