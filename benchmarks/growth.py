"""How time and memory of the whole model grow with the picture, the hole and the batch.

    python -m benchmarks.growth           # measure, write results/growth.json, draw
    python -m benchmarks.growth --draw    # from results/growth.json alone

The preset `paper` in ONNX Runtime, with and without a bound on the attention's scores
(`musical-export --attention-max-scores`), fills pictures of 128 to 1024 pixels with the centre
hole, holes of 1 % to 60 % of a picture of 256, and batches of 1 to 16 such pictures. Every point is
a process of its own, so that its peak of memory is its own. What `added_bytes` predicts to be more
than `--limit` is not run, and the prediction alone is drawn.

Every point is kept beside the models as soon as it is measured. After `--minutes`, what has been
measured is written and drawn, and what is missing is named; the same command then goes on, as it
does after a kill, if the models, the machine and the software are still the same.
"""

import argparse
import contextlib
import io
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import measure, models
from musical_tf.files import write_whole

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

SCORE_TENSORS = 3
"""Tensors of the scores' size that ONNX Runtime holds at the same time, about."""

FEATURE_BYTES = (130, 9)
"""Bytes of features for each pixel that are held at the same time: of any network, and for each
unit of its width besides."""

BOUNDS = {"hole": models.MAX_SCORES, "batch": 32_000_000, "side": 32_000_000}
"""Scores in one tensor at most, for each axis: the larger half of its points has to be worked
through in bands, and a band is of many rows."""

LARGE_SIDE, LARGE_BOUND = 768, 128_000_000
"""From this side on, the bound is this one: a row of a larger picture's hole has more scores, and a
band of one row would be computed with six others around it."""

LEAST_SECONDS = 5.0
"""With less time left than this, no further point is begun."""

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


def measure_point(file: str, side: int, hole_side: int, batch: int, threads: int) -> dict:
    """Fills one batch, and again while that is quick, in this process."""
    session = models.open_session(Path(file), threads, pattern=False)
    loading = measure.resident_peak()
    # Made before the peak is restarted: the photograph imports scikit-image, which is no part of a
    # run's memory.
    image = models.photograph(side, batch)
    feed = {"image": image, "mask": models.square_hole(side, hole_side, batch)}
    loaded = measure.restart_peak()
    seconds: list[float] = []
    while len(seconds) < 6 and sum(seconds) < 3:
        seconds.append(measure.seconds_of(lambda: session.run(None, feed)))
    return {
        "loading": loading,
        "loaded": loaded,
        "added": measure.resident_peak() - loaded,
        "seconds": statistics.median(seconds[1:] or seconds),
        "runs": len(seconds),
    }


