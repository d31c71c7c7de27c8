"""Fills a few thousand small images with two workers, and kills what can be killed on the way.

    python -m benchmarks.offline_job --model model.onnx

One worker is killed (SIGKILL) when a quarter of the images is done, the whole job at a half; then
the same command is given again and goes on to the end. Counted afterwards: images lost, images
whose output was written twice, outputs from before the kill that were touched again, and outputs
that differ from those of `serving.predict`, which fills the same folder in one process with the one
thread that a worker has. Once more with as many threads as the job has workers, its images a second
stand beside those of the second, undisturbed half of the job, from one run and one machine; Ray's
start is stated by itself. How many outputs another number of threads changes is counted too. Any
image lost, twice, touched or different makes the exit code 1. Writes results/offline_job.json.
Needs Linux.
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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from musical_tf import images
from serving import offline, predict_many

MODULE = "benchmarks.offline_job"
WORKERS = 2
SIZES = (64, 80, 96)
"""Sides of the images in pixels, in turns."""

LIMIT = 300  # seconds that one command may take


def make_images(folder: Path, count: int, source: Path | None) -> None:
    """Writes `photos/` and `masks/` with `count` pictures, PNG and JPEG, in twenty subfolders.

    Args:
        folder: Where to.
        count: How many.
        source: A folder of photographs to shrink, in turns; None makes smooth noise.
    """
    rng = np.random.default_rng(0)
    paths = []
    if source is not None:
        paths = [path for path in sorted(source.rglob("*")) if path.suffix in images.READABLE]
        if not paths:
            raise ValueError(f"{source}: no photographs in this folder")
    for index in range(count):
        side = SIZES[index % len(SIZES)]
        name = f"{index % 20:02}/{index:06}"
        for kind in ("photos", "masks"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        if paths:
            with Image.open(paths[index % len(paths)]) as photograph:
                picture = photograph.convert("RGB").resize((side, side))
        else:
            colours = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            picture = Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / "photos" / f"{name}{('.png', '.jpg')[index % 2]}")
        hole = np.zeros((side, side), np.uint8)
        top, left = rng.integers(4, side // 2, 2)
        hole[top : top + side // 3, left : left + side // 3] = 255
        Image.fromarray(hole).save(folder / "masks" / f"{name}.png")


def pictures(folder: Path) -> list[Path]:
    """The outputs that are there."""
    return [
        path
        for path in folder.glob("*/*")
        if path.suffix in (".png", ".jpg") and not path.name.startswith(".")
    ]


def start(module: str, model: str, folder: Path, output: str, *more: str) -> subprocess.Popen:
    """Starts a command line on `photos/` and `masks/`."""
    command = [sys.executable, "-m", module, "--model", model, "--mask", f"{folder}/masks"]
    command += ["--image", f"{folder}/photos", "--output", f"{folder}/{output}", *more]
    return subprocess.Popen(
        command, cwd=measure.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> str:
    """Waits for a command line to end well; gives what it printed."""
    try:
        printed, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise RuntimeError(f"the command has not ended within {LIMIT} s") from error
    if process.returncode:
        raise RuntimeError(f"the command ended with {process.returncode}: {errors[-2000:]}")
    return printed


def wait_until(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Waits for something that a command line does while it runs."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"nothing happened within {LIMIT} s")
        if process.poll() is not None:
            raise RuntimeError(f"it has ended too early: {process.communicate()}")
        time.sleep(0.05)


def run_job(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Runs the job with both kills; gives its figures."""
    out = folder / "many"
    flags = ("--workers", str(WORKERS), "--threads", "1", "--provider", "cpu")
    job = start("serving.predict_many", model, folder, "many", *flags)
    wait_until(job, lambda: len(pictures(out)) >= count // 4)
    ledgers = sorted((out / offline.FOLDER).glob("*.jsonl"))
    os.kill(int(ledgers[0].stem.split("-")[-2]), signal.SIGKILL)
    wait_until(job, lambda: len(pictures(out)) >= count // 2)
    job.kill()
    job.communicate()
    before = {path: path.stat() for path in pictures(out)}
    started_again = len(list((out / offline.FOLDER).glob("*.jsonl"))) - WORKERS
    seconds = measure.seconds_of(
        lambda: finish(start("serving.predict_many", model, folder, "many", *flags))
    )
    report = json.loads((out / predict_many.REPORT).read_text())
    last = report["last_run"]
    touched = [
        path
        for path, stat in before.items()
        if (path.stat().st_ino, path.stat().st_mtime_ns) != (stat.st_ino, stat.st_mtime_ns)
    ]
    return {
        "done": sum(report["done"].values()),
        "failed": len(report["failed"]),
        "lost": count - len(pictures(out)),
        "twice": report["twice"],
        "touched": len(touched),
        "partial_files": len(list(out.rglob(".partial-*"))),
        "workers_started_again": started_again,
        "done_when_job_was_killed": len(before),
        "images_after_kill": last["images"],
        "seconds_after_kill": last["seconds"],
        "seconds_of_command_after_kill": round(seconds, 1),
        "images_per_second": round(last["images"] / last["seconds"], 1),
    }


def one_process(model: str, folder: Path, output: str, threads: int) -> float:
    """Fills the folder with one process; gives the seconds it took, its start left out."""
    flags = ("--threads", str(threads), "--provider", "cpu")
    printed = finish(start("serving.predict", model, folder, output, *flags))
    return float(re.search(r"in ([\d.]+) s", printed)[1])


def count_differing(one: Path, other: Path) -> int:
    """How many outputs of `one` are not, byte for byte, in `other`."""
    return sum(
        path.read_bytes() != (other / path.relative_to(one)).read_bytes() for path in pictures(one)
    )


def compare(model: str, folder: Path, count: int) -> dict[str, Any]:
    """Fills the folder without Ray; gives the speed and how many outputs differ."""
    one_process(model, folder, "one thread", 1)
    seconds = one_process(model, folder, "threads", WORKERS)
    return {
        "images_per_second": round(count / seconds, 1),
        "seconds": seconds,
        "outputs_that_differ": count_differing(folder / "one thread", folder / "many"),
        "outputs_that_threads_change": count_differing(folder / "one thread", folder / "threads"),
    }


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument(
        "--model", required=True, metavar="FILE", help="a file that export/to_onnx.py wrote"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="photographs to make small images of"
    )
    parser.add_argument("--count", type=int, default=3000, metavar="N", help="(default: 3000)")
    return measure.run(parser, argv, work, wrong_input=2)


def work(options: argparse.Namespace, words: list[str]) -> int:
    model, source = str(Path(options.model).absolute()), options.images
    if options.count < 100:
        raise ValueError(f"--count must be at least 100, got {options.count}")
    with tempfile.TemporaryDirectory() as name:
        make_images(Path(name), options.count, source)
        job = run_job(model, Path(name), options.count)
        print(json.dumps(job, indent=1), flush=True)
        single = compare(model, Path(name), options.count)
        print(json.dumps(single, indent=1), flush=True)
    ratio = round(job["images_per_second"] / single["images_per_second"], 2)
    figures = {
        "model_bytes": Path(model).stat().st_size,
        "images": options.count,
        "sides": SIZES,
        "source": "photographs" if source else "smooth noise",
        "workers": WORKERS,
        "job": job,
        "one_process": single,
        "job_to_one_process": ratio,
    }
    command = ["--model", Path(model).name, "--count", str(options.count)]
    measure.publish(
        "offline_job", MODULE, command + (["--images", source.name] if source else []), figures
    )
    print(f"{job['images_per_second']} images/s, {ratio} times one process of {WORKERS} threads")
    wrong = {
        "failed": job["failed"],
        "lost": job["lost"],
        "written twice": job["twice"],
        "touched again": job["touched"],
        "different from one process's": single["outputs_that_differ"],
    }
    for what, number in wrong.items():
        if number:
            print(f"{number} images {what}", file=sys.stderr)
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
