"""The trainer under JAX."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from . import checkpoints, optimization
from .jax_data import Store, draw_batch
from .jax_step import JaxStep
from .loop import Loop
from .networks import Networks
from .recipes import Recipe


class JaxTrainer(Loop):
    """Calls of `steps_a_call` steps each, on batches that are drawn on the device."""

    def __init__(
        self, recipe: Recipe, built: Networks, store: Store, steps: int, steps_a_call: int
    ):
        self.recipe = recipe
        self.steps_a_call = steps_a_call
        self.generator = built.generator
        self.step = JaxStep(recipe, built.generator, built.objective)
        self.arrays = {name: jax.device_put(value) for name, value in store.arrays.items()}
        self.key = jax.random.key(recipe.seed)
        self.values = self.step.start()
        self.done = 0
        self.plan_rates(steps)

    @property
    def finished(self) -> int:
        """Steps done so far."""
        return self.done

    def plan_rates(self, steps: int) -> None:
        """Computes the learning rate of each step of a run of `steps` steps."""
        recipe = self.recipe
        rate = optimization.learning_rate_schedule(
            recipe.schedule, recipe.learning_rate, steps, recipe.warmup_steps
        )
        if callable(rate):
            self.rates = jax.jit(jax.vmap(rate))(jnp.arange(steps))
        else:
            self.rates = jnp.full((steps,), rate, "float32")

    def _inputs(self, first: int) -> tuple[Any, ...]:
        rates = self.rates[first : first + self.steps_a_call]
        return self.values, self.arrays, self.key, np.int32(first), rates

    def warm_up(self) -> float:
        """Compiles a call, and returns the seconds of one; its result is dropped."""
        inputs = self._inputs(0)
        self.call = jax.jit(self._call).lower(*inputs).compile()
        before = time.monotonic()
        jax.block_until_ready(self.call(*inputs))
        return time.monotonic() - before

    def update(self, batch: Any) -> dict[str, float]:
        """Makes `steps_a_call` steps on batches of its own; returns the means of the terms.

        Raises:
            NonFiniteError: If one of them is not finite.
        """
        self.values, means = self.call(*self._inputs(self.done))
        self.done += self.steps_a_call
        terms = {name: float(value) for name, value in means.items()}
        self.check_terms(terms)
        return terms

    def _call(self, values: Any, arrays: Any, key: Any, first: Any, rates: Any) -> Any:
        def step(values: Any, numbered: Any) -> Any:
            number, rate = numbered
            batch = draw_batch(arrays, jax.random.fold_in(key, number), self.recipe)
            return self.step.update(values, batch, number, rate)

        numbers = first + jnp.arange(self.steps_a_call)
        values, terms = jax.lax.scan(step, values, (numbers, rates))
        return values, {name: jnp.mean(each) for name, each in terms.items()}

    def state(self) -> checkpoints.State:
        """Returns everything that a later step depends on."""
        return {"step": [np.int64(self.done)], **self.values}

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Takes the state of a checkpoint."""
        found = checkpoints.read(checkpoint, self.state())
        self.done = int(found.pop("step")[0])
        self.values = {name: list(map(jnp.asarray, group)) for name, group in found.items()}

    @contextlib.contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Gives the generator the averaged weights, or the last where none are averaged."""
        kept = self.step.inference_weights(self.values)
        for variable, value in zip(self.generator.trainable_variables, kept, strict=True):
            variable.assign(value)
        yield

    def predict(self, image: Any, missing: np.ndarray) -> Any:
        """Returns the generator's output with the averaged weights."""
        weights = self.step.inference_weights(self.values)
        return self.step.predict(weights, image, missing).astype("float32")
