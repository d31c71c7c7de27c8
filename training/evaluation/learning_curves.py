"""The metrics of each run's validations against its steps and its time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import plots
from .statistics import describe_metric

METRICS = ("psnr", "ssim", "l1_percent")
"""Columns of `validation.csv` that are drawn, of protocol `authors`."""


def draw(methods: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The curves as SVG; None if no method was validated while it trained."""
    found = [each for each in methods if (each.get("training") or {}).get("validations")]
    if not found:
        return None
    return plots.draw(len(METRICS), 2, (8.5, 8.5), lambda axes: plot(axes, found))


def plot(axes: np.ndarray, methods: Sequence[Mapping[str, Any]]) -> None:
    """Draws a row a metric: against steps, and against the run's CPU minutes in their proportion.

    Args:
        axes: matplotlib's axes, `(3, 2)`.
        methods: Methods of the results, all with validations.
    """
    for method in methods:
        training = method["training"]
        steps = np.array([row["step"] for row in training["validations"]])
        for (left, right), metric in zip(axes, METRICS, strict=True):
            values = [row[metric] for row in training["validations"]]
            (line,) = left.plot(steps, values, ".-", label=method["label"])
            if training["cpu_minutes"] is not None:
                minutes = steps * training["cpu_minutes"] / training["steps"]
                right.plot(minutes, values, ".-", color=line.get_color())
    for row, metric in zip(axes, METRICS, strict=True):
        described = describe_metric(f"authors/{metric}")
        row[0].set_ylabel(f"{described.label}, {described.unit}".removesuffix(", "))
    axes[-1, 0].set_xlabel("steps")
    axes[-1, 1].set(xlabel="CPU minutes", xscale="log")
    axes[-1, 1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
