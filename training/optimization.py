"""A training step, as far as it does not hang on the backend: losses, rate, Adam and averages.

One definition for both backends: `trainer` uses it under TensorFlow, `jax_step` under JAX. Nothing
here imports either.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.methods.base import Objective

from .recipes import SCHEDULES

EPSILON = 1e-8
"""Adam's epsilon: PyTorch's, which the authors trained with. Keras' own is 1e-7."""


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Makes `name` Keras' policy for the layers built inside the block, then restores the old."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


Rate = float | Callable[[Tensor], Tensor]
"""A learning rate: constant, or a function of the number of finished steps."""


def learning_rate_schedule(
    name: str, learning_rate: float, steps: int, warmup_steps: int = 0
) -> Rate:
    """Builds the learning rate of a run.

    Args:
        name: `constant`, or `cosine`: down to zero at the last step.
        learning_rate: Float > 0, the highest rate.
        steps: Int, length of the whole run.
        warmup_steps: Int >= 0, steps on a straight line from (nearly) zero up to `learning_rate`.

    Raises:
        ValueError: On an unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown learning-rate schedule {name!r}; one of {', '.join(SCHEDULES)}")
    if name == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else learning_rate,
            decay_steps=max(steps - warmup_steps, 1),
            warmup_target=learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if not warmup_steps:
        return learning_rate
    return lambda step: (
        learning_rate * ops.minimum(ops.cast(step + 1, "float32") / float(warmup_steps), 1.0)
    )


def adam(
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    clip_norm: float = 0.0,
    *,
    name: str = "adam",
    kind: type[keras.optimizers.Adam] = keras.optimizers.Adam,
) -> keras.optimizers.Adam:
    """Returns the optimizer of every network, not yet built.

    Args:
        learning_rate: Float, the rate of the first step. The trainer assigns the others.
        beta_1, beta_2: Floats in [0, 1).
        clip_norm: Float >= 0. Gradients are scaled down to this global norm; 0 = off.
        name: The optimizer's name.
        kind: The class, for a subclass of Keras' Adam.
    """
    return kind(
        learning_rate=learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=EPSILON,
        global_clipnorm=clip_norm or None,
        name=name,
    )


def generator_loss(
    objective: Objective,
    batch: Mapping[str, Tensor],
    prediction: Any,
    discriminators: Mapping[str, keras.Model],
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """Returns the generator's terms in float32, unweighted, and `total`, their weighted sum.

    Raises:
        ValueError: If weights and terms have other names.
    """
    terms = objective.generator_terms(batch, prediction, discriminators)
    terms = {name: ops.cast(value, "float32") for name, value in terms.items()}
    if terms.keys() != dict(weights).keys():
        raise ValueError(
            f"the objective has weights for {sorted(weights)} and terms {sorted(terms)}"
        )
    return {**terms, "total": weighted_sum(terms, weights)}


def discriminator_loss(
    objective: Objective,
    batch: Mapping[str, Tensor],
    fake: Any,
    discriminators: Mapping[str, keras.Model],
) -> dict[str, Tensor]:
    """Returns the discriminators' terms in float32, and `discriminator`, their sum."""
    terms = objective.discriminator_terms(batch, fake, discriminators)
    terms = {name: ops.cast(value, "float32") for name, value in terms.items()}
    return {**terms, "discriminator": weighted_sum(terms, dict.fromkeys(terms, 1.0))}


def average_change(average: Tensor, weight: Tensor, ema: float, step: Tensor) -> Tensor:
    """The change of a moving average of weights in one step, to be added to the average.

    The decay warms up as `(1 + step) / (10 + step)`, so that the first weights do not dominate the
    average of a short run.

    Args:
        average: The average so far; the first weights at the start.
        weight: The weight after this step's update.
        ema: Float in [0, 1), the decay.
        step: Int scalar, steps finished before this one.
    """
    step = ops.cast(step, "float32")
    decay = ops.minimum(ema, (1.0 + step) / (10.0 + step))
    return (1.0 - decay) * (weight - average)


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Returns the sum of weight x term in float32, added in the order of the terms.

    `tf.add_n` adds in the order in which its inputs are ready, which rounds differently each time.
    """
    total = ops.zeros((), "float32")
    for name, value in terms.items():
        total = total + weights[name] * ops.cast(value, "float32")
    return total
