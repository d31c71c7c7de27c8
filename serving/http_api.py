"""The HTTP interface: what comes in is checked, queued, filled and sent back.

`create_app` builds it; `serving.server` runs it. A request to `/v1/inpaint` goes through

1. the event loop: token, type and size of the body, a place in the queue; then the body is read,
   counted while it comes;
2. a thread of the `JobQueue`: it fills, and lets a process of the `WorkerPool` decode and encode;
3. the thread of the model's `Batcher`, which alone runs it, window by window;
4. the event loop again, which has watched meanwhile whether the client is still there.

Every error is JSON, `{"error": {"code": ..., "message": ...}}`.
"""

import asyncio
import base64
import contextlib
import hmac
import logging
import math
import time
import urllib.parse
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import prometheus_client
from fastapi import Depends, FastAPI, Request, Response, Security
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from musical_tf import images

from . import http_body, openapi, schemas
from .http_guard import Guard, quoted
from .http_jobs import HEADER, PARAMETER, AnsweringRequests, add_job_routes
from .inpaint_request import (
    FILES_TO_CONVERT,
    Filled,
    RequestError,
    convert_request,
    fill_request,
)
from .jobs import AbandonedError, Batcher, Job, JobQueue, QueueFullError
from .session import InpaintingSession
from .settings import Settings
from .tiling import fill
from .worker_pool import REASONS, Codec, WorkerError, WorkerPool

