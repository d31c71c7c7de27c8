"""How long a cold `musical-inpaint` takes, relative to the imports that it cannot avoid.

    python -m benchmarks.cold_start            # print the ratio
    python -m benchmarks.cold_start --keep     # and write results/cold_start.json
    python -m benchmarks.cold_start --levels   # compare ONNX Runtime's optimizations instead

One process fills one photograph of 256 pixels with the model `photo`; another one imports NumPy,
Pillow and ONNX Runtime. They run in turns, with compiled modules and a kept graph, as every start
but the first. The ratio of processor time is stated beside that of elapsed time, because it depends
less on other work of the machine.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import measure
from musical_tf import onnx_runtime
from serving import named_models

MODULE = "benchmarks.cold_start"
PHOTOGRAPH = measure.ROOT / "serving" / "page" / "sample-rocket.jpg"
SIDE = 256
IMPORTS = (
    "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import numpy, PIL.Image, onnxruntime"
)


def run(command: list[str], folder: str) -> tuple[float, float]:
    """Elapsed and processor seconds of a process that keeps what it compiles in `folder`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder, "MUSICAL_CACHE": folder}
    call = partial(
        subprocess.run,
        command,
        cwd=measure.ROOT,
        env=os.environ | kept,
        check=True,
        capture_output=True,
    )
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
        turns = [(run(imports, folder), run(fills, folder)) for _ in range(rounds + 1)]
        del turns[0]  # it warms up
    figures = {}
    for index, kind in enumerate(("elapsed", "processor")):
        figures[f"imports_{kind}"] = statistics.median(turn[0][index] for turn in turns)
        figures[f"fill_{kind}"] = statistics.median(turn[1][index] for turn in turns)
        ratios = (turn[1][index] / turn[0][index] for turn in turns)
        figures[f"ratio_{kind}"] = statistics.median(ratios)
    return {name: round(value, 3) for name, value in figures.items()}


def compare_levels(rounds: int) -> None:
    """Prints processor seconds to open and to run the model, one thread, by optimizations."""
    runtime = onnx_runtime.load()
    photo = Image.open(PHOTOGRAPH).convert("RGB").resize((SIDE, SIDE))
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[:, 96:160, 96:160] = 255
    fed = {"image": np.asarray(photo)[None], "mask": mask}
    opened, sessions = {}, {}

    def open_session(file: str, level: str, written: str = "") -> tuple:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
        if written:
            options.optimized_model_filepath = written
            options.add_session_config_entry("session.save_model_format", "ORT")
        started = time.process_time()
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return time.process_time() - started, session

    model = str(named_models.find("photo"))
    with tempfile.TemporaryDirectory() as folder:
        for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
            kept = str(Path(folder, f"{level}.ort"))
            open_session(model, level, kept)
            from_onnx = min(open_session(model, level)[0] for _ in range(rounds))
            from_kept = min(open_session(kept, level)[0] for _ in range(rounds))
            opened[level] = from_onnx, from_kept
            sessions[level] = open_session(kept, level)[1]
    seconds: dict[str, list[float]] = {level: [] for level in sessions}
    for _ in range(rounds):
        for level, session in sessions.items():
            started = time.process_time()
            session.run(["inpainted", "source"], fed)
            seconds[level].append(time.process_time() - started)
    print("optimizations    open  open kept  fill")
    for level, (from_onnx, from_kept) in opened.items():
        filled = statistics.median(seconds[level])
        print(f"{level:16} {from_onnx:.2f}  {from_kept:.2f}       {filled:.3f}")


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=7)
    parser.add_argument("--keep", action="store_true", help="write results/cold_start.json")
    parser.add_argument(
        "--levels", action="store_true", help="compare ONNX Runtime's optimizations instead"
    )
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    if options.levels:
        return compare_levels(options.rounds)
    figures = compare(options.rounds)
    for name, value in figures.items():
        print(f"{name:20} {value:.2f}")
    if options.keep:
        measure.publish("cold_start", MODULE, words, figures)


if __name__ == "__main__":
    sys.exit(main())
