"""A bounded number of jobs, run by a few threads, that can be abandoned.

Two stages, so that a server can decode one photograph while the model fills another:

* `JobQueue` runs whole jobs, decoding, filling and encoding, in a few threads. What waits in it is
  still encoded, so a full queue costs little memory. Clients take turns.
* `Batcher` is the one thread that runs the model. The jobs hand it windows and wait; windows of
  equal size that are there at the same time go through the model together.

A job whose client is gone is dropped while it waits, and stops before its next window once it runs.
"""

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RunBatch = Callable[..., Sequence[Any]]
"""Fills `(images uint8 (B, H, W, 3), holes bool (B, H, W), *how)`; returns uint8 `(B, H, W, 3)`."""

STUCK = 1.0
"""Seconds within which an abandoned job must stop. Worker processes are killed before that."""

SLOW = 10.0
"""Seconds for the input of a job, after which its place goes to any request that needs one."""

_REMEMBERED = 0.2  # weight of the newest job in the average that waiting times are guessed from


class AbandonedError(Exception):
    """The job was abandoned."""


class QueueFullError(Exception):
    """The queue is full; `retry_after` is the expected time until a place is free, seconds."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} requests are waiting or running already")
        self.retry_after = retry_after


class Job:
    """One piece of work.

    Attributes:
        future: Its result, its error, or `AbandonedError`.
        queue_seconds: How long it has waited, for a thread and for the model.
        run_seconds: How long it has been worked on.
        windows: How many windows are filled, and how many there are; None until that is known.
    """

    def __init__(self, work: Callable[["Job"], Any]) -> None:
        self.future: Future = Future()
        self.queue_seconds = 0.0
        self.run_seconds = 0.0
        self.windows: tuple[int, int | None] = (0, None)
        self._work: Callable[[Job], Any] | None = work
        self._created = time.monotonic()
        self._abandoned_at: float | None = None
        self._when_abandoned: Callable[[], None] | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether its client is gone."""
        return self._abandoned_at is not None

    @property
    def is_stuck(self) -> bool:
        """Whether it was abandoned and has not stopped within `STUCK` seconds."""
        since = self._abandoned_at
        return since is not None and time.monotonic() - since > STUCK

    def report(self, done: int, windows: int) -> None:
        """Notes how many windows are filled, of how many.

        Raises:
            AbandonedError: If the job was abandoned, so that no other window is filled.
        """
        self.check()
        self.windows = done, windows

    def check(self) -> None:
        """Raises `AbandonedError` if it was abandoned."""
        if self.is_abandoned:
            raise AbandonedError

    def abandon(self) -> None:
        """Makes it end early: its client is gone."""
        self._abandoned_at = time.monotonic()
        if (call := self._when_abandoned) is not None:
            call()

    @contextmanager
    def when_abandoned(self, call: Callable[[], None]) -> Iterator[None]:
        """Calls `call` if the job is abandoned within the block, in the thread that abandons it.

        If that happens at the start of the block, `call` may be called twice.
        """
        self._when_abandoned = call
        try:
            if self.is_abandoned:
                call()
            yield
        finally:
            self._when_abandoned = None

    def run(self) -> None:
        """Does the work in this thread; never raises."""
        if self.is_abandoned or not self.future.set_running_or_notify_cancel():
            return
        started = time.monotonic()
        self.queue_seconds = waited = started - self._created
        work, self._work = self._work, None  # and with it its input, once it is done
        assert work is not None, "a job runs once"
        try:
            result = work(self)
        except BaseException as error:
            _forget_locals(error)
            self.future.set_exception(error)
        else:
            self.run_seconds = time.monotonic() - started - (self.queue_seconds - waited)
            self.future.set_result(result)


@dataclass(eq=False)
class Place:
    """Room for one job, from before its input is read until its result is sent.

    Attributes:
        client: Who has it.
        leave: Called when another request gets the place; may be called in another thread.
        job: The job, once it is submitted.
        since: The time at which it was given.
    """

    client: str
    leave: Callable[[], None] | None
    job: Job | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def can_leave(self) -> bool:
        """Whether nothing has been worked on."""
        waits = self.job is None or not (self.job.future.running() or self.job.future.done())
        return self.leave is not None and waits

    @property
    def is_slow(self) -> bool:
        """Whether its input should have been read by now."""
        return self.job is None and time.monotonic() - self.since > SLOW

    def end(self) -> None:
        """Tells who has it that it is lost."""
        if self.leave is not None:
            self.leave()