PAGE = Path(__file__).parent / "page"

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_LOG = logging.getLogger(__name__)
_PIECE = 2**18  # bytes of an answer that are sent at a time
_LINGER = 10.0  # seconds for a client to notice that it need not send the rest of its body
_HUNG_UP = 499  # what nginx logs when a client leaves before its answer; nobody receives it
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """What `/metrics` shows, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        self.requests = Counter(
            "musical_requests",
            "Requests by route, status and error code",
            ["route", "status", "code"],
            registry=self.registry,
        )
        self.request_seconds = self._histogram(
            "musical_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            labelnames=["route"],
        )
        self.queue_seconds = self._histogram(
            "musical_queue_seconds", "Seconds a filled image waited, for a thread and the model"
        )
        self.run_seconds = self._histogram(
            "musical_run_seconds",
            "Seconds a filled image was worked on: decoding, filling, encoding",
        )
        self.model_seconds = self._histogram(
            "musical_model_seconds", "Seconds of one run of the model"
        )
        self.batch_size = self._histogram(
            "musical_model_batch_size", "Windows in one run of the model", (1, 2, 4, 8, 16, 32, 64)
        )
        self.in_flight = Gauge(
            "musical_requests_in_flight", "Requests without an answer", registry=self.registry
        )
        self.queue_depth = Gauge(
            "musical_queue_depth", "Requests that wait for a thread", registry=self.registry
        )

        self.workers_ended = Counter(
            "musical_workers_ended",
            "Worker processes that were ended, by reason",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            self.workers_ended.labels(reason)
        self.workers = Gauge(
            "musical_workers", "Worker processes that are alive", registry=self.registry
        )

    def observe_worker(self, reason: str) -> None:
        """Notes the end of a worker process."""
        self.workers_ended.labels(reason).inc()

    def observe_batch(self, size: int, seconds: float) -> None:
        """Notes one run of the model."""
        self.batch_size.observe(size)
        self.model_seconds.observe(seconds)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS, **options: Any
    ) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry, **options)


class Service:
    """Models, and the threads and processes that serve them.

    Attributes:
        sessions: Name -> model; the first is the one for requests that name none.
        batchers: Name -> the thread that runs it.
        settings: The limits.
        metrics: The numbers.
        is_ready: Whether every model has run once.
        is_closing: Set by whoever ends the server: new requests are refused, others finish.
        failure: Why the worker processes do not start, or a model could not run the first time.
        failed_model: The model's name.
        pool: The worker processes; None if `Settings.isolate` is off.

    Raises:
        ValueError: If two models have one name.
    """

    def __init__(self, sessions: Sequence[InpaintingSession], settings: Settings) -> None:
        # By name: where it lies is nobody's business.
        self.sessions = {session.name: session for session in sessions}
        if len(self.sessions) < len(sessions):
            named = ", ".join(session.name for session in sessions)
            raise ValueError(f"every model needs a name of its own, got {named}")
        self.settings = settings
        self.metrics = Metrics()
        self.jobs = JobQueue(settings.workers, settings.queue)
        self.requests = AnsweringRequests()
        self.batchers = {
            name: Batcher(session.inpaint_batch, settings.batch, observe=self.metrics.observe_batch)
            for name, session in self.sessions.items()
        }
        self.metrics.queue_depth.set_function(lambda: self.jobs.depth)
        self.pool: WorkerPool | None = None
        if settings.isolate:
            self.pool = WorkerPool(settings.workers, settings.timeout, self.metrics.observe_worker)
            self.metrics.workers.set_function(lambda: self.pool.alive)
        self.is_ready = False
        self.is_closing = False
        self.failure: Exception | None = None
        self.failed_model = ""

    @property
    def default(self) -> str:
        """The model for requests that name none."""
        return next(iter(self.sessions))

    def start(self) -> None:
        """Starts threads and processes, and runs every model once in one of the threads."""
        if self.pool is not None:
            self.pool.start()
        self.jobs.start()
        for batcher in self.batchers.values():
            batcher.start()
        self.jobs.submit(self._warm_up)

    def close(self) -> None:
        """Ends the processes, and lets the threads end once their work is done.

        Called when every request has its answer: whoever still decodes was given up.
        """
        self.is_closing = True
        if self.pool is not None:
            self.pool.close()
        self.jobs.close()
        for batcher in self.batchers.values():
            batcher.close()

    def has_ended(self, seconds: float) -> bool:
        """Waits so long for the threads after `close`; False if one still computes."""
        end = time.monotonic() + seconds
        threads = (self.jobs, *self.batchers.values())
        return all(each.join(max(0.0, end - time.monotonic())) for each in threads)

    def describe(self) -> dict[str, Any]:
        """The answer to `/v1/model`."""
        settings = self.settings
        limits = {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "timeout": settings.timeout,
        }
        described = [
            {**session.describe(), "model": name} for name, session in self.sessions.items()
        ]
        return {**described[0], "models": described, "limits": limits}

    def refuse_unless_ready(self) -> None:
        """Raises `RequestError` 503 where no request can be taken."""
        if self.is_closing:
            raise _unavailable("shutting_down", "the server is ending", 5)
        if self.failure is not None:
            what = "the model does" if self.failed_model else "the worker processes do"
            raise _unavailable("not_ready", f"{what} not run", 60)
        if not self.is_ready:
            raise _unavailable("not_ready", "the model has not run yet", 1)

    def refuse_unless_able(self) -> None:
        """Raises `RequestError` 503 where no request is taken, or where one would only wait."""
        self.refuse_unless_ready()
        if self.jobs.is_stuck:
            raise _unavailable("not_ready", "requests that were given up occupy every thread", 5)
        if self.pool is not None and self.pool.failure is not None:
            raise _unavailable("not_ready", "the worker processes do not start", 5)

    def inpaint(self, is_json: bool, source: Any, job: Job) -> tuple[Filled, str]:
        """Everything between a body and an answer; runs in a thread of the queue.

        Returns:
            The answer, and the name of the model that gave it.
        """
        with _enough_memory():
            fields = http_body.parse_json(source) if is_json else source
            options = schemas.read_options(fields, tuple(self.sessions))
            model = options.model
            fill_hole = partial(self._fill, job, model)
            codec, max_pixels = self._codec(job), self.settings.max_pixels
            filled = fill_request(fields, options, max_pixels, fill_hole, job.check, codec)
            return filled, model

    def convert(self, fields: dict[str, Any], job: Job) -> Filled:
        """The same to encode a photograph in another format."""
        with _enough_memory():
            options = schemas.read_options(fields, tuple(self.sessions))
            codec, max_pixels = self._codec(job), self.settings.max_pixels
            return convert_request(fields, options, max_pixels, job.check, codec)

    def _codec(self, job: Job) -> Any:
        return images if self.pool is None else Codec(self.pool, job)

    def _fill(
        self, job: Job, model: str, image: np.ndarray, hole: np.ndarray, strategy: str | None
    ) -> np.ndarray:
        """What `InpaintingSession.inpaint` does, every window through the model's batcher."""
        contract = self.sessions[model].contract
        if strategy is None:
            strategy = contract.strategy
        batcher = self.batchers[model]
        with batcher.caller():
            run = partial(batcher.run, job)
            return fill(image, hole, run, contract.training_size, strategy, job.report)

    def _warm_up(self, job: Job) -> None:
        if self.pool is not None:
            try:
                self.pool.wait_until_ready()
            except WorkerError as error:
                self.failure = error
                return
            except AbandonedError:
                return
        for name, session in self.sessions.items():
            side = session.contract.training_size
            image = np.full((side, side, 3), 127, np.uint8)
            hole = np.zeros((side, side), bool)
            hole[side // 4 : -(side // 4), side // 4 : -(side // 4)] = True
            try:
                self._fill(job, name, image, hole, "original")
            except Exception as error:
                self.failure, self.failed_model = error, name
                break
        self.is_ready = self.failure is None


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise _unavailable(
            "out_of_memory", "there is not enough memory for this image", 10
        ) from None


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
    )
    app.state.service = service
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", HEADER],
            expose_headers=["X-Model", "X-Provider", "Server-Timing", "Retry-After"],
        )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(_Envelope, metrics=service.metrics, timeout=settings.timeout)
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(ClientDisconnect, _client_left)
    _add_inpaint(app, service)
    add_job_routes(app, service.requests, _protection(settings.token))
    _add_state(app, service)
    _add_pages(app)
    return app


