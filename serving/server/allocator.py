"""Makes the C library give freed memory back, so that a process that runs for days stays flat."""

import ctypes
import sys

_THRESHOLD = 128 * 1024  # bytes
_ARENAS = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt, from malloc.h


def give_back_freed_memory() -> None:
    """Fixes glibc's thresholds for this process; does nothing with another C library.

    glibc raises its threshold for separate mappings to the largest block that was freed, up to
    32 MiB. Blocks below the threshold share heaps, one for each thread, and a small block that
    stays keeps a heap from shrinking. With a fixed threshold and few heaps every large body,
    photograph and tensor goes back to the system when it is freed.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return
    for option, value in (
        (_MMAP_THRESHOLD, _THRESHOLD),
        (_TRIM_THRESHOLD, _THRESHOLD),
        (_ARENA_MAX, _ARENAS),
    ):
        mallopt(option, value)
