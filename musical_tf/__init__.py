"""Image inpainting by multi-scale contextual attention (MUSICAL) in Keras.

Everything but the version is imported on first use: the installed `musical_tf.serving` lives in
this package and has to start without TensorFlow.
"""

import importlib
from typing import Any

from musical_tf import keras_registration
from musical_tf.version import __version__

_FUNCTIONS = ("create", "load")
_MODULES = (
    *("conventions", "discriminators", "inference", "layers", "losses", "methods", "metrics"),
    "named_models",
)

__all__ = ["__version__", *_FUNCTIONS, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("musical_tf.methods"), name)
    if name in _MODULES:
        return importlib.import_module(f"musical_tf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


keras_registration.register_now_or_later()
