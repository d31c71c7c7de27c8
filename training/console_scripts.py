"""The commands of an installed package: `musical-fit`, `musical-evaluate`, ...

Each starts the command line of its name. All commands are installed whatever the extras, so a
command without its packages names the extras that bring them.
"""

import importlib
import sys
from functools import partial

from musical_tf.command_line import end_on_interrupt, missing_package

_ROOT = __name__.removesuffix("training.console_scripts")
"""`musical_tf.` once installed, nothing in a checkout."""


def _start(program: str, module: str, extras: str, function: str = "main") -> int:
    end_on_interrupt(True)
    try:
        return getattr(importlib.import_module(f"{_ROOT}{module}"), function)()
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent in ("", "musical_tf", "training", "export", "serving"):
            raise
        print(f"{program}: error: {missing_package(error, extras)}", file=sys.stderr)
        return 1


fit = partial(_start, "musical-fit", "training.fit", "train")
evaluate = partial(_start, "musical-evaluate", "training.evaluate", "train")
compare = partial(_start, "musical-compare", "training.compare", "train")
export = partial(_start, "musical-export", "export.to_onnx", "train,export,serve")
inpaint = partial(_start, "musical-inpaint", "serving.predict", "serve", "run")
inpaint_many = partial(_start, "musical-inpaint-many", "serving.predict_many", "batch,serve")
serve = partial(_start, "musical-serve", "serving.server", "server,serve")
