"""Classical inpainting to compare a learned method with: mean, diffusion, PatchMatch.

Telea's and Navier-Stokes diffusion come from OpenCV, biharmonic diffusion from scikit-image and
PatchMatch from patchmatch-cython, so that the figures are those of the implementations people
already have. Every baseline is a function of one image, `(H, W, 3)` uint8 RGB, and one hole,
`(H, W)` bool, True where a pixel is missing. It returns `(H, W, 3)` uint8 whose known pixels equal
the image's, and the same again for the same input. It raises ValueError on a wrong dtype or shape
and where nothing is known, ModuleNotFoundError without its library.

References:
    Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004.
    Bertalmio, Bertozzi and Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting", 2001.
    Barnes et al., "PatchMatch", 2009.
    Damelin and Hoang, "On Surface Completion and Image Inpainting by Biharmonic Functions:
    Numerical Aspects", 2018.
"""

import functools
import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

OPENCV_RADIUS = 3
"""Neighborhood of a filled pixel, pixels: OpenCV's example. 5 moves PSNR by less than 0.1 dB."""

PATCHMATCH_PATCH_SIZE = 5
"""Side of a matched patch, pixels: patchmatch-cython's default."""

PATCHMATCH_SEED = 0
"""PatchMatch starts from a random field; one seed makes the row of a table repeatable."""

PATCHMATCH_MINIMUM = 16
"""Shortest side, pixels: below it no patch fits beside the hole on the pyramid's coarse levels."""

_OPENCV = ("cv2", "opencv-python-headless")
_SKIMAGE = ("skimage.restoration", "scikit-image")
_PATCHMATCH = ("patchmatch_cython", "patchmatch-cython")

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this baseline needs {package}, which is not installed: pip install {package}",
            name=error.name,
        ) from error


def _baseline(fill: Fill) -> Fill:
    """Checks the input, hides what is under the hole from `fill`, and keeps known pixels.

    PatchMatch's seam blending would change some of them.
    """

    @functools.wraps(fill)
    def complete(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(
                f"image: expected uint8 (H, W, 3), got {image.dtype} {tuple(image.shape)}"
            )
        if hole.dtype != np.bool_ or hole.shape != image.shape[:2]:
            raise ValueError(
                f"hole: expected bool {image.shape[:2]}, got {hole.dtype} {tuple(hole.shape)}"
            )
        if hole.all():
            raise ValueError("hole: covers the whole image, so there is nothing to fill it from")
        missing = hole[..., None]
        erased = np.where(missing, np.uint8(0), image)
        return np.where(missing, fill(erased, hole), image) if hole.any() else erased

    return complete


@_baseline
def mean_fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills the hole with the mean color of the known pixels."""
    return np.rint(image[~hole].mean(axis=0)).astype(np.uint8)


@_baseline
def telea(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Telea's fast marching, OpenCV's `INPAINT_TELEA`."""
    library = _library(*_OPENCV)
    return library.inpaint(image, hole.astype(np.uint8), OPENCV_RADIUS, library.INPAINT_TELEA)


@_baseline
def navier_stokes(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Navier-Stokes diffusion, OpenCV's `INPAINT_NS`."""
    library = _library(*_OPENCV)
    return library.inpaint(image, hole.astype(np.uint8), OPENCV_RADIUS, library.INPAINT_NS)


@_baseline
def patchmatch(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Coarse-to-fine PatchMatch of patchmatch-cython, of sides from `PATCHMATCH_MINIMUM` up.

    Where the hole leaves no known pixel on a coarse level, it runs at full size alone.
    """
    if min(hole.shape) < PATCHMATCH_MINIMUM:
        raise ValueError(
            f"PatchMatch needs {PATCHMATCH_MINIMUM} pixels a side, "
            f"got {image.shape[0]} x {image.shape[1]}"
        )
    library = _library(*_PATCHMATCH)
    options = {"patch_size": PATCHMATCH_PATCH_SIZE, "seed": PATCHMATCH_SEED}
    try:
        return library.inpaint_pyramid(image, hole, **options)
    except ValueError:
        # Its coarse levels call a pixel missing if any pixel under it is: scattered holes leave
        # nothing there to copy from.
        return library.inpaint_single(image, hole, **options)


@_baseline
def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """scikit-image's `inpaint_biharmonic`.

    It solves one sparse system with an unknown for each missing pixel, in about half a second for a
    hole of 128 x 128: four times as many pixels took seven times as long.
    """
    filled = _library(*_SKIMAGE).inpaint_biharmonic(image, hole, channel_axis=-1)  # in [0, 1]
    return np.rint(filled * 255.0).astype(np.uint8)


BASELINES: dict[str, Fill] = {
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

LIBRARIES = {
    "telea": _OPENCV,
    "navier_stokes": _OPENCV,
    "biharmonic": _SKIMAGE,
    "patchmatch": _PATCHMATCH,
}
"""Name -> the module behind it, and the package that has it."""


def require(name: str) -> None:
    """Checks that a baseline's library is installed, before minutes go into other rows.

    Raises:
        ValueError: For an unknown name.
        ModuleNotFoundError: With what to install.
    """
    if name not in BASELINES:
        raise ValueError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    if name in LIBRARIES:
        _library(*LIBRARIES[name])
