"""Measures whether serving frames small photographs as training does.

    python -m benchmarks.framing --celeba DIR

`faces` fills a central hole of half the width of CelebA's validation photographs, at 89 x 109 and
at 178 x 218 pixels, as `musical-inpaint` does. For comparison, the model alone fills the same hole
in the middle square, resized to the training size as training resizes; the result is resized back
and measured on the same pixels. That square is an upper bound: it is resized before its hole is
cut, so its known pixels contain some of the truth. Writes `results/framing.json`."""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import measure
from serving.session import InpaintingSession

SIZES = ((89, 109), (178, 218))
"""Width and height."""


def photographs(folder: Path, limit: int) -> list[Path]:
    """The first validation photographs of CelebA."""
    lines = (folder / "list_eval_partition.txt").read_text().split("\n")
    names = [line.split()[0] for line in lines if line.endswith(" 1")]
    files = [folder / "img_align_celeba" / name for name in names]
    found = [file for file in files if file.is_file()][:limit]
    if not found:
        raise ValueError(f"--celeba must hold validation photographs, got {folder}")
    return found


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """In dB, of uint8 arrays."""
    return float(10 * np.log10(255**2 / np.mean((image.astype(float) - truth) ** 2)))


def measure_one(session: InpaintingSession, image: np.ndarray) -> tuple[float, float]:
    """PSNR in the hole, as served and by the square of the training."""
    height, width, _ = image.shape
    side = width // 2
    top, left = (height - side) // 2, (width - side) // 2
    place = slice(top, top + side), slice(left, left + side)
    hole = np.zeros((height, width), bool)
    hole[place] = True
    served = session.inpaint(image, hole)

    start = (height - width) // 2
    square, square_hole = image[start : start + width], hole[start : start + width]
    size = (session.contract.training_size,) * 2
    small = np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BICUBIC))
    small_hole = np.asarray(Image.fromarray(square_hole).resize(size, Image.Resampling.NEAREST))
    filled = Image.fromarray(session.inpaint(small, small_hole, "original"))
    back = np.asarray(filled.resize((width, width), Image.Resampling.BICUBIC))
    return psnr(served[place], image[place]), psnr(back[square_hole], square[square_hole])


@measure.command(
    measure.argument("--celeba", type=Path, required=True, metavar="DIR"),
    measure.argument("--limit", type=measure.at_least(1), default=50, metavar="N"),
)
def main(options: argparse.Namespace) -> None:
    session = InpaintingSession("faces", ["cpu"])
    files = photographs(options.celeba, options.limit)
    rows = []
    for size in SIZES:
        scores = []
        for file in files:
            with Image.open(file) as opened:
                image = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            scores.append(measure_one(session, np.asarray(image)))
        served, square = np.mean(scores, axis=0).round(2).tolist()
        rows.append({"size": size, "count": len(files), "served": served, "square": square})
        print(f"{size[0]} x {size[1]}: served {served} dB, square of the training {square} dB")
    measure.publish("framing", options.command, {"rows": rows})


if __name__ == "__main__":
    sys.exit(main())
