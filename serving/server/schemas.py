"""Every option of a request, defined once: for forms, JSON and the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from musical_tf import images
from musical_tf.contract import FILLS

from ..tiling import STRATEGIES
from .inpaint_request import FORMATS, RequestError

_ALIASES = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg"}


class Options(BaseModel):
    """What a request may ask for beside its image and mask.

    Values are read as clients write them: `True`, `1`, `on`, `yes`; `JPEG`, `jpg`; null and empty
    text mean the default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Literal[STRATEGIES] | None = Field(
        None,
        description="How the model sees the image: crop, windows around each hole; resize, "
        "squares framed as in training; original, the whole image as it is. Default: the model's "
        "own, crop if its file names none.",
    )
    fill: Literal[FILLS] = Field(
        "auto",
        description="copy: pixels of the photograph are copied into the hole, sharp; network: the "
        "network's own fill, smooth; auto: copies if the model's file has them.",
    )
    threshold: int | None = Field(
        None,
        ge=0,
        le=254,
        description="Mask levels above it are the hole. Default: 127; if the mask has no brighter "
        "level, its marks are the hole.",
    )
    polarity: Literal[images.POLARITIES] | None = Field(
        None,
        description="The hole is the white, the black, or the clear (transparent) part of the "
        "mask. Default: white.",
    )
    invert: bool = Field(False, description="Same as polarity black.")
    dilate: int = Field(
        0, ge=0, le=256, description="Pixels by which the hole grows on every side."
    )
    format: Literal[(*FORMATS, "same")] = Field(
        "png",
        description="Of the answer; same is the image's own, or png where that is not written. "
        "png, and webp without a quality, keep known pixels bit for bit.",
    )
    quality: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Of jpeg, webp and avif; the others ignore it. Default: a JPEG's own or 95, "
        "webp without loss, avif 90.",
    )
    model: str | None = Field(
        None,
        description="The model that fills the hole, one of those that `/v1/model` lists. Default: "
        "the first.",
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, fields: Any) -> Any:
        stripped = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in dict(fields).items()
        }
        return {name: value for name, value in stripped.items() if value not in (None, "")}

    @field_validator("strategy", "fill", "polarity", "format", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return _ALIASES.get(value.lower(), value.lower())

    @field_validator("threshold", "dilate", "quality", mode="before")
    @classmethod
    def _refuse_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false are no numbers")
        return value


def option_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every option, without null, which no client has to send."""
    found = {}
    for name, schema in Options.model_json_schema()["properties"].items():
        schema = dict(schema)
        for choice in schema.pop("anyOf", []):
            if choice.get("type") != "null":
                schema |= choice
        if schema.get("default", 0) is None:
            del schema["default"]
        del schema["title"]
        found[name] = schema
    return found


OPTIONS = tuple(Options.model_fields)


def read_options(fields: Mapping[str, Any], models: Sequence[str]) -> Options:
    """Reads the options among a request's fields: text from a form, JSON's own types from JSON.

    Args:
        fields: Name -> value; names that are no options are passed over.
        models: The names that `model` may have; the first is the default.

    Returns:
        The options; `model` is one of `models`.

    Raises:
        RequestError: 400 invalid_option, with the name, what is valid and what came.
    """
    given = {name: fields[name] for name in OPTIONS if name in fields}
    try:
        options = Options.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise _refusal(name, given[name], models) from None
    if options.invert and options.polarity not in (None, "black"):
        raise RequestError(
            400,
            "invalid_option",
            f"polarity must be black with invert, got {options.polarity!r}; leave out invert",
        )
    if options.model is None:
        return options.model_copy(update={"model": models[0]})
    if options.model not in models:
        raise _refusal("model", given["model"], models)
    return options


def _refusal(name: str, value: Any, models: Sequence[str]) -> RequestError:
    schema = option_schemas()[name]
    valid = models if name == "model" else schema.get("enum", ())
    if valid:
        wanted = f"one of {', '.join(valid)}"
    elif schema["type"] == "boolean":
        wanted = "true or false"
    else:
        wanted = f"a whole number from {schema['minimum']} to {schema['maximum']}"
    return RequestError(400, "invalid_option", f"{name} must be {wanted}, got {str(value)[:100]!r}")
