"""The files of a run's folder in states that no run leaves: damaged, cut, of other programs."""

import json

import pytest

from musical_tf.run_directory import RunDirectory
from training import checkpoints

DEEP = b"[" * 100_000


@pytest.mark.parametrize("content", [b"\xff", b'{"step": 2, "l1": "\xff"}', DEEP, b'{"step": []}'])
def test_the_log_ends_before_a_damaged_line(tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n' + content + b'\n{"step": 3}\n')
    assert RunDirectory(tmp_path).losses() == [{"step": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "must hold a number a column"),
        (b"step,psnr\n1\n", "must hold a number a column"),
        (b"step,psnr\n1,2,3\n", "must hold a number a column"),
        (b"step,psnr\n1," + b"9" * 200_000, "must hold a number a column"),
        (b"step,ssim\n1,2\n", "must have the column psnr"),
        (b"psnr\n1\n", "must have the column step"),
    ],
)
def test_damaged_validations_are_named(tmp_path, content, message):
    (tmp_path / "validation.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        RunDirectory(tmp_path).validations()


def test_a_record_of_times_without_an_end_is_named(tmp_path):
    part = {"to_step": float("inf"), "seconds": 1, "cpu_seconds": 1}
    (tmp_path / "time.json").write_text(json.dumps([part]))
    with pytest.raises(ValueError, match="must record"):
        RunDirectory(tmp_path).duration()


def test_a_manifest_nested_too_deeply_is_torn(tmp_path):
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "manifest.json").write_bytes(DEEP)
    found, torn = checkpoints.newest(tmp_path)
    assert found is None
    assert "no readable manifest" in torn[0]


def test_names_of_skipped_photographs_may_be_any_bytes(tmp_path):
    run = RunDirectory(tmp_path)
    run.note_skipped({"b\udcff.png": "damaged"})
    run.note_skipped({"a.png": "empty"})
    assert run.skipped_file.read_bytes() == b"a.png: empty\nb\xff.png: damaged\n"
