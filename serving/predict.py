"""Fills holes in image files from the command line.

    python -m serving.predict PHOTO MASK RESULT
    python -m serving.predict --model faces --image PHOTO --mask MASK --output RESULT

`--image`, `--mask` and `--output` each take a file or a folder. With a folder of images the masks
are found by name without suffix (`cat.jpg` and `cat.png`, `cat_mask.png` or `cat_mask001.png`), in
the same subfolder; one mask file is used for every image; `--mask alpha` fills what is transparent.
`-` is standard input or output.

Exit code 0: everything was filled or skipped. 1: something failed while working; in a folder the
rest has been done, and the failures are listed at the end. 2: wrong usage or unusable input.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from musical_tf import images
from musical_tf.arguments import Parser
from musical_tf.command_line import end
from musical_tf.images.opening import read_content
from musical_tf.version import __version__

from . import named_models
from .file_options import FORMATS, add_arguments, check_numbers, check_quality
from .filling import (
    FAILURES,
    Outcome,
    Source,
    fill_file,
    fill_source,
    mask_lines,
    notes_on,
    open_session,
    remove_stale,
    say_of,
    write_output,
)
from .pairing import ALPHA, formats_of, list_jobs
from .terminal import PROGRAM, ProgressBar, clear_line, complain, say

STREAM = "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code, see above."""
    arguments = _parse(argv)
    try:
        with warnings.catch_warnings():
            # What Pillow warns of, large images and damaged EXIF, is dealt with in `images`.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            check_numbers(arguments)
            if STREAM in (arguments.image, arguments.mask, arguments.output):
                return _run_streams(arguments)
            return _run(arguments)
    except (OSError, ValueError) as error:
        complain(say(error))
        return 2
    except KeyboardInterrupt:
        clear_line()
        complain("interrupted; what is written is whole, --skip-existing goes on from there")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    jobs, notes = list_jobs(
        Path(arguments.image),
        ALPHA if arguments.mask == ALPHA else Path(arguments.mask),
        Path(arguments.output),
        into_folder=arguments.output.endswith(("/", os.sep)),
        suffix=FORMATS.get(arguments.format),
        overwrite_input=arguments.overwrite_input,
        protected=named_models.find(arguments.model),
    )
    check_quality(arguments.quality, formats_of(jobs))
    single = not Path(arguments.image).is_dir()
    if single and jobs[0].problem:
        raise images.ImageError(f"{jobs[0].image}: {jobs[0].problem}")
    session = open_session(arguments)
    remove_stale(jobs)
    failures: list[str] = []
    bar = ProgressBar(len(jobs))
    outcomes: list[Outcome] = []
    for index, job in enumerate(jobs):
        bar.start(index, job.image.name)
        try:
            outcomes.append(fill_file(session, job, arguments, bar.advance))
        except FAILURES as error:
            message = say_of(job, error)
            if single:
                return _fail(error, message)
            failures.append(message)
    clear_line()
    _report(outcomes, failures, bar.seconds, session.provider, arguments, notes, sys.stdout)
    return 1 if failures else 0


def _run_streams(arguments: argparse.Namespace) -> int:
    """Fills one photograph of which something is a standard stream."""
    if arguments.image == arguments.mask == STREAM:
        raise ValueError("--image and --mask must not both be -: standard input holds one file")
    suffix = FORMATS.get(arguments.format)
    image_format = images.WRITABLE[suffix] if suffix else None
    if arguments.output != STREAM:
        image_format = images.format_of(arguments.output)
    elif sys.stdout.isatty():
        raise ValueError("--output - must be a pipe or a file, got a terminal")
    if image_format:
        check_quality(arguments.quality, [image_format])
    for name in ("image", "mask"):
        value = getattr(arguments, name)
        if value not in (STREAM, ALPHA) and Path(value).is_dir():
            raise ValueError(f"--{name} must be a file where another path is -, got a folder")
        if Path(value).exists() and os.path.realpath(value) == os.path.realpath(arguments.output):
            raise ValueError(f"--output must not be the {name}, got {value}")
    image = _source(arguments.image)
    mask = None if arguments.mask == ALPHA else _source(arguments.mask)
    started = time.monotonic()
    session = open_session(arguments)
    try:
        content, outcome = fill_source(session, image, mask, image_format, arguments)
        if arguments.output == STREAM:
            with open(os.dup(sys.stdout.fileno()), "wb") as pipe:
                pipe.write(content)
        else:
            write_output(Path(os.path.realpath(arguments.output)), content)
    except FAILURES as error:
        return _fail(error, say(error))
    seconds = time.monotonic() - started
    stream = sys.stderr if arguments.output == STREAM else sys.stdout
    _report([outcome], [], seconds, session.provider, arguments, [], stream)
    return 0


def _source(value: str) -> Source:
    return read_content(sys.stdin.buffer, "stdin") if value == STREAM else Path(value)


def _fail(error: Exception, message: str) -> int:
    """Says why the one image failed; gives the exit code."""
    clear_line()
    complain(message)
    # An input that cannot be read or matched is wrong usage; the rest went wrong while working.
    return 2 if isinstance(error, ValueError | OSError) else 1


def _report(
    outcomes: Sequence[Outcome],
    failures: Sequence[str],
    seconds: float,
    provider: str,
    arguments: argparse.Namespace,
    notes: Sequence[str],
    stream: TextIO,
) -> None:
    """Prints what became of the images to `stream`, notes and failures to stderr."""
    counts = {"filled": 0, "had nothing to fill": 0, "skipped": 0}
    for outcome in outcomes:
        counts[outcome.what] += 1
    summary = [f"{number} {what}" for what, number in counts.items() if number]
    if failures:
        summary.append(f"{len(failures)} failed")
    print(f"{', '.join(summary)} in {seconds:.1f} s on {provider}", file=stream)
    for line in mask_lines(outcomes):
        print(line, file=stream)
    for note in (*notes, *notes_on(outcomes, arguments.polarity)):
        complain(note, "note")
    for failure in failures:
        complain(failure)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    for name in ("image", "mask", "output"):
        if getattr(arguments, name) is None and arguments.paths:
            setattr(arguments, name, arguments.paths.pop(0))
    absent = [f"--{n}" for n in ("image", "mask", "output") if getattr(arguments, n) is None]
    if absent:
        parser.error(f"the following arguments are required: {', '.join(absent)}")
    if arguments.paths:
        parser.error(f"unrecognized arguments: {' '.join(arguments.paths)}")
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Fills holes in photographs with a model that is part of the package, or with "
        f"one exported by export/to_onnx.py. For instance: {PROGRAM} photo.jpg mask.png out.png",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image, mask and output in this order, those that no option below names",
    )
    add_arguments(parser)
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave outputs alone that are there already"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="allow an output to replace its own input"
    )
    parser.add_argument(
        "--list-models", action=named_models.ListModels, help="print the models' names and exit"
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def run() -> NoReturn:
    """Runs the command line and ends the process."""
    end(main())


if __name__ == "__main__":
    run()
