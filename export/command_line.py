"""What the command lines that export share: arguments, messages, exit codes."""

import argparse
import contextlib
import logging
import os
import sys

from musical_tf.contract import LAYOUTS, STRATEGIES, VALUE_RANGES

IOS = tuple(VALUE_RANGES)


def add_contract_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--io` and `--layout`, which every export has."""
    parser.add_argument(
        "--io",
        choices=IOS,
        default="uint8",
        help="uint8: image and result in [0, 255], mask above 127 = hole; float32: image and "
        "result in [0, 1], mask above 0.5 = hole (default: %(default)s)",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nhwc",
        help="nhwc: image [batch, height, width, 3]; nchw: image [batch, 3, height, width]; the "
        "mask is [batch, height, width] in both (default: %(default)s)",
    )


def add_strategy_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--strategy`, which every command that writes an ONNX file has.

    Args:
        parser: The command line's.
        default: What is named without the flag, in words.
    """
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="how the file asks to be shown a photograph: crop, windows around each hole; resize, "
        "squares framed as in training; original, as it is; serving uses crop for a file that "
        f"names none (default: {default})",
    )


def quiet_tensorflow() -> None:
    """Keeps TensorFlow to errors, and to the CPU: a GPU's TF32 would count as a difference."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import absl.logging
    import tensorflow as tf

    # Through absl's own switch: its logger puts the level of a plain setLevel back.
    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(RuntimeError):  # already in use: then the caller has chosen
        tf.config.set_visible_devices([], "GPU")


def describe_missing(error: ModuleNotFoundError, extras: str) -> str:
    """Says which package is missing and which extras of ours bring it."""
    package = (error.name or str(error)).partition(".")[0]
    return (
        f"the Python package {package} is not installed; "
        f"pip install 'musical-tf[{extras}]' brings what this command needs"
    )


def fail(program: str, message: object, code: int) -> int:
    """Prints the one line that says what went wrong; returns `code`."""
    print(f"{program}: error: {message}", file=sys.stderr)
    return code
