"""Fills holes in image files from the command line.

    python -m serving.predict --image PHOTO --mask MASK --output RESULT
    python -m serving.predict --model faces --image PHOTO --mask MASK --output RESULT

`--image`, `--mask` and `--output` each take a file or a folder. With a folder of images the masks
are found by name without suffix (`cat.jpg` and `cat.png`), in the same subfolder; one mask file is
used for every image; `--mask alpha` fills what is transparent.

Exit code 0: everything was filled or skipped. 1: something failed while working; in a folder the
rest has been done, and the failures are listed at the end. 2: wrong usage or unusable input.
"""

import argparse
import contextlib
import functools
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from musical_tf import images
from musical_tf.files import write_whole

from . import named_models
from .session import MEMORY_LIMIT, InferenceError, InpaintingSession
from .tiling import STRATEGIES, Progress

PROGRAM = "musical-inpaint"
ALPHA = "alpha"
FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif", "bmp": ".bmp"}
"""What `--format` takes -> the suffix it gives."""

SUSPICIOUS = 0.5
"""Share of an image. A mask that covers more is likely to be the other way round."""

_REDRAW = 0.1  # seconds between two states of the progress bar


class OutputError(RuntimeError):
    """The result is there but cannot be written."""


FAILURES = (OSError, ValueError, InferenceError, OutputError, MemoryError)
"""What `fill_file` raises: that one image has failed, others may well not."""


@dataclass(frozen=True)
class Job:
    """One image to fill. `mask` is a file, `ALPHA`, or None with the reason in `problem`."""

    image: Path
    mask: Path | str | None
    output: Path
    problem: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see above.
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            # What Pillow warns of, large images and damaged EXIF, is dealt with in `images`.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return _run(arguments)
    except (OSError, ValueError) as error:
        complain(say(error))
        return 2
    except KeyboardInterrupt:
        clear_line()
        complain("interrupted; what is written is whole, --skip-existing goes on from there")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    check_numbers(arguments)
    jobs, notes = list_jobs(
        Path(arguments.image),
        ALPHA if arguments.mask == ALPHA else Path(arguments.mask),
        Path(arguments.output),
        into_folder=arguments.output.endswith(("/", os.sep)),
        suffix=FORMATS.get(arguments.format),
        overwrite_input=arguments.overwrite_input,
        protected=named_models.find(arguments.model),
    )
    single = not Path(arguments.image).is_dir()
    if single and jobs[0].problem:
        raise images.ImageError(f"{jobs[0].image}: {jobs[0].problem}")
    session = open_session(arguments)
    counts = {"filled": 0, "had nothing to fill": 0, "skipped": 0}
    failures: list[str] = []
    suspects: list[str] = []
    bar = ProgressBar(len(jobs))
    readings: list[str] = []
    for index, job in enumerate(jobs):
        bar.start(index, job.image.name)
        try:
            what, share = fill_file(session, job, arguments, bar.advance, readings.append)
            counts[what] += 1
            if share > SUSPICIOUS:
                suspects.append(f"{share:.0%} of {job.image}")
        except FAILURES as error:
            message = say_of(job, error)
            if single:
                clear_line()
                complain(message)
                # What cannot be read or matched is wrong input; the rest went wrong while working.
                unusable = isinstance(error, ValueError | FileNotFoundError)
                return 2 if unusable else 1
            failures.append(message)
    clear_line()
    summary = [f"{number} {what}" for what, number in counts.items() if number]
    if failures:
        summary.append(f"{len(failures)} failed")
    print(f"{', '.join(summary)} in {bar.seconds:.1f} s on {session.provider}")
    if single:
        for reading in readings:
            print(printable(f"mask {reading}"))
    if suspects:
        notes.append(
            f"images of which more than half was filled: {len(suspects)}, for instance "
            f"{suspects[0]}; if that is what should stay, say --polarity "
            f"{other(arguments.polarity)}"
        )
    for note in notes:
        complain(note, "note")
    for failure in failures:
        complain(failure)
    return 1 if failures else 0


