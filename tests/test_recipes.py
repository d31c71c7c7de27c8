"""Recipes: whose default wins, what `--set` reads, and that JSON gives back the same recipe."""

import dataclasses
import json

import pytest

from musical_tf.methods import musical
from training import presets
from training.recipes import Recipe, parse_value, resolve


def test_paper_is_section_4_1():
    recipe = resolve("celeba")
    assert (recipe.method, recipe.preset, recipe.mask) == ("musical", "paper", "center")
    assert (recipe.image_size, recipe.shorter_side, recipe.crop) == (256, 256, "center")
    assert (recipe.batch_size, recipe.epochs, recipe.steps) == (5, 70, None)
    assert (recipe.learning_rate, recipe.beta_1, recipe.beta_2) == (2e-4, 0.5, 0.999)
    assert (recipe.schedule, recipe.warmup_steps, recipe.ema) == ("constant", 0, 0.0)
    assert (recipe.precision, recipe.seed, recipe.gradient_clip) == ("float32", 0, 0.0)
    assert recipe.flip


@pytest.mark.parametrize("preset", ["paper", "official"])
@pytest.mark.parametrize(
    ("dataset", "weight", "shorter_side", "crop"),
    [
        ("celeba", 0.0, 256, "center"),
        ("paris_streetview", 0.3, 350, "random"),
        ("places_canyon", 0.3, 350, "random"),
        ("folder", 0.3, 350, "random"),
    ],
)
def test_datasets_set_the_adversarial_weight_and_the_crop(
    dataset, weight, shorter_side, crop, preset
):
    recipe = resolve(dataset, data_dir="somewhere", preset=preset)
    assert recipe.config["lambda_adversarial"] == weight
    assert (recipe.shorter_side, recipe.crop) == (shorter_side, crop)
    defaults = musical.Config.from_preset(preset, lambda_adversarial=weight)
    assert recipe.method_config() == defaults


def test_another_method_brings_its_own_optimizer_even_to_the_demo():
    recipe = resolve("demo", method="deepfill_v1")
    assert (recipe.preset, recipe.learning_rate, recipe.beta_2) == ("lite", 2e-4, 0.9)
    assert recipe.steps == resolve("demo").steps
    assert resolve("demo", method="glc").ema == 0 < resolve("demo").ema
    assert resolve("demo").learning_rate != 2e-4


@pytest.mark.parametrize("ablation", musical.ABLATIONS)
def test_an_ablation_takes_away_what_its_name_says_and_nothing_else(ablation):
    whole = resolve("paris_streetview", data_dir="somewhere")
    recipe = resolve("paris_streetview", data_dir="somewhere", ablation=ablation)
    assert (whole.ablation, recipe.ablation) == (None, ablation)
    changed = {key: value for key, value in recipe.config.items() if value != whole.config[key]}
    assert (
        changed
        == {
            "no_adversarial": {"lambda_adversarial": 0.0},
            "single_scale": {"patch_sizes": [3]},
            "no_attention": {"attention": False},
            "no_se": {"squeeze_ratio": 0},
        }[ablation]
    )
    assert dataclasses.replace(recipe, ablation=None, config=whole.config) == whole
    assert json.loads(recipe.to_json())["ablation"] == ablation
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("key", ["init", "ablation", "gradient_accumulation"])
def test_a_recipe_from_before_a_key_was_known_is_read(key):
    values = json.loads(resolve("demo").to_json())
    del values[key]
    assert Recipe.from_json(json.dumps(values)) == resolve("demo")


def test_what_is_set_wins_over_the_dataset():
    recipe = resolve("celeba", settings=["lambda_adversarial=0.5", "crop=random"])
    assert recipe.config["lambda_adversarial"] == 0.5
    assert recipe.crop == "random"
    smaller = resolve("places_canyon", image_size=128)
    assert (smaller.image_size, smaller.shorter_side) == (128, 175)
    assert resolve("celeba", settings=["shorter_side=300"]).shorter_side == 300


def test_lite_fits_two_cores_and_demo_is_embedded():
    lite = resolve("paris_streetview", preset="lite")
    assert (lite.image_size, lite.batch_size, lite.schedule) == (128, 16, "cosine")
    assert lite.ema > 0
    assert lite.config["lambda_adversarial"] == 0.0
    demo = resolve("demo")
    assert (demo.preset, demo.data_dir, demo.epochs) == ("lite", None, None)
    assert demo.steps > 0
    assert demo.config["lambda_adversarial"] == 0.0
    assert len(demo.open_photographs("test")) >= 2
    assert demo.open_masks().deterministic(0).shape == (demo.image_size, demo.image_size)
    paper = resolve("demo", preset="paper")
    assert (paper.image_size, paper.learning_rate) == (256, 2e-4)


