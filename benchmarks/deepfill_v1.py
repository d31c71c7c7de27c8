"""Measures DeepFill v1's attention, and a training step of its `lite` preset.

    python -m benchmarks.deepfill_v1 [--rounds 5]

1. The attention at the size of the `paper` generator, a map of 64 x 64 x 128 with a center hole of
   half its side, batch 4: on the shared Gram matrix against the authors' form, convolutions with
   patches as filters, image by image; forward, and forward and backward.
2. A training step at 128 x 128 pixels, batch 16, center hole: `lite` with its five critic steps,
   and without critics, against MUSICAL's `lite`.

All in turns in one process. Writes `results/deepfill_v1.json`.
"""

import argparse
import functools
import sys
from typing import Any

import numpy as np

from benchmarks import measure, models
from benchmarks.attention import FORMS, compiled, gradient_of, timed
from benchmarks.training_step import Case, batch_of, trainer_of


def attention_times(rounds: int, batch: int = 4, side: int = 64, channels: int = 128) -> dict:
    """Seconds of both forms, forward, and forward and backward."""
    from musical_tf.layers import StridedContextualAttention

    random = np.random.default_rng(0)
    # ReLU comes before the attention, so no feature is negative.
    features = random.normal(0.0, 0.1, (batch, side, side, channels)).astype("float32").clip(0)
    arrays = (features, models.center_hole(side, batch))
    layers = {form: StridedContextualAttention(implementation=form) for form in FORMS}
    return {
        kind: timed({form: compiled(of(layer), arrays) for form, layer in layers.items()}, rounds)
        for kind, of in {
            "forward": lambda layer: lambda features, hole: layer(features, hole),
            "forward and backward": gradient_of,
        }.items()
    }


def step_times(rounds: int, size: int = 128, batch: int = 16) -> dict:
    """Seconds of a training step, on random photographs."""
    data, without = batch_of(size, batch), {"lambda_adversarial": 0.0}
    calls = {}
    for name, method, fields in (
        ("MUSICAL lite", "musical", without),
        ("DeepFill lite", "deepfill_v1", {}),
        ("DeepFill lite without critics", "deepfill_v1", without),
    ):
        trainer = trainer_of(
            Case(method, "lite", size, batch, fields), "float32", learning_rate=1e-4
        )
        calls[name] = functools.partial(trainer.update, data)
    return measure.take_turns(calls, rounds)


def ratios(measured: dict[str, Any]) -> dict[str, float]:
    """Name -> ratio of medians."""
    said = {
        f"attention, {kind}: convolutions / shared Gram matrix": measure.ratio(
            seconds, "reference", "fast"
        )
        for kind, seconds in measured["attention"].items()
    }
    for name in ("DeepFill lite", "DeepFill lite without critics"):
        ratio = measure.ratio(measured["step"], name, "MUSICAL lite")
        said[f"training step: {name} / MUSICAL lite"] = ratio
    return said


@measure.command(rounds=5)
def main(options: argparse.Namespace) -> None:
    measured = {"attention": attention_times(options.rounds), "step": step_times(options.rounds)}
    figures = {"times": measured, "ratios": ratios(measured)}
    measure.publish("deepfill_v1", options.command, figures)


if __name__ == "__main__":
    sys.exit(main())
