"""Recipes: everything a training run is made of, resolved to plain values.

`resolve` starts from a preset's recipe (`paper`, `official`, `lite`), lets the dataset and the
flags change it, and returns a `Recipe`: one flat record, stored as `recipe.json` beside the
weights, that says all a second person needs to train the same network. Order, the later winning:
the preset's recipe, the dataset's (`demo` below, and `data.datasets.DATASETS`), the flags, `--set
key=value`.
"""

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic

from musical_tf.arguments import did_you_mean

from .data import datasets, holes, pipeline
from .data.photographs import Photographs

LARGEST = 2**31 - 1
"""Largest whole number of a recipe: what seeds, TensorFlow's shapes and thread counts can hold."""
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
SCHEDULES = ("constant", "cosine")
CROPS = ("center", "random")
OPTIMIZER_KEYS = ("learning_rate", "beta_1", "beta_2", "ema")


@dataclass(frozen=True)
class Recipe:
    """One training run, resolved. Every value is validated on construction.

    Attributes:
        dataset: A key of `data.datasets.DATASETS`.
        data_dir: Absolute path of the photographs; None for the demo's, which are embedded.
        method: A module of `musical_tf.methods`.
        preset: One of the method's presets.
        image_size: Height and width of the crops, in pixels; a multiple of 16, at least 64.
        shorter_side: Shorter side of the training photographs before cropping, in pixels.
        crop: "center" or "random", in training.
        flip: Whether training flips left and right, one time in two.
        mask: "center", "box", "irregular", several of them joined by "+", or the absolute path of a
            folder of mask images.
        batch_size: Photographs a step.
        epochs: Passes over the photographs; None if `steps` is given.
        steps: Optimizer steps; None if `epochs` is given.
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
        gradient_accumulation: Equal parts a batch is worked through in, one after the other, for
            the memory of a part and the step of the batch; divides `batch_size`.
    """

    dataset: str
    data_dir: str | None
    method: str
    preset: str
    image_size: int
    shorter_side: int
    crop: str
    flip: bool
    mask: str
    batch_size: int
    epochs: int | None
    steps: int | None
    precision: str
    seed: int
    learning_rate: float
    beta_1: float
    beta_2: float
    schedule: str
    warmup_steps: int
    ema: float
    gradient_clip: float
    checkpoint_every: int
    sample_every: int
    workers: int
    config: dict
    init: str | None = None
    ablation: str | None = None
    gradient_accumulation: int = 1
    zoom: float = 0.0
    jitter: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            expected = _hint(Recipe, field.name)
            if expected is float and type(value) is int:
                try:
                    object.__setattr__(self, field.name, float(value))
                except OverflowError as error:
                    raise ValueError(f"{field.name} must be below 1e308, got more") from error
            elif not _is_a(value, expected):
                raise ValueError(
                    f"{field.name} must be {_name(expected)}, got {value!r} "
                    f"({type(value).__name__})"
                )
            if type(value) is int:
                self._require(field.name, f"at most {LARGEST}", lambda v: v <= LARGEST)
        datasets.get_spec(self.dataset)
        self._require(
            "image_size", "a multiple of 16, at least 64", lambda v: v >= 64 and v % 16 == 0
        )
        self._require(
            "shorter_side",
            f"at least image_size ({self.image_size})",
            lambda v: v >= self.image_size,
        )
        self._require("crop", _one_of(CROPS), CROPS.__contains__)
        self._require("precision", _one_of(PRECISIONS), PRECISIONS.__contains__)
        self._require("schedule", _one_of(SCHEDULES), SCHEDULES.__contains__)
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"exactly one of epochs and steps must be given, got epochs={self.epochs} and "
                f"steps={self.steps}"
            )
        for name in (
            *("batch_size", "epochs", "steps", "checkpoint_every", "gradient_accumulation"),
        ):
            self._require(name, "at least 1", lambda v: v is None or v >= 1)
        self._require(
            "gradient_accumulation",
            f"a divisor of batch_size ({self.batch_size})",
            lambda v: self.batch_size % v == 0,
        )
        for name in ("seed", "warmup_steps", "sample_every", "workers"):
            self._require(name, "at least 0", lambda v: v >= 0)
        for name in ("zoom", "jitter"):
            self._require(name, "at least 0 and below 1", lambda v: 0 <= v < 1)
        self._require("learning_rate", "above 0", lambda v: v > 0)
        self._require("gradient_clip", "at least 0", lambda v: v >= 0)
        for name in ("beta_1", "beta_2", "ema"):
            self._require(name, "at least 0 and below 1", lambda v: 0 <= v < 1)

    def _require(self, name: str, expected: str, holds) -> None:
        value = getattr(self, name)
        if (isinstance(value, float) and not math.isfinite(value)) or not holds(value):
            raise ValueError(f"{name} must be {expected}, got {value!r}")

    def method_config(self):
        """Returns the method's `Config`, frozen, with the recipe's values."""
        from musical_tf import methods

        config_class = methods.get(self.method).Config
        known = {field.name for field in dataclasses.fields(config_class)}
        unknown = sorted(set(self.config) - known)
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
            raise ValueError(self._explained(error, config_class)) from error
        # `Config` compares and orders what it was given; `json` refuses infinities.
        except (TypeError, AttributeError, OverflowError, RecursionError, ValueError) as error:
            raise ValueError(f"recipe has impossible {self.method} options: {error}") from error

    def _explained(self, error: pydantic.ValidationError, config_class: type) -> str:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # raised by the class itself
            return f"recipe has impossible {self.method} options: {first['msg']}"
        name = str(first["loc"][0])
        expected = _name(_hint(config_class, name))
        return f"recipe: config.{name} must be {expected}, got {self.config.get(name)!r}"

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
        """Returns the number of optimizer steps of the whole run.

        Args:
            photographs: Photographs of the training split.
        """
        if self.steps is not None:
            return self.steps
        return pipeline.steps_for_epochs(self.epochs, photographs, self.batch_size)

    def to_json(self) -> str:
        """Returns the recipe as indented JSON; `from_json` gives back an equal recipe."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Rebuilds a recipe from `to_json`'s text.

        Raises:
            ValueError: If the text is no JSON object, or has unknown or missing keys; names them.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
            raise ValueError(f"recipe is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"recipe must be a JSON object, got {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        # The first recipes had none of those that have a default.
        required = [
            field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
        ]
        for what, names in (
            ("unknown", sorted(set(values) - set(known))),
            ("no", [name for name in required if name not in values]),
        ):
            if names:
                raise ValueError(
                    f"recipe has {what} {', '.join(names)}; expected exactly {', '.join(known)}"
                )
        return cls(**values)


# ------------------------------------------------------------------------------------------ recipes


def paper() -> dict:
    """The paper's training (section 4.1; what it leaves open as in the authors' code).

    Command: `python -m training.fit --dataset celeba --data-dir DIR`
    (or `paris_streetview`, `places_canyon`).
    Hours: not yet measured.
    Expected, the paper's own figures (SSIM / PSNR / l1, protocol `authors`): CelebA .9008 / 26.64 /
    1.629 %, Paris .8428 / 24.42 / 2.264 %, Places .8025 / 21.84 / 3.063 %. Ours: not yet measured.
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


