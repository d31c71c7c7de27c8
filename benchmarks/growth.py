"""How time and memory of the whole model grow with the picture, the hole and the batch.

    python -m benchmarks.growth           # measure, write results/growth.json, draw
    python -m benchmarks.growth --draw    # from results/growth.json alone

The preset `paper` in ONNX Runtime, with and without a bound on the attention's scores
(`musical-export --attention-max-scores`), fills pictures of 128 to 1024 pixels with the centre
hole, holes of 1 % to 60 % of a picture of 256, and batches of 1 to 16 such pictures. Every point is
a process of its own, so that its peak of memory is its own. What `added_bytes` predicts to be more
than `--limit` is not run, and the prediction alone is drawn.
"""

import argparse
import io
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import measure, models
from serving.images import write_bytes

MODULE = "benchmarks.growth"
NAME = "growth"
PLOT = measure.ROOT / "docs" / "images" / "growth.svg"

SIDE = 256
SIDES = (128, 192, 256, 384, 512, 640, 768, 1024)
HOLE_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BATCHES = (1, 2, 4, 8, 16)
AXES = {
    "side": "side of the picture, pixels",
    "hole": "hole, % of the picture",
    "batch": "pictures in a batch",
}

HALO = 3
"""Positions around the hole's box whose scores patches of 3 x 3 and their propagation need."""

SCORE_TENSORS = 7
"""Tensors of the scores' size that ONNX Runtime holds at the same time, about."""

FEATURE_BYTES = (130, 9)
"""Bytes of features for each pixel that are held at the same time: of any network, and for each
unit of its width besides."""

DASHES = (0, (3, 3))

PRESET_WIDTHS = {"paper": 64, "lite": 32}


