"""The bodies of requests: read within their limit, forms and JSON apart."""

import binascii
import contextlib
import io
import json
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from .inpaint_request import FILES
from .request_terms import RequestError, invalid_option
from .schemas import OPTIONS

FORM, JSON = "multipart/form-data", "application/json"

LONGEST_REST = 2**16
"""Bytes of a body in JSON without its files."""

_LONGEST_HEADER = 1024  # bytes of a data: URL before its comma
_LONGEST_TEXT = 1024  # bytes of an option in a form
_BOUNDARY_BYTES = range(3, 71)  # openapi-python-client sends 3; RFC 2046 ends at 70
_MOST_BOUNDARIES = len(FILES) + len(OPTIONS) + 1
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")


def is_json(request: Request, valid: Sequence[str] = (FORM, JSON)) -> bool:
    """Whether the body is JSON rather than a form.

    Raises:
        RequestError: 415, if it is compressed or not one of `valid`.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise RequestError(
            415, "unsupported_media_type", f"a body with Content-Encoding {encoding} is not read"
        )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in valid:
        advice = "" if FORM in valid else "; send base64, or a form to /v1/inpaint"
        raise RequestError(
            415,
            "unsupported_media_type",
            f"Content-Type must be {' or '.join(valid)}, got {media_type or 'none'}{advice}",
        )
    return media_type == JSON


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(413, "too_large", f"the body is larger than the limit of {max_bytes} bytes")


def check_length(request: Request, max_bytes: int) -> None:
    """Refuses a body whose Content-Length is too large."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(max_bytes)


def limited(request: Request, max_bytes: int) -> Request:
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


class _FormParser(MultiPartParser):
    """Starlette's, but photographs stay in memory: a disk may be slow, and keeps what it is given.

    `Settings.queue` and `max_bytes` bound how much that is.
    """

    spool_max_size = sys.maxsize


