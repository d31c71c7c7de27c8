"""A gradient inside a loss, as a gradient penalty needs it."""

from collections.abc import Callable

import keras

from musical_tf.conventions import Tensor


def input_gradient(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The value of a function and the gradient of its sum, which can be differentiated again.

    Args:
        function: `(B, ...)` -> any shape, each sample by itself: then the gradient of the sum holds
            every sample's own.
        inputs: `(B, ...)` float.

    Raises:
        NotImplementedError: On a backend other than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf  # Keras has no gradients of its own

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(inputs)
            total = tf.reduce_sum(value)
        return value, tape.gradient(total, inputs)
    if backend == "jax":
        import jax

        value, backward = jax.vjp(function, inputs)
        return value, backward(keras.ops.ones_like(value))[0]
    raise NotImplementedError(f"gradients inside a loss need TensorFlow or JAX, not {backend}")
