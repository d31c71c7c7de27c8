"""The contract of an exported ONNX file: what its metadata promises.

`export` writes it, `serving` checks it. Standard library only, so that both read each fact here.
"""

import dataclasses
import json
from typing import Any, Literal, get_args

OUTPUTS = {"1": ("inpainted",), "2": ("inpainted", "source", "predicted")}
"""Outputs of the graph by version of the contract; a file of another version is refused.

A file of version 2 copies known pixels into the hole, one of version 1 does not.
"""

SEED = "seed"
"""Name of the optional input of a file that copies: int64, shape (), which of the plausible fills.

It has a default in the file, 0, so callers may leave it out. Files that were written before it came
lack it.
"""

PREFIX = "musical_tf."
"""Prefix of every key of the metadata, which keeps other tools' keys apart."""

CHANNEL_AXES = {"nhwc": 3, "nchw": 1}
"""Axis of the image's channels, by layout."""

LAYOUTS = tuple(CHANNEL_AXES)
"""Order of the image's axes."""

VALUE_RANGES = {"uint8": "[0, 255]", "float32": "[0, 1]"}
"""The image's value range by `io`; its keys are the valid values of `io`."""

TENSOR_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}
"""ONNX Runtime's name for the type of image, mask and result, by `io`."""

MASK_THRESHOLDS = {"uint8": 127.0, "float32": 0.5}
"""A mask value above the threshold marks a hole, by `io`."""

MASK_POLARITIES = {io: f"above {value:g} = hole" for io, value in MASK_THRESHOLDS.items()}
"""What the mask means, by `io`."""

Strategy = Literal["crop", "resize", "original"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
"""How a model looks at a photograph that is not of its training size; see `serving.tiling`."""

Fill = Literal["auto", "copy", "network"]
FILLS: tuple[str, ...] = get_args(Fill)
"""How a hole is filled.

copy: pixels of the photograph are copied into the hole, with the network's fill as guide. network:
the network's own fill. auto: copy with a file of version 2, else network.
"""

_LARGEST = {  # beyond that it is no photograph's size, and no memory's
    "training_size": 8192,
    "size_multiple": 1024,
    "attention_max_scores": 10**15,
    "attention_factor": 1024,
}


class ModelError(ValueError):
    """The model file cannot be read, is not one of ours, or breaks its own contract."""


@dataclasses.dataclass(frozen=True)
class Contract:
    """What a model file says about itself.

    Attributes:
        contract: Version of the contract, a key of `OUTPUTS`.
        method: Name of the method, for instance "musical".
        preset: Its preset.
        training_size: Side in pixels of the images it was trained on.
        size_multiple: The network's own granularity; the graph pads to it, so callers need not.
        io: "uint8" or "float32".
        layout: "nhwc" or "nchw".
        value_range: "[0, 255]" or "[0, 1]", of image and result.
        mask_polarity: "above 127 = hole" or "above 0.5 = hole".
        precision: "float32", "float16" or "int8".
        dataset: What it was trained on.
        weights_sha256: Hash of the weights.
        weights_licence: Their licence.
        project_version: Version of musical_tf that wrote the file.
        parity: How far ONNX Runtime was from Keras when the file was written.
        attention_max_scores: The bound on its attention's memory; None where there is none.
        attention_factor: Pixels per position, along each side, of the attention's map; 4 where
            neither this entry nor the recipe of a model of the package tells it.
        name: What a model that is part of the package, or made from one, is called; None for any
            other.
        data: Its photographs in words; None where the file does not say.
        strategy: How it looks at a photograph unless told otherwise, one of `STRATEGIES`; "crop"
            where the file does not say.
    """

    contract: str
    method: str
    preset: str
    training_size: int
    size_multiple: int
    io: str
    layout: str
    value_range: str
    mask_polarity: str
    precision: str
    dataset: str
    weights_sha256: str
    weights_licence: str
    project_version: str
    parity: dict[str, Any]
    attention_max_scores: int | None = None
    attention_factor: int = 4
    name: str | None = None
    data: str | None = None
    strategy: str = "crop"

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "Contract":
        """Reads and checks the contract in a model file's `metadata_props`.

        Raises:
            ModelError: If there is no contract, if it is a version this module does not know, if an
                entry is missing, or if an entry has a value the contract does not allow.
        """
        version = metadata.get(PREFIX + "contract")
        if version is None:
            raise ModelError(
                f"not a model exported by this project: its metadata has no '{PREFIX}contract' "
                f"(it has: {', '.join(sorted(metadata)) or 'nothing'})"
            )
        if version not in OUTPUTS:
            raise ModelError(
                f"its contract must be version {' or '.join(OUTPUTS)}, got {version!r}: install "
                "the version of musical-tf that wrote it, or export it again"
            )
        fields: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if PREFIX + field.name in metadata:
                fields[field.name] = metadata[PREFIX + field.name]
            elif field.default is dataclasses.MISSING:
                raise ModelError(f"its metadata lacks '{PREFIX}{field.name}'")
        for name, largest in _LARGEST.items():
            if name not in fields:
                continue
            digits = fields[name]
            short = digits.isdecimal() and len(digits) <= len(str(largest))
            if not short or not 1 <= int(digits) <= largest:
                raise ModelError(
                    f"'{PREFIX}{name}' must be a whole number within 1 and {largest}, "
                    f"got {digits[:40]!r}"
                )
            fields[name] = int(digits)
        fields.setdefault("attention_factor", _factor_of_recipe(metadata))
        valid = {
            "layout": LAYOUTS,
            "io": tuple(VALUE_RANGES),
            "value_range": (VALUE_RANGES.get(fields["io"]),),
            "mask_polarity": (MASK_POLARITIES.get(fields["io"]),),
            "strategy": STRATEGIES,
        }
        for name, values in valid.items():
            if name in fields and fields[name] not in values:
                expected = " or ".join(map(repr, values))
                raise ModelError(f"'{PREFIX}{name}' is {fields[name]!r}; expected {expected}")
        try:
            fields["parity"] = json.loads(fields["parity"])
        except (ValueError, RecursionError) as error:
            raise ModelError(f"'{PREFIX}parity' is not JSON: {error}") from error
        if not isinstance(fields["parity"], dict):
            raise ModelError(
                f"'{PREFIX}parity' must be a JSON object, got {str(fields['parity'])[:40]}"
            )
        return cls(**fields)


def _factor_of_recipe(metadata: dict[str, str]) -> int:
    """`attention_factor` of a file that was written before the entry came."""
    try:
        level = json.loads(metadata.get(PREFIX + "recipe", "{}"))["config"]["attention_level"]
        return {2: 2, 4: 8}.get(level, Contract.attention_factor)
    except (ValueError, TypeError, KeyError, RecursionError):
        return Contract.attention_factor
