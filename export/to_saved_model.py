"""Exports a trained generator to a SavedModel that loads without our package.

Same mapping, same names and same checks as the ONNX file: `image`, `mask` -> `inpainted`, any
batch, height and width, known pixels bit for bit. For TensorFlow Serving give `--output` a
version number: `models/inpainting/1`. See docs/serving_savedmodel.md.

    python export/to_saved_model.py --run runs/celeba --output models/inpainting/1
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "export"
    from musical_tf.command_line import end_on_interrupt

    end_on_interrupt(True)

from musical_tf.arguments import Parser

from .command_line import RUN_HELP, add_contract_arguments, run_command
from .errors import ExportError
from .metadata import describe
from .parity import check_parity, describe_parity, measure_parity
from .serving_module import load_inpainting, save_module, serving_module, signature_runtime

DESCRIPTION_FILE = "assets.extra/musical_tf.json"
"""The contract's metadata inside the SavedModel; `assets.extra` is the folder TensorFlow leaves to
its users."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `command_line.run_command`."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    def action() -> None:
        report = export(arguments.run, arguments.output, arguments.io, arguments.layout)
        print(f"{arguments.output}: {describe_parity(report)}")

    return run_command(parser.prog, "train", action)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Exports a trained generator to a SavedModel that loads without musical_tf, "
        "for TensorFlow Serving (signature serving_default: image, mask -> inpainted).",
        epilog="The SavedModel is compared with Keras first, and not written if they differ by "
        f"more than one gray level. OUTPUT/{DESCRIPTION_FILE} has the figures and the metadata.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help=RUN_HELP)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="a new or empty folder, or a SavedModel, which is replaced",
    )
    add_contract_arguments(parser)
    return parser


def export(
    run: str | Path, output: str | Path, io: str = "uint8", layout: str = "nhwc"
) -> dict[str, Any]:
    """Exports the generator of `run` to the SavedModel folder `output`.

    The folder is written whole or not at all. An earlier SavedModel there is replaced, anything
    else is refused. Arguments: see `convert.export`.

    Returns:
        The parity report, see `measure_parity`.

    Raises:
        FileNotFoundError, ValueError: If `run` holds no generator, an argument is unknown, or
            `output` holds something else.
        OSError: If `output` cannot be written.
        ExportError: If writing fails on the way, or the SavedModel differs from Keras by more than
            `TOLERANCES` allows.
    """
    import tensorflow as tf

    output = Path(output)
    staging = _staging_folder(output)
    try:
        inpaint = load_inpainting(run, io, layout)
        description = describe(run, inpaint)
        # mkdtemp made a private folder; the one saved inside it has ordinary permissions.
        saved = staging / "saved_model"
        save_module(serving_module(inpaint), saved)
        report = measure_parity(
            inpaint,
            {"saved_model": signature_runtime(tf.saved_model.load(str(saved)))},
            training_size=int(description["training_size"]),
        )
        check_parity(report)

        description["parity"] = json.dumps(report["runtimes"]["saved_model"])
        try:
            (saved / DESCRIPTION_FILE).parent.mkdir(exist_ok=True)
            (saved / DESCRIPTION_FILE).write_text(
                json.dumps({**description, "parity_report": report}, indent=1) + "\n",
                encoding="utf-8",
            )
            _replace_folder(saved, output, staging / "previous")
        except OSError as error:
            raise ExportError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _staging_folder(output: Path) -> Path:
    """Creates the temporary folder beside `output` in which it is made.

    Refuses an `output` that is there and no SavedModel: replacing it would delete someone's files.
    """
    if output.exists():
        if not output.is_dir():
            raise NotADirectoryError(f"cannot write {output}: it is a file; a folder is expected")
        if any(output.iterdir()) and not (output / "saved_model.pb").is_file():
            raise FileExistsError(
                f"cannot write {output}: it holds more than a SavedModel; give a new folder"
            )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise OSError(f"cannot write {output}: {error.strerror or error}") from error


def _replace_folder(source: Path, target: Path, previous: Path) -> None:
    """Renames `source` to `target`.

    What was there goes to `previous` first: a folder that is not empty cannot be renamed over.
    """
    if not target.exists():
        os.rename(source, target)
        return
    os.rename(target, previous)
    try:
        os.rename(source, target)
    except OSError:
        os.rename(previous, target)
        raise


if __name__ == "__main__":
    sys.exit(main())
