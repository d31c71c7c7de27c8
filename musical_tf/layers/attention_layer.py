"""What the layers that attend to known positions share: options, shapes and their errors."""

from collections.abc import Iterable
from typing import Any, ClassVar

import keras
from keras import ops

from musical_tf.conventions import Tensor


class AttentionLayer(keras.layers.Layer):
    """A layer of features `(B, H, W, C)` and a hole `(B, H, W, 1)`; its output has C channels.

    The arguments of the constructor that `OPTIONS` names are its attributes and its configuration.
    """

    OPTIONS: ClassVar[tuple[str, ...]]

    multiple = 1
    """What height and width must be multiples of."""

    def build(self, features_shape, hole_shape):
        check_shapes(features_shape, hole_shape, self.multiple)

    def compute_output_shape(self, features_shape, hole_shape):
        return features_shape

    def get_config(self) -> dict:
        return {**super().get_config(), **{name: getattr(self, name) for name in self.OPTIONS}}


def prepare(features: Tensor, hole: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Float32 features, and the hole as 0 and 1.

    Raises:
        ValueError: See `check_shapes`. Keras checks the shapes of a layer's first call alone.
    """
    features = ops.convert_to_tensor(features)
    hole = ops.cast(ops.cast(hole, "float32") > 0.5, "float32")
    check_shapes(features.shape, hole.shape, multiple)
    return ops.cast(features, "float32"), hole


def check_shapes(features_shape: Any, hole_shape: Any, multiple: int = 1) -> None:
    """Raises `ValueError` unless the shapes agree and known sides are multiples of `multiple`."""
    agree = len(features_shape) == len(hole_shape) == 4 and hole_shape[-1] == 1
    if agree:
        pairs = zip(features_shape[:3], hole_shape[:3], strict=True)
        agree = all(a == b or None in (a, b) for a, b in pairs)
        agree = agree and all(side is None or side % multiple == 0 for side in features_shape[1:3])
    if not agree or features_shape[-1] is None:
        multiples = f", H and W multiples of {multiple}" if multiple > 1 else ""
        raise ValueError(
            "Expected features (B, H, W, C) and a hole (B, H, W, 1) of the same B, H, W"
            f"{multiples}, got features {tuple(features_shape)}, hole {tuple(hole_shape)}"
        )


def check_odd(**sizes: Any) -> None:
    """Raises `ValueError` on a size that is no odd integer above 0."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"{name} must be an odd integer >= 1, got {size!r}")


def check_max_scores(max_scores: Any) -> None:
    """Raises `ValueError` unless it is None or an integer above 0."""
    if max_scores is not None and (not isinstance(max_scores, int) or max_scores < 1):
        raise ValueError(f"max_scores must be an integer >= 1 or None, got {max_scores!r}")


def check_scale(softmax_scale: Any) -> None:
    """Raises `ValueError` unless it is above 0."""
    if not softmax_scale > 0:
        raise ValueError(f"softmax_scale must be above 0, got {softmax_scale!r}")


def check_one_of(valid: Iterable[str], **values: Any) -> None:
    """Raises `ValueError` on a value that is not valid."""
    valid = sorted(valid)
    for name, value in values.items():
        if value not in valid:
            raise ValueError(f"{name} must be one of {valid}, got {value!r}")
