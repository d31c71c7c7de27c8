"""Line plots as SVG, in one style."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3d434b",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "text.color": "#1f2328",
    "xtick.color": "#5a616b",
    "xtick.major.size": 0,
    "ytick.color": "#5a616b",
    "ytick.major.size": 0,
    "svg.fonttype": "none",
    "svg.hashsalt": "musical-tf",
}


def draw(
    rows: int, columns: int, inches: tuple[float, float], fill: Callable[[np.ndarray], None]
) -> bytes:
    """Draws plots under one legend; the same lines give the same file.

    A row shares its vertical axis, a column its horizontal one.

    Args:
        rows, columns: Ints, number of plots.
        inches: Width and height of the whole.
        fill: Draws into matplotlib's axes, an array `(rows, columns)`; the first plot's labels make
            the legend.

    Returns:
        The SVG file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(inches)
        axes = figure.subplots(rows, columns, sharex="col", sharey="row", squeeze=False)
        fill(axes)
        lines = axes[0, 0].get_legend_handles_labels()
        legend = figure.legend(*lines, loc="upper center", ncols=min(4, len(lines[0])))
        height = legend.get_window_extent().height / figure.bbox.height
        figure.tight_layout(rect=(0, 0, 1, 1 - height))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor="#ffffff", metadata={"Date": None})
    return buffer.getvalue()
