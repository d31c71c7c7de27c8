"""Measures the whole model in ONNX Runtime: its speed, the attention's share, and its memory.

    python -m benchmarks.onnx_models

One photograph of 256 x 256 pixels with the paper's center hole is filled, in turns and on the same
number of threads, by

* the preset `lite` and MI-GAN's published pipeline, both from uint8 to uint8;
* the preset `paper` with the fast attention and with the literal one, in graphs that are otherwise
  the same and agree.

The attention's share is that of its nodes in ONNX Runtime's own profile. Peak memory is that of a
process that loads the model and fills one image, or several of one size. Models are exported if
they are missing (see `benchmarks.models`). Writes `results/onnx_models.json` and
`results/onnx_memory.json`."""

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
PEAKS: dict[str, tuple] = {
    f"paper, {SMALL}": ("paper", SIDE),
    f"{REFERENCE}, {SMALL}": (REFERENCE, SIDE),
    f"paper, {LARGE}": ("paper", LARGE_SIDE),
    f"{SECOND}, ONNX Runtime's defaults": ("paper", LARGE_SIDE, 2),
    f"{SECOND}, enable_mem_pattern off, as in `serving`": ("paper", LARGE_SIDE, 2, False),
    f"paper, {LARGE}, attention_max_scores {models.MAX_SCORES}": ("bounded", LARGE_SIDE),
}
"""Name -> model, side, and the last arguments of `peak`."""


def check(image: np.ndarray, mask: np.ndarray, results: dict[str, np.ndarray]) -> None:
    """Refuses to time models that do not fill the hole, or two forms that fill it differently."""
    known = mask == 0
    known[:, 48:-48, 48:-48] = False  # MI-GAN blends its seam
    for name, result in results.items():
        if not np.array_equal(result[known], image[known]):
            raise RuntimeError(f"{name} changes known pixels: is its mask the right way round?")
        if np.array_equal(result[mask > 0], image[mask > 0]):
            raise RuntimeError(f"{name} fills nothing")
    difference = int(np.abs(results["paper"].astype(int) - results[REFERENCE]).max())
    if difference > 1:
        raise RuntimeError(f"fast and reference attention differ by {difference} gray levels")


def attention_share(path: Path, threads: int, rounds: int) -> float:
    """The attention's share of the time of all nodes, by ONNX Runtime's profile."""
    import onnx

    graph = onnx.load(path).graph
    # A node that the converter named itself is recognized by its output.
    inside = {node.name for node in graph.node if "attention" in f"{node.name} {node.output}"}
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    with tempfile.TemporaryDirectory() as folder:
        session = models.open_session(path, threads, profile=Path(folder) / "profile")
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


def peak(path: str, side: int, threads: int, times: int = 1, pattern: bool = True) -> int:
    """Fills the center hole of an image `times` times; the peak of this process in bytes."""
    session = models.open_session(path, threads, pattern=pattern)
    call = models.ours(session, models.photograph(side), models.square_hole(side, side // 2))
    for _ in range(times):
        call()
    return measure.resident_peak()


def added_by_fill(path: str, side: int) -> int:
    """Bytes that filling the center hole of an image adds to a process with the loaded model."""
    session = models.open_session(path, 1, pattern=False)
    call = models.ours(session, models.photograph(side), models.square_hole(side, side // 2))
    loaded = measure.restart_peak()
    call()
    return measure.resident_peak() - loaded


def measure_times(files: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds, the attention's share, and what they say, in this process."""
    threads, rounds = options.threads, options.rounds
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    calls = {
        name: models.ours(models.open_session(file, threads), image, mask)
        for name, file in files.items()
    }
    migan = models.open_session(models.migan(options.models), threads)
    calls["MI-GAN"] = models.migans(migan, image, mask)
    check(image, mask, {name: call() for name, call in calls.items()})
    seconds = measure.take_turns(calls, rounds)
    share = attention_share(files["paper"], threads, rounds)
    pairs = {
        "MI-GAN's pipeline / `lite`": ("MI-GAN", "lite"),
        "`paper` with the reference attention / `paper`": (REFERENCE, "paper"),
        "`paper` with bounded attention / `paper`": ("bounded", "paper"),
    }
    ratios = {name: measure.ratio(seconds, *pair) for name, pair in pairs.items()}
    ratios["attention / all of `paper`"] = share
    return {"rounds": rounds, "times": seconds, "attention_share": share, "ratios": ratios}


@measure.command(*models.ARGUMENTS, rounds=20)
def main(options: argparse.Namespace) -> None:
    folder, threads = options.models, {"threads": options.threads}
    files = {
        "lite": models.exported(folder, "lite"),
        "paper": models.exported(folder, "paper"),
        REFERENCE: models.exported(folder, "paper", attention_implementation="reference"),
        "bounded": models.exported(folder, "paper", attention_max_scores=models.MAX_SCORES),
    }
    times = measure_times(files, options)
    measure.publish("onnx_models", options.command, {**threads, **times}, digits=3)
    peaks = {}
    for label, (name, side, *more) in PEAKS.items():
        words = (str(files[name]), side, options.threads, *more)
        peaks[label] = measure.in_own_process(peak, *words)
        print(f"{peaks[label] / 1e9:6.2f} GB  {label}", flush=True)
    memory = {name: f"{value / 1e9:.2f} GB" for name, value in peaks.items()}
    figures = {**threads, "peak_bytes": peaks, "quantities": memory}
    measure.publish("onnx_memory", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
