"""A tiny model file that honours the ONNX contract, for tests that must run without TensorFlow.

It fills a hole with the mean of that image's known pixels, as `reference_fill` does in numpy.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper

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
    kind, code = ("uint8", 2) if io == "uint8" else ("float", 1)
    batch, height, width = sizes
    mask = f"{batch}, {height}, {width}"
    image = f"{mask}, 3" if layout == "nhwc" else f"{batch}, 3, {height}, {width}"
    fill = "value" if result is not None else "level" if io == "uint8" else "mean"
    inputs, outputs = f"{kind}[{image}] image, {kind}[{mask}] {mask_name}", "inpainted"
    copying = ""
    if copies is not None:
        number = "seed" if has_seed else "variant"
        inputs += ", int64 seed" if has_seed else ""
        outputs = "predicted"
        copying = f"""
            more = Mod ({number}, fifty)
            more_levels = Cast <to = 1> (more)
            copies = Add (copy, more_levels)
            with_copies = Where (where, copies, float)
            inpainted = Cast <to = {code}> (with_copies)
            mask_shape = Shape ({mask_name})
            source_shape = Concat <axis = 0> (mask_shape, two)
            source = Expand (first, source_shape)"""
    more_outputs = f", int32[{mask}, 2] source, {kind}[{image}] predicted" if copying else ""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        mean_fill ({inputs}) => ({kind}[{image}] inpainted{more_outputs}) {{
            float = Cast <to = 1> (image)
            float_mask = Cast <to = 1> ({mask_name})
            is_hole = Greater (float_mask, threshold)
            where = Unsqueeze (is_hole, channel)
            hole_value = Cast <to = 1> (where)
            known = Sub (one, hole_value)
            masked = Where (where, zero, float)
            total = ReduceSum (masked, spatial)
            known_count = ReduceSum (known, spatial)
            count = Max (known_count, one)
            mean = Div (total, count)
            level = Round (mean)
            filled = Where (where, {fill}, float)
            {outputs} = Cast <to = {code}> (filled){copying}
        }}"""
    )
    constants = {
        "threshold": np.float32(127.5 if io == "uint8" else 0.5),
        "channel": np.array([3 if layout == "nhwc" else 1], np.int64),
        "spatial": np.array((1, 2) if layout == "nhwc" else (2, 3), np.int64),
        "one": np.float32(1),
        "zero": np.float32(0),  # `masked` is no product: NaN * 0 is NaN
        "value": np.float32(result or 0),
        "copy": np.float32(copies or 0),
        "first": np.zeros(1, np.int32),
        "two": np.array([2], np.int64),
        "seed": np.int64(0),
        "variant": np.int64(0),  # a file without that input has no tensor of its name
        "fifty": np.int64(50),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name in used
    )
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


def write_model_like_migan(path: Path) -> Path:
    """A file with the inputs of MI-GAN's pipeline that returns the image."""
    kinds = {"image": 3, "mask": 1, "result": 3}
    image, mask, result = (
        helper.make_tensor_value_info(
            name, onnx.TensorProto.UINT8, [1, channels, "height", "width"]
        )
        for name, channels in kinds.items()
    )
    node = helper.make_node("Identity", ["image"], ["result"])
    graph = helper.make_graph([node], "stub", [image, mask], [result])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path
