"""Fills the files and streams that the command line `serving.predict` names."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from musical_tf import images
from musical_tf.images.opening import read_content

from . import named_models
from .file_options import FORMATS, check_quality
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
from .terminal import ProgressBar, clear_line, complain, say

STREAM = "-"


def run(arguments: argparse.Namespace) -> int:
    """Fills what the arguments of `serving.predict` name; returns the exit code."""
    if STREAM in (arguments.image, arguments.mask, arguments.output):
        return _run_streams(arguments)
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
    counts = {"filled": 0, "not filled (empty mask)": 0, "skipped": 0}
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
