"""Measures what filling costs users, relative to MI-GAN's published pipeline, in one table.

    python -m benchmarks.cost --migan migan_pipeline_v2.onnx [--rows center wire ...]

Every comparison takes turns in one process, and a ratio is the median of the rounds' ratios. The
model `photo` fills as `musical-inpaint` does, decoded pixels in and out; MI-GAN's pipeline crops
and resizes too and gets the same pixels. Its conversion to channels first is not timed. The rows:

* `center`: 256 x 256 pixels; `blob`, `person`, `wire`, `stroke`, `date`, `specks`: 12 megapixels;
* `server`: requests a second of 1, 8 and 32 clients, relative to plain loops in one process, from
  file to file, over MI-GAN's pipeline and over our session;
* `browser`: WebAssembly with one and with two threads, both files in onnxruntime-web;
* `folder`: `musical-inpaint-many` with 1 and 2 workers of one thread, relative to a plain loop over
  MI-GAN's pipeline in as many processes; whole commands. The photographs are random crops of
  scikit-image's;
* `start`: cold starts, relative to a script that fills one photograph with MI-GAN's pipeline;
* `growth`: seconds and memory by megapixels and by the share of the hole, for the plots.

Peak memory is that of a command that fills one photograph from file to file, and of its children;
for servers and folders that of all processes, for the browser that of the page's process.
`results/cost.json` is written after each row. Rows of other weights, hardware or software are
dropped. The exit code is 1 if a row failed or a ratio is below its bar. Needs Linux.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import browser, measure, models, servers
from benchmarks.measure import Memory, run_command
from musical_tf import named_models as library
from serving import named_models
from serving.session import InpaintingSession

NAME = "cost"
OURS, MIGAN = "ours", "MI-GAN"
CLIENTS = (1, 8, 32)
WORKERS = (1, 2)
FOLDER_SIZE = (800, 600)
MEGAPIXELS = (0.0625, 0.25, 1, 3, 6, 12, 24)
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SHARE = 0.01
"""Of the hole, where the megapixels grow."""

MODEL_BAR, BAR = 2.0, 1.0
"""Ratios to reach where the model is the cost, and elsewhere."""

Row = dict[str, Any]

MIGAN_SCRIPT = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np, onnxruntime
from PIL import Image
threads, model, mask, output, *photos = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
known = 255 - np.asarray(Image.open(mask).convert("L"))
for photo in photos:
    image = np.asarray(Image.open(photo).convert("RGB"))
    feed = {"image": image.transpose(2, 0, 1)[None], "mask": known[None, None]}
    filled = session.run(None, feed)[0][0].transpose(1, 2, 0)
    is_folder = os.path.isdir(output)
    file = os.path.join(output, os.path.basename(photo)) if is_folder else output
    Image.fromarray(filled).save(file, quality=90)
"""
"""A plain loop over MI-GAN's pipeline from file to file."""


def holes(width: int) -> dict[str, np.ndarray]:
    """Row -> `(3/4 W, W)` bool. Lengths are those of a photograph 4,000 pixels wide."""
    height = width * 3 // 4
    unit = width / 4000
    rows, columns = (axis / unit for axis in np.ogrid[:height, :width])
    sag = 900 + 0.1 * columns + 0.00005 * (columns - 2000) ** 2
    date = (rows >= 2800) & (rows < 2880) & (columns >= 3300) & (columns < 3900)
    specks = np.zeros((height, width), bool)
    random, radius = np.random.default_rng(0), max(1, round(4 * unit))
    disc = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    for _ in range(500):
        top, left = (random.integers(side - 2 * radius) for side in (height, width))
        specks[top : top + len(disc), left : left + len(disc)] |= disc[: height - top]
    return {
        "blob": np.hypot((rows - 1400) / 350, (columns - 1800) / 450)
        < 1 + 0.2 * np.sin(5 * np.arctan2(rows - 1400, columns - 1800)),
        "person": (abs(rows - 1800) < 700) & (abs(columns - 2000) < 250),
        "wire": abs(rows - sag) < 4,
        "stroke": (abs(rows - 2400 + 0.45 * columns) < 40) & (abs(columns - 2000) < 1700),
        "date": date & ((columns - 3300) % 60 < 40),
        "specks": specks,
    }


HOLES = {
    "blob": "blob, 900 x 700 px",
    "person": "person, 500 x 1400 px",
    "wire": "wire, 8 px",
    "stroke": "stroke, 80 px",
    "date": "date stamp",
    "specks": "500 specks",
}


