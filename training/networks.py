"""The networks of a recipe, the weights that they start from, and their trainer."""

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import distribution
from .data.photographs import Photographs
from .distribution import Distribution
from .recipes import Recipe

if TYPE_CHECKING:
    import keras

    from musical_tf.methods.base import Objective

    from .trainer import Trainer


@dataclass(frozen=True)
class Networks:
    """What a recipe trains, and against what."""

    generator: "keras.Model"
    discriminators: dict[str, "keras.Model"]
    objective: "Objective"


def build(recipe: Recipe, initial: bool, placement: Distribution | None = None) -> Networks:
    """Builds the networks from the recipe's seed, in its precision.

    `initial` says whether training starts from these weights. Otherwise a checkpoint is restored or
    only shapes are asked for, and no pre-trained ones are read.
    """
    import keras

    from musical_tf import methods

    from .optimization import dtype_policy

    module = methods.get(recipe.method)
    config = recipe.method_config()
    starting = config
    if not initial and hasattr(config, "discriminator_weights"):
        starting = dataclasses.replace(config, discriminator_weights="random")
    keras.utils.set_random_seed(recipe.seed)
    strategy = placement.strategy if placement else None
    with distribution.scope(strategy), dtype_policy(recipe.precision):
        networks = Networks(
            module.build_generator(config, dtype=recipe.precision),
            module.build_discriminators(starting, recipe.image_size),
            module.build_objective(config),
        )
    if initial and recipe.init is not None:
        start_from(networks.generator, recipe.init)
    return networks


def start_from(generator: "keras.Model", init: str) -> None:
    """Copies trained weights into a generator.

    `init` is the `.keras` file, run folder or name of a generator with the same weights, or of a
    MUSICAL without the attention that `generator` has; the attention then starts as identity.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is no generator, or does not fit; says which flags would make it fit.
    """
    from musical_tf import methods

    trained = methods.load(init)
    wanted, found = ([weight.shape for weight in model.weights] for model in (generator, trained))
    if trained.method == generator.method:
        if wanted == found:
            generator.set_weights(trained.get_weights())
            return
        if hasattr(generator, "start_without_attention"):
            with contextlib.suppress(ValueError):
                generator.start_without_attention(trained)
                return
    raise ValueError(
        f"--init {init} is a {trained.method} of preset {trained.preset} with "
        f"{trained.count_params():,} parameters, which does not fit this {generator.method} of "
        f"preset {generator.preset} with {generator.count_params():,}; it fits "
        f"{_flags_of(trained)}; only a musical's attention may be missing from where it starts"
    )


def _flags_of(trained: "keras.Model") -> str:
    """The flags that build a generator of the same weights, as somebody would write them."""
    from musical_tf import methods

    config = trained.config
    preset = methods.get(trained.method).Config.from_preset(config.preset)
    flags = f"--method {trained.method} --preset {config.preset}"
    changed = [
        f"{field.name}={_written(getattr(config, field.name))}"
        for field in dataclasses.fields(config)
        # Weights of losses are no part of the network.
        if getattr(config, field.name) != getattr(preset, field.name)
        and not field.name.startswith("lambda_")
    ]
    return flags + (f" --set {' '.join(changed)}" if changed else "")


def _written(value: Any) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def make_trainer(
    recipe: Recipe, networks: Networks, steps: int, placement: Distribution | None = None
) -> "Trainer":
    """Returns the trainer of a recipe that runs for `steps` steps in all."""
    from .optimization import learning_rate_schedule
    from .trainer import Trainer

    return Trainer(
        networks.generator,
        networks.objective,
        networks.discriminators,
        learning_rate=learning_rate_schedule(
            recipe.schedule, recipe.learning_rate, steps, recipe.warmup_steps
        ),
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        ema=recipe.ema,
        clip_norm=recipe.gradient_clip,
        precision=recipe.precision,
        gradient_accumulation=recipe.gradient_accumulation,
        placement=placement,
    )


def describe(recipe: Recipe, networks: Networks, photographs: Photographs, steps: int) -> str:
    """Returns what `--dry-run` prints: the recipe as JSON, then shapes, sizes and length."""
    side, count = recipe.image_size, recipe.batch_size
    lines = [
        recipe.to_json(),
        f"input   image ({count}, {side}, {side}, 3) float32 in [-1, 1], "
        f"hole ({count}, {side}, {side}, 1) float32, 1 = missing",
        f"output  ({count}, {side}, {side}, 3) float32 in [-1, 1]",
    ]
    for name, model in {"generator": networks.generator, **networks.discriminators}.items():
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        lines.append(f"{name}  {model.count_params():,} parameters, {trainable:,} trainable")
    terms = [f"{weight:g} {name}" for name, weight in networks.objective.generator_weights.items()]
    lines += [
        f"loss  {' + '.join(terms)}",
        photographs.describe(),
        f"steps  {steps:,}, {steps * count / len(photographs):.4g} epochs",
    ]
    return "\n".join(lines)
