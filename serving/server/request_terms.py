"""Formats, boxes and errors of requests, for the routes and for what they call."""

from collections.abc import Mapping

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF"}
"""What an answer may be: name in the request -> Pillow's."""

OWN_FORMATS = FORMATS | {"tiff": "TIFF", "bmp": "BMP"}
"""What an answer in the image's own format may be."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are outside."""


class RequestError(Exception):
    """Why a request gets no image.

    Attributes:
        status: HTTP status.
        code: The reason for programs.
        message: The reason for people.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


def invalid_option(message: str) -> RequestError:
    """The error of an option, a field or a parameter that cannot be used."""
    return RequestError(400, "invalid_option", message)


def unavailable(code: str, message: str, seconds: int) -> RequestError:
    """The error 503; the client may try again after `seconds`."""
    return RequestError(503, code, message, {"Retry-After": str(seconds)})
