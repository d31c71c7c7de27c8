"""Exports a trained generator to one ONNX file that needs nothing else of ours.

The file maps `image` and `mask` to `inpainted`, and to `source` if it copies pixels. Padding,
scaling, masking and compositing are inside the graph, any batch, height and width (16 up) are
accepted, known pixels come back bit for bit. Before it is written, ONNX Runtime, the SavedModel and
Keras are run on the same photographs and holes; if they differ by more than `TOLERANCES` allows
nothing is written. The figures lie beside the file (`model.parity.json`) and, summed up, in its
metadata. docs/onnx.md is the contract.

    python export/to_onnx.py --run runs/celeba --output model.onnx
"""

import argparse
import contextlib
import gc
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata as distributions
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

if not __package__:  # run as a script, so the checkout itself is not on the path
    _CHECKOUT = Path(__file__).resolve().parents[1]
    if (_CHECKOUT / "musical_tf").is_dir():
        sys.path.insert(0, str(_CHECKOUT))

from musical_tf.arguments import Parser
from musical_tf.contract import LAYOUTS, OUTPUTS, PREFIX, STRATEGIES, VALUE_RANGES

IOS = tuple(VALUE_RANGES)
OPSETS = (17, 18)


class Tolerance(NamedTuple):
    """How far a runtime may be from Keras, in grey levels of 255.

    Attributes:
        max: At any one value.
        mean: On average over the holes' values.
    """

    max: float
    mean: float


TOLERANCES = {
    "float32": Tolerance(max=1.0, mean=0.05),
    "float16": Tolerance(max=2.0, mean=0.2),
    "int8": Tolerance(max=16.0, mean=1.0),
}
"""What the parity check allows, by precision of the ONNX file; its keys are the precisions."""

PRECISIONS = tuple(TOLERANCES)

UNKNOWN = "unknown"
"""What the metadata says of a generator's dataset when there is no recipe beside it."""

DEFAULT_TRAINING_SIZE = 256
"""Side in pixels that is stated when there is no recipe: the one all the papers train at."""

WEIGHT_LICENCES = {"celeba": "CelebA: non-commercial research"}
"""Licence of the weights by dataset, where the data's own terms bind what is made of it."""

OTHER_WEIGHT_LICENCE = "as its training data"

Runtime = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""From `(image, mask)` to the outputs of the contract by name."""


class ExportError(RuntimeError):
    """The export itself failed; nothing was written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 (the export failed) or 2 (it cannot be done)."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        quiet_tensorflow()
        report = export(
            run=arguments.run,
            output=arguments.output,
            io=arguments.io,
            layout=arguments.layout,
            precision=arguments.precision,
            opset=arguments.opset,
            attention_max_scores=arguments.attention_max_scores,
            strategy=arguments.strategy,
            fill=arguments.fill,
        )
    except ExportError as error:
        return fail(parser.prog, error, 1)
    except ModuleNotFoundError as error:
        return fail(parser.prog, describe_missing(error, "train,export,serve"), 1)
    except (OSError, ValueError) as error:
        return fail(parser.prog, error, 2)
    except KeyboardInterrupt:
        return fail(parser.prog, "interrupted; nothing was written", 130)
    size = Path(arguments.output).stat().st_size / 2**20
    print(f"{arguments.output}: {size:.1f} MiB, opset {arguments.opset}")
    print(f"{parity_path(arguments.output)}: {describe_parity(report)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description="Export a trained generator to one ONNX file: image and mask in, finished "
        "picture out, any batch, height and width.",
        epilog="Inputs: `image` [batch, height, width, 3] RGB and `mask` [batch, height, width]; "
        "output: `inpainted`, like `image`. Known pixels come back bit for bit. Keras, SavedModel "
        "and ONNX Runtime are compared first: above the tolerance of the precision no file is "
        "written. The figures are written to OUTPUT with the suffix .parity.json. docs/onnx.md "
        "states the contract and what each precision costs.",
    )
    parser.add_argument(
        "--run",
        required=True,
        metavar="DIR",
        help="run directory of training.fit (its generator.keras and recipe.json are read), a "
        ".keras file, or the name of a model that is part of the package: faces, photo",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the .onnx file to write")
    add_contract_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="float32; float16: convolutions, their weights and activations in float16, half the "
        "size; int8: weights stored as int8, computed in float32, a quarter of the size (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--opset", type=int, choices=OPSETS, default=17, help="ONNX opset (default: %(default)s)"
    )
    parser.add_argument(
        "--attention-max-scores",
        type=int,
        metavar="N",
        help="bound the attention's memory: it works through the hole in bands of rows, of at most "
        "N scores (4 bytes each) a tensor; a small N costs time, see docs/onnx.md (default: no "
        "bound, memory grows with the hole's box times the picture)",
    )
    parser.add_argument(
        "--fill",
        choices=("copy", "network"),
        help="copy: the file copies known pixels into the hole; network: the network's own fill, "
        "in half the time, and no loops in the graph (default: as the model is configured)",
    )
    add_strategy_argument(parser, "for a model of the package what its card says, else none")
    return parser


