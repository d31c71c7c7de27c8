"""The flags that `training.evaluate` and `training.compare` share, and their exit codes."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from musical_tf.command_line import import_quietly, missing_package

from ..data.datasets import DATASETS
from ..data.listing import SPLITS
from . import baselines

DEFAULT_IMAGE_SIZE = 256
"""Side in pixels where neither a model nor `--image-size` says one: the papers' own."""


def at_least(minimum: int) -> Callable[[str], int]:
    """An argument type: whole numbers from `minimum` up."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if value < minimum:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {minimum}, got {text!r}"
            )
        return value

    return whole_number


def add_arguments(
    parser: argparse.ArgumentParser, whose: str, protocols: Sequence[str], page_images: int
) -> None:
    """Adds the flags that say which photographs and holes, and what is measured and shown.

    `whose` values are the defaults, for the help.
    """
    data = parser.add_argument_group("on which photographs")
    data.add_argument(
        "--dataset", metavar="NAME", help=f"{', '.join(DATASETS)}; default: {whose} own"
    )
    data.add_argument("--data-dir", metavar="DIR", help="folder of the dataset, as in training")
    data.add_argument(
        "--split", default="test", metavar="NAME", help=f"{', '.join(SPLITS)} (default: test)"
    )
    data.add_argument(
        "--image-size",
        type=at_least(16),
        metavar="N",
        help=f"side in pixels; default: {whose} own, or {DEFAULT_IMAGE_SIZE}",
    )
    data.add_argument(
        "--shorter-side",
        type=at_least(16),
        metavar="N",
        help="shorter side in pixels before the center crop; default: the image size, as in the "
        "authors' test",
    )
    data.add_argument(
        "--mask",
        metavar="center|box|irregular|DIR",
        help=f"holes; default: {whose} own, or center",
    )
    data.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N images")
    parser.add_argument(
        "--protocol",
        nargs="+",
        metavar="NAME",
        help="definitions of the metrics: authors, hole, deepfill, lpips (docs/evaluation.md); "
        f"default: {' '.join(protocols)}",
    )
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        default=8,
        metavar="N",
        help="images in a run of the model (default: 8)",
    )
    parser.add_argument(
        "--page-images",
        type=at_least(2),
        default=page_images,
        metavar="N",
        help="images on the page, half of them the worst and half the best of the first method "
        f"(default: {page_images})",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")


def add_baselines_argument(parser: argparse._ActionsContainer) -> None:
    """Adds `--baselines`."""
    parser.add_argument(
        "--baselines",
        nargs="*",
        metavar="NAME",
        help=f"also measure classical methods, all or some of {', '.join(baselines.BASELINES)}",
    )


def choose_baselines(names: Sequence[str] | None) -> list[str]:
    """The baselines that `--baselines` asks for; raises as `baselines.require`."""
    chosen = [] if names is None else list(dict.fromkeys(names)) or list(baselines.BASELINES)
    for name in chosen:
        baselines.require(name)
    return chosen


def choose_protocols(
    names: Sequence[str] | None, default: Sequence[str], image_size: int
) -> list[str]:
    """The protocols that `--protocol` asks for; of the default those that the image size allows.

    Raises:
        ValueError: On an unknown name (lists the known ones), or images too small for LPIPS.
    """
    from musical_tf.metrics import LPIPS, PROTOCOLS

    if names is None:
        return [n for n in default if n != "lpips" or image_size >= LPIPS.minimum_size]
    for name in names:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    if "lpips" in names and image_size < LPIPS.minimum_size:
        raise ValueError(
            f"protocol lpips needs images of at least {LPIPS.minimum_size} pixels a side, "
            f"got --image-size {image_size}"
        )
    return list(dict.fromkeys(names))


def run(
    parser: argparse.ArgumentParser, module: str, argv: Sequence[str] | None, experiment: type
) -> int:
    """Runs a command line in two parts, so that its exit code tells wrong input from a failure.

    `module` is what `python -m` runs, `experiment` an `experiment.Experiment`.

    Returns:
        0, 2 for bad usage or input, 1 for a failure while measuring, 130 when interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        # Its messages would bury the one line that matters; what fails raises as well.
        import_quietly("tensorflow")
        work = experiment(args, shlex.join(["python", "-m", module, *argv]))
    except (OSError, ValueError) as error:
        return _fail(parser.prog, error, 2)
    except ModuleNotFoundError as error:
        if "pip install" in str(error):
            return _fail(parser.prog, error, 2)
        return _fail(parser.prog, missing_package(error, "train"), 2)
    try:
        print(work.run())
    except KeyboardInterrupt:
        return _fail(parser.prog, "interrupted; nothing written", 130)
    except OSError as error:
        # A full disk fails in the middle of a file, and the error does not say of which.
        named = error.filename or not error.strerror
        return _fail(parser.prog, error if named else f"{args.output}: {error.strerror}", 1)
    except (ValueError, RuntimeError, MemoryError) as error:
        return _fail(parser.prog, error, 1)
    print(f"Page: {os.path.join(args.output, 'index.html')}")
    return 0


def _fail(program: str, error: Any, code: int) -> int:
    print(f"{program}: error: {error or type(error).__name__}", file=sys.stderr)
    return code
