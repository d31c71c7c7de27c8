"""The HTTP interface: what comes in is checked, queued, filled and sent back.

`create_app` builds it; `serving.server` runs it. A request to `/v1/inpaint` goes through

1. the event loop: token, type and size of the body, a place in the queue; then the body is read,
   counted while it comes;
2. a thread of the `JobQueue`: decoding, reading the mask, filling, encoding;
3. the thread of the `Batcher`, which alone runs the model, window by window;
4. the event loop again, which has watched meanwhile whether the client is still there.

Every error is JSON, `{"error": {"code": ..., "message": ...}}`.
"""

import asyncio
import base64
import binascii
import contextlib
import hmac
import io
import json
import logging
import math
import re
import tempfile
import time
import urllib.parse
import warnings
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import prometheus_client
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import images
from .jobs import Batcher, Job, JobQueue, QueueFullError
from .session import InpaintingSession
from .tiling import STRATEGIES, fill

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
TIMEOUT = 60.0
QUEUE = 32
BATCH = 1

PAGE = Path(__file__).parent / "page"

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
"""What an answer may be: name in the request -> Pillow's."""

FILES = ("image", "mask")
OPTIONS = ("strategy", "threshold", "invert", "dilate", "format")

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
_SPOOL = 2**20  # bytes of a body that are kept in memory; the rest waits in a temporary file
_WEBP_LIMIT = 16383  # pixels a side
_JPEG_LIMIT = 65535
_HUNG_UP = 499  # what nginx logs when a client leaves before its answer; nobody receives it


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        max_bytes: Largest body of a request.
        max_pixels: Largest image or mask.
        timeout: Seconds from a request's headers to its answer.
        queue: Requests that may wait beside those that are worked on.
        batch: Most windows in one run of the model.
        token: What clients must send as `Authorization: Bearer TOKEN`; None asks for nothing.
        protect_metrics: Whether `/metrics` asks for the token too.
    """

    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
    timeout: float = TIMEOUT
    queue: int = QUEUE
    batch: int = BATCH
    token: str | None = None
    protect_metrics: bool = False

    @property
    def workers(self) -> int:
        """Threads that decode, fill and encode: enough to have a batch together, at least two."""
        return max(2, self.batch)


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ErrorDetail(BaseModel):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class Milliseconds(BaseModel):
    """Where the time went."""

    queue: float
    run: float


class InpaintAnswer(BaseModel):
    """The answer to a request in JSON."""

    image: str
    format: Literal["png", "jpeg", "webp"]
    width: int
    height: int
    model: str
    provider: str
    milliseconds: Milliseconds


@dataclass(frozen=True)
class Options:
    """What a request may ask for, see docs/server.md."""

    strategy: str = "crop"
    threshold: int = 127
    invert: bool = False
    dilate: int = 0
    format: str = "png"

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Options":
        """Reads options as they come: text in a form, JSON's own types in JSON.

        Raises:
            ApiError: 400 invalid_option, with the name, what is valid and what came.
        """
        return cls(
            strategy=_choice(fields, "strategy", STRATEGIES, cls.strategy),
            threshold=_whole_number(fields, "threshold", 0, 254, cls.threshold),
            invert=_truth(fields, "invert", cls.invert),
            dilate=_whole_number(fields, "dilate", 0, 256, cls.dilate),
            format=_choice(fields, "format", tuple(FORMATS), cls.format),
        )


@dataclass(frozen=True)
class Filled:
    """An encoded answer."""

    content: bytes | str
    format: str
    width: int
    height: int


@dataclass
class Metrics:
    """What `/metrics` shows, in a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        prometheus_client.ProcessCollector(registry=self.registry)
        prometheus_client.PlatformCollector(registry=self.registry)
        prometheus_client.GCCollector(registry=self.registry)
        seconds = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
        common = {"registry": self.registry}
        self.requests = Counter(
            "musical_requests",
            "Requests by route, status and error code",
            ["route", "status", "code"],
            **common,
        )
        self.total_seconds = Histogram(
            "musical_request_seconds",
            "Seconds from a request's headers to the end of its answer",
            ["route"],
            buckets=seconds,
            **common,
        )
        self.queue_seconds = Histogram(
            "musical_queue_seconds",
            "Seconds a filled image waited, for a thread and for the model",
            buckets=seconds,
            **common,
        )
        self.run_seconds = Histogram(
            "musical_run_seconds",
            "Seconds a filled image was worked on: decoding, filling, encoding",
            buckets=seconds,
            **common,
        )
        self.model_seconds = Histogram(
            "musical_model_seconds", "Seconds of one run of the model", buckets=seconds, **common
        )
        self.batch_size = Histogram(
            "musical_model_batch_size",
            "Windows in one run of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            **common,
        )
        self.in_flight = Gauge(
            "musical_requests_in_flight", "Requests that have no answer yet", **common
        )
        self.queue_depth = Gauge("musical_queue_depth", "Requests that wait for a thread", **common)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Notes one run of the model."""
        self.batch_size.observe(size)
        self.model_seconds.observe(seconds)


class Service:
    """A model and the threads that serve it.

    Attributes:
        is_ready: Whether the model has run once.
        is_closing: Set by whoever ends the server: new requests are refused, others finish.
        failure: Why the model could not run the first time.
    """

    def __init__(self, session: InpaintingSession, settings: Settings) -> None:
        self.session = session
        self.settings = settings
        self.metrics = Metrics()
        self.jobs = JobQueue(settings.workers, settings.queue)
        self.batcher = Batcher(
            session.inpaint_batch, settings.batch, observe=self.metrics.observe_batch
        )
        self.metrics.queue_depth.set_function(lambda: self.jobs.depth)
        self.model_name = session.model_path.name
        self.is_ready = False
        self.is_closing = False
        self.failure: Exception | None = None

    def start(self) -> None:
        """Starts the threads, and runs the model once in one of them."""
        self.jobs.start()
        self.batcher.start()
        self.jobs.submit(self._warm_up)

    def close(self) -> None:
        """Lets the threads end once their work is done."""
        self.is_closing = True
        self.jobs.close()
        self.batcher.close()

    def describe(self) -> dict[str, Any]:
        """The answer to `/v1/model`: the session's own words, without the path, and the limits."""
        limits = {name: getattr(self.settings, name) for name in LIMITS}
        return {**self.session.describe(), "model": self.model_name, "limits": limits}

    def refuse_unless_ready(self) -> None:
        """Raises 503 where no request can be taken."""
        if self.is_closing:
            raise ApiError(503, "shutting_down", "the server is ending", Retry_After="5")
        if self.failure is not None:
            raise ApiError(503, "not_ready", "the model does not run", Retry_After="60")
        if not self.is_ready:
            raise ApiError(503, "not_ready", "the model has not run yet", Retry_After="1")

    def fill(self, image: np.ndarray, hole: np.ndarray, strategy: str, job: Job) -> np.ndarray:
        """What `InpaintingSession.inpaint` does, every window through the batcher."""
        working_size = self.session.contract.training_size
        with self.batcher.caller():
            return fill(image, hole, partial(self.batcher.run, job=job), working_size, strategy)

    def _warm_up(self, job: Job) -> None:
        side = self.session.contract.training_size
        image = np.full((side, side, 3), 127, np.uint8)
        hole = np.zeros((side, side), bool)
        hole[side // 4 : -(side // 4), side // 4 : -(side // 4)] = True
        try:
            self.fill(image, hole, "original", job)
        except Exception as error:
            _LOG.exception("the model does not run")
            self.failure = error
        self.is_ready = self.failure is None


LIMITS = ("max_bytes", "max_pixels", "timeout")


def create_app(session: InpaintingSession, settings: Settings | None = None) -> FastAPI:
    """Builds the application around a model.

    Args:
        session: The model.
        settings: Limits; those of `Settings` by default.

    Returns:
        The application; `app.state.service` is its `Service`. Threads start with its lifespan.
    """
    settings = Settings() if settings is None else settings
    service = Service(session, settings)

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
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.service = service
    app.add_middleware(_Envelope, service=service)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    _add_inpaint(app, service)
    _add_state(app, service)
    _add_pages(app)
    return app


def _add_inpaint(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post(
        "/v1/inpaint",
        summary="Fill the hole of a photograph",
        description="A form is answered with the image itself, JSON with JSON.",
        response_class=Response,
        responses=_RESPONSES | {200: _SUCCESS},
        openapi_extra={"requestBody": _REQUEST_BODY, "security": [{"token": []}]},
    )
    async def inpaint(request: Request) -> Response:
        _check_token(request, settings)
        is_json = _is_json(request)
        _check_length(request, settings.max_bytes)
        service.refuse_unless_ready()
        try:
            with service.jobs.admit():
                async with asyncio.timeout(settings.timeout), contextlib.AsyncExitStack() as stack:
                    read = _read_json if is_json else _read_form
                    fields = await read(_limited(request, settings.max_bytes), stack)
                    job = service.jobs.submit(partial(_inpaint, service, fields, is_json))
                    filled = await _result(job, request, service)
        except QueueFullError as error:
            seconds = min(max(1, math.ceil(error.retry_after)), math.ceil(settings.timeout))
            raise ApiError(
                503,
                "queue_full",
                f"{error}; try again in about {seconds} s",
                Retry_After=str(seconds),
            ) from None
        except TimeoutError:
            raise ApiError(
                504, "timeout", f"it was not done within {settings.timeout:g} s, and was given up"
            ) from None
        except ClientDisconnect:
            request.scope["musical.code"] = "client_disconnected"
            return Response(status_code=_HUNG_UP)
        service.metrics.queue_seconds.observe(job.queue_seconds)
        service.metrics.run_seconds.observe(job.run_seconds)
        milliseconds = {
            "queue": round(job.queue_seconds * 1000, 1),
            "run": round(job.run_seconds * 1000, 1),
        }
        headers = {
            "X-Model": urllib.parse.quote(service.model_name, safe=" "),
            "X-Provider": service.session.provider,
            "Server-Timing": ", ".join(
                f"{name};dur={value}" for name, value in milliseconds.items()
            ),
            "Cache-Control": "no-store",
        }
        if is_json:
            answer = {
                "image": filled.content,
                "format": filled.format,
                "width": filled.width,
                "height": filled.height,
                "model": service.model_name,
                "provider": service.session.provider,
                "milliseconds": milliseconds,
            }
            return JSONResponse(answer, headers=headers)
        return Response(filled.content, media_type=f"image/{filled.format}", headers=headers)


def _add_state(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.get("/healthz", summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the model has run", responses={503: _RESPONSES[503]})
    async def readyz() -> dict[str, str]:
        service.refuse_unless_ready()
        return {"status": "ready"}

    @app.get(
        "/v1/model", summary="What is loaded, and the limits", responses={401: _RESPONSES[401]}
    )
    async def model(request: Request) -> dict[str, Any]:
        _check_token(request, settings)
        return service.describe()

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        if settings.protect_metrics:
            _check_token(request, settings)
        content = prometheus_client.generate_latest(service.metrics.registry)
        return Response(content, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI) -> None:
    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        if not (PAGE / "index.html").is_file():
            raise ApiError(404, "not_found", "this installation has no page; see /docs")
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_DOCS)

    @app.api_route("/docs/start.js", methods=["GET", "HEAD"], include_in_schema=False)
    async def start_docs() -> Response:
        return Response(_START_DOCS, media_type="text/javascript")

    app.mount("/page", _Files(directory=PAGE, check_dir=False), name="page")
    swagger_ui = resources.files("fastapi_offline") / "static"
    app.mount("/docs/assets", _Files(directory=str(swagger_ui)), name="docs")


class _Files(StaticFiles):
    """Static files that a browser asks for again, so that an update is seen."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response


class _Envelope:
    """Around every request: security headers, numbers, and an answer to what nobody expected."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_with_headers)
            except Exception:
                _LOG.exception("%s %s failed", scope["method"], scope["path"])
                if status:
                    raise  # half an answer is out; the connection must not look healthy
                scope["musical.code"] = "internal"
                answer = _error(500, "internal", "something went wrong here; the log has it")
                await answer(scope, receive, send_with_headers)
            finally:
                route = _route(scope)
                code = scope.get("musical.code", "ok")
                self.metrics.requests.labels(route, str(status), code).inc()
                self.metrics.total_seconds.labels(route).observe(time.monotonic() - started)


def _route(scope: Scope) -> str:
    """The route a request took, one of a few: paths that do not exist are all "other"."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if path is not None:
        return path
    for mounted in ("/page", "/docs"):
        if scope["path"].startswith(mounted + "/") and scope.get("endpoint") is not None:
            return mounted
    return "other"


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None):
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


async def _answer_api_error(request: Request, error: ApiError) -> Response:
    request.scope["musical.code"] = error.code
    return _error(error.status, error.code, error.message, error.headers)


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    """Starlette's own errors: no such path, no such method, a form that cannot be parsed."""
    code = {404: "not_found", 405: "method_not_allowed", 400: "invalid_form"}.get(
        error.status_code, "internal" if error.status_code >= 500 else "bad_request"
    )
    message = {
        404: f"nothing is at {request.url.path}; /docs lists what there is",
        405: f"{request.url.path} does not take {request.method}",
    }.get(error.status_code, str(error.detail))
    request.scope["musical.code"] = code
    return _error(error.status_code, code, message, error.headers)


async def _answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    request.scope["musical.code"] = "invalid_option"
    return _error(400, "invalid_option", str(error.errors()[0]["msg"]))


def _check_token(request: Request, settings: Settings) -> None:
    if settings.token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    expected = settings.token.encode("utf-8")
    # Headers are bytes that Starlette reads as Latin-1.
    if scheme.lower() != "bearer" or not hmac.compare_digest(
        given.strip().encode("latin-1"), expected
    ):
        raise ApiError(
            401,
            "unauthorized",
            "this server wants its token: Authorization: Bearer TOKEN",
            WWW_Authenticate="Bearer",
        )


def _is_json(request: Request) -> bool:
    """Whether the body is JSON rather than a form; anything else is refused."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(415, "unsupported_media_type", f"a body encoded as {encoding} is not read")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return True
    if media_type == "multipart/form-data":
        return False
    raise ApiError(
        415,
        "unsupported_media_type",
        f"Content-Type must be multipart/form-data or application/json, got {media_type or 'none'}",
    )


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, "too_large", f"the body is larger than the limit of {max_bytes} bytes")


def _check_length(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)


def _limited(request: Request, max_bytes: int) -> Request:
    """The request with a body that ends in an error as soon as it is too long."""
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise _too_large(max_bytes)
        return message

    return Request(request.scope, receive)


async def _read_form(request: Request, stack: contextlib.AsyncExitStack) -> dict[str, Any]:
    """The fields of a form: files for `FILES`, text for `OPTIONS`."""
    form: FormData = await request.form(
        max_files=len(FILES), max_fields=len(OPTIONS), max_part_size=1024
    )
    stack.push_async_callback(form.close)
    names = [name for name, _ in form.multi_items()]
    _check_names(names, "form field")
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        is_file = isinstance(value, UploadFile)
        if is_file != (name in FILES):
            wanted = "a file" if name in FILES else "text, not a file"
            raise ApiError(400, "invalid_form", f"the form field {name!r} must be {wanted}")
        fields[name] = value.file if is_file else value
    return fields


async def _read_json(request: Request, stack: contextlib.AsyncExitStack) -> BinaryIO:
    """The body, in memory or in a temporary file; a thread parses it later."""
    body = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115  the stack closes it
    stack.callback(body.close)
    async for chunk in request.stream():
        if body.tell() + len(chunk) > _SPOOL:
            await run_in_threadpool(body.write, chunk)
        else:
            body.write(chunk)
    body.seek(0)
    return body


async def _result(job: Job, request: Request, service: Service) -> Filled:
    """Waits for a job, and gives it up if the client leaves or the time is over.

    Raises:
        ClientDisconnect: If the client left.
    """
    result = asyncio.wrap_future(job.future)
    hung_up = asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait({result, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        hung_up.cancel()
        if not result.done():
            service.jobs.abandon(job)
            result.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_names(names: list[str], what: str) -> None:
    valid = (*FILES, *OPTIONS)
    for name in names:
        if name not in valid:
            raise ApiError(
                400,
                "invalid_option",
                f"unknown {what} {name[:100]!r}; valid: {', '.join(valid)}",
            )
        if names.count(name) > 1:
            raise ApiError(400, "invalid_option", f"the {what} {name!r} was given more than once")


def _choice(fields: Mapping[str, Any], name: str, valid: tuple[str, ...], default: str) -> str:
    value = fields.get(name, default)
    if value not in valid:
        raise _invalid_option(name, ", ".join(valid), value)
    return value


def _whole_number(fields: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _invalid_option(name, f"whole numbers from {low} to {high}", value)
    return value


def _truth(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise _invalid_option(name, "true, false", value)
    return value


def _invalid_option(name: str, valid: str, value: Any) -> ApiError:
    return ApiError(400, "invalid_option", f"{name} must be one of {valid}; got {value!r:.100}")


# ---- in a thread of the job queue


def _inpaint(service: Service, source: Any, is_json: bool, job: Job) -> Filled:
    """Everything between a body and an answer."""
    try:
        fields = _parse_json(source) if is_json else source
        filled = _fill(service, fields, job)
        if not is_json:
            return filled
        encoded = base64.b64encode(filled.content).decode("ascii")
        return Filled(encoded, filled.format, filled.width, filled.height)
    except MemoryError:
        raise ApiError(
            503, "out_of_memory", "there is not enough memory for this image", Retry_After="10"
        ) from None


def _fill(service: Service, fields: Mapping[str, Any], job: Job) -> Filled:
    options = Options.from_fields(fields)
    if "image" not in fields:
        raise ApiError(400, "invalid_image", "there is no image")
    max_pixels = service.settings.max_pixels
    choice = {
        "polarity": "black" if options.invert else "white",
        "threshold": options.threshold,
    }
    with _image_errors("invalid_image"):
        photograph = images.read_photograph(fields["image"], name="image", max_pixels=max_pixels)
    _check_format(photograph, options.format)
    job.check()
    alpha = None
    if "mask" in fields:
        with _image_errors("invalid_mask"):
            hole = images.read_mask(fields["mask"], name="mask", max_pixels=max_pixels, **choice)
        with _image_errors("mask_size"):
            images.check_sizes(photograph, hole, "mask")
    else:
        if photograph.alpha is None:
            raise ApiError(
                400,
                "no_mask",
                "there is no mask, and the image has no transparency to take it from",
            )
        hole = images.alpha_mask(photograph, **choice)
        alpha = np.where(hole, np.uint8(255), photograph.alpha)
    hole = images.dilate(hole, options.dilate)
    if hole.all():
        raise ApiError(
            400,
            "hole_covers_image",
            "the hole covers the whole image, so nothing is left to copy from; "
            "is the mask the other way round? (invert)",
        )
    job.check()
    height, width = hole.shape
    image_format = FORMATS[options.format]
    if not hole.any() and image_format == photograph.format:
        fields["image"].seek(0)  # nothing to fill: not even encoded again
        return Filled(fields["image"].read(), options.format, width, height)
    pixels = photograph.pixels
    if hole.any():
        try:
            pixels = service.fill(pixels, hole, options.strategy, job)
        except ValueError as error:  # what is left is the memory that strategy original would need
            raise ApiError(413, "too_many_pixels", str(error)) from None
    job.check()
    with _image_errors("invalid_image"):
        content = images.encode_photograph(photograph, pixels, image_format, alpha)
    return Filled(content, options.format, width, height)


def _check_format(photograph: images.Photograph, name: str) -> None:
    """Refuses a format that cannot hold the answer before any work goes into it."""
    if name == "jpeg" and photograph.alpha is not None:
        raise ApiError(
            400, "invalid_option", "jpeg cannot hold the image's transparency; ask for png or webp"
        )
    longest = max(photograph.pixels.shape[:2])
    limit = {"webp": _WEBP_LIMIT, "jpeg": _JPEG_LIMIT}.get(name, longest)
    if longest > limit:
        raise ApiError(
            400,
            "invalid_option",
            f"{name} holds {limit} pixels a side and the image has {longest}; ask for png",
        )


@contextlib.contextmanager
def _image_errors(code: str):
    try:
        yield
    except images.TooManyPixelsError as error:
        raise ApiError(413, "too_many_pixels", str(error)) from None
    except images.ImageError as error:
        raise ApiError(400, code, str(error)) from None


def _parse_json(body: BinaryIO) -> dict[str, Any]:
    """One flat object: base64 for `FILES`, JSON's own types for `OPTIONS`."""
    content = body.read()
    # Parsed, a megabyte of brackets is twenty; none belongs here, and base64 has none.
    if content.count(b"[") or content.count(b"{") > 1 or content.count(b",") > 100:
        raise ApiError(400, "invalid_json", "expected one flat JSON object, without lists")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {error}") from None
    del content
    if not isinstance(fields, dict):
        raise ApiError(400, "invalid_json", f"expected a JSON object, got {type(fields).__name__}")
    _check_names(list(fields), "JSON key")
    for name in FILES:
        if fields.get(name) is None:
            fields.pop(name, None)  # `"mask": null` says what leaving it out says
        else:
            fields[name] = _decode_base64(fields[name], name)
    return fields


def _decode_base64(value: Any, name: str) -> BinaryIO:
    problem = "it is no text"
    if isinstance(value, str):
        if value[:5].lower() == "data:":
            header, _, value = value.partition(",")
            if not header.lower().endswith(";base64"):
                raise ApiError(400, f"invalid_{name}", f"{name}: a data: URL must be base64")
        try:
            return io.BytesIO(base64.b64decode("".join(value.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            problem = str(error)
    raise ApiError(400, f"invalid_{name}", f"{name}: it is not base64: {problem}")


# ---- what the documentation says


def _answer_of(description: str) -> dict[str, Any]:
    return {"model": ErrorAnswer, "description": description}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: _answer_of("The image, the mask or an option cannot be used; the message says why."),
    401: _answer_of("The token is missing or wrong."),
    413: _answer_of("The body, or an image in it, is larger than this server allows."),
    415: _answer_of("The body is neither a form nor JSON."),
    503: _answer_of("There is no room now; `Retry-After` says when there is likely to be."),
    504: _answer_of("It was not done in time, and was given up."),
}
_SUCCESS = {
    "description": "The filled image; to a request in JSON, an object with it in base64.",
    "content": {
        **{f"image/{name}": {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
        "application/json": {"schema": InpaintAnswer.model_json_schema()},
    },
    "headers": {
        "Server-Timing": {
            "description": "Milliseconds: `queue;dur=..., run;dur=...`",
            "schema": {"type": "string"},
        },
    },
}
_OPTION_SCHEMAS = {
    "strategy": {
        "type": "string",
        "enum": list(STRATEGIES),
        "default": "crop",
        "description": "How an image larger than the model's training size is looked at: in "
        "windows around each hole, shrunk as a whole, or as it is.",
    },
    "threshold": {
        "type": "integer",
        "minimum": 0,
        "maximum": 254,
        "default": 127,
        "description": "Mask values above it are the hole.",
    },
    "invert": {
        "type": "boolean",
        "default": False,
        "description": "The hole is dark in the mask.",
    },
    "dilate": {
        "type": "integer",
        "minimum": 0,
        "maximum": 256,
        "default": 0,
        "description": "Pixels by which the hole grows on every side.",
    },
    "format": {
        "type": "string",
        "enum": list(FORMATS),
        "default": "png",
        "description": "Of the answer. png and webp keep known pixels bit for bit.",
    },
}


def _request_schema(file: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {
            "image": {**file, "description": "PNG, JPEG, WebP, TIFF or BMP."},
            "mask": {
                **file,
                "description": "An image of the same size, white where to fill. Without it, what "
                "is transparent in the image is filled.",
            },
            **_OPTION_SCHEMAS,
        },
    }


_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _request_schema({"type": "string", "format": "binary"})},
        "application/json": {"schema": _request_schema({"type": "string", "format": "byte"})},
    },
}

# Beside the assets and not inline: the Content-Security-Policy allows no inline script.
_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>musical-tf: HTTP API</title>
<link rel="icon" href="docs/assets/favicon.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START_DOCS = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
