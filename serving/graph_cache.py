"""Keeps the models of the package in ONNX Runtime's own format, which opens in half the time.

The file is written when a model is opened for the first time, into `musical-tf` in the user's
cache; `MUSICAL_CACHE` names another folder, and an empty `MUSICAL_CACHE` keeps none. It holds the
graph after ONNX Runtime's basic optimizations, which depend on no processor, and belongs to one
model file and one version of ONNX Runtime. A model file is told by its size, its time and its last
bytes, which are its metadata with the hash of the weights: a hash of all takes 8 ms.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from musical_tf.files import whole_file

VARIABLE = "MUSICAL_CACHE"

_TAIL = 2**16  # bytes


def file_of(model: Path, version: str) -> Path | None:
    """Where a model is kept, whether it is there or not; None if none is kept.

    Args:
        model: The ONNX file.
        version: Of ONNX Runtime.
    """
    folder = os.environ.get(VARIABLE)
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(base, "musical-tf")
    if not os.path.isabs(folder):
        return None
    with open(model, "rb") as stream:
        state = os.fstat(stream.fileno())
        stream.seek(max(0, state.st_size - _TAIL))
        told = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns} ".encode() + stream.read())
    return Path(folder, f"{model.stem}-{told.hexdigest()[:16]}-{version}-basic.ort")


def open_through(file: Path, options: Any, create: Callable[[str | None], Any]) -> Any:
    """A session from the kept file, or a new one, which is kept.

    Args:
        file: From `file_of`.
        options: The session's; changed while the file is written.
        create: Opens a session of a file; of the model itself for None.
    """
    if file.is_file():
        with contextlib.suppress(Exception):  # damaged: written once more
            return create(str(file))
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(file) as partial:
            options.optimized_model_filepath = str(partial)
            options.add_session_config_entry("session.save_model_format", "ORT")
            return create(None)
    except Exception:  # nowhere to write, or ONNX Runtime cannot: none is kept
        options.optimized_model_filepath = ""
        return create(None)
    finally:
        options.optimized_model_filepath = ""
