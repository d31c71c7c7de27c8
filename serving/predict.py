"""Fills holes in image files from the command line.

    python -m serving.predict --model model.onnx --image PHOTO --mask MASK --output RESULT

`--image`, `--mask` and `--output` each take a file or a folder. With a folder of images the masks
are found by name without suffix (`cat.jpg` and `cat.png`), in the same subfolder; one mask file is
used for every image; `--mask alpha` fills what is transparent.

Exit code 0: everything was filled or skipped. 1: something failed while working; in a folder the
rest has been done, and the failures are listed at the end. 2: wrong usage or unusable input.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import images
from .session import MEMORY_LIMIT, InferenceError, InpaintingSession
from .tiling import STRATEGIES

PROGRAM = "musical-inpaint"
ALPHA = "alpha"


class OutputError(RuntimeError):
    """The result is there but cannot be written."""


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
        _complain(_say(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; what is written is whole")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    _check_numbers(arguments)
    jobs, notes = list_jobs(
        Path(arguments.image),
        ALPHA if arguments.mask == ALPHA else Path(arguments.mask),
        Path(arguments.output),
        into_folder=arguments.output.endswith(("/", os.sep)),
        overwrite_input=arguments.overwrite_input,
        protected=Path(arguments.model),
    )
    single = not Path(arguments.image).is_dir()
    if single and jobs[0].problem:
        raise images.ImageError(f"{jobs[0].image}: {jobs[0].problem}")
    session = InpaintingSession(
        arguments.model,
        providers=None if arguments.provider == "auto" else [arguments.provider],
        threads=arguments.threads,
        memory_limit=arguments.memory_limit * 2**30,
    )
    counts = {"filled": 0, "had nothing to fill": 0, "skipped": 0}
    failures: list[str] = []
    started = time.monotonic()
    for index, job in enumerate(jobs):
        _show_progress(index, len(jobs), job.image.name, time.monotonic() - started)
        try:
            counts[_process(session, job, arguments)] += 1
        except (OSError, ValueError, InferenceError, OutputError, MemoryError) as error:
            message = _say(error)
            if not message.startswith(str(job.image)):
                message = f"{job.image}: {message}"
            if single:
                _clear_progress()
                _complain(message)
                # What cannot be read or matched is wrong input; the rest went wrong while working.
                unusable = isinstance(error, ValueError | FileNotFoundError)
                return 2 if unusable else 1
            failures.append(message)
    _clear_progress()
    seconds = time.monotonic() - started
    summary = [f"{number} {what}" for what, number in counts.items() if number]
    if failures:
        summary.append(f"{len(failures)} failed")
    print(f"{', '.join(summary)} in {seconds:.1f} s on {session.provider}")
    for note in notes:
        print(note)
    for failure in failures:
        _complain(failure)
    return 1 if failures else 0


def list_jobs(
    image: Path,
    mask: Path | str,
    output: Path,
    *,
    into_folder: bool = False,
    overwrite_input: bool = False,
    protected: Path | None = None,
) -> tuple[list[Job], list[str]]:
    """Pairs images with masks and outputs before anything is written.

    Args:
        image: A file, or a folder, which is walked with its subfolders. Hidden files are left out,
            and so are the mask and output folders where they lie inside.
        mask: A file for every image, a folder, or `ALPHA`.
        output: A file, or a folder. A folder is what it is for a folder of images.
        into_folder: Take `output` for a folder although it does not exist yet.
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
        jobs, notes = _list_folder(image, mask, output)
    else:
        target = output
        if output.is_dir() or into_folder:
            target = _writable_name(output / image.name)
        images.format_of(target)
        found, problem = mask, ""
        if isinstance(mask, Path) and mask.is_dir():
            found, problem = _only([path for path in _walk(mask) if path.stem == image.stem], mask)
        jobs, notes = [Job(image, found, target, problem)], []
    _guard(jobs, overwrite_input, protected)
    return jobs, notes


def _list_folder(folder: Path, mask: Path | str, output: Path) -> tuple[list[Job], list[str]]:
    if output.exists() and not output.is_dir():
        raise images.ImageError(f"{output}: --image is a folder, so --output must be one too")
    mask_folder = mask if isinstance(mask, Path) and mask.is_dir() else None
    inside = [path for path in (output, mask_folder) if path and not _is_same(path, folder)]
    paths = list(_walk(folder, inside))
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
        jobs.append(Job(path, found, _writable_name(output / relative), problem))
    unused = sorted(str(path) for stem in masks.keys() - used for path in masks[stem])
    notes = []
    if unused:
        notes.append(f"{len(unused)} masks match no image, for instance {unused[0]}")
    return jobs, notes


def _walk(folder: Path, excluded: Sequence[Path] = ()) -> Iterator[Path]:
    """Image files below a folder in order of path, without hidden ones and excluded folders."""
    skipped = {path.resolve() for path in excluded}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(parent) / name).resolve() not in skipped
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in images.READABLE:
                yield Path(parent) / name