def _add_inpaint(app: FastAPI, service: Service) -> None:
    settings = service.settings
    protected = _protection(settings.token)
    # The document is open, and what a server serves is told to those with the token alone.
    told = [] if protected["dependencies"] else list(service.sessions)

    common = {
        "response_class": Response,
        "dependencies": protected["dependencies"],
    }

    @app.post(
        "/v1/inpaint/json",
        operation_id="inpaint_json",
        summary="Fill the hole of a photograph, JSON with base64 in and out",
        responses=openapi.JSON_RESPONSES | protected["responses"],
        openapi_extra={"parameters": [PARAMETER], "requestBody": openapi.json_body(told)},
        **common,
    )
    async def inpaint_json(request: Request) -> Response:
        if not http_body.is_json(request):
            raise RequestError(
                415,
                "unsupported_media_type",
                "Content-Type must be application/json, got multipart/form-data; "
                "send forms to /v1/inpaint",
            )
        return await inpaint(request)

    @app.post(
        "/v1/inpaint",
        operation_id="inpaint",
        summary="Fill the hole of a photograph, a form in and an image out",
        responses=openapi.FORM_RESPONSES | protected["responses"],
        openapi_extra={"parameters": [PARAMETER], "requestBody": openapi.form_body(told)},
        **common,
    )
    async def inpaint(request: Request) -> Response:
        # JSON is answered here too: clients of version 0.1 send it to this address.
        is_json = http_body.is_json(request)
        read = http_body.read_json if is_json else http_body.read_form
        (filled, model), job = await work_on(request, read, partial(service.inpaint, is_json))
        service.metrics.queue_seconds.observe(job.queue_seconds)
        service.metrics.run_seconds.observe(job.run_seconds)
        provider = service.sessions[model].provider
        did = {"X-Model": urllib.parse.quote(model, safe=" "), "X-Provider": provider}
        if is_json:
            return await _json_answer(filled, job, model, provider, did)
        return _file_answer(filled, job, did)

    @app.post(
        "/v1/convert",
        operation_id="convert",
        summary="Encode a photograph in another format, or its filled version as its own file is",
        responses=openapi.FILE_RESPONSES | protected["responses"],
        openapi_extra={"parameters": [PARAMETER], "requestBody": openapi.convert_body()},
        **common,
    )
    async def convert(request: Request) -> Response:
        if http_body.is_json(request):
            raise RequestError(
                415,
                "unsupported_media_type",
                "Content-Type must be multipart/form-data, got application/json",
            )
        read = partial(http_body.read_form, files=FILES_TO_CONVERT, options=("format", "quality"))
        filled, job = await work_on(request, read, service.convert)
        return _file_answer(filled, job, {})

    async def work_on(
        request: Request,
        read: Callable[[Request], Awaitable[Any]],
        work: Callable[[Any, Job], Any],
    ) -> tuple[Any, Job]:
        """Reads a body, and has it worked on in a thread of the queue; returns the result."""
        http_body.check_length(request, settings.max_bytes)
        service.refuse_unless_ready()
        try:
            with contextlib.ExitStack() as place:
                place.enter_context(service.jobs.admit())
                name = request.headers.get(HEADER)
                answering = place.enter_context(service.requests.add(name))
                async with asyncio.timeout(settings.timeout):
                    source = await read(http_body.limited(request, settings.max_bytes))
                    job = service.jobs.submit(partial(work, source))
                    del source  # the job has it, and lets go of it
                    result = await answering.result(job, request, service.jobs)
                # Answers that wait for slow readers take memory too: the place is theirs.
                request.scope["musical.until_sent"].push(place.pop_all())
        except QueueFullError as error:
            seconds = min(max(1, math.ceil(error.retry_after)), math.ceil(settings.timeout))
            raise _unavailable(
                "queue_full", f"{error}; try again in about {seconds} s", seconds
            ) from None
        except TimeoutError:
            raise RequestError(
                504, "timeout", f"it was not done within {settings.timeout:g} s and was given up"
            ) from None
        return result, job


