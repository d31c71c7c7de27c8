"""Draws the growth of seconds and memory in `results/cost.json`, see `benchmarks.cost`."""

import json
from pathlib import Path

from benchmarks import plots
from musical_tf.files import write_whole

AXES = {
    "megapixels": ("megapixels, 1 % hole", (0.0625, 0.25, 1, 3, 6, 12, 24)),
    "hole": ("hole, % of a large photograph", (0.1, 0.3, 1, 3, 10, 30)),
}
"""Axis of the points -> label and ticks."""


def write(results: Path, plot: Path) -> None:
    """Writes the plot, whole or not at all, if there are points of growth."""
    record = json.loads(results.read_text("utf-8")) if results.is_file() else {"cost": {}}
    points = record["cost"].get("growth", {}).get("figures", [])
    if points:
        write_whole(plot, draw(points))


def draw(points: list[dict]) -> bytes:
    """Seconds above, memory below, a column for each axis, as SVG."""
    grid = []
    for key, label, unit in (("seconds", "seconds", 1), ("bytes", "peak memory, GB", 1e9)):
        row = []
        for axis, (axis_label, ticks) in AXES.items():
            lines = []
            for name, color in zip(("MI-GAN", "ours"), plots.COLORS, strict=True):
                found = [point for point in points if (point["axis"], point["of"]) == (axis, name)]
                x, y = [each["at"] for each in found], [each[key] / unit for each in found]
                lines.append(plots.Line(x, y, name, color))
            row.append(plots.Panel(lines, axis_label, label, ticks=ticks))
        grid.append(row)
    return plots.draw("cost", grid)
