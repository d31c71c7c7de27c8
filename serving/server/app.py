"""The HTTP interface: what comes in is checked, queued, filled and sent back.

`create_app` builds it; `command_line` runs it. A request to `/v1/inpaint` goes through

1. the event loop: token, type and size of the body, a place in the queue; then the body is read,
   counted while it comes;
2. a thread of the `JobQueue`: it fills, and lets a process of the `WorkerPool` decode and encode;
3. the thread of the model's `Batcher`, which alone runs it, window by window;
4. the event loop again, which has watched meanwhile whether the client is still there.

Every error is JSON, `{"error": {"code": ..., "message": ...}}`.
"""

import base64
import contextlib
import hmac
import urllib.parse
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import prometheus_client
from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ..session import InpaintingSession
from . import openapi, request_body
from .envelope import Envelope
from .guard import PAGES, Guard, error_answer
from .inpaint_request import FILES, OF_CONVERT, Filled
from .iopaint_routes import add_iopaint_routes
from .job_routes import HEADER, PARAMETER, add_job_routes, work_on
from .jobs import Job
from .request_body import FORM, JSON
from .request_terms import RequestError, invalid_option
from .schemas import OPTIONS
from .selecting import OF_SELECT
from .service import Service
from .settings import Settings

PAGE = Path(__file__).parents[1] / "page"

_HUNG_UP = 499  # what nginx logs when a client leaves before its answer


def create_app(
    sessions: InpaintingSession | Sequence[InpaintingSession], settings: Settings | None = None
) -> FastAPI:
    """Builds the application around one or several models.

    Args:
        sessions: The models; the first fills what comes without the name of one.
        settings: Limits; those of `Settings` by default.

    Returns:
        The application; `app.state.service` is its `Service`, whose threads start and end with
        the application's lifespan.

    Raises:
        ValueError: If two models have one name.
    """
    settings = Settings() if settings is None else settings
    service = Service(sessions if isinstance(sessions, Sequence) else [sessions], settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What Pillow warns of, large images and damaged EXIF, is dealt with in `images`.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="musical-tf",
        version="1",
        description="Fills holes in photographs.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(_refuse_query)],
    )
    app.state.service = service
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", HEADER],
            expose_headers=[*openapi.HEADERS, "Retry-After", "X-Seed"],
        )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Envelope, metrics=service.metrics, timeout=settings.timeout)
    app.add_exception_handler(RequestError, _answer_request_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _answer_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, _client_left)  # type: ignore[arg-type]
    _add_inpaint(app, service)
    add_iopaint_routes(app, service, _protection(settings.token)["dependencies"])
    add_job_routes(app, service.requests, _protection(settings.token))
    _add_state(app, service)
    _add_pages(app)
    return app


def _add_inpaint(app: FastAPI, service: Service) -> None:
    protected = _protection(service.settings.token)
    # The document is open, and what a server serves is told to those with the token alone.
    told = [] if protected["dependencies"] else list(service.sessions)

    def add(
        path: str,
        name: str,
        summary: str,
        fields: Sequence[str],
        responses: dict[int | str, dict[str, Any]],
        answer: Callable[[Request], Awaitable[Response]],
        media_type: str = FORM,
    ) -> None:
        body = openapi.body(media_type, fields, told)
        app.post(
            path,
            operation_id=name,
            summary=summary,
            responses=responses | protected["responses"],
            openapi_extra={"parameters": [PARAMETER], "requestBody": body},
            response_class=Response,
            dependencies=protected["dependencies"],
        )(answer)

    async def inpaint(request: Request) -> Response:
        # /v1/inpaint answers JSON too: clients of version 0.1 send it to this address.
        valid = [JSON] if request.url.path.endswith("/json") else [FORM, JSON]
        is_json = request_body.is_json(request, valid)
        read = request_body.read_json if is_json else request_body.read_form
        (filled, model), job = await work_on(
            service, request, read, service.inpaint_json if is_json else service.inpaint
        )
        service.metrics.queue_seconds.observe(job.queue_seconds)
        service.metrics.run_seconds.observe(job.run_seconds)
        provider = service.sessions[model].provider
        did = {
            "X-Model": urllib.parse.quote(model, safe=" "),
            "X-Provider": provider,
            "X-Mask": filled.mask,
            "X-Hole-Share": str(filled.hole_share),
        }
        if filled.saved:
            did["X-Saved"] = urllib.parse.quote(filled.saved, safe=" ")
        if is_json:
            return await _json_answer(filled, job, model, provider, did)
        return _file_answer(filled, job, did)

    async def convert(request: Request) -> Response:
        return _file_answer(*await of_form(request, OF_CONVERT, service.convert), {})

    async def select(request: Request) -> Response:
        filled, job = await of_form(request, OF_SELECT, service.select)
        return _file_answer(filled, job, {"X-Selected-Share": str(filled.hole_share)})

    async def of_form(
        request: Request, fields: tuple[Sequence[str], Sequence[str]], work: Callable[..., Filled]
    ) -> tuple[Filled, Job]:
        request_body.is_json(request, [FORM])
        files, options = fields
        read = partial(request_body.read_form, files=files, options=options)
        return await work_on(service, request, read, work)

    fill, fields = "Fill the hole of a photograph, ", (*FILES, *OPTIONS)
    add("/v1/inpaint/json", "inpaint_json", fill + "JSON with base64 in and out", fields,
        openapi.JSON_RESPONSES, inpaint, JSON)  # fmt: skip
    add("/v1/inpaint", "inpaint", fill + "a form in and an image out", fields,
        openapi.FORM_RESPONSES, inpaint)  # fmt: skip
    encode = "Encode a photograph in another format, or its filled version as its own file is"
    add("/v1/convert", "convert", encode, sum(OF_CONVERT, ()), openapi.FILE_RESPONSES, convert)
    outline = "Outline the object in a box or below strokes, as a mask"
    add("/v1/select", "select", outline, sum(OF_SELECT, ()), openapi.SELECT_RESPONSES, select)


