"""Files written whole or not at all, and opened without waiting. Standard library only."""

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, which does not remove open files
    fcntl = None  # type: ignore[assignment]

_PREFIX = ".partial-"


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a temporary sibling of `path` to write to, which is renamed to `path` at the end.

    The file does not exist yet. The temporary name has the suffix of `path` and does not grow with
    its name, so that names of the file system's greatest length can be written.

    Raises:
        OSError: If the folder cannot be written or the disk is full; it names `path`. The temporary
            file is removed, and the file at `path` is unchanged.
    """
    path = Path(path)
    suffix = path.suffix if len(path.suffix.encode()) <= 16 else ""
    partial = path.with_name(f"{_prefix(path.name)}{os.urandom(4).hex()}{suffix}")
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
    """Writes a file whole or not at all, with the mode of the file that is replaced.

    The owner is kept where that is permitted. Errors: see `whole_file`.
    """
    data = content.encode() if isinstance(content, str) else content
    with whole_file(path) as partial, open(partial, "xb") as stream:
        with contextlib.suppress(OSError):  # a file system without locks
            lock(stream)
        _copy_permissions(path, stream.fileno())
        stream.write(data)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading. The opening of a FIFO would wait for a writer.

    Raises:
        OSError: If it cannot be opened, or is a FIFO, a device or a socket.
    """
    # O_BINARY is of Windows, the others are of POSIX.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket, or a device that is not there
            raise
        mode = os.stat(path).st_mode
    else:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, f"must be a regular file, got a {_kind(mode)}", str(path))


def check_writable_kind(path: str | Path) -> None:
    """Refuses to write in place of a FIFO, a device, a socket or a folder: `OSError`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"must be a regular file, got a {_kind(mode)}", str(path))


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "FIFO" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def remove_partials(folder: str | Path, names: Iterable[str]) -> int:
    """Removes the temporary files that killed processes left in a folder, and counts them.

    Only those of files called `names`. The files of `write_whole` are locked while their process
    runs, and stay.

    Raises:
        OSError: If the folder cannot be read or a file cannot be removed.
    """
    prefixes = {_prefix(name) for name in names}
    length = len(_prefix(""))
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[:length] in prefixes and entry.is_file(follow_symlinks=False):
                with open(entry.path, "rb") as stream:
                    try:
                        is_free = lock(stream)
                    except OSError:  # a file system without locks
                        is_free = False
                if is_free:
                    os.unlink(entry.path)
                    removed += 1
    return removed


def lock(stream: BinaryIO, *, wait: float = 0.0, shared: bool = False) -> bool:
    """Locks an open file until it is closed, for this process or shared with others.

    Returns:
        False if others still hold the lock after `wait` seconds. Windows has no such lock: True.

    Raises:
        OSError: If the file system has no locks.
    """
    if fcntl is None:
        return True
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)
        else:
            return True


def _copy_permissions(path: str | Path, descriptor: int) -> None:
    """Gives an open file the owner, as far as permitted, and the mode of the file at `path`."""
    try:
        before = os.stat(path)
    except OSError:
        return
    if not hasattr(os, "fchown"):  # Windows
        return
    for owner in (before.st_uid, -1):
        try:
            os.fchown(descriptor, owner, before.st_gid)
        except OSError:
            continue
        break
    os.fchmod(descriptor, before.st_mode & 0o777)


def _prefix(name: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-"
