"""The presets' recipes: what a run trains with, unless a flag says otherwise."""

from typing import Any


def paper() -> dict[str, Any]:
    """The paper's training (section 4.1; what it leaves open as in the authors' code).

    Command: `python -m training.fit --dataset celeba --data-dir DIR`
    (or `paris_streetview`, `places_canyon`).
    Hours: not yet measured.
    Expected, the paper's own figures: `training.evaluation.published`. Ours: not yet measured.
    """
    return {
        "image_size": 256,
        "mask": "center",
        "batch_size": 5,
        "epochs": 70,
        "steps": None,
        "precision": "float32",
        "seed": 0,
        "learning_rate": 2e-4,
        "beta_1": 0.5,
        "beta_2": 0.999,
        "schedule": "constant",
        "warmup_steps": 0,
        "ema": 0.0,
        "gradient_clip": 0.0,
        "checkpoint_every": 1000,
        "sample_every": 0,
        "workers": 0,
    }


def official() -> dict[str, Any]:
    """The authors' code: trained as the paper says, the objective and the attention differ.

    Command: `python -m training.fit --dataset celeba --data-dir DIR --preset official`
    Hours: not yet measured. Expected: not yet measured.
    """
    return paper()


def lite() -> dict[str, Any]:
    """Small enough for two CPU cores and for a browser; not in the paper.

    128 pixels, batches of 16, the rate decayed to 0 and the weights averaged: a short run gains
    more from these than from the constant rate of a long one. No adversarial term unless asked for
    (`--set lambda_adversarial=0.3`): DenseNet121 costs several times the generator.

    Command: `python -m training.fit --dataset celeba --data-dir DIR --preset lite`
    Hours: not yet measured. Expected: not yet measured. Measured with `--steps 4000 --precision
    mixed_bfloat16` on 8,500 half-size faces: 57 minutes on two busy cores, 26.06 dB / 0.8953 /
    1.888 % at 128 pixels (`results/celeba_128.json`).
    """
    return paper() | {
        "image_size": 128,
        "batch_size": 16,
        "epochs": 12,
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "warmup_steps": 100,
        "ema": 0.999,
    }


def demo() -> dict[str, Any]:
    """A few minutes on two CPU cores over a dozen embedded photographs: shows the whole chain.

    It changes `lite`, whose generator it trains; MUSICAL begins with a membrane over the hole,
    which so few steps need most. Small photographs, two a step, and a high rate gave more than
    larger or more of them in the same time.

    Command: `python -m training.fit --dataset demo`
    Hours: 0.06 (two cores of an AMD EPYC). Expected: 22.7 dB in the hole (protocol `hole`) on the
    three photographs held out.
    """
    return {
        "image_size": 96,
        "mask": "irregular",
        "batch_size": 2,
        "epochs": None,
        "steps": 600,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "ema": 0.99,
        "checkpoint_every": 300,
        "sample_every": 300,
    }


PRESETS = {"paper": paper, "official": official, "lite": lite}
"""Recipe of each preset; a preset that is not here trains as `paper`. A method's module may change
any value of it in its `RECIPE`, preset -> key -> value."""
