"""What benchmarks share: command lines, times, memory, processes and results with their origin.

An absolute time says as much about a machine and its other work as about a program. The benchmarks
therefore time callables in turns in one process, and state the ratio of the medians.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import os
import pkgutil
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
from training.evaluation.command_line import at_least as at_least
from training.evaluation.cost import take_turns as take_turns

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

Argument = tuple[tuple[str, ...], dict[str, Any]]


def argument(*names: str, **options: Any) -> Argument:
    """An argument of `command`; its help gets the default."""
    if options.get("default") not in (None, False):
        options["help"] = f"{options.get('help', '')} (default: %(default)s)".strip()
    return names, options


def command(*arguments: Argument, rounds: int | None = None) -> Callable[[Callable], Callable]:
    """A decorator that makes a command line of a function of its options.

    The description is the first paragraph of the module. `options.command` is what was typed, with
    absolute paths shortened to their last name. The exit code is the function's result, 0 for None,
    and 2 after an error, which is one line.

    Args:
        *arguments: From `argument`.
        rounds: Default of `--rounds`; None for a command line without it.
    """

    def decorate(work: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
        module = _module_name(work)
        document = sys.modules[work.__module__].__doc__ or ""

        @functools.wraps(work)
        def main(argv: Sequence[str] | None = None) -> int:
            words = list(sys.argv[1:] if argv is None else argv)
            description = " ".join(document.split("\n\n")[0].split())
            parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
            if rounds is not None:
                help_text = "times each is timed (default: %(default)s)"
                parser.add_argument("--rounds", type=at_least(1), default=rounds, help=help_text)
            for names, options in arguments:
                parser.add_argument(*names, **options)
            chosen = parser.parse_args(words)
            shown = [Path(word).name if os.path.isabs(word) else word for word in words]
            chosen.command = shlex.join(["python", "-m", module, *shown])
            try:
                return work(chosen) or 0
            except (OSError, ValueError, RuntimeError) as error:
                print(f"{parser.prog}: error: {error}", file=sys.stderr)
                return 2

        return main

    return decorate


def _module_name(function: Callable) -> str:
    name = function.__module__
    return sys.modules["__main__"].__spec__.name if name == "__main__" else name


def record(command: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the command, commit, hardware and software to a benchmark's figures."""
    return {"command": command, **provenance.describe(), **figures}


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Writes `results/NAME.json`, whole or not at all."""
    os.makedirs(RESULTS, exist_ok=True)
    write_whole(RESULTS / f"{name}.json", (json.dumps(figures, indent=1) + "\n").encode())
    print(f"wrote results/{name}.json", flush=True)


def publish(name: str, command: str, figures: Mapping[str, Any], digits: int = 2) -> None:
    """Rounds and prints the `ratios` of `figures`, and keeps all with the command."""
    figures = dict(figures)
    if "ratios" in figures:
        figures["ratios"] = {key: round(value, digits) for key, value in figures["ratios"].items()}
        for key, value in figures["ratios"].items():
            print(f"{value:9.{digits}f}  {key}")
    keep(name, record(command, figures))


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ratio(seconds: Mapping[str, Mapping[str, float]], above: str, below: str) -> float:
    """The ratio of two medians of `take_turns`."""
    return seconds[above]["median"] / seconds[below]["median"]


def check_same(one: Any, other: Any, name: str = "the forms", most: float = 1e-3) -> None:
    """Refuses to time forms whose results, arrays or lists of arrays, differ by more than `most`.

    Raises:
        RuntimeError: With the name and the difference.
    """
    pairs = zip(one, other, strict=True) if isinstance(one, list | tuple) else [(one, other)]
    for first, second in pairs:
        difference = float(np.abs(np.asarray(first) - np.asarray(second)).max())
        if not difference <= most:
            raise RuntimeError(f"{name} differ by {difference}, at most {most} is allowed")


def resident_peak(process: int | str = "self") -> int:
    """The peak of a process's memory in bytes, by default of this one. Needs Linux."""
    # Not ru_maxrss, which begins at the peak of the parent process.
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def restart_peak() -> int:
    """Restarts `resident_peak` at the memory in use now, and returns it. Needs Linux."""
    # Loading a model frees as much as its weights take, which would hide the same amount later.
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident_peak()


def in_own_process(
    function: Callable[..., Any], *arguments: Any, timeout: float | None = None
) -> Any:
    """Calls a function of a module in a new process; JSON must hold its arguments and result.

    Raises:
        RuntimeError: If the process fails; with the end of its stderr.
        TimeoutError: If the process took more than `timeout` seconds and was killed.
    """
    call = [f"{_module_name(function)}:{function.__name__}", json.dumps(arguments)]
    words = [sys.executable, "-m", "benchmarks.measure", *call]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{shlex.join(call)} took more than {timeout:g} s") from error
    if done.returncode:
        end = done.stderr.strip()[-2000:]
        raise RuntimeError(f"{shlex.join(call)} ended with {done.returncode}: {end}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _call(name: str, arguments: str) -> int:
    """Calls a function for `in_own_process` and prints its result."""
    try:
        print(json.dumps(pkgutil.resolve_name(name)(*json.loads(arguments))))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_call(*sys.argv[1:]))
