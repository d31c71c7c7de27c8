"""The training step under JAX, for objectives without discriminators.

Losses, Adam, the averages and the learning rate are those of `optimization.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import keras
from jax import numpy as jnp

from . import optimization
from .recipes import Recipe

State = dict[str, list[Any]]
"""`weights`, `optimizer` (its variables) and `averages`, each a list of arrays."""


class JaxStep:
    """A step as a pure function of the state, for a generator without a state of its own."""

    def __init__(self, recipe: Recipe, generator: keras.Model, objective: Any):
        self.recipe = recipe
        self.generator = generator
        self.objective = objective
        self.frozen = [each.value for each in generator.non_trainable_variables]
        adam = optimization.adam(
            recipe.learning_rate, recipe.beta_1, recipe.beta_2, recipe.gradient_clip
        )
        self.learning_rate = adam.learning_rate
        scaled = recipe.precision == "mixed_float16"
        self.optimizer = keras.optimizers.LossScaleOptimizer(adam) if scaled else adam
        self.optimizer.build(generator.trainable_variables)
        self.compiled = jax.jit(self.update)
        self.predict = jax.jit(self._predict)

    def start(self) -> State:
        """Returns the state before the first step."""
        weights = [jnp.array(each.value) for each in self.generator.trainable_variables]
        return {
            "weights": weights,
            "optimizer": [jnp.array(each.value) for each in self.optimizer.variables],
            "averages": weights if self.recipe.ema else [],
        }

    def inference_weights(self, state: State) -> list[Any]:
        """Returns the averaged weights, or the last where none are averaged."""
        return state["averages"] or state["weights"]

    def update(
        self, state: State, batch: Mapping[str, Any], number: Any, rate: Any
    ) -> tuple[State, dict[str, Any]]:
        """Makes one step on `image` and `hole`.

        `number` steps are finished before this one, whose learning rate is `rate`. Returns the new
        state, and every term with the total.
        """
        weights, averages = state["weights"], state["averages"]
        slots = [
            rate if variable is self.learning_rate else value
            for variable, value in zip(self.optimizer.variables, state["optimizer"], strict=True)
        ]
        gradients, terms = self._gradients(weights, slots, batch)
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        averages = [
            average + optimization.average_change(average, weight, self.recipe.ema, number)
            for average, weight in zip(averages, weights if averages else [], strict=True)
        ]
        return {"weights": weights, "optimizer": slots, "averages": averages}, terms

    def _gradients(
        self, weights: Sequence[Any], slots: Sequence[Any], batch: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The gradients and the terms, means over the parts of the batch."""
        of_part = jax.grad(self._loss, has_aux=True)
        count = self.recipe.gradient_accumulation
        if count == 1:
            return of_part(weights, slots, batch)
        parts = {name: each.reshape(count, -1, *each.shape[1:]) for name, each in batch.items()}

        def add(total: Any, part: Mapping[str, Any]) -> tuple[Any, Any]:
            gradients, terms = of_part(weights, slots, part)
            return jax.tree.map(jnp.add, total, gradients), terms

        total, terms = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, weights), parts)
        return jax.tree.map(lambda each: each / count, total), jax.tree.map(jnp.mean, terms)

    def _loss(
        self, weights: Sequence[Any], slots: Sequence[Any], batch: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        inputs = [batch["image"], batch["hole"]]
        prediction, _ = self.generator.stateless_call(weights, self.frozen, inputs, training=True)
        terms = optimization.generator_loss(
            self.objective, batch, prediction, {}, self.objective.generator_weights
        )
        with keras.StatelessScope(state_mapping=zip(self.optimizer.variables, slots, strict=True)):
            return self.optimizer.scale_loss(terms["total"]), terms

    def _predict(self, weights: Sequence[Any], image: Any, hole: Any) -> Any:
        return self.generator.stateless_call(weights, self.frozen, [image, hole], training=False)[0]
