"""What the figures of single images come to: averages, rankings, and who is better than whom.

A row is what `results.json` has of one image: "file", "hole_fraction", "bucket" and "metrics", a
mapping method -> `protocol/metric` -> value or None. None is an infinite PSNR: the result equals
the truth.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from musical_tf.metric_directions import HIGHER_IS_BETTER

from .sample import Sample

Row = Mapping[str, Any]

CONFIDENCE = 1.96
"""Standard errors on each side of a mean difference that hold 95 % of a normal distribution."""

BUCKETS = ("0-10%", "10-20%", "20-30%", "30-40%", "40-50%", "50-60%", "60-100%")
"""Hole sizes, the share of the image that is missing in steps of ten, lower end included."""


@dataclass(frozen=True)
class Metric:
    """How a metric is written: its label, unit ("" for a number), digits, better direction.

    `better` is "higher", "lower", or "" where neither is.
    """

    label: str
    unit: str
    decimals: int
    better: str

    def format(self, value: float | None, more_decimals: int = 0) -> str:
        """The value without its unit, "–" where there is none."""
        return "–" if value is None else f"{value:.{self.decimals + more_decimals}f}"

    def with_unit(self, value: float | None) -> str:
        """The value and its unit."""
        return f"{self.format(value)} {self.unit}".strip()

    def best(self, values: Sequence[float | None]) -> float | None:
        """The best of the values; None where neither end is better or no value is defined."""
        known = [value for value in values if value is not None]
        if not (self.better and known):
            return None
        return max(known) if self.better == "higher" else min(known)


METRICS = {
    "psnr": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "l1_percent": ("l1", "%", 3),
    "l2_percent": ("l2", "%", 3),
    "tv_percent": ("TV", "%", 2),
    "alex": ("LPIPS", "", 4),
}
"""Label, unit and digits by the part of a metric's name that follows its protocol's."""


def describe_metric(name: str) -> Metric:
    """How `protocol/metric` is written; one that `METRICS` does not hold goes by its own name."""
    metric = name.partition("/")[2]
    better = {True: "higher", False: "lower", None: ""}[HIGHER_IS_BETTER.get(name)]
    return Metric(*METRICS.get(metric, (metric, "", 4)), better)


def protocol_of(metric: str) -> str:
    """The part of a metric's name before the slash."""
    return metric.partition("/")[0]


def metrics_of(results: Mapping[str, Any]) -> list[str]:
    """The metrics that were measured, `protocol/metric`."""
    return list(results["methods"][0]["aggregates"]["all"]["metrics"])


def hole_bucket(fraction: float) -> str:
    """The bucket of a hole that covers `fraction` of the image; ValueError outside [0, 1]."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"hole fraction must be 0 to 1, got {fraction}")
    # Rounded first: 0.1 * 3 * 10 is 3.0000000000000004.
    return BUCKETS[min(math.floor(round(fraction * 10, 9)), len(BUCKETS) - 1)]


def aggregate(rows: Sequence[Row], method: str) -> dict[str, dict[str, Any]]:
    """Averages of one method over all images and over each hole size that occurs.

    Returns:
        "all" and every bucket that occurs, by size -> {"count", "metrics": {metric: mean},
        "undefined": {metric: count}}. A value of None is left out of the mean and counted under
        "undefined"; a mean of nothing is None.
    """
    groups = {"all": list(rows)}
    groups |= {bucket: [row for row in rows if row["bucket"] == bucket] for bucket in BUCKETS}
    found: dict[str, dict[str, Any]] = {}
    for name, group in groups.items():
        if not group:
            continue
        found[name] = {"count": len(group), "metrics": {}, "undefined": {}}
        for metric in group[0]["metrics"][method]:
            column = [row["metrics"][method][metric] for row in group]
            defined = [value for value in column if value is not None]
            found[name]["metrics"][metric] = statistics.fmean(defined) if defined else None
            if len(defined) < len(column):
                found[name]["undefined"][metric] = len(column) - len(defined)
    return found


# --- the worst and the best -----------------------------------------------------------------------


def first_ranked(method: str, row: Row) -> tuple[str, str]:
    """The method and its first metric with a better direction; ValueError without one."""
    for metric in row["metrics"][method]:
        if describe_metric(metric).better:
            return method, metric
    raise ValueError(f"no metric to rank by among {', '.join(row['metrics'][method])}")


def ranking_metric(results: Mapping[str, Any]) -> tuple[str, str]:
    """Method and metric that "worst first" refers to."""
    return first_ranked(results["methods"][0]["name"], results["images"][0])


def worst_and_best(
    rows: Sequence[Row], samples: Sequence[Sample], ranking: tuple[str, str], count: int
) -> list[Sample]:
    """The `count` samples to show, worst first: all, or the worst and the best half of them.

    `number` of a sample points into `rows`; `ranking` is a method and a metric.
    """
    method, metric = ranking
    sign = 1.0 if describe_metric(metric).better == "higher" else -1.0

    def goodness(sample: Sample) -> float:
        value = rows[sample.number]["metrics"][method][metric]
        return math.inf if value is None else sign * value  # undefined: equal to the truth

    ordered = sorted(samples, key=lambda sample: (goodness(sample), sample.number))
    if len(ordered) <= count:
        return ordered
    return ordered[: count - count // 2] + ordered[-(count // 2) :]


# --- who is better --------------------------------------------------------------------------------


def verdicts(rows: Sequence[Row], methods: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Who is best by which metric, by how much, and whether the photographs can tell.

    Args:
        rows: At least one.
        methods: At least two, with "name" and "aggregates".

    Returns:
        For each metric with a better direction "metric"; "ranking", names from the best mean to the
        worst; "difference", the mean over the images by which the first beats the second; "margin",
        half the width of its 95 % interval (normal approximation), None for a single image;
        "clear", whether the interval leaves out zero; "wins", the share of images on which the
        first is better. Images where either value is undefined are left out; with none left, the
        last four are None. A metric that another protocol defines alike is left out.
    """
    found = []
    seen = []
    for metric in methods[0]["aggregates"]["all"]["metrics"]:
        better = describe_metric(metric).better
        column = [[row["metrics"][m["name"]][metric] for m in methods] for row in rows]
        if not better or column in seen:
            continue
        seen.append(column)
        means = {m["name"]: m["aggregates"]["all"]["metrics"][metric] for m in methods}
        sign = 1.0 if better == "higher" else -1.0
        # Stable: of equal means the earlier method comes first.
        ranking = sorted(
            means, key=lambda name: -math.inf if means[name] is None else -sign * means[name]
        )
        pairs = [[row["metrics"][name][metric] for name in ranking[:2]] for row in rows]
        gains = [sign * (first - second) for first, second in pairs if None not in (first, second)]
        found.append({"metric": metric, "ranking": ranking, **_paired(gains)})
    return found


def _paired(gains: Sequence[float]) -> dict[str, Any]:
    if not gains:
        return dict.fromkeys(("difference", "margin", "clear", "wins"))
    difference, margin = statistics.fmean(gains), None
    if len(gains) > 1:
        margin = CONFIDENCE * statistics.stdev(gains) / math.sqrt(len(gains))
    return {
        "difference": difference,
        "margin": margin,
        "clear": margin is not None and difference > margin,
        "wins": sum(gain > 0 for gain in gains) / len(gains),
    }
