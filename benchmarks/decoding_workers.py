"""Measures what decoding and encoding in worker processes costs a request.

    python -m benchmarks.decoding_workers

A request goes from the photograph's and the mask's file to the result's file. Images are decoded
and encoded in the thread that works on the request, or by a worker process; the two take turns.
Each is measured with the model, and without it: then only decoding, encoding and the pipes count.
Stated are ratios of medians, of the time and of the processor's time of server and worker, which
other work on the machine changes less. Also: the seconds until a killed
worker is replaced, and the memory of a worker at rest. Writes `results/decoding_workers.json`.
"""

import argparse
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from benchmarks import measure
from benchmarks.load_test import fill_with
from benchmarks.soak_requests import encoded
from musical_tf import images
from serving.server.inpaint_request import Codec, fill_request
from serving.server.jobs import AbandonedError, Job
from serving.server.schemas import Options
from serving.server.settings import Settings
from serving.server.worker_pool import Codec as WorkerCodec
from serving.server.worker_pool import WorkerPool
from serving.session import InpaintingSession

MODULE = "benchmarks.decoding_workers"
PHOTOGRAPHS = {
    "256 x 256, PNG": (256, 256, "PNG"),
    "1024 x 768, JPEG": (1024, 768, "JPEG"),
    "4000 x 3000, JPEG": (4000, 3000, "JPEG"),
    "4000 x 3000, PNG": (4000, 3000, "PNG"),
}
"""Name -> width, height and format. The answer has the same format."""

REPLACED = 5
"""Workers that are killed and replaced."""


def main(argv: list[str] | None = None) -> int:
    parser = measure.parser(MODULE, __doc__, rounds=15)
    parser.add_argument("--model", default="photo", metavar="MODEL", help="name or .onnx file")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    session = InpaintingSession(options.model)
    pool = WorkerPool(2, Settings.timeout)
    started = time.perf_counter()
    pool.start()
    pool.wait_until_ready()
    ready = time.perf_counter() - started
    codec = WorkerCodec(pool, Job(lambda job: None))
    rows = []
    for name, (width, height, image_format) in PHOTOGRAPHS.items():
        fields = _fields(width, height, image_format)
        for what, fill in (("with the model", fill_with(session)), ("without", _no_model)):
            request = partial(_fill, fields, fill)
            ways = {"thread": partial(request, images), "worker": partial(request, codec)}
            processor = partial(_processor_seconds, pool)
            rows.append(_compare(f"{name}, {what}", ways, processor, options.rounds))
            print(f"{rows[-1]}", flush=True)
    figures = {
        "rows": rows,
        "seconds_until_two_workers_are_ready": round(ready, 2),
        "seconds_until_a_killed_worker_is_replaced": round(_replacement(pool), 2),
        "mib_of_a_worker_at_rest": _memory(pool),
    }
    pool.close()
    measure.publish("decoding_workers", MODULE, words, figures)


def _fields(width: int, height: int, image_format: str) -> dict[str, Any]:
    size = (width, height)
    photograph = Image.fromarray(data.astronaut()).resize(size, Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 : height // 2 + 64, width // 2 : width // 2 + 64] = 255
    return {
        "format": image_format.lower(),
        "image": encoded(photograph, image_format),
        "mask": encoded(Image.fromarray(mask), "PNG"),
    }


def _fill(fields: dict[str, Any], fill: Callable, codec: Codec) -> bytes:
    streams = {name: io.BytesIO(fields[name]) for name in ("image", "mask")}
    options = Options(format=fields["format"])
    return fill_request(streams, options, Settings.max_pixels, fill, lambda: None, codec).content


def _no_model(image: np.ndarray, hole: np.ndarray, *options: str | None) -> np.ndarray:
    return np.where(hole[..., None], np.uint8(0), image)


def _processor_seconds(pool: WorkerPool) -> float:
    """What this process and the worker that it uses have used; alone, it always gets the same."""
    return time.process_time() + pool.run(Job(lambda job: None), time.process_time)


def _compare(
    name: str, ways: dict[str, Callable[[], bytes]], processor: Callable[[], float], rounds: int
) -> dict[str, Any]:
    if ways["thread"]() != ways["worker"]():
        raise RuntimeError(f"{name}: the worker's answer is another one than the thread's")
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            used, started = processor(), time.perf_counter()
            call()
            taken[way].append((time.perf_counter() - started, processor() - used))
    thread, worker = (np.median(taken[way], axis=0) for way in ("thread", "worker"))
    return {
        "request": name,
        "ratio": round(float(worker[0] / thread[0]), 3),
        "milliseconds_in_the_thread": round(1000 * float(thread[0]), 1),
        "ratio_of_processor_time": round(float(worker[1] / thread[1]), 3),
        "processor_milliseconds_in_the_thread": round(1000 * float(thread[1]), 1),
    }


def _replacement(pool: WorkerPool) -> float:
    """Median seconds from a worker's end until as many as before are alive."""
    seconds = []
    for _ in range(REPLACED):
        pool.wait_until_ready()
        job = Job(lambda job: None)
        thread = threading.Thread(target=_occupy, args=(pool, job))
        thread.start()
        time.sleep(0.2)
        job.abandon()
        thread.join()
        seconds.append(measure.seconds_of(pool.wait_until_ready))
    return float(np.median(seconds))


def _occupy(pool: WorkerPool, job: Job) -> None:
    try:
        pool.run(job, time.sleep, 1000)
    except AbandonedError:
        return


def _memory(pool: WorkerPool) -> float | None:
    """MiB of resident memory of a worker that has done nothing yet; None but on Linux."""
    try:
        process = pool.run(Job(lambda job: None), os.getpid)
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    sys.exit(main())
