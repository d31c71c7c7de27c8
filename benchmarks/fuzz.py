"""Tries the properties of `tests/properties` on many inputs: reader, mask, request and recipe.

    python -m benchmarks.fuzz [--cases N] [--seed S]

Hypothesis draws the inputs. The properties take turns of up to `TURN` cases, in one process, and
the peak of the process's memory is taken for every turn. Exit code 1 if a property fails, if a case
takes longer than `SECONDS`, or if the memory exceeds `PEAK` or `GROWTH`. Writes results/fuzz.json
in either case. Needs Linux.
"""

import argparse
import importlib
import math
import pkgutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import hypothesis

from benchmarks import measure
from tests import properties

MODULE = "benchmarks.fuzz"

TURN = 125
"""Most cases of one property at a time: Hypothesis keeps all of a turn in memory."""

PEAK = 256 * 2**20
"""Bytes that a turn may take beside what the process holds when it begins."""

GROWTH = 32 * 2**20
"""Bytes by which the process may grow between the second fifth of the rounds and the last."""

SECONDS = 20.0
"""Seconds that a case may take."""


class Property:
    """A test that Hypothesis calls, and what became of its cases."""

    def __init__(self, test: Callable[..., None]) -> None:
        self.test = test
        self.cases = 0
        self.slowest = 0.0
        self.seconds = 0.0
        self.failures: list[str] = []
        inner = test.hypothesis.inner_test

        @wraps(inner)
        def counted(*arguments: Any, **keywords: Any) -> None:
            self.cases += 1
            started = time.monotonic()
            try:
                inner(*arguments, **keywords)
            finally:
                self.slowest = max(self.slowest, time.monotonic() - started)

        test.hypothesis.inner_test = counted

    def take_turn(self, seed: int) -> None:
        """Draws cases by one seed until the profile's number of them, or a failure."""
        started = time.monotonic()
        try:
            hypothesis.seed(seed)(self.test)()
        except Exception as error:  # whatever the property raises, with the input in its notes
            notes = " ".join(getattr(error, "__notes__", ()))
            last = traceback.format_exception_only(error)[0].strip()
            self.failures.append(f"seed {seed}: {last[:500]} {notes[:1500]}".strip())
        self.seconds += time.monotonic() - started

    def figures(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "cases": self.cases,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
            "slowest_seconds": round(self.slowest, 2),
        }


def load_properties(turn: int) -> dict[str, Callable[..., None]]:
    """The properties by name, set to draw `turn` cases; imports their modules."""
    profile = hypothesis.settings.get_profile("test")
    phases = [hypothesis.Phase.generate, hypothesis.Phase.shrink]
    hypothesis.settings.register_profile(
        "fuzz", profile, max_examples=turn, derandomize=False, phases=phases
    )
    hypothesis.settings.load_profile("fuzz")
    found = {}
    for module in pkgutil.iter_modules(properties.__path__):
        if module.name.startswith("test_"):
            members = vars(importlib.import_module(f"{properties.__name__}.{module.name}"))
            for name, test in members.items():
                if name.startswith("test_") and hypothesis.is_hypothesis_test(test):
                    name = name.removeprefix("test_").replace("_", " ")
                    found[f"{module.name.removeprefix('test_')}: {name}"] = test
    return found


def run(tests: Mapping[str, Callable[..., None]], rounds: int, seed: int) -> dict[str, Any]:
    """Lets the properties take turns; returns the figures, `failures` among them."""
    tried = {name: Property(test) for name, test in tests.items()}
    held, peaks = [], []
    started = time.monotonic()
    for number in range(rounds):
        largest = 0
        for each in tried.values():
            before = measure.restart_peak()
            each.take_turn(seed + number)
            largest = max(largest, measure.resident_peak() - before)
        held.append(measure.restart_peak())
        peaks.append(largest)
    fifth = max(1, rounds // 5)
    grown = statistics.median(held[-fifth:]) - statistics.median(held[fifth : 2 * fifth] or held)
    failures = [f"{name}: {failure}" for name, each in tried.items() for failure in each.failures]
    for name, each in tried.items():
        if each.slowest > SECONDS:
            failures.append(f"{name}: a case took {each.slowest:.1f} s")
    if max(peaks) > PEAK:
        failures.append(f"a turn took {max(peaks) >> 20} MiB beside what was held before")
    if grown > GROWTH:
        failures.append(f"the process grew by {int(grown) >> 20} MiB")
    return {
        "cases": sum(each.cases for each in tried.values()),
        "failures": failures,
        "seconds": round(time.monotonic() - started, 1),
        "properties": {name: each.figures() for name, each in tried.items()},
        "memory_mib": {
            "held_after_each_round": [size >> 20 for size in held],
            "peak_of_a_turn_by_round": [size >> 20 for size in peaks],
            "bound_of_a_peak": PEAK >> 20,
            "grown": round(grown / 2**20, 1),
            "bound_of_growth": GROWTH >> 20,
        },
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    for name in ("cases", "seed"):
        if (value := getattr(arguments, name)) < (least := int(name == "cases")):
            parser.error(f"--{name} must be {least} or more, got {value}")
    tests = load_properties(turn=min(TURN, arguments.cases))
    rounds = math.ceil(arguments.cases / (TURN * len(tests)))
    figures = run(tests, rounds, arguments.seed)
    if not figures["failures"] and figures["cases"] < arguments.cases:
        figures["failures"].append(f"{figures['cases']} cases were drawn, not {arguments.cases}")
    command = ["--cases", str(arguments.cases), "--seed", str(arguments.seed)]
    measure.keep("fuzz", measure.record(MODULE, command, figures))
    for name, figure in figures["properties"].items():
        print(f"{figure['cases']:7} cases, slowest {figure['slowest_seconds']:5.2f} s  {name}")
    for failure in figures["failures"]:
        print(f"{parser.prog}: {failure}", file=sys.stderr)
    print(
        f"{figures['cases']} cases, {len(figures['failures'])} failures, {figures['seconds']:.0f} s"
    )
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
