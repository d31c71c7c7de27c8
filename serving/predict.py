"""Fills holes in image files from the command line.

    python -m serving.predict PHOTO MASK RESULT
    python -m serving.predict --model faces --image PHOTO --mask MASK --output RESULT

`--image`, `--mask` and `--output` each take a file or a folder. With a folder of images the masks
are found by name without suffix (`cat.jpg` and `cat.png`, `cat_mask.png` or `cat_mask001.png`), in
the same subfolder; one mask file is used for every image; `--mask alpha` fills what is transparent.
`-` is standard input or output.

Exit code 0: everything was filled or skipped. 1: something failed while working; in a folder the
rest has been done, and the failures are listed at the end. 2: wrong usage or unusable input.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from musical_tf.arguments import Parser
from musical_tf.command_line import end
from musical_tf.version import __version__

from . import named_models
from .file_options import add_arguments, check_numbers
from .terminal import PROGRAM, clear_line, complain, say


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code, see above."""
    try:
        arguments = _parse(argv)
    except OSError as error:  # --list-models cannot be written
        complain(say(error))
        return 2
    from . import predict_files  # NumPy and Pillow, for which --help need not wait

    try:
        with warnings.catch_warnings():
            # What Pillow warns of, large images and damaged EXIF, is dealt with in `images`.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            check_numbers(arguments)
            return predict_files.run(arguments)
    except (OSError, ValueError) as error:
        complain(say(error))
        return 2
    except KeyboardInterrupt:
        clear_line()
        complain("interrupted; written files are complete; --skip-existing resumes")
        return 130


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if "--" in words:  # which argparse does not know between paths
        end_of_options = words.index("--")
        paths = (
            f"./{word}" if word.startswith("-") and word != "-" else word
            for word in words[end_of_options + 1 :]
        )
        words[end_of_options:] = paths
    arguments = parser.parse_intermixed_args(words)
    for name in ("image", "mask", "output"):
        if getattr(arguments, name) is None and arguments.paths:
            setattr(arguments, name, arguments.paths.pop(0))
    absent = [f"--{n}" for n in ("image", "mask", "output") if getattr(arguments, n) is None]
    if absent:
        parser.error(f"the following arguments are required: {', '.join(absent)}")
    if arguments.paths:
        parser.error(f"unrecognized arguments: {' '.join(arguments.paths)}")
    return arguments


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options] IMAGE MASK OUTPUT",
        description="Fills holes in photographs with an included model, or with a file exported by "
        f"export/to_onnx.py. Example: {PROGRAM} photo.jpg mask.png out.png",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="image, mask and output in this order, except those given as options",
    )
    add_arguments(parser)
    parser.add_argument(
        "--skip-existing", action="store_true", help="skip images whose output exists"
    )
    parser.add_argument(
        "--overwrite-input", action="store_true", help="allow an output to replace its own input"
    )
    parser.add_argument(
        "--list-models", action=named_models.ListModels, help="print the models' names and exit"
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def run() -> NoReturn:
    """Runs the command line and ends the process."""
    end(main())


if __name__ == "__main__":
    run()
