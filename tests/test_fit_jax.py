"""Training under JAX: what its batches are made of, what it refuses, and a whole short run."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import musical_tf
from export import ship
from musical_tf.run_directory import RunDirectory
from tests import jax_probe
from training import fit_jax, jax_data, networks, recipes

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three photographs of noise: of the crop's size, wider, and too wide to be kept whole.

    A fourth file is none.
    """
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for name, width in (("a", SIZE), ("b", 80), ("c", 131)):
        pixels = random.integers(0, 256, (SIZE, width, 3), dtype="uint8")
        for part in ("train", "val"):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / part / f"{name}.png")
    (folder / "train" / "broken.png").write_bytes(b"no picture")
    return folder


def recipe_for(folder, mask="center+irregular", **settings):
    settings = {"width": 4, "inner_levels": 1, "shorter_side": SIZE} | settings
    return recipes.resolve(
        "folder",
        folder,
        preset="lite",
        image_size=SIZE,
        batch_size=16,
        mask=mask,
        steps=2,
        settings=[f"{key}={value}" for key, value in settings.items()],
    )


def read_store(recipe):
    return jax_data.Store.read(recipe, recipe.open_photographs("train"))


@pytest.fixture(scope="module")
def store(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax_data, "HOLES", 12)
        return read_store(recipe_for(folder))


def test_the_store_holds_every_photograph_and_whole_holes(folder, store):
    pixels, sizes = store.arrays["photographs"], store.arrays["sizes"]
    assert sizes.tolist() == [[SIZE, SIZE], [SIZE, 80], [SIZE, 96]]
    for index, name in enumerate("abc"):
        whole = np.asarray(Image.open(folder / "train" / f"{name}.png"))
        beyond = whole.shape[1] - sizes[index, 1]
        kept = whole[:, beyond // 2 : whole.shape[1] - (beyond + 1) // 2]
        np.testing.assert_array_equal(pixels[index, :SIZE, : sizes[index, 1]], kept)
    assert store.arrays["holes"].shape == (12, SIZE * SIZE // 8)
    assert len(np.unique(store.arrays["holes"], axis=0)) > 4


def test_the_store_of_a_dataset_that_is_cut_in_the_middle_has_no_margin(folder, monkeypatch):
    monkeypatch.setattr(jax_data, "HOLES", 2)
    recipe = recipe_for(folder, crop="center", mask="center")
    photographs = recipe.open_photographs("train")
    store = jax_data.Store.read(recipe, photographs)
    assert store.arrays["photographs"].shape == (3, SIZE, SIZE, 3)
    assert [path.rpartition("/")[2] for path in photographs.skipped] == ["broken.png"]


def draw(store, recipe, seed=0):
    import jax

    arrays = {name: jax.device_put(value) for name, value in store.arrays.items()}
    batch = jax_data.draw_batch(arrays, jax.random.key(seed), recipe)
    return {name: np.asarray(value) for name, value in batch.items()}


def levels(image):
    return np.round((image + 1.0) * 127.5).astype(int)


@pytest.mark.parametrize("flip", ["true", "false"])
def test_without_zoom_a_sample_is_a_crop_of_a_photograph(folder, store, flip):
    recipe = recipe_for(folder, crop="random", flip=flip)
    batch = draw(store, recipe)
    assert batch["image"].shape == (16, SIZE, SIZE, 3)
    crops = {}
    for photograph, (_, width) in zip(
        store.arrays["photographs"], store.arrays["sizes"], strict=True
    ):
        for left in range(width - SIZE + 1):
            crop = photograph[:SIZE, left : left + SIZE]
            crops[crop.tobytes()] = "as it is"
            crops[crop[:, ::-1].tobytes()] = "flipped"
    found = [crops[levels(image).astype("uint8").tobytes()] for image in batch["image"]]
    assert set(found) == ({"as it is", "flipped"} if flip == "true" else {"as it is"})
    assert len(np.unique(batch["image"], axis=0)) > 8


def test_the_hole_is_one_of_the_store_turned_or_flipped(folder, store):
    holes = np.unpackbits(store.arrays["holes"], axis=1).reshape(-1, SIZE, SIZE)
    turned = [np.rot90(each, quarter) for each in holes for quarter in range(4)]
    known = {each.tobytes() for hole in turned for each in (hole, hole[::-1])}
    drawn = draw(store, recipe_for(folder))["hole"]
    assert drawn.shape == (16, SIZE, SIZE, 1)
    assert all(each[..., 0].astype("uint8").tobytes() in known for each in drawn)
    assert len({each.tobytes() for each in drawn}) > 3


def test_zoom_shows_a_part_of_the_crop(folder):
    """On a ramp, position is value: what a zoomed crop shows can be read off it."""
    ramp = np.zeros((1, 96, 96, 3), np.uint8)
    ramp[0] = np.minimum(np.arange(96) * 4, 4 * SIZE - 4)[None, :, None]  # its edge goes on
    bits = np.packbits(np.eye(SIZE, dtype=bool))[None]
    arrays = {"photographs": ramp, "sizes": np.int32([[SIZE, SIZE]]), "holes": bits}
    store = jax_data.Store(arrays)
    recipe = recipe_for(folder, crop="random", zoom=0.5, flip="false")
    shown = levels(draw(store, recipe)["image"])[:, SIZE // 2, 4:-4, 0]
    steps = np.diff(shown, axis=1).mean(axis=1)
    assert (
        np.diff(levels(draw(store, recipe)["image"])[:, :, :, 0].astype(int), axis=1) == 0
    ).all()
    assert (steps > 4 / 1.5 - 0.1).all()
    assert (steps < 4.1).all()
    assert np.ptp(steps) > 0.5


def test_colours_change_as_pillow_changes_them():
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(40, 200, (32, 32, 3), dtype="uint8"))
    factors = np.float32([1.1, 0.9, 1.2])
    changed = jax_data._recolor(np.asarray(picture, "float32"), factors)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, factor in zip(kinds, factors, strict=True):
        picture = kind(picture).enhance(factor)
    # Pillow cuts off what is behind the point, each time.
    assert np.abs(np.asarray(changed) - np.asarray(picture, "float32")).max() <= 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run-dir", "new", "--resume"], "nothing to resume"),
        (["--run-dir", "."], "is not empty"),
        (["--run-dir", "new", "--strategy", "mirrored"], "--strategy must be none"),
        (["--run-dir", "new", "--method", "glc"], "method must be musical here, got glc"),
        (["--run-dir", "new", "--set", "lambda_adversarial=0.3"], "adversarial term is for"),
        (["--run-dir", "new", "--seconds", "-1"], "--seconds must be above 0, got -1.0"),
        (["--run-dir", "new", "--replicas", "2"], "--replicas goes with"),
        (["--run-dir", "new", "--seconds", "9", "--steps", "9"], "takes the place of --steps"),
        (["--run-dir", "new"], "backend must be jax, got tensorflow: set KERAS_BACKEND=jax"),
    ],
)
def test_what_it_refuses(folder, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    data = ["--dataset", "folder", "--data-dir", str(folder), "--preset", "lite"]
    assert fit_jax.main([*data, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


@pytest.mark.slow
def test_a_run_learns_resumes_bit_for_bit_and_leaves_what_tensorflow_loads(tmp_path):
    folder = tmp_path / "walls"
    for part in ("train", "val"):
        (folder / part).mkdir(parents=True)
        for grey in (40, 50, 60):
            wall = np.full((SIZE, SIZE, 3), grey, "uint8")
            Image.fromarray(wall).save(folder / part / f"{grey}.png")
    flags = ["--dataset", "folder", "--data-dir", str(folder), "--preset", "lite"]
    flags += ["--image-size", str(SIZE), "--batch-size", "2", "--validate-every", "20", "--set"]
    flags += ["width=4", "inner_levels=1", "learning_rate=0.01", "warmup_steps=5"]
    flags += ["schedule=constant", "lambda_ssim=10", "ema=0.9", "gradient_accumulation=2"]

    def run(name, *arguments, stopped_by=None):
        command = [sys.executable, "-m", "training.fit_jax", "--run-dir", str(tmp_path / name)]
        with subprocess.Popen([*command, *arguments], stdout=-1, stderr=-1, text=True) as process:
            if stopped_by is not None:
                next(line for line in process.stdout if line.startswith("step 20/"))
                process.send_signal(stopped_by)
            out, error = process.communicate()
        assert process.returncode == (0 if stopped_by is None else 128 + stopped_by), error
        assert "oneDNN" not in error  # TensorFlow, whose start takes seconds, is not imported
        return out

    assert "done: 60 steps" in run("straight", *flags, "--steps", "41")
    out = run("parts", *flags, "--steps", "100000", stopped_by=signal.SIGTERM)
    assert "--resume" in out
    run("parts", "--resume", "--steps", "60")
    straight, parts = RunDirectory(tmp_path / "straight"), RunDirectory(tmp_path / "parts")
    logged = straight.losses()
    assert [line["step"] for line in logged] == [20, 40, 60]
    assert logged[-1]["total"] < 0.5 * logged[0]["total"]
    assert parts.losses() == logged
    assert parts.validation.read_text() == straight.validation.read_text()
    first, second = musical_tf.load(straight.path), musical_tf.load(parts.path)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    stage = ship.describe_stage(straight.path)
    assert stage["steps"] == stage["recipe"]["steps"] == 60
    assert stage["photographs"].startswith("3 files, ")


@pytest.fixture(scope="module")
def trained_under_jax(tmp_path_factory):
    output = tmp_path_factory.mktemp("jax") / "trained.npz"
    command = [sys.executable, "-m", "tests.jax_probe", str(output)]
    subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "jax"}, check=True)
    return np.load(output)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "schedule"), jax_probe.CASES)
