"""Options of the command lines that fill files."""

import argparse
from collections.abc import Sequence

from musical_tf import images
from musical_tf.contract import FILLS

from . import named_models
from .pairing import Job
from .session import MEMORY_LIMIT
from .tiling import STRATEGIES

FORMATS = {name.lower(): suffix for suffix, name in reversed(images.WRITABLE.items())}
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
        type=_format,
        choices=(*sorted(FORMATS), OWN_FORMAT),
        help="of the outputs in a folder; same is that of their inputs, or png for HEIC (default: "
        "same). png, tiff, bmp, ppm, and webp without a quality, keep known pixels bit for bit",
    )
    parser.add_argument(
        "--quality",
        type=int,
        metavar="1..100",
        help="of JPEG, WebP and AVIF (default: a JPEG's own or 95, WebP without loss, AVIF 90)",
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
        "--fill",
        choices=FILLS,
        default="auto",
        help="copy, pixels of the photograph are copied into the hole, sharp; network, the "
        "network's own fill, smooth; auto, copies if the model's file has them (default: "
        "%(default)s)",
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
        ("quality", 1, 100),
        ("working_size", 16, 4096),
        ("threads", 0, 1024),
        ("memory_limit", 1, 4096),
        ("max_pixels", 1, 2 * images.MAX_PIXELS),
    ):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} must be within {low} and {high}, got {value}")


def check_quality(quality: int | None, jobs: Sequence[Job]) -> None:
    """Refuses a quality that no output has.

    Raises:
        ValueError: Names the formats that have one.
    """
    formats = {images.WRITABLE.get(job.output.suffix.lower(), "") for job in jobs}
    if quality is not None and not formats & {*LOSSY}:
        raise ValueError(
            f"--quality must be used with {', '.join(LOSSY)}, got {', '.join(sorted(formats))}; "
            "choose the format by --format, or by the suffix of --output"
        )