def add_contract_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--io` and `--layout`, which every export has."""
    parser.add_argument(
        "--io",
        choices=IOS,
        default="uint8",
        help="uint8: image and result in [0, 255], mask above 127 = hole; float32: image and "
        "result in [0, 1], mask above 0.5 = hole (default: %(default)s)",
    )
    parser.add_argument(
        "--layout",
        choices=LAYOUTS,
        default="nhwc",
        help="nhwc: image [batch, height, width, 3]; nchw: image [batch, 3, height, width]; the "
        "mask is [batch, height, width] in both (default: %(default)s)",
    )


def add_strategy_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--strategy`, which every command that writes an ONNX file has.

    Args:
        parser: The command line's.
        default: What is named without the flag, in words.
    """
    parser.add_argument(
        "--strategy",
        choices=STRATEGIES,
        help="how the file asks to be shown a photograph: crop, windows around each hole; resize, "
        "squares framed as in training; original, as it is; serving uses crop for a file that "
        f"names none (default: {default})",
    )


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
        precision: One of `PRECISIONS`: "float32"; "float16", see `to_float16`; "int8", see
            `to_int8`.
        opset: ONNX opset, one of `OPSETS`.
        attention_max_scores: The most scores that one tensor of the attention holds, see
            `musical_tf.layers.ContextualAttention`; None is what `run` was trained with, no bound
            unless asked for.
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
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}; received {precision!r}"
        )
    # Here, so that a missing one is found out before the work and not after it.
    import onnx  # noqa: F401
    import tf2onnx  # noqa: F401

    from musical_tf import onnx_runtime as runtime_library

    runtime_library.load()

    output = Path(output)
    report_path = parity_path(output)
    with writable_sibling(output) as temporary, writable_sibling(report_path) as report_file:
        inpaint = load_inpainting(run, io, layout, attention_max_scores, fill)
        description = describe(run, inpaint, precision, strategy) | dict(metadata or {})

        saved_model = saved_model_runtime(inpaint)
        model = in_precision(build_model(inpaint, opset), precision)
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
            temporary.write_bytes(model.SerializeToString())
            check_model(temporary)
            report_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            os.replace(report_file, report_path)
            os.replace(temporary, output)
        except OSError as error:
            raise ExportError(f"cannot write {output}: {error.strerror or error}") from error
    return report


# What is exported


def load_inpainting(
    run: str | Path,
    io: str = "uint8",
    layout: str = "nhwc",
    attention_max_scores: int | None = None,
    fill: str | None = None,
) -> Any:
    """Wraps the generator of `run`, loaded in float32 whatever precision it was trained in.

    Args:
        run, io, layout, attention_max_scores: See `export`.
        fill: "copy" or "network", whether known pixels are copied into the hole; None is what `run`
            was configured with.

    Raises:
        FileNotFoundError, ValueError: If `run` holds no generator or an argument is unknown.
        ExportError: If the generator gives NaN or infinity. In uint8 every runtime would agree on a
            grey level for it.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "exporting needs the TensorFlow backend of Keras; received "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    import musical_tf
    from musical_tf.inference import InpaintingFunction

    overrides: dict[str, Any] = {}
    if attention_max_scores is not None:
        overrides["attention_max_scores"] = attention_max_scores
    if fill is not None:
        overrides["copying"] = fill == "copy"
    generator = musical_tf.load(run, dtype="float32", **overrides)
    inpaint = InpaintingFunction(generator, io=io, layout=layout)
    side = 4 * generator.size_multiple
    image = np.zeros((1, side, side, 3), "float32")
    all_hole = np.ones((1, side, side, 1), "float32")
    if not np.isfinite(np.asarray(generator([image, all_hole], training=False))).all():
        raise ExportError(
            f"the generator of {run} gives NaN or infinity, as after a training that diverged, so "
            "nothing was written"
        )
    return inpaint


def serving_module(inpaint: Any) -> Any:
    """Wraps an `InpaintingFunction` as a `tf.Module` with the weights and the named signature.

    Returns:
        A module whose `serve` is a `tf.function` from `image`, `mask` to the dict of
        `InpaintingFunction.outputs`.
    """
    import tensorflow as tf

    module = tf.Module(name="inpainting")
    module.weights = [variable.value for variable in inpaint.generator.variables]
    signature = [
        tf.TensorSpec(inpaint.image_shape, inpaint.io, name="image"),
        tf.TensorSpec(inpaint.mask_shape, inpaint.io, name="mask"),
    ]

    def serve(image, mask):
        return inpaint.outputs(image, mask)

    module.serve = tf.function(serve, input_signature=signature, autograph=False)
    return module


def save_module(module: Any, folder: str | Path) -> None:
    """Writes `serving_module`'s result as a SavedModel with the signature `serving_default`.

    Raises:
        ExportError: If it cannot be written.
    """
    import tensorflow as tf

    # Inference needs no gradient, and a custom one would drag Python of ours into the file.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": module.serve}, options=options
        )
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"cannot write the SavedModel {folder}: {error}") from error


def build_model(inpaint: Any, opset: int = 17) -> Any:
    """Converts an `InpaintingFunction` to an ONNX model.

    Returns:
        An `onnx.ModelProto` with inputs `image`, `mask` and the outputs of the contract.

    Raises:
        ExportError: If the converter adds an input or output of its own.
    """
    model = convert(serving_module(inpaint).serve, opset)
    domains = {node.domain for node in model.graph.node}
    _replace(model.opset_import, [each for each in model.opset_import if each.domain in domains])
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    wanted = OUTPUTS[inpaint.contract]
    if sorted(inputs) != ["image", "mask"] or sorted(outputs) != sorted(wanted):
        raise ExportError(
            f"the ONNX graph must have inputs image, mask and outputs {', '.join(wanted)}; the "
            f"converter made inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
        )
    by_name = {value.name: value for value in model.graph.output}
    _replace(model.graph.output, [by_name[name] for name in wanted])
    axes = ["batch", "height", "width"]
    _name_axes(model.graph.input, "mask", axes)
    axes.insert(3 if inpaint.layout == "nhwc" else 1, "")
    _name_axes(model.graph.input, "image", axes)
    for name in wanted:
        is_image = name != "source"
        _name_axes(model.graph.output, name, axes if is_image else ["batch", "height", "width", ""])
    return model