def list_jobs(
    image: Path,
    mask: Path | str,
    output: Path,
    *,
    into_folder: bool = False,
    suffix: str | None = None,
    overwrite_input: bool = False,
    protected: Path | None = None,
) -> tuple[list[Job], list[str]]:
    """Pairs images with masks and outputs before anything is written.

    Args:
        image: A file, or a folder, which is walked with its subfolders. Hidden files are left out,
            and so are the mask, or the folder of masks, and the output where they lie inside.
        mask: A file for every image, a folder, or `ALPHA`.
        output: A file, or a folder. A folder is what it is for a folder of images.
        into_folder: Take `output` for a folder although it does not exist yet.
        suffix: Of the outputs in a folder; that of their inputs by default.
        overwrite_input: Allow an output that is its own input.
        protected: A further file that may not be written over, the model.

    Returns:
        `(jobs, notes)`: jobs in order of path; notes for the user, such as masks without an image.

    Raises:
        FileNotFoundError: If an input does not exist.
        ImageError: If there is nothing to do, if outputs would collide or write over an input, or
            if a format is not writable.
    """
    for path, what in ((image, "image"), (mask, "mask")):
        if isinstance(path, Path) and not path.exists():
            raise FileNotFoundError(f"{path}: no such {what} file or folder")
    if image.is_dir():
        jobs, notes = _list_folder(image, mask, output, suffix)
    else:
        target = output
        if output.is_dir() or into_folder:
            target = _writable_name(output / image.name, suffix)
        elif suffix is not None and images.format_of(output) != images.WRITABLE[suffix]:
            raise images.ImageError(f"{output}: its suffix and --format name different formats")
        images.format_of(target)
        found, problem = mask, ""
        if isinstance(mask, Path) and mask.is_dir():
            found, problem = _only([path for path in _walk(mask) if path.stem == image.stem], mask)
        jobs, notes = [Job(image, found, target, problem)], []
    _guard(jobs, overwrite_input, protected)
    return jobs, notes


def _list_folder(
    folder: Path, mask: Path | str, output: Path, suffix: str | None
) -> tuple[list[Job], list[str]]:
    if output.exists() and not output.is_dir():
        raise images.ImageError(f"{output}: --image is a folder, so --output must be one too")
    mask_folder = mask if isinstance(mask, Path) and mask.is_dir() else None
    masks_at = mask if isinstance(mask, Path) else None
    inside = [path for path in (output, masks_at) if path and not _is_same(path, folder)]
    left_out: list[Path] = []
    unreadable: list[OSError] = []
    paths = list(_walk(folder, inside, left_out, unreadable))
    if not paths and unreadable:
        raise unreadable[0]
    if not paths:
        raise images.ImageError(
            f"{folder}: no image files in this folder (known: {' '.join(images.READABLE)})"
        )
    masks: dict[Path, list[Path]] = {}
    for path in _walk(mask_folder) if mask_folder else ():
        masks.setdefault(path.relative_to(mask_folder).with_suffix(""), []).append(path)
    jobs, used = [], set()
    for path in paths:
        relative = path.relative_to(folder)
        found, problem = mask, ""
        if mask_folder:
            stem = relative.with_suffix("")
            used.add(stem)
            found, problem = _only(masks.get(stem, []), mask_folder)
        jobs.append(Job(path, found, _writable_name(output / relative, suffix), problem))
    for error in unreadable:
        path = Path(error.filename)
        jobs.append(Job(path, None, output / path.relative_to(folder), f"{error.strerror}"))
    unused = sorted(str(path) for stem in masks.keys() - used for path in masks[stem])
    notes = []
    if unused:
        notes.append(f"masks without an image: {len(unused)}, for instance {unused[0]}")
    if left_out:
        kinds = sorted({path.suffix.lower() or path.name for path in left_out})
        notes.append(
            f"files left out, of no known format: {len(left_out)} "
            f"({' '.join(kinds[:8])}{' ...' if len(kinds) > 8 else ''})"
        )
    return jobs, notes


def _walk(
    folder: Path,
    excluded: Sequence[Path] = (),
    left_out: list[Path] | None = None,
    unreadable: list[OSError] | None = None,
) -> Iterator[Path]:
    """Image files below a folder in order of path, without hidden and excluded files and folders.

    Other files are added to `left_out`, and the errors of folders that cannot be listed to
    `unreadable`.
    """
    resolve = _resolver()
    skipped = {path.resolve() for path in excluded}
    report = None if unreadable is None else unreadable.append
    for parent, folders, names in os.walk(folder, onerror=report):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and resolve(Path(parent) / name) not in skipped
        )
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith(".") or resolve(path) in skipped:
                continue
            if path.suffix.lower() in images.READABLE:
                yield path
            elif left_out is not None:
                left_out.append(path)


def _only(found: list[Path], folder: Path) -> tuple[Path | None, str]:
    """The mask of an image, or None and why there is none."""
    if len(found) == 1:
        return found[0], ""
    if found:
        names = ", ".join(path.name for path in found)
        return None, f"several masks match it in {folder}: {names}"
    return None, f"no mask of the same name in {folder}"


def _writable_name(path: Path, suffix: str | None = None) -> Path:
    """The name an input's output gets, in the format of `suffix` if there is one."""
    own = images.WRITABLE.get(path.suffix.lower())
    if own is None or (suffix is not None and own != images.WRITABLE[suffix]):
        return path.with_suffix(suffix or ".png")
    return path