class _Threads:
    """Threads that work until they are closed, as daemons: an end does not wait for them.

    Whoever wants the work finished waits for its futures.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=name, daemon=True) for name in names
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Lets the threads end once nothing waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Waits for closed threads; says whether all have ended in time."""
        end = time.monotonic() + seconds
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in started)

    def _work(self) -> None:
        raise NotImplementedError


class JobQueue(_Threads):
    """A few threads and a bounded number of jobs for them.

    A thread takes the next job from each client in turn. When all places are taken, a client gets
    one whose input is slow, or one from the client with the most, unless that one would then have
    fewer.

    Args:
        workers: Number of threads.
        capacity: How many jobs may wait beside those that run.
    """

    def __init__(self, workers: int, capacity: int) -> None:
        super().__init__([f"job-{number}" for number in range(workers)])
        self.workers = workers
        self.capacity = capacity
        self._waiting: dict[str, deque[Job]] = {}  # by client, whose turn it is first
        self._places: list[Place] = []
        self._seconds = 1.0  # of a job, until one has been measured
        self._running: dict[Job, float] = {}  # since when

    @property
    def depth(self) -> int:
        """How many jobs wait for a thread."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    @property
    def is_stuck(self) -> bool:
        """Whether every thread is occupied by an abandoned job that does not stop."""
        with self._changed:
            stuck = sum(job.is_stuck for job in self._running)
        return stuck == self.workers

    @property
    def admitted(self) -> int:
        """How many places are taken."""
        return len(self._places)

    @contextmanager
    def admit(self, client: str = "", leave: Callable[[], None] | None = None) -> Iterator[Place]:
        """A place for one job.

        Args:
            client: Who asks for it.
            leave: See `Place`.

        Raises:
            QueueFullError: If there is none left.
        """
        place = Place(client, leave)
        with self._changed:
            if len(self._places) >= self.workers + self.capacity:
                self._make_room(client)
            self._places.append(place)
        try:
            yield place
        finally:
            with self._changed:
                if place in self._places:
                    self._places.remove(place)

    def _make_room(self, client: str) -> None:
        """Takes a slow place, or the newest of the client with the most; `_changed` is held."""
        held = Counter(place.client for place in self._places)
        movable = [place for place in self._places if place.can_leave]
        found = next((place for place in movable if place.is_slow), None)
        if found is None:
            found = max(reversed(movable), key=lambda place: held[place.client], default=None)
            if found is None or held[found.client] <= held[client] + 1:
                raise self.full()
        self._places.remove(found)
        found.end()

    def full(self) -> QueueFullError:
        """The error of a client that gets no place."""
        now = time.monotonic()
        # A job that has run longer than the others used to says more than they do.
        a_job = max([self._seconds, *(now - since for since in self._running.values())])
        # Places whose input is still being read will have their jobs too.
        ahead = max(self.depth, len(self._places) - self.workers)
        return QueueFullError(len(self._places), a_job * (ahead + 1) / self.workers)

    def submit(self, work: Callable[[Job], Any], place: Place | None = None) -> Job:
        """Queues work; it is called with its job, which it should `check` now and then."""
        job = Job(work)
        client = ""
        if place is not None:
            client, place.job = place.client, job
        with self._changed:
            self._waiting.setdefault(client, deque()).append(job)
            self._changed.notify()
        return job

    def abandon(self, job: Job) -> None:
        """Drops a job if it waits, and tells it to stop if it runs."""
        job.abandon()
        with self._changed:
            for client, jobs in list(self._waiting.items()):
                if job in jobs:
                    jobs.remove(job)
                if not jobs:
                    del self._waiting[client]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                client, jobs = next(iter(self._waiting.items()))
                job = jobs.popleft()
                del self._waiting[client]
                if jobs:
                    self._waiting[client] = jobs  # behind the others
                was_abandoned = job.is_abandoned
                self._running[job] = started = time.monotonic()
            job.run()
            with self._changed:
                del self._running[job]
                # A job that was abandoned while it ran took at least that long.
                if not was_abandoned:
                    seconds = time.monotonic() - started
                    self._seconds += _REMEMBERED * (seconds - self._seconds)
            del job  # and with it its photograph, while this thread waits for the next


class Batcher(_Threads):
    """The one thread that runs the model, for several jobs at a time where that is allowed.

    Args:
        run: The model.
        limit: Most jobs whose windows go into one run. With 1, windows run as they come.
        patience: Seconds that windows wait for those of others. They wait only while there are jobs
            that may still bring some.
        observe: Called after each run with the number of windows and the seconds it took.

    Attributes:
        is_running: Whether the model runs now.
    """

    def __init__(
        self,
        run: RunBatch,
        limit: int = 1,
        patience: float = 0.005,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        super().__init__(["model"])
        self.limit = limit
        self.patience = patience
        self._run_batch = run
        self._observe = observe
        self._waiting: list[_Windows] = []
        self._callers = 0
        self.is_running = False

    @property
    def waiting(self) -> int:
        """How many jobs' windows wait for the model."""
        return len(self._waiting)

    @contextmanager
    def caller(self) -> Iterator[None]:
        """Held by a job while it may bring windows: others wait for it, up to `patience`."""
        with self._changed:
            self._callers += 1
        try:
            yield
        finally:
            with self._changed:
                self._callers -= 1
                self._changed.notify_all()

    def run(self, job: Job, how: tuple, images: np.ndarray, holes: np.ndarray) -> list[Any]:
        """Fills windows of one size; waits for them.

        Args:
            job: Whose windows they are. Its `queue_seconds` grow by what they wait.
            how: Further arguments of the model; windows that run together have the same.
            images: `(B, H, W, 3)` uint8 RGB.
            holes: `(B, H, W)` bool.

        Returns:
            The model's result for each window.

        Raises:
            AbandonedError: If the job was abandoned before they ran.
        """
        job.check()
        windows = _Windows(images, holes, how, job)
        with self._changed:
            self._waiting.append(windows)
            self._changed.notify_all()
        return windows.future.result()

    def _work(self) -> None:
        while groups := self._take():
            now = time.monotonic()
            for group in groups:
                group.job.queue_seconds += now - group.since
            self.is_running = True
            self._fill(groups)
            self.is_running = False
            del groups

    def _take(self) -> list["_Windows"]:
        """Waits for the next windows to run together; none once closed."""
        with self._changed:
            while True:
                for group in [each for each in self._waiting if each.job.is_abandoned]:
                    self._waiting.remove(group)
                    group.future.set_exception(AbandonedError())
                if not self._waiting:
                    if self._closed:
                        return []
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                alike = [
                    group
                    for group in self._waiting
                    if (group.holes.shape[1:], group.how) == (first.holes.shape[1:], first.how)
                ]
                alike = alike[: self.limit]
                left = first.since + self.patience - time.monotonic()
                if len(alike) == self.limit or len(self._waiting) >= self._callers or left <= 0:
                    for group in alike:
                        self._waiting.remove(group)
                    return alike
                self._changed.wait(left)

    def _fill(self, groups: list["_Windows"]) -> None:
        started = time.monotonic()
        try:
            images = np.concatenate([group.images for group in groups])
            holes = np.concatenate([group.holes for group in groups])
            filled = list(self._run_batch(images, holes, *groups[0].how))
        except BaseException as error:
            if len(groups) == 1:
                groups[0].future.set_exception(error)
                return
            for group in groups:  # one of them is at fault: the others shall not suffer
                self._fill([group])
            return
        if self._observe is not None:
            self._observe(len(filled), time.monotonic() - started)
        for group in groups:
            count = len(group.holes)
            group.future.set_result(filled[:count])
            del filled[:count]


def _forget_locals(error: BaseException) -> None:
    """Frees what an error's tracebacks keep alive; the line numbers stay for the log.

    An error often refers to itself through them. Without this a refused photograph's pixels stay
    in memory until Python looks for such cycles, which may take hours.
    """
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__cause__ or each.__context__


@dataclass(eq=False)
class _Windows:
    """Images of one size for the model, and where their results go."""

    images: np.ndarray
    holes: np.ndarray
    how: tuple
    job: Job
    since: float = field(default_factory=time.monotonic)
    future: Future = field(default_factory=Future)