async def _refuse_query(request: Request) -> None:
    """Refuses a query parameter: no operation has one, and an option there would be ignored."""
    if not request.query_params or request.url.path in PAGES:
        return
    name = next(iter(request.query_params))
    extra = getattr(request.scope["route"], "openapi_extra", None) or {}
    advice = "leave it out"
    for content in extra.get("requestBody", {}).get("content", {}).values():
        advice = f"valid fields of the body: {', '.join(content['schema']['properties'])}"
    raise invalid_option(f"the address must have no query parameters, got {name[:100]!r}; {advice}")


async def _client_left(request: Request, error: ClientDisconnect) -> Response:
    """The answer to a client that is gone, for the log."""
    request.scope["musical.code"] = "client_disconnected"
    return Response(status_code=_HUNG_UP)


def _timing(job: Job) -> dict[str, float]:
    """Milliseconds."""
    seconds = {"queue": job.queue_seconds, "run": job.run_seconds}
    return {name: round(value * 1000, 1) for name, value in seconds.items()}


def _headers(job: Job, did: dict[str, str]) -> dict[str, str]:
    timing = ", ".join(f"{name};dur={value}" for name, value in _timing(job).items())
    return {**did, "Server-Timing": timing, "Cache-Control": "no-store"}


def _file_answer(filled: Filled, job: Job, did: dict[str, str]) -> Response:
    media_type = f"image/{filled.format}"
    return Response(filled.content, media_type=media_type, headers=_headers(job, did))


async def _json_answer(
    filled: Filled, job: Job, model: str, provider: str, did: dict[str, str]
) -> Response:
    answer = {
        "format": filled.format,
        "width": filled.width,
        "height": filled.height,
        "model": model,
        "provider": provider,
        "mask": filled.mask,
        "hole_share": filled.hole_share,
        "milliseconds": _timing(job),
    }
    return await run_in_threadpool(
        lambda: JSONResponse(
            {"image": base64.b64encode(filled.content).decode("ascii"), **answer},
            headers=_headers(job, did),
        )
    )


def _add_state(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", operation_id="health", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        operation_id="readiness",
        summary="Whether requests are taken",
        responses=openapi.NOT_READY,
    )
    async def readyz() -> dict[str, str]:
        service.refuse_unless_able()
        return {"status": "ready"}

    @app.get(
        "/v1/model",
        operation_id="describe_model",
        summary="What is loaded, and the limits",
        **_protection(settings.token),
    )
    async def model() -> dict[str, Any]:
        return service.describe()

    @app.get(
        "/metrics",
        operation_id="metrics",
        summary="Numbers for Prometheus",
        response_class=Response,
        **_protection(settings.token),
    )
    async def metrics() -> Response:
        content = prometheus_client.generate_latest(service.metrics.registry)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(openapi.DOCS_PAGE)

    @app.api_route("/docs/start.js", methods=["GET", "HEAD"], include_in_schema=False)
    async def start_docs() -> Response:
        return Response(openapi.DOCS_SCRIPT, media_type="text/javascript")

    app.mount("/page", _Files(directory=PAGE), name="page")
    swagger_ui = str(resources.files("fastapi_offline") / "static")
    app.mount("/docs/assets", _Files(directory=swagger_ui), name="docs")


class _Files(StaticFiles):
    """Static files that a browser asks for again, so that an update is seen."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response


async def _answer_request_error(request: Request, error: RequestError) -> Response:
    request.scope["musical.code"] = error.code
    return error_answer(request.url.path, error.status, error.code, error.message, error.headers)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    """Starlette's own errors: no such path, no such method."""
    path = request.url.path
    code, message = {
        404: ("not_found", f"nothing is at {path}; /docs lists what there is"),
        405: ("method_not_allowed", f"{path} does not take {request.method}"),
    }.get(error.status_code, ("bad_request", str(error.detail)))
    request.scope["musical.code"] = code
    return error_answer(path, error.status_code, code, message, error.headers)


def _protection(token: str | None) -> dict[str, Any]:
    """What makes a route ask for the token, as arguments for FastAPI."""
    if token is None:
        return {"dependencies": [], "responses": {}}
    bearer = HTTPBearer(scheme_name="token", auto_error=False)

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> None:
        # Headers are bytes that Starlette reads as Latin-1.
        given = credentials.credentials.strip().encode("latin-1") if credentials else b""
        if not hmac.compare_digest(given, token.encode()):
            raise RequestError(
                401,
                "unauthorized",
                "the token is missing or wrong: send Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    return {"dependencies": [Depends(check)], "responses": openapi.UNAUTHORIZED}
