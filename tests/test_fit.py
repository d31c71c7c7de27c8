"""`training.fit` from the outside: command lines, run folders, and what happens when it goes wrong.

Every run here trains the real `lite` network, a few channels wide, on the embedded photographs;
`test_demo` trains with the losses of features.
"""

import csv
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import musical_tf
from musical_tf.run_directory import RunDirectory
from tests.processes import run_python
from training import checkpoints, fit, networks, options, recipes, runs

TINY = [
    *("--dataset", "demo", "--image-size", "64", "--batch-size", "2", "--mask", "irregular"),
    *("--set", "width=4", "inner_levels=1", "--set", "schedule=constant"),
    *("--set", "sample_every=0", "--seed", "5"),
]
WITHOUT_FEATURES = [
    *("--set", "lambda_perceptual=0", "--set", "lambda_style=0", "--set", "attention=false")
]
QUICK = [*TINY, *WITHOUT_FEATURES]
WATCHED = ["--checkpoint-every", 2, "--validate-every", 2]


def run(*arguments: object) -> int:
    return fit.main([str(argument) for argument in arguments])


def read_log(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def saved_steps(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.fixture(autouse=True)
def eager_unless_compared(request):
    """To trace a graph takes longer than a few steps, but other processes run graphs."""
    tf.config.run_functions_eagerly("straight" not in request.fixturenames)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Four steps without a pause."""
    tf.config.run_functions_eagerly(False)
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    assert run(*QUICK, *WATCHED, "--steps", 4, "--run-dir", run_dir) == 0
    return run_dir


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Two saved steps of a still smaller run, to be copied and maltreated."""
    tf.config.run_functions_eagerly(True)
    run_dir = tmp_path_factory.mktemp("quick") / "run"
    assert run(*QUICK, "--steps", 2, "--run-dir", run_dir, "--checkpoint-every", 1) == 0
    return run_dir


@pytest.fixture
def copied(quick, tmp_path):
    return Path(shutil.copytree(quick, tmp_path / "copied"))


# --- what a run leaves ------------------------------------------------------------------------


def test_a_run_leaves_everything_it_promises(straight):
    assert {path.name for path in straight.iterdir()} == {
        ".lock",
        *("recipe.json", "log.csv", "log.jsonl", "checkpoints", "generator.keras"),
        *("samples", "tensorboard", "time.json", "validation.csv", "best.keras"),
    }
    assert saved_steps(straight) == ["step-00000002", "step-00000004"]
    log = read_log(straight)
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    with (straight / "log.csv").open(newline="") as file:
        table = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert table == log
    recipe = recipes.Recipe.from_json((straight / "recipe.json").read_text())
    assert (recipe.steps, recipe.seed, recipe.config["width"]) == (4, 5, 4)
    terms = musical_tf.methods.musical.build_objective(recipe.method_config()).generator_weights
    assert "l1" in terms
    assert set(log[0]) == {"step", *terms, "total"}
    for row in log:
        total = sum(weight * row[name] for name, weight in terms.items())
        assert row["total"] == pytest.approx(total, rel=1e-5)
    found, _ = checkpoints.newest(straight / "checkpoints")
    photographs = found.manifest["recipe"].pop("photographs")
    assert found.manifest["recipe"] == json.loads(recipe.to_json())
    assert photographs.startswith(f"{len(recipe.open_photographs())} files, ")


def test_the_weights_can_be_loaded_and_are_the_averaged_ones(straight):
    generator = musical_tf.load(straight)
    recipe = recipes.Recipe.from_json((straight / "recipe.json").read_text())
    trainer = networks.make_trainer(recipe, networks.build(recipe, initial=False), 4)
    checkpoints.restore(checkpoints.newest(straight / "checkpoints")[0], trainer.state())
    assert len(trainer.averages) == len(generator.trainable_weights)
    for weight, average in zip(generator.trainable_weights, trainer.averages, strict=True):
        np.testing.assert_array_equal(weight.numpy(), average.numpy())


def test_a_run_of_another_process_resumed_here_is_the_uninterrupted_one(straight, tmp_path):
    run_dir = tmp_path / "run"
    arguments = [*QUICK, *WATCHED, "--steps", 2, "--run-dir", run_dir]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = run_python("-m", "training.fit", *arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, "")  # nothing of TensorFlow's start
    assert read_log(run_dir) == read_log(straight)[:2]
    # Another length, and nothing else said: the run folder knows the rest.
    assert run("--run-dir", run_dir, "--resume", "--steps", 4) == 0
    for name in ("log.jsonl", "log.csv", "validation.csv"):
        assert (run_dir / name).read_text() == (straight / name).read_text()
    parts = json.loads((run_dir / "time.json").read_text())
    assert [(part["from_step"], part["to_step"]) for part in parts] == [(0, 2), (2, 4)]
    assert all(part["cpu_seconds"] > 0 and part["seconds"] > 0 for part in parts)
    for name in ("step-00000002", "step-00000004"):
        manifests = [
            checkpoints.open_checkpoint(folder / "checkpoints" / name).manifest
            for folder in (run_dir, straight)
        ]
        # The same bytes: weights, optimizers, average, step.
        assert manifests[0]["files"] == manifests[1]["files"]
    for name in ("generator.keras", "best.keras"):
        first, second = musical_tf.load(run_dir / name), musical_tf.load(straight / name)
        for one, two in zip(first.weights, second.weights, strict=True):
            np.testing.assert_array_equal(one.numpy(), two.numpy())


def test_the_seed_decides_the_initial_weights():
    recipe = recipes.resolve("demo", settings=["gradient_accumulation=2", "width=4"])
    trainer = networks.make_trainer(recipe, networks.build(recipe, initial=False), 10)
    assert trainer.gradient_accumulation == 2  # the recipe reaches the trainer
    weights = []
    for seed in (5, 5, 6):
        recipe = recipes.resolve("demo", seed=seed, settings=["width=4", "inner_levels=1"])
        weights.append(networks.build(recipe, initial=True).generator.get_weights())
    kernels = [index for index, value in enumerate(weights[0]) if value.ndim == 4]
    for index in kernels:
        np.testing.assert_array_equal(weights[0][index], weights[1][index])
        assert not np.array_equal(weights[0][index], weights[2][index])


def test_a_finished_run_can_be_resumed_without_effect(copied, capsys):
    before = (copied / "log.csv").read_bytes()
    (copied / "generator.keras").unlink()  # as if it had been killed before writing it
    assert run(*QUICK, "--steps", 2, "--run-dir", copied, "--resume") == 0
    assert (copied / "log.csv").read_bytes() == before
    assert "done: 2 steps" in capsys.readouterr().out
    musical_tf.load(copied)


def test_runs_without_a_name_are_numbered(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "0041-something").mkdir(parents=True)
    assert run(*QUICK, "--steps", 50, "--max-minutes", 1e-6) == 0
    run_dir = Path("runs/0042-demo-musical-lite")
    assert saved_steps(run_dir) == ["step-00000001"]
    out = capsys.readouterr().out
    assert "stopped at step 1 of 50" in out
    assert f"python -m training.fit --run-dir {run_dir} --resume" in out


def test_dry_run_shows_everything_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # 96 pixels: DenseNet121 asks for them.
    arguments = ["--dataset", "demo", "--image-size", 96, "--batch-size", 2, "--epochs", 7]
    settings = {"width": 4, "inner_levels": 1, "lambda_adversarial": 0.3, "adversarial_factor": 0.5}
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    assert run(*arguments, "--dry-run", "--run-dir", "there") == 0
    out = capsys.readouterr().out
    recipe, rest = out.split("\n\n", 1)
    generator = musical_tf.create("musical", "lite", membrane=True, **settings)
    assert recipes.Recipe.from_json(recipe).method_config() == generator.config
    assert f"generator  {generator.count_params():,} parameters" in rest
    assert "densenet121  " in rest
    assert "image (2, 96, 96, 3) float32 in [-1, 1], hole (2, 96, 96, 1)" in rest
    assert "output  (2, 96, 96, 3)" in rest
    assert f"loss  {generator.config.lambda_l1:g} l1 + " in rest
    assert "0.15 adversarial" in rest
    count = len(recipes.resolve("demo").open_photographs())
    assert f"steps  {-(-7 * count // 2)}, " in rest
    assert list(tmp_path.iterdir()) == []
    assert run(*QUICK, "--steps", 2, "--init", tmp_path / "none.keras", "--dry-run") == 2
    assert "No generator at" in capsys.readouterr().err


def test_a_missing_data_folder_is_reported_before_tensorflow_starts(tmp_path):
    script = (
        "import sys\nfrom training import fit\n"
        f"code = fit.main(['--dataset', 'folder', '--data-dir', {str(tmp_path / 'none')!r}])\n"
        "assert code == 2, code\nassert 'tensorflow' not in sys.modules\n"
    )
    done = run_python("-c", script)
    assert done.returncode == 0, done.stderr
    assert "is not there" in done.stderr


def test_two_runs_in_one_folder_are_refused_until_the_first_is_killed(copied, capsys):
    script = (
        "import sys, time\nfrom musical_tf.run_directory import RunDirectory\n"
        "from training import runs\nwith runs.run_lock(RunDirectory(sys.argv[1])):\n"
        "    print('locked', flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(copied)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "locked\n"
            assert run("--run-dir", copied, "--resume") == 2
            assert "another process is training" in capsys.readouterr().err
        finally:
            first.kill()
    assert run("--run-dir", copied, "--resume") == 0


# --- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--dataset must be", "celeba", "--resume"]),
        (["--dataset", "celebb"], ["celebb", "celeba", "paris_streetview", "folder"]),
        (["--dataset", "demo", "--stepz", "3"], ["--stepz"]),
        (["--dataset", "demo", "--preset", "liet"], ["liet", "paper, official, lite"]),
        (["--dataset", "demo", "--method", "nope"], ["nope", "musical"]),
        (["--dataset", "demo", "--set", "widht=3"], ["widht", "width", "learning_rate"]),
        (["--dataset", "demo", "--epochs", "1", "--steps", "1"], ["not allowed with"]),
        (["--dataset", "demo", "--batch-size", "two"], ["--batch-size", "two"]),
        (["--dataset", "demo", "--keep", "0"], ["--keep", "at least 1"]),
        (["--dataset", "demo", "--max-minutes", "0"], ["--max-minutes", "above 0"]),
        (["--dataset", "demo", "--feature-weights", "absent.npz"], ["absent.npz"]),
        (["--resume"], ["--resume needs --run-dir"]),
        (["--resume", "--run-dir", "nowhere"], ["nothing to resume", "nowhere"]),
        (
            ["--dataset", "celeba", "--data-dir", "nowhere"],
            ["nowhere", "img_align_celeba", "list_eval_partition.txt"],
        ),
        (
            ["--dataset", "demo", "--precision", "mixed_float16"],
            ["mixed_float16 needs a GPU", "mixed_bfloat16", "--force-precision"],
        ),
    ],
)
def test_wrong_usage_is_one_error_that_lists_what_is_right(
    arguments, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "musical-fit: error: " in error
    assert "Traceback" not in error
    for words in expected:
        assert words in error
    assert [
        path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".keras"
    ] == []


def test_what_cannot_be_built_leaves_no_run_folder(tmp_path, capsys):
    # 64 pixels are too few for the discriminator.
    arguments = [*QUICK, "--steps", 1, "--run-dir", tmp_path / "run"]
    assert run(*arguments, "--set", "lambda_adversarial=0.3") == 2
    assert "at least 96 x 96" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_sample_sheets_fall_back_on_the_training_photographs(tmp_path):
    """A folder of one has no test split; one whose only test photograph is torn has none to use."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    recipe = recipes.resolve("folder", photographs, preset="lite", image_size=64)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 80, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(photographs / "p0.png")
    assert runs.samples_of(recipe, ("test", "train"), 8)[0].shape == (1, 64, 64, 3)
    for number in range(1, 5):
        Image.fromarray(pixels[number]).save(photographs / f"p{number}.png")
    (held_out,) = recipe.open_photographs("test").paths
    Path(held_out).write_bytes(b"torn")
    trained_on = len(recipe.open_photographs("train"))
    assert runs.samples_of(recipe, ("test", "train"), 8)[0].shape == (trained_on, 64, 64, 3)


def test_a_used_folder_or_one_that_cannot_be_written_is_not_touched(copied, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    assert run(*QUICK, "--steps", 2, "--run-dir", copied) == 2
    assert "--resume" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    (tmp_path / "file").write_text("in the way")
    assert run(*QUICK, "--steps", 1, "--run-dir", tmp_path / "file" / "run") == 2
    assert str(tmp_path / "file" / "run") in capsys.readouterr().err


# --- resuming what is not right ---------------------------------------------------------------


def test_resuming_under_another_recipe_names_the_keys(copied, capsys):
    before = (copied / "recipe.json").read_bytes()
    flags = ["--batch-size", 4, "--set", "width=8", "--set", "learning_rate=0.1"]
    assert run("--run-dir", copied, "--resume", *flags) == 2
    error = capsys.readouterr().err
    assert "batch_size is 2 in the run, got 4" in error
    assert "config.width is 4 in the run, got 8" in error
    assert "learning_rate is" in error
    assert run("--run-dir", copied, "--resume", "--steps", 1) == 2
    assert "is at step 2 already, and the run would end at step 1" in capsys.readouterr().err
    assert (copied / "recipe.json").read_bytes() == before
    recipe = json.loads(before) | {"seed": 77}  # checkpoints of another run
    (copied / "recipe.json").write_text(json.dumps(recipe))
    assert run("--run-dir", copied, "--resume", "--steps", 3) == 2
    assert "seed is 5 in the run, got 77" in capsys.readouterr().err


def test_a_checkpoint_from_before_a_key_was_known_is_of_its_default(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints.save(folder, {"step": []}, step=1, epoch=0, recipe={"seed": 5})
    known = dataclasses.fields(recipes.Recipe)
    later = {each.name: each.default for each in known if each.default is not dataclasses.MISSING}
    assert later["gradient_accumulation"] == 1
    recipe = later | {"seed": 5}
    assert runs.find_checkpoint(RunDirectory(tmp_path), recipe).step == 1
    with pytest.raises(ValueError, match="gradient_accumulation is 1 in the run, got 2"):
        runs.find_checkpoint(RunDirectory(tmp_path), recipe | {"gradient_accumulation": 2})


def test_a_dry_run_before_the_first_checkpoint_looks_for_the_weights_to_start_from(copied, capsys):
    recipe = json.loads((copied / "recipe.json").read_text())
    (copied / "recipe.json").write_text(json.dumps(recipe | {"init": "none.keras"}))
    shutil.rmtree(copied / "checkpoints")
    for more in ((), ("--dry-run",)):
        assert run("--run-dir", copied, "--resume", *more) == 2
        assert "No generator at" in capsys.readouterr().err


def test_a_torn_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    copied, quick, tmp_path, capsys
):
    torn = copied / "checkpoints" / "step-00000002" / "state.npz"
    torn.write_bytes(torn.read_bytes()[:-100])
    assert run("--run-dir", copied, "--resume", "--steps", 2) == 0
    captured = capsys.readouterr()
    assert "warning: skipped an incomplete checkpoint" in captured.err
    assert "step-00000002" in captured.err
    assert read_log(copied) == read_log(quick)
    assert checkpoints.newest(copied / "checkpoints")[0].step == 2


def test_nothing_but_torn_checkpoints_is_an_error(copied, capsys):
    for folder in (copied / "checkpoints").iterdir():
        (folder / "manifest.json").unlink()
    assert run("--run-dir", copied, "--resume", "--steps", 3) == 2
    assert "no checkpoint in" in capsys.readouterr().err
    assert len(read_log(copied)) == 2


# --- failing and stopping on the way ----------------------------------------------------------


def test_a_nan_loss_ends_with_its_name_and_the_last_good_checkpoint(tmp_path, capsys):
    settings = ["--set", "learning_rate=1e25", "--set", "warmup_steps=0", "--checkpoint-every", 1]
    run_dir = tmp_path / "run"
    assert run(*QUICK, *settings, "--steps", 9, "--run-dir", run_dir) == 1
    error = capsys.readouterr().err
    assert "musical-fit: error: loss term 'l1' is nan at step" in error
    last = saved_steps(run_dir)[-1]
    assert f"Last good checkpoint: {run_dir / 'checkpoints' / last}" in error
    assert "Traceback" not in error


def test_a_full_disk_keeps_the_last_good_checkpoint(copied, capsys):
    weights = (copied / "generator.keras").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        assert run("--run-dir", copied, "--resume", "--steps", 3) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert "step-00000003" in error
    assert f"Last good checkpoint: {copied / 'checkpoints' / 'step-00000002'}" in error
    assert saved_steps(copied) == ["step-00000001", "step-00000002"]
    assert (copied / "generator.keras").read_bytes() == weights


def test_a_signal_saves_and_says_how_to_go_on(tmp_path, capsys):
    run_dir, number = tmp_path / "run", signal.SIGINT

    def interrupt():
        while not (run_dir / "log.jsonl").is_file() or len(read_log(run_dir)) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=interrupt)
    sender.start()
    code = run(*QUICK, "--steps", 100_000, "--run-dir", run_dir)
    sender.join()
    assert code == 128 + number
    done = len(read_log(run_dir))
    assert saved_steps(run_dir) == [f"step-{done:08d}"]
    captured = capsys.readouterr()
    assert f"stopped at step {done} of 100000" in captured.out
    assert f"--run-dir {run_dir} --resume" in captured.out


def start(*settings, init):
    """The networks of a new run with the flags of `QUICK`."""
    flags = options.make_parser().parse_args([*QUICK, "--init", str(init), "--set", *settings])
    return networks.build(options.resolved(flags), initial=True).generator


def test_training_starts_from_trained_weights(quick):
    before, after = musical_tf.load(quick), start("ema=0", init=quick)
    for one, other in zip(before.get_weights(), after.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_attention_joins_a_network_trained_without(quick):
    flags = [*TINY, "--set", "squeeze_ratio=0", "--init", str(quick)]
    recipe = options.resolved(options.make_parser().parse_args(flags))
    before, after = musical_tf.load(quick), networks.build(recipe, initial=True).generator
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype("float32")
    hole = np.zeros((1, 64, 64, 1), "float32")
    hole[:, 16:48, 16:48] = 1
    assert (before.config.attention, after.config.attention) == (False, True)
    np.testing.assert_allclose(after([image, hole]), before([image, hole]), atol=1e-5)


@pytest.mark.parametrize(
    ("init", "message"),
    [("nowhere", "No generator at"), ("", "does not fit this musical of preset lite")],
)
def test_weights_that_do_not_fit_are_refused_by_name(init, message, quick, tmp_path, capsys):
    start = ["--init", quick / init if init else quick, "--set", "width_limit=4"]
    assert run(*QUICK, *start, "--steps", 1, "--run-dir", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_skipped_photographs_are_all_named_in_the_run_folder(tmp_path, capsys, caplog):
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        pixels = rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{name}.png")
    train = recipes.resolve("folder", photographs, preset="lite", image_size=64)
    victim = Path(train.open_photographs("train").paths[0])
    victim.unlink()
    victim = victim.with_name("j\udcff.png")  # a byte that is no text
    victim.write_bytes(b"torn")
    options = ["--dataset", "folder", "--data-dir", photographs, *QUICK[2:]]
    assert run(*options, "--preset", "lite", "--steps", 2, "--run-dir", tmp_path / "run") == 0
    lines = (tmp_path / "run" / "skipped.txt").read_text(errors="surrogateescape").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{victim}: ")
    assert "1 skipped" in capsys.readouterr().out
    assert f"skipped {photographs / 'j'}\\udcff.png: cannot be read" in caplog.text
