"""What the server costs and gives, against a plain loop over the model in one process.

    python -m benchmarks.load_test --model model.onnx

The loop does what a request does, from the photograph's file to the result's, one after the other,
and once more from pixels to pixels. The servers are processes on this machine, one for each
`--batch`; the clients are threads here that send the same file over and over. Everything takes
turns, so that all meet the same weather; stated are requests a second, the ratio to the loop, the
seconds that half and 99 % of the requests took at most, and the processor's seconds for a request
(of the server alone; on Linux), which other work on the machine changes least. Writes
`results/load_test.json`.
"""

import argparse
import contextlib
import http.client
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks import measure, models
from benchmarks.soak_requests import encoded, form
from serving.server.inpaint_request import Fill, fill_request
from serving.server.schemas import Options
from serving.server.settings import Settings
from serving.session import InpaintingSession

MODULE = "benchmarks.load_test"
PHOTOGRAPHS = {"small": (1, 0.5), "large": (8, 0.5)}
"""Name -> side of the photograph and side of its hole, as multiples of the training size. Either
is one run of the model; the large one has sixty-four times as much to decode and encode."""

TIMEOUT = 60  # seconds for one answer


class Way(NamedTuple):
    """A way to have photographs filled.

    Attributes:
        run: Does so until a time of `time.perf_counter`; returns the seconds of each.
        processor_seconds: What the process that fills has used of the processor so far.
    """

    run: Callable[[float], list[float]]
    processor_seconds: Callable[[], float]


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when everything was measured and every answer was an image."""
    parser = measure.parser(MODULE, __doc__, rounds=4)
    parser.add_argument("--model", required=True, metavar="FILE", help="the .onnx file")
    parser.add_argument("--seconds", type=float, default=20, help="for each row (default: 20)")
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4, 16], help="(default: 1 4 16)"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4], help="(default: 1 4)")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    session = InpaintingSession(options.model)
    size = session.contract.training_size
    rows = []
    with contextlib.ExitStack() as stack:
        ports = {
            batch: stack.enter_context(
                running_server(
                    str(Path(options.model).resolve()), "--batch", str(batch), "--queue", "64"
                )
            )[1]
            for batch in options.batch
        }
        for name, (side, hole_side) in PHOTOGRAPHS.items():
            files = _files(size * side, round(size * hole_side))
            ways = {
                ("loop, pixels to pixels", None, None): Way(
                    _pixels_loop(session, files), time.process_time
                ),
                ("loop, file to file", None, None): Way(
                    _file_loop(session, files), time.process_time
                ),
            }
            for batch, port in ports.items():
                for clients in options.clients:
                    ways["server", batch, clients] = Way(
                        _clients(port, clients, files), partial(_processor_seconds, port)
                    )
            rows += _take_turns(name, ways, options.seconds, options.rounds)
    print(table(rows))
    figures = {
        "model": {name: session.describe()[name] for name in ("method", "preset", "training_size")},
        "provider": session.provider,
        "seconds_each": options.seconds,
        "rounds": options.rounds,
        "rows": rows,
    }
    measure.publish("load_test", MODULE, words, figures)


def _files(side: int, hole_side: int) -> dict[str, bytes]:
    """A photograph as JPEG and its mask as PNG."""
    photograph = Image.fromarray(models.photograph(side)[0])
    mask = Image.fromarray(models.square_hole(side, hole_side)[0])
    return {"image": encoded(photograph, "JPEG"), "mask": encoded(mask, "PNG")}


def _pixels_loop(session: InpaintingSession, files: dict[str, bytes]) -> Callable[[float], list]:
    image = np.asarray(Image.open(io.BytesIO(files["image"])))
    hole = np.asarray(Image.open(io.BytesIO(files["mask"]))) > 127
    return lambda end: _repeat(lambda: session.inpaint(image, hole), end)


def _file_loop(session: InpaintingSession, files: dict[str, bytes]) -> Callable[[float], list]:
    def answer() -> None:
        streams = {name: io.BytesIO(content) for name, content in files.items()}
        fill_request(streams, Options(), Settings.max_pixels, fill_with(session), lambda: None)

    return lambda end: _repeat(answer, end)


def fill_with(session: InpaintingSession) -> Fill:
    """The session as `fill_request` calls it."""
    return lambda image, hole, strategy, fill: session.inpaint(image, hole, strategy, fill=fill)


def _repeat(call: Callable[[], Any], end: float) -> list[float]:
    """Calls until `end`, a time of `time.perf_counter`; returns the seconds of each call."""
    seconds = []
    while time.perf_counter() < end:
        seconds.append(measure.seconds_of(call))
    return seconds


def _clients(port: int, count: int, files: dict[str, bytes]) -> Callable[[float], list]:
    body, content_type = form(files)
    headers = {"Content-Type": content_type}

    def run(end: float) -> list[float]:
        seconds: list[list[float]] = [[] for _ in range(count)]
        failures: list[BaseException] = []

        def one_client(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)

            def post() -> None:
                connection.request("POST", "/v1/inpaint", body, headers)
                response = connection.getresponse()
                content = response.read()
                if response.status != 200:
                    raise RuntimeError(f"the server answered {response.status}: {content[:200]!r}")

            try:
                with contextlib.closing(connection):
                    seconds[number] = _repeat(post, end)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=one_client, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return [value for values in seconds for value in values]

    return run


def _take_turns(
    name: str, ways: dict[tuple, Way], seconds: float, rounds: int
) -> list[dict[str, Any]]:
    """Runs every way for `seconds` in all, in `rounds` turns; returns their figures."""
    taken: dict[tuple, list[float]] = {key: [] for key in ways}
    elapsed, used = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for way in ways.values():
        way.run(time.perf_counter() + 0.1)  # once, for what the first run allocates
    for _ in range(rounds):
        for key, way in ways.items():
            used_before, started = way.processor_seconds(), time.perf_counter()
            taken[key] += way.run(started + seconds / rounds)
            elapsed[key] += time.perf_counter() - started
            used[key] += way.processor_seconds() - used_before
    rates = {key: len(taken[key]) / elapsed[key] for key in ways}
    reference = rates["loop, file to file", None, None]
    return [
        {
            "photograph": name,
            "way": key[0],
            "batch": key[1],
            "clients": key[2],
            "requests": len(taken[key]),
            "requests_per_second": round(rates[key], 3),
            "ratio_to_loop": round(rates[key] / reference, 3),
            "p50_seconds": round(float(np.percentile(taken[key], 50)), 4),
            "p99_seconds": round(float(np.percentile(taken[key], 99)), 4),
            "processor_seconds": round(used[key] / len(taken[key]), 4),
        }
        for key in ways
    ]


def _processor_seconds(port: int) -> float:
    """What a server says it has used of the processor; NaN where it does not know."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/metrics")
        content = connection.getresponse().read().decode()
    found = re.search(r"^process_cpu_seconds_total (\S+)$", content, re.M)
    return float(found[1]) if found else float("nan")


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as docs/server.md shows them."""
    lines = [
        "| | requests a second | of the loop's | p50 | p99 | processor |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        way = row["way"]
        if row["clients"]:
            clients = f"{row['clients']} client{'s' if row['clients'] > 1 else ''}"
            way += f", {clients}, `--batch {row['batch']}`"
        lines.append(
            f"| {row['photograph']}: {way} | {row['requests_per_second']:.1f} | "
            f"{row['ratio_to_loop']:.2f} | {row['p50_seconds'] * 1000:.0f} ms | "
            f"{row['p99_seconds'] * 1000:.0f} ms | {row['processor_seconds'] * 1000:.0f} ms |"
        )
    return "\n".join(lines)


@contextlib.contextmanager
def running_server(model: str, *options: str) -> Iterator[tuple[int, int]]:
    """Runs a server in a process of its own, on a free port of this machine.

    Args:
        model: Name or file of the model.
        options: Further words of the command line.

    Yields:
        The process's number and the port. The server is ready.

    Raises:
        RuntimeError: If it does not start, or is not ready within `TIMEOUT` seconds.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "serving.server", "--model", model),
            *("--port", "0", "--no-access-log", *options),
        ],
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
        while not _is_ready(port):
            if time.monotonic() > end:
                raise RuntimeError("the server did not become ready")
            time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200


if __name__ == "__main__":
    sys.exit(main())
