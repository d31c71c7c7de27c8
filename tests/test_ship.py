"""Runs that become named models: what is written, what is refused, and who takes the names."""

import hashlib
import json
import os
import zipfile
from argparse import Namespace

import numpy as np
import onnx
import pytest

import musical_tf
from export import ship
from export.errors import ExportError
from export.metadata import describe
from export.parity import TOLERANCES
from export.serving_module import load_inpainting
from musical_tf import named_models
from tests.tiny_run import fill, holes, open_session, photographs, write_run
from training import compare, evaluate, fit, recipes
from training.evaluation.predictors import RunPredictor

SHAPE = {"width": 4, "inner_levels": 1}
WORDS = {"data": "scribbles", "licence": "anything goes", "hardware": "a loom"}


def finished_run(folder, init=None, steps=7):
    """A run directory with everything that training leaves in it and `ship` looks at."""
    settings = [f"{key}={value}" for key, value in SHAPE.items()]
    recipe = recipes.resolve("demo", preset="lite", image_size=64, settings=settings, init=init)
    values = json.loads(recipe.to_json()) | {"data_dir": "/home/somebody/pictures"}
    write_run(folder, "lite")
    (folder / "recipe.json").write_text(json.dumps(values))
    parts = [
        {"from_step": 0, "to_step": 3, "seconds": 60.0, "cpu_seconds": 90.0},
        {"from_step": 3, "to_step": steps, "seconds": 30.0, "cpu_seconds": 60.0},
    ]
    (folder / "time.json").write_text(json.dumps(parts))
    (folder / "log.jsonl").write_text('{"step": 1, "l1": 2.0}\n{"step": 7, "l1": 0.5}\n')
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A model of two stages, shipped into a folder of its own, and its card."""
    folder = tmp_path_factory.mktemp("shipped")
    first = finished_run(folder / "small")
    second = finished_run(folder / "large", init=first, steps=9)
    places = {"models": folder / "models", "weights": folder / "weights"}
    card = ship.ship("tiny", [first, second], **WORDS, **places, strategy="resize")
    return Namespace(folder=folder, first=first, second=second, card=card, **places)


@pytest.fixture
def installed(shipped, monkeypatch):
    """The same, as the package's own."""
    monkeypatch.setattr(named_models, "FOLDER", shipped.weights)
    return shipped


def test_the_card_says_what_it_took_and_where_from(shipped):
    assert [file.name for file in shipped.models.iterdir()] == ["tiny.onnx"]
    assert sorted(file.name for file in shipped.weights.iterdir()) == ["tiny.json", "tiny.keras"]
    card = json.loads((shipped.weights / "tiny.json").read_text())
    assert card == shipped.card
    assert [stage["run"] for stage in card["stages"]] == ["small", "large"]
    assert card["stages"][1]["recipe"]["init"] == "small"
    assert card["total"] == {"steps": 16, "minutes": 3.0, "cpu_minutes": 5.0}
    assert card["recipe"]["config"]["width"] == 4
    assert card["stages"][0]["last"] == {"step": 7, "l1": 0.5}
    assert all(card[key] == text for key, text in WORDS.items())
    assert "/" not in json.dumps([card["recipe"], card["stages"]])
    for kind, file in (("onnx", shipped.models), ("keras", shipped.weights)):
        content = (file / f"tiny.{kind}").read_bytes()
        assert card["files"][kind] == {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    assert {each["known_pixels_exact"] for each in card["parity"].values()} == {True}


def test_the_onnx_file_says_it_too(shipped):
    model = onnx.load(shipped.models / "tiny.onnx")
    metadata = {
        entry.key.removeprefix("musical_tf."): entry.value for entry in model.metadata_props
    }
    card = shipped.card
    assert metadata["name"] == "tiny"
    assert (metadata["data"], metadata["weights_licence"]) == (card["data"], card["licence"])
    assert metadata["weights_sha256"] == card["files"]["keras"]["sha256"]
    assert (metadata["precision"], metadata["io"], metadata["layout"]) == (
        *("float16", "uint8", "nhwc"),
    )
    assert json.loads(metadata["recipe"]) == card["recipe"]
    assert json.loads(metadata["training"]) == card["stages"]
    assert metadata["training_size"] == "64"
    assert metadata["strategy"] == card["strategy"] == "resize"


def test_both_files_are_the_runs_weights(shipped):
    image, mask = photographs(3, 64, 80), holes(3, 64, 80)
    expected = musical_tf.inference.InpaintingFunction(musical_tf.load(shipped.second))
    reference = np.asarray(expected(image, mask)).astype(int)
    result = fill(open_session(onnx.load(shipped.models / "tiny.onnx")), image, mask)
    assert np.abs(reference - result).max() <= TOLERANCES["float16"].max
    np.testing.assert_array_equal(result[mask <= 127], image[mask <= 127])
    rounded = musical_tf.load(shipped.weights / "tiny.keras").get_weights()
    for kept, trained in zip(rounded, musical_tf.load(shipped.second).get_weights(), strict=True):
        exact = trained.astype("float16").astype("float32") if trained.ndim > 1 else trained
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, exact)


