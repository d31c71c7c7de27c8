"""The evaluation's command line, end to end on folders and models made here."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skimage import data

import musical_tf
from musical_tf.metrics import PROTOCOLS, evaluate_pair
from tests.serving_model import metadata_for, write_model
from training.data.holes import open_masks
from training.evaluate import main
from training.evaluation.predictors import OnnxPredictor, RunPredictor

FILL = 120
GREYS = {"a.png": 100, "b.png": 130, "c.png": 120, "d.png": 160, "e.png": 124}


def _constant_fill_model(path, io="uint8", layout="nhwc", metadata=None, size=None):
    """An ONNX file in the export's contract that paints every hole with the grey `FILL`."""
    sizes = ("batch", size or "height", size or "width")
    result = FILL if io == "uint8" else FILL / 255
    metadata = metadata_for(io, layout, dataset=None) if metadata is None else metadata
    return write_model(path, io, layout, metadata, sizes, result=result)


@pytest.fixture(scope="session")
def fill_model(tmp_path_factory):
    return _constant_fill_model(tmp_path_factory.mktemp("onnx") / "fill.onnx")


@pytest.fixture
def greys(tmp_path):
    """A folder whose test split is five images of one grey each."""
    folder = tmp_path / "greys"
    (folder / "test").mkdir(parents=True)
    for name, grey in GREYS.items():
        Image.new("RGB", (96, 96), (grey,) * 3).save(folder / "test" / name)
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """CelebA's layout with six small photographs, four of them in the test partition."""
    folder = tmp_path_factory.mktemp("celeba")
    (folder / "img_align_celeba").mkdir()
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    lines = []
    for number in range(6):
        picture = pictures[number % 4][20 * number : 20 * number + 240, 60:240]
        name = f"{number + 1:06d}.jpg"
        Image.fromarray(picture).resize((89, 109)).save(folder / "img_align_celeba" / name)
        lines.append(f"{name} {0 if number < 2 else 2}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory, photographs):
    """A run as training leaves it, of an untrained generator a few channels wide."""
    folder = tmp_path_factory.mktemp("run")
    generator = musical_tf.create("musical", preset="lite", width=4, inner_levels=1)
    generator.save(folder / "generator.keras")
    recipe = {
        "dataset": "celeba",
        "data_dir": str(photographs),
        "method": "musical",
        "preset": "lite",
        "image_size": 64,
        "shorter_side": 64,
        "mask": "box",
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def _read(output):
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


def _psnr(difference, share):
    return -10 * math.log10(share * (difference / 255) ** 2)


def _arguments(folder, model, output, *more):
    paths = ["--data-dir", str(folder), "--onnx", str(model), "--output", str(output)]
    return ["--dataset", "folder", *paths, *more]


class TestNumbers:
    def test_aggregates_by_hand(self, greys, fill_model, tmp_path):
        output = tmp_path / "out"
        assert main(_arguments(greys, fill_model, output, "--batch-size", "2")) == 0
        results = _read(output)
        assert results["count"] == 5
        assert results["image_size"] == 64  # the file's training size
        assert list(results["protocols"]) == ["authors", "hole", "lpips"]
        rows = {Path(row["file"]).name: row for row in results["images"]}
        assert list(rows) == list(GREYS)
        for name, grey in GREYS.items():
            metrics = rows[name]["metrics"]["model"]
            error = abs(grey - FILL)
            assert rows[name]["hole_fraction"] == 0.25
            assert rows[name]["bucket"] == "20-30%"
            assert metrics["authors/l1_percent"] == pytest.approx(100 * 0.25 * error / 255)
            assert metrics["hole/l1_percent"] == pytest.approx(100 * error / 255)
            if error:
                assert metrics["authors/psnr"] == pytest.approx(_psnr(error, 0.25))
                assert metrics["hole/psnr"] == pytest.approx(_psnr(error, 1.0))
            else:
                assert metrics["authors/psnr"] is None

        (method,) = results["methods"]
        everything = method["aggregates"]["all"]
        errors = [20, 10, 0, 40, 4]
        assert everything["count"] == 5
        assert everything["metrics"]["authors/l1_percent"] == pytest.approx(
            100 * 0.25 * np.mean(errors) / 255
        )
        # The third image comes back equal to the truth: infinite, so left out and counted.
        assert everything["metrics"]["authors/psnr"] == pytest.approx(
            np.mean([_psnr(error, 0.25) for error in errors if error])
        )
        assert everything["undefined"] == {"authors/psnr": 1, "hole/psnr": 1}
        assert method["aggregates"]["20-30%"] == everything
        assert method["label"] == "musical lite (ONNX)"
        assert method["seconds_per_image"] > 0

    def test_rows_are_the_metrics_of_the_files(self, photographs, fill_model, tmp_path):
        """Measured again from the pictures that the page shows."""
        output = tmp_path / "out"
        arguments = ["--dataset", "celeba", "--data-dir", str(photographs), "--mask", "irregular"]
        arguments += ["--onnx", str(fill_model), "--output", str(output)]
        assert main([*arguments, "--baselines", "mean", "telea", "--protocol", *PROTOCOLS]) == 0
        results = _read(output)
        holes = open_masks("irregular", 64)
        assert [method["name"] for method in results["methods"]] == ["model", "mean", "telea"]
        assert [row["file"] for row in results["images"]] == [
            f"img_align_celeba/{number:06d}.jpg" for number in (3, 4, 5, 6)
        ]
        for number, row in enumerate(results["images"]):
            shown = {}
            for key in ("truth", "model", "mean", "telea"):
                with Image.open(output / "images" / f"{number:05d}-{key}.png") as picture:
                    shown[key] = np.asarray(picture)
            hole = holes.deterministic(number)
            assert hole.mean() == row["hole_fraction"]
            for name in ("model", "mean", "telea"):
                np.testing.assert_array_equal(shown[name][~hole], shown["truth"][~hole])
                again = evaluate_pair(shown["truth"], shown[name], hole, PROTOCOLS)
                assert row["metrics"][name] == pytest.approx(again)
            assert (shown["model"][hole] == FILL).all()
        assert len({row["hole_fraction"] for row in results["images"]}) == 4
        more = ["--batch-size", "3", "--baselines", "mean", "telea", "--protocol", *PROTOCOLS]
        again = [*arguments[:-1], str(tmp_path / "again"), *more]
        assert main(again) == 0
        assert _read(tmp_path / "again")["images"] == results["images"]

    def test_masks_of_a_folder(self, greys, fill_model, tmp_path):
        masks = tmp_path / "masks"
        masks.mkdir()
        for number, columns in enumerate((8, 32)):
            mask = np.zeros((64, 64), np.uint8)
            mask[:, :columns] = 255
            Image.fromarray(mask).save(masks / f"{number}.png")
        output = tmp_path / "out"
        assert main(_arguments(greys, fill_model, output, "--mask", str(masks))) == 0
        results = _read(output)
        fractions = [row["hole_fraction"] for row in results["images"]]
        assert fractions == [0.125, 0.5, 0.125, 0.5, 0.125]
        groups = results["methods"][0]["aggregates"]
        assert {name: group["count"] for name, group in groups.items()} == {
            "all": 5,
            "10-20%": 3,
            "50-60%": 2,
        }
        assert groups["50-60%"]["metrics"]["authors/l1_percent"] == pytest.approx(
            100 * 0.5 * (10 + 40) / 2 / 255
        )
        assert "| 50–60%, 2 images |" in (output / "results.md").read_text()

    def test_limit_and_page_images(self, greys, fill_model, tmp_path):
        output = tmp_path / "out"
        more = ("--limit", "4", "--page-images", "2", "--batch-size", "1")
        assert main(_arguments(greys, fill_model, output, *more)) == 0
        assert _read(output)["count"] == 4
        # Of errors 20, 10, 0, 40 the page keeps the worst and the best.
        shown = {path.name.split("-")[0] for path in (output / "images").iterdir()}
        assert shown == {"00003", "00002"}

    def test_baselines_alone(self, greys, tmp_path):
        output = tmp_path / "out"
        arguments = ["--dataset", "folder", "--data-dir", str(greys), "--baselines"]
        more = ["--image-size", "32", "--limit", "2", "--output", str(output)]
        assert main([*arguments, *more]) == 0
        results = _read(output)
        names = [method["name"] for method in results["methods"]]
        assert names == ["mean", "telea", "navier_stokes", "biharmonic", "patchmatch"]
        # One grey everywhere: the mean is the truth.
        assert results["methods"][0]["aggregates"]["all"]["metrics"]["authors/l1_percent"] == 0


class TestRecord:
    def test_what_is_needed_to_measure_again(self, greys, fill_model, tmp_path, capsys):
        output = tmp_path / "deep" / "out"
        more = ("--split", "val", "--protocol", "authors")
        arguments = _arguments(greys, fill_model, output, *more)
        (greys / "test" / "broken.png").write_bytes(b"not a picture")
        assert main(arguments) == 0
        results = _read(output)
        assert results["format"] == "musical-tf evaluation 1"
        assert results["command"].startswith("python -m training.evaluate --dataset folder")
        assert results["dataset"] == "folder"
        assert results["split"] == "val"
        assert results["mask"] == "center"
        assert "core" in results["hardware"]
        assert results["software"]["numpy"] == np.__version__
        assert results["version"] == musical_tf.__version__
        assert len(results["methods"][0]["sha256"]) == 64
        assert list(results["skipped"]) == ["test/broken.png"]
        markdown = (output / "results.md").read_text(encoding="utf-8")
        page = (output / "index.html").read_text(encoding="utf-8")
        assert "1 file was skipped: test/broken.png" in markdown
        assert "1 file was skipped: test/broken.png" in page
        assert "- Split val: the test photographs" in markdown
        assert sorted(path.name for path in output.iterdir()) == [
            *("contact_sheet.png", "images", "index.html", "results.json", "results.md")
        ]
        printed = capsys.readouterr().out
        assert markdown in printed
        assert str(output / "index.html") in printed

    def test_an_earlier_evaluation_is_replaced(self, greys, fill_model, tmp_path):
        output = tmp_path / "out"
        output.mkdir()
        (output / "notes.txt").write_text("mine")
        assert main(_arguments(greys, fill_model, output, "--protocol", "authors")) == 0
        more = ("--limit", "1", "--protocol", "hole")
        assert main(_arguments(greys, fill_model, output, *more)) == 0
        assert _read(output)["count"] == 1
        assert list(_read(output)["protocols"]) == ["hole"]
        assert len(list((output / "images").iterdir())) == 3
        assert (output / "notes.txt").read_text() == "mine"
        assert not [path for path in output.iterdir() if path.name.startswith(".")]


class TestRun:
    def test_a_run_knows_its_dataset_size_mask_and_ablation(self, run_directory, tmp_path):
        output, run = tmp_path / "out", tmp_path / "run"
        shutil.copytree(run_directory, run)
        recipe = json.loads((run / "recipe.json").read_text())
        (run / "recipe.json").write_text(json.dumps(recipe | {"ablation": "no_se"}))
        arguments = ["--run", str(run), "--output", str(output), "--limit", "3"]
        assert main([*arguments, "--protocol", "authors", "--batch-size", "2"]) == 0
        results = _read(output)
        assert (results["dataset"], results["image_size"], results["mask"]) == ("celeba", 64, "box")
        assert results["methods"][0]["label"] == "musical lite, no se"
        assert results["methods"][0]["kind"] == "run"
        assert results["count"] == 3

    def test_predictions_are_the_generators_own(self, run_directory):
        predictor = RunPredictor(run_directory)
        generator = musical_tf.load(run_directory)
        image = np.ascontiguousarray(data.astronaut()[100:164, 200:264])
        images = np.stack([image, image[::-1]])
        holes = np.zeros((2, 64, 64), bool)
        holes[0, 16:48, 16:48] = True
        holes[1, 0:20, 40:64] = True
        result = predictor.predict(images, holes)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result[~holes], images[~holes])

        scaled = images.astype(np.float32) / 127.5 - 1
        raw = np.asarray(generator([scaled, holes[..., None].astype(np.float32)]))
        expected = np.clip(np.rint((raw + 1) * 127.5), 0, 255)
        assert np.abs(result[holes].astype(float) - expected[holes]).max() <= 1
        # Each sample has its own hole: alone it gives the same.
        np.testing.assert_allclose(
            predictor.predict(images[1:], holes[1:])[0].astype(int), result[1].astype(int), atol=1
        )
        other_size = predictor.predict(images[:, :50, :37], holes[:, :50, :37])
        assert other_size.shape == (2, 50, 37, 3)

    def test_attention_maps_are_on_the_page_and_in_the_record(self, run_directory, tmp_path):
        output = tmp_path / "out"
        arguments = ["--run", str(run_directory), "--output", str(output), "--limit", "3"]
        arguments += ["--mask", "center", "--protocol", "authors"]
        assert main([*arguments, "--attention-maps", "2"]) == 0
        results = _read(output)
        mapped = [n for n, row in enumerate(results["images"]) if "attention" in row]
        assert len(mapped) == 2  # the worst and the best
        for number in mapped:
            assert list(results["images"][number]["attention"]) == ["1x1", "3x3"]
            for scale in results["images"][number]["attention"].values():
                assert 0 < scale["strongest"] <= scale["known"] <= 1 <= scale["spread"]
        page = (output / "index.html").read_text(encoding="utf-8")
        assert page.count('<section class="attention"') == 1
        for number in mapped:
            for kind in ("1x1-color", "1x1-arrows", "3x3-color", "3x3-used"):
                file = f"images/{number:05d}-model-attention-{kind}.png"
                assert (output / file).is_file()
                assert page.count(file) == 2  # in a card of its own, and in the section

    def test_attention_maps_that_cannot_be(
        self, run_directory, fill_model, greys, tmp_path, capsys
    ):
        run = tmp_path / "run"
        shutil.copytree(run_directory, run)
        plain = musical_tf.create("musical", "lite", width=4, inner_levels=1, attention=False)
        plain.save(run / "generator.keras")
        more = ["--output", str(tmp_path / "out"), "--attention-maps"]
        for arguments, message in (
            (["--run", str(run), *more], "--attention-maps: this musical has no attention"),
            (
                ["--run", str(run_directory), "--image-size", "72", *more],
                "--attention-maps: height and width must be multiples of 16, got 72 x 72",
            ),
            (_arguments(greys, fill_model, tmp_path / "out", more[-1]), "needs --run"),
            (_arguments(greys, fill_model, tmp_path / "out", more[-1], "1"), "at least 2"),
        ):
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert message in error
            assert "Traceback" not in error
            assert not (tmp_path / "out").exists()


class TestOnnx:
    @pytest.mark.parametrize(
        ("io", "layout", "described"),
        [
            ("uint8", "nhwc", True),
            ("uint8", "nchw", False),
            ("float32", "nhwc", False),
            ("float32", "nchw", True),
        ],
    )
    def test_every_contract(self, tmp_path, io, layout, described):
        path = tmp_path / "model.onnx"
        _constant_fill_model(path, io, layout, None if described else {})
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (3, 20, 24, 3), np.uint8)
        holes = rng.random((3, 20, 24)) < 0.3
        predictor = OnnxPredictor(path)
        result = predictor.predict(images, holes)
        np.testing.assert_array_equal(result, np.where(holes[..., None], np.uint8(FILL), images))
        assert predictor.training_size == (64 if described else None)
        assert predictor.label == ("musical lite (ONNX)" if described else "model")

    def test_wrong_arrays(self, fill_model):
        predictor = OnnxPredictor(fill_model)
        images, holes = np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), bool)
        with pytest.raises(ValueError, match=r"images: expected uint8.*float32"):
            predictor.predict(images.astype(np.float32), holes)
        with pytest.raises(ValueError, match=r"holes: expected bool.*uint8"):
            predictor.predict(images, holes.astype(np.uint8))
        with pytest.raises(ValueError, match=r"holes: expected bool.*\(1, 16, 8\)"):
            predictor.predict(images, holes[:, :, :8])

    def test_other_inputs_are_refused(self, tmp_path):
        value = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1])
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        graph = helper.make_graph(
            [helper.make_node("Identity", ["picture"], ["y"])], "g", [value], [output]
        )
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(
            helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "other.onnx"
        )
        with pytest.raises(ValueError, match=r"image, mask.*got picture and y"):
            OnnxPredictor(tmp_path / "other.onnx")


