"""Exports a trained generator to one ONNX file that needs nothing else of ours.

The file maps `image` and `mask` to `inpainted`. Padding, scaling, masking and compositing are
inside the graph, any batch, height and width (16 up) are accepted, known pixels come back bit for
bit. Before it is written, ONNX Runtime, the SavedModel and Keras are run on the same photographs
and holes; if they differ by more than one grey level nothing is written. The figures lie beside the
file (`model.parity.json`) and, summed up, in its metadata.

    python export/to_onnx.py --run runs/celeba --output model.onnx
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a script, so the checkout itself is not on the path
    _CHECKOUT = Path(__file__).resolve().parents[1]
    if (_CHECKOUT / "musical_tf").is_dir():
        sys.path.insert(0, str(_CHECKOUT))

CONTRACT = "1"
"""Version of the contract of the file with whoever runs it; `serving` refuses an unknown one."""

IOS = ("uint8", "float32")
LAYOUTS = ("nhwc", "nchw")
PRECISIONS = ("float32", "float16")
OPSETS = (17, 18)

TOLERANCE = 1.0
"""Grey levels (of 255) by which the runtimes may differ."""

UNKNOWN = "unknown"
"""What the metadata says of a generator's dataset when there is no recipe beside it."""

DEFAULT_TRAINING_SIZE = 256
"""Side in pixels that is stated when there is no recipe: the one all the papers train at."""

PREFIX = "musical_tf."
"""Before every key of the metadata, so that other tools' keys stay apart."""

WEIGHT_LICENCES = {"celeba": "CelebA: non-commercial research"}
"""Licence of the weights by dataset, where the data's own terms bind what is made of it."""

OTHER_WEIGHT_LICENCE = "as its training data"

