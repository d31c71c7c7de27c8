"""Measures what ONNX Runtime's graph optimizations cost and save: processor seconds of one thread.

    python -m benchmarks.cold_start

For each level: opening the ONNX file of `photo`, opening its optimized graph that was kept in ONNX
Runtime's own format, and filling 256 x 256 pixels. `benchmarks.cost` has the starts of commands.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure, models
from musical_tf import onnx_runtime
from serving import named_models

LEVELS = ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")


def open_model(file: str, level: str, written: str = "") -> tuple[float, Any]:
    """Processor seconds, and the session; `written` is the file of the optimized graph."""
    runtime = onnx_runtime.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    if written:
        options.optimized_model_filepath = written
        options.add_session_config_entry("session.save_model_format", "ORT")
    started = time.process_time()
    session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return time.process_time() - started, session


@measure.command(rounds=7)
def main(options: argparse.Namespace) -> None:
    model, repeated = str(named_models.find("photo")), range(options.rounds)
    feed = {"image": models.photograph(256), "mask": models.square_hole(256, 64)}
    opened, sessions = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for level in LEVELS:
            kept = str(Path(folder, f"{level}.ort"))
            open_model(model, level, kept)
            opened[level] = [
                min(open_model(file, level)[0] for _ in repeated) for file in (model, kept)
            ]
            sessions[level] = open_model(kept, level)[1]
    seconds: dict[str, list[float]] = {level: [] for level in LEVELS}
    for _ in repeated:
        for level, session in sessions.items():
            started = time.process_time()
            session.run(["inpainted", "source"], feed)
            seconds[level].append(time.process_time() - started)
    print("optimizations    open  open kept  fill")
    for level, (from_onnx, from_kept) in opened.items():
        filled = statistics.median(seconds[level])
        print(f"{level:16} {from_onnx:.2f}  {from_kept:.2f}       {filled:.3f}")


if __name__ == "__main__":
    sys.exit(main())
