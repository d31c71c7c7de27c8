"""Weights of pre-trained networks: packed with the project, downloaded by Keras, or a file.

Every failure says which file was wanted and what to do about it, because each of these files is met
for the first time by somebody whose training run has just stopped.
"""

import hashlib
import os
import socket
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from musical_tf import named_models

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's RGB pixels in [0, 1]."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's RGB pixels in [0, 1]."""

NORMALIZATIONS = ("imagenet", "none")

_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte


def input_affine(
    normalization: str, mean: tuple[float, float, float] = IMAGENET_MEAN
) -> tuple[np.ndarray, np.ndarray]:
    """What turns [-1, 1] into an input: `image * scale + offset`, float32 `(3,)` each.

    Args:
        normalization: `"imagenet"`, `((image + 1) / 2 - mean) / std`; or `"none"`, the image as it
            is.
        mean: Mean of the network's training pixels, RGB in [0, 1].

    Raises:
        ValueError: On another `normalization`.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization must be one of {', '.join(map(repr, NORMALIZATIONS))}, "
            f"got {normalization!r}"
        )
    if normalization == "none":
        return np.ones(3, "float32"), np.zeros(3, "float32")
    std = np.array(IMAGENET_STD)
    return (0.5 / std).astype("float32"), ((0.5 - np.array(mean)) / std).astype("float32")


def packaged_arrays(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """`read_arrays` of a file inside `musical_tf/weights`.

    Raises:
        FileNotFoundError: If the file is not installed; says how to install it.
        ValueError: If the file is not what it should be.
    """
    return read_arrays(named_models.weights_file(name), shapes)


def read_arrays(
    path: str | os.PathLike, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Reads named arrays from an `.npz` file as float32.

    Args:
        path: The file.
        shapes: The arrays that must be there, name -> shape. Others are ignored.

    Raises:
        ValueError: If it is no `.npz` file, an array is missing, has another shape or is not
            finite.
        OSError: If the file cannot be read.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz file of weights, or damaged")
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = sorted(set(shapes) - set(stored.files))
            arrays = {name: stored[name] for name in shapes if name not in missing}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: the weights are damaged ({error})") from error
    if missing:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(sorted(shapes))}; "
            f"not there: {', '.join(missing)}"
        )
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != tuple(shape):
            raise ValueError(f"{path}: {name} must have shape {tuple(shape)}, got {array.shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{path}: {name} must be finite floating-point numbers")
    return {name: array.astype("float32") for name, array in arrays.items()}


def downloaded_file(name: str, url: str, md5: str, instead: str) -> Path:
    """A weight file in Keras' cache, downloaded on first use.

    `keras.utils.get_file` deletes a file of the same name whose hash is wrong. Somebody may have
    put it there by hand, so this refuses before Keras gets to see it.

    Args:
        name: File name in the cache, `$KERAS_HOME/models` or `~/.keras/models`.
        url, md5: Where it is, and its checksum in hexadecimal digits.
        instead: What to do where there is no download; ends the error message.

    Raises:
        ConnectionError: If it cannot be downloaded.
        ValueError: If the cache holds another file of that name, or the download is torn.
        PermissionError: If the cache cannot be written.
    """
    cache = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    target = cache / "models" / name
    if target.exists():
        found = hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest()
        if found == md5:
            return target
        raise ValueError(
            f"{target} is not the published {name}: its md5 is {found}, expected {md5}. "
            f"Move it away to have it downloaded again, or {instead}"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        raise PermissionError(
            f"cannot write {target}: {cache} is read-only. Set KERAS_HOME, or {instead}"
        )
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        return Path(
            keras.utils.get_file(
                name, url, cache_subdir="models", file_hash=md5, cache_dir=str(cache)
            )
        )
    except ValueError:
        raise
    except Exception as error:  # get_file raises a bare Exception when the network fails
        raise ConnectionError(
            f"could not download {name} from {url} ({error}). "
            f"Put the file at {target} (md5 {md5}), or {instead}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def load_keras_weights(model: keras.Model, path: str | os.PathLike, expected: str) -> None:
    """Loads an `.h5` or `.weights.h5` file into a built model; messages say `expected`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a Keras weight file, that of another network, or not finite. The
            model's weights are lost then.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {expected}")
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"{path}: expected {expected}, an .h5 or .weights.h5 file")
    for weight in model.weights:  # `.weights.h5` files may lack layers without Keras failing
        weight.assign(np.full(weight.shape, np.nan, "float32"))
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: expected {expected}, but it does not load: {reason}") from error
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise ValueError(
                f"{path}: expected {expected}, but {weight.path} is missing or not finite"
            )