def score_count(side: int, hole_side: int, batch: int, bound: int | None = None) -> int:
    """How many scores the attention holds in one tensor.

    Every position of the hole's box and the halo around it, with every position of the map, at a
    quarter of the picture's resolution. A bound divides the box into bands of rows, each with a
    halo of its own, and at least one row high.
    """
    box = math.ceil(hole_side / 4)
    a_row = batch * (box + 2 * HALO) * (side // 4) ** 2
    rows = box
    if bound is not None:
        most = max(bound // a_row - 2 * HALO, 1)
        rows = math.ceil(box / math.ceil(box / most))
    return a_row * (rows + 2 * HALO)


def added_bytes(side: int, hole_side: int, batch: int, width: int, bound: int | None = None) -> int:
    """The memory model: bytes a run needs beside the process with the loaded model."""
    of_any, of_width = FEATURE_BYTES
    features = (of_any + of_width * width) * batch * side**2
    return features + 4 * SCORE_TENSORS * score_count(side, hole_side, batch, bound)


def measure_point(file: str, side: str, hole_side: str, batch: str, threads: str) -> dict:
    """Fills one batch, and again while that is quick, in this process."""
    session = models.open_session(Path(file), int(threads), pattern=False)
    loading = measure.resident_peak()
    loaded = measure.restart_peak()
    image = models.photograph(int(side), int(batch))
    feed = {"image": image, "mask": models.square_hole(int(side), int(hole_side), int(batch))}
    seconds: list[float] = []
    while len(seconds) < 6 and sum(seconds) < 3:
        start = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - start)
    return {
        "loading": loading,
        "loaded": loaded,
        "added": measure.resident_peak() - loaded,
        "seconds": statistics.median(seconds[1:] or seconds),
        "runs": len(seconds),
    }


def points() -> list[dict[str, Any]]:
    """What is measured: axis, its value, side of the picture and the hole, batch."""
    listed = [{"axis": "side", "at": side, "side": side, "hole_side": side // 2} for side in SIDES]
    for share in HOLE_SHARES:
        hole_side = round(SIDE * math.sqrt(share))
        listed.append({"axis": "hole", "at": 100 * share, "side": SIDE, "hole_side": hole_side})
    for batch in BATCHES:
        listed.append({"axis": "batch", "at": batch, "side": SIDE, "hole_side": SIDE // 2})
    return [{"batch": point["at"] if point["axis"] == "batch" else 1, **point} for point in listed]


def measure_all(folder: Path, preset: str, threads: int, limit: float) -> dict[str, Any]:
    """All points, each printed as it comes."""
    files = {
        "unbounded": models.exported(folder, preset),
        "bounded": models.exported(folder, preset, attention_max_scores=models.MAX_SCORES),
    }
    rows = []
    for point in points():
        for form, file in files.items():
            bound = models.MAX_SCORES if form == "bounded" else None
            shape = (point["side"], point["hole_side"], point["batch"])
            model = added_bytes(*shape, PRESET_WIDTHS[preset], bound)
            row = {**point, "form": form}
            if model <= limit * 1e9:
                words = map(str, (file, *shape, threads))
                row |= measure.peak_memory_of(MODULE, "--point", *words)
                print(
                    f"{point['axis']} {point['at']:g}, {form}: {row['seconds']:.3f} s, "
                    f"{row['added'] / 1e6:.0f} MB, {row['added'] / model:.2f} of the model",
                    flush=True,
                )
            rows.append(row)
    return {"preset": preset, "threads": threads, "max_scores": models.MAX_SCORES, "points": rows}


def with_model(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The points, each with what the model says in `model`."""
    width = PRESET_WIDTHS[figures["preset"]]
    bounds = {"unbounded": None, "bounded": figures["max_scores"]}
    return [
        {
            **row,
            "model": added_bytes(
                row["side"], row["hole_side"], row["batch"], width, bounds[row["form"]]
            ),
        }
        for row in figures["points"]
    ]


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What the measurement says, name -> ratio."""
    rows = [row for row in with_model(figures) if "added" in row]
    of_model = [row["added"] / row["model"] for row in rows]

    def at(form: str, axis: str, value: float) -> dict[str, Any]:
        (row,) = (r for r in rows if (r["form"], r["axis"], r["at"]) == (form, axis, value))
        return row

    both = [
        side
        for side in SIDES
        if sum(row["axis"] == "side" and row["at"] == side for row in rows) == 2
    ]
    largest = max(both)
    bounded, unbounded = (at(form, "side", largest) for form in ("bounded", "unbounded"))
    return {
        "memory of a run, measured / model, at most": max(of_model),
        "memory of a run, measured / model, at least": min(of_model),
        f"{largest} x {largest}: memory of a run, bounded / not": (
            bounded["added"] / unbounded["added"]
        ),
        f"{largest} x {largest}: time, bounded / not": bounded["seconds"] / unbounded["seconds"],
        "batch of 16 / 16 batches of 1, not bounded, time": (
            at("unbounded", "batch", 16)["seconds"] / (16 * at("unbounded", "batch", 1)["seconds"])
        ),
    }


def draw(figures: dict[str, Any]) -> bytes:
    """The plot as SVG: time above, memory below, one column an axis."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {
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
        "svg.hashsalt": NAME,  # the same picture from the same figures
    }
    colours = {"unbounded": "#c2410c", "bounded": "#0969da"}
    names = {
        "unbounded": "no bound",
        "bounded": f"at most {figures['max_scores'] / 1e6:g} million scores a tensor",
    }
    points = with_model(figures)
    with pyplot.rc_context(style):
        figure, grid = pyplot.subplots(2, 3, figsize=(9.6, 5.6), sharex="col", sharey="row")
        for column, (axis, label) in enumerate(AXES.items()):
            top, bottom = grid[:, column]
            for form, colour in colours.items():
                rows = [r for r in points if (r["axis"], r["form"]) == (axis, form)]
                run = [r for r in rows if "added" in r]
                x = [r["at"] for r in run]
                line = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.6}
                top.plot(x, [r["seconds"] for r in run], label=names[form], **line)
                bottom.plot(x, [r["added"] / 1e9 for r in run], **line)
                bottom.plot(
                    [r["at"] for r in rows],
                    [r["model"] / 1e9 for r in rows],
                    color=colour,
                    linewidth=1,
                    linestyle=DASHES,
                    label="the model" if form == "unbounded" else None,
                )
            for axes in (top, bottom):
                axes.set_yscale("log")
                axes.grid(True, which="major", linewidth=0.7)
                axes.set_axisbelow(True)
                axes.tick_params(length=0)
                axes.minorticks_off()
            bottom.set_xlabel(label)
            if axis != "hole":
                bottom.set_xscale("log", base=2)
                ticks = SIDES if axis == "side" else BATCHES
                kept = [tick for tick in ticks if tick not in (192, 384, 640, 768)]
                bottom.set_xticks(kept, [str(tick) for tick in kept])
                bottom.minorticks_off()
        grid[0, 0].set_ylabel("seconds")
        grid[1, 0].set_ylabel("memory of a run, GB")
        for axes in grid[:, 0]:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        handles = [*grid[0, 0].get_lines()]
        dashed = matplotlib.lines.Line2D(
            [], [], color="#5a616b", linewidth=1, linestyle=(0, (3, 3))
        )
        figure.legend(
            [*handles, dashed],
            [*names.values(), "memory model"],
            loc="upper center",
            ncols=3,
            frameon=False,
        )
        figure.tight_layout(rect=(0, 0, 1, 0.94))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor="#ffffff", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__.split("\n\n")[0])
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--preset", choices=PRESET_WIDTHS, default="paper")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--limit", type=float, default=6, metavar="GB", help="of a point's memory (default: 6)"
    )
    parser.add_argument("--models", type=Path, default=models.FOLDER, metavar="DIR")
    parser.add_argument("--point", nargs=5, help=argparse.SUPPRESS)
    arguments = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(arguments)
    if options.point:
        print(json.dumps(measure_point(*options.point)))
        return 0
    try:
        if options.draw:
            kept = (measure.RESULTS / f"{NAME}.json").read_text(encoding="utf-8")
            figures = json.loads(kept)
        else:
            figures = measure_all(options.models, options.preset, options.threads, options.limit)
            figures = measure.record(MODULE, arguments, figures)
        # The model may have been stated anew since the measurement.
        figures["ratios"] = {name: round(value, 3) for name, value in ratios(figures).items()}
        measure.keep(NAME, figures)
        write_bytes(PLOT, draw(figures))
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    for name, value in figures["ratios"].items():
        print(f"{value:7.2f}  {name}")
    print(PLOT.relative_to(measure.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
