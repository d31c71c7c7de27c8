"""Measures the whole model in ONNX Runtime: its speed, the attention's share, and its memory.

    python -m benchmarks.onnx_models

One photograph of 256 x 256 pixels with the paper's center hole is filled, in turns and on the same
number of threads, by

* the preset `lite` and MI-GAN's published pipeline, both from uint8 to uint8;
* the preset `paper` with the fast attention and with the literal one, in graphs that are otherwise
  the same and agree.

The attention's share is that of its nodes in ONNX Runtime's own profile. Peak memory is that of a
process that loads the model and fills one image, or several of one size. Writes
`results/onnx_models.json` and `results/onnx_memory.json`.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, models

SIDE, LARGE_SIDE = 256, 512
REFERENCE = "paper, reference"
SMALL, LARGE = (f"{side} x {side}" for side in (SIDE, LARGE_SIDE))
SECOND = f"paper, {LARGE}, second picture"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "lite": ("lite", {}),
    "paper": ("paper", {}),
    REFERENCE: ("paper", {"attention_implementation": "reference"}),
    "bounded": ("paper", {"attention_max_scores": models.MAX_SCORES}),
}
"""Model -> preset, and fields of its `Config`."""

PEAKS: dict[str, tuple] = {
    f"paper, {SMALL}": ("paper", SIDE),
    f"{REFERENCE}, {SMALL}": (REFERENCE, SIDE),
    f"paper, {LARGE}": ("paper", LARGE_SIDE),
    f"{SECOND}, ONNX Runtime's defaults": ("paper", LARGE_SIDE, 2),
    f"{SECOND}, enable_mem_pattern off, as in `serving`": ("paper", LARGE_SIDE, 2, False),
    f"paper, {LARGE}, attention_max_scores {models.MAX_SCORES}": ("bounded", LARGE_SIDE),
}
"""Name -> model, side, and the last arguments of `peak`."""


def attention_share(path: Path, rounds: int) -> float:
    """The attention's share of the time of all nodes, by ONNX Runtime's profile."""
    import onnx

    graph = onnx.load(path).graph
    # A node that the converter named itself is recognized by its output.
    inside = {node.name for node in graph.node if "attention" in f"{node.name} {node.output}"}
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    with tempfile.TemporaryDirectory() as folder:
        session = models.open_session(path, profile=Path(folder) / "profile")
        for _ in range(rounds + 1):
            models.ours(session, image, mask)()
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    shares = []
    for run in [event for event in events if event["name"] == "model_run"][1:]:  # one warm-up
        spent = {True: 0, False: 0}
        for event in nodes:
            if run["ts"] <= event["ts"] < run["ts"] + run["dur"]:
                name = event["name"].removesuffix("_kernel_time")
                spent[name in inside or "attention" in name] += event["dur"]
        shares.append(spent[True] / sum(spent.values()))
    return statistics.median(shares)


def peak(path: str, side: int, times: int = 1, pattern: bool = True) -> int:
    """Fills the center hole of an image `times` times; the peak of this process in bytes."""
    session = models.open_session(path, pattern=pattern)
    call = models.ours(session, models.photograph(side), models.square_hole(side, side // 2))
    for _ in range(times):
        call()
    return measure.resident_peak()


def measure_times(files: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Seconds, the attention's share, and what they say, in this process."""
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    calls = {
        name: models.ours(models.open_session(file), image, mask) for name, file in files.items()
    }
    difference = int(np.abs(calls["paper"]().astype(int) - calls[REFERENCE]()).max())
    if difference > 1:
        raise RuntimeError(f"fast and reference attention differ by {difference} gray levels")
    calls["MI-GAN"] = models.migans(models.open_session(models.migan()), image, mask)
    seconds = measure.take_turns(calls, rounds)
    share = attention_share(files["paper"], rounds)
    pairs = {
        "MI-GAN's pipeline / `lite`": ("MI-GAN", "lite"),
        "`paper` with the reference attention / `paper`": (REFERENCE, "paper"),
        "`paper` with bounded attention / `paper`": ("bounded", "paper"),
    }
    ratios = {name: measure.ratio(seconds, *pair) for name, pair in pairs.items()}
    ratios["attention / all of `paper`"] = share
    return {"rounds": rounds, "times": seconds, "attention_share": share, "ratios": ratios}


@measure.command(rounds=20)
def main(options: argparse.Namespace) -> None:
    threads, files, peaks = {"threads": models.THREADS}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (preset, fields) in VARIANTS.items():
            files[name] = Path(folder, f"{len(files)}.onnx")
            measure.in_own_process(models.export, files[name], preset, fields)
        times = measure_times(files, options.rounds)
        measure.publish("onnx_models", options.command, {**threads, **times}, digits=3)
        for label, (name, *words) in PEAKS.items():
            peaks[label] = measure.in_own_process(peak, str(files[name]), *words)
            print(f"{peaks[label] / 1e9:6.2f} GB  {label}", flush=True)
    memory = {name: f"{value / 1e9:.2f} GB" for name, value in peaks.items()}
    figures = {**threads, "peak_bytes": peaks, "quantities": memory}
    measure.publish("onnx_memory", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
