"""Trains a network.

    python -m training.fit --dataset celeba --data-dir DIR
    python -m training.fit --run-dir runs/NAME --resume

A run is a folder: `recipe.json`, `log.csv`, `log.jsonl`, `samples/`, `tensorboard/`,
`checkpoints/`, and `generator.keras`, the weights to use, written anew with every checkpoint.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import shlex
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np

from musical_tf.arguments import Parser
from musical_tf.files import write_whole

from . import distribution, recipes
from .data import datasets, pipeline
from .data.holes import HoleSource, drawn_kinds
from .data.photographs import Photographs
from .distribution import Distribution
from .recipes import Recipe

if TYPE_CHECKING:
    import keras

    from .callbacks import Callback
    from .trainer import Objective, Trainer

PROGRAM = "musical-fit"

LOCK_FILE = ".lock"
"""Held while a process trains in a run folder."""

SKIPPED_FILE = "skipped.txt"
"""Every photograph a run could not use, one a line with the reason, in its run folder."""

SAMPLES = 8
"""Photographs on a sample sheet."""

RECIPE_FLAGS = (
    *("dataset", "data_dir", "method", "preset", "image_size", "batch_size", "epochs", "steps"),
    *("precision", "mask", "seed", "init", "ablation"),
)
"""Flags that are keys of the recipe, under the same name."""

CONFIG_FLAGS = ("feature_weights", "discriminator_weights")
"""Flags that are keys of the method's configuration, under the same name."""


class UsageError(ValueError):
    """The command line asks for something that cannot be; exit code 2."""


class TrainingError(RuntimeError):
    """Training ended before its time; says why and what is left of it. Exit code 1."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line's parser; its help is kept in docs/fit-help.txt."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --dataset NAME [options]\n       {PROGRAM} --run-dir DIR --resume",
        description="Trains an inpainting network on photographs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "Ctrl-C or SIGTERM finishes the step, saves and stops; --resume continues exactly "
            "there.\nExit codes: 0 done, 1 failed while training, 2 wrong usage or input, "
            "130 and 143 stopped by a signal."
        ),
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--dataset", metavar="NAME", help=f"one of {', '.join(sorted(datasets.DATASETS))}"
    )
    what.add_argument(
        "--data-dir", metavar="DIR", help="where its photographs are, in the layout of its source"
    )
    what.add_argument("--method", metavar="NAME", help="default: musical")
    what.add_argument(
        "--preset",
        metavar="NAME",
        help="the method's variant, for musical one of paper, official, lite (default: paper; "
        "lite for the demo)",
    )
    what.add_argument(
        "--ablation",
        metavar="NAME",
        help="leave a part of the method out, for musical one of no_adversarial and single_scale "
        "(the paper's experiments 1 and 2), no_attention, no_se",
    )
    what.add_argument(
        "--init",
        metavar="WEIGHTS",
        help="weights to start from instead of random ones: a .keras file, a run folder, or the "
        "name of a model that is part of the package, faces or photo, which then decides the "
        "defaults of --method, --preset and their options",
    )
    what.add_argument("--image-size", metavar="N", type=int, help="pixels, a multiple of 16")
    what.add_argument(
        "--mask",
        metavar="M",
        help="center, box, irregular, several of them joined by +, or a folder of mask images",
    )

    how = parser.add_argument_group("how to train; the preset's recipe says the defaults")
    how.add_argument(
        "--batch-size", metavar="N", type=int, help="photographs a step, of all devices"
    )
    length = how.add_mutually_exclusive_group()
    length.add_argument("--epochs", metavar="N", type=int, help="passes over the photographs")
    length.add_argument("--steps", metavar="N", type=int, help="instead of --epochs")
    how.add_argument("--precision", metavar="P", help=f"one of {', '.join(recipes.PRECISIONS)}")
    how.add_argument(
        "--force-precision",
        action="store_true",
        help="mixed_float16 even without a GPU: it works, many times slower than float32",
    )
    how.add_argument("--seed", metavar="N", type=int, help="of weights, data order, crops, holes")
    how.add_argument(
        "--feature-weights",
        metavar="W",
        help="VGG16 of the perceptual and style terms: torchvision (embedded), keras (downloaded "
        "by Keras), or a file",
    )
    how.add_argument(
        "--discriminator-weights",
        metavar="W",
        help="what the discriminator starts from: imagenet (downloaded by Keras), random, or a "
        "file",
    )
    how.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="any other keys of the recipe or of the method's configuration; a wrong key lists the "
        "valid ones",
    )

    run = parser.add_argument_group("the run")
    run.add_argument(
        "--run-dir", metavar="DIR", help="where everything goes (default: a new folder in runs/)"
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --run-dir from its newest whole checkpoint; all other flags "
        "may be left out",
    )
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe, shapes and parameter counts; write nothing",
    )
    run.add_argument(
        "--max-minutes", metavar="M", type=float, help="save and stop when this time is up"
    )
    run.add_argument(
        "--checkpoint-every", metavar="N", type=int, help="steps between two checkpoints"
    )
    run.add_argument(
        "--keep", metavar="N", type=int, default=3, help="checkpoints to keep (default: 3)"
    )
    run.add_argument(
        "--log-every", metavar="N", type=int, default=1, help="steps a line of the log (default: 1)"
    )
    run.add_argument(
        "--workers", metavar="N", type=int, help="photographs decoded at the same time"
    )

    where = parser.add_argument_group("where to compute")
    where.add_argument(
        "--strategy",
        metavar="S",
        default="none",
        help="none: one device; mirrored: the GPUs of this machine; multiworker: the machines that "
        "TF_CONFIG names, the same command on each (default: none)",
    )
    where.add_argument(
        "--replicas",
        metavar="N",
        type=int,
        help="how many devices mirrored takes (default: every GPU; without one, the processor as "
        "if it were two)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit code.
    """
    # Only here, and only where the user has not chosen: TensorFlow's start-up lines bury ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    started = time.monotonic()
    try:
        arguments = make_parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        with _as_usage_errors():
            check_dataset(arguments)  # before the seconds TensorFlow takes to start
        with repeatable():
            return fit(arguments, started)
    except UsageError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted before training began, nothing was written", 130)
    except (TrainingError, OSError, ValueError) as error:
        return _fail(error, 1)


