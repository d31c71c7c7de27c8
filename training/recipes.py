"""Recipes: everything a training run is made of, resolved to plain values.

`resolve` starts from a preset's recipe (`presets.py`), lets the dataset and the flags change it,
and returns a `Recipe`: one flat record, stored as `recipe.json` beside the weights, that says all a
second person needs to train the same network. Order, the later winning: the preset's recipe, the
dataset's (`presets.demo`, and `data.datasets.DATASETS`), the flags, `--set key=value`.
"""

import dataclasses
import json
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from musical_tf.arguments import did_you_mean

from . import presets
from .data import datasets, holes, pipeline
from .data.photographs import Photographs

LARGEST = 2**31 - 1
"""Largest whole number of a recipe: what seeds, TensorFlow's shapes and thread counts can hold."""

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
Schedule = Literal["constant", "cosine"]
PRECISIONS: tuple[str, ...] = typing.get_args(Precision)
SCHEDULES: tuple[str, ...] = typing.get_args(Schedule)
OPTIMIZER_KEYS = ("learning_rate", "beta_1", "beta_2", "ema")

FREE_TO_CHANGE = frozenset(
    {
        *("steps", "epochs", "checkpoint_every", "sample_every", "workers", "data_dir"),
        *("validate_every", "patience"),
    }
)
"""Keys that may differ on resume: they do not change what a step computes, or, like `steps` with a
schedule, are meant to. A dataset may move; which photographs it has is recorded beside."""

Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, lt=1)]

