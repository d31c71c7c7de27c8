"""Measures how time and memory of the whole model grow with the image, the hole and the batch.

    python -m benchmarks.growth           # measure, write results/growth.json, draw
    python -m benchmarks.growth --draw    # from results/growth.json alone

The preset `paper` in ONNX Runtime, with and without a bound on the attention's scores
(`musical-export --attention-max-scores`), fills images of 128 to 1024 pixels with the center hole,
holes of 1 % to 60 % of an image of 256, and batches of 1 to 16 such images. Every point is a
process of its own. Points that `added_bytes` predicts above `--limit`, and those after `--minutes`,
are not run; the plot shows the prediction alone."""

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from typing import Any

from benchmarks import measure, models, plots
from musical_tf.files import write_whole

PLOT = measure.ROOT / "docs" / "images" / "growth.svg"

SIDE = 256
SIDES = (128, 192, 256, 384, 512, 640, 768, 1024)
HOLE_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
BATCHES = (1, 2, 4, 8, 16)
AXES = {
    "side": ("side of the picture, pixels", (128, 256, 512, 1024)),
    "hole": ("hole, % of the picture", ()),
    "batch": ("pictures in a batch", BATCHES),
}
"""Name -> label and ticks."""

HALO = 3
"""Positions around the hole's box whose scores patches of 3 x 3 and their propagation need."""

SCORE_TENSORS = 3
"""Tensors of the scores' size that ONNX Runtime holds at the same time, about."""

FEATURE_BYTES = (130, 9)
"""Bytes of features for each pixel that are held at once: of any network, and for each unit of its
width."""

BOUNDS = {"hole": models.MAX_SCORES, "batch": 32_000_000, "side": 32_000_000}
"""Scores in one tensor at most, for each axis: the larger half of its points is processed in bands
of many rows."""

LARGE_SIDE, LARGE_BOUND = 768, 128_000_000
"""From this side on, the bound is this one, because a row of a larger hole has more scores."""

PRESET, WIDTH = "paper", 64


