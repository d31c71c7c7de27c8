"""Draws grids of line plots as SVG, the same file from the same figures."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from musical_tf.files import write_whole

DASHES = (0, (3, 3))
COLORS = ("#c2410c", "#0969da")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3d434b",
    "axes.titlecolor": "#1f2328",
    "xtick.color": "#5a616b",
    "ytick.color": "#5a616b",
    "text.color": "#1f2328",
    "grid.color": "#e4e7eb",
}


class Line(NamedTuple):
    """Points of one color; a dashed line has no markers."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    color: str
    dashed: bool = False


class Panel(NamedTuple):
    """One plot. `ticks` of the x axis make its scale logarithmic."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    title: str = ""
    ticks: Sequence[float] = ()


def draw(name: str, grid: Sequence[Sequence[Panel]]) -> bytes:
    """The panels as SVG: a column shares its x axis, a row its y axis, all the legend on top.

    Args:
        name: From which the identifiers in the file are derived.
        grid: Rows of panels.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shape = (len(grid), len(grid[0]))
    with pyplot.rc_context(STYLE | {"svg.hashsalt": name}):
        size = (3.2 * shape[1], 2.8 * shape[0])
        figure, plots = pyplot.subplots(
            *shape, figsize=size, sharex="col", sharey="row", squeeze=False
        )
        legend = {}
        for panels, row in zip(grid, plots, strict=True):
            for panel, axes in zip(panels, row, strict=True):
                _draw_panel(panel, axes)
                drawn = zip(panel.lines, axes.get_lines(), strict=True)
                legend.update({line.label: artist for line, artist in drawn})
        for panel, axes in zip(grid[-1], plots[-1], strict=True):
            axes.set_xlabel(panel.x_label)
        for panels, row in zip(grid, plots, strict=True):
            row[0].set_ylabel(panels[0].y_label)
            row[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        place = {"loc": "upper center", "ncols": len(legend), "frameon": False}
        figure.legend(legend.values(), legend.keys(), **place)
        figure.tight_layout(rect=(0, 0, 1, 0.94))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor="#ffffff", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()


def _draw_panel(panel: Panel, axes) -> None:
    for line in panel.lines:
        style = {"linewidth": 1, "linestyle": DASHES} if line.dashed else {"linewidth": 1.6}
        marker = "" if line.dashed else "o"
        axes.plot(line.x, line.y, color=line.color, marker=marker, markersize=3.5, **style)
    axes.set_title(panel.title, fontsize=8)
    axes.set_yscale("log")
    axes.grid(True, which="major", linewidth=0.7)
    axes.set_axisbelow(True)
    if panel.ticks:
        axes.set_xscale("log", base=2)
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
    axes.tick_params(length=0)
    axes.minorticks_off()


# ---- the growth of the costs, see `benchmarks.cost`

COST_AXES = {
    "megapixels": ("megapixels, 1 % hole", (0.0625, 0.25, 1, 3, 6, 12, 24)),
    "hole": ("hole, % of a large photograph", (0.1, 0.3, 1, 3, 10, 30)),
}
"""Axis of the points -> label and ticks."""


def write_cost(results: Path, plot: Path) -> None:
    """Writes the plot, whole or not at all, if there are points of growth."""
    record = json.loads(results.read_text("utf-8")) if results.is_file() else {"cost": {}}
    points = record["cost"].get("growth", {}).get("figures", [])
    if points:
        write_whole(plot, draw_cost(points))


def draw_cost(points: list[dict]) -> bytes:
    """Seconds above, memory below, a column for each axis, as SVG."""
    grid = []
    for key, label, unit in (
        ("seconds", "seconds", 1),
        ("bytes", "memory of model and fill, GB", 1e9),
    ):
        row = []
        for axis, (axis_label, ticks) in COST_AXES.items():
            lines = []
            for name, color in zip(("MI-GAN", "ours"), COLORS, strict=True):
                found = [point for point in points if (point["axis"], point["of"]) == (axis, name)]
                x, y = [each["at"] for each in found], [each[key] / unit for each in found]
                lines.append(Line(x, y, name, color))
            row.append(Panel(lines, axis_label, label, ticks=ticks))
        grid.append(row)
    return draw("cost", grid)
