"""The folder of `--output-dir`, in which the server saves every result."""

import errno
import itertools
import os
import re
import secrets
from pathlib import Path, PurePosixPath

_LONGEST_STEM = 100  # characters
_SUFFIXES = {"jpeg": ".jpg", "tiff": ".tif"}
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def open_folder(path: str | Path) -> Path:
    """The folder, made if it is missing.

    Raises:
        OSError: If it cannot be made or written to.
    """
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    probe = _partial(folder)
    probe.write_bytes(b"")
    probe.unlink()
    return folder


def save(folder: Path, photograph: str, image_format: str, content: bytes) -> str:
    """Saves a result whole or not at all, under a name that no other file has.

    Args:
        folder: What `open_folder` returned.
        photograph: The file name that the client gave; its last part, cleaned, begins the name.
        image_format: The format of the result, as requests call it.
        content: The file.

    Returns:
        The file's name; a number at its end keeps it apart from those that are there.

    Raises:
        OSError: If the file cannot be written; nothing is left of it.
    """
    last = PurePosixPath(photograph.replace("\\", "/")).name
    stem = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "_", PurePosixPath(last).stem).strip(". ")
    stem = f"{stem[:_LONGEST_STEM] or 'photograph'}-inpainted"
    suffix = _SUFFIXES.get(image_format, f".{image_format}")
    partial = _partial(folder)
    try:
        partial.write_bytes(content)
        for number in itertools.count(1):
            target = folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
            if not os.path.lexists(target) and _rename(partial, target):
                return target.name
    finally:
        partial.unlink(missing_ok=True)
    raise AssertionError("the numbers do not end")


def _partial(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(8)}.part"


def _rename(partial: Path, target: Path) -> bool:
    """Gives a file its name; False if another file has got that name in the meantime."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(partial, target)  # a file system without hard links
    return True
