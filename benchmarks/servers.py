"""Servers that benchmarks start, requests to them, and loops that do the same without a server."""

import contextlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import urllib3

from benchmarks import measure
from serving.server.inpaint_request import fill_request
from serving.server.schemas import Options
from serving.server.settings import Settings

PATIENCE = Settings.timeout + 20
"""Seconds within which any request must have its answer."""

FILL = "/v1/inpaint"

Work = Callable[[float], int]
"""Fills photographs until a time of `time.perf_counter`; returns their number."""


@contextlib.contextmanager
def running_server(model: str, *options: str) -> Iterator[tuple[int, int]]:
    """Runs a server on a free port of this machine; yields the process's number and the port.

    Raises:
        RuntimeError: If it is not ready within `PATIENCE` seconds.
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
        port, end = int(found[1]), time.monotonic() + PATIENCE
        while send(port, "/readyz").status != 200:
            if time.monotonic() > end:
                raise RuntimeError("the server did not become ready")
            time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def connections(port: int) -> urllib3.HTTPConnectionPool:
    """Connections to a server of this machine, kept open; without retries."""
    return urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=PATIENCE, retries=False)


def send(
    port: int, path: str, body: bytes | None = None, content_type: str = ""
) -> urllib3.BaseHTTPResponse:
    """Sends one request on a connection of its own: POST if there is a body, else GET."""
    method = "GET" if body is None else "POST"
    with connections(port) as pool:
        headers = {"Content-Type": content_type} if content_type else {}
        return pool.request(method, path, body=body, headers=headers)


def form(files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A form of files: body and content type."""
    return urllib3.encode_multipart_formdata({name: ("a", each) for name, each in files.items()})


def metric(port: int, name: str) -> dict[str, float]:
    """A metric's values by label value, "" for one without labels; empty if there is none."""
    lines = send(port, "/metrics").data.decode()
    found = re.findall(rf'^{name}(?:\{{\w+="(\w+)"\}})? (\S+)$', lines, re.M)
    return {label: float(value) for label, value in found}


# ---- photographs a second


def rate(work: Work, seconds: float) -> float:
    """Photographs per second, measured over `seconds`."""
    started = time.perf_counter()
    count = work(started + seconds)
    return count / (time.perf_counter() - started)


def loop(fill: Callable[[np.ndarray, np.ndarray], np.ndarray], files: Mapping[str, bytes]) -> Work:
    """A loop in this process that decodes, fills and encodes, as a request does."""

    def answer() -> None:
        streams = {name: io.BytesIO(content) for name, content in files.items()}
        limit = Settings.max_pixels
        fill_request(streams, Options(), limit, lambda i, h, *_: fill(i, h), lambda: None)

    return lambda end: _repeat(answer, end)


def clients(port: int, count: int, files: Mapping[str, bytes]) -> Work:
    """Clients of a server that send the same files, each with a connection of its own."""
    body, content_type = form(files)

    def one_client(end: float) -> int:
        with connections(port) as pool:

            def post() -> None:
                headers = {"Content-Type": content_type}
                response = pool.request("POST", FILL, body=body, headers=headers)
                if response.status != 200:
                    raise RuntimeError(f"the server answered {response.status}: {response.data!r}")

            return _repeat(post, end)

    def work(end: float) -> int:
        with ThreadPoolExecutor(count) as threads:
            return sum(threads.map(one_client, [end] * count))

    return work


def _repeat(call: Callable[[], Any], end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        call()
        count += 1
    return count
