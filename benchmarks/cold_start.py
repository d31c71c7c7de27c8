"""How long a cold `musical-inpaint` takes, relative to the imports that it cannot avoid.

    python -m benchmarks.cold_start            # print the ratio
    python -m benchmarks.cold_start --keep     # and write results/cold_start.json

One process fills one photograph of 256 pixels with the model `photo`; another one imports NumPy,
Pillow and ONNX Runtime. They run in turns. The ratio of processor time is stated beside that of
elapsed time, because it depends less on other work of the machine.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import measure

MODULE = "benchmarks.cold_start"
PHOTOGRAPH = measure.ROOT / "serving" / "page" / "sample-rocket.jpg"
SIDE = 256
IMPORTS = (
    "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import numpy, PIL.Image, onnxruntime"
)


def run(command: list[str]) -> tuple[float, float]:
    """Elapsed and processor seconds of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = partial(subprocess.run, command, cwd=measure.ROOT, check=True, capture_output=True)
    elapsed, after = measure.seconds_of(call), resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return elapsed, processor


def compare(rounds: int) -> dict[str, float]:
    """Medians of both programs and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        photo, mask, output = (str(Path(folder, name)) for name in ("p.png", "m.png", "o.png"))
        Image.open(PHOTOGRAPH).convert("RGB").resize((SIDE, SIDE)).save(photo)
        hole = np.zeros((SIDE, SIDE), bool)
        hole[96:160, 96:160] = True
        Image.fromarray(hole).save(mask)
        imports = [sys.executable, "-c", IMPORTS]
        fills = [sys.executable, "-m", "serving.predict", photo, mask, output]
        turns = [(run(imports), run(fills)) for _ in range(rounds + 1)][1:]  # the first warms up
    figures = {}
    for index, kind in enumerate(("elapsed", "processor")):
        figures[f"imports_{kind}"] = statistics.median(turn[0][index] for turn in turns)
        figures[f"fill_{kind}"] = statistics.median(turn[1][index] for turn in turns)
        ratios = (turn[1][index] / turn[0][index] for turn in turns)
        figures[f"ratio_{kind}"] = statistics.median(ratios)
    return {name: round(value, 3) for name, value in figures.items()}


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=7)
    parser.add_argument("--keep", action="store_true", help="write results/cold_start.json")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    figures = compare(options.rounds)
    for name, value in figures.items():
        print(f"{name:20} {value:.2f}")
    if options.keep:
        measure.publish("cold_start", MODULE, words, figures)


if __name__ == "__main__":
    sys.exit(main())
