"""A tiny model file that honours the ONNX contract, for tests that must run without TensorFlow.

It fills a hole with the mean of that image's known pixels, as `reference_fill` does in numpy.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

METADATA = {
    "musical_tf.contract": "1",
    "musical_tf.method": "musical",
    "musical_tf.preset": "lite",
    "musical_tf.training_size": "64",
    "musical_tf.size_multiple": "16",
    "musical_tf.io": "uint8",
    "musical_tf.layout": "nhwc",
    "musical_tf.value_range": "[0, 255]",
    "musical_tf.mask_polarity": "above 127 = hole",
    "musical_tf.dataset": "demo",
    "musical_tf.weights_sha256": "0" * 64,
    "musical_tf.project_version": "0.1.0",
    "musical_tf.parity": '{"max_grey_levels": 0}',
    "musical_tf.weights_licence": "none",
    "musical_tf.precision": "float32",
}


def metadata_for(io: str = "uint8", layout: str = "nhwc", **changes: str | None) -> dict[str, str]:
    """`METADATA` for a variant; a change of None removes the entry."""
    entries = METADATA | {"musical_tf.io": io, "musical_tf.layout": layout}
    if io == "float32":
        entries["musical_tf.value_range"] = "[0, 1]"
        entries["musical_tf.mask_polarity"] = "above 0.5 = hole"
    for name, value in changes.items():
        entries["musical_tf." + name] = value
    return {name: value for name, value in entries.items() if value is not None}


def write_model(
    path: Path,
    io: str = "uint8",
    layout: str = "nhwc",
    metadata: dict[str, str] | None = None,
    sizes: tuple[int | str, int | str, int | str] = ("batch", "height", "width"),
    mask_name: str = "mask",
    result: float | None = None,
    copies: float | None = None,
    has_seed: bool = False,
) -> Path:
    """Writes the model.

    Args:
        path: File to write.
        io: "uint8" or "float32".
        layout: "nhwc" or "nchw".
        metadata: `metadata_for(io, layout)` by default.
        sizes: Batch, height and width as declared.
        mask_name: Name of the second input.
        result: Fill with this value of the io's range instead of the mean.
        copies: Make a file of version 2. `inpainted` has this value in the hole, `predicted` is
            what version 1 returns, and every pixel's source is the first one.
        has_seed: Give that file the optional input `seed`, which is added to the value, modulo 50.
    """
    number = TensorProto.UINT8 if io == "uint8" else TensorProto.FLOAT
    batch, height, width = sizes
    image_shape = [batch, height, width, 3] if layout == "nhwc" else [batch, 3, height, width]
    channel_axis, spatial = (3, (1, 2)) if layout == "nhwc" else (1, (2, 3))
    constants = {
        "threshold": np.array(127.5 if io == "uint8" else 0.5, np.float32),
        "channel": np.array([channel_axis], np.int64),
        "spatial": np.array(spatial, np.int64),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [mask_name], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["float_mask", "threshold"], ["is_hole"]),
        helper.make_node("Unsqueeze", ["is_hole", "channel"], ["where"]),
        helper.make_node("Cast", ["where"], ["hole_value"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "hole_value"], ["known"]),
        helper.make_node("Where", ["where", "zero", "float"], ["masked"]),  # NaN * 0 is NaN
        helper.make_node("ReduceSum", ["masked", "spatial"], ["total"]),
        helper.make_node("ReduceSum", ["known", "spatial"], ["known_count"]),
        helper.make_node("Max", ["known_count", "one"], ["count"]),
        helper.make_node("Div", ["total", "count"], ["mean"]),
    ]
    if io == "uint8":
        nodes.append(helper.make_node("Round", ["mean"], ["level"]))
    if result is not None:
        constants["value"] = np.array(result, np.float32)
        nodes.append(helper.make_node("Identity", ["value"], ["chosen"]))
    chosen = "chosen" if result is not None else "level" if io == "uint8" else "mean"
    nodes += [
        helper.make_node("Where", ["where", chosen, "float"], ["filled"]),
        helper.make_node("Cast", ["filled"], ["inpainted"], to=number),
    ]
    outputs = [helper.make_tensor_value_info("inpainted", number, image_shape)]
    if copies is not None:
        nodes[-1].output[0] = "predicted"
        constants["copy"] = np.array(copies, np.float32)
        constants["first"] = np.zeros(1, np.int32)
        constants["two"] = np.array([2], np.int64)
        copied = "copy"
        if has_seed:
            constants["seed"] = np.array(0, np.int64)
            constants["fifty"] = np.array(50, np.int64)
            nodes += [
                helper.make_node("Mod", ["seed", "fifty"], ["more"]),
                helper.make_node("Cast", ["more"], ["more_levels"], to=TensorProto.FLOAT),
                helper.make_node("Add", ["copy", "more_levels"], ["variant"]),
            ]
            copied = "variant"
        nodes += [
            helper.make_node("Where", ["where", copied, "float"], ["with_copies"]),
            helper.make_node("Cast", ["with_copies"], ["inpainted"], to=number),
            helper.make_node("Shape", [mask_name], ["mask_shape"]),
            helper.make_node("Concat", ["mask_shape", "two"], ["source_shape"], axis=0),
            helper.make_node("Expand", ["first", "source_shape"], ["source"]),
        ]
        source_shape = [batch, height, width, 2]
        outputs.append(helper.make_tensor_value_info("source", TensorProto.INT32, source_shape))
        outputs.append(helper.make_tensor_value_info("predicted", number, image_shape))
    graph = helper.make_graph(
        nodes,
        "mean_fill",
        [
            helper.make_tensor_value_info("image", number, image_shape),
            helper.make_tensor_value_info(mask_name, number, [batch, height, width]),
            *([helper.make_tensor_value_info("seed", TensorProto.INT64, [])] if has_seed else []),
        ],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata is None:
        metadata = metadata_for(io, layout, contract="1" if copies is None else "2")
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def reference_fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """What the model computes: `(H, W, 3)` uint8 and `(H, W)` bool in, uint8 out."""
    mean = np.rint(image[~hole].astype(np.float32).mean(axis=0)).astype(np.uint8)
    return np.where(hole[..., None], mean, image)
