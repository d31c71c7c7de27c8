"""Trains a generator on one GPU under Keras's JAX backend, wholly on the GPU.

    KERAS_BACKEND=jax python -m training.fit_jax --dataset folder --data-dir DIR --preset lite \\
        --run-dir DIR

Flags and recipe are those of `training.fit`, and so are the layers, the objective and the optimizer
(`optimization.py`); TensorFlow is not needed. Photographs and a store of holes lie in the GPU's
memory, crops, zooms, flips, colours and holes are drawn there, and `STEPS_A_CALL` steps are one
call: the GPU never waits for the machine around it. For MUSICAL without its adversarial term, and
photographs that fit.

The run's folder holds `recipe.json`, `log.jsonl`, `time.json`, `photographs.json` and
`generator.keras`, which TensorFlow loads. There are no checkpoints: a run cannot be resumed, but
every `--save-every` seconds the weights are written anew.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.files import whole_file, write_whole

from . import fit
from .recipes import Recipe

PROGRAM = "python -m training.fit_jax"

STEPS_A_CALL = 20
"""Steps of one compiled call; a run is a whole number of calls."""

LONGEST = 1.5
"""A photograph longer than this times its shorter side is cut off at both ends."""

HOLES = 16384
"""Holes that are drawn beforehand. Each is eight, turned and flipped."""

OVERHEAD = 0.02
"""Share of `--seconds` kept for writing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 (training failed), 2 (wrong input) or 130 (interrupted).

    Args:
        argv: Arguments; those of the process by default.
    """
    started = time.monotonic()
    arguments = _parser().parse_args(argv)
    try:
        recipe = _recipe(arguments)
        _require_jax()
        with contextlib.ExitStack() as open_files:
            train(recipe, arguments, started, open_files)
    except ModuleNotFoundError as error:
        return _fail(f"{error}: pip install 'jax[cuda13]', or jax for a processor", 1)
    except ArithmeticError as error:
        return _fail(error, 1)
    except (MemoryError, RuntimeError) as error:  # JAX's own errors are RuntimeErrors
        return _fail(str(error).partition("\n")[0] or "out of memory", 1)
    except (OSError, ValueError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail(f"interrupted; {arguments.run_dir} has the weights last written, if any", 130)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = fit.make_parser()
    parser.prog = PROGRAM
    parser.description = "Train a generator on one GPU under JAX; the run cannot be resumed."
    lent = parser.add_argument_group("time")
    lent.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="instead of --steps: as many as end this long after the start",
    )
    lent.add_argument(
        "--save-every",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds between writing weights (default: %(default)g)",
    )
    return parser


def _fail(message: object, code: int) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code


def _require_jax() -> None:
    import keras  # with KERAS_BACKEND=jax it imports jax itself

    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(f"Keras's backend must be jax, got {backend}: set KERAS_BACKEND=jax")


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe asked for.

    Raises:
        ValueError: If it asks for what there is not here.
    """
    if arguments.resume or arguments.run_dir is None:
        raise ValueError("--run-dir must name a new folder; a run cannot be resumed")
    folder = Path(arguments.run_dir)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"--run-dir must name a new folder; {folder} is not empty, or a file")
    if arguments.dry_run or arguments.strategy != "none" or arguments.max_minutes is not None:
        raise ValueError("--dry-run, --strategy and --max-minutes are for training.fit only")
    if arguments.seconds is not None:
        if not 0 < arguments.seconds < float("inf"):
            raise ValueError(f"--seconds must be above 0, got {arguments.seconds}")
        if arguments.steps is not None or arguments.epochs is not None:
            raise ValueError("--seconds takes the place of --steps and --epochs")
        arguments.steps = STEPS_A_CALL  # until it is known how long they take
    recipe = fit.resolved(arguments)
    if recipe.method != "musical":
        raise ValueError(f"only musical is trained here, got {recipe.method}: use training.fit")
    config = recipe.method_config()
    if config.lambda_adversarial * config.adversarial_factor:
        raise ValueError(
            "the adversarial term is for training.fit only: --preset lite or "
            "--set lambda_adversarial=0 is without it"
        )
    recipe.open_photographs("train")  # before the seconds that building takes
    if recipe.gradient_accumulation != 1:
        raise ValueError("gradient_accumulation is for training.fit only")
    if recipe.precision == "mixed_float16":
        raise ValueError("precision must be float32 or mixed_bfloat16, got mixed_float16")
    return recipe