def convert(function: Any, opset: int = 17) -> Any:
    """Converts a `tf.function` with an input signature to an `onnx.ModelProto`.

    It is traced anew, the attention's box sums as convolutions: ONNX Runtime copies what it slices.
    Where tf2onnx makes many nodes of what ONNX has one for, its hooks say how: see
    `_select_as_where` and those after it.
    """
    import tensorflow as tf
    import tf2onnx

    from musical_tf.layers.patch_matching import box_sums_by_convolutions

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = function.input_signature
    traced = tf.function(function.python_function, signature, autograph=False)
    with _collecting_garbage(), box_sums_by_convolutions():
        model, _ = tf2onnx.convert.from_function(
            traced,
            input_signature=signature,
            opset=opset,
            custom_op_handlers={
                "SelectV2": (_select_as_where, []),
                "Conv2DBackpropInput": (_transpose_convolution, []),
            },
            custom_rewriter=[
                _merge_instance_normalization,
                _convolve_one_channel,
                _gather_without_wrapping,
            ],
        )
    return model


@contextlib.contextmanager
def _collecting_garbage() -> Iterator[None]:
    """Collects garbage before each of tf2onnx' optimisations of the graph.

    Each works on a copy, weights included, and leaves the one before in cycles. Python counts
    objects and not bytes, and would let fifty of them pile up: twice the memory of anything else
    here. The optimisations say their names to a logger, which is the place to come between them.
    """

    class Collector(logging.Handler):
        def emit(self, record):
            if record.msg == "Apply %s":  # not at every constant that is folded
                gc.collect()

    logger = logging.getLogger("tf2onnx.optimizer")
    before = logger.level, logger.propagate
    collector = Collector()
    logger.addHandler(collector)
    logger.setLevel(logging.NOTSET + 1)
    logger.propagate = False
    gc.collect()
    gc.freeze()  # all that is there already: a collection looks at the conversion's objects only
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logger.removeHandler(collector)


def _select_as_where(context, node, name, arguments):
    """Converts a selection to ONNX `Where`.

    tf2onnx writes `where(c, x, y)` as `c * x + (1 - c) * y`: a NaN under the hole would then reach
    every pixel.
    """
    del context, name, arguments
    node.type = "Where"
    return node