def _resolver() -> Callable[[Path], Path]:
    """`Path.resolve` for many files of few folders, each of which is looked up once."""
    folder = functools.cache(Path.resolve)

    @functools.cache
    def resolve(path: Path) -> Path:
        if path.name in ("", "..") or os.path.islink(path):
            return path.resolve()
        return folder(path.parent) / path.name

    return resolve


def _is_same(first: Path, second: Path, resolve: Callable[[Path], Path] = Path.resolve) -> bool:
    return resolve(first) == resolve(second) or (
        first.exists() and second.exists() and first.samefile(second)
    )


def _guard(jobs: list[Job], overwrite_input: bool, protected: Path | None) -> None:
    """Refuses outputs that would write over each other or over an input."""
    resolve = _resolver()
    by_output: dict[Path, int] = {}
    inputs = {resolve(job.image) for job in jobs}
    masks = {resolve(job.mask) for job in jobs if isinstance(job.mask, Path)}
    for index, job in enumerate(jobs):
        output = resolve(job.output)
        if output in by_output:
            # Neither is written, and the others are.
            first = by_output[output]
            for one, other in ((index, first), (first, index)):
                problem = f"{jobs[other].image} would be written to {job.output} as well"
                jobs[one] = replace(jobs[one], problem=problem)
        by_output.setdefault(output, index)
        if output in masks or (protected is not None and _is_same(job.output, protected, resolve)):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if isinstance(job.mask, Path) and _is_same(job.output, job.mask, resolve):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if _is_same(job.output, job.image, resolve):
            if not overwrite_input:
                raise images.ImageError(
                    f"{job.output}: the output would replace its input; "
                    "choose another, or ask for it with --overwrite-input"
                )
        elif output in inputs:
            raise images.ImageError(f"{job.output}: the output would replace another input")


def open_session(arguments: argparse.Namespace) -> InpaintingSession:
    """The session that a command line's options ask for."""
    return InpaintingSession(
        arguments.model,
        providers=None if arguments.provider == "auto" else [arguments.provider],
        threads=arguments.threads,
        memory_limit=arguments.memory_limit * 2**30,
    )


