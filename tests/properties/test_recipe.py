"""Any change of a `recipe.json` gives a recipe or a clear error."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.recipes import Recipe, resolve

from .files import changed, json_values

WHOLE = json.loads(resolve("demo").to_json())
PATHS = [(key,) for key in WHOLE] + [("config", key) for key in WHOLE["config"]]
WRONG = (
    *("text", "", "\ud800", -1, 0, 1.5, 10**400, 1e308),
    *(None, True, [], ["a"], [[1]], {}, {"a": 1}),
)


def with_value(path, value):
    """The text of a recipe with one value replaced."""
    recipe = json.loads(json.dumps(WHOLE))
    target = recipe if len(path) == 1 else recipe[path[0]]
    target[path[-1]] = value
    return json.dumps(recipe)


def check(text):
    """Reads a recipe as `--resume` does."""
    with contextlib.suppress(ValueError):
        assert dataclasses.is_dataclass(Recipe.from_json(text).method_config())


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_value_of_another_type_is_an_error(path):
    for value in WRONG:
        check(with_value(path, value))


@given(st.sampled_from(PATHS), json_values)
def test_any_json_value_is_a_recipe_or_an_error(path, value):
    check(with_value(path, value))


@given(changed(json.dumps(WHOLE).encode()))
def test_any_change_of_the_text_is_a_recipe_or_an_error(content):
    check(content.decode("utf-8", "replace"))


@given(st.text(max_size=50))
def test_any_text_is_an_error(text):
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_json(text)


@pytest.mark.parametrize("is_option", [False, True])
def test_half_of_a_surrogate_pair_is_an_error(is_option):
    recipe = json.loads(json.dumps(WHOLE))
    (recipe["config"] if is_option else recipe)["\ud800"] = 1
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_json(json.dumps(recipe)).method_config()


def test_text_nested_too_deeply_is_an_error():
    with pytest.raises(ValueError, match="recipe is not JSON"):
        Recipe.from_json("[" * 100_000)


def test_the_error_names_the_key_and_the_type():
    with pytest.raises(ValueError, match=r"config\.width must be a whole number, got 'wide'"):
        Recipe.from_json(with_value(("config", "width"), "wide")).method_config()
