"""Runs models in headless Chromium with onnxruntime-web (WebAssembly), for `benchmarks.cost`.

Needs Debian's Chromium, and `npm ci` in examples/web.
"""

import contextlib
import functools
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import measure

PAGE = Path(__file__).with_name("templates") / "browser.html"
RUNTIME = measure.ROOT / "examples" / "web" / "node_modules" / "onnxruntime-web" / "dist"
PATIENCE = 120_000  # milliseconds for one step in the page


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files with the headers without which a page gets no threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def _site(image: np.ndarray, files: Mapping[str, Path]) -> Iterator[str]:
    """The address of a site with the page, the runtime, the image and files by name."""
    if not RUNTIME.is_dir():
        raise FileNotFoundError("onnxruntime-web is missing; run npm ci in examples/web")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ort").mkdir()
        for file in (
            "ort.wasm.min.mjs",
            *(f"ort-wasm-simd-threaded.{kind}" for kind in ("mjs", "wasm")),
        ):
            shutil.copy(RUNTIME / file, folder / "ort")
        shutil.copy(PAGE, folder / "index.html")
        (folder / "image.bin").write_bytes(image.tobytes())
        for file_name, file in files.items():
            shutil.copy(file, folder / file_name)
        handler = functools.partial(_Handler, directory=name)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


def measure_models(
    files: Mapping[str, Path], own: str, threads: int, image: np.ndarray, rounds: int
) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Times models in turns, each in a browser process of its own.

    Args:
        files: Name -> ONNX file.
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

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        raise FileNotFoundError("Chromium is missing; on Debian and Ubuntu: apt install chromium")
    with contextlib.ExitStack() as stack:
        served = {f"{number}.onnx": file for number, file in enumerate(files.values())}
        address = stack.enter_context(_site(image, served))
        playwright = stack.enter_context(sync_playwright())
        launch = functools.partial(playwright.chromium.launch, executable_path=chromium)
        pages, renderers = {}, {}
        for number, name in enumerate(files):
            before = _renderers()
            page = launch(args=["--no-sandbox"]).new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.wait_for_function("window.is_ready")
            given = [f"./{number}.onnx", threads, len(image), name == own]
            if not page.evaluate("(given) => open_model(...given)", given):
                raise RuntimeError("the page is not isolated, so that it gets no threads")
            page.evaluate("run_model()")
            pages[name], renderers[name] = page, _renderers() - before
        seconds = [
            {name: page.evaluate("run_model()") for name, page in pages.items()}
            for _ in range(rounds)
        ]
        peaks = {
            name: max(map(measure.resident_peak, numbers)) for name, numbers in renderers.items()
        }
        for page in pages.values():
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
