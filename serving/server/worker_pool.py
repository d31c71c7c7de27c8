"""The pool of worker processes in which a server decodes and encodes the images of strangers.

A thread cannot be stopped, so a hostile file may occupy it for minutes. A process can be killed
when its job is abandoned, exceeds its limits or crashes a decoder. The pool then starts another.
A worker is also replaced after `JOBS` pieces of work, in case its libraries leak memory.

Pickles and pixels travel through pipes. A worker is no sandbox: it runs as the same user.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, BinaryIO, cast

import numpy as np

from musical_tf.images import ImageError, Mask, Photograph

from . import worker
from .jobs import AbandonedError, Job
from .settings import TOKEN_VARIABLE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

JOBS = 500
"""Pieces of work after which a worker is replaced."""

GRACE = 0.5
"""Seconds that a worker has to finish an abandoned job before it is killed."""

REASONS = ("abandoned", "crashed", "memory", "processor", "recycled")
"""Why a worker was ended."""

_STARTING = 60.0  # seconds that a worker may take to start on a busy machine
_RETRY = 1.0  # seconds until another one is started after one that did not start
_FAILURES = 3  # attempts for each process, until `wait_until_ready` gives up
_PIPE = 2**20  # bytes of a pipe, where they can be chosen: fewer turns for large images


class WorkerError(RuntimeError):
    """A worker process that did not start, or that failed in a way that is no image's fault."""