def official() -> dict:
    """The authors' code: trained as the paper says, the objective and the attention differ.

    Command: `python -m training.fit --dataset celeba --data-dir DIR --preset official`
    Hours: not yet measured. Expected: not yet measured.
    """
    return paper()


def lite() -> dict:
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


def demo() -> dict:
    """A few minutes on two CPU cores over a dozen embedded photographs: shows the whole chain.

    It changes `lite`, whose generator it trains; MUSICAL begins with a membrane over the hole,
    which so few steps need most. So short a run is decided by its number of steps: small
    photographs, two a step, and a high rate gave more than larger or more of them, in the same
    time. The three photographs held out show that far more photographs are wanted.

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


def resolve(
    dataset: str,
    data_dir: str | Path | None = None,
    method: str | None = None,
    preset: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    precision: str | None = None,
    mask: str | Path | None = None,
    seed: int | None = None,
    init: str | Path | None = None,
    ablation: str | None = None,
    settings: Sequence[str] = (),
) -> Recipe:
    """Merges the preset's recipe, the dataset's, the flags and `--set` into one recipe.

    Args:
        dataset: A key of `data.datasets.DATASETS`.
        data_dir: The photographs; None for the dataset's default folder.
        method: A module of `musical_tf.methods`, by default "musical".
        preset: One of the method's; by default "paper", for the demo "lite". Where `init` is the
            name of a generator that is part of the package, `method`, `preset` and every option of
            the method's configuration are by default what those weights were trained with; not so
            if another method or preset is asked for.
        image_size, batch_size, epochs, steps, precision, mask, seed, init: Flags; None leaves the
            default. One of `epochs` and `steps` replaces the other.
        ablation: A key of the method's `ABLATIONS`, which sets the options it stands for; None for
            the method as a whole.
        settings: `key=value` strings; `key` is a field of `Recipe` or of the method's `Config`.

    Raises:
        ValueError: On an unknown name, key, value or combination; lists what is valid.
    """
    from musical_tf import methods, named_models

    spec = datasets.get_spec(dataset)
    pairs = parse_settings(settings)
    flags = {
        "data_dir": data_dir,
        "method": method,
        "preset": preset,
        "image_size": image_size,
        "batch_size": batch_size,
        "epochs": epochs,
        "steps": steps,
        "precision": precision,
        "mask": mask,
        "seed": seed,
        "init": init,
        "ablation": ablation,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    for name in ("dataset", *given):
        if name in pairs:
            raise ValueError(f"{name} is given twice, by --set and by its own flag")

    asked = {
        name: value
        for name in ("method", "preset")
        if (value := pairs.pop(name, given.pop(name, None))) is not None
    }
    start = {}
    begun_from = pairs.get("init", init)
    if named_models.is_name(begun_from):
        trained = named_models.card(begun_from)["recipe"]
        if all(trained[name] == value for name, value in asked.items()):
            start = trained
    chosen_method = asked.get("method", start.get("method", "musical"))
    module = methods.get(chosen_method)
    # These decide what the other defaults are, so they are taken out first.
    default_preset = "lite" if dataset == "demo" and "lite" in module.PRESETS else "paper"
    chosen_preset = asked.get("preset", start.get("preset", default_preset))
    if chosen_preset not in module.PRESETS:
        raise ValueError(
            f"{chosen_method} has no preset {chosen_preset!r}; known: {', '.join(module.PRESETS)}"
            + did_you_mean(chosen_preset, module.PRESETS)
        )

    recipe_keys = [
        field.name
        for field in dataclasses.fields(Recipe)
        if field.name not in ("config", "dataset", "method", "preset")
    ]
    config_keys = [
        field.name for field in dataclasses.fields(module.Config) if field.name != "preset"
    ]
    trained_with = start.get("config", {})
    overrides = {key: _thaw(trained_with[key]) for key in config_keys if key in trained_with}
    values = PRESETS.get(chosen_preset, paper)()
    # What another method's own paper says of its training.
    own = getattr(module, "RECIPE", {}).get(chosen_preset, {})
    values |= own
    if dataset == "demo":
        changes = demo()
        if chosen_preset != "lite":
            # Chosen for `lite`; another preset is shown at its own.
            del changes["image_size"], changes["learning_rate"]
        values |= changes | {key: own[key] for key in own if key in OPTIMIZER_KEYS}
        if chosen_method == "musical":
            overrides = {"membrane": True} | overrides
    values |= {"crop": spec.crop, "flip": spec.flip}
    for key, text in pairs.items():
        if key in recipe_keys:
            given[key] = parse_value(key, text, _hint(Recipe, key))
        elif key in config_keys:
            overrides[key] = parse_value(key, text, _hint(module.Config, key))
        else:
            valid = sorted({*recipe_keys, *config_keys})
            raise ValueError(
                f"--set has no key {key!r}{did_you_mean(key, valid)}; known: {', '.join(valid)}"
            )
    # Naming one way to say how long replaces the default, which may be the other.
    if given.get("epochs") is not None or given.get("steps") is not None:
        values |= {"epochs": None, "steps": None}
    values |= given
    size = values["image_size"]
    if isinstance(size, int) and "shorter_side" not in values:
        values["shorter_side"] = spec.shorter_side(size)

    where = values.get("data_dir") or spec.data_dir
    if dataset == "demo" and where is not None:
        raise ValueError(f"dataset demo is embedded and takes no data directory, got {where}")
    if dataset != "demo" and where is None:
        raise ValueError(f"dataset {dataset} needs --data-dir.\n{spec.instructions}")
    # Absolute, so that a run resumed from another folder finds the same files.
    values["data_dir"] = os.path.abspath(where) if where is not None else None
    values["mask"] = str(values["mask"])
    holes.check_masks(values["mask"])
    if not holes.drawn_kinds(values["mask"]):
        values["mask"] = os.path.abspath(values["mask"])

    if values.get("init") is not None and not named_models.is_name(values["init"]):
        values["init"] = os.path.abspath(values["init"])

    if chosen_method == "musical" and "lambda_adversarial" not in overrides:
        # Section 4.1: 0 for CelebA, 0.3 for the other two. `lite` goes without; see its docstring.
        overrides["lambda_adversarial"] = (
            0.0 if chosen_preset == "lite" else spec.lambda_adversarial
        )
    config = module.Config.from_preset(chosen_preset, **overrides)
    if values.get("ablation") is not None:
        config = _ablated(config, module, values["ablation"], pairs)
    return Recipe(
        dataset=dataset,
        method=chosen_method,
        preset=chosen_preset,
        config={name: _freeze(value) for name, value in dataclasses.asdict(config).items()},
        **values,
    )


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


# -------------------------------------------------------------------------------- settings by name


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Splits `key=value` strings.

    Raises:
        ValueError: On a string without `=`, without key, or a key given twice.
    """
    pairs = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ValueError(f"--set expects key=value, got {setting!r}")
        if key in pairs:
            raise ValueError(f"--set {key} is given twice: {pairs[key]!r} and {text.strip()!r}")
        pairs[key] = text.strip()
    return pairs


