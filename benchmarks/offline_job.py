"""Fills a few thousand small images with two workers, and kills a worker and the job meanwhile.

    python -m benchmarks.offline_job --model model.onnx

One worker is killed (SIGKILL) after a quarter of the images, the whole job after a half; then the
same command resumes. Counted afterwards: images lost, images written twice, outputs from before the
kill that were touched again, and outputs that differ from those of `serving.predict` with one
process and one thread. The images a second of the resumed half are compared with `serving.predict`
with as many threads as workers; outputs that the number of threads changes are counted too. Any
image lost, written twice, touched or different makes the exit code 1. Writes
`results/offline_job.json`. Needs Linux.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from musical_tf import images
from serving import offline, predict_many

WORKERS = 2
SIZES = (64, 80, 96)
"""Sides of the images in pixels, in turns."""

LIMIT = 300  # seconds that one command may take


def make_images(folder: Path, count: int, source: Path | None) -> None:
    """Writes `photos/` and `masks/` with `count` images, PNG and JPEG, in twenty subfolders.

    The images are those of the folder `source` shrunk, in turns, or smooth noise without one.
    """
    rng = np.random.default_rng(0)
    paths = []
    if source is not None:
        paths = [path for path in sorted(source.rglob("*")) if path.suffix in images.READABLE]
        if not paths:
            raise ValueError(f"--images must hold photographs, got {source}")
    for index in range(count):
        side = SIZES[index % len(SIZES)]
        name = f"{index % 20:02}/{index:06}"
        for kind in ("photos", "masks"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        if paths:
            with Image.open(paths[index % len(paths)]) as photograph:
                picture = photograph.convert("RGB").resize((side, side))
        else:
            colors = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            picture = Image.fromarray(colors).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / "photos" / f"{name}{('.png', '.jpg')[index % 2]}")
        hole = np.zeros((side, side), np.uint8)
        top, left = rng.integers(4, side // 2, 2)
        hole[top : top + side // 3, left : left + side // 3] = 255
        Image.fromarray(hole).save(folder / "masks" / f"{name}.png")


def outputs(folder: Path) -> list[Path]:
    """The images in a folder of outputs."""
    found = (path for path in folder.glob("*/*") if path.suffix in (".png", ".jpg"))
    return [path for path in found if not path.name.startswith(".")]


def start(module: str, model: str, folder: Path, output: str, *more: str) -> subprocess.Popen:
    """Starts a command line on `photos/` and `masks/`."""
    command = [sys.executable, "-m", module, "--model", model, "--mask", f"{folder}/masks"]
    command += ["--image", f"{folder}/photos", "--output", f"{folder}/{output}"]
    return subprocess.Popen(
        [*command, "--provider", "cpu", *more],
        cwd=measure.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Waits for a command line to end with 0; returns its output."""
    try:
        printed, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise RuntimeError(f"the command took more than {LIMIT} s") from error
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode}: {errors[-2000:]}")
    return printed


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Waits for a condition while a command line runs."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"nothing happened within {LIMIT} s")
        if process.poll() is not None:
            raise RuntimeError(f"it has ended too early: {process.communicate()}")
        time.sleep(0.05)


def run_job(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Runs the job with both kills; returns its figures."""
    out = folder / "many"
    flags = ("--workers", str(WORKERS), "--threads", "1")
    begin = partial(start, "serving.predict_many", model, folder, "many", *flags)
    job = begin()
    wait_until(job, lambda: len(outputs(out)) >= count // 4)
    ledgers = sorted((out / offline.FOLDER).glob("*.jsonl"))
    os.kill(int(ledgers[0].stem.split("-")[-2]), signal.SIGKILL)
    wait_until(job, lambda: len(outputs(out)) >= count // 2)
    job.kill()
    job.communicate()
    before = {path: path.stat() for path in outputs(out)}
    started_again = len(list((out / offline.FOLDER).glob("*.jsonl"))) - WORKERS
    seconds = measure.seconds_of(lambda: finish(begin()))
    report = json.loads((out / predict_many.REPORT).read_text())
    last = report["last_run"]

    def is_touched(path: Path) -> bool:
        now, then = path.stat(), before[path]
        return (now.st_ino, now.st_mtime_ns) != (then.st_ino, then.st_mtime_ns)

    return {
        "done": sum(report["done"].values()),
        "failed": len(report["failed"]),
        "lost": count - len(outputs(out)),
        "twice": report["twice"],
        "touched": sum(map(is_touched, before)),
        "partial_files": len(list(out.rglob(".partial-*"))),
        "workers_started_again": started_again,
        "done_when_job_was_killed": len(before),
        "images_after_kill": last["images"],
        "seconds_after_kill": last["seconds"],
        "seconds_of_command_after_kill": round(seconds, 1),
        "images_per_second": round(last["images"] / last["seconds"], 1),
    }


def one_process(model: str, folder: Path, output: str, threads: int) -> float:
    """Fills the folder with one process; returns the seconds after its start."""
    printed = finish(start("serving.predict", model, folder, output, "--threads", str(threads)))
    return float(re.search(r"in ([\d.]+) s", printed)[1])


def count_differing(one: Path, other: Path) -> int:
    """How many outputs of `one` are not, byte for byte, in `other`."""
    pairs = [(path, other / path.relative_to(one)) for path in outputs(one)]
    return sum(path.read_bytes() != twin.read_bytes() for path, twin in pairs)


def compare(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Fills the folder without Ray; returns the speed and how many outputs differ."""
    one_process(model, folder, "one thread", 1)
    seconds = one_process(model, folder, "threads", WORKERS)
    return {
        "images_per_second": round(count / seconds, 1),
        "seconds": seconds,
        "outputs_that_differ": count_differing(folder / "one thread", folder / "many"),
        "outputs_that_threads_change": count_differing(folder / "one thread", folder / "threads"),
    }


@measure.command(
    measure.argument("--model", required=True, metavar="FILE", help="an .onnx file"),
    measure.argument("--images", type=Path, metavar="FOLDER", help="photographs to shrink"),
    measure.argument("--count", type=measure.at_least(100), default=3000, metavar="N"),
)
def main(options: argparse.Namespace) -> int:
    model, count = str(Path(options.model).absolute()), options.count
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name), count, options.images)
        job = run_job(model, Path(name), count)
        single = compare(model, Path(name), count)
    ratio = round(job["images_per_second"] / single["images_per_second"], 2)
    figures = {
        "model_bytes": Path(model).stat().st_size,
        "images": count,
        "sides": SIZES,
        "source": "photographs" if options.images else "smooth noise",
        "workers": WORKERS,
        "job": job,
        "one_process": single,
        "job_to_one_process": ratio,
    }
    print(json.dumps(figures, indent=1))
    measure.publish("offline_job", options.command, figures)
    differing = single["outputs_that_differ"]
    wrong = {name: job[name] for name in ("failed", "lost", "twice", "touched") if job[name]}
    wrong |= {"different from one process's": differing} if differing else {}
    for name, number in wrong.items():
        print(f"{number} images {name}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
