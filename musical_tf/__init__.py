"""Image inpainting by multi-scale contextual attention (MUSICAL) in Keras.

Everything but the version is imported on first use: the installed `musical_tf.serving` lives in
this package and has to start without TensorFlow.

`inpaint` and `list_models` belong to `serving`, and only their names stand here. This is the one
exception to the rule that the library does not know who uses it: no module of the library imports
`serving`, and nothing of `serving` is imported until a caller asks for one of the two names.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

# pip checks this; a checkout is run by any Python.
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(f"musical_tf needs Python 3.11 or later, got {sys.version.split()[0]}")

from musical_tf import keras_registration
from musical_tf.version import __version__

_FUNCTIONS = ("create", "load")
_MODULES = (
    *("conventions", "discriminators", "inference", "layers", "losses", "methods", "metrics"),
    "named_models",
)

_OF_SERVING = ("inpaint", "list_models")

__all__ = ["__version__", *_FUNCTIONS, *_MODULES, *_OF_SERVING]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("musical_tf.methods"), name)
    if name in _MODULES:
        return importlib.import_module(f"musical_tf.{name}")
    if name in _OF_SERVING:
        return getattr(importlib.import_module(f"{_serving()}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _serving() -> str:
    """The name of `serving`: top-level in the checkout of this file, installed a subpackage."""
    beside = Path(__file__).parents[1] / "serving" / "__init__.py"
    spec = importlib.util.find_spec("serving") if beside.is_file() else None
    found = spec is not None and spec.origin is not None and beside.samefile(spec.origin)
    return "serving" if found else "musical_tf.serving"


def __dir__() -> list[str]:
    return sorted(__all__)


keras_registration.register_now_or_later()
