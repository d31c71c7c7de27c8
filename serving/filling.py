"""Fills one image file, for every command line that fills files."""

import argparse
import contextlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musical_tf import images
from musical_tf.command_line import printable
from musical_tf.files import remove_partials, write_whole

from .memory import InferenceError
from .pairing import ALPHA, Job
from .terminal import say, silent_libraries

if TYPE_CHECKING:
    from .session import InpaintingSession
    from .tiling import Progress

Source = Path | bytes
"""An image file, or what one holds, from standard input."""


SUSPICIOUS = 0.5
"""Share of an image. A mask that covers more is likely to be the other way round."""


class OutputError(RuntimeError):
    """The result is there but cannot be written."""


FAILURES = (OSError, ValueError, InferenceError, OutputError, MemoryError)
"""What `fill_file` raises: that one image has failed, others may well not."""


@dataclass(frozen=True)
class Outcome:
    """What became of one image.

    Attributes:
        what: In the words of the summary.
        share: The share of the image that was filled.
        image: Name of the image.
        mask: Name of the mask, as `kind`, `levels` and `rule` of `images.Mask` say how it was read.
        kind: See `mask`.
        levels: See `mask`.
        rule: See `mask`.
        hole: The share of the image that the mask selects, before it is dilated.
        notes: Sentences about what of the image was not kept.
    """

    what: str
    share: float = 0.0
    image: str = ""
    mask: str = ""
    kind: str = ""
    levels: str = ""
    rule: str = ""
    hole: float = 0.0
    notes: Sequence[str] = ()


def open_session(arguments: argparse.Namespace) -> "InpaintingSession":
    """The session that a command line's options ask for."""
    from .session import InpaintingSession  # and ONNX Runtime, which --help needs not wait for

    return InpaintingSession(
        arguments.model,
        providers=None if arguments.provider == "auto" else [arguments.provider],
        threads=arguments.threads,
        memory_limit=arguments.memory_limit * 2**30,
    )


def fill_file(
    session: "InpaintingSession",
    job: Job,
    arguments: argparse.Namespace,
    progress: "Progress | None" = None,
) -> Outcome:
    """As `fill_source`, but writes the result, whole or not at all.

    Raises:
        OutputError: If the result cannot be written; `FAILURES` has the others.
    """
    if job.problem:
        raise images.ImageError(job.problem)
    if arguments.skip_existing and job.output.is_file():
        return Outcome("skipped")
    mask = job.mask if isinstance(job.mask, Path) else None
    image_format = images.format_of(job.output)
    content, outcome = fill_source(session, job.image, mask, image_format, arguments, progress)
    write_output(_target(job), content)
    return outcome


def fill_source(
    session: "InpaintingSession",
    image: Source,
    mask: Source | None,
    image_format: str | None,
    arguments: argparse.Namespace,
    progress: "Progress | None" = None,
) -> tuple[bytes, Outcome]:
    """Fills one image; gives the content of its file and what became of it.

    Args:
        session: The model.
        image: The photograph.
        mask: Its mask; None fills what is transparent.
        image_format: Of the content; None for the photograph's own, or PNG if that is not written.
        arguments: Parsed options, those of `add_arguments`.
        progress: Called with `(windows done, windows in all)`.

    Raises:
        OSError, ValueError, MemoryError: If image or mask cannot be read or do not fit each other.
        InferenceError: If the model fails.
    """
    limit = arguments.max_pixels
    choice = {"polarity": arguments.polarity, "threshold": arguments.threshold}
    words = ("opacity of the image", "", "")
    mask_name = ALPHA if mask is None else _name_of(mask)
    with silent_libraries():
        photograph = images.read_photograph(_opened(image), name=_name_of(image), max_pixels=limit)
        if mask is not None:
            read = images.load_mask(_opened(mask), name=mask_name, max_pixels=limit, **choice)
            hole, words = read.hole, (read.kind, read.levels, read.rule)
            del read
    alpha = None
    if mask is not None:
        if arguments.resize_mask:
            hole = images.fit_mask(hole, *photograph.pixels.shape[:2])
        images.check_sizes(photograph, hole, mask_name)
    else:
        hole = images.alpha_mask(photograph, **choice)
        if photograph.alpha is not None:
            alpha = np.where(hole, np.uint8(255), photograph.alpha)
    marked = float(hole.mean())
    hole = images.dilate(hole, arguments.dilate)
    if image_format is None:
        written = photograph.format in images.WRITABLE.values()
        image_format = photograph.format if written else "PNG"
    notes = (*photograph.notes, *images.lost_in(photograph, image_format))
    share = float(hole.mean())
    if share:
        if hole.all():
            raise images.ImageError(
                f"{mask_name}: the mask covers the whole image; if it is inverted, use "
                f"--polarity {other(arguments.polarity, words[0])}"
            )
        pixels = session.inpaint(
            photograph.pixels,
            hole,
            arguments.strategy,
            arguments.working_size,
            fill=arguments.fill,
            seed=arguments.seed,
            progress=progress,
        )
        photograph = replace(photograph, pixels=pixels)  # and the unfilled ones make room
        content = images.encode_photograph(
            photograph, pixels, image_format, alpha, quality=arguments.quality, hole=hole
        )
    elif image_format == photograph.format and arguments.quality is None:
        # Nothing to fill: not even encoded again.
        content = image if isinstance(image, bytes) else image.read_bytes()
    else:
        content = images.encode_photograph(
            photograph, photograph.pixels, image_format, quality=arguments.quality
        )
    what = "filled" if share else "not filled (empty mask)"
    outcome = Outcome(what, share, _name_of(image), mask_name, *words, hole=marked, notes=notes)
    return content, outcome


