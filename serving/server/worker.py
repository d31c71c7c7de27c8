"""A process that decodes and encodes the images of strangers, and that can be killed.

`worker_pool` starts the process and sends it work through a pipe; this module runs in the process.
It imports Pillow, NumPy and `musical_tf.images`, not the rest of the server. Each piece of
work may use an amount of memory and of processor time that grows with the image. Linux enforces
both limits, macOS the second, Windows none. Too much memory raises `TooCostlyError`; too much time
ends the process.
"""

import contextlib
import io
import math
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf import images
from musical_tf.images.opening import size_of

from . import allocator

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SECONDS = 5.0
"""Seconds of processor time that any image may take to decode."""

PIXELS_PER_SECOND = 3_000_000
"""Pixels that an image may have for each further second. The slowest, RGBA of 16 bits in a PNG,
decode four times as fast on a slow core."""

MEMORY = 256 * 2**20
"""Bytes that any image may take to decode or encode."""

BYTES_OF_FILE = 4
"""Bytes beyond `MEMORY` for each byte of a file: its copies, and what is unpacked from it."""

BYTES_TO_DECODE = 32
"""Bytes beyond `MEMORY` for each pixel: as decoded, as turned upright, and as returned. RGBA of 16
bits needs 24."""

BYTES_TO_ENCODE = 64
"""Bytes beyond `MEMORY` for each pixel: lossless WebP needs about half of it."""

_HEAD = struct.Struct("<I")


class TooCostlyError(images.ImageError):
    """An image that would take more memory or processor time than it may."""


def read(function: str, content: Any, **options: Any) -> Any:
    """`images.read_photograph` or `images.load_mask` of a file's bytes, within limits."""
    memory = MEMORY + BYTES_OF_FILE * len(content)
    name = f"{options['name']}: decoding it"
    with limits(name, memory, SECONDS):
        pixels = min(math.prod(size_of(bytes(content))), options["max_pixels"])
    with limits(name, memory + BYTES_TO_DECODE * pixels, SECONDS + pixels / PIXELS_PER_SECOND):
        return getattr(images, function)(io.BytesIO(content), **options)


def encode_photograph(
    photograph: images.Photograph, *arguments: Any, seconds: float, **options: Any
) -> bytes:
    """`images.encode_photograph`, within limits."""
    pixels = photograph.pixels.shape[0] * photograph.pixels.shape[1]
    with limits("encoding the result", MEMORY + BYTES_TO_ENCODE * pixels, seconds):
        return images.encode_photograph(photograph, *arguments, **options)


def send(stream: io.RawIOBase, message: Any) -> None:
    """Writes any object to an unbuffered pipe; arrays go without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    head = _HEAD.pack(len(views)) + struct.pack(f"<{len(views)}Q", *map(len, views))
    for view in (memoryview(head), *views):
        while view:
            view = view[stream.write(view) or 0 :]


def receive(stream: io.RawIOBase) -> Any:
    """Reads what `send` wrote; arrays can be written to.

    Raises:
        EOFError: If the other side has ended.
    """
    (count,) = _HEAD.unpack(_read(stream, _HEAD.size))
    sizes = struct.unpack(f"<{count}Q", _read(stream, 8 * count))
    content, *buffers = [_read(stream, size) for size in sizes]
    return pickle.loads(content, buffers=buffers)


def _read(stream: io.RawIOBase, size: int) -> bytearray:
    content = bytearray(size)
    view = memoryview(content)
    while view:
        count = stream.readinto(view)
        if not count:
            raise EOFError("the other side of the pipe has ended")
        view = view[count:]
    return content


def main() -> None:
    """Works until the pipe at standard input ends, and then leaves at once.

    Every message is `(function, arguments, named arguments)`; every reply is `(True, result)` or
    `(False, exception)`. The first reply says that the process is ready.
    """
    allocator.give_back_freed_memory()
    # The process that started this one ends it: a signal to the group or the service must not.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    target = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print must not go into the pipe
    warnings.filterwarnings("ignore", module=r"PIL\.")  # `images` deals with what they say
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _warm_up()
    work: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(source, work), daemon=True).start()
    _send(target, (True, None))
    while True:
        _reply(target, *work.get())


def _listen(source: io.RawIOBase, work: queue.SimpleQueue) -> None:
    """Passes messages on; ends the process in the middle of its work if it is abandoned."""
    code = 1
    try:
        while True:
            work.put(receive(source))
    except EOFError:
        code = 0
    finally:
        os._exit(code)


def _reply(
    target: io.RawIOBase, function: Callable[..., Any], arguments: tuple, named: dict[str, Any]
) -> None:
    try:
        reply = True, function(*arguments, **named)
    except Exception as error:
        reply = False, error.with_traceback(None)
        reply[1].__cause__ = reply[1].__context__ = None
        try:
            pickle.loads(pickle.dumps(reply))
        except Exception:
            reply = False, RuntimeError(f"{type(error).__name__}: {error}")
    _send(target, reply)


def _send(target: io.RawIOBase, reply: tuple[bool, Any]) -> None:
    try:
        send(target, reply)
    except OSError:  # the server is gone
        os._exit(0)


def _warm_up() -> None:
    """Does once what the first image would wait for: Pillow imports its formats late."""
    photograph = images.Photograph(np.zeros((1, 1, 3), np.uint8))
    for image_format in ("PNG", "JPEG", "WEBP"):
        content = images.encode_photograph(photograph, photograph.pixels, image_format)
        images.read_photograph(io.BytesIO(content), name="")
    with contextlib.suppress(images.ImageError):
        images.read_photograph(io.BytesIO(b"no image"), name="")  # tries every format


@contextlib.contextmanager
def limits(what: str, memory: int, seconds: float):
    """Bounds what is done within; see the module."""
    if resource is None:
        yield
        return
    _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))
    used = _address_space()
    if used is None:
        yield
        return
    _limit(resource.RLIMIT_AS, used + memory)
    try:
        yield
    except MemoryError:
        raise TooCostlyError(
            f"{what} takes more than {memory >> 20} MiB of memory, and was stopped"
        ) from None
    finally:
        _limit(resource.RLIMIT_AS, None)


def _limit(kind: int, value: int | None) -> None:
    """Sets a limit that can be moved again; None is as much as there may be."""
    hard = resource.getrlimit(kind)[1]
    if value is None or (hard != resource.RLIM_INFINITY and value > hard):
        value = hard
    resource.setrlimit(kind, (value, hard))


def _address_space() -> int | None:
    """Bytes that this process has mapped; None where it cannot be known, as on macOS."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


def command(package: str) -> list[str]:
    """The command line of a worker that finds the same modules as this process.

    Not by multiprocessing, whose processes import the program's main module once more.
    """
    code = (
        "import sys; package, sys.path[:] = sys.argv[1], sys.argv[2:]; "
        "import importlib; importlib.import_module(package + '.worker').main()"
    )
    return [sys.executable, "-c", code, package, *sys.path]
