"""The models that are part of the package: whole, small, and what their cards say."""

import functools
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

import musical_tf
from benchmarks import shipped_models
from musical_tf import metrics, onnx_runtime
from musical_tf import named_models as library
from serving import named_models, predict
from serving.session import InpaintingSession
from training import fit

onnxruntime = onnx_runtime.load()

NAMES = ("faces", "photo")


@functools.cache
def session(name: str) -> InpaintingSession:
    """Opened as the command line opens it for one photograph."""
    return InpaintingSession(name)


def photograph() -> np.ndarray:
    return np.asarray(Image.fromarray(data.astronaut()).resize((150, 130)))


def hole() -> np.ndarray:
    mask = np.zeros((130, 150), bool)
    mask[40:80, 50:100] = True
    mask[100:, :20] = True
    return mask


def test_what_serves_and_what_trains():
    assert tuple(named_models.names()) == NAMES
    assert tuple(library.names()) == (*NAMES, "photo_research")
    assert named_models.DEFAULT in NAMES
    with pytest.raises(FileNotFoundError, match=r"to_onnx.py --run photo_research"):
        named_models.find("photo_research")


def test_without_their_package_the_weights_are_named(tmp_path, monkeypatch, capsys):
    for name in NAMES:
        (tmp_path / f"{name}.json").write_bytes((library.FOLDER / f"{name}.json").read_bytes())
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    assert tuple(library.names()) == NAMES
    for load in (lambda: musical_tf.load("photo"), metrics.LPIPS):
        with pytest.raises(FileNotFoundError, match="pip install musical-tf-weights"):
            load()
    words = ["--dataset", "demo", "--method", "musical", "--preset", "lite", "--init", "photo"]
    assert fit.main([*words, "--run-dir", str(tmp_path / "run"), "--steps", "1"]) != 0
    assert "pip install musical-tf-weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_the_card_and_small(name):
    card = library.card(name)
    files = {"onnx": named_models.find(name), "keras": library.file(name)}
    for kind, file in files.items():
        content = file.read_bytes()
        assert len(content) <= 12_000_000
        assert card["files"][kind]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_the_file_says_what_it_is(name):
    contract = session(name).contract
    card = library.card(name)
    assert (contract.name, contract.method, contract.preset) == (name, "musical", "lite")
    assert (contract.io, contract.layout, contract.precision) == ("uint8", "nhwc", "float16")
    assert contract.weights_sha256 == card["files"]["keras"]["sha256"]
    assert (contract.data, contract.weights_licence) == (card["data"], card["licence"])
    assert contract.training_size == card["training_size"] == card["recipe"]["image_size"]
    assert contract.strategy == card.get("strategy", "crop")
    assert ("research" in contract.weights_licence) == (name == "faces")
    assert all(stage["cpu_minutes"] > 0 for stage in card["stages"])
    assert "/" not in json.dumps([stage["recipe"] for stage in card["stages"]])


@pytest.mark.parametrize("name", NAMES)
def test_known_pixels_come_back_from_the_file_itself(name):
    session = onnxruntime.InferenceSession(named_models.find(name))
    mask = hole().astype(np.uint8)[None] * np.uint8(255)
    outputs = session.run(None, {"image": photograph()[None], "mask": mask})
    filled = outputs[0]
    np.testing.assert_array_equal(filled[0][~hole()], photograph()[~hole()])
    assert not np.array_equal(filled[0][hole()], photograph()[hole()])


@pytest.mark.parametrize("name", NAMES)
def test_keras_and_onnx_fill_alike(name):
    generator = musical_tf.load(name)
    assert generator.count_params() == library.card(name)["parameters"]
    inpaint = musical_tf.inference.InpaintingFunction(generator)
    mask = hole().astype(np.uint8)[None] * np.uint8(255)
    outputs = inpaint.outputs(photograph()[None], mask)
    expected = np.asarray(outputs.get("predicted", outputs["inpainted"]))[0].astype(int)
    filled = session(name).inpaint(photograph(), hole(), "original", fill="network")
    assert np.abs(filled - expected).max() <= 2


def test_a_seed_gives_another_fill():
    fills = [session("photo").inpaint(photograph(), hole(), seed=seed) for seed in (0, 1, 1)]
    assert (fills[0] != fills[1]).any(axis=-1)[hole()].mean() > 0.2
    np.testing.assert_array_equal(fills[1], fills[2])
    np.testing.assert_array_equal(fills[1][~hole()], photograph()[~hole()])


