"""What a training step is made of under TensorFlow: objectives, gradients, parts of a batch.

`optimization.py` has what TensorFlow and JAX share, `jax_step.py` the step under JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Batch = dict[str, tf.Tensor]
"""`image` (B, H, W, 3) float32 RGB in [-1, 1] and `hole` (B, H, W, 1) float32, 1 = missing."""


class ReplicatedAdam(keras.optimizers.Adam):
    """Adam that is given gradients which are the means over the replicas already.

    Keras would sum them, after clipping and checking each replica's own.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars


class ReplicatedLossScale(keras.optimizers.LossScaleOptimizer):
    """A loss scale whose growth is chosen by value: replicas cannot meet inside a branch."""

    def _stateful_handle_finite_grads(self, grads, trainable_variables):
        scale, counter = self.dynamic_scale.value, self.step_counter.value
        self.inner_optimizer.apply([each / scale for each in grads], trainable_variables)
        grown = tf.equal(counter, self.dynamic_growth_steps - 1)
        self.dynamic_scale.assign(tf.where(grown, 2.0 * scale, scale))
        self.step_counter.assign(tf.where(grown, tf.zeros_like(counter), counter + 1))


def gradients_of(
    loss: tf.Tensor, tape: tf.GradientTape, variables: Sequence[keras.Variable]
) -> list[tf.Tensor]:
    """Returns the gradient of each variable.

    Raises:
        ValueError: If a variable gets none; names the first.
    """
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    missing = [v.path for v, g in zip(variables, gradients, strict=True) if g is None]
    if missing:
        raise ValueError(
            f"no gradient reaches {len(missing)} of {len(variables)} trainable variables, "
            f"the first is {missing[0]}"
        )
    return gradients


def detached(values: Any) -> Any:
    """Returns the tensors of a structure without their gradients."""
    return tf.nest.map_structure(tf.stop_gradient, values)


def after(before: Any, values: Any) -> Any:
    """Returns `values`, available once all of `before` is.

    Parts of a batch that do not wait for each other are computed side by side in a graph, and their
    memory adds up.
    """
    with tf.control_dependencies(tf.nest.flatten(before)):
        return tf.nest.map_structure(tf.identity, values)


def mean_over(parts: Sequence[Any], compute: Callable[[Any], Any]) -> Any:
    """Returns the mean over the parts of the tensors that `compute` returns, added in turns."""
    total = compute(parts[0])
    if len(parts) == 1:
        return total
    for part in parts[1:]:
        total = tf.nest.map_structure(tf.add, total, compute(after(total, part)))
    return tf.nest.map_structure(lambda value: value / float(len(parts)), total)


def watch(tape: tf.GradientTape, variables: Sequence[keras.Variable]) -> None:
    """Makes `tape` record these variables; it was told to record no others by itself."""
    tape.watch([variable.value for variable in variables])