def score_count(side: int, hole_side: int, batch: int, bound: int | None = None) -> int:
    """How many scores the attention holds in one tensor, at a quarter of the image's resolution.

    Every position of the hole's box and the halo around it, with every position of the map. A bound
    divides the box into bands of at least one row, each with a halo of its own.
    """
    box = math.ceil(hole_side / 4)
    a_row = batch * (box + 2 * HALO) * (side // 4) ** 2
    rows = box
    if bound is not None:
        most = max(bound // a_row - 2 * HALO, 1)
        rows = math.ceil(box / math.ceil(box / most))
    return a_row * (rows + 2 * HALO)


def added_bytes(side: int, hole_side: int, batch: int, width: int, bound: int | None = None) -> int:
    """The memory model: bytes that a run adds to the process with the loaded model."""
    of_any, of_width = FEATURE_BYTES
    features = (of_any + of_width * width) * batch * side**2
    return features + 4 * SCORE_TENSORS * score_count(side, hole_side, batch, bound)


def measure_point(file: str, side: int, hole_side: int, batch: int, threads: int) -> dict:
    """Fills one batch, and again while that is quick, in this process."""
    session = models.open_session(file, threads, pattern=False)
    loading = measure.resident_peak()
    # Before the peak is restarted: the photograph imports scikit-image, which is no part of a run.
    image = models.photograph(side, batch)
    call = models.ours(session, image, models.square_hole(side, hole_side, batch))
    loaded = measure.restart_peak()
    seconds: list[float] = []
    while len(seconds) < 6 and sum(seconds) < 3:
        seconds.append(measure.seconds_of(call))
    return {
        "loading": loading,
        "loaded": loaded,
        "added": measure.resident_peak() - loaded,
        "seconds": statistics.median(seconds[1:] or seconds),
        "runs": len(seconds),
    }


def points() -> list[dict[str, Any]]:
    """Axis, its value, side of image and hole, batch, form and bound; the slowest points last."""
    shapes = [
        ("hole", 100 * share, SIDE, round(SIDE * math.sqrt(share)), 1) for share in HOLE_SHARES
    ]
    shapes += [("batch", batch, SIDE, SIDE // 2, batch) for batch in BATCHES]
    shapes += [("side", side, side, side // 2, 1) for side in SIDES]
    keys = ("axis", "at", "side", "hole_side", "batch")
    found = []
    for shape in shapes:
        axis, side = shape[0], shape[2]
        bound = LARGE_BOUND if axis == "side" and side >= LARGE_SIDE else BOUNDS[axis]
        point = dict(zip(keys, shape, strict=True))
        found.append({**point, "form": "unbounded", "bound": None})
        found.append({**point, "form": "bounded", "bound": bound})
    return found


def model_of(row: dict[str, Any]) -> int:
    """The memory model's prediction for a point."""
    return added_bytes(row["side"], row["hole_side"], row["batch"], WIDTH, row["bound"])


def measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """All points, or those for which the time is enough."""
    deadline = time.monotonic() + 60.0 * options.minutes
    files = {None: models.exported(options.models, PRESET)}
    for bound in sorted({*BOUNDS.values(), LARGE_BOUND}):
        files[bound] = models.exported(options.models, PRESET, attention_max_scores=bound)
    rows, missing = [], []
    for point in points():
        model, left = model_of(point), deadline - time.monotonic()
        name = f"{point['axis']} {point['at']:g}, {point['form']}"
        rows.append(point)
        if model > options.limit * 1e9:
            continue
        shape = (point["side"], point["hole_side"], point["batch"])
        call = (measure_point, str(files[point["bound"]]), *shape, options.threads)
        with contextlib.suppress(TimeoutError):
            rows[-1] = point | measure.in_own_process(*call, timeout=max(left, 0.1))
            seconds, added = rows[-1]["seconds"], rows[-1]["added"]
            ratio = f"{added / model:.2f} of the model"
            print(f"{name}: {seconds:.3f} s, {added / 1e6:.0f} MB, {ratio}", flush=True)
        if rows[-1] is point:
            missing.append(name)
    names = [file.name for file in files.values()]
    figures = {"preset": PRESET, "threads": options.threads, "models": names}
    return measure.record(options.command, {**figures, "points": rows, "missing": missing})


def ratios(figures: dict[str, Any]) -> dict[str, float]:
    """Name -> ratio, of the points that were measured."""
    at = {(row["form"], row["axis"], row["at"]): row for row in figures["points"] if "added" in row}
    if not at:
        return {}
    of_model = [row["added"] / model_of(row) for row in at.values()]
    said = {
        "memory of a run, measured / model, at most": max(of_model),
        "memory of a run, measured / model, at least": min(of_model),
    }
    both = [s for s in SIDES if {("bounded", "side", s), ("unbounded", "side", s)} <= at.keys()]
    for side in both[-1:]:
        bounded, unbounded = (at[form, "side", side] for form in ("bounded", "unbounded"))
        label = f"{side} x {side}, bounded by {bounded['bound'] / 1e6:g} million scores / not"
        said[f"{label}: memory of a run"] = bounded["added"] / unbounded["added"]
        said[f"{label}: time"] = bounded["seconds"] / unbounded["seconds"]
    one, sixteen = (at.get(("unbounded", "batch", batch)) for batch in (1, 16))
    if one and sixteen:
        ratio = sixteen["seconds"] / (16 * one["seconds"])
        said["batch of 16 / 16 batches of 1, not bounded, time"] = ratio
    return said


def draw(figures: dict[str, Any]) -> bytes:
    """The plot as SVG: time above, memory below, one column an axis."""
    top, bottom = [], []
    for axis, (label, ticks) in AXES.items():
        of_axis = [row for row in figures["points"] if row["axis"] == axis]
        bounds = sorted({row["bound"] for row in of_axis if row["bound"]})
        millions = " or ".join(f"{bound / 1e6:g}" for bound in bounds)
        seconds, memory = [], []
        forms = {"unbounded": "no bound", "bounded": "bounded scores"}
        for (form, name), color in zip(forms.items(), plots.COLORS, strict=True):
            rows = [row for row in of_axis if row["form"] == form]
            run = [row for row in rows if "added" in row]
            x = [row["at"] for row in run]
            seconds.append(plots.Line(x, [row["seconds"] for row in run], name, color))
            memory.append(plots.Line(x, [row["added"] / 1e9 for row in run], name, color))
            model = [model_of(row) / 1e9 for row in rows]
            places = [row["at"] for row in rows]
            memory.append(plots.Line(places, model, "memory model", color, dashed=True))
        title = f"bound: {millions} million scores a tensor"
        top.append(plots.Panel(seconds, label, "seconds", title, ticks))
        bottom.append(plots.Panel(memory, label, "memory of a run, GB", ticks=ticks))
    return plots.draw("growth", [top, bottom])


@measure.command(
    measure.argument("--draw", action="store_true", help="draw earlier results"),
    measure.argument("--limit", type=float, default=6, metavar="GB", help="memory of a point"),
    measure.argument("--minutes", type=float, default=9, metavar="M", help="for all points"),
    *models.ARGUMENTS,
)
def main(options: argparse.Namespace) -> None:
    if options.draw:
        figures = json.loads((measure.RESULTS / "growth.json").read_text(encoding="utf-8"))
    else:
        figures = measure_all(options)
    # The memory model may have changed since the measurement.
    figures["ratios"] = {name: round(value, 3) for name, value in ratios(figures).items()}
    measure.keep("growth", figures)
    write_whole(PLOT, draw(figures))
    for name, value in figures["ratios"].items():
        print(f"{value:7.2f}  {name}")
    if figures["missing"]:
        print(f"not measured in time: {'; '.join(figures['missing'])}")


if __name__ == "__main__":
    sys.exit(main())
