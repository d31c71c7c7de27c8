"""The trainer and its checkpoints, on networks small enough to see through."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import checkpoints
from training.callbacks import Saver
from training.loop import NonFiniteError
from training.optimization import learning_rate_schedule
from training.recipes import PRECISIONS
from training.trainer import Trainer

from .tiny_trainer import (
    InTurns,
    TinyObjective,
    assert_same,
    batch_at,
    make_trainer,
    save,
    tiny_discriminator,
    tiny_generator,
    values,
)

pytestmark = pytest.mark.usefixtures("eager")


# --- one step ---------------------------------------------------------------------------------


def test_a_step_without_discriminators_is_plain_adam_on_the_weighted_sum():
    trainer = make_trainer(adversarial=False)
    keras.utils.set_random_seed(3)
    reference = tiny_generator()
    optimizer = keras.optimizers.Adam(1e-2, beta_1=0.5, beta_2=0.999, epsilon=1e-8)
    for step in range(3):
        batch = batch_at(step)
        with tf.GradientTape() as tape:
            prediction = reference([batch["image"], batch["hole"]], training=True)
            l1 = tf.reduce_mean(tf.abs(batch["image"] - prediction))
            loss = 10.0 * l1
        gradients = tape.gradient(loss, reference.trainable_weights)
        optimizer.apply_gradients(zip(gradients, reference.trainable_weights, strict=True))
        logs = trainer.update(batch)
        assert set(logs) == {"l1", "total"}
        assert logs["l1"] == pytest.approx(float(l1), rel=1e-5)
        assert logs["total"] == pytest.approx(10.0 * logs["l1"], rel=1e-5)
    assert trainer.discriminator_optimizer is None
    for ours, theirs in zip(trainer.generator.variables, reference.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_terms_are_logged_raw_with_their_totals():
    trainer = make_trainer()
    logs = trainer.update(batch_at(0))
    assert list(logs) == ["l1", "adversarial", "total", "real", "fake", "discriminator"]
    assert logs["total"] == pytest.approx(10 * logs["l1"] + 0.3 * logs["adversarial"], rel=1e-5)
    assert logs["discriminator"] == pytest.approx(logs["real"] + logs["fake"], rel=1e-5)


@pytest.mark.parametrize("side", ["generator", "discriminator"])
def test_each_loss_moves_its_own_network_and_no_other(side):
    class OneSided(TinyObjective):
        """The other side's loss has gradient zero."""

        def generator_terms(self, *inputs):
            terms = super().generator_terms(*inputs)
            return {name: (side == "generator") * value for name, value in terms.items()}

        def discriminator_terms(self, *inputs):
            terms = super().discriminator_terms(*inputs)
            return {name: (side == "discriminator") * value for name, value in terms.items()}

    trainer = make_trainer(objective=OneSided(0.3))
    variables = {
        "generator": trainer.generator_variables,
        "discriminator": trainer.discriminator_variables["patch"],
    }
    before = {name: [v.numpy().copy() for v in group] for name, group in variables.items()}
    trainer.update(batch_at(0))
    for name, group in variables.items():
        for variable, old in zip(group, before[name], strict=True):
            # Spectral normalization rewrites its kernel in every training forward, by design.
            if name == side or "spectral" not in variable.path:
                assert np.array_equal(variable.numpy(), old) == (name != side), variable.path


def test_the_generator_runs_once_a_step_and_the_discriminator_as_often_as_asked():
    trainer = make_trainer()
    calls = []
    original = trainer.generator

    def counted(inputs, training):
        calls.append(training)
        return original(inputs, training=training)

    trainer.generator = counted
    trainer.objective.discriminator_steps = 3
    trainer.train_step(batch_at(0))
    assert calls == [True]
    assert int(trainer.discriminator_optimizer.iterations) == 3
    assert int(trainer.generator_optimizer.iterations) == 1


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_phases_leave_the_resting_side_alone(precision):
    trainer = make_trainer(precision, objective=InTurns(0.3))
    optimizers = (trainer.generator_optimizer, trainer.discriminator_optimizer)
    rates = [optimizer.learning_rate for optimizer in optimizers]
    sides = {
        "generator": [*trainer.generator_variables, *optimizers[0].variables],
        # Not its first layer: SpectralNormalization rewrites that in every forward pass.
        "discriminators": [
            *trainer.discriminator_variables["patch"][-2:],
            *optimizers[1].variables,
        ],
    }
    for step, moving in enumerate((["generator"], ["discriminators"], [*sides])):
        before = {side: [v.numpy().copy() for v in sides[side]] for side in sides}
        logs = trainer.update(batch_at(step))
        for side, variables in sides.items():
            moved = [
                not np.array_equal(variable.numpy(), old)
                for variable, old in zip(variables, before[side], strict=True)
                if not any(variable is rate for rate in rates)
            ]
            assert any(moved) == (side in moving), (step, side)
        expected = 10.0 * logs["l1"] + (0.3 if step > 1 else 0.0) * logs["adversarial"]
        assert logs["total"] == pytest.approx(expected, rel=1e-5)


