"""The command line of training: its flags, and the recipe that they ask for."""

import argparse
import dataclasses
import os
from typing import Any

from musical_tf import named_models
from musical_tf.arguments import Parser, did_you_mean
from musical_tf.run_directory import RunDirectory

from . import recipes
from .data import datasets, holes
from .recipes import Recipe

PROGRAM = "musical-fit"

RECIPE_FLAGS = (
    *("dataset", "data_dir", "method", "preset", "image_size", "batch_size", "epochs", "steps"),
    *("precision", "mask", "seed", "init", "ablation"),
    *("checkpoint_every", "workers", "validate_every", "patience"),
)
"""Flags that are keys of the recipe, under the same name."""

CONFIG_FLAGS = ("feature_weights", "discriminator_weights")
"""Flags that are keys of the method's configuration, under the same name."""


class UsageError(ValueError):
    """The command line asks for something that cannot be; exit code 2."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} --dataset NAME [options]\n       {PROGRAM} --run-dir DIR --resume",
        description="Trains an inpainting network on photographs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "Ctrl-C or SIGTERM finishes the step, saves and stops; --resume continues "
            "bit for bit.\nExit codes: 0 done, 1 failed while training, 2 wrong usage or input, "
            "130 and 143 stopped by a signal."
        ),
        allow_abbrev=False,
    )

    def add(group, flag: str, metavar: str, text: str, **more: Any) -> None:
        group.add_argument(flag, metavar=metavar, help=text, **more)

    def number(group, flag: str, text: str, default: int | None = None) -> None:
        add(group, flag, "N", text, type=int, default=default)

    def switch(group, flag: str, text: str) -> None:
        group.add_argument(flag, action="store_true", help=text)

    what = parser.add_argument_group("what to train")
    add(what, "--dataset", "NAME", f"one of {', '.join(sorted(datasets.DATASETS))}")
    text = (
        "folder of its photographs, in the layout of their source (default: data/NAME; folder and "
    )
    add(what, "--data-dir", "DIR", f"{text}demo have none)")
    text = f"one of {', '.join(named_models.methods())} (default: musical)"
    add(what, "--method", "NAME", text)
    text = "variant of the method; musical has paper, official, lite (default: paper; lite for "
    add(what, "--preset", "NAME", f"{text}the demo)")
    text = "part of the method to remove; musical has no_adversarial and single_scale (the paper's "
    add(what, "--ablation", "NAME", f"{text}experiments 1 and 2), no_attention, no_se")
    add(
        *(what, "--init", "WEIGHTS"),
        "initial weights instead of random ones: a .keras file, a run folder, or an included model "
        f"({named_models.listed()}), which then sets the defaults of --method, --preset and their "
        "options",
    )
    number(what, "--image-size", "side in pixels, a multiple of 16")
    text = "holes: center, box, irregular, several of them joined by +, or a folder of masks"
    add(what, "--mask", "M", text)

    how = parser.add_argument_group("how to train; the preset has the defaults")
    number(how, "--batch-size", "photographs in a step, of all devices together")
    length = how.add_mutually_exclusive_group()
    number(length, "--epochs", "passes over the photographs")
    number(length, "--steps", "instead of --epochs")
    add(how, "--precision", "P", f"one of {', '.join(recipes.PRECISIONS)}")
    text = "allow mixed_float16 without a GPU, where it is many times slower than float32"
    switch(how, "--force-precision", text)
    number(how, "--seed", "seed of weights, data order, crops and holes")
    add(
        *(how, "--feature-weights", "W"),
        "weights of VGG16 for the perceptual and style terms: torchvision (included), keras "
        "(downloaded by Keras), or a file",
    )
    text = "initial weights of the discriminator: imagenet (downloaded by Keras), random, or a file"
    add(how, "--discriminator-weights", "W", text)
    add(
        *(how, "--set", "KEY=VALUE"),
        "other keys of the recipe or of the method's configuration; the error for an unknown key "
        "lists the valid ones",
        nargs="+",
        action="extend",
        default=[],
    )

    run = parser.add_argument_group("the run")
    add(run, "--run-dir", "DIR", "folder of the run (default: a new folder in runs/)")
    text = "continue the run in --run-dir from its newest complete checkpoint; other flags are "
    switch(run, "--resume", f"{text}optional")
    text = "print the resolved recipe, shapes and parameter counts; train and write nothing"
    switch(run, "--dry-run", text)
    add(run, "--max-minutes", "M", "save and stop after M minutes", type=float)
    number(run, "--checkpoint-every", "steps between two checkpoints")
    number(run, "--keep", "checkpoints to keep (default: 3)", 3)
    number(run, "--log-every", "steps between two lines of the log (default: 1)", 1)
    number(
        *(run, "--validate-every"),
        "steps between two validations: metrics of protocol `authors` on the val split, and "
        "best.keras, the weights with the best PSNR (default: 0, none)",
    )
    text = "stop after N validations without a better PSNR (default: 0, never)"
    number(run, "--patience", text)
    number(run, "--workers", "photographs to decode at the same time")

    where = parser.add_argument_group("where to compute")
    add(
        *(where, "--strategy", "S"),
        "none: one device; mirrored: the GPUs of this machine; multiworker: the machines in "
        "TF_CONFIG, with the same command on each (default: none)",
        default="none",
    )
    number(
        *(where, "--replicas"),
        "number of devices of mirrored (default: all GPUs, or the processor as two devices)",
    )
    return parser


def check_numbers(arguments: argparse.Namespace) -> None:
    """Raises UsageError if a number that is no part of the recipe is out of its range."""
    for name in ("keep", "log_every"):
        value = getattr(arguments, name)
        if value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    minutes = arguments.max_minutes
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--max-minutes must be above 0, got {minutes}")


def check_data(arguments: argparse.Namespace) -> None:
    """Opens the dataset, reads its first photograph and looks for the masks.

    It imports no TensorFlow: wrong input is reported before the seconds that its start takes.

    Raises:
        ValueError, OSError: If a flag or the data is missing or cannot be used.
    """
    settings = recipes.parse_settings(arguments.set)
    stored: dict[str, Any] = {}
    if arguments.resume:
        stored = _run_to_continue(arguments).recipe()
    elif arguments.dataset is None:
        names = ", ".join(sorted(datasets.DATASETS))
        raise UsageError(f"--dataset must be one of {names}; or use --run-dir DIR --resume")
    method, known = arguments.method, named_models.methods()
    if method is not None and method not in known:
        raise UsageError(
            f"--method must be one of {', '.join(known)}, got {method}{did_you_mean(method, known)}"
        )

    def given(name: str) -> Any:
        flag = getattr(arguments, name)
        return settings.get(name, stored.get(name)) if flag is None else flag

    if not isinstance(given("dataset"), str):
        return
    splits = ["train", "val"] if str(given("validate_every") or 0) != "0" else ["train"]
    for split in splits:
        photographs = datasets.open_dataset(given("dataset"), given("data_dir"), split, 64)
    photographs.load_usable(range(len(photographs)), 0)
    if given("mask") is not None:
        holes.check_masks(str(given("mask")))


def _settings(arguments: argparse.Namespace) -> list[str]:
    """Returns `--set` and the flags that are shorthands for it."""
    settings = list(arguments.set)
    for name in CONFIG_FLAGS:
        value = getattr(arguments, name)
        if value is not None:
            # Absolute, so that the recipe means the same file from another folder.
            settings.append(f"{name}={os.path.abspath(value) if os.path.isfile(value) else value}")
    return settings


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name in RECIPE_FLAGS}
    return {name: value for name, value in values.items() if value is not None}


def resolved(arguments: argparse.Namespace) -> Recipe:
    """Returns the recipe of a new run."""
    return recipes.resolve(**_flags(arguments), settings=_settings(arguments))


def stored_recipe(arguments: argparse.Namespace) -> Recipe | None:
    """Returns the recipe of the run to continue, None without `--resume`."""
    if not arguments.resume:
        return None
    file = _run_to_continue(arguments).recipe_file
    try:
        return Recipe.from_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error


def _run_to_continue(arguments: argparse.Namespace) -> RunDirectory:
    if arguments.run_dir is None:
        raise UsageError("--resume needs --run-dir, the folder of the run to continue")
    run = RunDirectory(arguments.run_dir)
    if not run.recipe_file.is_file():
        raise UsageError(f"nothing to resume: there is no {run.recipe_file}")
    return run


def continued(stored: Recipe, arguments: argparse.Namespace) -> Recipe:
    """Returns the stored recipe with what the command line says, which may change only its length.

    Raises:
        ValueError: If a flag contradicts the stored recipe; names every such key.
    """
    from musical_tf import methods

    from . import checkpoints

    config_class = methods.get(stored.method).Config
    pairs = recipes.parse_settings(_settings(arguments))
    values, options = recipes.read_settings(pairs, config_class)
    given = recipes.with_absolute_paths(_flags(arguments) | values)
    before = dataclasses.asdict(stored)
    if given.keys() & {"epochs", "steps"}:
        given = {"epochs": None, "steps": None} | given
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in options.items()
    }
    wanted = before | given | {"config": before["config"] | plain}
    checkpoints.check_recipe(before, wanted, str(arguments.run_dir))
    return Recipe.of(wanted)