def train(
    recipe: Recipe,
    arguments: argparse.Namespace,
    started: float,
    open_files: contextlib.ExitStack,
) -> None:
    """Trains and writes the run's folder.

    Args:
        recipe: What to train; its number of steps is replaced where `arguments.seconds` is given.
        arguments: `run_dir`, `seconds`, `save_every`.
        started: `time.monotonic()` when the program began; `seconds` counts from there.
        open_files: Takes the lock of the run's folder.

    Raises:
        ArithmeticError: If a loss is not finite; the weights last written stay.
        ValueError: If a photograph cannot be used.
    """
    import jax

    generator, objective = _build(recipe)
    store = Store.read(recipe)
    print(
        f"{store.describe()} on {jax.devices()[0].device_kind} after "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    trainer = _Trainer(recipe, generator, objective)
    state, key = trainer.start(), jax.random.key(recipe.seed)
    arrays = {name: jax.device_put(value) for name, value in store.arrays.items()}
    total = _whole_calls(recipe.total_steps(len(store.arrays["sizes"])))
    rates = trainer.rates(total)[:STEPS_A_CALL]
    # The first call compiles, the second says how long one takes; what they give is dropped.
    for _ in range(2):
        before = time.monotonic()
        jax.block_until_ready(trainer.call(state, arrays, key, np.int32(0), rates))
        a_call = time.monotonic() - before
    print(f"{1000 * a_call / STEPS_A_CALL:.1f} ms a step of {recipe.batch_size}", flush=True)
    if arguments.seconds is not None:
        left = arguments.seconds * (1.0 - OVERHEAD) - (time.monotonic() - started)
        total = STEPS_A_CALL * max(1, int(left / a_call))
    rates = trainer.rates(total)

    recipe = dataclasses.replace(recipe, steps=total, epochs=None)
    folder = fit.open_run_dir(arguments.run_dir, recipe, False, open_files)
    photographs = {"photographs": store.fingerprint}
    write_whole(folder / "photographs.json", json.dumps(photographs) + "\n")
    lines, begun, cpu = [], time.monotonic(), time.process_time()
    saved = begun
    for step in range(STEPS_A_CALL, total + 1, STEPS_A_CALL):
        first = step - STEPS_A_CALL
        state, terms = trainer.call(state, arrays, key, np.int32(first), rates[first:step])
        terms = {name: float(value) for name, value in terms.items()}
        if not all(map(np.isfinite, terms.values())):
            raise ArithmeticError(f"a loss is not finite at step {step}: {terms}")
        lines.append(json.dumps({"step": step, **terms}) + "\n")
        if step < total and time.monotonic() - saved < arguments.save_every:
            continue
        saved = time.monotonic()
        trainer.save(state, folder / "generator.keras")
        seconds, cpu_seconds = saved - begun, time.process_time() - cpu
        part = {"from_step": 0, "to_step": step, "seconds": round(seconds, 1)}
        part["cpu_seconds"] = round(cpu_seconds, 1)
        write_whole(folder / "time.json", json.dumps([part], indent=1) + "\n")
        write_whole(folder / "log.jsonl", "".join(lines))
        shown = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        print(f"step {step} of {total}: {shown}", flush=True)
    print(f"done: {total} steps, weights in {folder / 'generator.keras'}", flush=True)


def _whole_calls(steps: int) -> int:
    return -(-steps // STEPS_A_CALL) * STEPS_A_CALL


def _build(recipe: Recipe) -> tuple[Any, Any]:
    """The generator, its weights those it starts from, and the objective."""
    import keras

    from musical_tf import methods

    module, config = methods.get(recipe.method), recipe.method_config()
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(recipe.precision)
    generator = module.build_generator(config, dtype=recipe.precision)
    objective = module.build_objective(config)
    if recipe.init is not None:
        fit.start_from(generator, recipe.init)
    return generator, objective


# ----------------------------------------------------------------------------- what lies on the GPU


@dataclasses.dataclass(frozen=True)
class Store:
    """Photographs and holes.

    Attributes:
        arrays: `photographs` `(N, S, S, 3)` uint8, each in the upper left corner; `sizes` `(N, 2)`
            int32, their heights and widths; `holes` `(HOLES, H * W / 8)` uint8, packed bits.
        fingerprint: As `fit.fingerprint` has it.
    """

    arrays: dict[str, np.ndarray]
    fingerprint: str

    def describe(self) -> str:
        """How much there is."""
        photographs, holes = self.arrays["photographs"], self.arrays["holes"]
        return f"{len(photographs)} photographs and {len(holes)} holes"

    @classmethod
    def read(cls, recipe: Recipe) -> "Store":
        """Decodes all photographs of the recipe, and draws the holes.

        Raises:
            ValueError: If a photograph cannot be used; names it.
        """
        photographs = recipe.open_photographs("train")
        longest = int(LONGEST * photographs.shorter_side)
        pixels = np.zeros((len(photographs), longest, longest, 3), np.uint8)
        sizes = np.zeros((len(photographs), 2), np.int32)

        def read(index: int) -> None:
            image = photographs.load(index)
            top, left = (max(0, side - longest) // 2 for side in image.shape[:2])
            image = image[top : top + longest, left : left + longest]
            sizes[index] = image.shape[:2]
            # Its edge goes on: a zoomed crop at the border interpolates with what lies beyond.
            beyond = [(0, longest - side) for side in image.shape[:2]]
            pixels[index] = np.pad(image, [*beyond, (0, 0)], mode="edge")

        with ThreadPoolExecutor() as pool:
            list(pool.map(read, range(len(photographs))))
        workers = os.cpu_count() or 1
        # JAX runs threads by now, which a fork would not survive.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            counts = [len(range(part, HOLES, workers)) for part in range(workers)]
            holes = np.concatenate(
                list(pool.map(_draw_holes, [recipe] * workers, range(workers), counts))
            )
        arrays = {"photographs": pixels, "sizes": sizes, "holes": holes}
        return cls(arrays, fit.fingerprint(photographs))


def _draw_holes(recipe: Recipe, part: int, count: int) -> np.ndarray:
    source, rng = recipe.open_masks(), np.random.default_rng((recipe.seed, part))
    return np.stack([np.packbits(source.hole(rng)) for _ in range(count)])


# ------------------------------------------------------------------------------------------ samples


def draw_batch(arrays: dict[str, Any], key: Any, recipe: Recipe) -> dict[str, Any]:
    """Draws a batch as `data.pipeline.SampleStream` does, each sample on its own.

    Args:
        arrays: Those of `Store`.
        key: JAX's random key.
        recipe: `batch_size`, `image_size`, `crop`, `flip`, `zoom` and `jitter`.

    Returns:
        `image` `(B, H, W, 3)` float32 in [-1, 1] and `hole` `(B, H, W, 1)` float32, 1 = missing.
    """
    import jax

    def sample(key):
        image_key, hole_key = jax.random.split(key)
        return _draw_image(arrays, image_key, recipe), _draw_hole(arrays, hole_key, recipe)

    image, hole = jax.vmap(sample)(jax.random.split(key, recipe.batch_size))
    return {"image": image, "hole": hole}


def _draw_image(arrays, key, recipe):
    import jax
    from jax import numpy as jnp

    which, place, within, zoom, flip, colours = jax.random.split(key, 6)
    index = jax.random.randint(which, (), 0, len(arrays["photographs"]))
    photograph = arrays["photographs"][index].astype("float32")
    size = recipe.image_size
    room = (arrays["sizes"][index] - size).astype("float32")
    if recipe.crop == "random":
        corner = jnp.floor(jax.random.uniform(place, (2,)) * (room + 1.0))
    else:
        corner = jnp.floor(room / 2.0)
    side = size / (1.0 + jax.random.uniform(zoom, maxval=recipe.zoom or 1e-9))
    corner = corner + jax.random.uniform(within, (2,)) * (size - side)
    scale = jnp.full((2,), size / side)
    image = jax.image.scale_and_translate(
        photograph, (size, size, 3), (0, 1), scale, -corner * scale, "cubic", antialias=False
    )
    image = jnp.clip(image, 0.0, 255.0)
    if recipe.flip:
        image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)
    if recipe.jitter:
        image = _recolour(image, 1.0 + recipe.jitter * jax.random.uniform(colours, (3,), minval=-1))
    return jnp.round(image) / 127.5 - 1.0


def _recolour(image, factors):
    """Brightness, contrast and saturation, one after the other, as Pillow's `ImageEnhance`."""
    from jax import numpy as jnp

    luminance = jnp.array([0.299, 0.587, 0.114])
    image = jnp.clip(image * factors[0], 0.0, 255.0)
    grey = jnp.mean(image @ luminance)
    image = jnp.clip(grey + factors[1] * (image - grey), 0.0, 255.0)
    grey = (image @ luminance)[..., None]
    return jnp.clip(grey + factors[2] * (image - grey), 0.0, 255.0)


def _draw_hole(arrays, key, recipe):
    import jax
    from jax import numpy as jnp

    which, turn, rows, columns = jax.random.split(key, 4)
    index = jax.random.randint(which, (), 0, len(arrays["holes"]))
    bits = jnp.unpackbits(arrays["holes"][index])
    hole = bits.reshape(recipe.image_size, recipe.image_size)
    hole = jnp.where(jax.random.bernoulli(turn), hole.T, hole)
    hole = jnp.where(jax.random.bernoulli(rows), hole[::-1], hole)
    hole = jnp.where(jax.random.bernoulli(columns), hole[:, ::-1], hole)
    return hole[..., None].astype("float32")


# ----------------------------------------------------------------------------------------- training


class _Trainer:
    """The optimizer of `training.trainer` over compiled calls.

    The state is (weights, the optimizer's variables, averaged weights).
    """

    def __init__(self, recipe: Recipe, generator: Any, objective: Any):
        import jax

        from . import optimization

        self.recipe = recipe
        self.generator = generator
        self.objective = objective
        self.frozen = [each.value for each in generator.non_trainable_variables]
        self.optimizer = optimization.adam(
            recipe.learning_rate, recipe.beta_1, recipe.beta_2, recipe.gradient_clip
        )
        self.optimizer.build(generator.trainable_variables)
        self.call: Callable = jax.jit(self._call)
        self.update: Callable = jax.jit(self._update)

    def start(self) -> tuple:
        from jax import numpy as jnp

        weights = [jnp.array(each.value) for each in self.generator.trainable_variables]
        return weights, [jnp.array(each.value) for each in self.optimizer.variables], weights

    def rates(self, total: int) -> Any:
        """The learning rate of each step of a run of `total` steps, `(total,)` float32."""
        import jax
        from jax import numpy as jnp

        from . import optimization

        recipe = self.recipe
        rate = optimization.learning_rate_schedule(
            recipe.schedule, recipe.learning_rate, total, recipe.warmup_steps
        )
        if not callable(rate):
            return jnp.full((total,), rate, "float32")
        return jax.jit(jax.vmap(rate))(jnp.arange(total))

    def save(self, state: tuple, file: Path) -> None:
        """Writes the averaged weights, or the last where none are averaged."""
        weights, _, averaged = state
        kept = averaged if self.recipe.ema else weights
        for variable, value in zip(self.generator.trainable_variables, kept, strict=True):
            variable.assign(value)
        with whole_file(file) as partial:
            self.generator.save(partial)

    def _call(self, state, arrays, key, first, rates):
        """`STEPS_A_CALL` steps from step `first` on, one for each of `rates`."""
        import jax
        from jax import numpy as jnp

        def step(state, numbered):
            number, rate = numbered
            batch = draw_batch(arrays, jax.random.fold_in(key, number), self.recipe)
            return self._update(state, batch, number, rate)

        numbers = first + jnp.arange(STEPS_A_CALL)
        state, terms = jax.lax.scan(step, state, (numbers, rates))
        return state, {name: jnp.mean(values) for name, values in terms.items()}

    def _update(self, state, batch, number, rate):
        """One step on a batch, after `number` finished ones."""
        import jax

        from . import optimization

        weights, slots, averaged = state
        (_, terms), gradients = jax.value_and_grad(self._loss, has_aux=True)(weights, batch)
        learning_rate = self.optimizer.learning_rate
        slots = [
            rate if variable is learning_rate else value
            for variable, value in zip(self.optimizer.variables, slots, strict=True)
        ]
        weights, slots = self.optimizer.stateless_apply(slots, gradients, weights)
        if self.recipe.ema:
            averaged = [
                average + optimization.average_change(average, weight, self.recipe.ema, number)
                for average, weight in zip(averaged, weights, strict=True)
            ]
        return (weights, slots, averaged), terms

    def _loss(self, weights, batch):
        from . import optimization

        inputs = [batch["image"], batch["hole"]]
        prediction, _ = self.generator.stateless_call(weights, self.frozen, inputs, training=True)
        terms = self.objective.generator_terms(batch, prediction, {})
        total = optimization.weighted_sum(terms, self.objective.generator_weights)
        return total, {**terms, "total": total}


if __name__ == "__main__":
    sys.exit(main())
