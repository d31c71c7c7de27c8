"""Words for the terminal: one line a message, and a progress bar."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from musical_tf.command_line import clock, printable

PROGRAM = "musical-inpaint"

_REDRAW = 0.1  # seconds between two states of the progress bar


def say(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def complain(message: str, kind: str = "error", program: str = PROGRAM) -> None:
    """Says on stderr, in one line, what is wrong or worth a note."""
    print(f"{program}: {kind}: {printable(message)}", file=sys.stderr)


class ProgressBar:
    """One line that is written over, on a terminal only: images done, windows of the present."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._index, self._name = 0, ""
        self._started, self._drawn = time.monotonic(), 0.0
        self._is_visible = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started

    def start(self, index: int, name: str) -> None:
        """Says that image number `index`, from 0, is being worked on."""
        self._index, self._name = index, printable(name)
        self._draw(0, 1)

    def advance(self, done: int, windows: int) -> None:
        """Says how many windows of it are done."""
        if windows and self.seconds - self._drawn > _REDRAW:
            self._draw(done, windows)

    def _draw(self, done: int, windows: int) -> None:
        if not self._is_visible:
            return
        self._drawn = self.seconds
        share = (self._index + done / windows) / self._total
        bar = "#" * int(20 * share)
        line = f"[{bar:<20}] {self._index}/{self._total}"
        if share:
            line += f", {clock(self.seconds / share * (1 - share))} left"
        line += f"  {self._name}"
        if windows > 1:
            line += f", window {done}/{windows}"
        import shutil  # only for a terminal: it brings bz2 and lzma

        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)


def clear_line() -> None:
    """Removes the progress bar from a terminal."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Keeps what C libraries write about a damaged file from standing beside our own words."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError):  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