def _transpose_convolution(context, node, name, arguments):
    """Converts a transposed convolution of "same" padding to `ConvTranspose` with fixed pads.

    Keras' output is then exactly `stride` times the input, whatever its size. tf2onnx itself
    computes pads and crop from a size that is not known before it runs, forty nodes each time.
    """
    del name, arguments
    from tf2onnx.onnx_opset import nn

    strides = nn.parse_dims_attr(node, node.get_attr("strides").ints, 2)
    dilations = nn.parse_dims_attr(node, node.get_attr("dilations").ints, 2)
    sizes = (context.get_shape(node.input[1]) or [-1, -1])[:2]
    reaches = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    surplus = [reach - stride for reach, stride in zip(reaches, strides, strict=True)]
    if node.get_attr_str("padding") != "SAME" or min(sizes) < 0:
        nn.ConvTranspose.version_11(context, node)
        return
    node.type = "ConvTranspose"
    nn.conv_kernel_shape(context, node, 1)
    nn.conv_dims_attr(node, "strides")
    nn.conv_dims_attr(node, "dilations")
    _, kernel, features, *bias = node.input  # the first is the output's shape
    context.replace_inputs(node, [features, kernel, *bias])
    nn.conv_convert_inputs(context, node, with_kernel=True)
    cut = [max(total, 0) for total in surplus]
    before = [total // 2 for total in cut]
    after = [total - first for total, first in zip(cut, before, strict=True)]
    node.set_attr("pads", before + after)
    node.set_attr("output_padding", [max(-total, 0) for total in surplus])
    node.set_attr("auto_pad", "NOTSET")


def _merge_instance_normalization(graph, nodes):
    """Merges what Keras' `GroupNormalization` with one channel a group becomes into one node.

    That node is `InstanceNormalization`; without it each is some twenty nodes and two transposes.
    A normalisation of another form is left as it is, which is slower and just as right.
    """
    from tf2onnx import utils
    from tf2onnx.graph_matcher import GraphMatcher

    for match in GraphMatcher(_normalization_pattern(), allow_reorder=True).match_ops(nodes):
        grouped, factor, result = (match.get_op(key) for key in ("grouped", "factor", "result"))
        gamma, beta = (
            match.get_op(key).get_tensor_value(as_list=False) for key in ("gamma", "beta")
        )
        axes = [match.get_op(key).get_tensor_value() for key in ("axes_mean", "axes_variance")]
        of_same = {match.get_op(key).name for key in ("compared", "of_mean", "of_subtracted")}
        if (
            not gamma.shape == beta.shape == (1, 1, 1, gamma.size, 1)
            or axes != [[1, 2, 4], [1, 2, 4]]
            or of_same != {grouped.name}
            or match.get_op("same_factor").name != factor.name
        ):
            continue
        affine = [
            graph.make_const(utils.make_name(result.name), values.ravel()).output[0]
            for values in (gamma, beta)
        ]
        planes = graph.make_node("Transpose", [grouped.input[0]], attr={"perm": [0, 3, 1, 2]})
        merged = graph.make_node(
            "InstanceNormalization",
            [planes.output[0], *affine],
            attr={"epsilon": match.get_op("epsilon").get_tensor_value(as_list=False).item()},
        )
        back = graph.make_node(
            "Transpose",
            merged.output,
            attr={"perm": [0, 2, 3, 1]},
            shapes=[graph.get_shape(result.output[0])],
            dtypes=[graph.get_dtype(result.output[0])],
        )
        graph.replace_all_inputs(result.output[0], back.output[0])
    return graph.get_nodes()


def _normalization_pattern():
    """TensorFlow's nodes of `GroupNormalization`, from its second reshape up to its first."""
    from tf2onnx.graph_matcher import OpTypePattern

    def pattern(kind, name=None, inputs=(), ordered=None):
        return OpTypePattern(kind, name, list(inputs), allow_reorder=False if ordered else None)

    def mean(name):
        return pattern(
            "Mean", inputs=[pattern("Reshape", f"of_{name}"), pattern("Const", f"axes_{name}")]
        )

    difference = pattern(
        "SquaredDifference",
        inputs=[pattern("Reshape", "compared"), pattern("StopGradient", inputs=[mean("mean")])],
    )
    variance = pattern("Mean", inputs=[difference, pattern("Const", "axes_variance")])
    above_zero = pattern("AddV2", inputs=[variance, pattern("Const", "epsilon")])
    inverse_deviation = pattern("Rsqrt", inputs=[above_zero])
    factor = pattern("Mul", "factor", [inverse_deviation, pattern("Const", "gamma")])
    scaled = pattern("Mul", inputs=[pattern("Reshape", "grouped"), factor])
    minus_mean = pattern("Neg", inputs=[mean("subtracted")])
    shift = pattern(
        "AddV2",
        inputs=[
            pattern("Mul", inputs=[minus_mean, pattern("Mul", "same_factor")]),
            pattern("Const", "beta"),
        ],
    )
    normalized = pattern("AddV2", inputs=[scaled, shift])
    return pattern("Reshape", "result", [normalized, pattern("*")], ordered=True)


def _convolve_one_channel(graph, nodes):
    """Converts three-dimensional convolutions of one channel, with the zeros around them, to one.

    With one channel there is nothing to transpose, and what tf2onnx pads by a pass of its own is an
    attribute in ONNX. They are the attention's box sums, see `musical_tf.layers.patch_matching`.
    """
    from tf2onnx import utils

    def axes(node, positions):
        return graph.make_const(utils.make_name(node.name), np.array(positions, "int64")).output[0]

    for node in nodes:
        padded = node.inputs[0] if node.type == "Conv3D" else None
        if padded is None or padded.type != "Pad":
            continue
        if not (node.inputs[1].is_const() and padded.inputs[1].is_const()):
            continue
        kernel = node.inputs[1].get_tensor_value(as_list=False)
        margins = padded.inputs[1].get_tensor_value(as_list=False)
        steps = {*node.get_attr("strides").ints, *node.get_attr("dilations").ints}
        if (
            kernel.shape[3:] != (1, 1)
            or node.get_attr_str("padding") != "VALID"
            or node.get_attr_str("data_format") != "NDHWC"
            or steps != {1}
            or margins[[0, 4]].any()
        ):
            continue
        channel_last = axes(node, [4])
        channel_first = axes(node, [1])
        weights = graph.make_const(utils.make_name(node.name), kernel[None, None, ..., 0, 0])
        value = padded.input[0]
        for kind, at in (("Squeeze", channel_last), ("Unsqueeze", channel_first)):
            value = graph.make_node(kind, [value, at]).output[0]
        value = graph.make_node(
            "Conv",
            [value, weights.output[0]],
            name=utils.make_name(node.name),
            attr={
                "kernel_shape": list(kernel.shape[:3]),
                "pads": margins[1:4].T.ravel().tolist(),
            },
        ).output[0]
        value = graph.make_node("Squeeze", [value, channel_first]).output[0]
        result = graph.make_node(
            "Unsqueeze",
            [value, channel_last],
            shapes=[graph.get_shape(node.output[0])],
            dtypes=[graph.get_dtype(node.output[0])],
        )
        graph.replace_all_inputs(node.output[0], result.output[0])
    return graph.get_nodes()


def _gather_without_wrapping(graph, nodes):
    """Lets `Gather` take negative indices itself, as ONNX's does.

    `keras.ops.take` adds the size to negative indices, four passes over what may be large.
    """
    for node in nodes:
        chosen = node.inputs[1] if node.type in ("Gather", "GatherV2") else None
        if chosen is None or chosen.type not in ("Select", "SelectV2"):
            continue
        is_negative, wrapped, _ = chosen.inputs
        index = chosen.input[2]
        if (
            is_negative.type == "Less"
            and is_negative.input[0] == index
            and is_negative.inputs[1].is_const()
            and not np.any(is_negative.inputs[1].get_tensor_value(as_list=False))
            and wrapped.type in ("Add", "AddV2")
            and index in wrapped.input
        ):
            graph.replace_input(node, node.input[1], index, 1)
    return graph.get_nodes()


def _name_axes(values, name: str, axes: Sequence[str]) -> None:
    """Names the free axes of the graph input or output `name`; "" leaves an axis as it is."""
    (value,) = (value for value in values if value.name == name)
    for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
        if axis:
            dimension.dim_param = axis


def check_model(path: str | Path) -> None:
    """Runs ONNX' own checker with full shape inference.

    Raises:
        ExportError: If the checker refuses the file.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX graph is not valid: {error}") from error


# Precision

_CONVOLUTIONS = ("Conv", "ConvTranspose")

_AROUND_CONVOLUTIONS = ("Clip", "Concat", "Elu", "Identity", "LeakyRelu", "Relu", "Transpose")
"""Operators that keep a value's size or move it, and so are as safe in float16 as their inputs."""

_HALF_LIMIT = float(np.finfo(np.float16).max)  # 65504
_LIMITS = ("half_lowest", "half_highest")
_SMALLEST_EPSILON = 1e-30  # not to vanish in float32


def in_precision(model: Any, precision: str) -> Any:
    """Returns a float32 `onnx.ModelProto` in one of `PRECISIONS`; a new one unless that is float32.

    Inputs and output stay what they are.
    """
    conversions = {"float32": lambda unchanged: unchanged, "float16": to_float16, "int8": to_int8}
    return conversions[precision](model)


def to_float16(model: Any) -> Any:
    """Returns a copy whose convolutions have float16 weights and activations.

    So do the operators between them. All else stays float32: attention with its scores and softmax,
    normalisation, squeeze-and-excitation, scaling and compositing. Convolutions whose result is
    normalised are scaled down first, which changes nothing else: where several follow each other
    before a normalisation, as in MUSICAL's innermost level, values grow beyond float16. What still
    enters float16 or comes of a convolution is clipped to its range, so that nothing becomes
    infinite, and no NaN can come of that.

    Args:
        model: Float32 `onnx.ModelProto`, its nodes in order of computation.
    """
    from onnx import TensorProto, numpy_helper

    model = _copy(model)
    graph = model.graph
    _scale_before_normalizations(graph)
    _clip_after_convolutions(graph)
    half = _half_nodes(graph)
    single = {name for node in graph.node if node.name not in half for name in _reads(node)}
    single.update(value.name for value in graph.output)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes, in_half = [], set()
    for node in graph.node:
        if node.name not in half:
            nodes.append(node)
            continue
        for name in node.input:
            if name in in_half:
                continue
            in_half.add(name)
            if name in weights:
                values = numpy_helper.to_array(weights[name]).clip(-_HALF_LIMIT, _HALF_LIMIT)
                rounded = numpy_helper.from_array(values.astype("float16"), f"{name}_half")
                graph.initializer.append(rounded)
            else:
                nodes.append(_clip(name, f"{name}_clipped"))
                nodes.append(_cast(f"{name}_clipped", f"{name}_half", TensorProto.FLOAT16))
        # A value keeps its name in float32; that of its float16 form ends in _half.
        (result,) = node.output
        _replace(node.input, [f"{name}_half" for name in node.input])
        _replace(node.output, [f"{result}_half"])
        in_half.add(result)
        nodes.append(node)
        if result in single:
            nodes.append(_cast(f"{result}_half", result, TensorProto.FLOAT))
    _replace(graph.node, nodes)
    used = {name for node in nodes for name in _reads(node)}
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    return model


def _scale_before_normalizations(graph) -> None:
    """Brings filters of convolutions that a normalisation follows to a norm of 1 at most.

    The normalisation takes any factor out again, exactly so as its epsilon is scaled too. A factor
    passes through (leaky) ReLUs, so this goes for several convolutions in a row as well, the
    biases scaled by the product. Factors are powers of two, one a convolution, none above 1.
    """
    from onnx import numpy_helper

    makers = {name: node for node in graph.node for name in node.output}
    readers = _readers(graph)
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def scale(name: str, factor: float) -> None:
        values = numpy_helper.to_array(tensors[name]) * np.float32(factor)
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))

    def scalable(node) -> bool:
        return _is_convolution(node) and all(
            name in tensors and len(readers[name]) == 1 for name in node.input[1:]
        )

    for normalization in graph.node:
        if normalization.op_type != "InstanceNormalization":
            continue
        chain, value = [], normalization.input[0]
        while value in makers and len(readers[value]) == 1:
            node = makers[value]
            if scalable(node):
                chain.insert(0, node)
            elif node.op_type not in ("Relu", "LeakyRelu"):
                break
            value = node.input[0]
        product = 1.0
        for node in chain:
            weights = numpy_helper.to_array(tensors[node.input[1]])
            within = _axes_of_a_filter(node, weights)
            largest = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=within)).max()
            factor = 2.0 ** -max(0, int(np.ceil(np.log2(max(largest, 1.0)))))
            product *= factor
            scale(node.input[1], factor)
            for bias in node.input[2:]:
                scale(bias, product)
        for attribute in normalization.attribute:
            if attribute.name == "epsilon":
                attribute.f = max(attribute.f * product**2, _SMALLEST_EPSILON)


