"""Metrics by named protocol: the name says what "PSNR" means, never the caller.

Papers on inpainting print the same words over different quantities: the whole image or the hole
only, one range or another. Every figure here is called `protocol/metric`, and `evaluate_pair` gives
those of several protocols at once. Images go in as numpy uint8, numbers come out. All protocols see
the composite, so known pixels count as perfect whatever the network made of them.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from keras import ops
from skimage.metrics import structural_similarity

from musical_tf.conventions import Tensor, normalize
from musical_tf.metric_directions import HIGHER_IS_BETTER as HIGHER_IS_BETTER
from musical_tf.pretrained import packaged_arrays


def authors_metrics(truth: np.ndarray, result: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """The metrics as the authors of MUSICAL computed them (section 4.2): the composite, all pixels.

    Arguments: as of `evaluate_pair`.

    Returns:
        `authors/psnr` (dB; infinite for equal images), `authors/ssim` (7 x 7 uniform window over
        the color channels, the default of scikit-image), `authors/l1_percent` (mean of `|a - b| /
        255`, in percent).
    """
    truth, result, hole = _checked(truth, result, hole)
    error = (result.astype("float64") - truth) / 255.0
    return {
        "authors/psnr": _psnr(error),
        "authors/ssim": float(_ssim(truth, result)[0]),
        "authors/l1_percent": 100.0 * float(np.abs(error).mean()),
    }


def hole_metrics(truth: np.ndarray, result: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """The metrics over missing pixels only, so that they do not depend on the size of the hole.

    Arguments: as of `evaluate_pair`; the hole must have a pixel.

    Returns:
        `hole/psnr` (dB), `hole/ssim` (mean over the 7 x 7 windows whose center is in the hole;
        beyond the image's border a window sees it mirrored), `hole/l1_percent` and
        `hole/l2_percent` (mean of `|a - b|` and `(a - b)^2` with pixels in [0, 1], in percent).
    """
    truth, result, hole = _checked(truth, result, hole)
    _require_hole(hole, "hole")
    error = (result[hole].astype("float64") - truth[hole]) / 255.0  # (N, 3)
    return {
        "hole/psnr": _psnr(error),
        "hole/ssim": float(_ssim(truth, result)[1][hole].mean()),
        "hole/l1_percent": 100.0 * float(np.abs(error).mean()),
        "hole/l2_percent": 100.0 * float(np.square(error).mean()),
    }


def deepfill_metrics(truth: np.ndarray, result: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """The four figures of the DeepFill papers (Yu et al., table 1), as far as they can be known.

    The papers print mean l1, mean l2, PSNR and total variation and define none of them; this is the
    reading that their numbers allow. l1, l2 and PSNR are over the hole, pixels in [0, 1]: errors of
    a composite over the whole image would, for their 8.6 % and 2.1 % and a hole of a quarter of the
    pixels, mean 34 % of mean and 29 % of root mean square error in the hole, and a mean cannot
    exceed a root mean square. Total variation is that of the composite, summed over the channels
    per pixel with pixels in [0, 1]: photographs at 256 x 256 have about 23 %, the papers' results
    25 %.

    Arguments: as of `evaluate_pair`; the hole must have a pixel.

    Returns:
        `deepfill/l1_percent`, `deepfill/l2_percent`, `deepfill/psnr` (dB), `deepfill/tv_percent`.

    Raises:
        ValueError: On another dtype or shape, or an empty hole.
    """
    truth, result, hole = _checked(truth, result, hole)
    _require_hole(hole, "deepfill")
    error = (result[hole].astype("float64") - truth[hole]) / 255.0  # (N, 3)
    unit = result.astype("float64") / 255.0
    variation = np.abs(np.diff(unit, axis=0)).sum() + np.abs(np.diff(unit, axis=1)).sum()
    return {
        "deepfill/l1_percent": 100.0 * float(np.abs(error).mean()),
        "deepfill/l2_percent": 100.0 * float(np.square(error).mean()),
        "deepfill/psnr": _psnr(error),
        "deepfill/tv_percent": 100.0 * float(variation / hole.size),
    }


def lpips_metrics(truth: np.ndarray, result: np.ndarray, hole: np.ndarray) -> dict[str, float]:
    """`lpips/alex`: LPIPS with AlexNet of the composite and the truth; lower is better."""
    truth, result, hole = _checked(truth, result, hole)
    distance = _shared_lpips()(normalize(truth[np.newaxis]), normalize(result[np.newaxis]))
    return {"lpips/alex": float(distance[0])}


Protocol = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]

PROTOCOLS: dict[str, Protocol] = {
    "authors": authors_metrics,
    "hole": hole_metrics,
    "deepfill": deepfill_metrics,
    "lpips": lpips_metrics,
}
"""Name -> callable `(truth, result, hole) -> {"protocol/metric": value}`."""


def evaluate_pair(
    truth: np.ndarray,
    result: np.ndarray,
    hole: np.ndarray,
    protocols: Iterable[str] = ("authors", "hole"),
) -> dict[str, float]:
    """Compares a filled image with the photograph it was made from.

    Args:
        truth: `(H, W, 3)` uint8 RGB, the photograph.
        result: `(H, W, 3)` uint8 RGB, the filled image, composited or not.
        hole: `(H, W)` bool, True where a pixel was missing.
        protocols: Names of `PROTOCOLS`.

    Returns:
        Metric, `protocol/metric`, -> value, protocols in the order given.

    Raises:
        ValueError: On an unknown protocol (the message lists them), another dtype or shape, a side
            below 7 (SSIM) or 31 (LPIPS), or an empty hole where the protocol looks at nothing else.

    Example:

    >>> evaluate_pair(photograph, filled, hole)["authors/psnr"]
    26.64
    """
    protocols = [protocols] if isinstance(protocols, str) else list(protocols)
    for name in protocols:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}")
    values = [PROTOCOLS[name](truth, result, hole) for name in protocols]
    return {name: value for each in values for name, value in each.items()}


class LPIPS:
    """Learned Perceptual Image Patch Similarity, version 0.1, on AlexNet.

    1. Both images pass the five convolutions of an ImageNet AlexNet; each ReLU gives a map.
    2. Every position of a map is divided by its norm over the channels.
    3. The squared differences are weighted by channel with the learned non-negative weights and
       averaged over positions.
    4. The distance is the sum over the five maps.

    The weights are packed with the project, in float16; the arithmetic is float32.

    Call arguments:
        image: Float array `(B, H, W, 3)`, RGB in [-1, 1], `H` and `W` at least 31.
        other: Float array of the same shape.

    Returns:
        Numpy float32 `(B,)`, one distance a pair.

    Raises:
        ValueError: On another shape.

    Reference: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", CVPR 2018.
    """

    minimum_size = 31

    _layers = (  # width, side of the kernel, stride, padding, whether it is pooled before
        (64, 11, 4, 2, False),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, True),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, False),
    )
    _mean = np.array((-0.030, -0.088, -0.188), "float32")
    _deviation = np.array((0.458, 0.448, 0.450), "float32")

    def __init__(self):
        shapes: dict[str, tuple[int, ...]] = {}
        channels = 3
        for index, (width, kernel, *_) in enumerate(self._layers):
            shapes[f"Conv_{index}/kernel"] = (kernel, kernel, channels, width)
            shapes[f"Conv_{index}/bias"] = (width,)
            shapes[f"NetLinLayer_{index}/Conv_0/kernel"] = (1, 1, width, 1)
            channels = width
        self._arrays = packaged_arrays("lpips_alex_fp16.npz", shapes)

    def __call__(self, image: Any, other: Any) -> np.ndarray:
        """Returns the distance of each pair."""
        shapes = tuple(image.shape), tuple(other.shape)
        if len(shapes[0]) != 4 or shapes[0][-1] != 3 or shapes[0] != shapes[1]:
            raise ValueError(f"expected two images (B, H, W, 3) of one shape, got {shapes}")
        if min(shapes[0][1:3]) < self.minimum_size:
            size = self.minimum_size
            raise ValueError(f"LPIPS needs images of at least {size} x {size}, got {shapes[0]}")
        both = ops.concatenate([ops.cast(image, "float32"), ops.cast(other, "float32")])
        distance = 0.0
        for index, maps in enumerate(self._maps(both)):
            norm = ops.sqrt(ops.sum(ops.square(maps), axis=-1, keepdims=True))
            left, right = ops.split(maps / (norm + 1e-10), 2)
            weights = self._arrays[f"NetLinLayer_{index}/Conv_0/kernel"][0, 0, :, 0]
            weighted = ops.sum(ops.square(left - right) * weights, axis=-1)  # (B, H_i, W_i)
            distance = distance + ops.mean(weighted, axis=(1, 2))
        return ops.convert_to_numpy(distance)

    def _maps(self, image: Tensor) -> list[Tensor]:
        features, maps = (image - self._mean) / self._deviation, []
        for index, (_, _, strides, margin, is_pooled) in enumerate(self._layers):
            if is_pooled:
                features = ops.max_pool(features, pool_size=3, strides=2, padding="valid")
            features = ops.pad(features, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
            kernel = self._arrays[f"Conv_{index}/kernel"]
            features = ops.conv(features, kernel, strides=strides, padding="valid")
            features = ops.relu(features + self._arrays[f"Conv_{index}/bias"])
            maps.append(features)
        return maps


@functools.cache
def _shared_lpips() -> LPIPS:
    return LPIPS()


def _checked(truth, result, hole) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validates a pair and composites the result."""
    truth, result, hole = np.asarray(truth), np.asarray(result), np.asarray(hole)
    for name, image in (("truth", truth), ("result", result)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"{name} must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    if hole.dtype != np.bool_ or hole.ndim != 2:
        raise ValueError(f"hole must be (H, W) bool, True = missing, got {hole.shape} {hole.dtype}")
    if not truth.shape == result.shape == (*hole.shape, 3):
        raise ValueError(
            "truth, result and hole must have one height and width, got "
            f"{truth.shape}, {result.shape} and {hole.shape}"
        )
    return truth, np.where(hole[..., np.newaxis], result, truth), hole


def _require_hole(hole: np.ndarray, protocol: str) -> None:
    if not hole.any():
        raise ValueError(
            f"protocol {protocol!r} looks at missing pixels only, and the hole is empty"
        )


def _psnr(error: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of errors on a range of 1."""
    mean_square = float(np.square(error).mean())
    return -10.0 * math.log10(mean_square) if mean_square else math.inf


def _ssim(truth: np.ndarray, result: np.ndarray) -> tuple[float, np.ndarray]:
    """scikit-image's SSIM: its mean over the windows inside the image, and the map `(H, W, 3)`."""
    if min(truth.shape[:2]) < 7:
        raise ValueError(f"SSIM needs images of at least 7 x 7, got {truth.shape[:2]}")
    return structural_similarity(truth, result, channel_axis=-1, data_range=255, full=True)
