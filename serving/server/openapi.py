"""What `/docs` and `/openapi.json` say beyond what FastAPI finds in the code."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from .request_terms import OWN_FORMATS
from .schemas import option_schemas


class ErrorDetail(BaseModel):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class InpaintAnswer(BaseModel):
    """The answer to a request in JSON; `image` is base64, `milliseconds` has `queue` and `run`.

    `mask` says how the mask was read, `hole_share` which part of the image was filled, 0 to 1.
    """

    image: str
    format: Literal[tuple(OWN_FORMATS)]  # type: ignore[valid-type]
    width: int
    height: int
    model: str
    provider: str
    mask: str
    hole_share: float
    milliseconds: dict[str, float]


def errors(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    """Answers that are errors, by `status_NUMBER=description`."""
    return {
        int(name.removeprefix("status_")): {"model": ErrorAnswer, "description": description}
        for name, description in descriptions.items()
    }


NOT_READY = errors(status_503="The model has not run yet, or the server is ending.")
HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in {
        "Server-Timing": "Milliseconds: `queue;dur=..., run;dur=...`",
        "X-Mask": "How the mask was read: the levels found and the rule that selected the hole.",
        "X-Hole-Share": "The part of the image that was filled, 0 to 1.",
        "X-Saved": "The name of the file in the server's folder, if it saves its results "
        "(`--output-dir`).",
        "X-Model": "The model's name.",
        "X-Provider": "What ran it: ONNX Runtime's execution provider.",
    }.items()
}
_REFUSALS = errors(
    status_400="The image, the mask or an option cannot be used; the message says why.",
    status_403="The request comes from a web page of another site, or Host is no name of this "
    "server.",
    status_409="A request with the same X-Job is being answered, or another request has cancelled "
    "this one.",
    status_413="The body, or an image in it, is larger than this server allows.",
    status_415="The Content-Type is another one, or the body is compressed.",
    status_503="There is no room now; `Retry-After` says when there is likely to be.",
    status_504="The request was not finished in time.",
)
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The image.",
        "content": {
            f"image/{name}": {"schema": {"type": "string", "format": "binary"}}
            for name in OWN_FORMATS
        },
    },
    **_REFUSALS,
}
FORM_RESPONSES = FILE_RESPONSES | {200: FILE_RESPONSES[200] | {"headers": HEADERS}}
_MASK = {"schema": {"type": "string", "format": "binary"}}
SELECT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A mask of the photograph's size, 255 where the object is.",
        "content": {"image/png": _MASK},
        "headers": {"X-Selected-Share": HEADERS["X-Hole-Share"]},
    },
    **_REFUSALS,
    **errors(status_501="OpenCV is not installed on the server: `musical-tf[select]`."),
}
JSON_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The filled image in base64, and what was done.",
        "model": InpaintAnswer,
        "headers": HEADERS,
    },
    **_REFUSALS,
}
UNAUTHORIZED = errors(status_401="The token is missing or wrong.")


_FILES = {
    "image": "PNG, JPEG, WebP, TIFF, BMP or AVIF.",
    "mask": "An image of the same size, white where to fill. Without it, what is transparent in "
    "the image is filled.",
    "filled": "The image's answer from /v1/inpaint, of the same size: the answer has its pixels, "
    "and everything else that the image's file holds.",
    "photograph": "PNG, JPEG, WebP, TIFF, BMP or AVIF.",
    "strokes": "An image of the same size, white along rough strokes inside the object.",
}
_BOXES = {
    "crop": "LEFT,TOP,RIGHT,BOTTOM: the part of the image to take, in pixels. It may reach "
    "outside, where the image's border is continued. `filled` has the size of that part.",
    "box": "LEFT,TOP,RIGHT,BOTTOM: a box around the object, in pixels.",
}


def body(media_type: str, names: Sequence[str], models: Sequence[str] = ()) -> dict[str, Any]:
    """The body of a request.

    Args:
        media_type: A form has files, JSON has them in base64.
        names: The fields; the first is required.
        models: The names to choose from; none where they are not public.
    """
    kind = {"type": "string", "format": "byte" if media_type.endswith("json") else "binary"}
    known = option_schemas()
    known |= {name: kind | {"description": what} for name, what in _FILES.items()}
    known |= {name: {"type": "string", "description": what} for name, what in _BOXES.items()}
    if models:
        known["model"] |= {"enum": list(models), "default": models[0]}
    schema = {
        "type": "object",
        "required": [names[0]],
        "additionalProperties": False,
        "properties": {name: known[name] for name in names},
    }
    return {"required": True, "content": {media_type: {"schema": schema}}}


# The script is a file beside it: the Content-Security-Policy allows none inside.
DOCS_PAGE = """<!doctype html>
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
DOCS_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