def fill_file(
    session: InpaintingSession,
    job: Job,
    arguments: argparse.Namespace,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[str, float]:
    """Fills one image and writes the result, whole or not at all.

    Args:
        session: The model.
        job: What to fill, and where to.
        arguments: Parsed options, those of `add_arguments` and `skip_existing`.
        progress: Called with `(windows done, windows in all)`.
        tell: Called with how the mask was read, in one line.

    Returns:
        What became of it, in the words of the summary, and the hole's share of it.

    Raises:
        OSError, ValueError, MemoryError: If image or mask cannot be read or do not fit each other.
        InferenceError: If the model fails.
        OutputError: If the result cannot be written.
    """
    if job.problem:
        raise images.ImageError(job.problem)
    if arguments.skip_existing and job.output.is_file():
        return "skipped", 0.0
    choice = {"polarity": arguments.polarity, "threshold": arguments.threshold}
    with silent_libraries():
        photograph = images.read_photograph(job.image, max_pixels=arguments.max_pixels)
        if isinstance(job.mask, Path):
            mask = images.load_mask(job.mask, max_pixels=arguments.max_pixels, **choice)
            hole, reading = mask.hole, mask.reading
            del mask
    if isinstance(job.mask, Path):
        if arguments.resize_mask:
            hole = images.fit_mask(hole, *photograph.pixels.shape[:2])
        images.check_sizes(photograph, hole, str(job.mask))
        alpha = None
    else:
        hole = images.alpha_mask(photograph, **choice)
        alpha = np.where(hole, np.uint8(255), photograph.alpha)
        reading = "opacity of the image"
    if tell is not None:
        tell(f"{job.mask}: {reading}; {hole.mean():.1%} of the image is hole")
    hole = images.dilate(hole, arguments.dilate)
    image_format = images.format_of(job.output)
    if tell is not None:
        for note in (*photograph.notes, *images.lost_in(photograph, image_format)):
            tell(f"{job.image}: {note}")
    share = float(hole.mean())
    if share:
        if hole.all():
            raise images.ImageError(
                f"{job.mask}: it covers the whole image, so nothing is left to copy from; "
                f"is it the other polarity? (--polarity {other(arguments.polarity)})"
            )
        pixels = session.inpaint(
            photograph.pixels,
            hole,
            arguments.strategy,
            arguments.working_size,
            progress=progress,
        )
        photograph = replace(photograph, pixels=pixels)  # and the unfilled ones make room
        content = images.encode_photograph(photograph, pixels, image_format, alpha, hole=hole)
    elif image_format == photograph.format:
        content = job.image.read_bytes()  # nothing to fill: not even encoded again
    else:
        content = images.encode_photograph(photograph, photograph.pixels, image_format)
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(job.output, content)
    except OSError as error:
        raise OutputError(f"cannot write {say(error)}") from error
    return ("filled" if share else "had nothing to fill"), share


@contextlib.contextmanager
def silent_libraries() -> Iterator[None]:
    """Keeps what C libraries write about a damaged file from standing beside our own words."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError):  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def other(polarity: str) -> str:
    """The polarity to try when `polarity` selects the wrong part."""
    return "black" if polarity == "white" else "white"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Fills holes in photographs with a model that is part of the package, or with "
        "one exported by export/to_onnx.py.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave outputs alone that are there already"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="allow an output to replace its own input"
    )
    return parser


def add_arguments(parser: argparse.ArgumentParser, folders_only: bool = False) -> None:
    """Adds the options that say what is filled and how, for every command line that fills files.

    Args:
        parser: The command line's.
        folders_only: Whether it takes no single images; what `--image` and `--output` say then.
    """
    images_help = "folder of images" if folders_only else "image file, or a folder of them"
    output_help = "folder to write to" if folders_only else "file or folder to write"
    named_models.add_argument(parser)
    parser.add_argument("--image", required=True, metavar="PATH", help=images_help)
    parser.add_argument(
        "--mask",
        required=True,
        metavar="PATH",
        help="mask file, a folder with one of the same name for each image, or 'alpha' to fill "
        "what is transparent",
    )
    parser.add_argument("--output", required=True, metavar="PATH", help=output_help)
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="of the outputs in a folder (default: that of their inputs); all but jpeg keep known "
        "pixels bit for bit",
    )
    parser.add_argument(
        "--polarity",
        choices=images.POLARITIES,
        default="white",
        help="part of the mask that is the hole; clear is its transparent part "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        metavar="0..254",
        help="mask levels above it are white (default: 127, and the marks of a mask that has no "
        "brighter level)",
    )
    parser.add_argument(
        "--dilate",
        type=int,
        default=0,
        metavar="PIXELS",
        help="grow the hole by so much on every side (default: %(default)s)",
    )
    parser.add_argument(
        "--resize-mask",
        action="store_true",
        help="scale a mask of another size to its image, if the sides have the same ratio",
    )
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="how the model sees the image: crop, windows around each hole; resize, squares framed "
        "as in training; original, the whole image as it is (default: the model's own, crop if "
        "its file names none)",
    )
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PIXELS",
        help="side at which the model sees a window (default: the size it was trained at)",
    )
    parser.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="ONNX Runtime execution provider, such as cpu or cuda (default: the fastest there is)",
    )
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=MEMORY_LIMIT // 2**30,
        metavar="GIB",
        help="refuse a run of the model that would need more (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=images.MAX_PIXELS,
        metavar="N",
        help="refuse larger images (default: %(default)s)",
    )


def check_numbers(arguments: argparse.Namespace) -> None:
    """Refuses numbers beyond what makes sense.

    Raises:
        ValueError: Names the flag, its range and what came.
    """
    for name, low, high in (
        ("threshold", 0, 254),
        ("dilate", 0, 1000),
        ("working_size", 16, 4096),
        ("threads", 0, 1024),
        ("memory_limit", 1, 4096),
        ("max_pixels", 1, 2 * images.MAX_PIXELS),
    ):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} must be within {low} and {high}, got {value}")


def say(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def say_of(job: Job, error: BaseException) -> str:
    """Why a job failed, in one line that names its image."""
    message = say(error)
    return message if message.startswith(str(job.image)) else f"{job.image}: {message}"


def printable(text: str) -> str:
    """Text with what would steer a terminal, or cannot be printed, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def complain(message: str, kind: str = "error", program: str = PROGRAM) -> None:
    """Says on stderr, in one line, what is wrong or worth a note."""
    print(f"{program}: {kind}: {printable(message)}", file=sys.stderr)


class ProgressBar:
    """One line that is written over, on a terminal only: images done, windows of the present."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._index, self._name = 0, ""
        self._started, self._drawn = time.monotonic(), 0.0
        self._is_visible = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._started

    def start(self, index: int, name: str) -> None:
        """Says that image number `index`, from 0, is being worked on."""
        self._index, self._name = index, printable(name)
        self._draw(0, 1)

    def advance(self, done: int, windows: int) -> None:
        """Says how many windows of it are done."""
        if windows and self.seconds - self._drawn > _REDRAW:
            self._draw(done, windows)

    def _draw(self, done: int, windows: int) -> None:
        if not self._is_visible:
            return
        self._drawn = self.seconds
        share = (self._index + done / windows) / self._total
        bar = "#" * int(20 * share)
        line = f"[{bar:<20}] {self._index}/{self._total}"
        if share:
            line += f", {duration(self.seconds / share * (1 - share))} left"
        line += f"  {self._name}"
        if windows > 1:
            line += f", window {done}/{windows}"
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{line[: columns - 1]}", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"


def clear_line() -> None:
    """Removes the progress bar from a terminal."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
