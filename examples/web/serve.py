"""Serves this folder with the two headers that let a browser use threads: serve.py [PORT].

`python -m http.server` serves the page too; the model then runs on one thread.
"""

import argparse
import functools
import http.server
from pathlib import Path


class IsolatedRequestHandler(http.server.SimpleHTTPRequestHandler):
    """Static files, isolated from other sites: the condition for `SharedArrayBuffer`."""

    def end_headers(self) -> None:
        """Adds the headers to every answer."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] + ".")
    parser.add_argument("port", nargs="?", type=int, default=8000, help="default: %(default)s")
    port = parser.parse_args().port
    handler = functools.partial(IsolatedRequestHandler, directory=Path(__file__).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
