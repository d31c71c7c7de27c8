"""Rewrites the stored values of the methods compared with: `python -m tests.make_baseline_goldens`.

Only after a change that is meant to change what a network computes; the diff of the files then says
so.
"""

import keras
import numpy as np

from musical_tf.conventions import mask_image

from .make_goldens import FOLDER
from .method_contract import batch_of, random_generator

NARROW = {
    "shift_net": {"width": 4, "levels": 4},
    "glc": {"width": 4},
    "context_encoder": {"width": 2, "bottleneck": 6},
}
"""Fields that make a method's network narrow enough to store what it computes."""

TAPS = {
    "shift_net": ("down3_norm", "down4_conv", "up3_act", "shift", "up3_norm"),
    "glc": ("half2_act", "dilated16_act", "half4_act"),
    "context_encoder": ("encoder5_act", "bottleneck_act", "decoder3_act"),
}
"""Layers whose outputs are stored beside the result: a difference shows where it begins."""


def compute(method: str) -> dict[str, np.ndarray]:
    """What the narrow generator answers, with its taps."""
    generator = random_generator(method, **NARROW[method])
    data = batch_of(32, 48)
    inputs = [data["image"], data["hole"]]
    network, network_inputs = generator, inputs
    if method == "context_encoder":
        network = generator.network
        known = mask_image(*inputs)
        network_inputs = generator.window_of(data["hole"]).cut_frame(known)
    taps = keras.Model(network.inputs, [network.get_layer(name).output for name in TAPS[method]])
    values = [*taps(network_inputs), generator(inputs)]
    return {
        name: np.asarray(value)
        for name, value in zip((*TAPS[method], "result"), values, strict=True)
    }


def main() -> None:
    """Writes one file a method."""
    for method in NARROW:
        np.savez_compressed(FOLDER / f"{method}.npz", **compute(method))


if __name__ == "__main__":
    main()
