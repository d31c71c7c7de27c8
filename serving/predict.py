"""Fills holes in image files from the command line.

    python -m serving.predict --image PHOTO --mask MASK --output RESULT
    python -m serving.predict --model faces --image PHOTO --mask MASK --output RESULT

`--image`, `--mask` and `--output` each take a file or a folder. With a folder of images the masks
are found by name without suffix (`cat.jpg` and `cat.png`, `cat_mask.png` or `cat_mask001.png`), in
the same subfolder; one mask file is used for every image; `--mask alpha` fills what is transparent.

Exit code 0: everything was filled or skipped. 1: something failed while working; in a folder the
rest has been done, and the failures are listed at the end. 2: wrong usage or unusable input.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from musical_tf import images
from musical_tf.arguments import Parser

from . import named_models
from .file_options import FORMATS, add_arguments, check_numbers, check_quality
from .filling import (
    FAILURES,
    Outcome,
    fill_file,
    mask_lines,
    note_lines,
    open_session,
    other,
    remove_stale,
    say_of,
)
from .pairing import ALPHA, list_jobs
from .terminal import PROGRAM, ProgressBar, clear_line, complain, say

SUSPICIOUS = 0.5
"""Share of an image. A mask that covers more is likely to be the other way round."""


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
    check_quality(arguments.quality, jobs)
    single = not Path(arguments.image).is_dir()
    if single and jobs[0].problem:
        raise images.ImageError(f"{jobs[0].image}: {jobs[0].problem}")
    session = open_session(arguments)
    remove_stale(jobs)
    counts = {"filled": 0, "had nothing to fill": 0, "skipped": 0}
    failures: list[str] = []
    suspects: list[tuple[str, str]] = []
    bar = ProgressBar(len(jobs))
    outcomes: list[Outcome] = []
    losses: list[tuple[str, str]] = []
    for index, job in enumerate(jobs):
        bar.start(index, job.image.name)
        try:
            outcome = fill_file(session, job, arguments, bar.advance)
            counts[outcome.what] += 1
            outcomes.append(outcome)
            losses += ((str(job.image), note) for note in outcome.notes)
            if outcome.share > SUSPICIOUS:
                suspects.append((f"{outcome.share:.0%} of {job.image}", outcome.kind))
        except FAILURES as error:
            message = say_of(job, error)
            if single:
                clear_line()
                complain(message)
                # What cannot be read or matched is wrong input; the rest went wrong while working.
                return 2 if isinstance(error, ValueError | OSError) else 1
            failures.append(message)
    clear_line()
    summary = [f"{number} {what}" for what, number in counts.items() if number]
    if failures:
        summary.append(f"{len(failures)} failed")
    print(f"{', '.join(summary)} in {bar.seconds:.1f} s on {session.provider}")
    for line in mask_lines(outcomes):
        print(line)
    notes += note_lines(losses)
    if suspects:
        suspect, kind = suspects[0]
        notes.append(
            f"images of which more than half was filled: {len(suspects)}, for instance "
            f"{suspect}; if that is what should stay, say --polarity "
            f"{other(arguments.polarity, kind)}"
        )
    for note in notes:
        complain(note, "note")
    for failure in failures:
        complain(failure)
    return 1 if failures else 0


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description="Fills holes in photographs with a model that is part of the package, or with "
        "one exported by export/to_onnx.py.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument(
        "--skip-existing", action="store_true", help="leave outputs alone that are there already"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="allow an output to replace its own input"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
