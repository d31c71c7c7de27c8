"""Requests that are being answered: how far each is, its end, and its name."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from .jobs import Job, JobQueue
from .request_terms import RequestError, invalid_option

NAME = r"[0-9A-Za-z_-]{8,64}"
HEADER = "X-Job"


class JobProgress(BaseModel):
    """How far a request is; `windows` is null until they are planned."""

    state: Literal["receiving", "waiting", "running"]
    windows_done: int
    windows: int | None


class Answering:
    """A request that is being answered."""

    def __init__(self) -> None:
        self.job: Job | None = None  # once its body has been read
        self._loop = asyncio.get_running_loop()
        self._limit: asyncio.Timeout | None = None
        self._error: RequestError | None = None

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Limits the time of what is done within, which `end` ends too.

        Raises:
            RequestError: 504 timeout, or what `end` was given.
        """
        try:
            async with asyncio.timeout(seconds) as self._limit:
                yield
        except TimeoutError:
            raise self._error or RequestError(
                504, "timeout", f"the request was not finished within {seconds:g} s"
            ) from None
        finally:
            self._limit = None

    def end(self, error: RequestError) -> None:
        """Ends the request with an error, unless its answer is there; may be called anywhere."""
        self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: RequestError) -> None:
        if self._limit is not None and not self._limit.expired():
            self._error = error
            self._limit.reschedule(self._loop.time())

    @property
    def progress(self) -> JobProgress:
        """How far it is."""
        if self.job is None:
            return JobProgress(state="receiving", windows_done=0, windows=None)
        done, windows = self.job.windows
        state: Literal["running", "waiting"] = "running" if self.job.future.running() else "waiting"
        return JobProgress(state=state, windows_done=done, windows=windows)

    async def result(self, job: Job, request: Request, jobs: JobQueue) -> Any:
        """Waits for a job; gives it up if the client leaves or `within` is over.

        Raises:
            ClientDisconnect: If the client left.
        """
        self.job = job
        result = asyncio.wrap_future(job.future)
        hung_up = asyncio.create_task(_hung_up(request))
        try:
            await asyncio.wait({result, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise ClientDisconnect
        finally:
            hung_up.cancel()
            if not result.done():
                jobs.abandon(job)
                result.cancel()


class AnsweringRequests:
    """The requests that are being answered, those with names by name."""

    def __init__(self) -> None:
        self._named: dict[str, Answering] = {}

    @contextlib.contextmanager
    def add(self, name: str | None) -> Iterator[Answering]:
        """Holds a request while it is being answered.

        Raises:
            RequestError: If the name is none, or is in use.
        """
        answering = Answering()
        if name is None:
            yield answering
            return
        if re.fullmatch(NAME, name) is None:
            raise invalid_option(
                f"{HEADER} must be 8 to 64 letters, digits, - and _, got {name[:100]!r}"
            )
        if name in self._named:
            raise RequestError(
                409, "job_exists", f"{HEADER} must be a new name, got {name!r}; use a random one"
            )
        self._named[name] = answering
        try:
            yield answering
        finally:
            del self._named[name]

    def find(self, name: str) -> Answering:
        """The request of that name.

        Raises:
            RequestError: 404 job_not_found.
        """
        if name not in self._named:
            raise RequestError(404, "job_not_found", "no request of this name is being answered")
        return self._named[name]


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