def points() -> list[dict[str, Any]]:
    """What is measured: axis, its value, side of the picture and the hole, batch, form, bound.

    The slowest ones come last.
    """
    listed = []
    for share in HOLE_SHARES:
        hole_side = round(SIDE * math.sqrt(share))
        listed.append({"axis": "hole", "at": 100 * share, "side": SIDE, "hole_side": hole_side})
    for batch in BATCHES:
        listed.append({"axis": "batch", "at": batch, "side": SIDE, "hole_side": SIDE // 2})
    listed += [{"axis": "side", "at": side, "side": side, "hole_side": side // 2} for side in SIDES]
    return [
        {
            **point,
            "batch": point["at"] if point["axis"] == "batch" else 1,
            "form": form,
            "bound": bound_of(point) if form == "bounded" else None,
        }
        for point in listed
        for form in ("unbounded", "bounded")
    ]


def bound_of(point: dict[str, Any]) -> int:
    """The bound of a point of the form "bounded"."""
    large = point["axis"] == "side" and point["side"] >= LARGE_SIDE
    return LARGE_BOUND if large else BOUNDS[point["axis"]]


def model_of(row: dict[str, Any], preset: str) -> int:
    """What the memory model says of a point."""
    shape = (row["side"], row["hole_side"], row["batch"])
    return added_bytes(*shape, PRESET_WIDTHS[preset], row["bound"])


def measure_all(
    folder: Path, preset: str, threads: int, limit: float, minutes: float, arguments: list[str]
) -> dict[str, Any]:
    """All points, or those that the time is enough for, each printed and kept as it comes.

    Points of an unfinished measurement of the same models, machine and software are taken over.
    """
    deadline = time.monotonic() + 60.0 * minutes
    files = {None: models.exported(folder, preset)}
    for bound in sorted({*BOUNDS.values(), LARGE_BOUND}):
        files[bound] = models.exported(folder, preset, attention_max_scores=bound)
    record = measure.record(
        MODULE,
        arguments,
        {"preset": preset, "threads": threads, "models": [file.name for file in files.values()]},
    )
    unfinished = folder / f"{NAME}-{preset}.json"
    kept = taken_over(unfinished, record)
    if kept["points"]:
        print(f"going on after {len(kept['points'])} points in {unfinished}", flush=True)
    known = {point_name(row): row for row in kept["points"]}
    rows, missing = [], []
    for point in points():
        model = model_of(point, preset)
        row = known.get(point_name(point))
        left = deadline - time.monotonic()
        if row is None and model <= limit * 1e9 and not missing and left > LEAST_SECONDS:
            shape = (point["side"], point["hole_side"], point["batch"])
            call = (measure_point, str(files[point["bound"]]), *shape, threads)
            with contextlib.suppress(TimeoutError):  # it counts as missing
                row = point | measure.in_own_process(*call, timeout=left)
                kept["points"].append(row)
                write_whole(unfinished, json.dumps(kept).encode())
                print(
                    f"{point_name(row)}: {row['seconds']:.3f} s, {row['added'] / 1e6:.0f} MB, "
                    f"{row['added'] / model:.2f} of the model",
                    flush=True,
                )
        if row is None and model <= limit * 1e9:
            missing.append(point_name(point))
        rows.append(row or point)
    if not missing:
        unfinished.unlink(missing_ok=True)
    return {**kept, "points": rows, "missing": missing}


def point_name(point: dict[str, Any]) -> str:
    """What a point is called in messages; no two are called the same."""
    return f"{point['axis']} {point['at']:g}, {point['form']}"


def taken_over(unfinished: Path, record: dict[str, Any]) -> dict[str, Any]:
    """An earlier run's record with its points, or this one's without any."""
    anew = {**record, "points": []}
    try:
        earlier = json.loads(unfinished.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return anew
    same = ("preset", "threads", "models", "hardware", "software")
    return earlier if all(earlier.get(key) == record[key] for key in same) else anew


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """What the measurement says, name -> ratio; without those whose points are missing."""
    rows = [row for row in figures["points"] if "added" in row]
    if not rows:
        return {}
    of_model = [row["added"] / model_of(row, figures["preset"]) for row in rows]
    said = {
        "memory of a run, measured / model, at most": max(of_model),
        "memory of a run, measured / model, at least": min(of_model),
    }
    at = {(row["form"], row["axis"], row["at"]): row for row in rows}
    for side in reversed(SIDES):
        bounded, unbounded = (at.get((form, "side", side)) for form in ("bounded", "unbounded"))
        if bounded and unbounded:
            label = f"{side} x {side}, bounded by {bounded['bound'] / 1e6:g} million scores / not"
            said[f"{label}: memory of a run"] = bounded["added"] / unbounded["added"]
            said[f"{label}: time"] = bounded["seconds"] / unbounded["seconds"]
            break
    one, sixteen = (at.get(("unbounded", "batch", batch)) for batch in (1, 16))
    if one and sixteen:
        ratio = sixteen["seconds"] / (16 * one["seconds"])
        said["batch of 16 / 16 batches of 1, not bounded, time"] = ratio
    return said


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
    names = {"unbounded": "no bound", "bounded": "bounded scores"}
    with pyplot.rc_context(style):
        figure, grid = pyplot.subplots(2, 3, figsize=(9.6, 5.6), sharex="col", sharey="row")
        for column, (axis, label) in enumerate(AXES.items()):
            top, bottom = grid[:, column]
            of_axis = [row for row in figures["points"] if row["axis"] == axis]
            bounds = sorted({row["bound"] for row in of_axis if row["bound"]})
            millions = " or ".join(f"{bound / 1e6:g}" for bound in bounds)
            top.set_title(f"bound: {millions} million scores a tensor", fontsize=8)
            for form, colour in colours.items():
                rows = [row for row in of_axis if row["form"] == form]
                run = [r for r in rows if "added" in r]
                x = [r["at"] for r in run]
                line = {"color": colour, "marker": "o", "markersize": 3.5, "linewidth": 1.6}
                top.plot(x, [r["seconds"] for r in run], label=names[form], **line)
                bottom.plot(x, [r["added"] / 1e9 for r in run], **line)
                bottom.plot(
                    [r["at"] for r in rows],
                    [model_of(r, figures["preset"]) / 1e9 for r in rows],
                    color=colour,
                    linewidth=1,
                    linestyle=DASHES,
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
        dashed = matplotlib.lines.Line2D([], [], color="#5a616b", linewidth=1, linestyle=DASHES)
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
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--preset", choices=PRESET_WIDTHS, default="paper")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--limit", type=float, default=6, metavar="GB", help="of a point's memory (default: 6)"
    )
    parser.add_argument(
        "--minutes", type=float, default=9, metavar="M", help="for all of it (default: 9)"
    )
    parser.add_argument("--models", type=Path, default=models.FOLDER, metavar="DIR")
    return measure.run(parser, argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    if options.draw:
        figures = json.loads((measure.RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))
    else:
        limits = (options.threads, options.limit, options.minutes)
        figures = measure_all(options.models, options.preset, *limits, words)
    # The memory model may have changed since the measurement.
    figures["ratios"] = {name: round(value, 3) for name, value in ratios(figures).items()}
    measure.keep(NAME, figures)
    write_whole(PLOT, draw(figures))
    for name, value in figures["ratios"].items():
        print(f"{value:7.2f}  {name}")
    print(PLOT.relative_to(measure.ROOT))
    if figures["missing"]:
        print(f"not measured, the same command goes on with: {'; '.join(figures['missing'])}")


if __name__ == "__main__":
    sys.exit(main())
