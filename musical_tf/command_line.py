"""What the command lines share. Standard library only."""

import contextlib
import importlib
import os
import re
import sys
from types import TracebackType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


_NOISE = re.compile(
    rb"WARNING: All log messages before absl|I\d{4} |\d{4}-\d\d-\d\d .*: I "
    rb"|.*(Unable to register|already (been )?registered)"
)
"""TensorFlow's lines about a start that went well."""


def printable(text: str) -> str:
    """Text with what would steer a terminal, or cannot be printed, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def import_quietly(tensorflow: str) -> None:
    """Imports TensorFlow without its start-up lines, which obey no setting of TensorFlow's.

    Its name is an argument: nothing of this package imports TensorFlow by itself. Warnings and
    errors are written after the import. Somebody who sets TF_CPP_MIN_LOG_LEVEL gets everything.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or tensorflow in sys.modules:
        return
    import logging  # 4 ms that commands without TensorFlow need not spend
    import tempfile

    # 3, not 2: the graph optimizer reports as errors what it leaves unoptimized.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.getLogger(tensorflow).setLevel(logging.ERROR)
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as written:
        try:
            os.dup2(written.fileno(), 2)  # the lines come from C++, past `sys.stderr`
            importlib.import_module(tensorflow)
        finally:
            os.dup2(before, 2)
            os.close(before)
            written.seek(0)
            for line in written:
                if not _NOISE.match(line):
                    os.write(2, line)


def missing_package(error: ModuleNotFoundError, extras: str) -> str:
    """The message of a command whose package is not installed; `extras` bring it."""
    absent = (error.name or str(error)).partition(".")[0]
    return (
        f"the Python package {absent} is not installed; "
        f"pip install 'musical-tf[{extras}]' brings what this command needs"
    )


def clock(seconds: float) -> str:
    """Returns a duration as `H:MM:SS`."""
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


def end_on_interrupt(started: bool | None = None) -> None:
    """Makes Ctrl-C, and a missing package, end the process with one line, during imports too.

    A package calls it before its command lines import anything that takes seconds. It does nothing
    where another program imports the package. `started` says whether a command line of ours runs;
    None looks whether `python -m` imports one.
    """
    if started is None:
        started = sys.argv[:1] == ["-m"]
    if started:
        sys.excepthook = _report


def _report(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name:
        print(
            f"error: the Python package {error.name} is not installed; activate the environment "
            "that has it (source .venv/bin/activate), or see docs/installation.md",
            file=sys.stderr,
        )
        return
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print("interrupted", file=sys.stderr, flush=True)
    # Not through the interpreter's own end, which may be in the middle of an import.
    os._exit(INTERRUPTED)


def end(code: int) -> NoReturn:
    """Ends the process without freeing memory: ONNX Runtime takes 20 ms to free a graph."""
    with contextlib.suppress(OSError):  # a closed pipe: Python's own end reports it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
