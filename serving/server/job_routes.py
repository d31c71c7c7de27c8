"""Requests that are being answered: waiting for one, its progress, and its end by another request.

A client may name its request by the header `X-Job`. While it is being answered,
`GET /v1/jobs/NAME` says how far it is, and `DELETE /v1/jobs/NAME` ends it. Names are chosen by
clients, so they should be random: whoever knows a name can end the request.
"""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from . import request_body
from .inpaint_request import RequestError, invalid_option, unavailable
from .jobs import Job, JobQueue, QueueFullError
from .openapi import errors

if TYPE_CHECKING:
    from .service import Service

NAME = r"[0-9A-Za-z_-]{8,64}"
HEADER = "X-Job"
PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A random name for the request, by which /v1/jobs reports its progress or ends "
    "it: 8 to 64 letters, digits, - and _.",
    "schema": {"type": "string", "pattern": f"^{NAME}$"},
}
_IN_PATH = {
    **PARAMETER,
    "name": "job",
    "in": "path",
    "required": True,
    "description": f"The name that the request has in {HEADER}.",
}
_NOT_FOUND = errors(status_404="No request of this name is being answered.")


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
                504, "timeout", f"it was not done within {seconds:g} s and was given up"
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


async def work_on(
    service: "Service",
    request: Request,
    read: Callable[[Request], Awaitable[Any]],
    work: Callable[[Any, Job], Any],
) -> tuple[Any, Job]:
    """Reads a body, and has `work` called with what was read in a thread of the queue.

    Returns:
        The result of `work`, and its job.

    Raises:
        RequestError: If the body is refused, there is no place, or the work is ended.
    """
    settings = service.settings
    request_body.check_length(request, settings.max_bytes)
    service.refuse_unless_ready()

    def full(error: QueueFullError) -> RequestError:
        seconds = min(max(1, math.ceil(error.retry_after)), math.ceil(settings.timeout))
        return unavailable("queue_full", f"{error}; try again in about {seconds} s", seconds)

    with contextlib.ExitStack() as until_sent:
        answering = until_sent.enter_context(service.requests.add(request.headers.get(HEADER)))
        client = request.client.host if request.client else ""
        try:
            place = until_sent.enter_context(
                service.jobs.admit(client, lambda: answering.end(full(service.jobs.full())))
            )
        except QueueFullError as error:
            raise full(error) from None
        async with answering.within(settings.timeout):
            source = await read(request_body.limited(request, settings.max_bytes))
            job = service.jobs.submit(partial(_work, work, source), place)
            del source  # the job has it, and lets go of it
            result = await answering.result(job, request, service.jobs)
        # Answers that wait for slow readers take memory too: the place is theirs.
        request.scope["musical.until_sent"].push(until_sent.pop_all())
    return result, job


def _work(work: Callable[[Any, Job], Any], source: Any, job: Job) -> Any:
    try:
        return work(source, job)
    except MemoryError:
        raise unavailable(
            "out_of_memory", "there is not enough memory for this image", 10
        ) from None


def add_job_routes(app: FastAPI, requests: AnsweringRequests, protected: dict[str, Any]) -> None:
    """Adds `/v1/jobs/{job}`; `protected` makes the routes ask for the token."""
    options = {
        "dependencies": protected["dependencies"],
        "responses": _NOT_FOUND | protected["responses"],
        "openapi_extra": {"parameters": [_IN_PATH]},
    }

    @app.get(
        "/v1/jobs/{job}",
        operation_id="job_progress",
        summary="How far a request to fill something is",
        response_model=JobProgress,
        **options,
    )
    async def progress(request: Request, response: Response) -> JobProgress:
        response.headers["Cache-Control"] = "no-store"
        return requests.find(request.path_params["job"]).progress

    @app.delete(
        "/v1/jobs/{job}",
        operation_id="cancel_job",
        summary="Cancel a request to fill something",
        status_code=204,
        response_class=Response,
        **options,
    )
    async def cancel(request: Request) -> Response:
        error = RequestError(409, "cancelled", "another request has cancelled this one")
        requests.find(request.path_params["job"]).end(error)
        return Response(status_code=204)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