def box(width: int, share: float, height: int | None = None) -> np.ndarray:
    """`(H, W)` bool, a box of this share in the middle, by default 3/4 as high as wide."""
    height = height or width * 3 // 4
    hole = np.zeros((height, width), bool)
    rows, columns = (max(1, round(side * math.sqrt(share))) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    hole[top : top + rows, left : left + columns] = True
    return hole


def case(row: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A row's photograph `(H, W, 3)` uint8 and hole `(H, W)` bool."""
    hole = box(256, 0.25, 256) if row == "center" else holes(width)[row]
    return photograph(*hole.shape), hole


def photograph(height: int, width: int) -> np.ndarray:
    """`(H, W, 3)` uint8: scikit-image's `astronaut`, enlarged."""
    image = Image.fromarray(models.photograph(512)[0])
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def prepare(
    which: str, migan: str, threads: int = models.THREADS
) -> Callable[[np.ndarray, np.ndarray], Callable[[], np.ndarray]]:
    """Opens a model; returns a function that makes the call that fills a photograph's hole."""
    if which == OURS:
        session = InpaintingSession("photo", ["cpu"], threads=threads)
        return lambda image, hole: partial(session.inpaint, image, hole)
    other = models.open_session(migan, threads)

    def call(image: np.ndarray, hole: np.ndarray) -> Callable[[], np.ndarray]:
        fill = models.migans(other, image[None], hole[None].astype(np.uint8) * np.uint8(255))
        return lambda: fill()[0]

    return call


def compare(pairs: list[dict[str, float]]) -> dict[str, Any]:
    """The ratio of seconds by name for each round: its median and the least."""
    ratios = [pair[MIGAN] / pair[OURS] for pair in pairs]
    seconds = {name: round(statistics.median(p[name] for p in pairs), 4) for name in pairs[0]}
    figures = {"ratio": round(statistics.median(ratios), 2), "least": round(min(ratios), 2)}
    return {**figures, "seconds": seconds, "rounds": len(pairs)}


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


# ---- photographs


def race(row: str, migan: str, width: int, rounds: int) -> dict[str, Any]:
    """Times both models on one photograph in turns, in this process."""
    image, hole = case(row, width)
    calls = {which: prepare(which, migan)(image, hole) for which in (OURS, MIGAN)}
    if not np.array_equal(calls[OURS]()[~hole], image[~hole]):
        raise RuntimeError(f"{row}: known pixels have changed")
    calls[MIGAN]()
    timed = {name: partial(measure.seconds_of, call) for name, call in calls.items()}
    return compare(measure.in_rounds(timed, rounds))


def write_case(row: str, width: int, folder: str, suffix: str = ".jpg") -> list[str]:
    """Writes a row's photograph and its mask; returns the words of a command that fills it."""
    files = [f"{folder}/{name}" for name in (f"photo{suffix}", "mask.png", f"output{suffix}")]
    for array, file in zip(case(row, width), files, strict=False):
        Image.fromarray(array).save(file, quality=95)
    return files


def peaks_of(row: str, migan: str, width: int) -> dict[str, int]:
    """The peak memory in bytes of commands that fill one photograph, from file to file."""
    with tempfile.TemporaryDirectory() as folder:
        photo, mask, output = write_case(row, width, folder)
        words = {
            OURS: ("serving.predict", photo, mask, output),
            MIGAN: ("-c", MIGAN_SCRIPT, "0", migan, mask, output, photo),
        }
        return {which: run_command(*each)[1] for which, each in words.items()}


def measure_photograph(row: str, options: argparse.Namespace) -> list[Row]:
    migan, width = str(options.migan), options.width
    found = measure.in_own_process(race, row, migan, width, options.rounds)
    peaks = peaks_of(row, migan, width)
    megapixels = f"{width * (width * 3 // 4) / 1e6:.2g} megapixels"
    name = "256 x 256 px, center" if row == "center" else f"{megapixels}, {HOLES[row]}"
    return [{"name": name, "bar": MODEL_BAR, **found, "bytes": peaks}]


# ---- server and browser


def measure_server(row: str, options: argparse.Namespace) -> list[Row]:
    image, hole = (Image.fromarray(each) for each in case("center", options.width))
    files = {"image": models.encoded(image, "JPEG"), "mask": models.encoded(hole, "PNG")}
    fills = {which: prepare(which, str(options.migan)) for which in (OURS, MIGAN)}
    work: dict[Any, servers.Work] = {
        which: servers.loop(lambda image, hole, fill=fill: fill(image, hole)(), files)
        for which, fill in fills.items()
    }
    with servers.running_server("photo", "--queue", "64") as (process, port):
        work |= {count: servers.clients(port, count, files) for count in CLIENTS}
        for each in work.values():
            servers.rate(each, 0.1)  # the first run allocates
        turns = {key: partial(servers.rate, each, options.seconds) for key, each in work.items()}
        with Memory(process, 0.5, proportional=True) as memory:
            rates = measure.in_rounds(turns, options.rounds)
    migan_bytes = peaks_of("center", str(options.migan), options.width)[MIGAN]
    rows = []
    for count in CLIENTS:
        for loop, label in ((MIGAN, "MI-GAN"), (OURS, "our session")):
            pairs = [{OURS: 1 / each[count], MIGAN: 1 / each[loop]} for each in rates]
            name = f"server, {counted(count, 'client')}, against a loop over {label}"
            rows.append({"name": name, "bar": None, **compare(pairs), "bytes": {}})
            if loop == MIGAN:
                rows[-1] |= {"bar": BAR, "bytes": {OURS: memory.peak(), MIGAN: migan_bytes}}
    return rows


def measure_browser(row: str, options: argparse.Namespace) -> list[Row]:
    files = {OURS: named_models.find("photo"), MIGAN: options.migan}
    rows = []
    for threads in (1, models.THREADS):
        image = models.photograph(256)[0]
        pairs, peaks = browser.measure_models(files, OURS, threads, image, options.rounds)
        name = f"browser, 256 x 256 px, {counted(threads, 'thread')}"
        rows.append({"name": name, "bar": MODEL_BAR, **compare(pairs), "bytes": peaks})
    return rows


# ---- folder


def loop_over_folder(migan: str, folder: Path, workers: int) -> tuple[float, int]:
    """Seconds of a loop over MI-GAN's pipeline in so many processes, and their memory in all."""
    output = folder / f"migan-{workers}"
    output.mkdir()
    photos = sorted(map(str, (folder / "photos").iterdir()))
    words = ("-c", MIGAN_SCRIPT, "1", migan, str(folder / "mask.png"), str(output))

    def fill(part: int) -> int:
        return run_command(*words, *photos[part::workers], every=0.1)[1]

    peaks: list[int] = []
    with ThreadPoolExecutor(workers) as pool:
        seconds = measure.seconds_of(lambda: peaks.extend(pool.map(fill, range(workers))))
    return seconds, sum(peaks)


def measure_folder(row: str, options: argparse.Namespace) -> list[Row]:
    count, rows = options.photographs, []
    with tempfile.TemporaryDirectory() as name:
        folder, (width, height) = Path(name), FOLDER_SIZE
        models.write_photographs(folder / "photos", FOLDER_SIZE, count)
        Image.fromarray(box(width, 0.02)).save(folder / "mask.png")
        for workers in WORKERS:
            words = ["--workers", str(workers), "--threads", "1", "--provider", "cpu"]
            words += ["--image", f"{name}/photos", "--mask", f"{name}/mask.png"]
            words += ["--output", f"{name}/ours-{workers}"]
            own, own_bytes = run_command("serving.predict_many", *words, every=0.1)
            theirs, their_bytes = loop_over_folder(str(options.migan), folder, workers)
            for done in (f"ours-{workers}", f"migan-{workers}"):
                found = len(list((folder / done).glob("*.jpg")))
                if found != count:
                    raise RuntimeError(f"{done} must have {count} photographs, got {found}")
            what = f"folder of {count:,} photographs of {width} x {height} px"
            figures = compare([{OURS: own, MIGAN: theirs}])
            row_bytes = {OURS: own_bytes, MIGAN: their_bytes}
            what = f"{what}, {counted(workers, 'worker')}"
            rows.append({"name": what, "bar": BAR, **figures, "bytes": row_bytes})
    return rows


# ---- cold starts

STARTS: dict[str, tuple[str, ...]] = {
    "musical-inpaint, one photograph": ("serving.predict", "PHOTO", "MASK", "OUTPUT"),
    "musical-inpaint-many, a folder of one": (
        *("serving.predict_many", "--image", "FOLDER", "--mask", "MASK", "--output", "OUTPUTS"),
        *("--workers", "1"),
    ),
    "musical-serve, until ready": ("serving.server",),
    "musical-fit --dry-run": ("training.fit", "--dataset", "demo", "--dry-run"),
    "musical-evaluate --help": ("training.evaluate", "--help"),
    "musical-compare --help": ("training.compare", "--help"),
    "musical-export --help": ("export.to_onnx", "--help"),
}
"""Command -> module and words. The first three are compared with MI-GAN's script."""


def start_server() -> tuple[float, int]:
    """Seconds until a server is ready, and its memory then."""
    started = time.perf_counter()
    with servers.running_server("photo") as (process, _):
        return time.perf_counter() - started, measure.resident_peak(process)


def measure_start(row: str, options: argparse.Namespace) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        photo, mask, output = write_case("center", 256, name, ".png")
        single = Path(name, "one")
        single.mkdir()
        Image.open(photo).save(single / "photo.png")
        places = {"PHOTO": photo, "MASK": mask, "OUTPUT": output, "FOLDER": str(single)}
        words = ("-c", MIGAN_SCRIPT, "0", str(options.migan), mask, output, photo)
        theirs = partial(run_command, *words, kept=f"{name}/kept")

        def own(*words: str) -> tuple[float, int]:
            if words[0] == "serving.server":
                return start_server()
            places["OUTPUTS"] = tempfile.mkdtemp(dir=name)
            return run_command(*(places.get(word, word) for word in words), kept=f"{name}/kept")

        for label, words in STARTS.items():
            calls = {OURS: partial(own, *words)}
            if words[0].startswith("serving"):
                calls[MIGAN] = theirs
            measure.in_rounds(calls, 1)  # compiles the modules
            found = measure.in_rounds(calls, min(options.rounds, 3))
            pairs = [{which: each[which][0] for which in calls} for each in found]
            rows.append({"name": f"cold start, {label}", "bar": None})
            if MIGAN in calls:
                rows[-1] |= {"bar": BAR, **compare(pairs)}
            else:
                median = statistics.median(pair[OURS] for pair in pairs)
                rows[-1]["seconds"] = {OURS: round(median, 4)}
            rows[-1]["bytes"] = {which: max(each[which][1] for each in found) for which in calls}
    return rows


# ---- growth


def measure_point(which: str, migan: str, width: int, share: float) -> dict[str, float]:
    """Seconds of a run, the median of three, and bytes that opening the model and filling add."""
    hole = box(width, share)
    image = photograph(*hole.shape)
    before = measure.restart_peak()
    call = prepare(which, migan)(image, hole)
    call()
    added = measure.resident_peak() - before
    seconds = statistics.median(measure.seconds_of(call) for _ in range(3))
    return {"seconds": seconds, "bytes": added}


def measure_growth(row: str, options: argparse.Namespace) -> list[Row]:
    """Points for the plots; megapixels beyond those of `--width` squared are left out."""
    largest = 2 * options.width**2 * 3 / 4 / 1e6
    points = [("megapixels", at, at, SHARE) for at in MEGAPIXELS if at <= largest]
    points += [("hole", 100 * share, largest / 2, share) for share in SHARES]
    rows = []
    for axis, at, megapixels, share in points:
        width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
        for which in (OURS, MIGAN):
            found = measure.in_own_process(measure_point, which, str(options.migan), width, share)
            rows.append({"axis": axis, "at": at, "of": which, "width": width, **found})
    return rows


# ---- the command

ROWS: dict[str, Callable[[str, argparse.Namespace], list[Row]]] = {
    "center": measure_photograph,
    **dict.fromkeys(HOLES, measure_photograph),
    "server": measure_server,
    "browser": measure_browser,
    "start": measure_start,
    "growth": measure_growth,
    "folder": measure_folder,
}
"""Row of the command line -> measurement."""


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """Rows that were measured before, with the same weights, hardware and software."""
    try:
        earlier = json.loads((measure.RESULTS / f"{NAME}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    same = ("weights_sha256", "hardware", "software")
    return earlier["cost"] if all(earlier.get(key) == record[key] for key in same) else {}


@measure.command(
    measure.argument("--migan", type=Path, metavar="FILE", help="by default npm fetches it"),
    measure.argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), metavar="ROW",
                     help=f"of {', '.join(ROWS)}"),
    measure.argument("--photographs", type=measure.at_least(1), default=1000, metavar="N",
                     help="in the folder"),
    measure.argument("--seconds", type=float, default=2.0, help="of a server's turn"),
    measure.argument("--width", type=measure.at_least(64), default=4000, metavar="PIXELS",
                     help="of large photographs, 3/4 as high"),
    rounds=5,
)  # fmt: skip
def main(options: argparse.Namespace) -> int:
    options.migan = (options.migan or models.migan()).absolute()
    weights = library.card("photo")["files"]["keras"]["sha256"]
    record = measure.record(options.command, {"weights_sha256": weights})
    cost, bad = kept(record), []
    for row in options.rows:
        try:
            found = ROWS[row](row, options)
        except (OSError, ValueError, RuntimeError) as error:
            bad.append(f"{row}: {error}")
            print(bad[-1], file=sys.stderr, flush=True)
            continue
        for each in found:
            if "name" in each:
                print(f"{each['name']}: {each.get('ratio', '')}, {each['seconds']}", flush=True)
            if (each.get("bar") or 0) > each.get("ratio", math.inf):
                bad.append(f"{each['name']}: ratio {each['ratio']}, bar {each['bar']:g}")
        ran = {key: record[key] for key in ("command", "created", "commit")}
        cost[row] = {**ran, "figures": found}
        ordered = {name: cost[name] for name in ROWS if name in cost}
        measure.keep(NAME, {**record, "cost": ordered})
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
