"""The memory of a process and of its children over time. Needs Linux."""

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

GROWTH = 0.05
"""Growth in an hour, of the median memory after the warm-up, that counts as flat."""

WARM_UP = 0.15
"""Share of the time that is left out of the slope."""

PARTS = 60
"""Equal parts of the time."""

SLOPE = (
    "Theil-Sen slope of the low quartiles of the parts after the warm-up: the quartile leaves out "
    "the running requests, the estimator single steps"
)
"""The statistic that decides."""


class Memory:
    """The memory of a process and of its children over time, sampled in a thread.

    Attributes:
        samples: `(seconds since the start, bytes of the process, bytes of its children)`.
    """

    def __init__(self, process: int) -> None:
        self.process = process
        self.samples: list[tuple[float, int, int]] = []
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
        while not self._stop.wait(2):
            children = sum(map(_resident, _children(self.process)))
            now = time.monotonic() - started
            self.samples.append((now, _resident(self.process), children))

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
            medians, low = (
                np.array([np.quantile(values[part], share) for part in parts]) / 2**20
                for share in (0.5, 0.25)
            )
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
    """What a process, its children and those that have ended have used of the processor."""
    ticks = 0
    for number in (process, *_children(process)):
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def _children(process: int) -> list[int]:
    numbers: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            numbers += map(int, path.read_text().split())
    return numbers
