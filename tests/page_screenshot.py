"""Draws docs/images/page.png: the page with one of its own photographs, painted over.

    python -m tests.page_screenshot --output docs/images/page.png

Needs Chromium and what the tests of the page need. The model is the tests' tiny one: nothing is
filled in the picture.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SIZE = {"width": 1200, "height": 750}
STROKES = (  # in pixels of sample-rocket.jpg: the towers on both sides of it
    ((198, 130), (196, 240), (190, 345)),
    ((447, 125), (449, 240), (456, 350)),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    output = parser.parse_args(argv).output

    from playwright.sync_api import sync_playwright

    from serving.session import InpaintingSession

    from .browser.screen import Screen, Server, find_chromium
    from .serving_model import write_model

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(InpaintingSession(write_model(Path(folder) / "model.onnx")))
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        screen = Screen(browser, server.url, viewport=SIZE, color_scheme="light")
        screen.page.click("[data-name='rocket.jpg']")
        screen.wait_open("rocket.jpg")
        for stroke in STROKES:
            screen.drag(*stroke)
        screen.expect_hidden_status()
        screen.page.screenshot(path=output)
        browser.close()
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
