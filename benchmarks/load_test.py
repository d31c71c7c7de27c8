"""Measures the server against a plain loop over the model, and its worker processes.

    python -m benchmarks.load_test --model model.onnx
    python -m benchmarks.load_test --workers

The loop does what a request does, from the photograph's file to the result's; a second loop runs
from pixels to pixels. The servers are processes on this machine, one for each `--batch`. The
clients are threads here that send the same file repeatedly. All take turns. The figures are
requests a second, the ratio to the loop, the time of half and of 99 % of the requests, and the
processor seconds of a request (on Linux). Writes `results/load_test.json`.
`--workers`: the cost of decoding and encoding in worker processes. The thread that works on the
request decodes and encodes, or a worker process does, in turns; with the model, and without it,
which leaves decoding, encoding and the pipes. Also the seconds until a killed worker is replaced,
and the memory of an idle worker. Writes `results/decoding_workers.json`.
"""

import argparse
import contextlib
import http.client
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import psutil
from PIL import Image

from benchmarks import measure, models
from benchmarks.soak_requests import encoded, form, get
from musical_tf import images
from serving.server.inpaint_request import Fill, fill_request
from serving.server.jobs import AbandonedError, Job
from serving.server.schemas import Options
from serving.server.settings import Settings
from serving.server.worker_pool import Codec, WorkerPool
from serving.session import InpaintingSession

PHOTOGRAPHS = {"small": (1, 0.5), "large": (8, 0.5)}
"""Name -> sides of the photograph and of its hole, as multiples of the training size. Either is one
run of the model."""

WORKER_PHOTOGRAPHS = {
    "256 x 256, PNG": (256, 256, "PNG"),
    "1024 x 768, JPEG": (1024, 768, "JPEG"),
    "4000 x 3000, JPEG": (4000, 3000, "JPEG"),
    "4000 x 3000, PNG": (4000, 3000, "PNG"),
}
"""Name -> width, height and format. The answer has the same format."""

REPLACED = 5
"""Workers that are killed and replaced."""

TIMEOUT = 60  # seconds for one answer

LOOP, PIXELS = "loop, file to file", "loop, pixels to pixels"


class Way(NamedTuple):
    """A function that fills until a time of `time.perf_counter` and returns the seconds of each.

    `processor_seconds` is the processor time so far of the process that fills.
    """

    run: Callable[[float], list[float]]
    processor_seconds: Callable[[], float] = time.process_time


@measure.command(
    measure.argument("--model", default="photo", metavar="MODEL", help="name or .onnx file"),
    measure.argument("--seconds", type=float, default=20, help="for each row"),
    measure.argument("--clients", type=int, nargs="+", default=[1, 4, 16]),
    measure.argument("--batch", type=int, nargs="+", default=[1, 4]),
    measure.argument("--workers", action="store_true", help="measure worker processes"),
    rounds=4,
)
def main(options: argparse.Namespace) -> None:
    session = InpaintingSession(options.model)
    if options.workers:
        return measure_workers(session, options)
    size = session.contract.training_size
    model, rows = str(session.model_path.resolve()), []
    with contextlib.ExitStack() as stack:
        ports = {}
        for batch in options.batch:
            server = running_server(model, "--batch", str(batch), "--queue", "64")
            ports[batch] = stack.enter_context(server)[1]
        for name, (side, hole_side) in PHOTOGRAPHS.items():
            files = files_of(size * side, round(size * hole_side))
            image = np.asarray(Image.open(io.BytesIO(files["image"])))
            hole = np.asarray(Image.open(io.BytesIO(files["mask"]))) > 127
            ways = {
                (PIXELS, None, None): Way(partial(repeat, partial(session.inpaint, image, hole))),
                (LOOP, None, None): file_loop(session.inpaint, files),
            }
            for batch, port in ports.items():
                for count in options.clients:
                    ways["server", batch, count] = clients(port, count, files)
            rows += _rows(name, take_turns(ways, options.seconds, options.rounds))
    for row in rows:
        print(row)
    figures = {
        "model": {name: session.describe()[name] for name in ("method", "preset", "training_size")},
        "provider": session.provider,
        "seconds_each": options.seconds,
        "rounds": options.rounds,
        "rows": rows,
    }
    measure.publish("load_test", options.command, figures)


