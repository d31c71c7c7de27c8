"""Measures the server against a plain loop over the model.

    python -m benchmarks.load_test --model model.onnx

The loop does what a request does, from the photograph's file to the result's; a second loop runs
from pixels to pixels. The servers are processes on this machine, one for each `--batch`. The
clients are threads here that send the same file repeatedly. All take turns. The figures are
requests a second, the ratio to the loop, the time of half and of 99 % of the requests, and the
processor seconds of a request (on Linux). Writes `results/load_test.json`.
"""

import argparse
import contextlib
import io
import itertools
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks import measure, models, servers
from serving.server.inpaint_request import fill_request
from serving.server.schemas import Options
from serving.server.settings import Settings
from serving.session import InpaintingSession

PHOTOGRAPHS = {"small": (1, 0.5), "large": (8, 0.5)}
"""Name -> sides of the photograph and of its hole, as multiples of the training size. Either is one
run of the model."""

LOOP, PIXELS = "loop, file to file", "loop, pixels to pixels"

Files = Mapping[str, bytes]


class Way(NamedTuple):
    """A function that fills until a time of `time.perf_counter` and returns the seconds of each.

    `processor_seconds` is the processor time so far of the process that fills.
    """

    run: Callable[[float], list[float]]
    processor_seconds: Callable[[], float] = time.process_time


class Turn(NamedTuple):
    """Seconds of each photograph, of the whole turn, and of processor time."""

    each: list[float]
    elapsed: float
    processor_seconds: float

    @property
    def rate(self) -> float:
        """Photographs a second."""
        return len(self.each) / self.elapsed


def take_turns(ways: Mapping[Hashable, Way], seconds: float, rounds: int) -> list[dict[Any, Turn]]:
    """Runs every way for `seconds`, in turns; returns the turns of each round."""

    def turn(way: Way) -> Turn:
        used, started = way.processor_seconds(), time.perf_counter()
        each = way.run(started + seconds)
        return Turn(each, time.perf_counter() - started, way.processor_seconds() - used)

    for way in ways.values():
        way.run(time.perf_counter() + 0.1)  # the first run allocates
    return measure.in_rounds({key: partial(turn, way) for key, way in ways.items()}, rounds)


# ---- ways to have a photograph filled


def files_of(side: int, hole_side: int) -> Files:
    """A photograph as JPEG and its mask as PNG."""
    photograph = Image.fromarray(models.photograph(side)[0])
    mask = Image.fromarray(models.square_hole(side, hole_side)[0])
    return {"image": models.encoded(photograph, "JPEG"), "mask": models.encoded(mask, "PNG")}


def repeat(call: Callable[[], Any], end: float) -> list[float]:
    """Calls until `end`, a time of `time.perf_counter`; returns the seconds of each call."""
    seconds = []
    while time.perf_counter() < end:
        seconds.append(measure.seconds_of(call))
    return seconds


def file_loop(fill: Callable[[np.ndarray, np.ndarray], np.ndarray], files: Files) -> Way:
    """A loop in this process that decodes, fills and encodes, as a request does."""

    def answer() -> None:
        streams = {name: io.BytesIO(content) for name, content in files.items()}
        limit = Settings.max_pixels
        fill_request(streams, Options(), limit, lambda i, h, *_: fill(i, h), lambda: None)

    return Way(partial(repeat, answer))


def clients(port: int, count: int, files: Files) -> Way:
    """So many clients of a server, each with a connection of its own."""
    body, content_type = servers.form(files)

    def one_client(end: float) -> list[float]:
        with servers.connections(port) as pool:

            def post() -> None:
                headers = {"Content-Type": content_type}
                response = pool.request("POST", servers.FILL, body=body, headers=headers)
                if response.status != 200:
                    raise RuntimeError(f"the server answered {response.status}: {response.data!r}")

            return repeat(post, end)

    def run(end: float) -> list[float]:
        with ThreadPoolExecutor(count) as threads:
            return [*itertools.chain(*threads.map(one_client, [end] * count))]

    def processor_seconds() -> float:
        return servers.metric(port, "process_cpu_seconds_total").get("", float("nan"))

    return Way(run, processor_seconds)


def _sum(turns: list[Turn]) -> Turn:
    each, elapsed, processor = zip(*turns, strict=True)
    return Turn([*itertools.chain(*each)], sum(elapsed), sum(processor))


def _figures(turn: Turn, loop: float) -> dict[str, float]:
    return {
        "requests": len(turn.each),
        "requests_per_second": round(turn.rate, 3),
        "ratio_to_loop": round(turn.rate / loop, 3),
        "p50_seconds": round(float(np.percentile(turn.each, 50)), 4),
        "p99_seconds": round(float(np.percentile(turn.each, 99)), 4),
        "processor_seconds": round(turn.processor_seconds / len(turn.each), 4),
    }


@measure.command(
    measure.argument("--model", default="photo", metavar="MODEL", help="name or .onnx file"),
    measure.argument("--seconds", type=float, default=20, help="for each row"),
    measure.argument("--clients", type=int, nargs="+", default=[1, 4, 16]),
    measure.argument("--batch", type=int, nargs="+", default=[1, 4]),
    rounds=4,
)
def main(options: argparse.Namespace) -> None:
    session = InpaintingSession(options.model)
    size, rows = session.contract.training_size, []
    model = str(session.model_path.resolve())
    with contextlib.ExitStack() as stack:
        ports = {}
        for batch in options.batch:
            server = servers.running_server(model, "--batch", str(batch), "--queue", "64")
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
            turns = take_turns(ways, options.seconds / options.rounds, options.rounds)
            sums = {key: _sum([each[key] for each in turns]) for key in ways}
            loop = sums[LOOP, None, None].rate
            for (way, batch, count), turn in sums.items():
                row = {"photograph": name, "way": way, "batch": batch, "clients": count}
                rows.append(row | _figures(turn, loop))
                print(rows[-1], flush=True)
    figures = {
        "model": {name: session.describe()[name] for name in ("method", "preset", "training_size")},
        "provider": session.provider,
        "seconds_each": options.seconds,
        "rounds": options.rounds,
        "rows": rows,
    }
    measure.publish("load_test", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
