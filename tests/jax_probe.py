"""Trains given steps under Keras' JAX backend, for a test that runs under TensorFlow.

    KERAS_BACKEND=jax python -m tests.jax_probe OUTPUT.npz

Weights, batches and settings depend on the case alone, so that a process of the other backend makes
the same ones. The rate is low: at a higher one the rounding of the two backends moves a value
across a kink of the loss, and the runs then separate.
"""

import sys

import keras
import numpy as np

from musical_tf import methods
from musical_tf.methods.base import Objective
from training import recipes

SIZE, BATCH, STEPS = 64, 2, 20
SCHEDULES = {
    "cosine": ("schedule=cosine", "warmup_steps=5", "ema=0.9", "gradient_clip=0.05"),
    "constant": ("schedule=constant", "warmup_steps=7", "ema=0.5", "gradient_clip=0"),
}
CASES = [(network, schedule) for network in ("convolution", "musical") for schedule in SCHEDULES]


class FaintObjective(Objective):
    """A squared error whose gradients are as small as Adam's epsilon."""

    def __init__(self):
        super().__init__({"l2": 1e-7})

    def generator_terms(self, batch, prediction, discriminators):
        del discriminators
        return {"l2": keras.ops.mean(keras.ops.square(batch["image"] - prediction))}


def recipe_of(schedule: str) -> recipes.Recipe:
    """The recipe of a short run of MUSICAL's preset `lite`, narrow."""
    narrow = ("width=4", "inner_levels=1", "learning_rate=0.0001")
    return recipes.resolve(
        "demo",
        preset="lite",
        image_size=SIZE,
        batch_size=BATCH,
        steps=STEPS,
        settings=[*narrow, *SCHEDULES[schedule]],
    )


def networks_of(network: str, recipe: recipes.Recipe):
    """The generator, its weights always the same ones, and the objective."""
    if network == "convolution":
        image, hole = keras.Input((SIZE, SIZE, 3)), keras.Input((SIZE, SIZE, 1))
        known = keras.layers.Concatenate()([image * (1.0 - hole), hole])
        convolution = keras.layers.Conv2D(3, 3, padding="same", name="only")
        generator, objective = keras.Model([image, hole], convolution(known)), FaintObjective()
    else:
        module, config = methods.get("musical"), recipe.method_config()
        generator, objective = module.build_generator(config), module.build_objective(config)
    random = np.random.default_rng(0)
    for variable in generator.trainable_variables:
        center = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(center + random.normal(0, 0.1, variable.shape))
    return generator, objective


def batches():
    """As many batches as there are steps; every sample has its own hole."""
    random = np.random.default_rng(1)
    for step in range(STEPS):
        image = random.uniform(-1, 1, (BATCH, SIZE, SIZE, 3)).astype("float32")
        hole = np.zeros((BATCH, SIZE, SIZE, 1), "float32")
        for sample in range(BATCH):
            hole[sample, 4 + sample : 12 + step // 2, 6:20] = 1
        yield {"image": image, "hole": hole}


def train(network: str, schedule: str) -> dict[str, list[np.ndarray]]:
    """The weights and their averages after the last step, and the loss of each step."""
    from training import optimization
    from training.jax_step import JaxStep

    recipe = recipe_of(schedule)
    step = JaxStep(recipe, *networks_of(network, recipe))
    rate = optimization.learning_rate_schedule(
        recipe.schedule, recipe.learning_rate, STEPS, recipe.warmup_steps
    )
    state, losses = step.start(), []
    for number, batch in enumerate(batches()):
        state, terms = step.compiled(state, batch, np.int32(number), rate(number))
        losses.append(float(terms["total"]))
    return {"weights": state["weights"], "averages": state["averages"], "losses": losses}


def main() -> None:
    """The command line: the results of every case in one file."""
    (output,) = sys.argv[1:]
    results = {
        f"{network} {schedule} {name} {index:03d}": value
        for network, schedule in CASES
        for name, values in train(network, schedule).items()
        for index, value in enumerate(values)
    }
    np.savez(output, **results)


if __name__ == "__main__":
    main()
