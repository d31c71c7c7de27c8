"""Rewrites the stored values of CSA's tests: `python -m tests.make_csa_goldens`.

Only after a change that is meant to change what the networks compute; the diff of the file then
says so.
"""

import keras
import numpy as np

import musical_tf

from . import make_goldens

FILE = make_goldens.FOLDER / "csa.npz"
TAPS = ("rough_up2_norm", "rough_tanh", "attention", "refine_up4_norm")
"""Layers whose outputs are stored beside the result: a difference shows where it begins."""


def narrow_generator() -> keras.Model:
    """A generator of the paper's structure, narrow enough to store what it computes."""
    generator = musical_tf.create("csa", width=4, levels=4)
    rng = np.random.default_rng(0)
    for variable in generator.variables:
        centre = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(centre + 0.2 * rng.standard_normal(variable.shape))
    return generator


def compute() -> dict[str, np.ndarray]:
    """What the narrow generator answers, with its taps."""
    generator = narrow_generator()
    taps = [generator.get_layer(name).output for name in TAPS]
    values = keras.Model(generator.inputs, [*taps, generator.output])(list(make_goldens.inputs()))
    return {name: np.asarray(value) for name, value in zip((*TAPS, "result"), values, strict=True)}


if __name__ == "__main__":
    np.savez_compressed(FILE, **compute())
