"""The memory of a process and of its children over time."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import numpy as np
import psutil
from scipy import stats

from benchmarks import measure

GROWTH = 0.05
"""Growth in an hour, of the median memory after the warm-up, that counts as flat."""

WARM_UP = 0.15
"""Share of the time that the slope leaves out."""

PARTS = 60
"""Equal parts of the time."""

SLOPE = (
    "Theil-Sen slope of the low quartiles of the parts after the warm-up: the quartile leaves out "
    "the running requests, the estimator single steps"
)
"""The statistic that decides."""


class Memory:
    """The memory of a process and of its children, sampled every so many seconds in a thread.

    `proportional` divides pages that several processes share between them.

    Attributes:
        samples: `(seconds since the start, bytes of the process, bytes of its children)`.
    """

    def __init__(self, process: int, every: float = 2.0, proportional: bool = False) -> None:
        self.process = process
        self.samples: list[tuple[float, int, int]] = []
        self._every = every
        self._proportional = proportional
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
            tree = _tree(self.process)
            own, *children = [self._bytes_of(each) for each in tree] or [0]
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

    def summary(self) -> dict[str, Any]:
        """Medians and low quartiles of equal parts of the time, and the slopes; see `SLOPE`."""
        times, *kinds = np.array(self.samples, float).T
        parts = np.array_split(np.arange(len(times)), min(PARTS, len(times)))
        minutes = np.array([times[part].mean() / 60 for part in parts])
        warm = minutes >= WARM_UP * times[-1] / 60
        figures: dict[str, Any] = {
            "slope": SLOPE,
            "warm_up_minutes": round(WARM_UP * times[-1] / 60, 1),
            "growth_that_counts_as_flat": GROWTH,
            "minutes": minutes.round(2).tolist(),
        }
        for name, values in zip(("server", "children"), kinds, strict=True):
            shares = [np.quantile(values[part], (0.5, 0.25)) / 2**20 for part in parts]
            medians, low = np.transpose(shares)
            slope = 60 * float(stats.theilslopes(low[warm], minutes[warm]).slope)
            typical = float(np.median(medians[warm]))
            figures[name] = {
                "mib": medians.round(1).tolist(),
                "low_quartile_mib": low.round(1).tolist(),
                "median_mib": round(typical, 1),
                "peak_mib": round(float(values.max()) / 2**20, 1),
                "slope_mib_per_hour": round(slope, 2),
                "growth_per_hour": round(slope / typical, 4),
                "grows": slope > GROWTH * typical,
            }
        return figures


def processor_seconds(process: int) -> float:
    """Processor time of a process and its children, ended ones included."""
    seconds = 0.0
    for each in _tree(process):
        with contextlib.suppress(psutil.Error):
            seconds += sum(each.cpu_times()[:4])  # user and system, its own and ended children's
    return seconds


def _tree(number: int) -> list[psutil.Process]:
    """A process and its children; empty once it has ended."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        return [process, *process.children(recursive=True)]
    return []


def run_command(*words: str, every: float = 0.05, kept: str = "") -> tuple[float, int]:
    """Seconds of `python -m WORDS`, or of another call of Python, and the peak of its memory.

    Compiled modules and optimized graphs are kept in the folder `kept`, as by an installed program.

    Raises:
        RuntimeError: If the command fails.
    """
    call = [sys.executable, *(words if words[0] == "-c" else ("-m", *words))]
    places = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": kept, "MUSICAL_CACHE": kept}
    environment = os.environ | (places if kept else {})
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            call, cwd=measure.ROOT, env=environment, stdout=output, stderr=output
        )
        try:
            with Memory(process.pid, every, proportional=True) as memory:
                seconds = measure.seconds_of(process.wait)
        finally:
            process.kill()
        if process.returncode:
            output.seek(0)
            end = output.read().decode(errors="replace").strip()[-500:]
            raise RuntimeError(f"{words[0]} ended with {process.returncode}: {end}")
    return seconds, memory.peak()
