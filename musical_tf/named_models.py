"""The names of the methods, and the trained generators that are part of the package.

`export.ship` writes a generator's `.keras` file and its card, `weights/NAME.keras` and
`weights/NAME.json`. `serving` has the same network as an ONNX file. Imports no Keras: readers of
names and recipes need not wait for it.

A checkout has both files. Installed, the cards are in `musical-tf`, and `musical-tf-weights` has
the `.keras` files and the weights of VGG16 and LPIPS, which only training and evaluation read.
"""

import json
import pkgutil
from pathlib import Path
from typing import Any, TypeGuard

FOLDER = Path(__file__).with_name("weights")
_METHODS = Path(__file__).with_name("methods")


def methods() -> list[str]:
    """The names of the methods, sorted: one module of `musical_tf.methods` each."""
    return sorted({module.name for module in pkgutil.iter_modules([str(_METHODS)])} - {"base"})


def names() -> list[str]:
    """The names of the models with a card, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def weights_file(name: str) -> Path:
    """A file of weights that `musical-tf-weights` installs.

    Raises `FileNotFoundError` if it is not installed; says how to install it.
    """
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: these weights are a package of their own; pip install musical-tf-weights, or "
            "use a checkout"
        )
    return path


def listed() -> str:
    """The names for a message."""
    return ", ".join(names()) or "none in this installation"


def is_name(source: Any) -> TypeGuard[str]:
    """Whether this is the name of a generator.

    Text that is a name means the named generator, whatever is in the working directory: `./faces`,
    or a `Path`, is a file or folder.
    """
    return isinstance(source, str) and source in names()


def file(name: str) -> Path:
    """The `.keras` file of a generator.

    Raises:
        ValueError: On an unknown name; lists the names.
        FileNotFoundError: If it is not installed; says how to install it.
    """
    return weights_file(f"{_known(name)}.keras")


def card(name: str) -> dict[str, Any]:
    """The card of a generator.

    Returns:
        What `export.ship` wrote: `recipe`, `data`, `licence`, `stages` with their compute and
        `total`, `files` with their hashes, `parity`; `strategy`, how the ONNX file asks to look at
        large photographs, where it does; and `metrics`, what was measured since.

    Raises:
        ValueError: On an unknown name (lists the names), or a card that is not JSON.
        OSError: If there is no card.
    """
    path = FOLDER / f"{_known(name)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a model card: {error}") from error


def _known(name: str) -> str:
    if name not in names():
        raise ValueError(f"unknown model name {name!r}; expected one of: {listed()}")
    return name