_STRICT = pydantic.ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Recipe:
    """One training run, resolved. Every value is validated on construction by pydantic.

    Attributes:
        dataset: A key of `data.datasets.DATASETS`.
        data_dir: Absolute path of the photographs; None for the demo's, which are embedded.
        method, preset: A module of `musical_tf.methods` and one of its presets.
        image_size: Height and width of the crops, in pixels; a multiple of 16, at least 64.
        shorter_side: Shorter side of the training photographs before cropping, in pixels.
        crop: "center" or "random", in training.
        flip: Whether training flips left and right, one time in two.
        mask: "center", "box", "irregular", several of them joined by "+", or the absolute path of a
            folder of mask images.
        batch_size: Photographs a step.
        epochs, steps: Passes over the photographs, or optimizer steps; one of them is None.
        precision: Keras dtype policy of the layers.
        seed: Of the weights, the data order, the crops and the holes.
        learning_rate: Of Adam, both networks'; the peak, where there is a schedule.
        beta_1, beta_2: Of Adam.
        schedule: "constant", or "cosine": down to 0 at the last step.
        warmup_steps: Steps over which the rate rises linearly from 0; 0 = off.
        ema: Decay of the averaged weights that are kept for inference; 0 = off.
        gradient_clip: Largest global norm of either side's gradient; 0 = off.
        checkpoint_every: Steps between checkpoints.
        sample_every: Steps between sample sheets; 0 = once an epoch.
        workers: Photographs decoded at the same time; 0 = as many as CPU cores, at most 16.
        config: The method's resolved configuration, field -> value, as JSON has them.
        init: Absolute path of the weights it starts from, a `.keras` file or a run folder, or the
            name of a generator that is part of the package; None for random ones.
        ablation: What was taken away from the method, a key of its `ABLATIONS`, by name; `config`
            holds what that means. None for the method as a whole.
        zoom: How much of itself a crop is enlarged by at most, in training, at a random place: 0.15
            shows 87 % to 100 % of its sides. 0 = off.
        jitter: How much brightness, contrast and saturation change at most, in training: 0.2
            multiplies each by 0.8 to 1.2. 0 = off.
        gradient_accumulation: Micro-batches of a batch, computed one after the other. Peak memory
            is one micro-batch; the update uses the full batch. It divides `batch_size`.
        validate_every: Steps between validations on the val split; 0 = off.
        patience: Validations without a better PSNR after which the run stops; 0 = off.
    """

    dataset: str
    data_dir: str | None
    method: str
    preset: str
    image_size: Annotated[int, Field(ge=64, le=LARGEST, multiple_of=16)]
    shorter_side: Positive
    crop: Literal["center", "random"]
    flip: bool
    mask: str
    batch_size: Positive
    epochs: Positive | None
    steps: Positive | None
    precision: Precision
    seed: Natural
    learning_rate: Annotated[float, Field(gt=0)]
    beta_1: Share
    beta_2: Share
    schedule: Schedule
    warmup_steps: Natural
    ema: Share
    gradient_clip: Annotated[float, Field(ge=0)]
    checkpoint_every: Positive
    sample_every: Natural
    workers: Natural
    config: dict[str, Any]
    init: str | None = None
    ablation: str | None = None
    gradient_accumulation: Positive = 1
    zoom: Share = 0.0
    jitter: Share = 0.0
    validate_every: Natural = 0
    patience: Natural = 0

    def __post_init__(self) -> None:
        datasets.get_spec(self.dataset)
        if self.shorter_side < self.image_size:
            raise ValueError(
                f"shorter_side must be at least image_size ({self.image_size}), got "
                f"{self.shorter_side}"
            )
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"exactly one of epochs and steps must be given, got epochs={self.epochs} and "
                f"steps={self.steps}"
            )
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"gradient_accumulation must be a divisor of batch_size ({self.batch_size}), got "
                f"{self.gradient_accumulation}"
            )
        if self.patience and not self.validate_every:
            raise ValueError(
                f"patience must be 0 without validations, got {self.patience}; set "
                "--validate-every too"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Recipe":
        """Makes a recipe of plain values.

        Raises:
            ValueError: On an unknown or missing key, or a wrong value; one line that names it.
        """
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            raise ValueError(explained(error, cls)) from error

    def method_config(self) -> Any:
        """Returns the method's `Config`, frozen, with the recipe's values."""
        from musical_tf import methods

        config_class = methods.get(self.method).Config
        known = _hints(config_class)
        unknown = sorted(set(self.config) - set(known))
        if unknown:
            raise ValueError(
                f"recipe has unknown {self.method} options {', '.join(unknown)}; known: "
                f"{', '.join(sorted(known))}"
            )
        try:
            # Strict JSON: lists are tuples, but text is no number.
            return pydantic.TypeAdapter(config_class).validate_json(
                json.dumps(self.config, allow_nan=False), strict=True
            )
        except pydantic.ValidationError as error:
            raise ValueError(f"recipe: {explained(error, config_class, 'config.')}") from error
        # `Config` compares and orders what it was given; `json` refuses infinities.
        except (TypeError, AttributeError, OverflowError, RecursionError, ValueError) as error:
            raise ValueError(f"recipe has impossible {self.method} options: {error}") from error

    def open_photographs(self, split: str = "train") -> Photographs:
        """Opens a split of the recipe's dataset, pre-processed as the recipe says."""
        return datasets.open_dataset(
            self.dataset,
            self.data_dir,
            split,
            self.image_size,
            shorter_side=self.shorter_side if split == "train" else None,
            crop=self.crop,
            flip=self.flip,
            # The authors' filter; that of tests whatever the preset.
            resampling="bicubic" if self.preset == "official" else None,
        )

    def open_masks(self) -> holes.HoleSource:
        """Opens the recipe's source of holes."""
        return holes.open_masks(self.mask, self.image_size)

    def total_steps(self, photographs: int) -> int:
        """Returns the optimizer steps of the whole run over so many training photographs."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # one of the two is given
        return pipeline.steps_for_epochs(self.epochs, photographs, self.batch_size)

    def to_json(self) -> str:
        """Returns the recipe as indented JSON; `from_json` gives back an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Rebuilds a recipe from `recipe.json`'s text.

        Raises:
            ValueError: If the text is no JSON object, or see `of`.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
            raise ValueError(f"recipe is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"recipe must be a JSON object, got {type(values).__name__}")
        return cls.of(values)


_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a finite number"),
    **dict.fromkeys(("tuple_type", "list_type"), "values separated by commas"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "text",
    "none_required": "none",
    "dict_type": "a dictionary",
    "literal_error": "one of {expected}",
    "multiple_of": "a multiple of {multiple_of}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
}
"""What a value must be, by pydantic's type of error."""


def explained(error: pydantic.ValidationError, owner: type, prefix: str = "") -> str:
    """Returns one line about the first wrong value of a dataclass: `NAME must be X, got Y`."""
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if not first["loc"]:  # half of a surrogate pair
        return f"recipe must be Unicode text: {first['msg']}"
    name, known = prefix + str(first["loc"][0]), [field.name for field in dataclasses.fields(owner)]
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"recipe has no {name}; expected {', '.join(known)}"
    if first["type"] == "unexpected_keyword_argument":
        return f"recipe has unknown {name}{did_you_mean(name, known)}; known: {', '.join(known)}"
    got = first["input"]
    same = [each for each in found if each["loc"][:1] == first["loc"][:1]]
    return f"{name} must be {_expected(same)}, got {got!r} ({type(got).__name__})"


def _expected(errors: Sequence[Any]) -> str:
    words = [_WORDS.get(each["type"], each["msg"]).format(**each.get("ctx", {})) for each in errors]
    return " or ".join(dict.fromkeys(words))


def resolve(
    dataset: str,
    data_dir: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    **flags: Any,
) -> Recipe:
    """Merges the preset's recipe, the dataset's, the flags and `--set` into one recipe.

    Where `init` is the name of a generator that is part of the package, `method`, `preset` and
    every option of the method's configuration are by default those of its weights, unless another
    method or preset is asked for.

    Args:
        dataset: A key of `data.datasets.DATASETS`.
        data_dir: The photographs; None for the dataset's default folder.
        settings: `key=value` strings; `key` is a field of `Recipe` or of the method's `Config`.
        **flags: Fields of `Recipe`; None leaves the default. One of `epochs` and `steps` replaces
            the other. The default of `method` is "musical", of `preset` "paper", for the demo
            "lite".

    Raises:
        ValueError: On an unknown name, key, value or combination; lists what is valid.
    """
    from musical_tf import methods

    spec = datasets.get_spec(dataset)
    pairs = parse_settings(settings)
    flags["data_dir"] = data_dir
    given = {name: value for name, value in flags.items() if value is not None}
    for name in ("dataset", *given):
        if name in pairs:
            raise ValueError(f"{name} is given twice, by --set and by its own flag")
    # These decide what the other defaults are, so they are taken out first.
    asked = {
        name: value
        for name in ("method", "preset")
        if (value := pairs.pop(name, given.pop(name, None))) is not None
    }
    start = _recipe_of_weights(pairs.get("init", given.get("init")), asked)
    method = asked.get("method", start.get("method", "musical"))
    module = methods.get(method)
    default_preset = "lite" if dataset == "demo" and "lite" in module.PRESETS else "paper"
    preset = asked.get("preset", start.get("preset", default_preset))
    if preset not in module.PRESETS:
        raise ValueError(
            f"{method} has no preset {preset!r}; known: {', '.join(module.PRESETS)}"
            + did_you_mean(preset, module.PRESETS)
        )
    set_values, set_options = read_settings(pairs, module.Config, ("dataset", "method", "preset"))
    given |= set_values
    values = _default_values(spec, module, preset)
    # Naming one way to say how long replaces the default, which may be the other.
    if given.get("epochs") is not None or given.get("steps") is not None:
        values |= {"epochs": None, "steps": None}
    values |= given
    if isinstance(values["image_size"], int):
        values.setdefault("shorter_side", spec.shorter_side(values["image_size"]))
    values["data_dir"] = spec.folder(values.get("data_dir"))
    values["mask"] = str(values["mask"])
    holes.check_masks(values["mask"])

    options = _default_options(spec, module, method, preset, start.get("config", {})) | set_options
    config = module.Config.from_preset(preset, **options)
    if values.get("ablation") is not None:
        config = _ablated(config, module, values["ablation"], pairs)
    named = {"dataset": dataset, "method": method, "preset": preset}
    # Through JSON, so that a stored recipe is equal: it has lists instead of tuples.
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    return Recipe.of(with_absolute_paths(values) | named | {"config": plain})


def _recipe_of_weights(init: str | None, asked: Mapping[str, str]) -> dict[str, Any]:
    """Returns the recipe of named weights, unless another method or preset is asked for."""
    from musical_tf import named_models

    if init is None or not named_models.is_name(init):
        return {}
    trained = named_models.card(init)["recipe"]
    return trained if all(trained[name] == value for name, value in asked.items()) else {}


def _default_values(spec, module, preset: str) -> dict[str, Any]:
    """Returns the fields of `Recipe` by preset, method and dataset."""
    values = presets.PRESETS.get(preset, presets.paper)()
    # What another method's own paper says of its training.
    own = getattr(module, "RECIPE", {}).get(preset, {})
    values |= own
    if spec.name == "demo":
        changes = presets.demo()
        if preset != "lite":
            # Chosen for `lite`; another preset is shown at its own.
            del changes["image_size"], changes["learning_rate"]
        values |= changes | {key: own[key] for key in own if key in OPTIMIZER_KEYS}
    return values | {"crop": spec.crop, "flip": spec.flip}


def _default_options(
    spec, module, method: str, preset: str, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns options of the method's configuration: the dataset's and those of trained weights."""
    options: dict[str, Any] = {}
    if method == "musical":
        # Section 4.1: 0 for CelebA, 0.3 for the other two. `lite` goes without; see its docstring.
        options["lambda_adversarial"] = 0.0 if preset == "lite" else spec.lambda_adversarial
        if spec.name == "demo":
            options["membrane"] = True
    known = set(_hints(module.Config)) - {"preset"}
    return options | {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in trained.items()
        if name in known
    }


def with_absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe's values for any working directory: a run is resumed from another one."""
    from musical_tf import named_models

    values = dict(values)
    for key in ("data_dir", "mask", "init"):
        value = values.get(key)
        is_name = key == "init" and named_models.is_name(value)
        is_drawn = key == "mask" and value is not None and holes.drawn_kinds(value)
        if value is not None and not is_name and not is_drawn:
            values[key] = os.path.abspath(value)
    return values


def _ablated(config, module, ablation: str, pairs: Mapping[str, str]):
    """Returns the method's configuration without what the ablation takes away.

    Raises:
        ValueError: On an unknown name, one whose options are set otherwise too, or one that takes
            away what is not there: two runs that are meant to differ would be the same.
    """
    known = getattr(module, "ABLATIONS", {})
    if ablation not in known:
        method = module.__name__.rpartition(".")[2]
        names = f"known: {', '.join(known)}" if known else "it has none"
        raise ValueError(
            f"{method} has no ablation {ablation!r}; {names}{did_you_mean(ablation, known)}"
        )
    changes = known[ablation]
    for key in changes:
        if key in pairs:
            raise ValueError(f"{key} is given twice, by --set and by --ablation {ablation}")
    ablated = dataclasses.replace(config, **changes)
    if ablated == config:
        already = ", ".join(f"{key}={getattr(config, key)!r}" for key in changes)
        raise ValueError(f"--ablation {ablation} changes nothing here: without it, {already}")
    return ablated


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Splits `key=value` strings.

    Raises:
        ValueError: On a string without `=`, without key, or a key given twice.
    """
    pairs: dict[str, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ValueError(f"--set expects key=value, got {setting!r}")
        if key in pairs:
            raise ValueError(f"--set {key} is given twice: {pairs[key]!r} and {text.strip()!r}")
        pairs[key] = text.strip()
    return pairs


def read_settings(
    pairs: Mapping[str, str], config_class: type, excluded: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns values of the recipe and options of the method, from the texts of `--set`.

    Raises:
        ValueError: On an unknown or excluded key, with the closest known one, or a wrong value.
    """
    recipe = {key: hint for key, hint in _hints(Recipe).items() if key not in ("config", *excluded)}
    config = {key: hint for key, hint in _hints(config_class).items() if key != "preset"}
    values, options = {}, {}
    for key, text in pairs.items():
        if key in recipe:
            values[key] = parse_value(key, text, recipe[key])
        elif key in config:
            options[key] = parse_value(key, text, config[key])
        else:
            valid = sorted({*recipe, *config})
            raise ValueError(
                f"--set has no key {key!r}{did_you_mean(key, valid)}; known: {', '.join(valid)}"
            )
    return values, options


def parse_value(key: str, text: str, expected: Any) -> Any:
    """Reads a value of a dataclass field of type `expected` from a command line.

    Booleans are true or false, tuples are separated by commas, nothing at all is `none`.

    Raises:
        ValueError: If `text` is no such value; names the key and the type.
    """
    options = typing.get_args(expected)
    if type(None) in options and text.lower() in ("none", "null"):
        return None
    is_list = typing.get_origin(expected) is tuple
    adapter: pydantic.TypeAdapter = pydantic.TypeAdapter(
        options[0] if is_list else expected, config=pydantic.ConfigDict(allow_inf_nan=False)
    )
    items = [item.strip() for item in text.strip("()[] ").split(",")] if is_list else [text]
    try:
        values = tuple(adapter.validate_strings(item) for item in items if item or not is_list)
    except pydantic.ValidationError as error:
        words = _expected(error.errors(include_url=False))
        words += " or none" if type(None) in options and "none" not in words else ""
        listed = "values separated by commas, each " if is_list else ""
        raise ValueError(f"{key} must be {listed}{words}, got {text!r}") from error
    return values if is_list else values[0]


def _hints(owner: type) -> dict[str, Any]:
    hints = typing.get_type_hints(owner, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(owner)}
