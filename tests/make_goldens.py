"""Rewrites the stored values that tests compare against: `python -m tests.make_goldens`.

Only after a change that is meant to change what a network computes; the diff of the files then says
so.
"""

import functools
from pathlib import Path

import keras
import numpy as np

import musical_tf
from musical_tf.conventions import mask_image

from .method_contract import batch_of, inputs_of, random_generator

FOLDER = Path(__file__).parent / "goldens"
TAPS = {
    "musical_paper": ("down4_norm", "down6_dilated_conv", "up3_norm", "attention"),
    "musical_official": ("down4_norm", "down6_dilated_conv", "up3_norm", "attention"),
    "csa": ("rough_up2_norm", "rough_tanh", "attention", "refine_up4_norm"),
    "deepfill_v1": (
        *("coarse_conv10", "coarse_conv12", "dilated_conv10", "attention_conv6", "attention"),
    ),
    "shift_net": ("down3_norm", "down4_conv", "up3_act", "shift", "up3_norm"),
    "glc": ("half2_act", "dilated16_act", "half4_act"),
    "context_encoder": ("encoder5_act", "bottleneck_act", "decoder3_act"),
}
"""Layers whose outputs are stored beside the result: a difference shows where it begins."""


def noisy(generator: keras.Model, size: float) -> keras.Model:
    """A generator with weights that tell answers apart."""
    random = np.random.default_rng(0)
    for variable in generator.variables:
        center = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(center + size * random.standard_normal(variable.shape))
    return generator


@functools.cache
def deepfill_generator(**fields) -> keras.Model:
    """Weights that tell answers apart, and leave most of them unclipped."""
    generator = musical_tf.create("deepfill_v1", width=4, dtype="float32", **fields)
    random = np.random.default_rng(0)
    for variable in generator.variables:
        fan_in = np.prod(variable.shape[:-1])
        size = 1.3 / np.sqrt(fan_in) if variable.path.endswith("kernel") else 0.1
        size *= 0.5 if "conv17" in variable.path else 1.0
        variable.assign(size * random.standard_normal(variable.shape))
    return generator


@functools.cache
def narrow_generator(name: str) -> keras.Model:
    """A generator of the structure of a golden, narrow enough to store what it computes."""
    if name.startswith("musical"):
        preset = name.removeprefix("musical_")
        return noisy(musical_tf.create("musical", preset, width=4, inner_levels=2), 0.3)
    if name == "csa":
        return noisy(musical_tf.create("csa", width=4, levels=4), 0.2)
    if name == "deepfill_v1":
        return deepfill_generator()
    fields = {
        "shift_net": {"width": 4, "levels": 4},
        "glc": {"width": 4},
        "context_encoder": {"width": 2, "bottleneck": 6},
    }
    return random_generator(name, **fields[name])


def inputs(name: str) -> list[np.ndarray]:
    """Two images `(2, 32, 48, 3)` in [-1, 1] with different holes `(2, 32, 48, 1)`."""
    if not name.startswith(("musical", "csa")):
        return inputs_of(batch_of(32, 48))
    rng = np.random.default_rng(1)
    image = np.repeat(np.repeat(rng.uniform(-1, 1, (2, 8, 12, 3)), 4, axis=1), 4, axis=2)
    hole = np.zeros((2, 32, 48, 1), "float32")
    hole[0, 8:24, 12:36] = hole[1, :9, 40:] = hole[1, 25, 3] = 1
    return [image.astype("float32"), hole]


def compute(name: str) -> dict[str, np.ndarray]:
    """What the narrow generator answers, with its taps."""
    generator, data = narrow_generator(name), inputs(name)
    network, network_inputs = generator, data
    if name == "context_encoder":
        network = generator.network
        network_inputs = generator.window_of(data[1]).cut_frame(mask_image(*data))
    taps = keras.Model(network.inputs, [network.get_layer(tap).output for tap in TAPS[name]])
    values = dict(zip(TAPS[name], taps(network_inputs), strict=True)) | {"result": generator(data)}
    if name == "deepfill_v1":
        values["sources"] = generator.attention_sources(data)
    return {tap: np.asarray(value) for tap, value in values.items()}


if __name__ == "__main__":
    for golden in TAPS:
        np.savez_compressed(FOLDER / f"{golden}.npz", **compute(golden))
