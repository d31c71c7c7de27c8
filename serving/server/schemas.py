"""The options of a request, read by pydantic: those of `serving.options`, and those of HTTP."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from ..options import FillOptions, described, option
from .request_terms import FORMATS, Box, RequestError, invalid_option

_NOTHING = ("", "null", "undefined")  # scripts write null into forms like this
_ALIASES = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg"}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Options(FillOptions):
    """What a request may ask for beside its image and mask.

    Values are read as clients write them: `True`, `1`, `on`, `yes`; `JPEG`, `jpg`; null, as text
    too, and empty text mean the default.
    """

    # To grow a large hole by more takes a thread of the server a minute.
    dilate: int = option(0, described(FillOptions, "dilate"), ge=0, le=256)
    invert: bool = option(False, "Same as polarity black.")
    format: Literal[(*FORMATS, "same")] = option(  # type: ignore[valid-type]
        "png",
        "Of the answer; same is the image's own, or png where that is not written. png, and webp "
        "without a quality, keep known pixels bit for bit.",
    )
    model: str | None = option(
        None,
        "The model that fills the hole, one of those that `/v1/model` lists. Default: the first.",
    )
    metadata: Literal["keep", "strip"] = option(
        "keep",
        "strip leaves out the image's EXIF: place, time, camera. The color profile stays.",
    )

    @field_validator("strategy", "fill", "polarity", "format", "metadata", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return _ALIASES.get(value.lower(), value.lower())

    @field_validator("threshold", "dilate", "quality", "seed", mode="before")
    @classmethod
    def _refuse_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("true and false are no numbers")
        return value


_ADAPTER = TypeAdapter(Options)


def option_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every option, without null, which no client has to send."""
    found = {}
    for name, schema in _ADAPTER.json_schema()["properties"].items():
        schema = dict(schema)
        for choice in schema.pop("anyOf", []):
            if choice.get("type") != "null":
                schema |= choice
        if schema.get("default", 0) is None:
            del schema["default"]
        del schema["title"]
        found[name] = schema
    return found


OPTIONS = tuple(option_schemas())


def read_options(fields: Mapping[str, Any], models: Sequence[str]) -> Options:
    """Reads the options among a request's fields: text from a form, JSON's own types from JSON.

    Args:
        fields: Name -> value; names that are no options are passed over.
        models: The names that `model` may have; the first is the default.

    Returns:
        The options; `model` is one of `models`, and `polarity` is black where `invert` is true.

    Raises:
        RequestError: 400 invalid_option, with the name, what is valid and what came.
    """
    given = {
        name: value.strip() if isinstance(value, str) else value
        for name, value in fields.items()
        if name in OPTIONS
    }
    given = {name: value for name, value in given.items() if value not in (None, *_NOTHING)}
    try:
        options = _ADAPTER.validate_python(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise _refusal(name, given[name], models) from None
    if options.invert:
        if options.polarity != "black" and "polarity" in given:
            raise invalid_option(
                f"polarity must be black with invert, got {options.polarity!r}; leave out invert"
            )
        options = replace(options, polarity="black")
    model = models[0] if options.model is None else options.model
    if model not in models:
        raise _refusal("model", model, models)
    return replace(options, model=model)


def read_box(fields: Mapping[str, Any], name: str) -> Box | None:
    """Reads an option that is a box; None where it is missing or empty.

    Raises:
        RequestError: 400 invalid_option.
    """
    text = fields.get(name, "")
    if not text.strip():
        return None
    match = re.fullmatch(r"\s*(-?\d{1,9})" + r"\s*,\s*(-?\d{1,9})" * 3 + r"\s*", text)
    left, top, right, bottom = map(int, match.groups()) if match else (0, 0, 0, 0)
    if left >= right or top >= bottom:
        raise invalid_option(
            f"{name} must be LEFT,TOP,RIGHT,BOTTOM in whole pixels, LEFT < RIGHT and TOP < BOTTOM, "
            f"got {text[:100]!r}"
        )
    return left, top, right, bottom


def _refusal(name: str, value: Any, models: Sequence[str]) -> RequestError:
    schema = option_schemas()[name]
    valid = models if name == "model" else schema.get("enum", ())
    if valid:
        wanted = f"one of {', '.join(valid)}"
    elif schema["type"] == "boolean":
        wanted = "true or false"
    else:
        wanted = f"a whole number from {schema['minimum']} to {schema['maximum']}"
    return invalid_option(f"{name} must be {wanted}, got {str(value)[:100]!r}")
