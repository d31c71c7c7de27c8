"""The registry of methods: one paper a module, the module's name is the key."""

import dataclasses
import importlib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

try:
    import keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise ModuleNotFoundError(
        "musical_tf needs Keras to create or load a generator, got no package keras; install "
        'TensorFlow and Keras with: pip install "musical-tf[train]"',
        name="keras",
    ) from error

from musical_tf import named_models
from musical_tf.methods.base import MethodGenerator
from musical_tf.run_directory import WEIGHTS

_UNPACKED = "config.json"  # of a `.keras` file


names = named_models.methods


def get(name: str) -> ModuleType:
    """The module of a method; `ValueError` on an unknown name lists the known ones."""
    if name not in names():
        raise ValueError(f"Unknown method {name!r}, expected one of {names()}")
    return importlib.import_module(f"{__name__}.{name}")


def create(
    name: str = "musical", preset: str = "paper", dtype: str | None = None, **overrides
) -> keras.Model:
    """Builds an untrained generator.

    Args:
        name: A method of `names()`.
        preset: One of the method's `PRESETS`.
        dtype: Keras dtype policy of the layers, e.g. `"mixed_float16"`; None takes the global one.
        **overrides: Fields of the method's `Config` that shall differ from the preset.

    Returns:
        A `keras.Model`, called with `[image, hole]`: image `(B, H, W, 3)` RGB in [-1, 1], what lies
        under the hole being ignored; hole `(B, H, W, 1)`, 1 = missing; H and W multiples of
        `size_multiple`. It returns the raw prediction `(B, H, W, 3)` float32 in [-1, 1];
        `conventions.composite` pastes it into the image. `method`, `preset` and `config` tell how
        it was built.

    Raises:
        ValueError: On an unknown method, preset or field; the message lists the valid ones.

    Example:
        >>> generator = musical_tf.create("musical", preset="lite")
        >>> prediction = generator([image, hole])
    """
    method = get(name)
    return method.build_generator(method.Config.from_preset(preset, **overrides), dtype=dtype)


def generator_file(source: str | Path) -> Path:
    """The `.keras` file or unpacked folder that `load` reads; it need not exist."""
    if named_models.is_name(source):
        return named_models.file(source)
    path = Path(source)
    is_run = path.is_dir() and not (path / _UNPACKED).is_file()
    return path / WEIGHTS if is_run else path


def load(path: str | Path, dtype: str = "float32", **overrides) -> keras.Model:
    """Loads a trained generator.

    Args:
        path: A `.keras` file, a run directory that holds `generator.keras`, a folder with the
            content of a `.keras` file as the Hugging Face Hub and KerasHub keep it, or the name of
            a generator that is part of the package, see `musical_tf.named_models`. Nothing is
            downloaded.
        dtype: Keras dtype policy to rebuild it in, whatever it was trained in.
        **overrides: Fields of the method's `Config` that shall differ from the stored ones and
            leave the weights as they are, such as `attention_max_scores`.

    Returns:
        The generator, see `create`.

    Raises:
        FileNotFoundError: When there is no such file or name; the message lists the names.
        ValueError: When the file is not a generator of this project, the message says what it is;
            or when its method has no such field, the message lists those it has.

    Example:
        >>> generator = musical_tf.load("photo")
    """
    file = generator_file(path)
    if not file.exists():
        known = named_models.listed()
        raise FileNotFoundError(
            f"No generator at {file}: expected a .keras file, a run directory holding "
            f"{WEIGHTS}, or a model's name ({known})"
        )
    if not file.is_dir() and not (file.is_file() and zipfile.is_zipfile(file)):
        raise ValueError(f"{file} is not a readable generator: it is damaged, or not a .keras file")
    for name in names():
        get(name)  # registers its generator class with Keras
    try:
        stored: Any = keras.saving.load_model(file, compile=False)
    # Keras raises whatever the unpacking met: zip, JSON, HDF5 or type errors.
    except Exception as error:
        raise ValueError(f"{file} is not a readable generator: {error}") from error
    if not isinstance(stored, MethodGenerator):
        raise ValueError(
            f"{file} holds a {type(stored).__name__}, expected a generator of one of {names()}"
        )
    fields = {field.name for field in dataclasses.fields(stored.config)}
    if unknown := sorted(set(overrides) - fields):
        raise ValueError(
            f"{file}: the method {stored.method} has no option(s) {unknown}, expected some of "
            f"{sorted(fields)}"
        )
    config = dataclasses.replace(stored.config, **overrides)
    generator = get(stored.method).build_generator(config, dtype=dtype)
    generator.set_weights(keras.Model.get_weights(stored))
    return generator
