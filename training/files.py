"""Files written whole or not at all."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name beside it and renames it into place.

    Raises:
        OSError: If it cannot be written; what was at `path` is untouched.
    """
    partial = path.with_name(f".partial-{path.name}")
    data = content.encode() if isinstance(content, str) else content
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_model(model: "keras.Model", path: Path) -> None:
    """Writes a model to a `.keras` file, whole or not at all.

    Raises:
        OSError: If it cannot be written; what was at `path` is untouched.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        model.save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
