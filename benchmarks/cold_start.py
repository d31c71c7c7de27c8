"""Measures cold starts: of `musical-inpaint`, and of its model by ONNX Runtime's optimizations.

    python -m benchmarks.cold_start

`musical-inpaint` fills one photograph of 256 x 256 pixels in a new process, from file to file. Its
time is compared with that of a process that imports NumPy, Pillow and ONNX Runtime, in turns. Both
have their compiled modules, and the command its kept graph.

For each level of graph optimizations, in processor seconds of one thread: opening the ONNX file of
`photo`, opening its optimized graph that was kept in ONNX Runtime's own format, and filling 256 x
256 pixels. Writes `results/cold_start.json`. `benchmarks.cost` has the starts of all commands.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import measure, models
from musical_tf import onnx_runtime
from serving import named_models

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")

IMPORTS = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, PIL.Image, onnxruntime
"""
"""A program that imports what any program that runs the model needs."""


def write_photograph(folder: Path) -> tuple[str, str, str]:
    """Writes a photograph and its mask; returns the words of a command that fills it."""
    photo, mask, output = (str(folder / f"{name}.png") for name in ("photo", "mask", "output"))
    Image.fromarray(models.photograph(256)[0]).save(photo)
    Image.fromarray(models.square_hole(256, 128)[0]).save(mask)
    return photo, mask, output


def start_of_command(rounds: int) -> dict[str, Any]:
    """Seconds, and processor seconds, of the command and of the imports, and their ratios."""

    def timed(*words: str) -> tuple[float, float]:
        before = os.times()
        seconds, _ = measure.run_command(*words, every=0, kept=kept)
        after = os.times()
        user = after.children_user - before.children_user
        return seconds, user + after.children_system - before.children_system

    with tempfile.TemporaryDirectory() as folder:
        kept = f"{folder}/kept"
        calls = {
            "musical-inpaint": partial(timed, "serving.predict", *write_photograph(Path(folder))),
            "imports": partial(timed, "-c", IMPORTS),
        }
        measure.in_rounds(calls, 1)  # compiles the modules
        taken = measure.in_rounds(calls, rounds)
    figures: dict[str, Any] = {"ratios": {}}
    for index, kind in enumerate(("seconds", "processor_seconds")):
        each = [{name: pair[index] for name, pair in found.items()} for found in taken]
        figures[kind] = {name: statistics.median(one[name] for one in each) for name in calls}
        label = f"musical-inpaint / importing NumPy, Pillow and ONNX Runtime, {kind}"
        of_rounds = [one["musical-inpaint"] / one["imports"] for one in each]
        figures["ratios"][label.replace("_", " ")] = statistics.median(of_rounds)
    return figures


def open_model(file: str, level: str, written: str = "") -> tuple[float, Any]:
    """Processor seconds, and the session; `written` is the file of the optimized graph."""
    runtime = onnx_runtime.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    if written:
        options.optimized_model_filepath = written
        options.add_session_config_entry("session.save_model_format", "ORT")
    started = time.process_time()
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return time.process_time() - started, session


def fill(session: Any) -> float:
    """Processor seconds."""
    feed = {"image": models.photograph(256), "mask": models.square_hole(256, 64)}
    started = time.process_time()
    session.run(["inpainted", "source"], feed)
    return time.process_time() - started


def optimizations(rounds: int) -> dict[str, dict[str, float]]:
    """Processor seconds by level: the least of opening, the median of filling."""
    model, figures, sessions = str(named_models.find("photo")), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for level in LEVELS:
            kept = str(Path(folder, f"{level}.ort"))
            open_model(model, level, kept)
            figures[level] = {
                name: min(open_model(file, level)[0] for _ in range(rounds))
                for name, file in {"open": model, "open_kept": kept}.items()
            }
            sessions[level] = open_model(kept, level)[1]
    fills = {level: partial(fill, session) for level, session in sessions.items()}
    filled = measure.in_rounds(fills, rounds)
    for level, found in figures.items():
        found["fill"] = statistics.median(each[level] for each in filled)
    return figures


@measure.command(rounds=7)
def main(options: argparse.Namespace) -> None:
    levels, command = optimizations(options.rounds), start_of_command(options.rounds)
    print("optimizations    open  open kept  fill")
    for level, found in levels.items():
        print("{:16} {open:.2f}  {open_kept:.2f}       {fill:.3f}".format(level, **found))
    measure.publish("cold_start", options.command, {**command, "optimizations": levels})


if __name__ == "__main__":
    sys.exit(main())