class WorkerPool:
    """Worker processes, and the functions of `musical_tf.images` run in them.

    Args:
        workers: Number of processes.
        seconds: Seconds of processor time for one result to be encoded.
        observe: Called with one of `REASONS` when a worker was ended.
    """

    def __init__(
        self, workers: int, seconds: float, observe: Callable[[str], None] | None = None
    ) -> None:
        self.workers = workers
        self.seconds = seconds
        self._observe = observe or (lambda reason: None)
        self._changed = threading.Condition()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._started = 0
        self._failed = 0  # attempts to start a process, since one has started
        self._failure = ""
        self._closed = False

    def start(self) -> None:
        """Starts the processes; does not wait for them."""
        for _ in range(self.workers):
            self._begin()

    def wait_until_ready(self) -> None:
        """Waits until every process has started.

        Raises:
            WorkerError: If they do not start.
            AbandonedError: If the pool was closed.
        """
        with self._changed:
            while self.alive < self.workers:
                if self._closed:
                    raise AbandonedError
                if self._failed >= _FAILURES * self.workers:
                    raise WorkerError(self._failure)
                self._changed.wait()

    @property
    def alive(self) -> int:
        """How many processes have started and not ended."""
        return len(self._all)

    @property
    def failure(self) -> str | None:
        """Why no process is alive, where the latest attempt to start one failed."""
        with self._changed:
            return self._failure if self._failed and not self._all else None

    def close(self) -> None:
        """Ends all processes; jobs that use one get `AbandonedError`."""
        with self._changed:
            self._closed = True
            for each in self._idle:
                each.requests.close()
                each.replies.close()
            ended, self._all, self._idle = self._all, set(), []
            for each in ended:
                each.reason = each.reason or "closed"
                each.process.kill()
            self._changed.notify_all()
        for each in ended:
            each.process.wait()

    def run(
        self,
        job: Job,
        function: Callable[..., Any],
        *arguments: Any,
        what: str = "its work",
        **named: Any,
    ) -> Any:
        """Calls a function in a worker.

        Args:
            job: Whose work it is. If it is abandoned, the worker has `GRACE` seconds to finish.
            function: A function of a module, not of `__main__`.
            *arguments, **named: Of the function.
            what: What is done, for messages.

        Raises:
            AbandonedError: If the job was abandoned.
            TooCostlyError: If the image exceeds the limits.
            ImageError: If the decoder crashed.
            MemoryError: If the system killed the worker.
            Exception: What the function raises.
        """
        each = self._take(job)
        reason = None
        try:
            each.calls += 1
            call = each.calls
            with job.when_abandoned(lambda: self._kill_later(each, call)):
                worker.send(each.requests, (function, arguments, named))
                is_result, result = worker.receive(each.replies)
        except (EOFError, OSError):
            reason, error = each.why_it_ended(what)
            raise error from None
        except BaseException:
            reason = "crashed"  # half a message is in its pipe
            raise
        else:
            if isinstance(result, (worker.TooCostlyError, MemoryError)):
                reason = "memory"
            elif each.calls >= each.limit:
                reason = "recycled"
        finally:
            self._give_back(each, reason)
        if is_result:
            return result
        raise result

    def _take(self, job: Job) -> "_Worker":
        with self._changed:
            while True:
                job.check()
                if self._closed:
                    raise AbandonedError
                while self._idle:
                    each = self._idle.pop()
                    if each.process.poll() is None:
                        return each
                    self._end(each, "crashed")
                self._changed.wait(0.1)

    def _give_back(self, each: "_Worker", reason: str | None) -> None:
        with self._changed:
            if reason is None and each.reason is None and not self._closed:
                self._idle.append(each)
                self._changed.notify()
            else:
                self._end(each, each.reason or reason or "recycled")

    def _end(self, each: "_Worker", reason: str) -> None:
        """Ends a worker and starts another one; `_changed` is held."""
        each.process.kill()
        each.requests.close()
        each.replies.close()
        if each in self._all:
            self._all.remove(each)
            self._observe(reason)
            self._begin()
        each.process.wait()

    def _kill_later(self, each: "_Worker", call: int) -> None:
        _start_timer(GRACE, self._kill, each, call)

    def _kill(self, each: "_Worker", call: int) -> None:
        with self._changed:
            if each in self._all and each not in self._idle and each.calls == call:
                each.reason = "abandoned"
                each.process.kill()

    def _begin(self, delay: float = 0.0) -> None:
        _start_timer(delay, self._start_one)

    def _start_one(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._started += 1
            # So that all of them are not replaced at the same time.
            limit = JOBS + JOBS * (self._started % self.workers) // self.workers
        failure: str | None = None
        each: _Worker | None = None
        try:
            each = _Worker(limit)
            stop = _start_timer(_STARTING, each.process.kill)
            try:
                worker.receive(each.replies)
            finally:
                stop.cancel()
        except EOFError:
            code = each.process.wait() if each else None
            failure = f"a worker process ended before it was ready, with {code}"
        except OSError as error:
            failure = f"a worker process cannot be started: {error.strerror or error}"
        with self._changed:
            if each is None or failure is not None:
                self._failed, self._failure = self._failed + 1, failure or ""
                self._begin(_RETRY)
            elif self._closed:
                each.process.kill()
                each.process.wait()
            else:
                self._failed = 0
                self._all.add(each)
                self._idle.append(each)
            self._changed.notify_all()


def _start_timer(seconds: float, call: Callable[..., Any], *arguments: Any) -> threading.Timer:
    timer = threading.Timer(seconds, call, arguments)
    timer.daemon = True
    timer.start()
    return timer


class _Worker:
    """One process, the pipe to it and the pipe from it.

    Attributes:
        calls: How many pieces of work it has got.
        limit: After how many it is replaced.
        reason: Why it was killed, once it was.
    """

    def __init__(self, limit: int) -> None:
        environment = {
            **os.environ,
            # One thread each: there are several processes, and threads' stacks count as memory.
            **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
        }
        environment.pop(TOKEN_VARIABLE, None)  # none of its business
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.process = subprocess.Popen(
            worker.command(__package__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environment,
            **options,
        )
        # Unbuffered, so both are raw.
        self.requests = cast(io.RawIOBase, self.process.stdin)
        self.replies = cast(io.RawIOBase, self.process.stdout)
        if (command := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
            for pipe in (self.requests, self.replies):
                with contextlib.suppress(OSError):  # this user's share is used up
                    fcntl.fcntl(pipe.fileno(), command, _PIPE)
        self.calls = 0
        self.limit = limit
        self.reason: str | None = None

    def why_it_ended(self, what: str) -> tuple[str, Exception]:
        """One of `REASONS`, and what its job gets; waits for it to end."""
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:  # the pipe broke first
            self.process.kill()
            code = self.process.wait()
        if self.reason is not None:
            return self.reason, AbandonedError()
        number = -code if code < 0 else 0
        if number == getattr(signal, "SIGXCPU", None):
            return "processor", worker.TooCostlyError(
                f"{what} takes more than its share of processor time, and was stopped"
            )
        if number == getattr(signal, "SIGKILL", None):
            return "memory", MemoryError("the system killed a worker process")
        how = signal.Signals(number).name if number else f"exit code {code}"
        return "crashed", ImageError(f"{what} crashed the decoder ({how})")


class Codec:
    """Three functions of `musical_tf.images`, run in a worker for one job."""

    def __init__(self, pool: WorkerPool, job: Job) -> None:
        self._pool = pool
        self._job = job

    def read_photograph(self, source: BinaryIO, **options: Any) -> Photograph:
        """See `musical_tf.images.read_photograph`."""
        return self._read("read_photograph", source, options)

    def load_mask(self, source: BinaryIO, **options: Any) -> Mask:
        """See `musical_tf.images.load_mask`."""
        return self._read("load_mask", source, options)

    def _read(self, function: str, source: BinaryIO, options: dict[str, Any]) -> Any:
        content = np.frombuffer(source.read(), np.uint8)  # arrays travel without a copy
        what = f"{options['name']}: decoding it"
        return self._pool.run(self._job, worker.read, function, content, what=what, **options)

    def encode_photograph(
        self, photograph: Photograph, pixels: np.ndarray, *arguments: Any, **options: Any
    ) -> bytes:
        """See `musical_tf.images.encode_photograph`."""
        # The old pixels are not encoded, so they need not travel.
        photograph = replace(photograph, pixels=pixels)
        return self._pool.run(
            self._job,
            worker.encode_photograph,
            photograph,
            pixels,
            *arguments,
            what="encoding the result",
            seconds=self._pool.seconds,
            **options,
        )