def test_every_training_photograph_of_photo_is_credited():
    text = (library.FOLDER / "CREDITS.tsv").read_text(encoding="utf-8")
    head, *rows = (line.split("\t") for line in text.splitlines())
    assert head == ["source", "licence", "file", "origin", "credit", "page"]
    assert {len(row) for row in rows} == {len(head)}
    open_licences = {"CC0 1.0", "Public Domain", "MIT", "Unlicense", "CC BY 2.0", "CC BY 4.0"}
    assert {row[1] for row in rows} == open_licences
    assert len({(row[0], row[2]) for row in rows}) == len(rows) == 4126
    named = [row for row in rows if row[1] in ("CC BY 2.0", "CC BY 4.0")]
    assert all(row[4] or row[5] for row in named)


def test_one_command_without_a_model(tmp_path):
    Image.fromarray(photograph()).save(tmp_path / "in.png")
    Image.fromarray(hole()).save(tmp_path / "mask.png")
    flags = {"--image": "in.png", "--mask": "mask.png", "--output": "out.png"}
    words = [word for flag, file in flags.items() for word in (flag, str(tmp_path / file))]
    assert predict.main(words) == 0
    filled = np.asarray(Image.open(tmp_path / "out.png"))
    np.testing.assert_array_equal(filled, session("photo").inpaint(photograph(), hole()))


def box(height=96, width=96):
    mask = np.zeros((height, width), bool)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    return mask


def rocket(height=96, width=96):
    return np.asarray(Image.fromarray(data.rocket()).resize((width, height)))


def row_of_holes():
    mask = np.zeros((1, 5000), bool)
    mask[:, 2000:2300] = mask[:, 40:44] = mask[:, -1] = True
    return mask


HALVES = np.repeat(np.uint8([30, 220]), 48)[None, :, None].repeat(96, axis=0).repeat(3, axis=2)
BAD = {
    "99 % hole": (rocket(), np.arange(96 * 96).reshape(96, 96) >= 92),
    "one color": (np.full((96, 96, 3), np.uint8([200, 60, 120])), box()),
    "two tones": (HALVES, box()),
    "noise": (np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8), box()),
    "holes at every border": (rocket(), ~np.pad(np.ones((80, 80), bool), 8)),
    "500 specks": (rocket(), np.random.default_rng(1).permutation(96 * 96).reshape(96, 96) < 500),
    "1 x 5000": (rocket(1, 5000), row_of_holes()),
    "5000 x 1": (rocket(5000, 1), row_of_holes().T),
}


@pytest.mark.parametrize(("image", "mask"), BAD.values(), ids=BAD)
def test_bad_photographs_are_filled_no_worse_than_by_the_network(image, mask):
    strategy = "original" if image.shape[0] == image.shape[1] else "crop"
    filled, again, painted = (
        session("photo").inpaint(image, mask, strategy, fill=fill)
        for fill in ("auto", "auto", "network")
    )
    np.testing.assert_array_equal(filled, again)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    for figure in (np.mean, np.std):  # of each color, in gray levels; a copy of noise is noise
        truth, ours, networks = (figure(each[mask], axis=0) for each in (image, filled, painted))
        assert (np.abs(ours - truth) <= np.abs(networks - truth) + 6).all()
    if (~mask).mean() < 0.02 or np.ptp(image, axis=(0, 1)).max() == 0:  # nothing to copy
        assert np.abs(filled[mask] - painted[mask].astype(int)).mean() < 6


def is_kept(setting, file):
    """Whether a setting was measured with the present weights at the present test scale."""
    weights = library.card(setting.model)["files"]["keras"]["sha256"]
    wanted = {"weights_sha256": weights, "shorter_side": setting.side, "resampling": "bicubic"}
    return wanted.items() <= json.loads(file.read_text())["settings"].get(setting.name, {}).items()


def test_what_was_measured_is_of_these_weights():
    file = shipped_models.RESULTS
    settings = json.loads(file.read_text())["settings"]
    assert list(settings) == [setting.name for setting in shipped_models.SETTINGS]
    for setting in shipped_models.SETTINGS:
        assert is_kept(setting, file)  # these weights at the authors' test scale
    for each in settings.values():
        assert each["methods"][each["model"]]["known_change"] == 0


# ---- the benchmark, without models


def figures(psnr, ssim, **others):
    metrics = {"authors/psnr": psnr, "authors/ssim": ssim, "authors/l1_percent": 1.0, **others}
    return {"metrics": metrics, "known_change": 0}


