"""The one trainer under TensorFlow: any method, through its objective.

A plain class rather than a `keras.Model` with an overridden `train_step`: there are two optimizers,
the fake is made once for both sides, and a run must continue bit for bit, so nothing of `compile()`
and `fit()` would be left in use.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from musical_tf.methods.base import Objective

from . import distribution, optimization
from .loop import Loop, NonFiniteError
from .step import (
    Batch,
    ReplicatedAdam,
    ReplicatedLossScale,
    after,
    detached,
    gradients_of,
    mean_over,
    watch,
)

SMALLEST_LOSS_SCALE = 2.0**-10
"""Below it a float16 gradient is not overflowing because of its scale."""

Outputs = Any
"""What `objective.outputs` makes of a batch: a tensor, or several by name."""

Terms = dict[str, tf.Tensor]


class Trainer(Loop):
    """Trains a generator against an objective, and its discriminators if it has any.

    One `train_step`:
    1. The generator runs once.
    2. `objective.discriminator_steps` times, the discriminators see the photograph and that same
       prediction, detached, and their optimizer updates the discriminators' variables, and no
       others.
    3. The generator's terms are computed with the updated discriminators, summed with their
       weights, and the generator's optimizer updates the generator's variables, and no others.
    4. The moving average of the generator's weights follows, if there is one.

    Every decision depends on (weights, step, batch) alone, so that a run continued from `state()`
    is the uninterrupted run bit for bit.

    With `gradient_accumulation` above 1, that many micro-batches are computed one after the other,
    and both sides are updated once, with the means over them. Peak memory is one micro-batch; the
    update uses the full batch. The step is the same where a term is a mean over independent
    samples. Batch normalization, and a mean over the pixels of all holes, use one micro-batch. With
    discriminators the generator runs twice, because they need the fakes of all micro-batches first.

    Args:
        generator: Keras model, called as `generator([image, hole], training=...)`.
        objective: An `Objective`.
        discriminators: Name -> Keras model. Empty: nothing adversarial is built or run.
        learning_rate: Float, or a function of the number of finished steps. The optimizer's own
            count is another: loss scaling leaves steps out.
        beta_1, beta_2: Floats, Adam's.
        ema: Float in [0, 1). Above 0, a moving average of the generator's trainable weights with
            this decay is kept, see `optimization.average_change`, for `inference_weights`.
        clip_norm: Float >= 0, 0 = off. Gradients of one optimizer are scaled down to this global
            norm, after unscaling.
        precision: One of `recipes.PRECISIONS`: the models' policy. `mixed_float16` wraps both
            optimizers in a loss scale each.
        gradient_accumulation: Int >= 1, micro-batches of a batch; must divide the batch.
        placement: Where to compute; the models and the objective must have been made inside
            `distribution.scope` of its strategy. Gradients, and the terms that are logged, are the
            means over the replicas; clipping, loss scales and phases act on the mean.
    """

    def __init__(
        self,
        generator: keras.Model,
        objective: Objective,
        discriminators: Mapping[str, keras.Model] | None = None,
        *,
        learning_rate: optimization.Rate = 2e-4,
        beta_1: float = 0.5,
        beta_2: float = 0.999,
        ema: float = 0.0,
        clip_norm: float = 0.0,
        precision: str = "float32",
        gradient_accumulation: int = 1,
        placement: distribution.Distribution | None = None,
    ):
        self.generator = generator
        self.objective = objective
        self.discriminators = dict(discriminators or {})
        self.learning_rate = learning_rate
        self.ema = ema
        self.precision = precision
        self.gradient_accumulation = gradient_accumulation
        self.placement = placement or distribution.Distribution()
        self.strategy: Any = self.placement.strategy
        self._stop_agreed = False

        self.generator_variables = list(generator.trainable_variables)
        self.discriminator_variables = {
            name: list(model.trainable_variables) for name, model in self.discriminators.items()
        }

        adam_class, loss_scale_class = (
            (keras.optimizers.Adam, keras.optimizers.LossScaleOptimizer)
            if self.strategy is None
            else (ReplicatedAdam, ReplicatedLossScale)
        )

        def adam(variables: Sequence[keras.Variable], name: str) -> keras.optimizers.Optimizer:
            rate = float(self._rate(0))
            optimizer = optimization.adam(
                rate, beta_1, beta_2, clip_norm, name=name, kind=adam_class
            )
            if precision == "mixed_float16":
                optimizer = loss_scale_class(optimizer, name=f"{name}_loss_scale")
            optimizer.build(variables)
            return optimizer

        with distribution.scope(self.strategy):
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
            self.generator_optimizer = adam(self.generator_variables, "generator_adam")
            self.discriminator_optimizer: Any = None
            if self.discriminators:
                self.discriminator_optimizer = adam(
                    self._all_discriminator_variables(), "discriminator_adam"
                )
            self.averages = [
                tf.Variable(variable.value, trainable=False)
                for variable in self.generator_variables
                if ema
            ]
        if self.strategy is not None:
            distribution.prepare_models([generator, *self.discriminators.values()])
        self._log_names: list[str] = []
        # Without AutoGraph: nothing here branches on a tensor, and it would read the source files
        # again, which may have been edited since they were imported.
        pack = self._pack if self.strategy is None else self._pack_replicas
        self._packed_step = tf.function(pack, autograph=False, reduce_retracing=True)
        self._predict = tf.function(
            lambda image, hole: self.generator([image, hole], training=False),
            autograph=False,
            reduce_retracing=True,
        )

    @property
    def finished(self) -> int:
        """Steps done so far."""
        return int(self.step.numpy())

    @property
    def stopped(self) -> bool:
        """Whether the run ends now; of several processes, once all of them know."""
        return self.stop_training if self.placement.processes == 1 else self._stop_agreed

    def train_step(self, batch: Batch) -> Terms:
        """Updates every network once on one batch.

        Returns:
            Float32 scalars: every term by its name, unweighted; `total`, the generator's weighted
            sum; and with discriminators `discriminator`, their sum.
        """
        rate = self._rate(self.step)
        phase = self.objective.phase(self.step)
        weights = self.objective.phase_weights(self.step)
        if self.gradient_accumulation == 1:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                watch(tape, self.generator_variables)
                prediction = self.objective.outputs(self.generator, batch)
                with tape.stop_recording():
                    discriminator_logs = self._discriminator_steps(
                        [(batch, detached(prediction))], rate, phase.get("discriminators")
                    )
                terms, loss = self._generator_loss(batch, prediction, weights)
            gradients = gradients_of(loss, tape, self.generator_variables)
        else:
            parts = self._parts(batch)
            discriminator_logs = self._discriminator_steps(
                self._fakes(parts), rate, phase.get("discriminators")
            )
            terms, gradients = mean_over(
                parts, lambda part: self._generator_gradients(part, weights)
            )
        self._apply(
            self.generator_optimizer,
            gradients,
            self.generator_variables,
            rate,
            phase.get("generator"),
        )
        for average, variable in zip(self.averages, self.generator_variables, strict=False):
            average.assign_add(
                optimization.average_change(average, variable.value, self.ema, self.step)
            )
        self.step.assign_add(1)
        repeated = sorted(set(terms) & set(discriminator_logs))
        if repeated:
            raise ValueError(
                f"both the generator and the discriminators name a term {repeated[0]!r}"
            )
        return {**terms, **discriminator_logs}

    def _generator_loss(
        self, batch: Batch, prediction: Outputs, weights: Mapping[str, float]
    ) -> tuple[Terms, tf.Tensor]:
        """The terms with their total, and what is differentiated."""
        terms = optimization.generator_loss(
            self.objective, batch, prediction, self.discriminators, weights
        )
        return terms, self.generator_optimizer.scale_loss(terms["total"])

    def _generator_gradients(
        self, batch: Batch, weights: Mapping[str, float]
    ) -> tuple[Terms, list[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watch(tape, self.generator_variables)
            prediction = self.objective.outputs(self.generator, batch)
            terms, loss = self._generator_loss(batch, prediction, weights)
        return terms, gradients_of(loss, tape, self.generator_variables)

    def _parts(self, batch: Batch) -> list[Batch]:
        count, size = self.gradient_accumulation, batch["image"].shape[0]
        if size is not None and size % count:
            raise ValueError(f"gradient_accumulation must divide the batch of {size}, got {count}")
        split = {name: tf.split(values, count) for name, values in batch.items()}
        return [{name: split[name][index] for name in split} for index in range(count)]

    def _fakes(self, parts: Sequence[Batch]) -> list[tuple[Batch, Outputs]]:
        """The parts, each with what the generator makes of it and without any gradient.

        The generator is left as it was, random states and moving statistics included, and so gives
        the same again when its own gradient is computed.
        """
        if not self.discriminators:
            return []
        trained = {id(variable) for variable in self.generator_variables}
        others = [v.value for v in self.generator.variables if id(v) not in trained]
        before = [tf.identity(variable) for variable in others]
        fakes: list[Any] = []
        for part in parts:
            waiting = after(fakes[-1:], part)
            fakes.append(detached(self.objective.outputs(self.generator, waiting)))
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
        return list(zip(parts, fakes, strict=True))

    def _discriminator_steps(
        self, parts: Sequence[tuple[Batch, Outputs]], rate: tf.Tensor, active: tf.Tensor | None
    ) -> Terms:
        """Updates the discriminators on the batch, given as parts with their detached fakes."""
        if not self.discriminators:
            return {}
        variables = self._all_discriminator_variables()

        def compute(part: tuple[Batch, Outputs]) -> tuple[Terms, list[tf.Tensor]]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                watch(tape, variables)
                terms = optimization.discriminator_loss(self.objective, *part, self.discriminators)
                loss = self.discriminator_optimizer.scale_loss(terms["discriminator"])
            return terms, gradients_of(loss, tape, variables)

        for _ in range(self.objective.discriminator_steps):
            logs, gradients = mean_over(parts, compute)
            self._apply(self.discriminator_optimizer, gradients, variables, rate, active)
        return logs

    def _apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[keras.Variable],
        rate: tf.Tensor,
        active: tf.Tensor | None,
    ) -> None:
        """Updates `variables`; not in a step whose `active` is False, always where it is None."""
        optimizer.learning_rate.assign(rate)

        def update(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return tf.constant(True)

        def update_replicas(
            strategy: tf.distribute.Strategy, active: tf.Tensor, gradients: Sequence[tf.Tensor]
        ) -> None:
            tf.cond(
                strategy.experimental_local_results(active)[0],
                lambda: strategy.run(update, args=(gradients,)),
                lambda: strategy.run(lambda: tf.constant(False)),
            )

        if self.strategy is not None:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.MEAN, gradients)
        if active is None:
            update(gradients)
        elif self.strategy is None:
            tf.cond(active, lambda: update(gradients), lambda: tf.constant(False))
        else:
            # A branch of a replica's own could not meet the other replicas.
            context.merge_call(update_replicas, args=(active, gradients))

    def _rate(self, step: tf.Tensor | int) -> tf.Tensor:
        if callable(self.learning_rate):
            return tf.cast(self.learning_rate(step), tf.float32)
        return tf.constant(self.learning_rate, tf.float32)

    def _all_discriminator_variables(self) -> list[keras.Variable]:
        return [v for variables in self.discriminator_variables.values() for v in variables]

    def _pack(self, batch: Batch) -> tf.Tensor:
        logs = self.train_step(batch)
        self._log_names = list(logs)
        # One tensor, because each one fetched from a GPU is a wait of its own.
        return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])

    def _pack_replicas(self, batch: Batch, stop: tf.Tensor) -> tf.Tensor:
        """The means of `_pack` over all replicas and, behind them, that of `stop`."""

        def replica_step(batch: Batch) -> tf.Tensor:
            return tf.concat([self._pack(batch), stop[None]], axis=0)

        packed = self.strategy.run(replica_step, args=(batch,))
        return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, packed, axis=None)

    def _update_replicas(self, batch: Batch) -> np.ndarray:
        count = self.strategy.num_replicas_in_sync // self.placement.processes
        first = self.placement.process * count
        parts = {name: tf.split(value, count) for name, value in batch.items()}
        shared = self.strategy.experimental_distribute_values_from_function(
            lambda context: {
                name: each[context.replica_id_in_sync_group - first] for name, each in parts.items()
            }
        )
        # All processes stop in the same step: one that stopped alone would leave the others waiting
        # for its gradients.
        stop = tf.constant(float(self.stop_training))
        *values, stop = self._packed_step(shared, stop).numpy()
        self._stop_agreed = stop > 0.0
        return np.asarray(values)

    def update(self, batch: Batch) -> dict[str, float]:
        """Runs `train_step` as a compiled graph; returns its logs as Python floats.

        With a placement, `batch` is this process' part of the global batch, of which its replicas
        take equal parts in their order.

        Raises:
            NonFiniteError: Naming the first term that is NaN or infinite; the weights may be
            spoiled by
                then. Or, with mixed_float16, naming the optimizer whose gradients stay infinite at
                any loss scale: it would leave out every step from here on.
        """
        if self.strategy is None:
            values = self._packed_step(batch).numpy()
        else:
            values = self._update_replicas(batch)
        logs = {name: float(value) for name, value in zip(self._log_names, values, strict=True)}
        self.check_terms(logs)
        for name, scale in self._loss_scales().items():
            if scale < SMALLEST_LOSS_SCALE:
                raise NonFiniteError(
                    f"{name} fell to {scale} at step {self.finished}: the gradients stay NaN or "
                    "infinite in float16"
                )
        return logs

    def predict(self, image: tf.Tensor, missing: np.ndarray) -> tf.Tensor:
        """Returns the generator's output with `inference_weights`; see `Loop.predict`."""
        with self.inference_weights():
            return tf.cast(self._predict(image, tf.constant(missing)), tf.float32)

    def scales(self) -> dict[str, float]:
        """Returns the learning rate of the last step and, with mixed_float16, both loss scales."""
        rate = float(self.generator_optimizer.learning_rate.numpy())
        return {"learning_rate": rate, **self._loss_scales()}

    def _loss_scales(self) -> dict[str, float]:
        return {
            optimizer.name: float(optimizer.dynamic_scale.numpy())
            for optimizer in (self.generator_optimizer, self.discriminator_optimizer)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        }

    @contextlib.contextmanager
    def inference_weights(self) -> Iterator[None]:
        """Inside the block the generator holds its averaged weights, if it has any."""
        if not self.averages:
            yield
            return
        raw = [variable.numpy() for variable in self.generator_variables]
        try:
            for variable, average in zip(self.generator_variables, self.averages, strict=True):
                variable.assign(average)
            yield
        finally:
            for variable, value in zip(self.generator_variables, raw, strict=True):
                variable.assign(value)

    def state(self) -> dict[str, list[tf.Variable]]:
        """Returns everything a later step depends on, as named lists of variables in a fixed order.

        `variables` of a model holds the state of its random generators and of its normalization
        too.
        """
        state = {
            "step": [self.step],
            "generator": [v.value for v in self.generator.variables],
            "generator_optimizer": [v.value for v in self.generator_optimizer.variables],
        }
        for name, model in self.discriminators.items():
            state[f"discriminator_{name}"] = [v.value for v in model.variables]
        if self.discriminator_optimizer is not None:
            state["discriminator_optimizer"] = [
                v.value for v in self.discriminator_optimizer.variables
            ]
        if self.averages:
            state["averages"] = list(self.averages)
        return state