async def _client_left(request: Request, error: ClientDisconnect) -> Response:
    """An answer that nobody receives, for the log."""
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


class _Envelope:
    """Around every request: security headers, numbers, and an answer to what nobody expected.

    A long answer is sent in pieces, so that it waits here, and not in the transport's buffer, for
    a client that reads slowly; for one that does not read at all, no longer than `timeout`.

    An answer that comes before the body has been read reaches its client too: the connection is
    held, and the rest of the body thrown away, until the client has noticed. Closed at once, it
    would be reset, and the answer lost with it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, timeout: float) -> None:
        self.app = app
        self.metrics = metrics
        self.timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0
        is_body_over = not _has_body(scope)

        async def watched_receive() -> Message:
            nonlocal is_body_over
            message = await receive()
            is_body_over |= not message.get("more_body", False)
            return message

        async def framed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                await send(message)
                return
            body, is_last = message.get("body", b""), not message.get("more_body", False)
            async with asyncio.timeout(self.timeout):
                for start in range(0, len(body), _PIECE):
                    piece = body[start : start + _PIECE]
                    await send({"type": message["type"], "body": piece, "more_body": True})
            if is_last:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER):
                        while not is_body_over:
                            await watched_receive()
                await send({"type": message["type"]})

        with self.metrics.in_flight.track_inprogress(), contextlib.ExitStack() as until_sent:
            scope["musical.until_sent"] = until_sent
            try:
                await self.app(scope, watched_receive, framed_send)
            except Exception as error:
                if status and isinstance(error, TimeoutError):
                    scope["musical.code"] = "not_read"  # the server closes what is not complete
                    return
                _LOG.exception("%s %s failed", scope["method"], quoted(scope["path"]))
                scope["musical.code"] = "internal"
                if status:
                    raise  # half an answer is out: the connection must not look healthy
                answer = _error(500, "internal", "something went wrong here; the log has it")
                await answer(scope, watched_receive, framed_send)
            finally:
                route, code = _route(scope), scope.get("musical.code", "ok")
                self.metrics.requests.labels(route, str(status), code).inc()
                self.metrics.request_seconds.labels(route).observe(time.monotonic() - started)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _route(scope: Scope) -> str:
    """The route a request took, one of a few: paths that do not exist are all "other"."""
    path = getattr(scope.get("route"), "path", None)
    if path is not None:
        return path
    mounted = [name for name in ("/page", "/docs") if scope["path"].startswith(name + "/")]
    return mounted[0] if mounted else "other"


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _unavailable(code: str, message: str, seconds: int) -> RequestError:
    return RequestError(503, code, message, {"Retry-After": str(seconds)})


async def _answer_request_error(request: Request, error: RequestError) -> Response:
    request.scope["musical.code"] = error.code
    return _error(error.status, error.code, error.message, error.headers)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    """What Starlette refuses by itself: no such path, no such method."""
    path = request.url.path
    code, message = {
        404: ("not_found", f"nothing is at {path}; /docs lists what there is"),
        405: ("method_not_allowed", f"{path} does not take {request.method}"),
    }.get(error.status_code, ("bad_request", str(error.detail)))
    request.scope["musical.code"] = code
    return _error(error.status_code, code, message, error.headers)


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
                "this server asks for its token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )

    return {"dependencies": [Depends(check)], "responses": openapi.UNAUTHORIZED}
