"""A trainer whose networks are small enough to see through, and batches for it."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from musical_tf.methods.base import Objective
from training import checkpoints
from training.optimization import dtype_policy
from training.trainer import Trainer

SIZE = 16


class TinyObjective(Objective):
    """L1 on the prediction, and a non-saturating adversarial term when there is a discriminator."""

    def __init__(self, adversarial: float = 0.0):
        super().__init__({"l1": 10.0, "adversarial": adversarial})

    def generator_terms(self, batch, prediction, discriminators):
        terms = {"l1": tf.reduce_mean(tf.abs(batch["image"] - prediction))}
        if discriminators:
            logits = discriminators["patch"](prediction, training=True)
            terms["adversarial"] = tf.reduce_mean(tf.nn.softplus(-logits))
        return terms

    def discriminator_terms(self, batch, prediction, discriminators):
        real = discriminators["patch"](batch["image"], training=True)
        fake = discriminators["patch"](prediction, training=True)
        return {
            "real": tf.reduce_mean(tf.nn.softplus(-real)),
            "fake": tf.reduce_mean(tf.nn.softplus(fake)),
        }


class InTurns(TinyObjective):
    """Step 0: the generator alone, on l1 alone; step 1: the discriminator alone; then both."""

    def phase(self, step):
        return {"generator": step != 1, "discriminators": step > 0}

    def phase_weights(self, step):
        return {"l1": 10.0, "adversarial": tf.where(step > 1, 0.3, 0.0)}


def tiny_generator() -> keras.Model:
    image = keras.Input((None, None, 3))
    hole = keras.Input((None, None, 1))
    x = keras.layers.Concatenate()([image, hole])
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    # A random layer: its generator's state is part of what a resumed run needs.
    x = keras.layers.Dropout(0.1, seed=5)(x)
    x = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", dtype="float32")(x)
    return keras.Model([image, hole], x)


def tiny_discriminator() -> keras.Model:
    image = keras.Input((None, None, 3))
    x = keras.layers.SpectralNormalization(keras.layers.Conv2D(4, 3, strides=2))(image)
    x = keras.layers.LeakyReLU(0.2)(x)
    return keras.Model(image, keras.layers.Conv2D(1, 3, dtype="float32")(x))


def make_trainer(precision="float32", adversarial=True, seed=3, **options) -> Trainer:
    keras.utils.set_random_seed(seed)
    with dtype_policy(precision):
        generator = tiny_generator()
        discriminators = {"patch": tiny_discriminator()} if adversarial else {}
    return Trainer(
        generator,
        options.pop("objective", None) or TinyObjective(0.3 if adversarial else 0.0),
        discriminators,
        learning_rate=options.pop("learning_rate", 1e-2),
        precision=precision,
        **options,
    )


def batch_at(step: int) -> dict[str, tf.Tensor]:
    random = np.random.default_rng([7, step])
    image = random.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    hole = np.zeros((2, SIZE, SIZE, 1), np.float32)
    hole[:, 4:10, 5:12] = 1.0
    return {"image": tf.constant(image), "hole": tf.constant(hole)}


RECIPE = {"method": "tiny", "seed": 3, "steps": 6, "config": {"width": 6, "scales": [1, 3]}}


def save(trainer: Trainer, folder: Path, recipe=RECIPE, **options) -> Path:
    return checkpoints.save(
        folder, trainer.state(), step=int(trainer.step), epoch=0, recipe=recipe, **options
    )


def values(trainer: Trainer) -> dict[str, list[np.ndarray]]:
    return {
        name: [variable.numpy().copy() for variable in variables]
        for name, variables in trainer.state().items()
    }


def assert_same(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        for index, (one, two) in enumerate(zip(first[name], second[name], strict=True)):
            np.testing.assert_array_equal(one, two, err_msg=f"{name}[{index}]")