def test_one_way_to_say_how_long_replaces_the_other():
    assert (resolve("celeba", steps=7).epochs, resolve("celeba", steps=7).steps) == (None, 7)
    assert (resolve("demo", epochs=2).epochs, resolve("demo", epochs=2).steps) == (2, None)
    by_setting = resolve("celeba", settings=["steps=9"])
    assert (by_setting.epochs, by_setting.steps) == (None, 9)
    for arguments in ({"epochs": 1, "steps": 1}, {"settings": ["epochs=none"]}):
        with pytest.raises(ValueError, match="exactly one of epochs and steps"):
            resolve("celeba", **arguments)
    assert resolve("celeba", steps=7).total_steps(1000) == 7
    assert resolve("celeba", epochs=2, batch_size=16).total_steps(1000) == 125


def test_paths_are_stored_absolute(tmp_path, monkeypatch):
    mixed = resolve("demo", mask="center+irregular", init=tmp_path / "a.keras")
    assert (mixed.mask, mixed.init) == ("center+irregular", str(tmp_path / "a.keras"))
    assert Recipe.from_json(mixed.to_json()) == mixed
    with pytest.raises(ValueError, match="demo is embedded and takes no data directory"):
        resolve("demo", data_dir="x")
    with pytest.raises(ValueError, match="folder needs --data-dir"):
        resolve("folder")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holes").mkdir()
    recipe = resolve("celeba", data_dir="faces", mask="holes")
    assert recipe.data_dir == str(tmp_path / "faces")
    assert recipe.mask == str(tmp_path / "holes")
    assert resolve("celeba").data_dir == str(tmp_path / "data" / "celeba")


@pytest.mark.parametrize("dataset", ["celeba", "paris_streetview", "demo"])
def test_json_gives_back_the_same_recipe(dataset):
    settings = ["learning_rate=0.1234567890123456789", "patch_sizes=1,3,5", "squeeze_ratio=2"]
    recipe = resolve(dataset, settings=settings)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()
    assert again.method_config() == recipe.method_config()
    assert again.method_config().patch_sizes == (1, 3, 5)
    for field in dataclasses.fields(Recipe):
        assert type(getattr(again, field.name)) is type(getattr(recipe, field.name))