def test_a_bar_is_reached_or_named():
    absolute = shipped_models.Setting(
        "faces", "celeba", 128, bars=(("authors/psnr", 26.4), ("authors/l1_percent", 1.8))
    )
    assert shipped_models.missed(absolute, {"faces": figures(26.4, 0.9)}) == []
    worse = figures(26.39, 0.9) | {"known_change": 3}
    worse["metrics"]["authors/l1_percent"] = 1.9
    assert shipped_models.missed(absolute, {"faces": worse}) == [
        *("authors/l1_percent 1.9, bar 1.8", "authors/psnr 26.39, bar 26.4"),
        "known pixels change by up to 3 gray levels",
    ]
    both = {"photo": figures(30, 0.95), "Telea": figures(29, 0.96)}
    place = ("photo", "paris_streetview", 256, 0.1)
    beats = shipped_models.Setting(*place, beats=True)
    assert shipped_models.missed(beats, both) == ["authors/ssim 0.95, Telea 0.96"]
    assert shipped_models.missed(shipped_models.Setting(*place), both) == []
    # What is shown the truth is not to be beaten.
    found = {"photo": figures(30, 0.95), shipped_models.MIGAN: figures(29, 0.94)}
    assert shipped_models.missed(beats, found | {shipped_models.MIGAN_SHOWN: figures(40, 1)}) == []


def test_a_changed_known_pixel_is_seen_and_looking_under_a_hole_refused():
    def careless(images, holes):
        filled = images.copy()
        filled[:, 0, 0] += 7
        return filled

    def peeping(images, holes):
        return np.where(holes[..., None], images // 2, images)

    images, holes = np.full((2, 4, 4, 3), 100, np.uint8), np.zeros((2, 4, 4), bool)
    for changed in (7, 0):
        watched = shipped_models.Watched(careless, shown=True)
        watched(images, holes)
        assert watched.known_change == changed
        holes[:, 0, 0] = True
    grey = shipped_models.Watched(lambda images, holes: np.where(holes[..., None], 128, images))
    grey(images, holes)
    with pytest.raises(RuntimeError, match="what lies under a hole decides"):
        shipped_models.Watched(peeping)(images, holes)
    shipped_models.Watched(peeping, shown=True)(images, holes)


def test_whole_photographs_keep_their_shape_and_the_central_squares_hole(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (109, 89, 3), dtype=np.uint8)
    (tmp_path / "img_align_celeba").mkdir()
    Image.fromarray(picture).save(tmp_path / "img_align_celeba" / "000001.png")
    (tmp_path / "list_eval_partition.txt").write_text("000001.png 2\n")
    for side, shape in ((89, (109, 89)), (178, (218, 178))):
        test = shipped_models.WholePhotographs(
            *("celeba", str(tmp_path), "test", side, None, "center", None)
        )
        ((_, image, hole),) = test.samples()
        assert image.shape == (*shape, 3)
        assert hole.shape == shape
        assert test.photographs.shorter_side == side
        rows, columns = np.nonzero(hole)
        middle = (shape[0] - side) // 2
        bounds = [side // 4, 3 * side // 4 - 1]
        assert [columns.min(), columns.max()] == bounds
        assert [rows.min() - middle, rows.max() - middle] == bounds
        if side == 89:
            np.testing.assert_array_equal(image, picture)


def test_figures_are_kept_as_they_come_and_go_with_their_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(json.dumps({"metrics": []}))
    file = tmp_path / "results.json"

    def setting(model, dataset, side, weights):
        name = f"{dataset}, {side} px, center"
        place = {"dataset": dataset, "side": side, "hole": "center", "count": 3}
        place |= {"shorter_side": side, "resampling": "bicubic"}
        kept = {"model": model, "weights_sha256": weights, **place}
        return {name: kept | {"methods": {model: figures(side / 10, 0.9)}}}

    shipped_models.keep(file, setting("faces", "celeba", 256, "old"))
    shipped_models.keep(file, setting("photo", "paris_streetview", 256, "other"))
    shipped_models.keep(file, setting("faces", "celeba", 128, "old"))
    names = list(json.loads(file.read_text())["settings"])
    assert names == [
        *("celeba, 128 px, center", "celeba, 256 px, center", "paris_streetview, 256 px, center"),
    ]
    card = json.loads((tmp_path / "faces.json").read_text())
    assert [each["authors/psnr"] for each in card["metrics"]] == [12.8, 25.6]
    files = {"keras": {"sha256": "new"}}
    (tmp_path / "faces.json").write_text(json.dumps({"metrics": [], "files": files}))
    small = shipped_models.Setting("faces", "celeba", 128)
    assert not is_kept(small, file)
    shipped_models.keep(file, setting("faces", "celeba", 128, "new"))
    assert is_kept(small, file)
    other_scale = setting("faces", "celeba", 128, "new")
    other_scale["celeba, 128 px, center"]["shorter_side"] = 175
    shipped_models.keep(tmp_path / "other.json", other_scale)
    assert not is_kept(small, tmp_path / "other.json")
    assert not is_kept(shipped_models.Setting("faces", "celeba", 256), file)
    names = list(json.loads(file.read_text())["settings"])
    assert names == ["celeba, 128 px, center", "paris_streetview, 256 px, center"]
