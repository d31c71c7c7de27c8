"""The demo: its picture, its files, and how it ends when a step fails."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from training import demo, recipes


def test_picture_shows_input_hole_results_truth():
    photograph, result, shipped = (np.full((16, 16, 3), v, np.uint8) for v in (10, 90, 200))
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    row = (photograph, hole, result, shipped)
    pixels = np.asarray(demo.draw_picture([row, row], "a caption", tile=32)).reshape(-1, 3)
    counts = {level: int((pixels == level).all(axis=1).sum()) for level in (10, 90, 128, 200)}
    # Enlarged twice: 32 x 32 pixels a picture, 16 x 16 of them missing.
    assert counts == {10: 2 * (1024 - 256 + 1024), 90: 2048, 128: 512, 200: 2048}


def test_held_out_photographs_and_masks_are_written(tmp_path):
    held_out = demo.write_held_out(tmp_path, recipes.resolve("demo"))
    assert len(held_out) >= 2
    for name, photograph, hole in held_out:
        with Image.open(tmp_path / "photographs" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), photograph)
        with Image.open(tmp_path / "masks" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image) > 127, hole)
    assert not list(tmp_path.rglob(".partial-*"))


def test_command_is_printed_as_a_user_would_type_it(tmp_path, capfd):
    missing = tmp_path / "no such model.onnx"
    with pytest.raises(demo.CommandError) as failure:
        demo.run(
            *("serving.predict", "--model", missing, "--image", missing),
            *("--mask", missing, "--output", tmp_path / "out.png"),
        )
    assert failure.value.code != 0
    printed = capfd.readouterr()
    assert printed.out.startswith(f"\n$ python -m serving.predict --model '{missing}' --image")
    assert "error: " in printed.err


def test_a_failed_step_ends_the_demo_with_its_code(tmp_path, capfd):
    assert demo.main(["--steps", "0"]) == 2
    assert "--steps must be at least 1, got 0" in capfd.readouterr().err
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    assert demo.main(["--output", str(occupied), "--steps", "1"]) != 0
    captured = capfd.readouterr()
    assert "error: " in captured.err
    assert "Traceback" not in captured.err
    assert "Done" not in captured.out


TINY = [
    *("--steps", "2", "--set", "image_size=64", "--set", "batch_size=2", "--set", "width=4"),
    *("--set", "inner_levels=1", "--set", "ema=0"),
]


def run_here(module, *words):
    """In the place of `demo.run`: each step in this process, which has TensorFlow already."""
    print(f"$ {module}")
    tf.config.run_functions_eagerly(module == "training.fit")  # two steps: a trace takes longer
    code = importlib.import_module(module).main([str(word) for word in words])
    tf.config.run_functions_eagerly(False)
    if code:
        raise demo.CommandError(code)


def test_whole_chain_draws_a_picture(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(demo, "run", run_here)
    output = tmp_path / "demo"
    assert demo.main(["--output", str(output), *TINY]) == 0, capfd.readouterr().err
    picture = output / "inpainting.png"
    assert str(picture) in capfd.readouterr().out
    erased = output / "erased"
    before, after, hole = (
        np.asarray(Image.open(erased / name)) for name in ("input.jpg", "result.png", "hole.png")
    )
    assert after.shape == before.shape == (1333, 2000, 3)
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert before[hole].mean() - after[hole].mean() > 20  # the sign is white, the rock is not
    for produced in ("evaluation/index.html", "saved_model/saved_model.pb", "model.onnx"):
        assert (output / produced).is_file()
    names = [path.stem for path in sorted((output / "photographs").iterdir())]
    for name in names:
        known = np.asarray(Image.open(output / "masks" / f"{name}.png")) == 0
        photograph = np.asarray(Image.open(output / "photographs" / f"{name}.png"))
        for folder in ("filled", "filled_photo"):
            filled = np.asarray(Image.open(output / folder / f"{name}.png"))
            np.testing.assert_array_equal(filled[known], photograph[known])
            assert (filled[~known] != photograph[~known]).any()
    with Image.open(picture) as image:
        assert image.width > 5 * 256
        assert image.height > len(names) * 256


@pytest.mark.slow
def test_each_step_in_its_process_and_again_draws_the_same_picture(tmp_path, capfd):
    arguments = ["--output", str(tmp_path), *TINY]
    assert demo.main(arguments) == 0, capfd.readouterr().err
    picture = tmp_path / "inpainting.png"
    first = picture.read_bytes()
    picture.unlink()
    assert demo.main(arguments) == 0, capfd.readouterr().err
    assert picture.read_bytes() == first
