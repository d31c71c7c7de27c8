"""What the server costs and gives, against a plain loop over the model in one process.

    python -m benchmarks.load_test --model model.onnx

The loop does what a request does, from the photograph's file to the result's, one after the other,
and once more from pixels to pixels. The servers are processes on this machine, one for each
`--batch`; the clients are threads here that send the same file over and over. Everything takes
turns, so that all meet the same weather; stated are requests a second, the ratio to the loop, and
the seconds that half and 99 % of the requests took at most. Writes `results/load_test.json`.
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
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from benchmarks import measure
from serving.inpaint_request import fill_request
from serving.session import InpaintingSession

PHOTOGRAPHS = {
    # name -> (side of the photograph, side of the hole), both as parts of the training size
    "one window": (1, 0.5),
    "a photograph": (8, 0.5),
}
MAX_PIXELS = 50_000_000
TIMEOUT = 60  # seconds for one answer


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when everything was measured and every answer was an image."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    session = InpaintingSession(options.model)
    size = session.contract.training_size
    rows = []
    with contextlib.ExitStack() as stack:
        ports = {
            batch: stack.enter_context(_server(options.model, batch)) for batch in options.batch
        }
        for name, (side, hole_side) in PHOTOGRAPHS.items():
            files = _files(size * side, round(size * hole_side))
            ways = {
                ("loop, pixels to pixels", None, None): _pixels_loop(session, files),
                ("loop, file to file", None, None): _file_loop(session, files),
            }
            for batch, port in ports.items():
                for clients in options.clients:
                    ways["server", batch, clients] = _clients(port, clients, files)
            rows += _take_turns(name, ways, options.seconds, options.rounds)
    for row in rows:
        print(_line(row))
    figures = {
        "model": {name: session.describe()[name] for name in ("method", "preset", "training_size")},
        "provider": session.provider,
        "seconds_each": options.seconds,
        "rounds": options.rounds,
        "rows": rows,
    }
    path = measure.keep("load_test", measure.record("benchmarks.load_test", arguments, figures))
    print(f"wrote {path}")
    return 0


def _files(side: int, hole_side: int) -> dict[str, bytes]:
    """A photograph as JPEG and its mask as PNG."""
    photograph = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    mask = np.zeros((side, side), np.uint8)
    start = (side - hole_side) // 2
    mask[start : start + hole_side, start : start + hole_side] = 255
    files = {}
    for name, image, image_format in (
        ("image", photograph, "JPEG"),
        ("mask", Image.fromarray(mask), "PNG"),
    ):
        stream = io.BytesIO()
        image.save(stream, image_format, quality=90)
        files[name] = stream.getvalue()
    return files


def _pixels_loop(session: InpaintingSession, files: dict[str, bytes]) -> Callable[[float], list]:
    image = np.asarray(Image.open(io.BytesIO(files["image"])))
    hole = np.asarray(Image.open(io.BytesIO(files["mask"]))) > 127
    return lambda end: _repeat(lambda: session.inpaint(image, hole), end)


def _file_loop(session: InpaintingSession, files: dict[str, bytes]) -> Callable[[float], list]:
    def fill() -> None:
        streams = {name: io.BytesIO(content) for name, content in files.items()}
        fill_request(streams, MAX_PIXELS, session.inpaint, lambda: None)

    return lambda end: _repeat(fill, end)


def _repeat(call: Callable[[], Any], end: float) -> list[float]:
    """Calls until `end`, a time of `time.perf_counter`; returns the seconds of each call."""
    seconds = []
    while (started := time.perf_counter()) < end:
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def _clients(port: int, count: int, files: dict[str, bytes]) -> Callable[[float], list]:
    body = b"".join(
        b'--limit\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n'
        % (name.encode(), content)
        for name, content in files.items()
    )
    body += b"--limit--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}

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
    name: str, ways: dict[tuple, Callable[[float], list]], seconds: float, rounds: int
) -> list[dict[str, Any]]:
    """Runs every way for `seconds` in all, in `rounds` turns; returns their figures."""
    taken: dict[tuple, list[float]] = {way: [] for way in ways}
    elapsed = dict.fromkeys(ways, 0.0)
    for run in ways.values():
        run(time.perf_counter() + 0.1)  # once, for what the first run allocates
    for _ in range(rounds):
        for way, run in ways.items():
            started = time.perf_counter()
            taken[way] += run(started + seconds / rounds)
            elapsed[way] += time.perf_counter() - started
    rates = {way: len(taken[way]) / elapsed[way] for way in ways}
    reference = rates["loop, file to file", None, None]
    return [
        {
            "photograph": name,
            "way": way,
            "batch": batch,
            "clients": clients,
            "requests": len(taken[way, batch, clients]),
            "requests_per_second": round(rates[way, batch, clients], 3),
            "ratio_to_loop": round(rates[way, batch, clients] / reference, 3),
            "p50_seconds": round(float(np.percentile(taken[way, batch, clients], 50)), 4),
            "p99_seconds": round(float(np.percentile(taken[way, batch, clients], 99)), 4),
        }
        for way, batch, clients in ways
    ]


def _line(row: dict[str, Any]) -> str:
    way = row["way"]
    if row["clients"]:
        way += f", --batch {row['batch']}, {row['clients']} clients"
    return (
        f"{row['photograph']:14} {way:34} {row['requests_per_second']:7.2f} requests/s, "
        f"{row['ratio_to_loop']:.2f} of the loop, p50 {row['p50_seconds']:.3f} s, "
        f"p99 {row['p99_seconds']:.3f} s"
    )


@contextlib.contextmanager
def _server(model: str, batch: int) -> Iterator[int]:
    """A server in a process of its own, on a free port of this machine."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "serving.server", "--model", model, "--port", "0"),
            *("--batch", str(batch), "--queue", "64", "--no-access-log"),
        ],
        cwd=Path(__file__).resolve().parents[1],
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
        yield port
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="load_test", description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, metavar="FILE", help="the .onnx file")
    parser.add_argument(
        "--seconds", type=float, default=20, help="for each row (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=4, help="turns that takes (default: %(default)s)"
    )
    parser.add_argument(
        "--clients",
        type=int,
        nargs="+",
        default=[1, 4, 16],
        help="how many at a time (default: 1 4 16)",
    )
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 4], help="of the server (default: 1 4)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
