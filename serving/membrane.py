"""Values known around a hole carried on into it, without a jump and without a bump.

What `musical_tf.layers.Membrane` is in a network, for arrays: a pyramid that approximates Laplace's
equation (Pérez et al., "Poisson Image Editing", SIGGRAPH 2003), linear in the number of pixels.
"""

import numpy as np

_SMOOTHINGS = 4


def span(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Stretches a membrane over what is not known.

    Args:
        values: `(H, W, C)` float32; not looked at where not known.
        known: `(H, W)` bool.

    Returns:
        `(H, W, C)` float32, `values` where known; 0 if nothing is.
    """
    planes = np.where(known, np.ascontiguousarray(np.moveaxis(values, -1, 0)), np.float32(0))
    levels = []
    while max(known.shape) > 1:
        levels.append((planes, known))
        count = _pairs(known.astype(np.float32))
        planes = _pairs(planes) / np.maximum(count, 1)
        known = count > 0
    filled = planes
    for planes, known in reversed(levels):
        height, width = known.shape
        filled = filled.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
        for _ in range(_SMOOTHINGS):
            np.copyto(filled, planes, where=known)
            filled = _mean_of_three(_mean_of_three(filled, 1), 2)
        np.copyto(filled, planes, where=known)
    return np.moveaxis(filled, 0, -1)


def _pairs(planes: np.ndarray) -> np.ndarray:
    """Sums of two by two; a last row or column without a partner stays alone."""
    height, width = planes.shape[-2:]
    rows = planes[..., ::2, :].copy()
    rows[..., : height // 2, :] += planes[..., 1::2, :]
    sums = rows[..., ::2].copy()
    sums[..., : width // 2] += rows[..., 1::2]
    return sums


def _mean_of_three(planes: np.ndarray, axis: int) -> np.ndarray:
    """The mean of each value and its neighbors along an axis; border values are repeated."""
    sums = planes.copy()
    into, out_of = sums.swapaxes(0, axis), planes.swapaxes(0, axis)
    into[1:] += out_of[:-1]
    into[:-1] += out_of[1:]
    into[0] += out_of[0]
    into[-1] += out_of[-1]
    sums *= np.float32(1 / 3)
    return sums
