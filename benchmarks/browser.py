"""Runs models in headless Chromium with onnxruntime-web (WebAssembly), for `benchmarks.cost`.

Needs Debian's Chromium, and `npm ci` in examples/web.
"""

import contextlib
import http.server
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import measure

PAGE = Path(__file__).with_name("templates") / "browser.html"
RUNTIME = measure.ROOT / "examples" / "web" / "node_modules" / "onnxruntime-web" / "dist"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PATIENCE = 120_000  # milliseconds for one step in the page


@contextlib.contextmanager
def _site(files: Mapping[str, Path]) -> Iterator[str]:
    """The address of a site with files by path."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            return str(files.get(path, "missing"))

        def end_headers(self) -> None:  # a page without them gets no threads
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def measure_models(
    models: Mapping[str, Path], own: str, threads: int, image: np.ndarray, rounds: int
) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Times models in turns, each in a browser process of its own.

    Args:
        models: Name -> ONNX file.
        own: The name of this project's model; others have MI-GAN's inputs.
        threads: Of WebAssembly.
        image: `(S, S, 3)` uint8, whose hole is the central square of half the side.
        rounds: Runs of each, after one that is not timed.

    Returns:
        For each round the seconds by name; and the bytes that the renderer of each held at most.

    Raises:
        FileNotFoundError: If onnxruntime-web or Chromium is missing.
        RuntimeError: If the page got no threads.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise FileNotFoundError("Chromium is missing; on Debian and Ubuntu: apt install chromium")
    if not RUNTIME.is_dir():
        raise FileNotFoundError("onnxruntime-web is missing; run npm ci in examples/web")
    files = {"/": PAGE, **{f"/ort/{name}": RUNTIME / name for name in RUNTIME_FILES}}
    files |= {f"/{number}.onnx": file for number, file in enumerate(models.values())}
    pages, calls, renderers = [], {}, {}
    with _site(files) as address, sync_playwright() as playwright:
        for number, name in enumerate(models):
            before = _renderers()
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.wait_for_function("window.is_ready")
            given = [f"./{number}.onnx", threads, image.ravel().tolist(), name == own]
            if not page.evaluate("(given) => open_model(...given)", given):
                raise RuntimeError("the page is not isolated, so that it gets no threads")
            page.evaluate("run_model()")
            pages.append(page)
            calls[name] = lambda page=page: page.evaluate("run_model()")
            renderers[name] = _renderers() - before
        seconds = measure.in_rounds(calls, rounds)
        peaks = {
            name: max(map(measure.resident_peak, numbers)) for name, numbers in renderers.items()
        }
        for page in pages:
            page.context.browser.close()
    return seconds, peaks


def _renderers() -> set[int]:
    """Numbers of this process's renderer processes."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "--type=renderer" in process.cmdline():
                found.add(process.pid)
    return found
