"""What benchmarks share: command lines, times, memory, processes and results with their origin.

An absolute time says as much about a machine and its other work as about a program. The benchmarks
therefore time callables in turns in one process, and state the ratio of the medians.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil

from musical_tf.files import write_whole
from training.evaluation import provenance
from training.evaluation.command_line import at_least as at_least
from training.evaluation.cost import take_turns as take_turns

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"

Argument = tuple[tuple[str, ...], dict[str, Any]]
Result = TypeVar("Result")


# ---- command lines


def argument(*names: str, **options: Any) -> Argument:
    """An argument of `command`; its help gets the default."""
    if options.get("default") not in (None, False):
        options["help"] = f"{options.get('help', '')} (default: %(default)s)".strip()
    return names, options


def command(*arguments: Argument, rounds: int | None = None) -> Callable[[Callable], Callable]:
    """A decorator that makes a command line of a function of its options.

    The description is the first paragraph of the module. `options.command` is what was typed, with
    absolute paths shortened to their last name. The exit code is the function's result, 0 for None,
    and 2 after an error, which is one line. `--results` names another folder for the results.

    Args:
        *arguments: From `argument`.
        rounds: Default of `--rounds`; None for a command line without it.
    """
    if rounds is not None:
        counted = argument("--rounds", type=at_least(1), default=rounds, help="times each is timed")
        arguments = (counted, *arguments)

    def decorate(work: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
        module = work.__globals__["__spec__"].name
        description = " ".join((work.__globals__["__doc__"] or "").split("\n\n")[0].split())

        @functools.wraps(work)
        def main(argv: Sequence[str] | None = None) -> int:
            global RESULTS
            words = list(sys.argv[1:] if argv is None else argv)
            parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
            for names, options in arguments:
                parser.add_argument(*names, **options)
            parser.add_argument("--results", type=Path, metavar="DIR", help="(default: results)")
            chosen = parser.parse_args(words)
            RESULTS = chosen.results or RESULTS
            shown = [Path(word).name if os.path.isabs(word) else word for word in words]
            chosen.command = shlex.join(["python", "-m", module, *shown])
            try:
                return work(chosen) or 0
            except (OSError, ValueError, RuntimeError) as error:
                print(f"{parser.prog}: error: {error}", file=sys.stderr)
                return 2

        return main

    return decorate


# ---- results


def record(command: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the command, commit, hardware and software to a benchmark's figures."""
    return {"command": command, **provenance.describe(), **figures}


def keep(name: str, figures: Mapping[str, Any], folder: Path | None = None) -> None:
    """Writes `NAME.json` in a folder, by default that of results, whole or not at all."""
    file = (folder or RESULTS) / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(figures, indent=1) + "\n").encode())
    print(f"wrote {file.parent.name}/{file.name}", flush=True)


def publish(name: str, command: str, figures: Mapping[str, Any], digits: int = 2) -> None:
    """Rounds and prints the `ratios` of `figures`, and keeps all with the command."""
    figures = dict(figures)
    if "ratios" in figures:
        figures["ratios"] = {key: round(value, digits) for key, value in figures["ratios"].items()}
        for key, value in figures["ratios"].items():
            print(f"{value:9.{digits}f}  {key}")
    keep(name, record(command, figures))


# ---- times


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_rounds(
    calls: Mapping[Hashable, Callable[[], Result]], rounds: int
) -> list[dict[Any, Result]]:
    """Calls each function once a round; returns the results of every round by name."""
    return [{name: call() for name, call in calls.items()} for _ in range(rounds)]


def ratio(seconds: Mapping[str, Mapping[str, float]], above: str, below: str) -> float:
    """The ratio of two medians of `take_turns`."""
    return seconds[above]["median"] / seconds[below]["median"]


# ---- memory and processes


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


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function of a module in a new process, whose memory holds no other work.

    Raises:
        RuntimeError: If the process is killed. An error of the function is raised here.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


class Memory:
    """The memory of a process and of its children, sampled at intervals in a thread.

    `proportional` divides pages that several processes share between them.

    Attributes:
        samples: `(seconds since the start, bytes of the process, bytes of its children)`.
    """

    def __init__(self, process: int, every: float = 2.0, proportional: bool = False) -> None:
        self.process = process
        self.samples: list[tuple[float, int, int]] = []
        self._every, self._proportional = every, proportional
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(self._every):
            own, *children = [self._bytes_of(each) for each in process_tree(self.process)] or [0]
            self.samples.append((time.monotonic() - started, own, sum(children)))

    def _bytes_of(self, process: psutil.Process) -> int:
        with contextlib.suppress(psutil.Error):
            if self._proportional:
                return process.memory_full_info().pss
            return process.memory_info().rss
        return 0

    def peak(self) -> int:
        """Bytes that the process and its children held together at most."""
        return max((own + children for _, own, children in self.samples), default=0)


def process_tree(number: int) -> list[psutil.Process]:
    """A process and its children; empty once it has ended."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        return [process, *process.children(recursive=True)]
    return []


def processor_seconds(process: int) -> float:
    """Processor time of a process and its children, ended ones included."""
    seconds = 0.0
    for each in process_tree(process):
        with contextlib.suppress(psutil.Error):
            seconds += sum(each.cpu_times()[:4])  # user and system, its own and ended children's
    return seconds


def run_command(*words: str, every: float = 0.05, kept: str = "") -> tuple[float, int]:
    """Seconds of `python -m WORDS`, or of another call of Python, and the peak of its memory.

    Args:
        *words: A module or `-c`, and its arguments.
        every: Seconds between samples of the memory; 0 to take none, for the exact time.
        kept: Folder that keeps compiled modules and optimized graphs, as for an installed program.

    Raises:
        RuntimeError: If the command fails.
    """
    call = [sys.executable, *(words if words[0] == "-c" else ("-m", *words))]
    places = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept, "MUSICAL_CACHE": kept}
    environment = os.environ | (places if kept else {})
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(call, cwd=ROOT, env=environment, stdout=output, stderr=output)
        memory = Memory(process.pid, every, proportional=True)
        try:
            with memory if every else contextlib.nullcontext():
                process.wait()
                seconds = time.perf_counter() - started
        finally:
            process.kill()
        if process.returncode:
            output.seek(0)
            end = output.read().decode(errors="replace").strip()[-500:]
            raise RuntimeError(f"{words[0]} ended with {process.returncode}: {end}")
    return seconds, memory.peak()
