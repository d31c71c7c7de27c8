"""Coherent semantic attention to the letter: position by position, in plain operations.

What `CoherentSemanticAttention` must equal, and what it is timed against. It runs eagerly and looks
at the hole's values, so it is no layer.
"""

import numpy as np
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.layers.coherent_attention import NORM_FLOOR, SIMILARITY_FLOOR


def attend(features: Tensor, hole: Tensor) -> Tensor:
    """Fills the hole of every sample, one position after the other.

    Features `(B, H, W, C)` of any precision and hole `(B, H, W, 1)` -> `(B, H, W, C)` of the same
    precision; differentiable.
    """
    features = ops.convert_to_tensor(features)
    missing = ops.convert_to_numpy(hole)[..., 0] > 0.5
    height, width, channels = features.shape[1:]
    filled = [
        attend_sample(ops.reshape(sample, (height * width, channels)), missing[index].reshape(-1))
        for index, sample in enumerate(features)
    ]
    return ops.reshape(ops.stack(filled), features.shape)


def attend_sample(features: Tensor, missing: np.ndarray) -> Tensor:
    """The same of one sample, `(HW, C)` and `(HW,)` bool."""
    if missing.all():
        return features
    known = [features[position] for position in np.flatnonzero(~missing)]
    candidates = ops.stack([_unit(feature) for feature in known])
    outputs = [features[position] for position in range(len(missing))]
    before = None
    for position in np.flatnonzero(missing):
        query = _unit(features[position])
        cosines = ops.sum(candidates * query, axis=-1)
        best = int(ops.argmax(cosines))
        if before is None:
            before = known[best]
        else:
            to_best = ops.maximum(cosines[best], SIMILARITY_FLOOR)
            to_before = ops.relu(ops.sum(_unit(before) * query))
            weight = to_before / (to_before + to_best)
            before = weight * before + (1.0 - weight) * known[best]
        outputs[position] = before
    return ops.stack(outputs)


def _unit(feature):
    return feature / ops.sqrt(ops.maximum(ops.sum(ops.square(feature)), NORM_FLOOR**2))
