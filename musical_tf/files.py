"""Files written whole or not at all. It imports the standard library only."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

_PREFIX = ".partial-"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary sibling of `path` to write to, which is renamed to `path` at the end.

    The temporary name has the suffix of `path` and does not grow with its name, so that names of
    the file system's greatest length can be written.

    Yields:
        The temporary path. The file does not exist yet.

    Raises:
        OSError: If the folder cannot be written or the disk is full; it names `path`. The temporary
            file is removed, and the file at `path` is unchanged.
    """
    path = Path(path)
    suffix = path.suffix if len(path.suffix.encode()) <= 16 else ""
    partial = path.with_name(f"{_prefix(path.name)}{secrets.token_hex(4)}{suffix}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno:  # name the file that the user knows
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        OSError: See `whole_file`.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path) as partial, open(partial, "xb") as stream:
        stream.write(data)


def remove_partials(folder: str | Path, names: Iterable[str]) -> int:
    """Removes the temporary files that killed processes left in a folder.

    Args:
        folder: The folder.
        names: Names of the files that were being written; temporary files of others stay.

    Returns:
        The number of files removed.

    Raises:
        OSError: If the folder cannot be read or a file cannot be removed.
    """
    prefixes = {_prefix(name) for name in names}
    length = len(_prefix(""))
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[:length] in prefixes:
                os.unlink(entry.path)
                removed += 1
    return removed


def _prefix(name: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"