def test_a_stored_recipe_with_other_keys_is_refused():
    stored = json.loads(resolve("demo").to_json())
    with pytest.raises(ValueError, match="recipe has unknown color; known: dataset"):
        Recipe.from_json(json.dumps(stored | {"color": 1}))
    del stored["seed"]
    with pytest.raises(ValueError, match="recipe has no seed"):
        Recipe.from_json(json.dumps(stored))
    with pytest.raises(ValueError, match="must be a JSON object, got list"):
        Recipe.from_json("[]")
    with pytest.raises(ValueError, match="recipe is not JSON"):
        Recipe.from_json('{"dataset": ')
    stored["seed"] = 0
    stored["config"]["wdith"] = 3
    with pytest.raises(ValueError, match=r"unknown musical options wdith; known: .*width"):
        Recipe.from_json(json.dumps(stored)).method_config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of 16, got 100"),
        ({"image_size": 48}, "image_size must be at least 64"),
        ({"image_size": 128.0}, r"image_size must be a whole number, got 128\.0 \(float\)"),
        ({"image_size": True}, r"image_size must be a whole number, got True \(bool\)"),
        ({"shorter_side": 90}, r"shorter_side must be at least image_size \(96\), got 90"),
        ({"crop": "middle"}, "crop must be one of .center. or .random."),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"gradient_accumulation": 0}, "gradient_accumulation must be at least 1, got 0"),
        (
            {"gradient_accumulation": 3},
            r"gradient_accumulation must be a divisor of batch_size \(2\), got 3",
        ),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"epochs": 3}, "exactly one of epochs and steps"),
        ({"precision": "float16"}, "precision must be one of .float32., .mixed_float16."),
        ({"schedule": "linear"}, "schedule must be one of .constant. or .cosine."),
        ({"seed": -1}, "seed must be at least 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a finite number, got inf"),
        ({"learning_rate": "fast"}, r"learning_rate must be a finite number, got 'fast' \(str\)"),
        ({"beta_1": 1.0}, "beta_1 must be below 1"),
        ({"ema": float("nan")}, "ema must be a finite number, got nan"),
        ({"gradient_clip": -1.0}, "gradient_clip must be at least 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"workers": -2}, "workers must be at least 0"),
        ({"flip": 1}, r"flip must be true or false, got 1 \(int\)"),
        ({"config": []}, "config must be a dictionary"),
        ({"dataset": "celebs"}, "unknown dataset 'celebs'"),
    ],
)
def test_every_value_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe.of(dataclasses.asdict(resolve("demo")) | change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": ["lamda_style=2"]}, "no key 'lamda_style'; did you mean 'lambda_style'"),
        ({"settings": ["learnig_rate=2"]}, "did you mean 'learning_rate'.*known: .*, width"),
        ({"settings": ["config=2"]}, "no key 'config'"),
        ({"settings": ["LEAST=2"]}, "no key 'LEAST'; known: ablation, "),
        ({"settings": ["ema"]}, "--set expects key=value, got 'ema'"),
        ({"settings": ["=3"]}, "--set expects key=value, got '=3'"),
        ({"settings": ["ema=0", "ema=0.9"]}, "ema is given twice: '0' and '0.9'"),
        ({"settings": ["seed=1"], "seed": 2}, "seed is given twice, by --set and by its own flag"),
        ({"settings": ["dataset=demo"]}, "dataset is given twice"),
        ({"settings": ["seed=1.5"]}, "seed must be a whole number, got '1.5'"),
        ({"settings": ["ema=nan"]}, "ema must be a finite number, got 'nan'"),
        ({"settings": ["flip=2"]}, "flip must be true or false, got '2'"),
        ({"settings": ["squeeze_ratio=x"]}, "squeeze_ratio must be a whole number or none"),
        ({"settings": ["patch_sizes=1,a"]}, "patch_sizes must be values separated by comm"),
        ({"settings": ["lambda_style=-1"]}, "lambda_style must be >= 0"),
        ({"settings": ["mask=centre"]}, "mask must be center, .* did you mean 'center'"),
        ({"preset": "lit"}, "musical has no preset 'lit'; known: paper, .* did you mean 'lite'"),
        ({"ablation": "no_atention"}, "musical has no ablation .*; did you mean 'no_attention'"),
        ({"ablation": "no_se", "method": "glc"}, "glc has no ablation 'no_se'; it has none"),
        (
            {"ablation": "no_se", "settings": ["squeeze_ratio=4"]},
            "squeeze_ratio is given twice, by --set and by --ablation no_se",
        ),
        ({"ablation": "no_adversarial"}, "changes nothing here: without it, lambda_adversarial=0"),
        ({"method": "muscial"}, "muscial"),
        ({"precision": "half"}, "precision must be one of"),
        ({"image_size": 100}, "image_size must be a multiple of 16"),
        ({"mask": "nowhere/masks"}, "existing folder of mask images, got 'nowhere/masks'"),
    ],
)
def test_wrong_options_say_what_is_right(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve("celeba", **arguments)


def test_settings_reach_recipe_and_method_and_may_be_written_with_dashes():
    recipe = resolve(
        "celeba",
        settings=["preset=lite", "ema = 0.5", "batch-size=3", "width=8", "attention=false"],
    )
    assert (recipe.preset, recipe.ema, recipe.batch_size) == ("lite", 0.5, 3)
    assert (recipe.config["width"], recipe.config["attention"]) == (8, False)
    assert recipe.method_config().width == 8


def test_values_are_read_by_the_type_of_their_field():
    assert parse_value("k", "true", bool) is True
    assert parse_value("k", "3", int) == 3
    assert parse_value("k", "1e-3", float) == 1e-3
    assert parse_value("k", "none", str) == "none"
    assert parse_value("k", "none", int | None) is None
    assert parse_value("k", "4", int | None) == 4
    assert parse_value("k", "none", str | None) is None
    assert parse_value("k", "(1, 3)", tuple[int, ...]) == (1, 3)
    assert parse_value("k", "5", tuple[int, ...]) == (5,)


def test_every_recipe_states_command_hours_and_expectation():
    for recipe in (presets.paper, presets.official, presets.lite, presets.demo):
        for word in ("Command: `python -m training.fit", "Hours: ", "Expected"):
            assert word in recipe.__doc__