def _rows(name: str, found: Mapping[tuple, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for (way, batch, count), figures in found.items():
        rates = figures["per_second"]
        ratio = rates / found[LOOP, None, None]["per_second"]
        seconds = figures["seconds"]
        rows.append(
            {
                "photograph": name,
                "way": way,
                "batch": batch,
                "clients": count,
                "requests": len(seconds),
                "requests_per_second": round(rates, 3),
                "ratio_to_loop": round(ratio, 3),
                "p50_seconds": round(float(np.percentile(seconds, 50)), 4),
                "p99_seconds": round(float(np.percentile(seconds, 99)), 4),
                "processor_seconds": round(figures["processor_seconds"] / len(seconds), 4),
            }
        )
    return rows


# ---- ways to have a photograph filled


def files_of(side: int, hole_side: int) -> dict[str, bytes]:
    """A photograph as JPEG and its mask as PNG."""
    photograph = Image.fromarray(models.photograph(side)[0])
    mask = Image.fromarray(models.square_hole(side, hole_side)[0])
    return {"image": encoded(photograph, "JPEG"), "mask": encoded(mask, "PNG")}


def repeat(call: Callable[[], Any], end: float) -> list[float]:
    """Calls until `end`, a time of `time.perf_counter`; returns the seconds of each call."""
    seconds = []
    while time.perf_counter() < end:
        seconds.append(measure.seconds_of(call))
    return seconds


def file_loop(
    fill: Callable[[np.ndarray, np.ndarray], np.ndarray], files: Mapping[str, bytes]
) -> Way:
    """A loop in this process that decodes, fills and encodes, as a request does."""

    def answer() -> None:
        streams = {name: io.BytesIO(content) for name, content in files.items()}
        limit = Settings.max_pixels
        fill_request(streams, Options(), limit, lambda i, h, *_: fill(i, h), lambda: None)

    return Way(partial(repeat, answer))


def clients(port: int, count: int, files: dict[str, bytes]) -> Way:
    """So many clients of a server, each with a connection of its own."""
    body, content_type = form(files)
    headers = {"Content-Type": content_type}

    def one_client(end: float, seconds: list[float], failures: list[BaseException]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

        def post() -> None:
            connection.request("POST", "/v1/inpaint", body, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status != 200:
                raise RuntimeError(f"the server answered {response.status}: {content[:200]!r}")

        try:
            with contextlib.closing(connection):
                seconds += repeat(post, end)
        except BaseException as error:
            failures.append(error)

    def run(end: float) -> list[float]:
        seconds: list[float] = []
        failures: list[BaseException] = []
        one = partial(one_client, end, seconds, failures)
        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return seconds

    return Way(run, partial(_processor_seconds, port))


def take_turns(
    ways: Mapping[Hashable, Way], seconds: float, rounds: int
) -> dict[Any, dict[str, Any]]:
    """Runs every way for `seconds` in all, in turns.

    Returns:
        For each way `per_second`; `rates`, the same for each round; `seconds` of each photograph;
        and `processor_seconds` of all.
    """
    found: dict[Any, dict[str, Any]] = {
        key: {"seconds": [], "rates": [], "elapsed": 0.0, "processor_seconds": 0.0} for key in ways
    }
    for way in ways.values():
        way.run(time.perf_counter() + 0.1)  # the first run allocates
    for _ in range(rounds):
        for key, way in ways.items():
            used, started = way.processor_seconds(), time.perf_counter()
            taken = way.run(started + seconds / rounds)
            elapsed = time.perf_counter() - started
            each = found[key]
            each["seconds"] += taken
            each["rates"].append(len(taken) / elapsed)
            each["elapsed"] += elapsed
            each["processor_seconds"] += way.processor_seconds() - used
    return {
        key: {**each, "per_second": len(each["seconds"]) / each["elapsed"]}
        for key, each in found.items()
    }


# ---- worker processes


def measure_workers(session: InpaintingSession, options: argparse.Namespace) -> None:
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
    for name, format_of in WORKER_PHOTOGRAPHS.items():
        fields = _request_fields(*format_of)
        for what, fill in fills.items():
            row = _compare(pool, partial(_fill_request, fields, fill), options.rounds)
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


def _request_fields(width: int, height: int, image_format: str) -> dict[str, Any]:
    photograph = Image.fromarray(models.photograph(512)[0])
    photograph = photograph.resize((width, height), Image.Resampling.BICUBIC)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 : height // 2 + 64, width // 2 : width // 2 + 64] = 255
    return {
        "format": image_format.lower(),
        "image": encoded(photograph, image_format),
        "mask": encoded(Image.fromarray(mask), "PNG"),
    }


def _fill_request(fields: dict[str, Any], fill: Fill, codec: Any) -> bytes:
    streams = {name: io.BytesIO(fields[name]) for name in ("image", "mask")}
    options = Options(format=fields["format"])
    return fill_request(streams, options, Settings.max_pixels, fill, lambda: None, codec).content


def _compare(pool: WorkerPool, request: Callable[[Any], bytes], rounds: int) -> dict[str, float]:
    """Medians and ratios of elapsed and processor time, in the thread and in a worker."""
    codecs: dict[str, Any] = {
        "thread": images,
        "worker": Codec(pool, Job(lambda job: None)),
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


# ---- servers


@contextlib.contextmanager
def running_server(model: str, *options: str) -> Iterator[tuple[int, int]]:
    """Runs a server on a free port of this machine; yields the process's number and the port.

    Raises:
        RuntimeError: If it is not ready within `TIMEOUT` seconds.
    """
    words = ["--model", model, "--port", "0", "--no-access-log", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.server", *words],
        cwd=measure.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+) ", process.stdout.readline())
        if found is None:
            raise RuntimeError("the server did not start")
        port = int(found[1])
        end = time.monotonic() + TIMEOUT
        while get(port, "/readyz")[0] != 200:
            if time.monotonic() > end:
                raise RuntimeError("the server did not become ready")
            time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _processor_seconds(port: int) -> float:
    """Processor time of a server by its own account; NaN if it has none."""
    content = get(port, "/metrics")[1].decode()
    found = re.search(r"^process_cpu_seconds_total (\S+)$", content, re.M)
    return float(found[1]) if found else float("nan")


if __name__ == "__main__":
    sys.exit(main())
