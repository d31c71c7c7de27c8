"""Draws the growth of the costs that `benchmarks.cost` measured, as SVG."""

import io
import json
from pathlib import Path

from musical_tf.files import write_whole

COLORS = {"MI-GAN": "#c2410c", "ours": "#0969da"}
COST_AXES = {
    "megapixels": ("megapixels, 1 % hole", (0.0625, 0.25, 1, 3, 6, 12, 24)),
    "hole": ("hole, % of a large photograph", (0.1, 0.3, 1, 3, 10, 30)),
}
"""Axis of the points -> label and ticks."""
QUANTITIES = {"seconds": ("seconds", 1), "bytes": ("memory of model and fill, GB", 1e9)}
"""Key of a point -> label and unit."""
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3d434b",
    "xtick.color": "#5a616b",
    "ytick.color": "#5a616b",
    "text.color": "#1f2328",
    "grid.color": "#e4e7eb",
    "svg.hashsalt": "cost",
}


def write_cost(results: Path, plot: Path) -> None:
    """Writes the plot, whole or not at all, if there are points of growth."""
    record = json.loads(results.read_text("utf-8")) if results.is_file() else {"cost": {}}
    points = record["cost"].get("growth", {}).get("figures", [])
    if points:
        write_whole(plot, draw_cost(points))


def draw_cost(points: list[dict]) -> bytes:
    """Seconds above, memory below, a column for each axis; the same file from the same points."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, plots = pyplot.subplots(2, 2, figsize=(6.4, 5.6), sharex="col", sharey="row")
        for row, (key, (label, unit)) in zip(plots, QUANTITIES.items(), strict=True):
            for axes, axis in zip(row, COST_AXES, strict=True):
                for name, color in COLORS.items():
                    found = [each for each in points if (each["axis"], each["of"]) == (axis, name)]
                    x, y = [each["at"] for each in found], [each[key] / unit for each in found]
                    axes.plot(x, y, "o-", color=color, markersize=3.5, linewidth=1.6, label=name)
                _set_axes(axes, COST_AXES[axis][1])
            row[0].set_ylabel(label)
            row[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for axes, (label, _) in zip(plots[-1], COST_AXES.values(), strict=True):
            axes.set_xlabel(label)
        lines = plots[0][0].get_legend_handles_labels()
        figure.legend(*lines, loc="upper center", ncols=len(COLORS), frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 0.94))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor="#ffffff", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()


def _set_axes(axes, ticks: tuple[float, ...]) -> None:
    axes.set_yscale("log")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(True, which="major", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.minorticks_off()
