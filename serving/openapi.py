"""What `/docs` and `/openapi.json` say beyond what FastAPI finds in the code."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from .inpaint_request import FORMATS, LARGEST_DILATION, LARGEST_THRESHOLD, Options
from .tiling import STRATEGIES


class ErrorDetail(BaseModel):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


class InpaintAnswer(BaseModel):
    """The answer to a request in JSON; `image` is base64, `milliseconds` has `queue` and `run`."""

    image: str
    format: Literal["png", "jpeg", "webp"]
    width: int
    height: int
    model: str
    provider: str
    milliseconds: dict[str, float]


def _errors(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    return {
        int(name.removeprefix("status_")): {"model": ErrorAnswer, "description": description}
        for name, description in descriptions.items()
    }


NOT_READY = _errors(status_503="The model has not run yet, or the server is ending.")
INPAINT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The filled image; to a request in JSON, an object with it in base64.",
        "content": {
            **{
                f"image/{name}": {"schema": {"type": "string", "format": "binary"}}
                for name in FORMATS
            },
            "application/json": {"schema": InpaintAnswer.model_json_schema()},
        },
        "headers": {
            "Server-Timing": {
                "description": "Milliseconds: `queue;dur=..., run;dur=...`",
                "schema": {"type": "string"},
            },
            "X-Model": {"description": "The model's name.", "schema": {"type": "string"}},
            "X-Provider": {
                "description": "What ran it: ONNX Runtime's execution provider.",
                "schema": {"type": "string"},
            },
        },
    },
    **_errors(
        status_400="The image, the mask or an option cannot be used; the message says why.",
        status_413="The body, or an image in it, is larger than this server allows.",
        status_415="The body is neither a form nor JSON.",
        status_503="There is no room now; `Retry-After` says when there is likely to be.",
        status_504="It was not done in time, and was given up.",
    ),
}
UNAUTHORIZED = _errors(status_401="The token is missing or wrong.")

_OPTIONS = {
    "strategy": {
        "type": "string",
        "enum": list(STRATEGIES),
        # No "default": it differs from model to model.
        "description": "How an image larger than the model's training size is looked at: in "
        "windows around each hole, shrunk as a whole, or as it is. Default: the model's own, crop "
        "if its file names none.",
    },
    "threshold": {
        "type": "integer",
        "minimum": 0,
        "maximum": LARGEST_THRESHOLD,
        "default": Options.threshold,
        "description": "Mask values above it are the hole.",
    },
    "invert": {
        "type": "boolean",
        "default": Options.invert,
        "description": "The hole is dark in the mask.",
    },
    "dilate": {
        "type": "integer",
        "minimum": 0,
        "maximum": LARGEST_DILATION,
        "default": Options.dilate,
        "description": "Pixels by which the hole grows on every side.",
    },
    "format": {
        "type": "string",
        "enum": list(FORMATS),
        "default": Options.format,
        "description": "Of the answer; png and webp keep known pixels bit for bit.",
    },
}


def _body(file_format: str, models: Sequence[str]) -> dict[str, Any]:
    file = {"type": "string", "format": file_format}
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
            **_OPTIONS,
            "model": {
                "type": "string",
                **({"enum": list(models), "default": models[0]} if models else {}),
                "description": "Which of the models that `/v1/model` lists fills it; the first "
                "unless told otherwise.",
            },
        },
    }


def inpaint_body(models: Sequence[str]) -> dict[str, Any]:
    """The body of a request to fill something.

    Args:
        models: The names to choose from; none where they are not for everybody's eyes.
    """
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _body("binary", models)},
            "application/json": {"schema": _body("byte", models)},
        },
    }


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
