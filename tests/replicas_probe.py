"""Trains the same steps on one device and on several, in a process whose processor is divided.

    python -m tests.replicas_probe REPLICAS OUTPUT.json

Prints nothing; what the tests compare goes into the file. A process of its own, because TensorFlow
divides the processor only before it starts.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tests import tiny_trainer as tiny
from training import checkpoints, distribution, networks, recipes
from training.optimization import dtype_policy
from training.trainer import Trainer

STEPS = 4
BATCH = 4
MUSICAL = (
    *("width=4", "inner_levels=1", "lambda_adversarial=0", "lambda_hole=6", "ema=0.9"),
    *("lambda_perceptual=0", "lambda_style=0"),
    *("gradient_clip=50", "schedule=constant", "warmup_steps=0"),
)


def batches(count=BATCH, size=tiny.SIZE):
    random = np.random.default_rng(4)
    for _ in range(STEPS):
        image = random.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
        hole = np.zeros((count, size, size, 1), np.float32)
        for index in range(count):  # every sample its own, so that a wrong part shows
            hole[index, 2 + index : 8 + 2 * index, 3 : 9 + index] = 1.0
        yield {"image": tf.constant(image), "hole": tf.constant(hole)}


def tiny_trainer(placement, precision="float32", objective=None, **options):
    keras.utils.set_random_seed(3)
    with distribution.scope(placement.strategy), dtype_policy(precision):
        generator = tiny.tiny_generator()
        for layer in generator.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = options.get("dropout", 0.0)
        networks = generator, {"patch": tiny.tiny_discriminator()}
    options.pop("dropout", None)
    return Trainer(
        networks[0],
        objective or tiny.TinyObjective(0.3),
        networks[1],
        learning_rate=1e-2,
        precision=precision,
        placement=placement,
        **options,
    )


def musical_trainer(placement):
    recipe = recipes.resolve(
        "demo", preset="lite", image_size=64, batch_size=BATCH, steps=STEPS, settings=MUSICAL
    )
    return networks.make_trainer(recipe, networks.build(recipe, True, placement), STEPS, placement)


def train(trainer, size=tiny.SIZE, order=range(BATCH)):
    # One device needs no graph, which takes longer to trace than these steps take.
    tf.config.run_functions_eagerly(trainer.strategy is None)
    logs = [
        trainer.update({name: tf.gather(values, list(order)) for name, values in batch.items()})
        for batch in batches(size=size)
    ]
    weights = [variable.numpy() for variable in trainer.generator_variables]
    return {"logs": logs, "norm": float(sum(np.square(w).sum() for w in weights) ** 0.5)}


CASES = {
    "tiny": {"ema": 0.9, "clip_norm": 0.1},
    "float16": {"precision": "mixed_float16", "objective": tiny.InTurns(0.3)},
    "in parts": {"gradient_accumulation": 2},
}


def components(trainer):
    """Every replica's values of the state, one list a replica."""
    variables = [v for group in trainer.state().values() for v in group]
    per_replica = [getattr(v, "values", (v,)) for v in variables]
    count = max(map(len, per_replica))
    return [[each[min(n, len(each) - 1)].numpy() for each in per_replica] for n in range(count)]


def restored_alike(saved, fresh, folder):
    """Whether `fresh` holds, in every replica, exactly what `saved` had in its checkpoint."""
    path = checkpoints.save(folder, saved.state(), step=STEPS, epoch=0, recipe={})
    checkpoints.restore(checkpoints.open_checkpoint(path), fresh.state())
    wanted = components(saved)[0]
    return [
        all(np.array_equal(one, two) for one, two in zip(wanted, found, strict=True))
        for found in components(fresh)
    ]


def draws(trainer):
    """What each replica's dropout draws, in two steps."""
    image = tf.ones((BATCH, tiny.SIZE, tiny.SIZE, 3))
    layer = next(x for x in trainer.generator.layers if isinstance(x, keras.layers.Dropout))

    @tf.function
    def draw():
        return trainer.strategy.run(lambda: layer(image, training=True))

    results = [trainer.strategy.experimental_local_results(draw()) for _ in range(2)]
    position = np.arange(tiny.SIZE)[:, None]
    return [[float(np.mean(each.numpy() * position)) for each in pair] for pair in results]


def main(replicas: int, output: str) -> None:
    one = distribution.Distribution()
    many = distribution.open_distribution("mirrored", replicas)
    result = {"placement": {**dataclasses.asdict(dataclasses.replace(many, strategy=None))}}
    trainers = {}
    for name, options in CASES.items():
        for label, placement in (("one", one), ("many", many)):
            trainer = trainers[name, label] = tiny_trainer(placement, **options)
            # Part p of a step is every replica's p-th sample; one device takes neighbours.
            parted = label == "one" and "gradient_accumulation" in options
            order = np.arange(BATCH).reshape(replicas, -1).T.ravel() if parted else range(BATCH)
            result[f"{name}_{label}"] = train(trainer, order=order) | {"scales": trainer.scales()}
    for label, placement in (("one", one), ("many", many)):
        result[f"musical_{label}"] = train(musical_trainer(placement), size=64)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("tiny", "float16"):
            options = CASES[name]
            result[f"{name}_one_to_many"] = restored_alike(
                trainers[name, "one"], tiny_trainer(many, **options), Path(folder, name, "a")
            )
            result[f"{name}_many_to_one"] = restored_alike(
                trainers[name, "many"], tiny_trainer(one, **options), Path(folder, name, "b")
            )
    result["draws"] = [draws(tiny_trainer(many, dropout=0.5)) for _ in range(2)]
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