def test_the_keras_file_is_small_and_always_the_same(shipped):
    before = (shipped.second / "generator.keras").stat().st_size
    compacted = ship.compact(shipped.second / "generator.keras")
    assert compacted == ship.compact(shipped.second / "generator.keras")
    with zipfile.ZipFile(shipped.second / "generator.keras") as archive:
        assert set(archive.namelist()) == set(ship._PARTS)
    assert len(compacted) < before


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["second"], "large started from small, where --run says from nothing"),
        (["second", "first"], "large started from small, where --run says from nothing"),
        (["first", "first"], "small started from random weights, where --run says from small"),
    ],
)
def test_a_stage_that_is_left_out_is_found(shipped, tmp_path, stages, message):
    runs = [getattr(shipped, stage) for stage in stages]
    with pytest.raises(ValueError, match=message):
        ship.ship("tiny", runs, **WORDS, models=tmp_path, weights=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_too_large_is_not_shipped(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "LARGEST", 1000)
    with pytest.raises(ExportError, match=r"at most 1,000 are allowed, so nothing was"):
        ship.ship("tiny", [shipped.first], **WORDS, models=tmp_path, weights=tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_files_or_none(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "folder").mkdir()
    names = ("folder", "old", "fresh")
    with pytest.raises(OSError, match="folder"):
        ship._write_all({tmp_path / name: b"new" for name in names})
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "old"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--name": "Photo 1"}, "--name must be lower-case letters"),
        ({"--licence": " "}, "--licence must say something"),
        ({"--run": "nowhere"}, "nowhere is not a whole run: no recipe.json"),
    ],
)
def test_wrong_input_is_one_line(change, message, tmp_path, capsys):
    flags = {"--name": "x", "--run": str(tmp_path), "--data": "d", "--licence": "l"}
    flags |= {"--hardware": "h"} | change
    assert ship.main([word for pair in flags.items() for word in pair]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a whole run: no log.jsonl"),
        ("", "must hold finished steps, got none in log.jsonl"),
        ("null\n", "must hold finished steps"),
    ],
)
def test_a_run_without_a_whole_log_is_refused(shipped, tmp_path, content, message):
    for name in ("recipe.json", "time.json"):
        (tmp_path / name).write_bytes((shipped.first / name).read_bytes())
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises((OSError, ValueError), match=message):
        ship.describe_stage(tmp_path)


# ---- who takes the names


