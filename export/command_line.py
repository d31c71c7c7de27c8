"""What the command lines that export share: arguments, messages, exit codes."""

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable

from musical_tf import named_models
from musical_tf.command_line import import_quietly, missing_package
from musical_tf.contract import LAYOUTS, MASK_POLARITIES, STRATEGIES, VALUE_RANGES

from .errors import ExportError

RUN_HELP = (
    "run folder of training.fit (its generator.keras and recipe.json are read), a .keras file, or "
    f"an included model: {named_models.listed()}"
)


def add_contract_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--io` and `--layout`, which every export has."""
    parser.add_argument(
        "--io",
        choices=tuple(VALUE_RANGES),
        default="uint8",
        help="; ".join(
            f"{io}: image and result in {values}, mask {MASK_POLARITIES[io]}"
            for io, values in VALUE_RANGES.items()
        )
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nhwc",
        help="nhwc: image [batch, height, width, 3]; nchw: image [batch, 3, height, width]; the "
        "mask is [batch, height, width] in both (default: %(default)s)",
    )


def add_strategy_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--strategy`; `default` says in words what a file gets without it."""
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="how serving shows photographs to the model. crop: windows around each hole; resize: "
        "squares framed as in training; original: the whole image. Files without a strategy are "
        f"served with crop (default: {default})",
    )


def run_command(program: str, extras: str, action: Callable[[], object]) -> int:
    """Runs an export, and prints what went wrong as one line.

    `extras` are those of the package that bring what the command needs, as "train,export".

    Returns:
        The exit code: 0; 1 if the export failed; 2 if it cannot be done; 130 if it was interrupted.
    """
    try:
        quiet_tensorflow()
        action()
        return 0
    except ExportError as error:
        message, code = str(error), 1
    except ModuleNotFoundError as error:
        message, code = missing_package(error, extras), 1
    except (OSError, ValueError) as error:
        message, code = str(error), 2
    except KeyboardInterrupt:
        message, code = "interrupted; nothing was written", 130
    print(f"{program}: error: {message}", file=sys.stderr)
    return code


def quiet_tensorflow() -> None:
    """Keeps TensorFlow to errors, and to the CPU: a GPU's TF32 would count as a difference."""
    import_quietly("tensorflow")
    import absl.logging
    import tensorflow as tf

    # Through absl's own switch: its logger puts the level of a plain setLevel back.
    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(RuntimeError):  # already in use: then the caller has chosen
        tf.config.set_visible_devices([], "GPU")