Runtime = Callable[[np.ndarray, np.ndarray], np.ndarray]


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
    parser = argparse.ArgumentParser(
        description="Export a trained generator to one ONNX file: image and mask in, finished "
        "picture out, any batch, height and width.",
        epilog="Inputs: `image` [batch, height, width, 3] RGB and `mask` [batch, height, width]; "
        "output: `inpainted`, like `image`. Known pixels come back bit for bit. Keras, SavedModel "
        "and ONNX Runtime are compared first: above one grey level of difference no file is "
        "written. The figures are written to OUTPUT with the suffix .parity.json.",
    )
    parser.add_argument(
        "--run",
        required=True,
        metavar="DIR",
        help="run directory of training.fit (its generator.keras and recipe.json are read), or a "
        ".keras file",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the .onnx file to write")
    add_contract_arguments(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of weights and activations (default: %(default)s; float16 is not available yet)",
    )
    parser.add_argument(
        "--opset", type=int, choices=OPSETS, default=17, help="ONNX opset (default: %(default)s)"
    )
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


def export(
    run: str | Path,
    output: str | Path,
    io: str = "uint8",
    layout: str = "nhwc",
    precision: str = "float32",
    opset: int = 17,
) -> dict[str, Any]:
    """Exports the generator of `run` to the ONNX file `output`.

    Args:
        run: Run directory or `.keras` file.
        output: The file to write; the parity report is written beside it. Both whole or not at all.
        io, layout: See `musical_tf.inference.InpaintingFunction`.
        precision: "float32".
        opset: ONNX opset, one of `OPSETS`.

    Returns:
        The parity report, see `measure_parity`.

    Raises:
        FileNotFoundError, ValueError: If `run` holds no generator or an argument is unknown.
        OSError: If `output` cannot be written.
        ExportError: If the graph is invalid or differs from Keras by more than `TOLERANCE`.
    """
    if precision != "float32":
        raise ValueError(
            f"precision must be float32; received {precision!r}: exporting {precision} weights is "
            "not available yet"
        )
    # Here, so that a missing one is found out before the work and not after it.
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import tf2onnx  # noqa: F401

    output = Path(output)
    report_path = parity_path(output)
    with writable_sibling(output) as temporary, writable_sibling(report_path) as report_file:
        inpaint = load_inpainting(run, io, layout)
        description = describe(run, inpaint, precision)

        saved_model = saved_model_runtime(inpaint)
        model = build_model(inpaint, opset)
        report = measure_parity(
            inpaint,
            {"saved_model": saved_model, "onnx": onnx_runtime(model)},
            training_size=int(description["training_size"]),
        )
        check_parity(report)

        description["parity"] = json.dumps(report["summary"])
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


def load_inpainting(run: str | Path, io: str = "uint8", layout: str = "nhwc") -> Any:
    """Wraps the generator of `run`, loaded in float32 whatever precision it was trained in."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "exporting needs the TensorFlow backend of Keras; received "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    import musical_tf
    from musical_tf.inference import InpaintingFunction

    generator = musical_tf.load(run, dtype="float32")
    return InpaintingFunction(generator, io=io, layout=layout)


def serving_module(inpaint: Any) -> Any:
    """Wraps an `InpaintingFunction` as a `tf.Module` with the weights and the named signature.

    Returns:
        A module whose `serve` is a `tf.function` from `image`, `mask` to `{"inpainted": ...}`.
    """
    import tensorflow as tf

    module = tf.Module(name="inpainting")
    module.weights = [variable.value for variable in inpaint.generator.variables]
    signature = [
        tf.TensorSpec(inpaint.image_shape, inpaint.io, name="image"),
        tf.TensorSpec(inpaint.mask_shape, inpaint.io, name="mask"),
    ]

    def serve(image, mask):
        return {"inpainted": inpaint(image, mask)}

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
        An `onnx.ModelProto` with inputs `image`, `mask` and output `inpainted`.

    Raises:
        ExportError: If the converter adds an input or output of its own.
    """
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    serve = serving_module(inpaint).serve
    model, _ = tf2onnx.convert.from_function(
        serve,
        input_signature=serve.input_signature,
        opset=opset,
        custom_op_handlers={"SelectV2": (_select_as_where, [])},
    )
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if sorted(inputs) != ["image", "mask"] or outputs != ["inpainted"]:
        raise ExportError(
            "the ONNX graph must have inputs image, mask and output inpainted; the converter made "
            f"inputs {', '.join(inputs)} and outputs {', '.join(outputs)}"
        )
    axes = ["batch", "height", "width"]
    _name_axes(model.graph.input, "mask", axes)
    axes.insert(3 if inpaint.layout == "nhwc" else 1, "")
    _name_axes(model.graph.input, "image", axes)
    _name_axes(model.graph.output, "inpainted", axes)
    return model


def _select_as_where(context, node, name, arguments):
    """Converts a selection to ONNX `Where`.

    tf2onnx writes `where(c, x, y)` as `c * x + (1 - c) * y`: a NaN under the hole would then reach
    every pixel.
    """
    del context, name, arguments
    node.type = "Where"
    return node


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


# What the file says about itself


def describe(run: str | Path, inpaint: Any, precision: str = "float32") -> dict[str, str]:
    """Collects the file's metadata, all but the measured parity.

    Args:
        run: Run directory or `.keras` file.
        inpaint: The `InpaintingFunction` made from it.
        precision: Of the exported weights.

    Returns:
        The entries of the contract, all strings, without `PREFIX`.

    Raises:
        ValueError: If `recipe.json` cannot be read or holds no valid image size.
    """
    import musical_tf

    weights = Path(run)
    recipe = {}
    if weights.is_dir():
        recipe = _read_recipe(weights / "recipe.json")
        weights = weights / "generator.keras"
    dataset = str(recipe.get("dataset", UNKNOWN))
    training_size = recipe.get("image_size", DEFAULT_TRAINING_SIZE)
    if not isinstance(training_size, int) or training_size < 1:
        raise ValueError(
            f"{run}/recipe.json: image_size must be a positive integer; received {training_size!r}"
        )
    generator = inpaint.generator
    return {
        "contract": CONTRACT,
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
        "weights_licence": WEIGHT_LICENCES.get(dataset, OTHER_WEIGHT_LICENCE),
        "precision": precision,
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
    model.graph.output[0].doc_string = f"RGB in {value_range}; known pixels as in image"


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
        return signature(image=tf.constant(image), mask=tf.constant(mask))["inpainted"].numpy()

    return run


def onnx_runtime(model: Any) -> Runtime:
    """Loads an ONNX model in ONNX Runtime, on the CPU, and returns it as a function of arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda image, mask: session.run(["inpainted"], {"image": image, "mask": mask})[0]


def measure_parity(
    inpaint: Any, runtimes: dict[str, Runtime], training_size: int
) -> dict[str, Any]:
    """Runs each runtime and Keras on the same photographs and holes.

    Keras runs eagerly on the image; the runtimes get the same image with other values under the
    hole (NaN where the type has it), so that agreement also shows that what lies there has no
    influence.

    Args:
        inpaint: The `InpaintingFunction`, the reference.
        runtimes: Name -> function of `(image, mask)` arrays.
        training_size: Side in pixels of the largest square that is tried.

    Returns:
        `{"tolerance", "summary": {"max", "mean", "known_pixels_exact"}, "runtimes": the same for
        each, "versions", "cases": [...]}`. Differences are in grey levels of 255, `max` over all
        pixels, `mean` over the hole's.
    """
    cases = []
    for height, width in ((64, 64), (83, 118), (training_size, training_size)):
        holes = _holes(height, width)
        batches = [(name, hole[None]) for name, hole in holes.items()]
        mixed = ("several", "border", "one pixel")
        batches.append((", ".join(mixed), np.stack([holes[name] for name in mixed])))
        for name, hole in batches:
            cases.append(_compare(inpaint, runtimes, name, hole))

    figures = {
        runtime: _summarize([case["runtimes"][runtime] for case in cases]) for runtime in runtimes
    }
    return {
        "unit": "grey levels of 255",
        "reference": "keras",
        "tolerance": TOLERANCE,
        "summary": _summarize(list(figures.values())),
        "runtimes": figures,
        "versions": _versions(),
        "cases": cases,
    }


def _summarize(figures: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "max": max(figure["max"] for figure in figures),
        "mean": float(np.mean([figure["mean"] for figure in figures])),
        "known_pixels_exact": all(figure["known_pixels_exact"] for figure in figures),
    }


def _compare(
    inpaint: Any, runtimes: dict[str, Runtime], name: str, hole: np.ndarray
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
    reference = channels_last(np.asarray(inpaint(image, mask)))
    figures = {}
    for runtime, run in runtimes.items():
        result = channels_last(run(np.ascontiguousarray(scrambled), mask))
        difference = np.abs(result.astype("float64") - reference.astype("float64")) * levels
        in_hole = difference[hole]
        figures[runtime] = {
            "max": float(difference.max()),
            "mean": float(in_hole.mean()) if in_hole.size else 0.0,
            "known_pixels_exact": bool(np.array_equal(result[~hole], known)),
        }
    return {"batch": batch, "height": height, "width": width, "mask": name, "runtimes": figures}


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
        ExportError: If a runtime differs by more than `TOLERANCE` grey levels (or gives NaN) or
        alters a known pixel.
    """
    for name, figures in report["runtimes"].items():
        if not figures["max"] <= TOLERANCE:
            raise ExportError(
                f"{name} differs from Keras by {figures['max']:.3f} grey levels; at most "
                f"{TOLERANCE:g} is allowed, so nothing was written"
            )
        if not figures["known_pixels_exact"]:
            raise ExportError(f"{name} alters known pixels, so nothing was written")


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