def test_load_takes_a_name_and_lists_them(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("tiny")  # text that is a name is the name, whatever lies here
    assert musical_tf.load("tiny").config.width == 4
    with pytest.raises(FileNotFoundError, match=r"or a model's name \(tiny\)"):
        musical_tf.load("tinny")
    with pytest.raises(ValueError, match="unknown model name 'tinny'; expected one of: tiny"):
        named_models.card("tinny")


def test_fine_tuning_takes_the_network_from_the_name(installed):
    recipe = recipes.resolve("demo", init="tiny", settings=["lambda_style=1"])
    assert (recipe.init, recipe.preset) == ("tiny", "lite")
    assert (recipe.config["width"], recipe.config["inner_levels"]) == (4, 1)
    assert recipe.config["lambda_style"] == 1
    assert recipes.Recipe.from_json(recipe.to_json()) == recipe
    other = recipes.resolve("demo", init="tiny", preset="paper")
    assert other.config["width"] == 64
    own = recipes.resolve("demo", init="tiny", settings=["width=8"])
    assert (own.config["width"], own.config["inner_levels"]) == (8, 1)


def run_fit(*words):
    return fit.main([str(word) for word in words])


@pytest.mark.usefixtures("eager")
def test_fine_tuning_starts_from_the_named_weights(installed, tmp_path):
    words = ["--dataset", "demo", "--init", "tiny", "--image-size", 64, "--steps", 1]
    quiet = ["--set", "learning_rate=1e-30", "ema=0", "lambda_perceptual=0", "lambda_style=0"]
    assert run_fit(*words, *quiet, "--run-dir", tmp_path / "run") == 0
    before, after = (musical_tf.load(source) for source in ("tiny", tmp_path / "run"))
    for one, other in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["init"] == "tiny"
    assert run_fit("--run-dir", tmp_path / "run", "--resume", "--init", "tiny") == 0


def test_a_network_that_does_not_fit_says_which_flags_would(installed, tmp_path, capsys):
    words = ["--dataset", "demo", "--init", "tiny", "--set", "width=8"]
    words += ["lambda_perceptual=0", "lambda_style=0"]  # VGG16 is not in this folder
    assert run_fit(*words, "--steps", 1, "--run-dir", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "it fits --method musical --preset lite --set width=4 inner_levels=1" in error


def test_stages_of_a_named_model_come_before_its_own(installed, tmp_path, monkeypatch):
    third = finished_run(tmp_path / "finer", init="tiny")
    names = [stage["run"] for stage in ship.describe_stages([third])]
    assert names == ["small", "large", "finer"]
    monkeypatch.setattr(named_models, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="unknown model name 'tiny'; expected one of: none in"):
        ship.describe_stages([third])


def test_a_folder_called_like_a_model_is_no_model(installed, tmp_path):
    first = finished_run(tmp_path / "tiny")
    from_folder = finished_run(tmp_path / "from_folder", init=first)
    from_model = finished_run(tmp_path / "from_model", init="tiny")
    with pytest.raises(ValueError, match="started from tiny, where --run says from nothing"):
        ship.describe_stages([from_folder])
    names = [stage["run"] for stage in ship.describe_stages([first, from_folder])]
    assert names == ["tiny", "from_folder"]
    with pytest.raises(ValueError, match="started from the model tiny, where --run says from tiny"):
        ship.describe_stages([first, from_model])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/me/runs/one", "one"),
        ("/home/me/runs/one/generator.keras", "one"),
        (r"C:\Users\me\runs\one\generator.keras", "one"),
        (r"\\host\share\me\masks", "masks"),
        ("irregular+box", "irregular+box"),
    ],
)
def test_no_place_on_somebodys_disk_is_kept(value, kept):
    recipe = {"data_dir": "x", "init": value, "config": {"discriminator_weights": value}}
    cleaned = {"init": kept, "config": {"discriminator_weights": kept}}
    assert ship.without_paths(recipe) == cleaned


def test_evaluation_takes_a_name(installed, tmp_path):
    predictor = RunPredictor("tiny")
    assert (predictor.training_size, predictor.recipe["dataset"]) == (64, "demo")
    assert predictor.source_hash == installed.card["files"]["keras"]["sha256"]
    with pytest.raises(FileNotFoundError, match=r"or a model's name \(tiny\)"):
        RunPredictor("tinny")
    words = ["--run", "tiny", "--output", str(tmp_path / "out"), "--limit", "1"]
    arguments = evaluate.build_parser().parse_args([*words, "--protocol", "authors"])
    assert evaluate.Evaluation(arguments, "command").test.image_size == 64
    words = ["--runs", "tiny", "--baselines", "mean", "--output", str(tmp_path / "out")]
    arguments = compare.build_parser().parse_args(words)
    entry, _ = compare.Comparison(arguments, "command").candidates
    assert entry.label == "tiny"
    assert compare._training(entry) == {
        "recipe": installed.card["recipe"],
        **installed.card["total"],
    }


def test_export_of_a_name_keeps_what_the_card_says(installed):
    described = describe("tiny", load_inpainting("tiny"))
    assert described["weights_licence"] == "anything goes"
    assert (described["name"], described["data"]) == ("tiny", "scribbles")
    assert described["weights_sha256"] == installed.card["files"]["keras"]["sha256"]
    assert described["strategy"] == "resize"
    assert describe("tiny", load_inpainting("tiny"), strategy="crop")["strategy"] == "crop"