async def read_form(
    request: Request, files: Sequence[str] = FILES, options: Sequence[str] = OPTIONS
) -> dict[str, Any]:
    """The fields of a form: streams for files, text for options."""
    boundary = _boundary(request.headers["content-type"])
    parser = _FormParser(
        request.headers,
        _with_few(boundary, request.stream()),
        max_files=len(files),
        max_fields=len(options),
        max_part_size=_LONGEST_TEXT,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        reason = getattr(error, "message", "Invalid multipart data.")
        raise RequestError(
            400,
            "invalid_form",
            f"{reason} (files, with a file name each: {', '.join(files)}; "
            f"short texts: {', '.join(options)})",
        ) from None
    check_names([name for name, _ in form.multi_items()], "form field", (*files, *options))
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        upload = value if isinstance(value, UploadFile) else None
        # A form sends this for an empty file field.
        is_empty = not value if upload is None else not upload.filename and not upload.size
        if name in files and is_empty:
            continue
        if (upload is not None) != (name in files):
            wanted = "a file, with a file name" if name in files else "text, not a file"
            raise RequestError(400, "invalid_form", f"the form field {name!r} must be {wanted}")
        fields[name] = value if upload is None else upload.file
        if upload is not None and name == "image":
            fields["name"] = upload.filename  # of a file that the result is saved in
    return fields


def _boundary(content_type: str) -> bytes:
    """The boundary of a form, if its parameters are such as clients send.

    Raises:
        RequestError: 400 invalid_form.
    """
    _, parameters = parse_options_header(content_type)
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:  # Python has codecs that always fail, or take minutes
        raise RequestError(
            400, "invalid_form", f"charset must be utf-8, got {charset[:40]!r}; leave it out"
        )
    boundary = parameters.get(b"boundary")
    if boundary is None:
        raise RequestError(400, "invalid_form", "Content-Type must have a boundary, got none")
    if len(boundary) not in _BOUNDARY_BYTES:
        raise RequestError(
            400,
            "invalid_form",
            f"boundary must have {_BOUNDARY_BYTES[0]} to {_BOUNDARY_BYTES[-1]} characters, "
            f"got {len(boundary)}; use a random one",
        )
    return boundary


async def _with_few(boundary: bytes, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The stream, while its boundary does not occur in the files: each costs parsing time."""
    mark, found = b"--" + boundary, 0
    async for chunk in stream:
        found += chunk.count(mark)
        if found > _MOST_BOUNDARIES:
            raise RequestError(
                400,
                "invalid_form",
                f"the boundary must occur {_MOST_BOUNDARIES} times at most, got more; "
                "use a random one",
            )
        yield chunk


async def read_json(request: Request) -> bytearray:
    """The body; a thread parses it later."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
    return body


def parse_json(
    content: bytes | bytearray,
    files: Sequence[str] = FILES,
    options: Sequence[str] | None = OPTIONS,
) -> dict[str, Any]:
    """Reads a body in JSON: one flat object, base64 or `data:` URLs for files.

    Args:
        content: The body.
        files: The names of files.
        options: The names of other values; None allows all.

    Returns:
        Streams for files, JSON's own types for options. A file that is null or empty is left out.

    Raises:
        RequestError: 400, if it is anything else.
    """
    content = content if isinstance(content, bytearray) else bytearray(content)
    encoded = _cut_files(content, files)

    def fields_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if options is not None:
            check_names([name for name, _ in pairs], "JSON key", (*files, *options))
        return dict(pairs)

    # Parsed, a megabyte of brackets is twenty, and none belongs here.
    is_flat = options is None or (b"[" not in content and content.count(b"{") <= 1)
    if len(content) > LONGEST_REST or not is_flat:
        raise RequestError(
            400,
            "invalid_json",
            "the body must be one flat JSON object of short options and image and mask in base64",
        )
    try:
        fields = json.loads(content, object_pairs_hook=fields_of)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(
            400, "invalid_json", f"expected a JSON object, got {type(fields).__name__}"
        )
    for name in files:
        value = fields.pop(name, None)
        cut = encoded.pop(name, None)
        if cut is None and isinstance(value, str):
            cut = bytearray(value, "utf-8", "surrogatepass")
        if cut is None and value is not None:
            got = type(value).__name__
            raise RequestError(400, f"invalid_{name}", f"{name}: it must be base64, got {got}")
        if cut and not cut.isspace():
            fields[name] = io.BytesIO(_decode_base64(cut, name))
    return fields


def check_names(names: Sequence[str], what: str, valid: Sequence[str] = (*FILES, *OPTIONS)) -> None:
    """Refuses names that mean nothing, and names that come twice.

    Raises:
        RequestError: 400 invalid_option, with the valid names.
    """
    for name in names:
        if name not in valid:
            raise invalid_option(f"unknown {what} {name[:100]!r}; valid: {', '.join(valid)}")
        if names.count(name) > 1:
            raise invalid_option(f"the {what} {name!r} was given more than once")


def _cut_files(content: bytearray, files: Sequence[str] = FILES) -> dict[str, bytearray]:
    """Takes the strings of files out of JSON, so that no parser copies them as wide text.

    Args:
        content: The JSON; each string that was taken out is empty afterwards.
        files: The names of files.
    """
    cut: dict[str, bytearray] = {}
    for name in files:
        match = re.search(rb'"%s"\s*:\s*"' % name.encode(), content)
        if match is None:
            continue
        start = match.end()
        end = content.find(b'"', start)
        cut[name] = content[start : len(content) if end < 0 else end]
        del match  # it holds the buffer, which could not shrink
        del content[start : start + len(cut[name])]
    return cut


def _decode_base64(encoded: bytearray, name: str) -> bytes:
    """Decodes base64, with blanks and JSON's escapes, or a `data:` URL."""
    code = f"invalid_{name}"
    if encoded.find(b"\\u") >= 0:  # encoders for web pages escape + and =
        with contextlib.suppress(ValueError):
            encoded = bytearray(json.loads(b'"%s"' % encoded), "utf-8", "surrogatepass")
    if not encoded.isascii():
        raise RequestError(400, code, f"{name}: it is not base64: it has other characters")
    for escape in (rb"\n", rb"\r", rb"\t"):
        if encoded.find(escape) >= 0:
            encoded = encoded.replace(escape, b"")
    if encoded.find(b"\\/") >= 0:
        encoded = encoded.replace(b"\\/", b"/")
    if encoded[:5].lower() == b"data:":
        comma = encoded.find(b",", 0, _LONGEST_HEADER)
        if comma < 0 or not encoded[:comma].lower().endswith(b";base64"):
            raise RequestError(400, code, f"{name}: a data: URL must be base64")
        del encoded[: comma + 1]
    encoded = encoded.translate(None, b" \t\n\r\v\f")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
    except binascii.Error as error:
        raise RequestError(400, code, f"{name}: it is not base64: {error}") from None
