"""Models by name in what serves: which file a name means, and what is said of a wrong one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import named_models, predict
from serving.server import command_line
from serving.session import InpaintingSession
from tests.serving_model import metadata_for, reference_fill, write_model


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An installation with two named models, and a working directory without any."""
    folder, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for name, level in (("faces", 10), ("photo", None)):
        metadata = metadata_for(name=name, data=f"{name} of somebody", strategy="original")
        write_model(folder / f"{name}.onnx", metadata=metadata, result=level)
    monkeypatch.setattr(named_models, "FOLDER", folder)
    monkeypatch.chdir(elsewhere)
    return folder


def photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def hole() -> np.ndarray:
    mask = np.zeros((40, 48), bool)
    mask[10:20, 10:30] = True
    return mask


def test_a_name_is_text_and_everything_else_a_path(installed):
    assert named_models.names() == ["faces", "photo"]
    Path("faces").mkdir()
    assert named_models.find("faces") == installed / "faces.onnx"
    assert named_models.find("./faces") == Path("faces")
    assert named_models.find(Path("faces")) == Path("faces")
    for wrong in ("", "fases", "model.onnx", Path("photo")):
        with pytest.raises(FileNotFoundError, match=f"^{wrong}: no such .*names: faces, photo"):
            named_models.find(wrong)
    (installed / "faces.onnx").unlink()
    assert named_models.names() == ["photo"]
    (installed / "photo.onnx").unlink()
    with pytest.raises(FileNotFoundError, match=r"\(names: none in this installation\)"):
        InpaintingSession()


def test_a_session_takes_photo_unless_told_otherwise(installed):
    image = photograph()
    session = InpaintingSession()
    np.testing.assert_array_equal(session.inpaint(image, hole()), reference_fill(image, hole()))
    assert (session.contract.name, session.contract.data) == ("photo", "photo of somebody")
    own = InpaintingSession(write_model(installed / "own.onnx")).contract
    assert (own.name, own.data) == (None, None)
    faces = InpaintingSession("faces")
    assert (faces.inpaint(image, hole())[hole()] == 10).all()
    assert faces.describe()["name"] == "faces"


def test_a_graph_is_kept_and_its_absence_costs_time_alone(installed, tmp_path, monkeypatch):
    kept, image = tmp_path / "cache", photograph()

    def fill(model="photo"):
        session = InpaintingSession(model, ["cpu"])
        filled = session.inpaint(image, hole())
        np.testing.assert_array_equal(filled, reference_fill(image, hole()))
        assert session.contract.strategy == "original"
        return sorted(file.name for file in kept.glob("*"))

    monkeypatch.setenv("MUSICAL_CACHE", str(kept))
    own = tmp_path / "own.onnx"
    own.write_bytes((installed / "photo.onnx").read_bytes())
    assert fill(own) == []
    (name,) = fill()
    file = kept / name
    written = file.stat().st_mtime_ns
    assert fill() == [name]
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"damaged")
    assert fill() == [name]
    assert file.stat().st_size > 1000
    metadata = metadata_for(name="photo", strategy="original", data="others")
    write_model(installed / "photo.onnx", metadata=metadata)  # another content
    assert len(fill()) == 2
    for folder in (str(own), "", "relative"):  # no folder, and none asked for
        monkeypatch.setenv("MUSICAL_CACHE", folder)
        assert len(fill()) == 2
    assert not Path("relative").exists()


def test_one_command_fills_a_photograph_and_never_replaces_a_model(installed, capfd):
    Image.fromarray(photograph()).save("in.png")
    Image.fromarray(hole()).save("mask.png")
    words = ["--image", "in.png", "--mask", "mask.png", "--output", "out.png"]
    assert predict.main(words) == 0
    expected = reference_fill(photograph(), hole())
    np.testing.assert_array_equal(np.asarray(Image.open("out.png")), expected)
    assert predict.main(["--model", "faces", *words]) == 0
    assert (np.asarray(Image.open("out.png"))[hole()] == 10).all()
    capfd.readouterr()
    assert predict.main(["--model", "fotos", *words]) == 2
    assert "error: fotos: no such model file" in capfd.readouterr().err
    target = installed / "photo.png"
    target.symlink_to(installed / "photo.onnx")
    assert predict.main(["--image", "in.png", "--mask", "mask.png", "--output", str(target)]) == 2
    assert "would replace a mask or the model" in capfd.readouterr().err


def test_the_server_takes_several_and_names_them_too(installed, capsys):
    assert command_line.main(["--model", "fotos", "--port", "0"]) == 2
    assert capsys.readouterr().err.endswith("a model's name (names: faces, photo)\n")
    arguments = command_line._parser().parse_args(["--model", "photo", "faces"])
    assert [InpaintingSession(model).name for model in arguments.model] == ["photo", "faces"]
    parsed = {
        (): ["photo"],
        ("--model", "faces"): ["faces"],
        ("--model", "faces", "--model", "photo"): ["faces", "photo"],
    }
    for words, models in parsed.items():
        assert command_line._parser().parse_args(words).model == models


@pytest.mark.parametrize("program", [predict, command_line])
def test_help_lists_the_names(installed, program, capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert "model (faces, photo) or" in " ".join(capsys.readouterr().out.split())
    for file in installed.glob("*.onnx"):
        file.unlink()
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert "model (none in this installation) or" in " ".join(capsys.readouterr().out.split())
