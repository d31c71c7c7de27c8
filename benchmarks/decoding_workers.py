"""Measures what decoding and encoding in worker processes costs a request.

    python -m benchmarks.decoding_workers

A request goes from the photograph's and the mask's file to the result's file. The thread that works
on the request decodes and encodes, or a worker process does, in turns; with the model, and without
it, which leaves decoding, encoding and the pipes. The figures are ratios of medians of elapsed time
and of processor time of server and worker, the seconds until a killed worker is replaced, and the
memory of an idle worker. Writes `results/decoding_workers.json`.
"""

import argparse
import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks import measure, models
from benchmarks.soak_requests import encoded
from musical_tf import images
from serving.server.inpaint_request import Codec, Fill, fill_request
from serving.server.jobs import AbandonedError, Job
from serving.server.schemas import Options
from serving.server.settings import Settings
from serving.server.worker_pool import Codec as WorkerCodec
from serving.server.worker_pool import WorkerPool
from serving.session import InpaintingSession

PHOTOGRAPHS = {
    "256 x 256, PNG": (256, 256, "PNG"),
    "1024 x 768, JPEG": (1024, 768, "JPEG"),
    "4000 x 3000, JPEG": (4000, 3000, "JPEG"),
    "4000 x 3000, PNG": (4000, 3000, "PNG"),
}
"""Name -> width, height and format. The answer has the same format."""

REPLACED = 5
"""Workers that are killed and replaced."""


@measure.command(
    measure.argument("--model", default="photo", metavar="MODEL", help="name or .onnx file"),
    rounds=15,
)
def main(options: argparse.Namespace) -> None:
    session = InpaintingSession(options.model)
    fills: dict[str, Fill] = {
        "with the model": lambda image, hole, *_: session.inpaint(image, hole),
        "without": lambda image, hole, *_: np.where(hole[..., None], np.uint8(0), image),
    }
    pool = WorkerPool(2, Settings.timeout)
    started = time.perf_counter()
    pool.start()
    pool.wait_until_ready()
    ready = time.perf_counter() - started
    rows = []
    for name, format_of in PHOTOGRAPHS.items():
        fields = _fields(*format_of)
        for what, fill in fills.items():
            row = _compare(pool, partial(_fill, fields, fill), options.rounds)
            rows.append({"request": f"{name}, {what}", **row})
            print(rows[-1], flush=True)
    replaced = float(np.median([_replacement(pool) for _ in range(REPLACED)]))
    idle = psutil.Process(pool.run(Job(lambda job: None), os.getpid)).memory_info().rss
    pool.close()
    figures = {
        "rows": rows,
        "seconds_until_two_workers_are_ready": round(ready, 2),
        "seconds_until_a_killed_worker_is_replaced": round(replaced, 2),
        "mib_of_a_worker_at_rest": round(idle / 2**20, 1),
    }
    measure.publish("decoding_workers", options.command, figures)


def _fields(width: int, height: int, image_format: str) -> dict[str, Any]:
    photograph = Image.fromarray(models.photograph(512)[0])
    photograph = photograph.resize((width, height), Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 : height // 2 + 64, width // 2 : width // 2 + 64] = 255
    return {
        "format": image_format.lower(),
        "image": encoded(photograph, image_format),
        "mask": encoded(Image.fromarray(mask), "PNG"),
    }


def _fill(fields: dict[str, Any], fill: Fill, codec: Codec) -> bytes:
    streams = {name: io.BytesIO(fields[name]) for name in ("image", "mask")}
    options = Options(format=fields["format"])
    return fill_request(streams, options, Settings.max_pixels, fill, lambda: None, codec).content


def _compare(pool: WorkerPool, request: Callable[[Codec], bytes], rounds: int) -> dict[str, float]:
    """Medians and ratios of elapsed and processor time, in the thread and in a worker."""
    codecs: dict[str, Codec] = {
        "thread": images,
        "worker": WorkerCodec(pool, Job(lambda job: None)),
    }
    if request(codecs["thread"]) != request(codecs["worker"]):
        raise RuntimeError("the worker's answer differs from the thread's")

    def processor() -> float:  # of this process and of the worker that it uses, always the same
        return time.process_time() + pool.run(Job(lambda job: None), time.process_time)

    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in codecs}
    for _ in range(rounds):
        for way, codec in codecs.items():
            used = processor()
            elapsed = measure.seconds_of(partial(request, codec))
            taken[way].append((elapsed, processor() - used))
    thread, worker = (np.median(each, axis=0) for each in taken.values())
    return {
        "ratio": round(float(worker[0] / thread[0]), 3),
        "milliseconds_in_the_thread": round(1000 * float(thread[0]), 1),
        "ratio_of_processor_time": round(float(worker[1] / thread[1]), 3),
        "processor_milliseconds_in_the_thread": round(1000 * float(thread[1]), 1),
    }


def _replacement(pool: WorkerPool) -> float:
    """Seconds from a worker's end until as many as before are alive."""
    pool.wait_until_ready()
    job = Job(lambda job: None)

    def occupy() -> None:
        with contextlib.suppress(AbandonedError):
            pool.run(job, time.sleep, 1000)

    thread = threading.Thread(target=occupy)
    thread.start()
    time.sleep(0.2)
    job.abandon()
    thread.join()
    return measure.seconds_of(pool.wait_until_ready)


if __name__ == "__main__":
    sys.exit(main())
