"""Photographs and masks as callers hold them: paths, PIL images and arrays."""

import io
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from musical_tf import images

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""What is taken for a photograph or a mask."""

_KINDS = "a path, a PIL image or a NumPy array"
_MODES = ("L", "LA", "RGB", "RGBA", "P", "PA", "1", "I;16")


class Given(NamedTuple):
    """A photograph and a mask, ready for a model.

    Attributes:
        pixels: `(H, W, 3)` uint8 RGB.
        hole: `(H, W)` bool.
        give_back: Turns a filled `pixels` into what the caller gave: an array of the same shape and
            type, or a PIL image.
    """

    pixels: np.ndarray
    hole: np.ndarray
    give_back: Callable[[np.ndarray], Any]


def read(image: Picture, mask: Picture) -> Given:
    """Reads a photograph and a mask; `InpaintingSession.inpaint` lists what they may be.

    Raises:
        TypeError, ValueError: If one is of another kind, or they do not fit each other.
        OSError: If a file cannot be opened.
    """
    wrap: Callable[[np.ndarray], Any] = np.asarray
    if isinstance(image, np.ndarray):
        array = image
    elif isinstance(image, Image.Image):
        array, wrap = _array_of(image)
    elif isinstance(image, str | os.PathLike):
        array, wrap = _array_of_file(image)
    else:
        raise TypeError(f"image must be {_KINDS}, got {type(image).__name__}")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or channels > 4:
        raise ValueError(
            "image must be uint8 or uint16 of shape (H, W) or (H, W, 1 to 4 channels), "
            f"got {array.dtype} {array.shape}"
        )
    if array.size == 0:
        raise ValueError(f"image must have pixels, got shape {array.shape}")
    hole = _hole_of(mask)
    if hole.shape != array.shape[:2]:
        raise ValueError(
            f"mask must have the image's height and width {array.shape[:2]}, got {hole.shape}"
        )
    planes = array.reshape(*array.shape[:2], channels)
    pixels = planes if array.dtype == np.uint8 else (planes >> 8).astype(np.uint8)
    colors = 3 if channels > 2 else 1
    if channels != 3:
        pixels = np.ascontiguousarray(np.broadcast_to(pixels[..., :colors], (*hole.shape, 3)))

    def give_back(filled: np.ndarray) -> Any:
        if array.dtype == np.uint8 and channels == 3:
            return wrap(filled)
        new = filled if colors == 3 else np.asarray(Image.fromarray(filled).convert("L"))[..., None]
        result = planes.copy()
        result[hole, :colors] = new[hole] * array.dtype.type(1 if array.dtype == np.uint8 else 257)
        return wrap(result.reshape(array.shape))

    return Given(pixels, hole, give_back)


def _hole_of(mask: Picture) -> np.ndarray:
    if isinstance(mask, np.ndarray):
        if mask.ndim == 3 and mask.shape[2] == 1:
            mask = mask[..., 0]
        if mask.dtype == np.bool_ and mask.ndim == 2:
            return mask
        channels = mask.shape[2] if mask.ndim == 3 else 1
        if mask.dtype != np.uint8 or mask.ndim not in (2, 3) or mask.size == 0 or channels > 4:
            raise ValueError(
                f"mask must be bool or uint8 of shape (H, W), got {mask.dtype} {mask.shape}"
            )
        mask = Image.fromarray(mask)
    if isinstance(mask, Image.Image):  # by the rule for files, whose code reads files
        _check_mode(mask, "mask", (*_MODES, "I;16B"))
        mask = mask.convert("RGBA") if mask.mode == "PA" else mask
        stream = io.BytesIO()
        mask.save(stream, "PNG", compress_level=1, exif=b"")
        stream.seek(0)
        return images.read_mask(stream, name="mask")
    if isinstance(mask, str | os.PathLike):
        return images.read_mask(os.fspath(mask))
    raise TypeError(f"mask must be {_KINDS}, got {type(mask).__name__}")


def _check_mode(image: Image.Image, what: str, valid: Sequence[str]) -> None:
    if image.mode not in valid:
        raise ValueError(f"{what} must have mode {', '.join(valid)}, got {image.mode}; convert it")


def _array_of(image: Image.Image) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """The array of a PIL image as it lies there, not turned by its EXIF."""
    _check_mode(image, "image", _MODES)
    is_deep = image.mode == "I;16"  # and keeps the level that is transparent
    if image.mode in ("P", "PA") or ("transparency" in image.info and not is_deep):
        gray = image.mode in ("1", "L")
        image = image.convert("LA" if gray else "RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    info = {key: value for key, value in image.info.items() if is_deep or key != "transparency"}
    return np.asarray(image), lambda filled: _image_of(filled, info)


def _array_of_file(path: str | os.PathLike[str]) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """The upright array of a file. Of 16 bits, those of gray files stay: PIL has no such RGB."""
    photograph = images.read_photograph(os.fspath(path))
    names = {"icc_profile": photograph.icc_profile, "exif": photograph.exif}
    info: dict[Any, Any] = {key: value for key, value in names.items() if value}
    array = photograph.pixels[..., 0] if photograph.grey else photograph.pixels
    if photograph.samples is not None and photograph.samples.shape[2] == 1:
        array = photograph.samples[..., 0]
    elif photograph.alpha is not None:
        array = np.dstack([array, photograph.alpha])
    return array, lambda filled: _image_of(filled, info)


def _image_of(array: np.ndarray, info: dict[Any, Any]) -> Image.Image:
    image = Image.fromarray(array)
    image.info |= info
    return image
