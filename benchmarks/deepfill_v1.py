"""What DeepFill v1's attention saves, and what a training step of its `lite` preset costs.

    python -m benchmarks.deepfill_v1 [--rounds 5]

1. The attention at the size of the `paper` generator, a map of 64 x 64 x 128 with a centre hole of
   half its side, batch 4: on the shared Gram matrix against the convolutions with patches as
   filters, image by image, which is the authors' form; forward, and forward and backward.
2. A training step at 128 x 128 pixels, batch 16, centre hole: `lite` with its five critic steps,
   and without critics, against MUSICAL's `lite`.

All in turns in one process. Prints the ratios and writes `results/deepfill_v1.json`.
"""

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks import measure, models

MODULE = "benchmarks.deepfill_v1"


def attention_times(rounds: int, batch: int = 4, side: int = 64, channels: int = 128) -> dict:
    """Seconds of both forms, forward, and forward and backward.

    Raises:
        RuntimeError: If the two do not compute the same.
    """
    import tensorflow as tf

    from musical_tf.layers import StridedContextualAttention

    random = np.random.default_rng(0)
    # ReLU comes before the attention, so there is nothing negative.
    features = tf.nn.relu(random.normal(0.0, 0.1, (batch, side, side, channels)).astype("float32"))
    hole = tf.constant(models.centre_hole(side, batch))
    forward, both = {}, {}
    for implementation in ("fast", "reference"):
        layer = StridedContextualAttention(implementation=implementation)

        def step(features, hole, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(features)
                loss = tf.reduce_sum(tf.sin(layer(features, hole)))
            return tape.gradient(loss, features)

        for calls, function in ((forward, layer), (both, step)):
            graph = tf.function(lambda f, h, of=function: of(f, h), autograph=False)
            calls[implementation] = lambda graph=graph: graph(features, hole).numpy()
    for calls in (forward, both):
        measure.check_same(calls["fast"](), calls["reference"]())
    return {
        "forward": measure.take_turns(forward, rounds),
        "forward and backward": measure.take_turns(both, rounds),
    }


def step_times(rounds: int, size: int = 128, batch: int = 16) -> dict:
    """Seconds of a training step, on random photographs."""
    import tensorflow as tf

    from musical_tf import methods
    from training.trainer import Trainer

    image = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    data = {"image": tf.constant(image), "hole": tf.constant(models.centre_hole(size, batch))}

    def step(method, **fields):
        module = methods.get(method)
        config = module.Config.from_preset("lite", **fields)
        trainer = Trainer(
            module.build_generator(config),
            module.build_objective(config),
            module.build_discriminators(config, size),
            learning_rate=1e-4,
        )
        return lambda: trainer.update(data)

    calls = {
        "MUSICAL lite": step("musical", lambda_adversarial=0.0),
        "DeepFill lite": step("deepfill_v1"),
        "DeepFill lite without critics": step("deepfill_v1", lambda_adversarial=0.0),
    }
    return measure.take_turns(calls, rounds)


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """What the measurement says, name -> ratio of medians."""
    said = {}
    for kind, seconds in measured["attention"].items():
        ratio = seconds["reference"]["median"] / seconds["fast"]["median"]
        said[f"attention, {kind}: convolutions / shared Gram matrix"] = ratio
    steps = {name: seconds["median"] for name, seconds in measured["step"].items()}
    musical = steps.pop("MUSICAL lite")
    for name, value in steps.items():
        said[f"training step: {name} / MUSICAL lite"] = value / musical
    return said


def main(argv: list[str] | None = None) -> int:
    return measure.run(measure.parser(MODULE, __doc__, rounds=5), argv, work)


def work(options: argparse.Namespace, words: list[str]) -> None:
    measured = {"attention": attention_times(options.rounds), "step": step_times(options.rounds)}
    measure.publish("deepfill_v1", MODULE, words, {"times": measured, "ratios": ratios(measured)})


if __name__ == "__main__":
    sys.exit(main())
