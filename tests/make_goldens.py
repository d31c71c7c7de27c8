"""Rewrites the stored values that tests compare against: `python -m tests.make_goldens`.

Only after a change that is meant to change what a network computes; the diff of the files then says
so.
"""

from pathlib import Path

import keras
import numpy as np

import musical_tf

FOLDER = Path(__file__).parent / "goldens"
TAPS = ("down4_norm", "down6_dilated_conv", "up3_norm", "attention")
"""Layers whose outputs are stored beside the result: a difference shows where it begins."""


def narrow_generator(preset: str) -> keras.Model:
    """A generator of a preset's structure, narrow enough to store what it computes."""
    generator = musical_tf.create("musical", preset=preset, width=4, inner_levels=2)
    rng = np.random.default_rng(0)
    for variable in generator.variables:
        centre = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(centre + 0.3 * rng.standard_normal(variable.shape))
    return generator


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Two images `(2, 32, 48, 3)` in [-1, 1] with different holes `(2, 32, 48, 1)`."""
    rng = np.random.default_rng(1)
    image = np.repeat(np.repeat(rng.uniform(-1, 1, (2, 8, 12, 3)), 4, axis=1), 4, axis=2)
    hole = np.zeros((2, 32, 48, 1))
    hole[0, 8:24, 12:36] = 1
    hole[1, :9, 40:] = 1
    hole[1, 25, 3] = 1
    return image.astype("float32"), hole.astype("float32")


def compute(preset: str) -> dict[str, np.ndarray]:
    """What the narrow generator answers, with its taps."""
    generator = narrow_generator(preset)
    taps = keras.Model(
        generator.inputs, [generator.get_layer(name).output for name in TAPS] + generator.outputs
    )
    values = taps(list(inputs()))
    return {name: np.asarray(value) for name, value in zip((*TAPS, "result"), values, strict=True)}


def main() -> None:
    """Writes one file a preset."""
    for preset in ("paper", "official"):
        np.savez_compressed(FOLDER / f"musical_{preset}.npz", **compute(preset))


if __name__ == "__main__":
    main()
