"""Classical inpainting to stand beside a learned method: mean, diffusion, PatchMatch.

Telea's and Navier-Stokes diffusion come from OpenCV, biharmonic diffusion from scikit-image and
PatchMatch from patchmatch-cython, so that the numbers beside ours are those of the implementations
people already have. Every baseline is a function of one uint8 image and one boolean hole, has no
state, and gives the same answer twice.

References:
    Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004.
    Bertalmio, Bertozzi and Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting", 2001.
    Barnes et al., "PatchMatch", 2009.
    Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions:
    Numerical Aspects", 2018.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

OPENCV_RADIUS = 3
"""Neighbourhood of a filled pixel, pixels: OpenCV's example. 5 moves PSNR by less than 0.1 dB."""

PATCHMATCH_PATCH_SIZE = 5
"""Side of a matched patch, pixels: patchmatch-cython's default."""

PATCHMATCH_SEED = 0
"""PatchMatch starts from a random field; one seed makes the row of a table repeatable."""

PATCHMATCH_MINIMUM = 16
"""Shortest side, pixels: below it no patch fits beside the hole on the pyramid's coarse levels."""


def mean_fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills the hole with the mean colour of the known pixels: the floor every method has to clear.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        hole: `(H, W)` bool, True where a pixel is missing.

    Returns:
        `(H, W, 3)` uint8. Known pixels equal `image`.

    Raises:
        ValueError: On a wrong dtype or shape, or where nothing is known.
    """
    _check(image, hole)
    result = image.copy()
    result[hole] = np.rint(image[~hole].mean(axis=0)).astype(np.uint8)
    return result


def telea(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Telea's fast marching, OpenCV's `INPAINT_TELEA`; arguments and result as `mean_fill`."""
    return _opencv_inpaint(image, hole, "INPAINT_TELEA")


def navier_stokes(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Navier-Stokes diffusion, OpenCV's `INPAINT_NS`; arguments and result as `mean_fill`."""
    return _opencv_inpaint(image, hole, "INPAINT_NS")


def patchmatch(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Coarse-to-fine PatchMatch of patchmatch-cython; arguments and result as `mean_fill`.

    Where the hole leaves no known pixel on a coarse level, it runs at full size alone.

    Raises:
        ValueError: As `mean_fill`, and for an image under `PATCHMATCH_MINIMUM` pixels.
        ModuleNotFoundError: Without patchmatch-cython; the message says how to install it.
    """
    _check(image, hole)
    if min(hole.shape) < PATCHMATCH_MINIMUM:
        raise ValueError(
            f"PatchMatch needs {PATCHMATCH_MINIMUM} pixels a side, "
            f"got {image.shape[0]} x {image.shape[1]}"
        )
    library = _library("patchmatch_cython", "patchmatch-cython")
    erased = _erase(image, hole)
    if not hole.any():
        return erased
    options = {"patch_size": PATCHMATCH_PATCH_SIZE, "seed": PATCHMATCH_SEED}
    try:
        filled = library.inpaint_pyramid(erased, hole, **options)
    except ValueError:
        # Its coarse levels call a pixel missing if any pixel under it is: scattered holes leave
        # nothing there to copy from.
        filled = library.inpaint_single(erased, hole, **options)
    return _composite(filled, image, hole)


def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """scikit-image's `inpaint_biharmonic`; arguments and result as `mean_fill`.

    It solves one sparse system with an unknown for each missing pixel, in about half a second for a
    hole of 128 x 128: four times as many pixels took seven times as long.
    """
    _check(image, hole)
    library = _library("skimage.restoration", "scikit-image")
    erased = _erase(image, hole)
    if not hole.any():
        return erased
    filled = library.inpaint_biharmonic(erased, hole, channel_axis=-1)  # float64 in [0, 1]
    return _composite(np.rint(filled * 255.0).astype(np.uint8), image, hole)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": mean_fill,
    "telea": telea,
    "navier_stokes": navier_stokes,
    "biharmonic": biharmonic,
    "patchmatch": patchmatch,
}
"""Name at the command line and in result files -> function, the cheapest first."""

LABELS = {
    "mean": "Mean fill",
    "telea": "Telea",
    "navier_stokes": "Navier-Stokes",
    "biharmonic": "Biharmonic",
    "patchmatch": "PatchMatch",
}
"""Name -> what a reader of a table sees."""


def require(name: str) -> None:
    """Checks that the library behind a baseline is here, before minutes go into other rows.

    Raises:
        ValueError: For an unknown name.
        ModuleNotFoundError: With what to install.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    if name in ("telea", "navier_stokes"):
        _library("cv2", "opencv-python-headless")
    elif name == "patchmatch":
        _library("patchmatch_cython", "patchmatch-cython")
    elif name == "biharmonic":
        _library("skimage.restoration", "scikit-image")


def _opencv_inpaint(image: np.ndarray, hole: np.ndarray, algorithm: str) -> np.ndarray:
    _check(image, hole)
    library = _library("cv2", "opencv-python-headless")
    filled = library.inpaint(
        _erase(image, hole),
        hole.astype(np.uint8),
        OPENCV_RADIUS,
        getattr(library, algorithm),
    )
    return _composite(filled, image, hole)


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this baseline needs {package}, which is not installed: pip install {package}",
            name=error.name,
        ) from error


def _erase(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Zeros under the hole, so that no library can look at the answer."""
    return np.where(hole[..., None], np.uint8(0), image)


def _composite(filled: np.ndarray, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Known pixels from the photograph: PatchMatch's seam blending reaches outside the hole."""
    return np.where(hole[..., None], filled, image)


def _check(image: np.ndarray, hole: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}")
    if hole.dtype != np.bool_ or hole.shape != image.shape[:2]:
        raise ValueError(
            f"hole: expected bool {image.shape[:2]}, got {hole.dtype} {tuple(hole.shape)}"
        )
    if hole.all():
        raise ValueError("hole: covers the whole image, so there is nothing to fill it from")
