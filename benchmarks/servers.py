"""Servers that benchmarks start, and requests to them."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import urllib3

from benchmarks import measure
from serving.server.settings import Settings

PATIENCE = Settings.timeout + 20
"""Seconds within which any request must have its answer."""

FILL = "/v1/inpaint"


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
