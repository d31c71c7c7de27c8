"""Exports a trained generator to one ONNX file that needs nothing else of ours.

The file maps `image` and `mask` to `inpainted`, and to `source` if it copies pixels. Padding,
scaling, masking and compositing are inside the graph, any batch, height and width (16 up) are
accepted, known pixels come back bit for bit. Before it is written, ONNX Runtime, the SavedModel and
Keras are run on the same photographs and holes; if they differ by more than `TOLERANCES` allows
nothing is written. The figures lie beside the file (`model.parity.json`) and, summed up, in its
metadata. docs/onnx.md is the contract.

    python export/to_onnx.py --run runs/celeba --output model.onnx
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "export"
    from musical_tf.command_line import end_on_interrupt

    end_on_interrupt(True)

from musical_tf.arguments import Parser

from .command_line import RUN_HELP, add_contract_arguments, add_strategy_argument, run_command
from .convert import OPSETS, export, parity_path
from .parity import describe_parity
from .precision import PRECISIONS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `command_line.run_command`."""
    parser = _parser()
    arguments = parser.parse_args(argv)

    def action() -> None:
        report = export(**vars(arguments))
        size = Path(arguments.output).stat().st_size / 2**20
        print(f"{arguments.output}: {size:.1f} MiB, opset {arguments.opset}")
        print(f"{parity_path(arguments.output)}: {describe_parity(report)}")

    return run_command(parser.prog, "train,export,serve", action)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Exports a trained generator to one ONNX file, which takes `image` and `mask` "
        "of any size and returns `inpainted`.",
        epilog="The file is compared with Keras first, and not written if they differ by more than "
        "the tolerance of the precision. OUTPUT with the suffix .parity.json has the figures. "
        "docs/onnx.md has the contract and the cost of each precision.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help=RUN_HELP)
    parser.add_argument("--output", required=True, metavar="FILE", help="the .onnx file to write")
    add_contract_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="float32; float16: convolutions, their weights and activations in float16, half the "
        "size; int8: weights stored as int8, computed in float32, a quarter of the size (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--opset", type=int, choices=OPSETS, default=17, help="ONNX opset (default: %(default)s)"
    )
    parser.add_argument(
        "--attention-max-scores",
        type=int,
        metavar="N",
        help="limit the memory of the attention, which then processes the hole in bands of rows "
        "with at most N scores of 4 bytes; a small N costs time (default: no limit)",
    )
    parser.add_argument(
        "--fill",
        choices=("copy", "network"),
        help="copy: the file copies known pixels into the hole; network: the network's own fill, "
        "in half the time, without loops in the graph (default: as the model is configured)",
    )
    add_strategy_argument(parser, "that of an included model, else none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
