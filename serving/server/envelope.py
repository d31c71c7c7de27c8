"""What surrounds every request: security headers, numbers, pace, and an answer to failures."""

import asyncio
import contextlib
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .guard import error_answer, quoted
from .metrics import Metrics

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


class Envelope:
    """Around every request: security headers, metrics, and an answer to unexpected errors.

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
        """Passes a request on and sends its answer."""
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
                answer = error_answer(
                    scope["path"], 500, "internal", "something went wrong here; the log has it"
                )
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
