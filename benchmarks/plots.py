"""Draws what `results/` holds for the documents, as SVG."""

import json
from pathlib import Path

import numpy as np

from musical_tf.files import write_whole
from training.evaluation import learning_curves, plots

COLORS = {"MI-GAN": "#c2410c", "ours": "#0969da"}
COST_AXES = {
    "megapixels": ("megapixels, 1 % hole", (0.0625, 0.25, 1, 3, 6, 12, 24)),
    "hole": ("hole, % of a large photograph", (0.1, 0.3, 1, 3, 10, 30)),
}
"""Axis of the points -> label and ticks."""
QUANTITIES = {"seconds": ("seconds", 1), "bytes": ("memory of model and fill, GB", 1e9)}
"""Key of a point -> label and unit."""


def write(results: Path, images: Path) -> None:
    """Writes `cost.svg`, and `NAME_curves.svg` of each `NAME.json` with learning curves."""
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        if points := record.get("cost", {}).get("growth", {}).get("figures"):
            write_whole(images / f"{path.stem}.svg", draw_cost(points))
        if curves := learning_curves.draw(record.get("methods") or ()):
            write_whole(images / f"{path.stem}_curves.svg", curves)


def draw_cost(points: list[dict]) -> bytes:
    """Seconds above, memory below, a column for each axis: growth that `benchmarks.cost` found."""

    def fill(grid: np.ndarray) -> None:
        for row, (key, (label, unit)) in zip(grid, QUANTITIES.items(), strict=True):
            for axes, axis in zip(row, COST_AXES, strict=True):
                for name, color in COLORS.items():
                    found = [each for each in points if (each["axis"], each["of"]) == (axis, name)]
                    x, y = [each["at"] for each in found], [each[key] / unit for each in found]
                    axes.plot(x, y, "o-", color=color, label=name)
                _set_axes(axes, COST_AXES[axis][1])
            row[0].set_ylabel(label)
            row[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axes, (label, _) in zip(grid[-1], COST_AXES.values(), strict=True):
            axes.set_xlabel(label)

    return plots.draw(len(QUANTITIES), len(COST_AXES), (6.4, 5.6), fill)


def _set_axes(axes, ticks: tuple[float, ...]) -> None:
    axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
