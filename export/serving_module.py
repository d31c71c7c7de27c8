"""The inpainting function of a run, as a TensorFlow module and as a SavedModel."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.contract import SEED

from .errors import ExportError

Runtime = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""From `(image, mask)` to the outputs of the contract by name."""


def load_inpainting(
    run: str | Path,
    io: str = "uint8",
    layout: str = "nhwc",
    attention_max_scores: int | None = None,
    fill: str | None = None,
) -> Any:
    """Wraps the generator of `run`, loaded in float32 whatever precision it was trained in.

    Args:
        run, io, layout, attention_max_scores: See `convert.export`.
        fill: "copy" or "network", whether known pixels are copied into the hole; None is what `run`
            was configured with.

    Raises:
        FileNotFoundError, ValueError: If `run` holds no generator or an argument is unknown.
        ExportError: If the generator gives NaN or infinity. In uint8 every runtime would agree on a
            gray level for it.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "exporting needs the TensorFlow backend of Keras, got "
            f"KERAS_BACKEND={keras.backend.backend()}"
        )
    import musical_tf
    from musical_tf.inference import InpaintingFunction

    overrides: dict[str, Any] = {}
    if attention_max_scores is not None:
        overrides["attention_max_scores"] = attention_max_scores
    if fill is not None:
        overrides["copying"] = fill == "copy"
    generator = musical_tf.load(run, dtype="float32", **overrides)
    inpaint = InpaintingFunction(generator, io=io, layout=layout)
    side = 4 * generator.size_multiple
    image = np.zeros((1, side, side, 3), "float32")
    all_hole = np.ones((1, side, side, 1), "float32")
    if not np.isfinite(np.asarray(generator([image, all_hole], training=False))).all():
        raise ExportError(
            f"the generator of {run} gives NaN or infinity, as after a training that diverged, so "
            "nothing was written"
        )
    return inpaint


def serving_module(inpaint: Any, seeded: bool = False) -> Any:
    """Wraps an `InpaintingFunction` as a `tf.Module` with its weights.

    Its `serve` is a `tf.function` from `image`, `mask` and, if `seeded`, `seed` to the dict of
    `InpaintingFunction.outputs`.
    """
    import tensorflow as tf

    module = tf.Module(name="inpainting")
    module.weights = [variable.value for variable in inpaint.generator.variables]
    signature = [
        tf.TensorSpec(inpaint.image_shape, inpaint.io, name="image"),
        tf.TensorSpec(inpaint.mask_shape, inpaint.io, name="mask"),
    ]
    if seeded:
        signature.append(tf.TensorSpec((), "int64", name=SEED))

    def serve(*inputs):
        return inpaint.outputs(*inputs)

    module.serve = tf.function(serve, input_signature=signature, autograph=False)
    return module


def save_module(module: Any, folder: str | Path) -> None:
    """Writes the module as a SavedModel with the signature `serving_default`.

    Raises `ExportError` if it cannot be written.
    """
    import tensorflow as tf

    # Inference needs no gradient, and a custom one would drag Python of ours into the file.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(
            module, str(folder), signatures={"serving_default": module.serve}, options=options
        )
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"cannot write the SavedModel {folder}: {error}") from error


def saved_model_runtime(inpaint: Any) -> Runtime:
    """Saves `inpaint` as a SavedModel, loads it back and returns it as a function of arrays."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        save_module(serving_module(inpaint), folder)
        return signature_runtime(tf.saved_model.load(folder))


def signature_runtime(loaded: Any) -> Runtime:
    """Returns the `serving_default` signature of a loaded SavedModel as a function of arrays."""
    import tensorflow as tf

    def run(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        # Looked up through `loaded`, which owns the weights: a signature does not keep them.
        signature = loaded.signatures["serving_default"]
        results = signature(image=tf.constant(image), mask=tf.constant(mask))
        return {name: value.numpy() for name, value in results.items()}

    return run
