"""Fills one image file, for every command line that fills files."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from musical_tf import images
from musical_tf.files import write_whole

from .pairing import Job
from .session import InferenceError, InpaintingSession
from .terminal import say, silent_libraries
from .tiling import Progress


class OutputError(RuntimeError):
    """The result is there but cannot be written."""


FAILURES = (OSError, ValueError, InferenceError, OutputError, MemoryError)
"""What `fill_file` raises: that one image has failed, others may well not."""


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


def other(polarity: str) -> str:
    """The polarity to try when `polarity` selects the wrong part."""
    return "black" if polarity == "white" else "white"


def say_of(job: Job, error: BaseException) -> str:
    """Why a job failed, in one line that names its image."""
    message = say(error)
    return message if message.startswith(str(job.image)) else f"{job.image}: {message}"
