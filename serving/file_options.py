"""Options of the command lines that fill files."""

import argparse
from collections.abc import Iterable

from musical_tf.image_formats import MAX_PIXELS, WRITABLE

from . import named_models, options

FORMATS = {name.lower(): suffix for suffix, name in reversed(WRITABLE.items())}
"""What `--format` takes -> the suffix it gives."""

OWN_FORMAT = "same"
LOSSY = ("JPEG", "WEBP", "AVIF")
"""The formats that have a quality."""

_ALIASES = {"jpg": "jpeg", "tif": "tiff"}


def _format(text: str) -> str:
    return _ALIASES.get(text.lower(), text.lower())


def add_arguments(parser: argparse.ArgumentParser, folders_only: bool = False) -> None:
    """Adds the options that say what is filled and how, for every command line that fills files.

    Args:
        parser: The command line's.
        folders_only: Whether it takes no single images; what `--image` and `--output` say then.
    """
    image, output, stdin = "folder of images", "folder for the outputs", ""
    if not folders_only:
        stdin = "; - is standard input"
        image, output = "image or folder of images", "file or folder; - is standard output"
    mask = "mask, folder of masks with the names of the images, or alpha: transparent pixels are "
    mask += "filled"
    named_models.add_argument(parser)
    for name, text in (("image", image + stdin), ("mask", mask + stdin), ("output", output)):
        parser.add_argument(
            f"-{name[0]}", f"--{name}", required=folders_only, metavar="PATH", help=text
        )
    parser.add_argument(
        "--format",
        type=_format,
        choices=(*sorted(FORMATS), OWN_FORMAT),
        help="format of the outputs in a folder; same is the format of the input, or png for HEIC "
        "(default: same). png, tiff, bmp, ppm and lossless webp keep known pixels bit for bit",
    )
    options.add_arguments(parser, options.FillOptions)
    parser.add_argument(
        "--resize-mask",
        action="store_true",
        help="scale masks of another size to their image, if the sides have the same ratio",
    )
    parser.add_argument(
        "--working-size",
        type=int,
        metavar="PIXELS",
        help="side at which the model sees a window (default: its training size)",
    )
    # The workers of a job have threads of their own.
    leave_out = ("threads",) if folders_only else ()
    options.add_arguments(parser, options.ModelOptions, leave_out)
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger images (default: %(default)s)",
    )


def check_numbers(arguments: argparse.Namespace) -> None:
    """Refuses numbers beyond what makes sense.

    Raises:
        ValueError: Names the flag, its range and what came.
    """
    for group in (options.FillOptions, options.ModelOptions):
        options.read(arguments, group)
    if arguments.working_size is not None:
        options.check_range("working_size", arguments.working_size, 16, 4096)
    options.check_range("max_pixels", arguments.max_pixels, 1, 2 * MAX_PIXELS)


def check_quality(quality: int | None, formats: Iterable[str]) -> None:
    """Refuses a quality that no output has.

    Args:
        quality: None if none was given.
        formats: Of the outputs.

    Raises:
        ValueError: Names the formats that have one.
    """
    formats = set(formats)
    if quality is not None and not formats & {*LOSSY}:
        raise ValueError(
            f"--quality must be used with {', '.join(LOSSY)}, got {', '.join(sorted(formats))}; "
            "choose the format by --format, or by the suffix of --output"
        )
