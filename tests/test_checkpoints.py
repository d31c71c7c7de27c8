"""Checkpoints of the trainer: whole or not used, and the same training afterwards."""

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
import tensorflow as tf

from training import checkpoints
from training.optimization import learning_rate_schedule

from .tiny_trainer import (
    RECIPE,
    assert_same,
    batch_at,
    make_trainer,
    save,
    values,
)

pytestmark = pytest.mark.usefixtures("eager")


@pytest.mark.parametrize(("precision", "parts"), [("float32", 2), ("mixed_float16", 1)])
def test_three_steps_resumed_for_three_more_equal_six(tmp_path, precision, parts, compiled):
    rate = learning_rate_schedule("cosine", 1e-2, 6, warmup_steps=2)
    options = {
        "precision": precision,
        "ema": 0.9,
        "learning_rate": rate,
        "gradient_accumulation": parts,
    }
    whole = make_trainer(**options)
    for step in range(3):
        whole.update(batch_at(step))
    save(whole, tmp_path)

    # Another seed: everything has to come from the checkpoint.
    resumed = make_trainer(seed=99, **options)
    found, torn = checkpoints.newest(tmp_path)
    assert torn == []
    checkpoints.restore(found, resumed.state())
    assert_same(values(whole), values(resumed))
    for step in range(3, 6):
        assert resumed.update(batch_at(step)) == whole.update(batch_at(step))
    assert_same(values(whole), values(resumed))


def test_a_checkpoint_of_an_older_version_is_read(tmp_path):
    trainer, other = make_trainer(seed=3), make_trainer(seed=4)
    path = save(trainer, tmp_path)
    (path / STATE).unlink()
    tf.train.Checkpoint(**trainer.state()).write(str(path / "state"))
    manifest = json.loads((path / "manifest.json").read_text()) | {"files": {}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    checkpoints.restore(checkpoints.newest(tmp_path)[0], other.state())
    assert_same(values(trainer), values(other))


def test_the_newest_whole_checkpoints_are_kept_and_nothing_else(tmp_path):
    for name in (".partial-step-00000007", ".deleted-step-00000003"):  # of a killed process
        (tmp_path / name).mkdir()
        (tmp_path / name / STATE).touch()
    assert checkpoints.newest(tmp_path / "absent") == (None, [])
    trainer = make_trainer(adversarial=False)
    for step in (1, 2, 3, 4, 5, 5):
        trainer.step.assign(step)
        trainer.generator_variables[0].assign(trainer.generator_variables[0] + 1.0)
        save(trainer, tmp_path, keep=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000003", "step-00000004", "step-00000005"]
    other = make_trainer(adversarial=False, seed=4)
    checkpoints.restore(checkpoints.newest(tmp_path)[0], other.state())
    assert_same(values(trainer), values(other))
    # A torn one of a later step pushes no whole one out.
    trainer.step.assign(9)
    tear(save(trainer, tmp_path, keep=1) / STATE, lambda content: content[:-7])
    trainer.step.assign(6)
    save(trainer, tmp_path, keep=1)
    assert checkpoints.newest(tmp_path)[0].step == 6


STATE = "state.npz"


def with_a_wrong_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def tear(file: Path, change) -> None:
    """Removes a file, or changes its content."""
    content = file.read_bytes()
    file.unlink()
    if change is not None:
        file.write_bytes(change(content))


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    trainer = make_trainer(adversarial=False)
    for step in (1, 2):
        trainer.step.assign(step)
        save(trainer, folder)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (STATE, lambda content: content[:-7], "bytes instead of"),
        (STATE, with_a_wrong_bit, "damaged"),
        ("manifest.json", None, "no readable manifest"),
        ("manifest.json", lambda content: content[:40], "no readable manifest"),
        (STATE, None, "state.npz is missing"),
    ],
)
def test_a_torn_checkpoint_is_named_and_the_one_before_it_used(
    two_checkpoints, tmp_path, file, change, message
):
    shutil.copytree(two_checkpoints, tmp_path, dirs_exist_ok=True)
    tear(tmp_path / "step-00000002" / file, change)
    found, torn = checkpoints.newest(tmp_path)
    assert found.step == 1
    assert len(torn) == 1
    assert message in torn[0]
    assert "step-00000002" in torn[0]


def test_a_failed_save_leaves_the_older_checkpoints_and_no_rubbish(tmp_path):
    trainer = make_trainer()
    trainer.step.assign(1)
    save(trainer, tmp_path)
    trainer.step.assign(2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"step-00000002|File too large"):
            save(trainer, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoints.newest(tmp_path)[0].step == 1


def test_a_checkpoint_of_another_model_is_refused(two_checkpoints):
    found, _ = checkpoints.newest(two_checkpoints)
    with pytest.raises(checkpoints.ForeignCheckpointError, match="variables differ"):
        checkpoints.restore(found, make_trainer(adversarial=True).state())


def test_a_foreign_recipe_is_refused_by_its_keys_and_a_longer_one_is_not():
    checkpoints.check_recipe(RECIPE, {**RECIPE, "steps": 60, "workers": 9}, "x")
    checkpoints.check_recipe(json.loads(json.dumps(RECIPE)), RECIPE, "x")
    checkpoints.check_recipe(RECIPE, {**RECIPE, "a newer key": None}, "x")
    other = {**RECIPE, "method": "csa", "config": {"width": 8, "scales": (1, 3)}}
    with pytest.raises(checkpoints.ForeignCheckpointError) as error:
        checkpoints.check_recipe(RECIPE, other, "runs/x")
    assert "runs/x" in str(error.value)
    assert "config.width is 6 in the run, got 8" in str(error.value)
    assert 'method is "tiny" in the run, got "csa"' in str(error.value)
    assert "scales" not in str(error.value)
    assert checkpoints.recipe_hash(RECIPE) == checkpoints.recipe_hash({**RECIPE, "steps": 60})
    assert checkpoints.recipe_hash(RECIPE) != checkpoints.recipe_hash(other)