def _fail(message: object, code: int) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code


def check_dataset(arguments: argparse.Namespace) -> None:
    """Raises ValueError or FileNotFoundError if a new run's dataset or its folder is missing."""
    if arguments.dataset is None or arguments.resume:
        return
    settings = recipes.parse_settings(arguments.set)
    where = arguments.data_dir or settings.get("data_dir")
    datasets.open_dataset(arguments.dataset, where, "train", image_size=64)


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds a run's folder; the system releases the lock when the process ends, even by a kill.

    Raises:
        UsageError: If another process trains there.
    """
    lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UsageError(
            f"--run-dir must be free, got {folder}, where another process is training; wait for "
            "it to end, or choose another --run-dir"
        ) from error
    except NotImplementedError:
        print(f"{PROGRAM}: warning: {folder} is on a file system without locks", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def fit(arguments: argparse.Namespace, started: float) -> int:
    """Does what the parsed command line says, holding the run's folder; see `_fit`."""
    with contextlib.ExitStack() as open_files:
        return _fit(arguments, started, open_files)


def _fit(arguments: argparse.Namespace, started: float, open_files: contextlib.ExitStack) -> int:
    """Does what the parsed command line says.

    Args:
        arguments: From `make_parser`.
        started: `time.monotonic()` when the program began; `--max-minutes` counts from there.
        open_files: Closed when the run ends; takes the lock of the run's folder.

    Returns:
        The exit code.

    Raises:
        UsageError: If what is asked for cannot be.
        TrainingError: If training fails.
    """
    with _as_usage_errors():
        _check_numbers(arguments)
        cluster = _cluster(arguments)
        stored = _stored_recipe(arguments)
        recipe = continued(stored, arguments) if stored else resolved(arguments)
        check_precision(recipe.precision, arguments.force_precision)
        photographs = recipe.open_photographs("train")
        holes = recipe.open_masks()
        steps = recipe.total_steps(len(photographs))
        if cluster is not None:
            distribution.check_batch_size(recipe.batch_size, cluster.size)
            if cluster.index == 0:
                require_free(Path(arguments.run_dir), bool(stored))
        if arguments.dry_run:
            if cluster is None:
                check_parts(recipe, _open_distribution(arguments, cluster))
            networks = build(recipe, initial=False)
            if recipe.init is not None and not stored:
                start_from(networks.generator, recipe.init)
            print(describe(recipe, networks, photographs, steps))
            return 0
        if stored and (cluster is None or cluster.index == 0):
            open_files.enter_context(run_lock(Path(arguments.run_dir)))
        identity = dataclasses.asdict(recipe) | {"photographs": fingerprint(photographs)}
        checkpoint = find_checkpoint(Path(arguments.run_dir), identity) if stored else None
        if checkpoint is not None and steps < checkpoint.step:
            raise UsageError(
                f"{arguments.run_dir} is at step {checkpoint.step} already, and the run would end "
                f"at step {steps}; --steps or --epochs must ask for no less"
            )

    from . import checkpoints
    from .callbacks import StopAfter, StopOnSignal

    with contextlib.closing(StopOnSignal()) as stopper:
        with _as_usage_errors():
            placement = _open_distribution(arguments, cluster)
            check_parts(recipe, placement)
            placement.require_agreement(_deciding(identity, steps, checkpoint))
            networks = build(recipe, checkpoint is None, placement)
            trainer = make_trainer(recipe, networks, steps, placement)
            if checkpoint is not None:
                checkpoints.restore(checkpoint, trainer.state())
            if placement.processes > 1:
                # Files of the same name need not be the same on every machine.
                placement.require_agreement(_digests(trainer.state()))
            # Last: what could not be built leaves no folder that would stand in the next try's way.
            if placement.is_chief:
                folder = open_run_dir(arguments.run_dir, recipe, bool(stored), open_files)
            else:
                folder = Path(arguments.run_dir)
        run = Run(folder, recipe, identity, photographs, holes, steps)
        hooks = [stopper]
        if placement.is_chief:
            hooks += make_callbacks(trainer, run, arguments.keep, arguments.log_every)
        if arguments.max_minutes is not None:
            left = started + 60.0 * arguments.max_minutes - time.monotonic()
            hooks.append(StopAfter(left))
        if placement.strategy is not None:
            print(placement.describe())
        print(f"{photographs.describe()}\nrun folder {folder}", flush=True)
        done = train(trainer, run, hooks)
        if checkpoint is not None and done == checkpoint.step and placement.is_chief:
            # An earlier process may have ended between a checkpoint and its weights.
            trainer.save_generator(folder / "generator.keras")
        placement.wait()

    if photographs.skipped and placement.is_chief:
        print(f"{photographs.describe()}; all of them in {folder / SKIPPED_FILE}")
        note_skipped(folder / SKIPPED_FILE, photographs.skipped)
    if done < steps:
        again = f"python -m {__package__}.fit --run-dir {shlex.quote(str(folder))} --resume"
        for name in ("strategy", "replicas"):
            value = getattr(arguments, name)
            if value not in ("none", None):
                again += f" --{name} {value}"
        print(f"stopped at step {done} of {steps}; continue with\n  {again}")
    else:
        print(f"done: {steps} steps, weights in {folder / 'generator.keras'}")
    return 128 + stopper.received if stopper.received is not None else 0


