"""Serves this folder with the two headers that let a browser use threads: serve.py [PORT].

`python -m http.server` serves the page too; the model then runs on one thread.
"""

import functools
import http.server
import sys
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
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    handler = functools.partial(IsolatedRequestHandler, directory=Path(__file__).parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
