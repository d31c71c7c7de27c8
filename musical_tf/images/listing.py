"""Finds image files in folders."""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from musical_tf.image_formats import READABLE

MASK_NAME = re.compile(r"(.+)_mask\d*", re.DOTALL | re.IGNORECASE)
"""Names that a mask may have beside its photograph: `cat_mask` and `cat_mask001` for `cat`."""

MAX_REPEATS = 10_000
"""How often links may lead to folders that have been listed before."""


def find_images(
    folder: str | Path,
    *,
    excluded: Sequence[str | Path] = (),
    once: bool = False,
    left_out: list[Path] | None = None,
    unreadable: list[OSError] | None = None,
    loops: list[Path] | None = None,
) -> Iterator[Path]:
    """Lists the files below a folder that have the suffix of an image, as paths below it.

    Links are followed, except links to a folder that contains the link or `folder`. Hidden files
    and folders are left out. The files of a folder come first, then its subfolders, both in order
    of name.

    Args:
        folder: An existing folder.
        excluded: Files and folders to leave out.
        once: Lists a folder that several links lead to once.
        left_out, unreadable, loops: Get the other files, the errors of folders that cannot be
            listed, and the links that were not followed.

    Raises:
        OSError: If links lead to the same folders more than `MAX_REPEATS` times.
    """
    skipped = {os.path.realpath(path) for path in excluded}
    listed: set[str] = set()
    repeats = 0
    root = os.path.realpath(folder)
    waiting = [(str(folder), root, frozenset([root]))]
    while waiting:
        path, real, above = waiting.pop()
        repeats += real in listed
        if once and real in listed:
            continue
        if repeats > MAX_REPEATS:
            raise OSError(errno.ELOOP, "links lead to the same folders too often", path)
        listed.add(real)
        try:
            with os.scandir(real) as entries:  # `path` may go through more links than are allowed
                names = sorted((entry.name, entry.is_symlink()) for entry in entries)
        except OSError as error:
            if unreadable is not None:
                error.filename = path
                unreadable.append(error)
            continue
        folders = []
        for name, is_link in names:
            inner = os.path.join(path, name)
            target = os.path.join(real, name)
            target = os.path.realpath(target) if is_link else target
            if name.startswith(".") or target in skipped:
                continue
            if os.path.isdir(target):
                within = os.path.join(target, "")
                if any(one == target or one.startswith(within) for one in above):
                    if loops is not None:
                        loops.append(Path(inner))
                else:
                    folders.append((inner, target, above | {target}))
            elif Path(name).suffix.lower() in READABLE:
                yield Path(inner)
            elif left_out is not None:
                left_out.append(Path(inner))
        waiting += reversed(folders)


def masks_beside(paths: Iterable[Path]) -> set[Path]:
    """The files that are masks by `MASK_NAME`, of photographs in the same folder."""
    paths = list(paths)
    stems = {path.with_suffix("") for path in paths}
    matches = ((path, MASK_NAME.fullmatch(path.stem)) for path in paths)
    return {path for path, match in matches if match and path.with_name(match[1]) in stems}