def note_skipped(file: Path, skipped: dict[str, str]) -> None:
    """Adds photographs to the list of those that could not be used, one `path: reason` a line.

    What an earlier part of the run could not use stays: this part may not have come to it yet.
    """
    before = file.read_text().splitlines() if file.is_file() else []
    lines = sorted({*before, *(f"{path}: {reason}" for path, reason in skipped.items())})
    write_whole(file, "".join(f"{line}\n" for line in lines))


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Inside the block, a run on processors gives the same bits every time.

    Two things would not, both by the order of a sum's terms, which decides its last bit:
    * a sum of three gradients or more takes them as they become ready, with several operations at
      once. One at a time then, each on all cores; unless TF_NUM_INTEROP_THREADS says otherwise, or
      there is a GPU, where kernels of cuDNN are not repeatable anyway.
    * the graph's arithmetic rewriting orders terms by where the process happens to lie in memory.
    """
    import tensorflow as tf

    if "TF_NUM_INTEROP_THREADS" not in os.environ and not tf.config.list_physical_devices("GPU"):
        # In a larger program TensorFlow may be running already, and cannot be told any more.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_inter_op_parallelism_threads(1)
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    try:
        yield
    finally:
        rewriting = before.get("arithmetic_optimization", True)
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": rewriting})


def _cluster(arguments: argparse.Namespace) -> distribution.Cluster | None:
    """Returns the processes of a multiworker run, None of any other."""
    distribution.check_strategy(arguments.strategy, arguments.replicas)
    if arguments.strategy != "multiworker":
        return None
    cluster = distribution.environment_cluster()
    if arguments.run_dir is None:
        raise UsageError(
            "--strategy multiworker needs --run-dir, a folder that every machine sees under this "
            "name: the first process writes there, and all of them resume from there"
        )
    return cluster


def _open_distribution(
    arguments: argparse.Namespace, cluster: distribution.Cluster | None
) -> Distribution:
    import tensorflow as tf

    if cluster is not None:
        print(
            f"waiting for {', '.join(cluster.addresses)}, this is number {cluster.index}",
            flush=True,
        )
    try:
        return distribution.open_distribution(arguments.strategy, arguments.replicas, cluster)
    except (RuntimeError, tf.errors.OpError) as error:
        if cluster is None:
            raise UsageError(str(error)) from error
        raise TrainingError(
            f"cannot join the processes of TF_CONFIG, {', '.join(cluster.addresses)}, as number "
            f"{cluster.index} ({_first_line(error)}); is its port free, are the others running?"
        ) from error


def check_parts(recipe: Recipe, placement: Distribution) -> None:
    """Raises ValueError if the replicas cannot share the recipe's batch, or its parts, equally."""
    _, count = placement.local_part(recipe.batch_size)
    each = count * placement.processes // placement.replicas
    if each % recipe.gradient_accumulation:
        raise ValueError(
            f"gradient_accumulation {recipe.gradient_accumulation} must divide the {each} "
            f"photographs that each of {placement.replicas} replicas has of a batch"
        )


