"""Loads a server with twice its capacity for an hour, with hostile files among the requests.

    python -m benchmarks.soak --minutes 60

The capacity of a server on this machine is the rate of answers to four clients that send one good
request after the other, measured every ten minutes. Good requests are offered at twice the latest
capacity, with hostile files, clients that hang up and slow clients among them. At the end 200
hostile files come at once. Recorded are the outcomes of good requests (at this rate refusals, 503
`queue_full` with `Retry-After`, are right), rates and processor seconds of good answers alone and
under the load, answers to hostile requests, the slowest of each kind, the memory of the server and
of its children over time, and the seconds from the burst to a good answer.

Writes `results/soak.json`. The exit code is 1 if a good request failed, a hostile one was not
answered in time, or memory grew. Needs Linux.
"""

import argparse
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import measure, servers
from benchmarks.measure import Memory, processor_seconds
from benchmarks.soak_requests import Good, Hostile, Load, good_requests, hostile_requests
from serving.session import InpaintingSession

HOSTILE_SHARE = 0.1
"""Hostile requests for each good one."""

CAPACITY_EVERY = 600
"""Seconds of load until the capacity is measured again."""

RIGHT = ("answered", "refused", "not offered, all clients busy")
"""Permitted outcomes of a good request at twice the capacity."""

BURST = 200
"""Hostile files at once, at the end."""

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


def summary(memory: Memory) -> dict[str, Any]:
    """Medians and low quartiles of memory in equal parts of the time, and the slopes."""
    times, *kinds = np.array(memory.samples, float).T
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


@dataclass
class Spell:
    """A time of one kind of load: answers, seconds, and processor seconds of server and workers."""

    answered: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @contextlib.contextmanager
    def measured(self, process: int, load: Load) -> Iterator[None]:
        """Adds the answers and times of the body."""
        answered, used = load.good["answered"], processor_seconds(process)
        started = time.monotonic()
        yield
        self.seconds += time.monotonic() - started
        self.answered += load.good["answered"] - answered
        self.processor_seconds += processor_seconds(process) - used

    def figures(self) -> dict[str, float]:
        """Rates."""
        used, seconds = self.processor_seconds, self.seconds
        return {
            "answered": self.answered,
            "minutes": round(seconds / 60, 1),
            "answered_per_second": round(self.answered / seconds, 3),
            "processor_seconds_per_answer": round(used / max(1, self.answered), 3),
            "cores_used": round(used / seconds, 2),
        }


def _four_clients(load: Load, requests: list[Good], seconds: float) -> None:
    """Four clients that send good requests, one after the other."""
    end = time.monotonic() + seconds

    def one_client(seed: int) -> None:
        choice = random.Random(seed)
        while time.monotonic() < end:
            load.send_good(choice.choice(requests))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one_client, range(4)))


def _offer(load: Load, good: list[Good], hostile: list[Hostile], rate: float, end: float) -> None:
    """Offers good requests at a rate, and hostile ones among them, until `end`."""
    choice = random.Random(1)
    turns = itertools.cycle(sorted(hostile, key=lambda _: choice.random()))
    due = time.monotonic()
    while due < end:
        time.sleep(max(0, due - time.monotonic()))
        load.send(choice.choice(good))
        if choice.random() < HOSTILE_SHARE:
            load.send(next(turns))
        due += choice.expovariate(rate)


def _burst(load: Load, hostile: list[Hostile], good: Good) -> float:
    """Sends `BURST` hostile files; returns the seconds until a good request is answered."""
    files = [request for request in hostile if request.manner == "whole"]
    for number in range(BURST):
        load.send(files[number % len(files)], wait=True)
    started = time.monotonic()
    while load.good["answered"] == 0 and time.monotonic() < started + 2 * servers.PATIENCE:
        load.send_good(good)
        time.sleep(0.2)
    seconds = time.monotonic() - started
    load.drain()
    return seconds


@measure.command(
    measure.argument("--model", default="photo", metavar="MODEL", help="name or .onnx file"),
    measure.argument("--minutes", type=float, default=60),
    measure.argument("--capacity-seconds", type=float, default=20, help="of each measurement"),
)
def main(options: argparse.Namespace) -> int:
    good = good_requests(InpaintingSession(options.model))
    hostile = hostile_requests(good[0])
    with servers.running_server(options.model) as (process, port):
        four, load, started = Load(port), Load(port), time.monotonic()
        alone, offered, capacities = Spell(), Spell(), []
        end = started + 60 * options.minutes
        with Memory(process) as memory:
            while time.monotonic() < end:
                before = alone.answered, alone.seconds
                with alone.measured(process, four):
                    _four_clients(four, good, options.capacity_seconds)
                rate = (alone.answered - before[0]) / (alone.seconds - before[1])
                capacities.append(round(rate, 2))
                print(f"capacity: {rate:.1f} good requests a second", flush=True)
                turn = min(end, time.monotonic() + CAPACITY_EVERY)
                with offered.measured(process, load):
                    while time.monotonic() < turn:
                        minute = min(turn, time.monotonic() + 60)
                        _offer(load, good, hostile, 2 * rate, minute)
                        print(dict(load.good), load.faults[-2:], flush=True)
                    load.drain()
            minutes = (time.monotonic() - started) / 60
        after = Load(port)
        recovery = _burst(after, hostile, good[0])
        ready = servers.send(port, "/readyz").status
        ended = servers.metric(port, "musical_workers_ended_total")
    offers = load.good.total()
    failed = offers - sum(load.good[name] for name in RIGHT)
    figures = {
        "minutes": round(minutes, 1),
        "capacities_per_second": capacities,
        "alone": alone.figures(),
        "at_twice_the_capacity": offered.figures(),
        "good": {"offered": offers, **load.good, "failed": failed},
        "hostile": {name: dict(load.hostile[name]) for name in sorted(load.hostile)},
        "slowest_seconds": {name: round(load.slowest[name], 1) for name in sorted(load.slowest)},
        "workers_ended": {reason: int(count) for reason, count in ended.items()},
        "memory": summary(memory),
        "after_the_burst": {
            "hostile_files": BURST,
            "seconds_until_a_good_answer": round(recovery, 1),
            "readyz": ready,
        },
        "faults": [*four.faults, *load.faults, *after.faults],
    }
    grows = [name for name in ("server", "children") if figures["memory"][name]["grows"]]
    print(json.dumps({key: figures[key] for key in ("good", "after_the_burst", "faults")}))
    measure.publish("soak", options.command, figures)
    is_healthy = not figures["faults"] and not grows and ready == 200
    print("healthy" if is_healthy else f"not healthy; memory grows: {', '.join(grows) or 'no'}")
    return 0 if is_healthy else 1


if __name__ == "__main__":
    sys.exit(main())
