"""Refuses requests that a web page of another site makes a browser send, and cleans what is logged.

A server on loopback is out of reach of other machines, but not of the pages that a browser on this
machine shows. A page may post to it, or read from it under a name of the page's own that resolves
to 127.0.0.1 (DNS rebinding).
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .settings import Settings

IOPAINT = "/api/v1/"
"""What the paths of IOPaint's interface begin with."""

PAGES = ("/", "/docs")
"""What a link of another site may lead to."""


class Guard:
    """Checks Host, Origin and Sec-Fetch-Site of every request.

    1. Host must be a loopback name or one of `Settings.allowed_hosts`, unless those are None.
    2. Sec-Fetch-Site must not be cross-site. A link to a page of ours is followed.
    3. Origin, if there is one, must be the server's own.

    `Settings.allowed_origins` pass 2 and 3. A client that is no browser sends neither header.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = settings.allowed_hosts
        self.origins = settings.allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403, or lets the request pass."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope.get("client"):
            scope["client"] = (_clean_address(scope["client"][0]), scope["client"][1])
        code, message = self._refusal(scope, Headers(scope=scope))
        if not code:
            await self.app(scope, receive, send)
            return
        scope["musical.code"] = code
        answer = error_answer(scope["path"], 403, code, message)
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[str, str]:
        """Code and message; empty where the request may pass."""
        host = headers.get("host", "")
        if self.hosts is not None and not _is_allowed(host, self.hosts):
            return "host_not_allowed", (
                f"Host must be one of localhost, {', '.join(self.hosts)}, got {host[:100]!r}; "
                "start the server with --allow-host NAME to allow it"
            )
        origin = headers.get("origin")
        if origin is not None and ("*" in self.origins or origin in self.origins):
            return "", ""
        site = headers.get("sec-fetch-site", "").lower()
        is_link = scope["method"] in ("GET", "HEAD") and scope["path"] in PAGES
        is_link = is_link and headers.get("sec-fetch-mode", "").lower() == "navigate"
        # Behind a proxy Host may be another name, but a browser knows which page it is on.
        is_own = site == "same-origin" or origin is None
        is_own = is_own or _netloc(origin or "") == host.lower()
        if (site == "cross-site" and not is_link) or not is_own:
            return "origin_not_allowed", (
                f"Origin must be this server, got {(origin or site)[:100]!r}; "
                "start the server with --allow-origin ORIGIN to allow it"
            )
        return "", ""


def error_answer(
    path: str, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed, in the form that clients of the path expect."""
    content: dict[str, Any] = {"error": {"code": code, "message": message}}
    if path.startswith(IOPAINT):
        content = {"error": code, "detail": message, "body": "", "errors": message}
    return JSONResponse(content, status, headers)


def quoted(text: str) -> str:
    """Text from a request as one printable line of ASCII."""
    return urllib.parse.quote(text, safe="/:?=&%+,;@!$'()*~")


def _netloc(origin: str) -> str:
    """Host and port of an origin; empty if it is none."""
    return origin.partition("://")[2].lower()


def _is_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:@/\s]+)(?::[0-9]{1,5})?", host)
    if match is None:
        return False
    name = match[1].strip("[]").lower().removesuffix(".")
    return is_loopback_name(name) or name in allowed


def is_loopback_name(name: str) -> bool:
    """Whether a host's name always means this machine."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _clean_address(address: str) -> str:
    """A client's address for the log: X-Forwarded-For may put any text in its place."""
    try:
        return str(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return re.sub(r"[^0-9A-Za-z.:_\[\]-]", "?", address)[:64]