def test_twenty_steps_are_those_of_the_trainer(trained_under_jax, network, schedule):
    """From equal weights on equal batches: one rate, one Adam, one clipping, one average."""

    def found(name):
        start = f"{network} {schedule} {name} "
        keys = sorted(key for key in trained_under_jax.files if key.startswith(start))
        return [trained_under_jax[key] for key in keys]

    recipe = jax_probe.recipe_of(schedule)
    generator, objective = jax_probe.networks_of(network, recipe)
    started = [variable.numpy() for variable in generator.trainable_variables]
    trainer = networks.make_trainer(
        recipe, networks.Networks(generator, {}, objective), jax_probe.STEPS
    )
    losses = [trainer.update(batch)["total"] for batch in jax_probe.batches()]
    np.testing.assert_allclose(found("losses"), losses, rtol=2e-6)
    paths = [variable.path for variable in generator.trainable_variables]
    # The bias before a normalization cancels: its gradient is noise, which Adam scales up.
    norms = [path for path in paths if path.endswith("_norm/gamma")]
    cancelled = {path.replace("_norm/gamma", "_conv/bias") for path in norms}
    tolerance = {"convolution": 2e-8, "musical": 2e-5}[network]
    for name, values in (
        ("weights", generator.trainable_variables),
        ("averages", trainer.averages),
    ):
        for path, other, value, start in zip(paths, found(name), values, started, strict=True):
            if path in cancelled:
                continue
            difference = np.abs(other - value.numpy()).max()
            assert difference <= tolerance, f"{name} of {path} differ by {difference}"
            assert np.abs(other - start).max() > 10 * tolerance, path
