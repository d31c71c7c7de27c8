"""Conversion of an inpainting function to ONNX, and the export of a run to a checked ONNX file."""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.contract import OUTPUTS, SEED
from musical_tf.files import whole_file

from .errors import ExportError
from .metadata import describe, set_metadata
from .parity import check_parity, measure_parity, onnx_runtime
from .precision import PRECISIONS, in_precision
from .protobuf import replace, share_constants
from .rewrites import (
    convolve_one_channel,
    gather_without_wrapping,
    give_scalars_a_rank,
    merge_instance_normalization,
    select_as_where,
    transpose_convolution,
)
from .serving_module import load_inpainting, saved_model_runtime, serving_module

OPSETS = (17, 18)


def export(
    run: str | Path,
    output: str | Path,
    io: str = "uint8",
    layout: str = "nhwc",
    precision: str = "float32",
    opset: int = 17,
    attention_max_scores: int | None = None,
    strategy: str | None = None,
    fill: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Exports the generator of `run` to the ONNX file `output`.

    Args:
        run: Run directory, `.keras` file, or the name of a model that is part of the package.
        output: The file to write; the parity report is written beside it. Both whole or not at all.
        io, layout: See `musical_tf.inference.InpaintingFunction`.
        precision: One of `PRECISIONS`, see `to_float16` and `to_int8`.
        opset: ONNX opset, one of `OPSETS`.
        attention_max_scores: The most scores that one tensor of the attention holds, see
            `musical_tf.layers.ContextualAttention`; None is what `run` was trained with.
        strategy: See `describe`.
        fill: See `load_inpainting`.
        metadata: Entries beside those of `describe`, or in their place.

    Returns:
        The parity report, see `measure_parity`.

    Raises:
        FileNotFoundError, ValueError: If `run` holds no generator or an argument is unknown.
        OSError: If `output` cannot be written.
        ExportError: If the graph is invalid or differs from Keras by more than `TOLERANCES` allows.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    # Here, so that a missing one is found out before the work and not after it.
    import onnx  # noqa: F401
    import tf2onnx  # noqa: F401

    from musical_tf import onnx_runtime as runtime_library

    runtime_library.load()

    output = Path(output)
    report_path = parity_path(output)
    check_writable(output)
    check_writable(report_path)
    inpaint = load_inpainting(run, io, layout, attention_max_scores, fill)
    description = describe(run, inpaint, precision, strategy) | dict(metadata or {})

    saved_model = saved_model_runtime(inpaint)
    model = in_precision(build_model(inpaint, opset), precision)
    share_constants(model)
    report = measure_parity(
        inpaint,
        {"saved_model": saved_model, "onnx": onnx_runtime(model)},
        training_size=int(description["training_size"]),
        precisions={"onnx": precision},
    )
    check_parity(report)

    description["parity"] = json.dumps(report["runtimes"]["onnx"])
    set_metadata(model, description)
    try:
        with whole_file(output) as partial, whole_file(report_path) as partial_report:
            partial.write_bytes(model.SerializeToString())
            check_model(partial)
            partial_report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {output}: {error.strerror or error}") from error
    return report


def build_model(inpaint: Any, opset: int = 17) -> Any:
    """Converts an `InpaintingFunction` to an `onnx.ModelProto` with the names of the contract.

    If it copies it also has the input `seed` with the default 0.

    Raises:
        ExportError: If the converter adds an input or output of its own.
    """
    wanted = OUTPUTS[inpaint.contract]
    seeded = "source" in wanted
    model = convert(serving_module(inpaint, seeded).serve, opset)
    domains = {node.domain for node in model.graph.node}
    replace(model.opset_import, [each for each in model.opset_import if each.domain in domains])
    given = ["image", "mask", *([SEED] if seeded else [])]
    inputs = {value.name: value for value in model.graph.input}
    outputs = {value.name: value for value in model.graph.output}
    if sorted(inputs) != given or sorted(outputs) != sorted(wanted):
        raise ExportError(
            f"the ONNX graph must have inputs {', '.join(given)} and outputs {', '.join(wanted)}; "
            f"the converter made inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
        )
    if seeded:
        import onnx

        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, "int64"), SEED))
    plane = ("batch", "height", "width")
    maps = (*plane, "")
    images = maps if inpaint.layout == "nhwc" else ("batch", "", "height", "width")
    for name, value in {**inputs, **outputs}.items():
        axes = {"mask": plane, "source": maps, SEED: ()}.get(name, images)
        for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
            if axis:
                dimension.dim_param = axis
    replace(model.graph.output, [outputs[name] for name in wanted])
    return model


def convert(function: Any, opset: int = 17) -> Any:
    """Converts a `tf.function` with an input signature to an `onnx.ModelProto`.

    It is traced again, the attention's box sums as convolutions: ONNX Runtime copies what it
    slices. Hooks of tf2onnx write one ONNX node where tf2onnx makes many, see `rewrites`.
    """
    import tensorflow as tf
    import tf2onnx

    from musical_tf.layers.box_sums import box_sums_by_convolutions

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = function.input_signature
    traced = tf.function(function.python_function, signature, autograph=False)
    with _optimizing_in_place(), box_sums_by_convolutions():
        model, _ = tf2onnx.convert.from_function(
            traced,
            input_signature=signature,
            opset=opset,
            custom_op_handlers={
                "SelectV2": (select_as_where, []),
                "Conv2DBackpropInput": (transpose_convolution, []),
            },
            custom_rewriter=[
                merge_instance_normalization,
                convolve_one_channel,
                gather_without_wrapping,
                give_scalars_a_rank,
            ],
        )
    return model


@contextlib.contextmanager
def _optimizing_in_place() -> Iterator[None]:
    """Lets tf2onnx optimize the graph itself, and not a copy with its weights in each pass.

    The copies are for passes that fail. Here such a failure is an error.
    """
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check_model(path: str | Path) -> None:
    """Runs ONNX' own checker with full shape inference; `ExportError` if it refuses."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is not valid: {error}") from error


def parity_path(output: str | Path) -> Path:
    """Where the parity report of the file `output` is written."""
    return Path(output).with_suffix(".parity.json")


def check_writable(path: Path) -> None:
    """Creates the folder of `path`; `OSError` if `path` cannot be written or is a folder."""
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; a file name is expected")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