def write_output(path: Path, content: bytes) -> None:
    """Writes a result, whole or not at all, and the folders above it.

    Raises:
        OutputError: If that is not possible.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise OutputError(f"cannot write {say(error)}") from error


def _name_of(source: Source) -> str:
    return "stdin" if isinstance(source, bytes) else str(source)


def _opened(source: Source) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _target(job: Job) -> Path:
    """The file that is written: an output that is a link stays one."""
    return Path(os.path.realpath(job.output))


def remove_stale(jobs: Iterable[Job]) -> int:
    """Removes the temporary files that killed processes left for these jobs; says how many."""
    names: dict[Path, set[str]] = {}
    for job in jobs:
        output = _target(job)
        names.setdefault(output.parent, set()).add(output.name)
    removed = 0
    for folder, outputs in names.items():
        with contextlib.suppress(OSError):  # what cannot be removed stops nothing
            removed += remove_partials(folder, outputs)
    return removed


def mask_lines(outcomes: Iterable[Outcome]) -> list[str]:
    """How masks were read and which shares of the images are hole, a line for each rule."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.mask:
            groups.setdefault((outcome.kind, outcome.rule), []).append(outcome)
    lines = []
    for (kind, rule), found in sorted(groups.items(), key=lambda item: -len(item[1])):
        levels = {outcome.levels for outcome in found}
        read = ", ".join(filter(None, (kind, levels.pop() if len(levels) == 1 else "")))
        read = f"{read}: {rule}" if rule else read
        least, most = (pick(found, key=lambda outcome: outcome.hole) for pick in (min, max))
        masks = {outcome.mask for outcome in found}
        whose = f"{len(masks)} masks" if len(masks) > 1 else f"mask {most.mask}"
        share = f"{most.hole:.1%} of {'the' if len(found) == 1 else 'each'} image"
        if f"{least.hole:.1%}" != f"{most.hole:.1%}":
            share = f"from {least.hole:.1%} of {least.image} to {most.hole:.1%} of {most.image}"
        line = f"{whose}: {read}; {share} is hole"
        lines.append(printable(line))
    return lines


def notes_on(outcomes: Iterable[Outcome], polarity: str) -> list[str]:
    """Sentences about what was not kept, each once, and about masks that may be inverted."""
    outcomes = list(outcomes)
    groups: dict[str, list[str]] = {}
    for outcome in outcomes:
        for note in outcome.notes:
            groups.setdefault(note, []).append(outcome.image)
    notes = [
        f"{found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {note}"
        for note, found in groups.items()
    ]
    suspects = [outcome for outcome in outcomes if outcome.share > SUSPICIOUS]
    if suspects:
        first = suspects[0]
        notes.append(
            f"images of which more than half was filled: {len(suspects)}, for example "
            f"{first.share:.0%} of {first.image}; if the mask is inverted, use --polarity "
            f"{other(polarity, first.kind)}; if image and mask are swapped, exchange them"
        )
    return notes


def other(polarity: str, kind: str = "") -> str:
    """The polarity to try when `polarity` selects the wrong part of a mask of a `kind`."""
    if polarity == "white" and kind in ("color on a clear layer", "opacity of a dark drawing"):
        return "clear"
    return "black" if polarity == "white" else "white"


def say_of(job: Job, error: BaseException) -> str:
    """Why a job failed, in one line that names its image."""
    message = say(error)
    return message if message.startswith(str(job.image)) else f"{job.image}: {message}"
