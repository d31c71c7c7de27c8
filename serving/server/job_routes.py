"""The work on requests, and the routes by which another request follows or ends one.

A client may name its request by the header `X-Job`. While it is being answered,
`GET /v1/jobs/NAME` says how far it is, and `DELETE /v1/jobs/NAME` ends it. Names are chosen by
clients, so they should be random: any client that knows a name can end the request.
"""

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response

from . import request_body
from .answering import HEADER, NAME, AnsweringRequests, JobProgress
from .jobs import Job, QueueFullError
from .openapi import errors
from .request_terms import RequestError, unavailable
from .service import Service

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


async def work_on(
    service: Service,
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
