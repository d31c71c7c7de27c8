"""What every benchmark does: time callables against each other, measure a process, keep figures.

A time says little about a program, because it says as much about the machine and its other work. So
callables are timed in turns, in one process, and what is stated is their ratio.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pkgutil
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.files import write_whole
from training.evaluation import provenance
from training.evaluation.cost import take_turns as take_turns  # the benchmarks call it from here

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def in_own_process(
    function: Callable[..., Any], *arguments: Any, timeout: float | None = None
) -> Any:
    """Calls a function in a new process, where nothing else has used memory.

    Args:
        function: A function of a module in `benchmarks`, without side effects on this process.
        *arguments: Its arguments, which JSON can hold.
        timeout: Seconds after which the process is killed, or None.

    Returns:
        The result of the function, which JSON must hold too.

    Raises:
        RuntimeError: If the process fails; with the end of its stderr.
        TimeoutError: If the process was killed.
    """
    module = function.__module__
    if module == "__main__":
        module = sys.modules["__main__"].__spec__.name
    call = [f"{module}:{function.__name__}", json.dumps(arguments)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure", *call],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{shlex.join(call)} took more than {timeout:g} s") from error
    if done.returncode:
        raise RuntimeError(
            f"{shlex.join(call)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def resident_peak() -> int:
    """The most memory this process has held so far, in bytes."""
    with contextlib.suppress(OSError):
        # Not ru_maxrss, which on Linux begins at what the process it came from had held.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


def restart_peak() -> int:
    """Lets `resident_peak` begin anew; returns the bytes this process holds now. Needs Linux.

    What was freed is given back first: loading a model leaves as much as its weights take, which
    would hide that much of what comes after.
    """
    with contextlib.suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def seconds_of(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def check_same(one: Any, other: Any, name: str = "the forms", most: float = 1e-3) -> None:
    """Refuses to time forms that do not compute the same.

    Args:
        one: An array, or a list of them.
        other: What has to agree with `one`.
        name: What differs, for the message.
        most: Largest difference allowed.

    Raises:
        RuntimeError: If they differ by more.
    """
    pairs = zip(one, other, strict=True) if isinstance(one, list | tuple) else [(one, other)]
    for pair in pairs:
        first, second = map(np.asarray, pair)
        difference = float(np.abs(first - second).max())
        if not difference <= most:
            raise RuntimeError(f"{name} differ by {difference}, at most {most} is allowed")


def record(module: str, arguments: list[str], figures: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the command, commit, hardware and software to a benchmark's figures."""
    command = shlex.join(["python", "-m", module, *arguments])
    return {"command": command, **provenance.describe(), **figures}


def keep(name: str, figures: Mapping[str, Any]) -> Path:
    """Writes `results/NAME.json`, whole or not at all; returns its path."""
    path = RESULTS / f"{name}.json"
    os.makedirs(RESULTS, exist_ok=True)
    write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
    return path


def parser(module: str, document: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A benchmark's command line: its first paragraph, and `--rounds` with this default."""
    description = " ".join((document or "").split("\n\n")[0].split())
    result = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    if rounds is not None:
        result.add_argument(
            "--rounds", type=int, default=rounds, help="times each is timed (default: %(default)s)"
        )
    return result


def run(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[argparse.Namespace, list[str]], int | None],
    wrong_input: int = 1,
) -> int:
    """Does a benchmark's work on its options and words; an error is one line.

    Returns:
        The exit code: what `work` returns, 0 for None, `wrong_input` after an error.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(words)
    try:
        return work(options, words) or 0
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return wrong_input


def publish(
    name: str, module: str, words: Sequence[str], figures: Mapping[str, Any], digits: int = 2
) -> None:
    """Rounds and prints the `ratios` of `figures`, and keeps all with the command."""
    figures = dict(figures)
    if "ratios" in figures:
        figures["ratios"] = {key: round(value, digits) for key, value in figures["ratios"].items()}
        for key, value in figures["ratios"].items():
            print(f"{value:9.{digits}f}  {key}")
    path = keep(name, record(module, list(words), figures))
    print(f"wrote results/{path.name}")


def _call(argv: Sequence[str]) -> int:
    """Calls a function for `in_own_process` and prints its result."""
    name, arguments = argv
    try:
        print(json.dumps(pkgutil.resolve_name(name)(*json.loads(arguments))))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_call(sys.argv[1:]))