def _clip_after_convolutions(graph) -> None:
    from onnx import numpy_helper

    for name, limit in zip(_LIMITS, (-_HALF_LIMIT, _HALF_LIMIT), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.float32(limit), name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if _is_convolution(node):
            result = node.output[0]
            node.output[0] = f"{result}_unclipped"
            nodes.append(_clip(node.output[0], result))
    _replace(graph.node, nodes)


def _half_nodes(graph) -> set[str]:
    """Names of the convolutions, and of what computes nothing but their inputs."""
    readers = _readers(graph)
    half: set[str] = set()
    for node in reversed(graph.node):
        feeds_half = readers.get(node.output[0], {""}) <= half
        if _is_convolution(node) or (node.op_type in _AROUND_CONVOLUTIONS and feeds_half):
            half.add(node.name)
    return half


def _is_convolution(node) -> bool:
    """Whether a node is one of the network's: the attention's box sums have three dimensions."""
    sides = [each.ints for each in node.attribute if each.name == "kernel_shape"]
    return node.op_type in _CONVOLUTIONS and all(len(each) == 2 for each in sides)


def _axes_of_a_filter(convolution, weights: np.ndarray) -> tuple[int, ...]:
    """The axes of a convolution's weights, all but the one that counts its filters."""
    filters = 0 if convolution.op_type == "Conv" else 1
    return tuple(axis for axis in range(weights.ndim) if axis != filters)


def _readers(graph) -> dict[str, set[str]]:
    """Value -> names of the nodes that read it; "" reads the graph's outputs."""
    readers: dict[str, set[str]] = {value.name: {""} for value in graph.output}
    for node in graph.node:
        for name in _reads(node):
            readers.setdefault(name, set()).add(node.name)
    return readers


def _reads(node) -> list[str]:
    """Names of all values a node reads, those included that its loops and branches read."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, attribute.g):
            names += [value.name for value in graph.output]
            names += [name for inner in graph.node for name in _reads(inner)]
    return names


def to_int8(model: Any) -> Any:
    """Returns a copy whose convolutions' weights are stored as int8, with a scale per filter.

    `weight = int8 * scale` is written as plain nodes over constants, which ONNX Runtime computes
    once, when it loads the file: from then on it is the float32 network with rounded weights.
    Tensors of less than a thousandth of all the weights stay float32: the first and the last
    convolution, whose rounding would show most, cost nothing.

    Args:
        model: Float32 `onnx.ModelProto`.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = _copy(model)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    least = sum(np.prod(tensor.dims, dtype=int) for tensor in graph.initializer) / 1000
    stored, nodes = [], []
    for node in graph.node:
        if not _is_convolution(node) or node.input[1] not in tensors:
            continue
        name = node.input[1]
        weights = numpy_helper.to_array(tensors[name])
        if weights.size < least:
            continue
        del tensors[name]  # a second convolution with these weights finds them stored
        largest = np.abs(weights).max(axis=_axes_of_a_filter(node, weights), keepdims=True)
        scale = np.where(largest > 0, largest / 127, 1).astype("float32")
        levels = np.rint(weights / scale).astype("int8")  # -127 to 127
        stored += [
            numpy_helper.from_array(levels, f"{name}_int8"),
            numpy_helper.from_array(scale, f"{name}_scale"),
        ]
        nodes += [
            _cast(f"{name}_int8", f"{name}_levels", TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_levels", f"{name}_scale"], [name], f"{name}_weights"),
        ]
    _replace(graph.node, [*nodes, *graph.node])
    _replace(graph.initializer, [*tensors.values(), *stored])
    return model


def _copy(model):
    duplicate = type(model)()
    duplicate.CopyFrom(model)
    return duplicate


def _replace(repeated, values) -> None:
    """Replaces what a repeated field of a protocol buffer holds."""
    kept = [value if isinstance(value, str) else _copy(value) for value in values]
    del repeated[:]  # empties the messages it held, hence the copies
    repeated.extend(kept)


def _clip(name: str, result: str):
    from onnx import helper

    return helper.make_node("Clip", [name, *_LIMITS], [result], f"{result}_clip")


def _cast(name: str, result: str, to: int):
    from onnx import helper

    return helper.make_node("Cast", [name], [result], f"{result}_cast", to=to)


# What the file says about itself


def describe(
    run: str | Path, inpaint: Any, precision: str = "float32", strategy: str | None = None
) -> dict[str, str]:
    """Collects the file's metadata, all but the measured parity.

    Args:
        run: Run directory, `.keras` file, or the name of a model that is part of the package.
        inpaint: The `InpaintingFunction` made from it.
        precision: Of the exported weights.
        strategy: How the file asks to be shown a photograph, one of
            `STRATEGIES`. By default what the card of a model of the package says, else the file
            asks for nothing.

    Returns:
        The entries of the contract, all strings, without `PREFIX`.

    Raises:
        ValueError: If `recipe.json` cannot be read or holds no valid image size, or the strategy is
            unknown.
    """
    import musical_tf
    from musical_tf import methods, named_models

    weights = methods.generator_file(run)
    recipe, card = {}, {}
    if named_models.is_name(run):
        card = named_models.card(run)
        recipe = card["recipe"]
    elif Path(run).is_dir():
        recipe = _read_recipe(Path(run) / "recipe.json")
    dataset = str(recipe.get("dataset", UNKNOWN))
    training_size = recipe.get("image_size", DEFAULT_TRAINING_SIZE)
    if not isinstance(training_size, int) or training_size < 1:
        raise ValueError(
            f"{run}/recipe.json: image_size must be a positive integer; received {training_size!r}"
        )
    if strategy is None:
        strategy = card.get("strategy")
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; received {strategy!r}")
    generator = inpaint.generator
    bound = getattr(generator.config, "attention_max_scores", None)
    ablation = recipe.get("ablation")
    return {
        "contract": inpaint.contract,
        "method": str(generator.method),
        "preset": str(generator.preset),
        "training_size": str(training_size),
        "size_multiple": str(generator.size_multiple),
        "io": inpaint.io,
        "layout": inpaint.layout,
        "value_range": inpaint.value_range,
        "mask_polarity": inpaint.mask_polarity,
        "dataset": dataset,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "project_version": musical_tf.__version__,
        "weights_licence": card.get("licence", WEIGHT_LICENCES.get(dataset, OTHER_WEIGHT_LICENCE)),
        "precision": precision,
        **({} if bound is None else {"attention_max_scores": str(bound)}),
        **({} if ablation is None else {"ablation": str(ablation)}),
        **({} if strategy is None else {"strategy": strategy}),
        **{key: card[key] for key in ("name", "data") if key in card},
    }


def _read_recipe(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} must hold a JSON object; received a {type(recipe).__name__}")
    return recipe


def set_metadata(model: Any, description: dict[str, str]) -> None:
    """Writes `description` into the model, and what its inputs mean into their documentation."""
    import onnx

    properties = {PREFIX + key: value for key, value in description.items()}
    onnx.helper.set_model_props(model, properties)
    model.producer_name = "musical_tf"
    model.producer_version = description["project_version"]
    model.doc_string = f"Image inpainting, method {description['method']}."
    value_range = description["value_range"]
    for value in model.graph.input:
        value.doc_string = (
            description["mask_polarity"] if value.name == "mask" else f"RGB in {value_range}"
        )
    documentation = {
        "inpainted": f"RGB in {value_range}; known pixels as in image",
        "source": "row and column that a pixel was copied from; -1 where the network painted",
        "predicted": f"RGB in {value_range}; the network's own fill",
    }
    for value in model.graph.output:
        value.doc_string = documentation[value.name]


# Whether the runtimes agree


def saved_model_runtime(inpaint: Any) -> Runtime:
    """Saves `inpaint` as a SavedModel, loads it back and returns it as a function of arrays."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        save_module(serving_module(inpaint), folder)
        return signature_runtime(tf.saved_model.load(folder))


def signature_runtime(loaded: Any) -> Runtime:
    """Returns the `serving_default` signature of a loaded SavedModel as a function of arrays."""
    import tensorflow as tf

    def run(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        # Looked up through `loaded`, which owns the weights: a signature does not keep them.
        signature = loaded.signatures["serving_default"]
        results = signature(image=tf.constant(image), mask=tf.constant(mask))
        return {name: value.numpy() for name, value in results.items()}

    return run


def onnx_runtime(model: Any) -> Runtime:
    """Loads an ONNX model in ONNX Runtime, on the CPU, and returns it as a function of arrays."""
    from musical_tf import onnx_runtime as runtime_library

    onnxruntime = runtime_library.load()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class but this
        reason = " ".join(str(error).split())
        raise ExportError(f"ONNX Runtime does not load the graph: {reason}") from error
    names = [value.name for value in session.get_outputs()]

    def run(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"image": image, "mask": mask}), strict=True))

    return run


def measure_parity(
    inpaint: Any,
    runtimes: dict[str, Runtime],
    training_size: int,
    precisions: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Runs each runtime and Keras on the same photographs and holes.

    Keras runs eagerly on the image; the runtimes get the same image with other values under the
    hole (NaN where the type has it), so that agreement also shows that what lies there has no
    influence. Three sizes, each with single images and with a batch of three that have a hole of
    their own each; an empty mask is among them, and at sizes below 128 an image that is all hole.

    Args:
        inpaint: The `InpaintingFunction`, the reference.
        runtimes: Name -> a `Runtime`.
        training_size: Side in pixels of the largest square that is tried.
        precisions: Name of a runtime -> one of `PRECISIONS`, "float32" where it is missing.

    Returns:
        `{"unit", "reference", "runtimes": {name: {"precision", "tolerance": {"max", "mean"}, "max",
        "mean", "known_pixels_exact", "sources_known", "same_source", "empty_mask_returns_image",
        "all_hole_finite"}}, "versions", "cases": [...]}`. Differences of `predicted` are in grey
        levels of 255, `max` over all values, `mean` over those of the holes. `same_source` is the
        share of hole pixels that were copied from the same place.
    """
    cases = []
    for height, width in ((64, 64), (83, 118), (training_size, training_size)):
        holes = _holes(height, width)
        batches = [[name] for name in holes]
        if max(height, width) < 128:
            holes["all"] = np.ones((height, width), bool)
            batches += [["several", "border", "one pixel"], ["all"], ["all", "empty", "centre"]]
        else:  # attention over all of a large image is gigabytes
            batches += [["centre", "one pixel", "empty"]]
        for names in batches:
            cases.append(_compare(inpaint, runtimes, names, np.stack([holes[n] for n in names])))
    figures = {}
    for runtime in runtimes:
        precision = (precisions or {}).get(runtime, "float32")
        tolerance = TOLERANCES[precision]._asdict()
        of_cases = [(case, case["runtimes"][runtime]) for case in cases]
        figures[runtime] = {"precision": precision, "tolerance": tolerance, **_summarize(of_cases)}
    return {
        "unit": "grey levels of 255",
        "reference": "keras",
        "runtimes": figures,
        "versions": _versions(),
        "cases": cases,
    }


def _summarize(cases: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Sums up one runtime: pairs of a case and its figures."""
    values = sum(case["hole_values"] for case, _ in cases)
    total = sum(figure["mean"] * case["hole_values"] for case, figure in cases)
    empty = [figure["known_pixels_exact"] for case, figure in cases if case["masks"] == ["empty"]]
    all_hole = [figure["finite"] for case, figure in cases if "all" in case["masks"]]
    return {
        # Not max(): it loses a NaN.
        "max": float(np.max([figure["max"] for _, figure in cases])),
        "mean": total / values,
        "known_pixels_exact": all(figure["known_pixels_exact"] for _, figure in cases),
        **_summarize_sources(cases, values),
        "empty_mask_returns_image": all(empty),
        "all_hole_finite": all(all_hole),
    }


def _summarize_sources(cases: list[tuple[dict, dict]], values: int) -> dict[str, Any]:
    if "sources_known" not in cases[0][1]:
        return {}
    same = sum(figure["same_source"] * case["hole_values"] for case, figure in cases)
    return {
        "sources_known": all(figure["sources_known"] for _, figure in cases),
        "same_source": same / values,
    }


def _compare(
    inpaint: Any, runtimes: dict[str, Runtime], masks: list[str], hole: np.ndarray
) -> dict[str, Any]:
    """Compares the runtimes on one batch; `hole` is `(B, H, W)` bool."""
    batch, height, width = hole.shape
    random = np.random.default_rng([batch, height, width])
    image = _photographs(random, batch, height, width)
    scrambled = np.where(hole[..., None], random.integers(0, 256, image.shape, "uint8"), image)
    mask = hole.astype("uint8") * 255
    if inpaint.io == "float32":
        image, scrambled, mask = (
            array.astype("float32") / 255 for array in (image, scrambled, mask)
        )
        scrambled[hole] = np.nan
    if inpaint.layout == "nchw":
        image, scrambled = (array.transpose(0, 3, 1, 2) for array in (image, scrambled))

    def channels_last(array: np.ndarray) -> np.ndarray:
        return array if inpaint.layout == "nhwc" else array.transpose(0, 2, 3, 1)

    levels = 255.0 if inpaint.io == "float32" else 1.0
    known = channels_last(image)[~hole]
    expected = {name: np.asarray(value) for name, value in inpaint.outputs(image, mask).items()}
    predicted_by = "predicted" if "predicted" in expected else "inpainted"
    reference = channels_last(expected[predicted_by])
    figures = {}
    for runtime, run in runtimes.items():
        results = run(np.ascontiguousarray(scrambled), mask)
        result = channels_last(results["inpainted"])
        # A copied pixel may come from elsewhere after the smallest difference of the prediction, so
        # the prediction is compared, and of the copies whether they come from known pixels.
        predicted = channels_last(results[predicted_by])
        difference = np.abs(predicted.astype("float64") - reference.astype("float64")) * levels
        in_hole = difference[hole]
        figures[runtime] = {
            "max": float(difference.max()),
            "mean": float(in_hole.mean()) if in_hole.size else 0.0,
            "known_pixels_exact": all(
                np.array_equal(each[~hole], known) for each in (result, predicted)
            ),
            **_compare_sources(results, expected, hole),
            "finite": bool(np.isfinite(result).all()),
        }
    return {
        "batch": batch,
        "height": height,
        "width": width,
        "masks": masks,
        "hole_values": int(hole.sum()) * 3,
        "runtimes": figures,
    }


def _are_known(source: np.ndarray, hole: np.ndarray) -> bool:
    """Whether every pixel's source is a known pixel, or none."""
    sample = np.arange(len(hole))[:, None, None]
    painted = (source == -1).all(axis=-1)
    inside = ((source >= 0) & (source < hole.shape[1:])).all(axis=-1)
    row, column = np.where(inside[..., None], source, 0).transpose(3, 0, 1, 2)
    is_hole = hole[sample, row, column]
    return bool(np.all(np.where(painted, hole, inside & ~is_hole)))


def _compare_sources(
    results: dict[str, np.ndarray], expected: dict[str, np.ndarray], hole: np.ndarray
) -> dict[str, Any]:
    """Figures of the copies; none if the function does not copy."""
    if "source" not in expected:
        return {}
    source = results["source"]
    same = (source == expected["source"]).all(axis=-1)[hole]
    return {
        "sources_known": _are_known(source, hole),
        "same_source": float(same.mean()) if same.size else 1.0,
    }


def _photographs(random: np.random.Generator, batch: int, height: int, width: int) -> np.ndarray:
    """Makes `(B, H, W, 3)` uint8 images with detail at every scale, as photographs have."""
    image = np.zeros((batch, height, width, 3))
    for cell in (4, 16, 64):
        coarse = random.normal(size=(batch, -(-height // cell), -(-width // cell), 3))
        fine = coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :height, :width]
        image += fine * cell**0.25
    return np.clip(image * 24.0 + 127.5, 0, 255).astype("uint8")


def _holes(height: int, width: int) -> dict[str, np.ndarray]:
    """The holes every export is tried with, `(H, W)` bool each."""
    holes = {
        name: np.zeros((height, width), bool)
        for name in ("centre", "several", "border", "empty", "one pixel")
    }
    holes["centre"][height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
    holes["several"][height // 8 : height // 3, width // 8 : width // 4] = True
    holes["several"][height // 2 : height // 2 + 3, width // 3 :] = True
    holes["border"][-height // 4 :, -width // 3 :] = True
    holes["one pixel"][height // 3, width // 2] = True
    return holes


def check_parity(report: dict[str, Any]) -> None:
    """Refuses a report above the tolerance.

    Raises:
        ExportError: If a runtime differs by more than its tolerance (or gives NaN) or alters a
            known pixel.
    """
    for name, figures in report["runtimes"].items():
        if not figures["known_pixels_exact"]:
            raise ExportError(f"{name} alters known pixels, so nothing was written")
        if not figures.get("sources_known", True):
            raise ExportError(f"{name} copies from pixels that are not known, nothing was written")
        for figure, words in (("max", ""), ("mean", " on average")):
            allowed = figures["tolerance"][figure]
            if not figures[figure] <= allowed:
                raise ExportError(
                    f"{name} differs from Keras by {figures[figure]:.3f} grey levels{words}; at "
                    f"most {allowed:g} is allowed in {figures['precision']}, so nothing was written"
                )


def describe_parity(report: dict[str, Any]) -> str:
    """Sums a parity report up in one line."""
    return "; ".join(
        f"{name} against Keras: at most {figures['max']:.3g}, on average {figures['mean']:.2g} "
        "grey levels"
        for name, figures in report["runtimes"].items()
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime"):
        with contextlib.suppress(distributions.PackageNotFoundError):
            versions[package] = distributions.version(package)
    return versions


# Files and messages


def parity_path(output: str | Path) -> Path:
    """Where the parity report of the file `output` is written."""
    return Path(output).with_suffix(".parity.json")


@contextlib.contextmanager
def writable_sibling(path: Path) -> Iterator[Path]:
    """Creates a temporary file beside `path`, to be renamed over it; removes it at the end.

    Created first, so that an unwritable folder is found out before the work and not after it.

    Raises:
        OSError: If the folder cannot be written to, or `path` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; a file name is expected")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    os.fchmod(descriptor, 0o666 & ~_umask())  # mkstemp's 0600 would hide the file from a server
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def quiet_tensorflow() -> None:
    """Keeps TensorFlow to errors, and to the CPU: a GPU's TF32 would count as a difference."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import absl.logging
    import tensorflow as tf

    # Through absl's own switch: its logger puts the level of a plain setLevel back.
    absl.logging.set_verbosity(absl.logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(RuntimeError):  # already in use: then the caller has chosen
        tf.config.set_visible_devices([], "GPU")


def describe_missing(error: ModuleNotFoundError, extras: str) -> str:
    """Says which package is missing and which extras of ours bring it."""
    package = (error.name or str(error)).partition(".")[0]
    return (
        f"the Python package {package} is not installed; "
        f"pip install 'musical-tf[{extras}]' brings what this command needs"
    )


def fail(program: str, message: object, code: int) -> int:
    """Prints the one line that says what went wrong; returns `code`."""
    print(f"{program}: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