def _only(found: list[Path], folder: Path) -> tuple[Path | None, str]:
    """The mask of an image, or None and why there is none."""
    if len(found) == 1:
        return found[0], ""
    if found:
        names = ", ".join(path.name for path in found)
        return None, f"several masks match it in {folder}: {names}"
    return None, f"no mask of the same name in {folder}"


def _writable_name(path: Path) -> Path:
    return path.with_suffix(".png") if path.suffix.lower() not in images.WRITABLE else path


def _is_same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve() or (
        first.exists() and second.exists() and first.samefile(second)
    )


def _guard(jobs: list[Job], overwrite_input: bool, protected: Path | None) -> None:
    """Refuses outputs that would write over each other or over an input."""
    by_output: dict[Path, Job] = {}
    inputs = {job.image.resolve() for job in jobs}
    masks = {job.mask.resolve() for job in jobs if isinstance(job.mask, Path)}
    for job in jobs:
        output = job.output.resolve()
        if output in by_output:
            raise images.ImageError(
                f"{job.image} and {by_output[output].image} would both be written to {job.output}"
            )
        by_output[output] = job
        if output in masks or (protected is not None and _is_same(job.output, protected)):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if isinstance(job.mask, Path) and _is_same(job.output, job.mask):
            raise images.ImageError(f"{job.output}: the output would replace a mask or the model")
        if _is_same(job.output, job.image):
            if not overwrite_input:
                raise images.ImageError(
                    f"{job.output}: the output would replace its input; "
                    "choose another, or ask for it with --overwrite-input"
                )
        elif output in inputs:
            raise images.ImageError(f"{job.output}: the output would replace another input")


def _process(session: InpaintingSession, job: Job, arguments: argparse.Namespace) -> str:
    """Fills one image and says what became of it, in the words of the summary."""
    if arguments.skip_existing and job.output.exists():
        return "skipped"
    if job.problem:
        raise images.ImageError(job.problem)
    photograph = images.read_photograph(job.image, max_pixels=arguments.max_pixels)
    choice = {"polarity": arguments.polarity, "threshold": arguments.threshold}
    if isinstance(job.mask, Path):
        hole = images.read_mask(job.mask, max_pixels=arguments.max_pixels, **choice)
        images.check_sizes(photograph, hole, str(job.mask))
        alpha = None
    else:
        hole = images.alpha_mask(photograph, **choice)
        alpha = np.where(hole, np.uint8(255), photograph.alpha)
    hole = images.dilate(hole, arguments.dilate)
    image_format = images.format_of(job.output)
    if hole.any():
        if hole.all():
            raise images.ImageError(
                f"{job.mask}: it covers the whole image, so nothing is left to copy from; "
                f"is it the other polarity? (--polarity {_other(arguments.polarity)})"
            )
        pixels = session.inpaint(
            photograph.pixels, hole, arguments.strategy, arguments.working_size
        )
        content = images.encode_photograph(photograph, pixels, image_format, alpha)
    elif image_format == photograph.format:
        content = job.image.read_bytes()  # nothing to fill: not even encoded again
    else:
        content = images.encode_photograph(photograph, photograph.pixels, image_format)
    try:
        job.output.parent.mkdir(parents=True, exist_ok=True)
        images.write_bytes(job.output, content)
    except OSError as error:
        raise OutputError(f"cannot write {_say(error)}") from error
    return "filled" if hole.any() else "had nothing to fill"


def _other(polarity: str) -> str:
    return next(other for other in images.POLARITIES if other != polarity)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Fills holes in photographs with a model exported by export/to_onnx.py.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="FILE", help="the .onnx file")
    parser.add_argument(
        "--image", required=True, metavar="PATH", help="image file, or a folder of them"
    )
    parser.add_argument(
        "--mask",
        required=True,
        metavar="PATH",
        help="mask file, a folder with one of the same name for each image, or 'alpha' to fill "
        "what is transparent",
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="file or folder to write")
    parser.add_argument(
        "--polarity",
        choices=images.POLARITIES,
        default="white",
        help="which side of the mask is the hole (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        default=127,
        metavar="0..255",
        help="mask values above it are white (default: %(default)s)",
    )
    parser.add_argument(
        "--dilate",
        type=int,
        default=0,
        metavar="PIXELS",
        help="grow the hole by so much on every side (default: %(default)s)",
    )
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        default="crop",
        help="how an image larger than the model's training size is looked at: in windows around "
        "each hole, shrunk as a whole, or as it is (default: %(default)s)",
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
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)"
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
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave outputs alone that are there already"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="allow an output to replace its own input"
    )
    return parser


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name, low, high in (
        ("threshold", 0, 255),
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


def _say(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _complain(message: str) -> None:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)


def _show_progress(done: int, total: int, name: str, seconds: float) -> None:
    """One line that is written over, on a terminal only."""
    if total < 2 or not sys.stderr.isatty():
        return
    left = f", {seconds / done * (total - done):.0f} s left" if done else ""
    bar = "#" * (20 * done // total)
    print(f"\r\x1b[K[{bar:<20}] {done}/{total}{left}  {name}", end="", file=sys.stderr, flush=True)


def _clear_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