def _deciding(identity: dict[str, Any], steps: int, checkpoint) -> dict[str, Any]:
    """Returns what has to be the same in every process of a run."""
    from . import checkpoints

    values = checkpoints.flat_recipe(identity) | {"steps": steps}
    values["the checkpoint in --run-dir"] = checkpoint and dict(checkpoint.manifest["files"])
    return values


def _digests(state: dict[str, list]) -> dict[str, str]:
    """Returns a hash of every part of a trainer's state."""
    digests = {}
    for name, variables in state.items():
        digest = hashlib.sha256()
        for variable in variables:
            digest.update(variable.numpy().tobytes())
        digests[f"the state {name!r} to start from"] = digest.hexdigest()
    return digests


def _first_line(error: Exception) -> str:
    """Returns TensorFlow's message without the operations' names it puts around it."""
    text = str(getattr(error, "message", error)).strip()
    text = re.sub(r"\{\{function_node [^}]*\}\}\s*", "", text)
    # Of a failed reduction, where in our code it stands comes first.
    aborted = re.search(r"Collective ops is aborted by: (.+)", text)
    text = aborted[1] if aborted else text.split("\n", 1)[0]
    return re.sub(r"\s*\[Op:\w+\].*", "", text).rstrip(" :")


@contextlib.contextmanager
def _as_usage_errors() -> Iterator[None]:
    """Until the first step, whatever is wrong is wrong with what was asked for."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


# --- the recipe ---------------------------------------------------------------------------------


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name in ("keep", "log_every"):
        value = getattr(arguments, name)
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    minutes = arguments.max_minutes
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--max-minutes must be above 0, got {minutes}")


def _settings(arguments: argparse.Namespace) -> list[str]:
    """Returns `--set` and the flags that are shorthands for it."""
    settings = list(arguments.set)
    for name in ("checkpoint_every", "workers", *CONFIG_FLAGS):
        value = getattr(arguments, name)
        if value is not None:
            # Absolute, so that the recipe means the same file from another folder.
            is_file = name in CONFIG_FLAGS and os.path.isfile(value)
            settings.append(f"{name}={os.path.abspath(value) if is_file else value}")
    return settings


def resolved(arguments: argparse.Namespace) -> Recipe:
    """Returns the recipe of a new run."""
    if arguments.dataset is None:
        names = ", ".join(sorted(datasets.DATASETS))
        raise UsageError(f"--dataset is missing, one of {names}; or --run-dir DIR --resume")
    flags = {name: getattr(arguments, name) for name in RECIPE_FLAGS}
    return recipes.resolve(**flags, settings=_settings(arguments))


def _stored_recipe(arguments: argparse.Namespace) -> Recipe | None:
    """Returns the recipe of the run to continue, None without `--resume`."""
    if not arguments.resume:
        return None
    if arguments.run_dir is None:
        raise UsageError("--resume needs --run-dir, the folder of the run to continue")
    path = Path(arguments.run_dir) / "recipe.json"
    if not path.is_file():
        raise UsageError(f"nothing to resume: there is no {path}")
    try:
        return Recipe.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def continued(stored: Recipe, arguments: argparse.Namespace) -> Recipe:
    """Returns the stored recipe with what the command line says, which may change only its length.

    Raises:
        ValueError: If a flag contradicts the stored recipe; names every such key.
    """
    from musical_tf import methods, named_models

    from . import checkpoints

    values = dataclasses.asdict(stored)
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in RECIPE_FLAGS
        if getattr(arguments, name) is not None
    }
    config_class = methods.get(stored.method).Config
    config = dict(values["config"])
    for key, text in recipes.parse_settings(_settings(arguments)).items():
        if key in values and key != "config":
            hint = typing.get_type_hints(Recipe)[key]
            given[key] = recipes.parse_value(key, text, hint)
        elif key in config:
            hint = typing.get_type_hints(config_class)[key]
            value = recipes.parse_value(key, text, hint)
            config[key] = list(value) if isinstance(value, tuple) else value
        else:
            known = ", ".join(sorted({*values, *config} - {"config"}))
            raise ValueError(f"--set has no key {key!r}; known: {known}")
    if given.get("data_dir") is not None:
        given["data_dir"] = os.path.abspath(given["data_dir"])
    is_no_path = {"mask": drawn_kinds, "init": named_models.is_name}
    for key, says_so in is_no_path.items():
        if given.get(key) is not None and not says_so(given[key]):
            given[key] = os.path.abspath(given[key])
    if given.keys() & {"epochs", "steps"}:
        values |= {"epochs": None, "steps": None}
    wanted = values | given | {"config": config}
    checkpoints.check_recipe(dataclasses.asdict(stored), wanted, str(arguments.run_dir))
    return Recipe(**wanted)


def check_precision(precision: str, forced: bool) -> None:
    """Refuses mixed_float16 without a GPU.

    Raises:
        UsageError: Naming what works instead.
    """
    import tensorflow as tf

    if precision == "mixed_float16" and not forced and not tf.config.get_visible_devices("GPU"):
        raise UsageError(
            "mixed_float16 needs a GPU and TensorFlow sees none; use float32 or mixed_bfloat16, "
            "or --force-precision if you mean it"
        )


# --- the networks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """What a recipe trains, and against what."""

    generator: "keras.Model"
    discriminators: dict[str, "keras.Model"]
    objective: "Objective"


def build(recipe: Recipe, initial: bool, placement: Distribution | None = None) -> Networks:
    """Builds the networks from the recipe's seed, in its precision.

    Args:
        recipe: The recipe.
        initial: Whether the weights will be trained from. Otherwise, when a checkpoint is about to
            be restored or only shapes are asked for, no pre-trained ones are read.
        placement: Where they will be trained; None for one device.

    Returns:
        The generator, the discriminators by name, and the objective.
    """
    import keras

    from musical_tf import methods

    from .trainer import dtype_policy

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

    Args:
        generator: The generator to train.
        init: `.keras` file, run folder or name of a generator with the same weights, or of a
            MUSICAL without the attention that `generator` has; the attention then starts as
            identity.

    Raises:
        FileNotFoundError: If nothing is there.
        ValueError: If it is no generator, or of another method, or of other shapes; says which
            flags would make it fit.
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
    """A value as `recipes.parse_value` reads it."""
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
        recipe.to_json().rstrip(),
        "",
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


# --- the run ------------------------------------------------------------------------------------


def open_run_dir(
    run_dir: str | None, recipe: Recipe, resume: bool, open_files: contextlib.ExitStack
) -> Path:
    """Makes the run's folder, or finds it, and writes the recipe into it.

    Args:
        run_dir: The folder, or None for a new numbered one in `runs/`.
        recipe: What is going to be trained.
        resume: Whether the folder holds a run already, to be continued; it is locked then.
        open_files: Takes the folder's lock.

    Returns:
        The folder.

    Raises:
        UsageError: If another run is there.
        OSError: If it cannot be written to.
    """
    if run_dir is None:
        path = _next_run_dir(Path("runs"), f"{recipe.dataset}-{recipe.method}-{recipe.preset}")
    else:
        path = Path(run_dir)
        require_free(path, resume)
    path.mkdir(parents=True, exist_ok=True)
    if not resume:
        open_files.enter_context(run_lock(path))
        require_free(path, resume)  # again: another run may have started before the lock
    write_whole(path / "recipe.json", recipe.to_json())
    return path


def require_free(path: Path, resume: bool) -> None:
    """Raises UsageError if a run is there already and not to be continued."""
    if not resume and path.is_dir() and any(each.name != LOCK_FILE for each in path.iterdir()):
        raise UsageError(
            f"{path} is not empty; continue its run with --resume, or choose another --run-dir"
        )


def _next_run_dir(parent: Path, name: str) -> Path:
    """Returns and makes `parent/0007-name`, one above the highest number there."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = (re.match(r"(\d{4,})-", path.name) for path in parent.iterdir())
    number = max((int(match[1]) for match in numbers if match), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):
            path = parent / f"{number:04d}-{name}"
            path.mkdir()
            return path


