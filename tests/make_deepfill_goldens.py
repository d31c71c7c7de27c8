"""Rewrites the stored values of DeepFill v1: `python -m tests.make_deepfill_goldens`.

Only after a change that is meant to change what the network computes; the diff of the file then
says so.
"""

import keras
import numpy as np

import musical_tf

from .make_goldens import FOLDER
from .method_contract import batch_of, inputs_of

NARROW = {"width": 4}
TAPS = ("coarse_conv10", "coarse_conv12", "dilated_conv10", "attention_conv6", "attention")
"""Layers whose outputs are stored beside the result: a difference shows where it begins."""


def random_generator(preset="paper", dtype="float32", **fields) -> keras.Model:
    """Weights that tell answers apart, and leave most of them unclipped."""
    generator = musical_tf.create("deepfill_v1", preset, dtype=dtype, **{**NARROW, **fields})
    random = np.random.default_rng(0)
    for variable in generator.variables:
        if variable.path.endswith("kernel"):
            size = 1.3 / np.sqrt(np.prod(variable.shape[:-1]))
        else:
            size = 0.1
        if "conv17" in variable.path:
            size *= 0.5
        variable.assign(size * random.standard_normal(variable.shape))
    return generator


def compute() -> dict[str, np.ndarray]:
    """What the narrow generator answers, with its taps."""
    generator = random_generator()
    data = inputs_of(batch_of(32, 48))
    taps = keras.Model(generator.inputs, [generator.get_layer(name).output for name in TAPS])
    values = [*taps(data), generator(data), generator.attention_sources(data)]
    names = (*TAPS, "result", "sources")
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def main() -> None:
    """Writes the file."""
    np.savez_compressed(FOLDER / "deepfill_v1.npz", **compute())


if __name__ == "__main__":
    main()