class TwoStages(keras.Model):
    """A generator with an intermediate result."""

    def __init__(self):
        super().__init__()
        self.first = keras.layers.Conv2D(3, 3, padding="same")
        self.second = keras.layers.Conv2D(3, 3, padding="same")

    def training_outputs(self, inputs):
        coarse = self.first(keras.ops.concatenate(inputs, axis=-1))
        return {"coarse": coarse, "prediction": self.second(coarse)}

    def call(self, inputs, training=None):
        return self.training_outputs(inputs)["prediction"]


class TwoStageObjective(TinyObjective):
    def outputs(self, generator, batch):
        return generator.training_outputs([batch["image"], batch["hole"]])

    def generator_terms(self, batch, prediction, discriminators):
        return {
            "l1": tf.reduce_mean(tf.abs(batch["image"] - prediction["prediction"])),
            "adversarial": tf.reduce_mean(tf.abs(batch["image"] - prediction["coarse"])),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        assert set(prediction) == {"coarse", "prediction"}
        return super().discriminator_terms(batch, prediction["coarse"], discriminators)


def test_intermediate_results_reach_both_sides_of_the_objective():
    generator = TwoStages()
    generator([batch_at(0)["image"], batch_at(0)["hole"]])
    trainer = Trainer(generator, TwoStageObjective(0.3), {"patch": tiny_discriminator()})
    logs = trainer.update(batch_at(0))
    assert logs["total"] == pytest.approx(10 * logs["l1"] + 0.3 * logs["adversarial"], rel=1e-5)
    assert trainer.inpaint(np.zeros((16, 16, 3), "uint8"), np.eye(16, dtype=bool)).any()


class Sharing(TinyObjective):
    """Computes what both sides compare once a step."""

    computed = 0

    def outputs(self, generator, batch):
        self.computed += 1
        return {"truth": batch["image"], "fake": super().outputs(generator, batch)}

    def generator_terms(self, batch, both, discriminators):
        return super().generator_terms({"image": both["truth"]}, both["fake"], discriminators)

    def discriminator_terms(self, batch, both, discriminators):
        return super().discriminator_terms({"image": both["truth"]}, both["fake"], discriminators)


def test_what_both_sides_compare_is_computed_once_and_passes_gradients_on():
    once, twice = make_trainer(objective=Sharing(0.3)), make_trainer()
    for step in range(2):
        assert once.update(batch_at(step)) == twice.update(batch_at(step))
    assert_same(values(once), values(twice))
    assert once.objective.computed == 2


# --- a batch in parts -------------------------------------------------------------------------


def large_batch_at(step: int, size: int = 4) -> dict[str, tf.Tensor]:
    halves = [batch_at(size * step + index) for index in range(size // 2)]
    return {name: tf.concat([half[name] for half in halves], 0) for name in halves[0]}


def memoryless_trainer(parts: int) -> Trainer:
    """Samples do not see each other, and a forward pass leaves nothing behind."""
    keras.utils.set_random_seed(3)
    networks = []
    for inputs in ([4], [3]):
        x = image = keras.Input((None, None, inputs[0]))
        x = keras.layers.Conv2D(5, 3, padding="same", activation="relu")(x)
        networks.append(keras.Model(image, keras.layers.Conv2D(3, 3, padding="same")(x)))
    image, hole = keras.Input((None, None, 3)), keras.Input((None, None, 1))
    generator = keras.Model([image, hole], networks[0](keras.ops.concatenate([image, hole], -1)))
    objective = TinyObjective(0.3)
    objective.discriminator_steps = 2
    return Trainer(
        generator,
        objective,
        {"patch": networks[1]},
        learning_rate=1e-3,
        gradient_accumulation=parts,
    )


def test_a_batch_in_parts_makes_the_step_of_the_whole():
    whole, accumulated = memoryless_trainer(1), memoryless_trainer(2)
    before = values(whole)
    for step in range(3):
        batch = large_batch_at(step)
        assert accumulated.update(batch) == pytest.approx(whole.update(batch), rel=1e-5)
    ours, theirs = values(accumulated), values(whole)
    for name in ("generator", "discriminator_patch"):
        for one, two, old in zip(ours[name], theirs[name], before[name], strict=True):
            np.testing.assert_allclose(one, two, atol=2e-5)
            assert np.abs(two - old).max() > 1e-3
    assert int(accumulated.generator_optimizer.iterations) == 3
    assert int(accumulated.discriminator_optimizer.iterations) == 6


class Watching(TinyObjective):
    """Keeps what each side is shown."""

    def __init__(self):
        super().__init__(0.3)
        self.shown = {"generator": [], "discriminators": []}

    def generator_terms(self, batch, prediction, discriminators):
        self.shown["generator"].append(prediction.numpy())
        return super().generator_terms(batch, prediction, discriminators)

    def discriminator_terms(self, batch, prediction, discriminators):
        self.shown["discriminators"].append(prediction.numpy())
        return super().discriminator_terms(batch, prediction, discriminators)


def test_both_sides_see_the_same_fakes_and_every_part_counts_once():
    """Although the generator, which drops at random and keeps statistics, runs twice a part."""
    trainer = make_trainer(objective=Watching(), gradient_accumulation=2)
    alone = make_trainer().generator
    batch = large_batch_at(0)
    expected = [
        alone([batch["image"][start : start + 2], batch["hole"][start : start + 2]], training=True)
        for start in (0, 2)
    ]
    trainer.train_step(batch)
    for shown in trainer.objective.shown.values():
        for one, two in zip(shown, expected, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-6)
    trained = {variable.path for variable in alone.trainable_variables}
    others = [
        (ours.numpy(), theirs.numpy())
        for ours, theirs in zip(trainer.generator.variables, alone.variables, strict=True)
        if theirs.path not in trained
    ]
    assert len(others) == 3  # two statistics and the state of a random generator
    for ours, theirs in others:
        np.testing.assert_array_equal(ours, theirs)


def test_a_part_waits_until_the_one_before_it_is_done(compiled):
    """Otherwise their memory adds up."""
    events = []

    class Telling(TinyObjective):
        def generator_terms(self, batch, prediction, discriminators):
            @tf.custom_gradient
            def tell(x):
                def backward(gradient):
                    return tf.numpy_function(
                        lambda g: (events.append("backward"), g)[1], [gradient], tf.float32
                    )

                told = tf.numpy_function(
                    lambda x: (events.append("forward"), x)[1], [x], tf.float32
                )
                return tf.ensure_shape(told, x.shape), backward

            return super().generator_terms(batch, tell(prediction), discriminators)

    trainer = make_trainer(adversarial=False, objective=Telling(), gradient_accumulation=4)
    trainer.update(large_batch_at(0, 8))
    assert events == ["forward", "backward"] * 4


def test_a_batch_that_cannot_be_split_is_an_error():
    trainer = make_trainer(gradient_accumulation=3)
    with pytest.raises(ValueError, match="must divide the batch of 4, got 3"):
        trainer.update(large_batch_at(0))


def test_a_variable_without_gradient_is_an_error_that_names_it():
    class Detached(TinyObjective):
        def generator_terms(self, batch, prediction, discriminators):
            return super().generator_terms(batch, tf.stop_gradient(prediction), discriminators)

    trainer = make_trainer(adversarial=False, objective=Detached())
    with pytest.raises(ValueError, match=r"no gradient reaches 6 of 6 .*conv2d.*/kernel"):
        trainer.update(batch_at(0))


def test_gradients_are_clipped_to_the_global_norm():
    clipped = make_trainer(adversarial=False, clip_norm=1e-10)
    before = values(clipped)["generator"]
    clipped.update(batch_at(0))
    free = make_trainer(adversarial=False)
    free.update(batch_at(0))
    moved = [
        max(
            np.abs(v.numpy() - old).max()
            for v, old in zip(t.generator.trainable_variables, before, strict=False)
            if v.shape == old.shape
        )
        for t in (clipped, free)
    ]
    # Adam divides by |gradient| + 1e-8: below that the step shrinks with the gradient.
    assert moved[0] < 0.05 * moved[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns_with_float32_losses_and_weights(precision, compiled):
    trainer = make_trainer(precision, learning_rate=2e-3)
    first = trainer.update(batch_at(0))
    for _ in range(15):
        last = trainer.update(batch_at(0))
    assert last["l1"] < first["l1"]
    assert {v.dtype for v in trainer.generator_variables} == {"float32"}
    scaled = isinstance(trainer.discriminator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "mixed_float16")
    expected = {"learning_rate"}
    if scaled:
        expected |= {"generator_adam_loss_scale", "discriminator_adam_loss_scale"}
    assert set(trainer.scales()) == expected


def test_a_step_skipped_by_the_loss_scale_is_no_error():
    trainer = make_trainer("mixed_float16")
    trainer.generator_optimizer.dynamic_scale.assign(2.0**60)
    before = [v.numpy().copy() for v in trainer.generator_variables]
    trainer.update(batch_at(0))
    for variable, old in zip(trainer.generator_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert float(trainer.generator_optimizer.dynamic_scale) == 2.0**59
    assert float(trainer.discriminator_optimizer.dynamic_scale) == 2.0**15
    assert int(trainer.step) == 1
    assert int(trainer.generator_optimizer.iterations) == 0
    trainer.check_weights()


def test_gradients_that_stay_infinite_stop_the_run():
    trainer = make_trainer("mixed_float16")
    trainer.discriminator_optimizer.dynamic_scale.assign(2.0**-11)
    with pytest.raises(NonFiniteError, match=r"discriminator_adam_loss_scale fell to .* at step 1"):
        trainer.update(batch_at(0))


def test_the_average_follows_its_formula_and_is_what_inference_uses():
    trainer = make_trainer(adversarial=False, ema=0.5)
    expected = [v.numpy().astype(np.float64) for v in trainer.generator_variables]
    for step in range(4):
        trainer.update(batch_at(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [
            decay * average + (1 - decay) * variable.numpy()
            for average, variable in zip(expected, trainer.generator_variables, strict=True)
        ]
    raw = [v.numpy().copy() for v in trainer.generator_variables]
    with trainer.inference_weights():
        for variable, average in zip(trainer.generator_variables, expected, strict=True):
            np.testing.assert_allclose(variable.numpy(), average, rtol=1e-5, atol=1e-7)
    for variable, value in zip(trainer.generator_variables, raw, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_saved_generator_holds_the_average(tmp_path):
    trainer = make_trainer(adversarial=False, ema=0.9)
    trainer.update(batch_at(0))
    trainer.save_generator(tmp_path / "generator.keras")
    saved = keras.models.load_model(tmp_path / "generator.keras")
    trained = [v.numpy() for v in saved.trainable_variables]
    for value, average in zip(trained, trainer.averages, strict=True):
        np.testing.assert_array_equal(value, average.numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["generator.keras"]


def test_learning_rate_is_a_function_of_the_step():
    constant = learning_rate_schedule("constant", 0.1, 100)
    assert constant == 0.1
    warm = learning_rate_schedule("constant", 0.1, 100, warmup_steps=10)
    np.testing.assert_allclose([float(warm(s)) for s in (0, 4, 9, 50)], [0.01, 0.05, 0.1, 0.1])
    cosine = learning_rate_schedule("cosine", 0.1, 100)
    np.testing.assert_allclose(
        [float(cosine(s)) for s in (0, 50, 100)], [0.1, 0.05, 0.0], atol=1e-8
    )
    both = learning_rate_schedule("cosine", 0.1, 110, warmup_steps=10)
    np.testing.assert_allclose(
        [float(both(s)) for s in (5, 10, 60, 110)], [0.05, 0.1, 0.05, 0.0], atol=1e-8
    )
    with pytest.raises(ValueError, match="constant, cosine"):
        learning_rate_schedule("linear", 0.1, 100)
    trainer = make_trainer(learning_rate=cosine)
    trainer.step.assign(50)
    trainer.update(batch_at(0))
    assert trainer.scales()["learning_rate"] == pytest.approx(0.05)
    assert float(trainer.discriminator_optimizer.learning_rate) == pytest.approx(0.05)


# --- things that go wrong ---------------------------------------------------------------------


class PoisonedAtStepThree(TinyObjective):
    def generator_terms(self, batch, prediction, discriminators):
        terms = super().generator_terms(batch, prediction, discriminators)
        return {**terms, "tv": tf.where(batch["image"][0, 0, 0, 0] > 5.0, np.nan, 0.0) + 0.0}


def test_a_non_finite_term_stops_with_its_name_and_keeps_the_last_checkpoint(tmp_path):
    objective = PoisonedAtStepThree()
    objective.generator_weights["tv"] = 1.0
    trainer = make_trainer(adversarial=False, objective=objective)
    poisoned = batch_at(2)
    poisoned["image"] = tf.fill(poisoned["image"].shape, 9.0)
    saver = Saver(lambda step: save(trainer, tmp_path), every=1)
    with pytest.raises(NonFiniteError, match="'tv' is nan at step 3"):
        trainer.run([batch_at(0), batch_at(1), poisoned], 6, 3, [saver])
    found, torn = checkpoints.newest(tmp_path)
    assert (found.step, torn) == (2, [])
    with pytest.raises(ValueError, match="ended at step 1 of 3"):
        make_trainer(adversarial=False).run([batch_at(0)], 3, 3)


def test_a_non_finite_weight_is_found_before_it_is_saved():
    trainer = make_trainer()
    trainer.check_weights()
    trainer.discriminator_variables["patch"][0].assign(
        np.full(trainer.discriminator_variables["patch"][0].shape, np.inf)
    )
    with pytest.raises(NonFiniteError, match="discriminator_patch weight"):
        trainer.check_weights()
