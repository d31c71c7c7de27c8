"""Measures the cold start of `musical-inpaint`.

    python -m benchmarks.cold_start

`musical-inpaint` fills one photograph of 256 x 256 pixels in a new process, from file to file. Its
time is compared with that of a process that imports NumPy, Pillow and ONNX Runtime, in turns. Both
have their compiled modules, and the command its kept graph. Writes `results/cold_start.json`.
`benchmarks.cost` has the starts of all commands.
"""

import argparse
import os
import statistics
import sys
import tempfile
from functools import partial
from typing import Any

from benchmarks import measure
from benchmarks.cost import write_case

IMPORTS = """
import os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy, PIL.Image, onnxruntime
"""
"""A program that imports what any program that runs the model needs."""


def start_of_command(rounds: int) -> dict[str, Any]:
    """Seconds, and processor seconds, of the command and of the imports, and their ratios."""

    def timed(*words: str) -> tuple[float, float]:
        before = os.times()
        seconds, _ = measure.run_command(*words, every=0, kept=kept)
        after = os.times()
        user = after.children_user - before.children_user
        return seconds, user + after.children_system - before.children_system

    with tempfile.TemporaryDirectory() as folder:
        kept, words = f"{folder}/kept", write_case("center", 256, folder, ".png")
        calls = {
            "musical-inpaint": partial(timed, "serving.predict", *words),
            "imports": partial(timed, "-c", IMPORTS),
        }
        measure.in_rounds(calls, 1)  # compiles the modules
        taken = measure.in_rounds(calls, rounds)
    figures: dict[str, Any] = {"ratios": {}}
    for index, kind in enumerate(("seconds", "processor seconds")):
        figures[kind] = {
            name: statistics.median(each[name][index] for each in taken) for name in calls
        }
        of_rounds = [each["musical-inpaint"][index] / each["imports"][index] for each in taken]
        label = f"musical-inpaint / importing NumPy, Pillow and ONNX Runtime, {kind}"
        figures["ratios"][label] = statistics.median(of_rounds)
    return figures


@measure.command(rounds=7)
def main(options: argparse.Namespace) -> None:
    measure.publish("cold_start", options.command, start_of_command(options.rounds))


if __name__ == "__main__":
    sys.exit(main())
