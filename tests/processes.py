"""Programs that tests start."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, **options)


def succeed(*command: str | Path, **options) -> str:
    """Returns what the program prints on stdout."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_python(*words: str | Path, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess:
    """Runs the interpreter of the tests in the checkout, where it imports our packages."""
    return run(sys.executable, *words, cwd=cwd, **options)


def added_by_fill(path: str, side: int) -> int:
    """Bytes that filling the center hole of an image adds to a process with the loaded model."""
    from benchmarks import measure, models

    session = models.open_session(path, 1, pattern=False)
    call = models.ours(session, models.photograph(side), models.square_hole(side, side // 2))
    loaded = measure.restart_peak()
    call()
    return measure.resident_peak() - loaded
