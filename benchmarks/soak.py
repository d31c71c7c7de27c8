"""Does a server stay healthy for an hour at twice its capacity, with hostile files mixed in?

    python -m benchmarks.soak --minutes 60

A server is started on this machine. Its capacity is the rate at which four clients that send one
good request after the other are answered. Then good requests are offered at twice that rate,
whether or not the server keeps up. Among them are hostile files, clients that hang up and slow
clients. At the end 200 hostile files come at once, and the time until the next good answer is
measured.

Recorded are

* the good requests that were answered, refused (503 `queue_full`, right at twice the capacity) and
  failed (anything else: a wrong pixel, a timeout, another status);
* the answers to hostile requests, and the seconds that the slowest of each kind took;
* the memory of the server and of its children over time, with the slope after a warm-up.

Writes `results/soak.json`. The exit code is 1 if a good request failed, a hostile one was not
answered in time, or memory grew. Ctrl-C or SIGTERM ends the load early; the result then has the
minutes that it ran. Needs Linux.
"""

import argparse
import json
import random
import re
import signal
import sys
import threading
import time
from typing import Any

from benchmarks import measure
from benchmarks.load_test import running_server
from benchmarks.memory_over_time import Memory
from benchmarks.soak_requests import (
    PATIENCE,
    Good,
    Hostile,
    Load,
    get,
    good_requests,
    hostile_requests,
)
from serving.session import InpaintingSession

HOSTILE_SHARE = 0.1
"""Hostile requests for each good one."""

BURST = 200
"""Hostile files at once, at the end."""


def _capacity(port: int, requests: list[Good], seconds: float) -> float:
    """Good requests a second that four clients get answered, one after the other."""
    load, end = Load(port), time.monotonic() + seconds
    choice = random.Random(0)

    def one_client() -> None:
        while time.monotonic() < end:
            load.send_good(choice.choice(requests))

    threads = [threading.Thread(target=one_client) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if load.faults:
        raise RuntimeError(f"the server failed before the load: {load.faults[0]}")
    return load.good["answered"] / (time.monotonic() - started)


def _offer(
    load: Load, good: list[Good], hostile: list[Hostile], rate: float, end: float, stop: Any
) -> None:
    """Offers good requests at a rate, and hostile ones among them, until `end` or `stop`."""
    choice = random.Random(1)
    queue = sorted(hostile, key=lambda _: choice.random())
    due = time.monotonic()
    while (now := time.monotonic()) < end and not stop.is_set():
        if due > now and stop.wait(min(due - now, 1.0)):
            return
        if due > time.monotonic():
            continue
        load.send(choice.choice(good))
        if choice.random() < HOSTILE_SHARE:
            load.send(queue[0])
            queue = [*queue[1:], queue[0]]
        due += choice.expovariate(rate)


def _burst(load: Load, hostile: list[Hostile], good: Good) -> float:
    """Sends `BURST` hostile files; returns the seconds until a good request is answered."""
    files = [request for request in hostile if request.manner == "whole"]
    threads = [load.send(files[number % len(files)], wait=True) for number in range(BURST)]
    started = time.monotonic()
    while load.good["answered"] == 0 and time.monotonic() < started + 2 * PATIENCE:
        load.send_good(good)
        time.sleep(0.2)
    seconds = time.monotonic() - started
    for thread in threads:
        thread.join()
    return seconds


def _ended(port: int) -> dict[str, int]:
    """Worker processes that the server has ended, by reason."""
    lines = get(port, "/metrics")[1].decode()
    found = re.findall(r'^musical_workers_ended_total\{reason="(\w+)"\} (\S+)$', lines, re.M)
    return {reason: int(float(count)) for reason, count in found}


def _report(minutes: float, load: Load, memory: Memory) -> None:
    _, server, children = memory.samples[-1] if memory.samples else (0, 0, 0)
    print(
        f"{minutes:.1f} min: good {dict(load.good)}, "
        f"hostile {sum(sum(each.values()) for each in load.hostile.values())}, "
        f"server {server >> 20} MiB, children {children >> 20} MiB, faults {load.faults[-2:]}",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 if the server stayed healthy."""
    arguments = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    good = good_requests(InpaintingSession(options.model))
    hostile = hostile_requests(good[0])
    with running_server(options.model) as (process, port):
        capacity = _capacity(port, good, options.capacity_seconds)
        print(f"capacity: {capacity:.1f} good requests a second", flush=True)
        load, started = Load(port), time.monotonic()
        end = started + 60 * options.minutes
        with Memory(process) as memory:
            while time.monotonic() < end and not stop.is_set():
                _offer(load, good, hostile, 2 * capacity, min(end, time.monotonic() + 60), stop)
                _report((time.monotonic() - started) / 60, load, memory)
            offered = time.monotonic() - started
            load.drain()
        after = Load(port)
        recovery = _burst(after, hostile, good[0])
        ready, ended = get(port, "/readyz")[0], _ended(port)
    figures = {
        "minutes": round(offered / 60, 1),
        "capacity_per_second": round(capacity, 2),
        "offered_per_second": round(2 * capacity, 2),
        "good": dict(load.good),
        "hostile": {name: dict(load.hostile[name]) for name in sorted(load.hostile)},
        "slowest_seconds": {name: round(load.slowest[name], 1) for name in sorted(load.slowest)},
        "workers_ended": ended,
        "memory": memory.summary(),
        "after_the_burst": {
            "hostile_files": BURST,
            "seconds_until_a_good_answer": round(recovery, 1),
            "readyz": ready,
        },
        "faults": load.faults + [fault for fault in after.faults if "queue_full" not in fault],
    }
    grows = [name for name in ("server", "children") if figures["memory"][name]["grows"]]
    path = measure.keep("soak", measure.record("benchmarks.soak", arguments, figures))
    print(json.dumps({key: figures[key] for key in ("good", "after_the_burst", "faults")}))
    print(f"wrote {path}")
    is_healthy = not figures["faults"] and not grows and ready == 200
    print("healthy" if is_healthy else f"not healthy; memory grows: {', '.join(grows) or 'no'}")
    return 0 if is_healthy else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="photo", metavar="MODEL", help="name or .onnx file")
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument(
        "--capacity-seconds",
        type=float,
        default=30,
        help="for measuring the capacity (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