def fingerprint(photographs: Photographs) -> str:
    """Returns how many photographs there are and a hash of their names: the data order hangs on
    both."""
    names = "\n".join("/".join(Path(path).parts[-2:]) for path in photographs.paths)
    return f"{len(photographs)} files, {hashlib.sha256(names.encode()).hexdigest()[:12]}"


def find_checkpoint(run_dir: Path, identity: dict[str, Any]):
    """Finds the newest whole checkpoint of a run and makes sure that it is of this recipe.

    Returns:
        The checkpoint, or None when the run was stopped before its first.

    Raises:
        ValueError: If there are checkpoints and none is whole, or it is of another recipe.
    """
    from . import checkpoints

    folder = run_dir / "checkpoints"
    checkpoint, torn = checkpoints.newest(folder)
    for problem in torn:
        print(f"{PROGRAM}: warning: skipped a torn checkpoint: {problem}", file=sys.stderr)
    if checkpoint is None:
        if torn:
            raise ValueError(f"nothing to resume: none of the checkpoints in {folder} is whole")
        print(f"no checkpoint in {folder} yet, starting at step 0")
        return None
    # A checkpoint from before a key was known is of a run as the key's default has it.
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Recipe)
        if field.default is not dataclasses.MISSING
    }
    saved = defaults | dict(checkpoint.manifest["recipe"])
    checkpoints.check_recipe(saved, identity, str(checkpoint.path))
    print(f"resuming from {checkpoint.path}")
    return checkpoint


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: Where everything goes.
        recipe: What is trained, and how.
        identity: The recipe and which photographs there are; what a checkpoint has to be of.
        photographs: The training split.
        holes: Where holes come from.
        steps: Length of the whole run.
    """

    folder: Path
    recipe: Recipe
    identity: dict[str, Any]
    photographs: Photographs
    holes: HoleSource
    steps: int

    @property
    def steps_per_epoch(self) -> Fraction:
        """Photographs / batch size, exactly."""
        return Fraction(len(self.photographs), self.recipe.batch_size)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"


def make_callbacks(trainer: "Trainer", run: Run, keep: int, log_every: int) -> list["Callback"]:
    """Returns what a run shows and writes: progress, logs, TensorBoard, checkpoints, samples.

    Args:
        trainer: The trainer.
        run: The run.
        keep: Checkpoints to keep.
        log_every: Steps a line of the log.
    """
    from . import callbacks, checkpoints

    times = callbacks.TimeLog(run.folder)

    def save(step: int) -> None:
        trainer.check_weights()
        checkpoints.save(
            run.checkpoints,
            trainer.state(),
            step=step,
            epoch=step // run.steps_per_epoch,
            recipe=run.identity,
            keep=keep,
        )
        trainer.save_generator(run.folder / "generator.keras")
        times.write(step)

    progress = callbacks.ProgressBar if sys.stdout.isatty() else callbacks.ProgressLines
    board = callbacks.TensorBoard(run.folder / "tensorboard", every=max(10, log_every))
    images, holes = fixed_samples(run.recipe)
    return [
        times,
        progress(run.steps, run.steps_per_epoch),
        callbacks.LossLog(run.folder, log_every),
        board,
        callbacks.Saver(save, run.recipe.checkpoint_every),
        callbacks.SampleSheet(
            run.folder / "samples", images, holes, board.show, every=run.recipe.sample_every
        ),
    ]


def train(trainer: "Trainer", run: Run, hooks: Sequence["Callback"]) -> int:
    """Trains until the recipe is done, the time is up or a signal comes.

    Args:
        trainer: The trainer, at the step to go on from.
        run: The run.
        hooks: Callbacks.

    Returns:
        The number of finished steps.

    Raises:
        TrainingError: Whatever ended it before its time; names the last good checkpoint.
    """
    import tensorflow as tf

    recipe = run.recipe
    try:
        first, count = trainer.placement.local_part(recipe.batch_size)
        batches = pipeline.training_pipeline(
            run.photographs,
            run.holes,
            recipe.image_size,
            recipe.batch_size,
            recipe.seed,
            start_step=int(trainer.step.numpy()),
            workers=recipe.workers or None,
            part=(first, count),
            zoom=recipe.zoom,
            jitter=recipe.jitter,
        )
        return trainer.run(batches, run.steps, run.steps_per_epoch, hooks)
    except tf.errors.ResourceExhaustedError as error:
        reason = (
            f"out of memory at batch size {recipe.batch_size} and {recipe.image_size} pixels; "
            "lower --batch-size or --image-size, or work a batch through in parts with --set "
            "gradient_accumulation=N"
        )
        raise TrainingError(f"{reason}. {_last_good(run)}") from error
    except tf.errors.OpError as error:
        reason = distribution.explain(_first_line(error), error, trainer.placement)
        raise TrainingError(f"{reason}. {_last_good(run)}") from error
    except (OSError, ValueError, ArithmeticError) as error:
        raise TrainingError(f"{error}. {_last_good(run)}") from error


def _last_good(run: Run) -> str:
    from . import checkpoints

    checkpoint, _ = checkpoints.newest(run.checkpoints)
    where = checkpoint.path if checkpoint else "there is none yet"
    return f"Last good checkpoint: {where}"


def fixed_samples(recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first photographs that are not trained on, and their holes.

    Args:
        recipe: The recipe.

    Returns:
        `(N, H, W, 3)` uint8 RGB and `(N, H, W)` bool, N at most `SAMPLES`. Where the dataset has no
        test photographs, or none that can be used, they are of the training split.

    Raises:
        ValueError: If no photograph of the training split can be used either.
    """
    holes, size = recipe.open_masks(), recipe.image_size
    for split in ("test", "train"):
        try:
            samples = pipeline.evaluation_samples(recipe.open_photographs(split), holes, size)
            chosen = [(image, hole) for _, image, hole in itertools.islice(samples, SAMPLES)]
            break
        except (FileNotFoundError, ValueError):
            if split == "train":
                raise
    return np.stack([image for image, _ in chosen]), np.stack([hole for _, hole in chosen])


if __name__ == "__main__":
    sys.exit(main())
