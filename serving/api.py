"""The functions that `musical_tf` offers by its own name: `musical_tf.inpaint` and the like.

ONNX Runtime is imported when one of them needs it. They run without TensorFlow and Keras.
"""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import Image

from . import named_models

if TYPE_CHECKING:
    from .inputs import Picture
    from .session import InpaintingSession

_SESSIONS = 2  # that stay open: two models, or one on two devices


@overload
def inpaint(
    image: np.ndarray,
    mask: "Picture",
    *,
    model: str | os.PathLike[str] = ...,
    fill: str = ...,
    seed: int = ...,
    device: str = ...,
) -> np.ndarray: ...
@overload
def inpaint(
    image: str | os.PathLike[str] | Image.Image,
    mask: "Picture",
    *,
    model: str | os.PathLike[str] = ...,
    fill: str = ...,
    seed: int = ...,
    device: str = ...,
) -> Image.Image: ...
def inpaint(
    image: "Picture",
    mask: "Picture",
    *,
    model: str | os.PathLike[str] = named_models.DEFAULT,
    fill: str = "auto",
    seed: int = 0,
    device: str = "auto",
) -> np.ndarray | Image.Image:
    """Fills the marked part of a photograph; every other pixel stays as it is.

    The model stays open, so that only the first call waits for it.

    Args:
        image: A path, a PIL image, or an array `(H, W)` or `(H, W, 1 to 4 channels)` of uint8 or
            uint16: RGB, gray, either with alpha.
        mask: A path, a PIL image or an array of the same height and width, white where the image
            must be filled. An array may be bool, True where it must be filled.
        model: A name from `list_models`, or the path of an exported file.
        fill: "copy", pixels of the photograph are copied, sharp; "network", the network's own fill,
            smooth; "auto", copies if the model can.
        seed: Which of the plausible fills, the same one each time. A model without variants takes
            0 only.
        device: "cpu", "cuda" or another execution provider of ONNX Runtime; "auto" takes the
            fastest.

    Returns:
        An array of the image's shape and type for an array; a PIL image for a PIL image or a path.

    Raises:
        FileNotFoundError: If a file or the model does not exist.
        TypeError, ValueError: If the image, the mask or an option is not as above.
        ImportError: If ONNX Runtime is not installed.

    Example:
        >>> musical_tf.inpaint("photo.jpg", "mask.png").save("filled.png")
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a name or a path, got {type(model).__name__}")
    path = named_models.find(model if isinstance(model, str) else Path(model))
    session = _session_of(path, path.stat().st_mtime_ns, device)
    return session.inpaint(image, mask, fill=fill, seed=seed)


def list_models() -> list[str]:
    """The names that `inpaint` takes as `model`, sorted."""
    return named_models.names()


@functools.lru_cache(maxsize=_SESSIONS)
def _session_of(path: Path, changed: int, device: str) -> "InpaintingSession":
    from .session import InpaintingSession

    return InpaintingSession(path, None if device == "auto" else [device])
