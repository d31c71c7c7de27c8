"""Agreement of the runtimes with Keras: measured, checked against tolerances, summed up."""

import contextlib
from importlib import metadata as distributions
from typing import Any, NamedTuple

import numpy as np

from .errors import ExportError
from .serving_module import Runtime


class Tolerance(NamedTuple):
    """How far a runtime may be from Keras, in gray levels of 255.

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


def onnx_runtime(model: Any) -> Runtime:
    """An ONNX model as a function of arrays, on the CPU."""
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
        "all_hole_finite"}}, "versions", "cases": [...]}`. Differences of `predicted` are in gray
        levels of 255, `max` over all values, `mean` over those of the holes. `same_source` is the
        share of hole pixels that were copied from the same place.
    """
    cases = []
    sizes = ((64, 64), (83, 118), (training_size, training_size))
    for height, width in dict.fromkeys(sizes):  # each once, if it was trained at 64 pixels
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
        "unit": "gray levels of 255",
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
    painted = np.all(source == -1, axis=-1)
    inside = np.all((source >= 0) & (source < hole.shape[1:]), axis=-1)
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
    """Refuses a report above the tolerance, with NaN or an altered known pixel: `ExportError`."""
    for name, figures in report["runtimes"].items():
        if not figures["known_pixels_exact"]:
            raise ExportError(f"{name} alters known pixels, so nothing was written")
        if not figures.get("sources_known", True):
            raise ExportError(f"{name} copies from pixels that are not known, nothing was written")
        for figure, words in (("max", ""), ("mean", " on average")):
            allowed = figures["tolerance"][figure]
            if not figures[figure] <= allowed:
                raise ExportError(
                    f"{name} differs from Keras by {figures[figure]:.3f} gray levels{words}; at "
                    f"most {allowed:g} is allowed in {figures['precision']}, so nothing was written"
                )


def describe_parity(report: dict[str, Any]) -> str:
    """Sums a parity report up in one line."""
    return "; ".join(
        f"{name} against Keras: at most {figures['max']:.3g}, on average {figures['mean']:.2g} "
        "gray levels"
        for name, figures in report["runtimes"].items()
    )


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxruntime"):
        with contextlib.suppress(distributions.PackageNotFoundError):
            versions[package] = distributions.version(package)
    return versions
