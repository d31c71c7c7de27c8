"""Options, each defined once for command lines, forms, JSON and the OpenAPI document.

A group of options is a frozen dataclass whose fields `option` makes. `add_arguments` makes flags of
a group; `serving.server.schemas` lets pydantic read it. Imports neither ONNX Runtime nor pydantic.
"""

import argparse
import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from musical_tf.contract import Fill, Strategy
from musical_tf.image_formats import Polarity

LARGEST_SEED = 2**31 - 1


def option(
    default: Any,
    description: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    metavar: str | None = None,
    alias: str | None = None,
) -> Any:
    """A field of a group of options.

    Args:
        default: Its default; where it is None, the description says what that means.
        description: For people, at the command line and over HTTP.
        ge: The least number.
        le: The greatest number.
        metavar: How `--help` names the value.
        alias: Another flag of a command line that means the same.
    """
    metadata = {"description": description, "metavar": metavar, "alias": alias, "ge": ge, "le": le}
    metadata = {name: value for name, value in metadata.items() if value is not None}
    return dataclasses.field(default=default, metadata=metadata)


def described(group: type, name: str) -> str:
    """The description of an option."""
    (field,) = (field for field in dataclasses.fields(group) if field.name == name)
    return field.metadata["description"]


@dataclasses.dataclass(frozen=True)
class FillOptions:
    """What is filled, and how."""

    strategy: Strategy | None = option(
        None,
        "How the model sees the image. crop: windows around each hole; resize: squares framed as "
        "in training; original: the whole image. Default: the model's own, else crop.",
    )
    fill: Fill = option(
        "auto",
        "copy: pixels of the photograph are copied into the hole, sharp; network: the network's "
        "own fill, smooth; auto: copy if the model's file supports it.",
    )
    seed: int = option(
        0,
        "Number of one of the plausible fills. Models without variants, and fill network, take 0 "
        "only.",
        ge=0,
        le=LARGEST_SEED,
        metavar="N",
    )
    threshold: int | None = option(
        None,
        "Mask levels above it are white. Default: 127; if a mask has no brighter level, its marks "
        "are white.",
        ge=0,
        le=254,
        metavar="0..254",
    )
    polarity: Polarity = option(
        "white", "Part of the mask that is filled; clear is its transparent part."
    )
    dilate: int = option(0, "Pixels by which the hole is grown.", ge=0, le=1000, metavar="PIXELS")
    quality: int | None = option(
        None,
        "Quality of JPEG, WebP and AVIF. Default: a JPEG's own or 95, WebP lossless, AVIF 90.",
        ge=1,
        le=100,
        metavar="1..100",
    )


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """What runs the model, and within which limits."""

    provider: str = option(
        "auto",
        "cpu, cuda or another execution provider of ONNX Runtime; auto is the fastest installed.",
        metavar="NAME",
        alias="--device",
    )
    memory_limit: int = option(
        4,
        "Limit for the memory of one run of the model, in GiB; larger runs are refused.",
        ge=1,
        le=4096,
        metavar="GIB",
    )
    threads: int = option(0, "CPU threads of the model; 0 means all.", ge=0, le=1024, metavar="N")


def add_arguments(
    parser: argparse.ArgumentParser, group: type, leave_out: tuple[str, ...] = ()
) -> None:
    """Adds a flag for each option of a group.

    Args:
        parser: The command line's.
        group: The dataclass.
        leave_out: Options that this command line does not have.
    """
    hints = get_type_hints(group)
    for field in dataclasses.fields(group):
        if field.name in leave_out or "description" not in field.metadata:
            continue
        hint = hints[field.name]
        kind = get_args(hint)[0] if type(None) in get_args(hint) else hint
        help_text = field.metadata["description"].removesuffix(".")
        if help_text.partition(" ")[0].istitle():  # no abbreviation
            help_text = help_text[0].lower() + help_text[1:]
        if field.default is not None:
            help_text += " (default: %(default)s)"
        is_choice = get_origin(kind) is Literal
        parser.add_argument(
            *filter(None, (field.metadata.get("alias"), "--" + field.name.replace("_", "-"))),
            dest=field.name,
            type=str if is_choice else kind,
            choices=get_args(kind) if is_choice else None,
            default=field.default,
            metavar=field.metadata.get("metavar"),
            help=help_text,
        )


def read(arguments: argparse.Namespace, group: type) -> dict[str, Any]:
    """The values of a group's flags by the option's name, checked.

    Raises:
        ValueError: Names the flag, its range and what came.
    """
    values = {}
    for field in dataclasses.fields(group):
        if not hasattr(arguments, field.name):
            continue
        value = values[field.name] = getattr(arguments, field.name)
        if value is not None and "ge" in field.metadata:
            check_range(field.name, value, field.metadata["ge"], field.metadata["le"])
    return values


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number outside its range.

    Raises:
        ValueError: Names the flag, its range and what came.
    """
    if not low <= value <= high:
        flag = "--" + name.replace("_", "-")
        raise ValueError(f"{flag} must be within {low} and {high}, got {value}")
