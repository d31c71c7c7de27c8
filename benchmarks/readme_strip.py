"""Draws the README's picture strip: one face, nobody's training photograph, filled by each model.

    python -m benchmarks.readme_strip --model LABEL=MODEL [--model ...] --output STRIP.png

MODEL is an .onnx file or the name of a model that is part of the package.

The face is scikit-image's `astronaut` (NASA, public domain), cut so that eyes and mouth lie about
where CelebA's alignment puts them, brought to the detail of the 89 pixel wide faces the model was
trained on, with the paper's centre hole. CelebA's own photographs may not be shown here. Beside the
models: the input, Telea's diffusion, and the photograph itself.
"""

import argparse
import io
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from serving.images import write_bytes
from serving.session import InpaintingSession

SIZE = 128
DETAIL = 89
FACE = (136, 10, 316, 190)  # left, top, right, bottom of the aligned face in the photograph
SCALE, GAP, LINE = 2, 12, 34


def face_and_hole() -> tuple[np.ndarray, np.ndarray]:
    """The face `(128, 128, 3)` uint8 and the centre hole `(128, 128)` bool."""
    face = Image.fromarray(data.astronaut()).crop(FACE)
    face = face.resize((DETAIL, DETAIL), Image.LANCZOS).resize((SIZE, SIZE), Image.BILINEAR)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4] = True
    return np.asarray(face), hole


def strip(tiles: dict[str, np.ndarray]) -> Image.Image:
    """The tiles side by side, each above its label."""
    side = SIZE * SCALE
    width = len(tiles) * (side + GAP) - GAP
    sheet = Image.new("RGB", (width, side + LINE), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, (label, tile) in enumerate(tiles.items()):
        left = i * (side + GAP)
        sheet.paste(Image.fromarray(tile).resize((side, side), Image.BICUBIC), (left, 0))
        draw.text((left + side / 2, side + LINE / 2), label, "black", font, anchor="mm")
    return sheet


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", action="append", default=[], metavar="LABEL=MODEL")
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args(argv)
    truth, hole = face_and_hole()
    grey = np.where(hole[..., None], np.uint8(128), truth)
    telea = cv2.inpaint(truth[..., ::-1].copy(), hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    tiles = {"Input": grey, "Telea": telea[..., ::-1]}
    try:
        for pair in arguments.model:
            label, _, file = pair.partition("=")
            tiles[label] = InpaintingSession(file).inpaint(truth, hole)
        picture = io.BytesIO()
        strip({**tiles, "Photograph": truth}).save(picture, format="PNG")
        write_bytes(arguments.output, picture.getvalue())
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
