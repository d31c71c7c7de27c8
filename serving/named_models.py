"""The models that are part of the package, by name: files `models/NAME.onnx` beside this module.

`export.ship` puts them there. What each was trained on, and its licence, is in its metadata and in
MODEL_CARD.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from musical_tf import named_models as library
from musical_tf.arguments import complete_by

FOLDER = Path(__file__).parent / "models"

DEFAULT = "photo"
"""The model that is used where none is asked for."""


def names() -> list[str]:
    """The names of the models that this installation has, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.onnx"))


def listed() -> str:
    """The names for a message."""
    return ", ".join(names()) or "none in this installation"


def table() -> str:
    """The names and the photographs that each model was trained on, in 80 columns."""
    import textwrap  # few commands need it

    rows = []
    for name in names():
        label = f"{name}{' (default)' if name == DEFAULT else ''}"
        try:
            data = library.card(name)["data"]
        except (OSError, ValueError, KeyError):  # no card
            data = ""
        rows.append(textwrap.fill(f"{label:<17}{data}", 80, subsequent_indent=" " * 17).rstrip())
    return "\n".join(rows) or listed()


def find(model: str | Path) -> Path:
    """The file of a model.

    Args:
        model: A name, or the path of a file. Text that is a name means the named model, whatever is
            in the working directory: `./photo`, or a `Path`, is a file.

    Returns:
        The path of a file or folder that exists.

    Raises:
        FileNotFoundError: If it is neither; the message lists the names.
    """
    if isinstance(model, str) and model in names():
        return FOLDER / f"{model}.onnx"
    if model != "" and Path(model).exists():  # `Path("")` is the working directory
        return Path(model)
    if library.is_name(model) and "onnx" not in library.card(model)["files"]:
        raise FileNotFoundError(
            f"{model}: only its weights are included; "
            f"python export/to_onnx.py --run {model} --output {model}.onnx"
        )
    raise FileNotFoundError(f"{model}: no such model file, nor a model's name (names: {listed()})")


def name_of(file: Path) -> str:
    """What a model is called: its name if it is part of the package, else the file's name."""
    return file.stem if file.parent == FOLDER else file.name


def add_argument(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Adds `--model` to a command line; `find` reads what it gets.

    Args:
        parser: The command line's.
        several: Whether it takes more than one.
    """
    text = f"an included model ({listed()}) or an .onnx file (default: {DEFAULT})"
    if several:
        text += "; the first of several is the default"
        action = parser.add_argument(
            "--model", nargs="+", action=_Several, default=[DEFAULT], metavar="MODEL", help=text
        )
    else:
        action = parser.add_argument("--model", default=DEFAULT, metavar="MODEL", help=text)
    complete_by(action, names(), ".onnx")


class ListModels(argparse.Action):
    """`--list-models` prints the names and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:  # noqa: D102
        print(table())
        parser.exit()


class _Several(argparse.Action):
    """`--model A --model B` is `--model A B`; what is given replaces the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if given is self.default else [*given, *values])
