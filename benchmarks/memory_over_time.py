"""The memory of a process and of its children over time. Needs Linux."""

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

GROWTH = 0.05
"""Growth in an hour, of the mean memory after the warm-up, that counts as flat."""

WARM_UP = 0.15
"""Share of the time that is left out of the slope."""


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
        """Medians of equal parts of the time, and the slopes after the warm-up."""
        times, server, children = np.array(self.samples, float).T
        parts = np.array_split(np.arange(len(times)), min(60, len(times)))
        warm = times >= WARM_UP * times[-1]
        figures: dict[str, Any] = {
            "minutes": [round(float(times[part].mean()) / 60, 2) for part in parts]
        }
        for name, values in (("server", server), ("children", children)):
            values = values / 2**20
            slope = float(np.polyfit(times[warm], values[warm], 1)[0]) * 3600
            figures[name] = {
                "mib": [round(float(np.median(values[part])), 1) for part in parts],
                "mean_mib": round(float(values[warm].mean()), 1),
                "peak_mib": round(float(values.max()), 1),
                "slope_mib_per_hour": round(slope, 2),
                "grows": slope > GROWTH * float(values[warm].mean()),
            }
        return figures


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