class TestErrors:
    """Each one line, exit code 2 before and 1 while measuring, and nothing left behind."""

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"--dataset": "celebra"}, "unknown dataset 'celebra'"),
            ({"--dataset": None}, "--dataset is missing; choose from celeba"),
            ({"--data-dir": "nowhere"}, "nowhere is not there"),
            ({"--data-dir": None}, "needs a data directory"),
            ({"--split": "validation"}, "unknown split 'validation'; known: train, val, test"),
            ({"--dataset": "celeba"}, "list_eval_partition.txt"),
            ({"--onnx": "nowhere.onnx"}, "ONNX file nowhere.onnx: no such file"),
            ({"--onnx": None}, "give --run DIR, --onnx FILE or --baselines"),
            ({"--onnx": None, "--run": "nowhere"}, "run nowhere: no such directory"),
            ({"--onnx": None, "--run": "."}, "generator.keras"),
            ({"--run": "."}, "not allowed with"),
            ({"--mask": "centre"}, "did you mean 'center'"),
            ({"--mask": "nowhere"}, "existing folder of mask images, got 'nowhere'"),
            ({"--protocol": "paper"}, "unknown protocol 'paper'; choose from authors, hole"),
            ({"--protocol": "lpips", "--image-size": "24"}, "at least 31 pixels a side"),
            ({"--baselines": "lama"}, "unknown baseline 'lama'; choose from mean"),
            ({"--limit": "0"}, "--limit: expected a whole number of at least 1, got '0'"),
            ({"--image-size": "x"}, "--image-size: expected a whole number of at least 16"),
            ({"--output": None}, "required: --output"),
            ({"--colour": "red"}, "unrecognized arguments"),
        ],
    )
    def test_bad_usage(self, greys, fill_model, tmp_path, monkeypatch, capsys, change, message):
        monkeypatch.chdir(tmp_path)
        arguments = {
            "--dataset": "folder",
            "--data-dir": str(greys),
            "--onnx": str(fill_model),
            "--output": "out",
        } | change
        flags = [part for flag, value in arguments.items() if value for part in (flag, value)]
        assert main(flags) == 2
        error = capsys.readouterr().err
        assert "musical-evaluate: error: " in error
        assert "Traceback" not in error
        assert message in error
        assert not (tmp_path / "out").exists()

    def test_bad_files(self, greys, fill_model, run_directory, tmp_path, capsys):
        (tmp_path / "empty" / "test").mkdir(parents=True)
        (tmp_path / "masks").mkdir()
        (tmp_path / "bad.onnx").write_bytes(b"no model")
        plain = _constant_fill_model(tmp_path / "plain.onnx", metadata={})
        run = shutil.copytree(run_directory, tmp_path / "run")
        (run / "recipe.json").write_text("{")
        (tmp_path / "file").write_text("x")
        holiday = tmp_path / "taken" / "images" / "holiday.png"
        holiday.parent.mkdir(parents=True)
        holiday.write_bytes(b"dear")
        out = tmp_path / "out"
        for arguments, message in (
            (_arguments(tmp_path / "empty", fill_model, out), "no images"),
            (
                _arguments(greys, fill_model, out, "--mask", str(tmp_path / "masks")),
                "holds no images",
            ),
            (
                _arguments(greys, tmp_path / "bad.onnx", out),
                "bad.onnx: ONNX Runtime cannot load it",
            ),
            (_arguments(greys, plain, out), "training size; give --image-size"),
            (["--run", str(run), "--output", str(out)], "recipe.json"),
            (_arguments(greys, fill_model, tmp_path / "file"), "file: not a folder"),
            (
                _arguments(greys, fill_model, tmp_path / "taken"),
                "holds images, not from a finished evaluation",
            ),
        ):
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert message in error
            assert "Traceback" not in error
            assert not out.exists()
        assert holiday.read_bytes() == b"dear"
        (tmp_path / "empty" / "test" / "x.png").write_bytes(b"no picture")
        for arguments, message in (
            (_arguments(tmp_path / "empty", fill_model, out), "x.png"),
            (_arguments(greys, fill_model, tmp_path / "file" / "out"), "Not a directory"),
        ):
            assert main(arguments) == 1
            error = capsys.readouterr().err
            assert message in error
            assert "Traceback" not in error
            assert not out.exists()

    def test_a_failing_model_leaves_an_earlier_evaluation_alone(
        self, greys, fill_model, tmp_path, capsys
    ):
        output = tmp_path / "out"
        assert main(_arguments(greys, fill_model, output, "--protocol", "authors")) == 0
        before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        fixed = _constant_fill_model(tmp_path / "fixed.onnx", size=32)
        capsys.readouterr()
        assert main(_arguments(greys, fixed, output)) == 1
        error = capsys.readouterr().err
        assert "musical-evaluate: error: ONNX Runtime failed: " in error
        assert len(error.strip().splitlines()) == 1
        assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def test_a_missing_package_is_named(self, greys, fill_model, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        assert main(_arguments(greys, fill_model, tmp_path / "out")) == 2
        assert "needs onnxruntime, which is not installed: pip install" in capsys.readouterr().err
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "musical_tf.metrics", None)
        assert main(_arguments(greys, fill_model, tmp_path / "out")) == 2
        error = capsys.readouterr().err
        assert "the Python package musical_tf is not installed; pip install" in error
        assert "'musical-tf[train]'" in error
        assert not (tmp_path / "out").exists()

    def test_interrupted(self, greys, fill_model, tmp_path, monkeypatch, capsys):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(OnnxPredictor, "predict", interrupt)
        assert main(_arguments(greys, fill_model, tmp_path / "out")) == 130
        assert "interrupted; nothing written" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