def parse_value(key: str, text: str, expected: object) -> object:
    """Reads a value of a dataclass field from a command line.

    Args:
        key: The field's name, for messages.
        text: What was written. Booleans are true or false, tuples are separated by commas, nothing
            at all is `none`.
        expected: The field's type: bool, int, float, str, `tuple[X, ...]`, a `Literal`, or one of
            these or None.

    Returns:
        The value, of the type expected.

    Raises:
        ValueError: If `text` is no such value; names the key and the type.
    """
    for choice in _choices(expected):
        if choice is type(None) and text.lower() in ("none", "null"):
            return None
        value = _read(text, choice)
        if value is not None:
            return value
    raise ValueError(f"{key} must be {_name(expected)}, got {text!r}")


def _choices(expected: object) -> tuple:
    """The alternatives of a type; None first, so that `none` is not read as a string."""
    if isinstance(expected, types.UnionType) or typing.get_origin(expected) is typing.Union:
        return tuple(sorted(typing.get_args(expected), key=lambda kind: kind is not type(None)))
    return (expected,)


def _read(text: str, kind: object) -> object:
    """Reads `text` as one type; None if it is no such value."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return next((choice for choice in typing.get_args(kind) if str(choice) == text), None)
    if origin is tuple or kind is tuple:
        items = [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]
        inner = typing.get_args(kind)[0] if typing.get_args(kind) else float
        values = [_read(item, inner) for item in items]
        return None if any(value is None for value in values) else tuple(values)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is str:
        return text
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None
    return None


def _is_a(value: object, expected: object) -> bool:
    for kind in _choices(expected):
        if kind is float and type(value) is int:
            return True
        if type(value) is (typing.get_origin(kind) or kind):
            return True
    return False


def _hint(owner: type, name: str) -> object:
    return typing.get_type_hints(owner)[name]


def _name(expected: object) -> str:
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
        str: "text",
        dict: "a dictionary",
        type(None): "none",
    }
    names = []
    for kind in _choices(expected):
        origin = typing.get_origin(kind)
        if origin is typing.Literal:
            names.append(_one_of([str(choice) for choice in typing.get_args(kind)]))
        elif origin is tuple or kind is tuple:
            inner = typing.get_args(kind)[0] if typing.get_args(kind) else float
            names.append(_name(inner).removeprefix("a ") + "s separated by commas")
        else:
            names.append(words.get(kind, str(kind)))
    return " or ".join(reversed(names))


def _one_of(names: Sequence[str]) -> str:
    return "one of " + ", ".join(names)


def _freeze(value: object) -> object:
    """Turns tuples into lists, which is what JSON gives back, so that a round trip is exact."""
    if isinstance(value, (tuple, list)):
        return [_freeze(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _freeze(item) for name, item in value.items()}
    return value


def _thaw(value: object) -> object:
    return tuple(_thaw(item) for item in value) if isinstance(value, list) else value
