import io
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import musical_tf
from serving import named_models, predict, terminal
from tests.processes import ROOT
from tests.serving_model import metadata_for, reference_fill, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    metadata = metadata_for(strategy="original")  # pictures smaller than its training size
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx", metadata=metadata)


def picture(height=40, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def centre(height=40, width=48):
    hole = np.zeros((height, width), bool)
    hole[10:20, 15:30] = True
    return hole


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == bool:
        pixels = np.where(pixels, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def photo(tmp_path):
    return save(tmp_path / "photo.png", picture())


@pytest.fixture
def mask(tmp_path):
    return save(tmp_path / "mask.png", centre())


@pytest.fixture
def call(model, capfd):
    """Runs the command line in this process; gives exit code, stdout and stderr."""

    def run(*arguments, **flags):
        words = [] if "model" in flags else ["--model", str(model)]
        for name, value in flags.items():
            words += ["--" + name.replace("_", "-"), str(value)]
        code = predict.main([*words, *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def assert_one_error(result, code, *words):
    exit_code, out, err = result
    assert exit_code == code, (out, err)
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("musical-inpaint: error: ")
    for word in words:
        assert str(word) in lines[0]


def test_one_image(call, photo, mask, tmp_path):
    output = tmp_path / "deep" / "result.png"
    code, out, err = call(image=photo, mask=mask, output=output)
    assert (code, err) == (0, "")
    assert out.startswith("1 filled in ")
    assert "CPUExecutionProvider" in out
    assert f"mask {mask}: gray, levels 0, 255: levels above 127 are the hole; 7.8% of" in out
    np.testing.assert_array_equal(load(output), reference_fill(picture(), centre()))
    for folder in (f"{tmp_path}/new/", tmp_path / "new"):
        assert call(image=photo, mask=mask, output=folder)[0] == 0
        assert (tmp_path / "new" / "photo.png").is_file()


def test_paths_by_letter_and_by_place(call, photo, mask, tmp_path):
    expected = reference_fill(picture(), centre())
    for index, words in enumerate(
        (
            ["-i", photo, "-m", mask, "-o"],
            [photo, mask],
            [photo, "-m", mask, "--device", "cpu"],
            ["--image", photo, mask, "--threshold", "100"],
        )
    ):
        output = tmp_path / f"{index}.png"
        assert call(*words, output)[0] == 0
        np.testing.assert_array_equal(load(output), expected)


def test_standard_streams(model, photo, mask, tmp_path):
    expected = reference_fill(picture(), centre())

    def run(*words, given=photo):
        command = [sys.executable, "-m", "serving.predict", "--model", str(model), *map(str, words)]
        return subprocess.run(command, cwd=ROOT, input=given.read_bytes(), capture_output=True)

    done = run("-", mask, "-", "--format", "webp")
    assert done.returncode == 0, done.stderr
    image = Image.open(io.BytesIO(done.stdout))
    assert image.format == "WEBP"
    np.testing.assert_array_equal(np.asarray(image), expected)
    assert done.stderr.startswith(b"1 filled in ")
    output = tmp_path / "new" / "out.png"
    done = run(photo, "-", output, given=mask)
    assert done.stdout.startswith(b"1 filled in "), done.stderr
    assert b"mask stdin: gray" in done.stdout
    np.testing.assert_array_equal(load(output), expected)


def test_wrong_use_of_streams_is_named_in_one_line(call, photo, mask, tmp_path, monkeypatch):
    assert_one_error(call("-", "-", tmp_path / "out.png"), 2, "--image and --mask", "both be -")
    assert_one_error(call("-", tmp_path, tmp_path / "out.png"), 2, "--mask must be a file")
    assert_one_error(call("-", mask, mask), 2, "--output must not be the mask", mask)
    assert_one_error(call("-", mask, tmp_path / "x.png", quality=3), 2, "--quality must be used")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no image")))
    assert_one_error(call("-", mask, tmp_path / "out.png"), 2, "stdin: it is not an image")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png"], "required: --mask, --output"),
        (["--version"], f"musical-inpaint {musical_tf.__version__}"),
        (["--list-models"], "photo (default)  4,009 photographs"),
    ],
)
def test_paths_that_lack_and_what_needs_none(call, capfd, words, message):
    with pytest.raises(SystemExit) as error:
        call(*words)
    assert message in "".join(capfd.readouterr())
    assert error.value.code == (0 if words[0].startswith("--") else 2)


@pytest.mark.parametrize("program", ["predict", "predict_many", "server"])
@pytest.mark.parametrize(
    ("words", "completed"), [("--dev", "--device"), ("--model f", "faces folder/ found.onnx")]
)
def test_a_shell_completes_options_and_models(program, words, completed, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("found.onnx", "found.png", "photo.onnx"):
        (tmp_path / name).touch()
    line = f"{program} {words}"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "words"),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", f"serving.{program}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    found = (tmp_path / "words").read_text().split("\v")
    assert sorted(word.strip() for word in found) == completed.split()


def test_polarity_threshold_and_dilation(call, photo, tmp_path):
    grey = save(tmp_path / "grey.png", np.where(centre(), 90, 10).astype(np.uint8))
    output = tmp_path / "out.png"
    assert call(image=photo, mask=grey, output=output, threshold=50)[0] == 0
    np.testing.assert_array_equal(load(output), reference_fill(picture(), centre()))
    black = save(tmp_path / "black.png", ~centre())
    assert call(image=photo, mask=black, output=output, polarity="black")[0] == 0
    np.testing.assert_array_equal(load(output), reference_fill(picture(), centre()))
    assert call(image=photo, mask=grey, output=output, threshold=50, dilate=3)[0] == 0
    changed = (load(output) != picture()).any(axis=2)
    assert changed[8, 20]
    assert not changed[6, 20]


def test_the_models_own_strategy_unless_told_otherwise(call, tmp_path):
    pixels, hole = picture(150, 210), np.zeros((150, 210), bool)
    pixels[75:] //= 4
    hole[20:40, 30:60] = True
    photo, mask = save(tmp_path / "a.png", pixels), save(tmp_path / "m.png", hole)
    whole = write_model(tmp_path / "whole.onnx", metadata=metadata_for(strategy="original"))
    output = tmp_path / "out.png"
    assert call(image=photo, mask=mask, output=output, model=whole)[0] == 0
    np.testing.assert_array_equal(load(output), reference_fill(pixels, hole))
    assert call(image=photo, mask=mask, output=output, model=whole, strategy="crop")[0] == 0
    cropped = load(output)
    assert (cropped != reference_fill(pixels, hole)).any()
    plain = write_model(tmp_path / "plain.onnx")
    assert call(image=photo, mask=mask, output=output, model=plain)[0] == 0
    np.testing.assert_array_equal(load(output), cropped)
    assert call(image=photo, mask=mask, output=output, model=plain, working_size=48)[0] == 0
    assert (load(output) != cropped).any()


def test_each_seed_is_a_variant(call, photo, mask, tmp_path):
    metadata = metadata_for(contract="2", strategy="original")
    path = tmp_path / "variants.onnx"
    model = write_model(path, metadata=metadata, copies=100, has_seed=True)
    inputs = {"image": photo, "mask": mask, "output": tmp_path / "out.png"}
    for seed in (0, 3):
        assert call(model=model, seed=seed, **inputs)[0] == 0
        assert (load(inputs["output"])[centre()] == 100 + seed).all()
    refused = call(**inputs, seed=1)
    assert_one_error(refused, 2, "seed must be 0", "no variants")


def test_mask_from_alpha_makes_the_filled_part_opaque(call, tmp_path):
    pixels, alpha = picture(), np.where(centre(), 0, 255).astype(np.uint8)
    alpha[0, 0] = 200
    photo = save(tmp_path / "a.png", np.dstack([pixels, alpha]))
    output = tmp_path / "out.png"
    assert call(image=photo, mask="alpha", output=output)[0] == 0
    filled = load(output)
    np.testing.assert_array_equal(filled[..., :3], reference_fill(pixels, centre()))
    assert filled[0, 0, 3] == 200
    assert (filled[centre()][:, 3] == 255).all()
    alpha[0, 0] = 255  # nothing is clear any more: a JPEG can hold the result
    save(photo, np.dstack([pixels, alpha]))
    assert call(image=photo, mask="alpha", output=tmp_path / "out.jpg")[::2] == (0, "")
    assert Image.open(tmp_path / "out.jpg").mode == "RGB"


def test_rotated_photograph_and_upright_mask(call, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = picture()
    stored = np.rot90(upright, 1)
    photo = tmp_path / "a.png"
    Image.fromarray(stored).save(photo, exif=exif)
    output, mask = tmp_path / "out.png", save(tmp_path / "m.png", centre())
    assert call(image=photo, mask=mask, output=output)[0] == 0
    np.testing.assert_array_equal(load(output), reference_fill(upright, centre()))
    lying = save(tmp_path / "lying.png", np.rot90(centre(), 1))
    assert_one_error(call(image=photo, mask=lying, output=output), 2, lying, "EXIF rotation")


def test_empty_mask_copies_the_file_byte_for_byte(call, tmp_path):
    photo = save(tmp_path / "a.jpg", picture())
    mask, output = save(tmp_path / "m.png", np.zeros((40, 48), bool)), tmp_path / "out.jpg"
    code, out, _ = call(image=photo, mask=mask, output=output)
    assert code == 0
    assert "1 not filled (empty mask)" in out
    assert output.read_bytes() == photo.read_bytes()
    other = tmp_path / "out.png"
    assert call(image=photo, mask=mask, output=other)[0] == 0
    np.testing.assert_array_equal(load(other), load(photo))


@pytest.fixture
def album(tmp_path):
    """Five images, one in a subfolder, with masks of the same names."""
    names = ["a.png", "b.jpg", "c.pbm", "sub/a.png", "d.tiff"]
    for seed, name in enumerate(names):
        save(tmp_path / "images" / name, picture(seed=seed))
        save((tmp_path / "masks" / name).with_suffix(".png"), centre())
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    save(tmp_path / "images" / ".hidden.png", picture())
    return tmp_path


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


ALBUM = ["a.png", "b.jpg", "c.png", "d.tiff", "sub/a.png"]


def test_folder_with_a_folder_of_masks(call, album):
    code, out, err = call(image=album / "images", mask=album / "masks", output=album / "out")
    assert code == 0
    assert err == "musical-inpaint: note: files left out, of no known format: 1 (.txt)\n"
    assert out.startswith("5 filled in")
    assert written(album / "out") == ALBUM
    np.testing.assert_array_equal(
        load(album / "out" / "sub" / "a.png"), reference_fill(picture(seed=3), centre())
    )


def test_a_mask_that_lies_among_the_images_is_none_of_them(call, album, mask):
    mask = mask.rename(album / "images" / "stamp.png")
    code, out, err = call(image=album / "images", mask=mask, output=album / "out")
    assert (code, err.count("error")) == (0, 0)
    assert out.startswith("5 filled in")
    assert written(album / "out") == ALBUM


def test_one_mask_for_images_of_several_sizes(call, tmp_path, mask):
    for scale in (1, 2):
        save(tmp_path / "images" / f"{scale}.png", picture(40 * scale, 48 * scale))
    save(tmp_path / "images" / "3.png", picture(48, 40))
    inputs = {"image": tmp_path / "images", "mask": mask, "output": tmp_path / "out"}
    code, out, err = call("--resize-mask", **inputs)
    assert code == 1
    assert out.startswith("2 filled, 1 failed in")
    assert "3.png: a mask of 48 x 40 pixels has another shape than an image of 40 x 48" in err
    changed = (load(tmp_path / "out" / "2.png") != picture(80, 96)).any(axis=2)
    assert changed[20:40, 30:60].mean() > 0.9
    changed[20:40, 30:60] = False
    assert not changed.any()
    assert call(**inputs)[1].startswith("1 filled, 2 failed in")


def test_output_and_mask_folders_inside_the_image_folder_are_not_taken_for_images(call, album):
    images = album / "images"
    (album / "masks").rename(images / "masks")
    for _ in range(2):
        code, out, _ = call(image=images, mask=images / "masks", output=images / "out")
        assert code == 0
        assert out.startswith("5 filled in")


def test_broken_files_are_reported_at_the_end_and_stop_nothing(call, album):
    (album / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (album / "masks" / "b.png").unlink()
    save(album / "masks" / "c.png", centre(40, 50))
    save(album / "masks" / "d.png", np.ones((40, 48), bool))
    save(album / "masks" / "unused.png", centre())
    code, out, err = call(image=album / "images", mask=album / "masks", output=album / "out")
    assert code == 1
    assert out.startswith("1 filled, 4 failed in")
    assert written(album / "out") == ["sub/a.png"]
    note, _, *lines = err.splitlines()
    assert "note: masks without an image: 1, for instance" in note
    assert "unused.png" in note
    assert len(lines) == 4
    assert all(line.startswith("musical-inpaint: error: ") for line in lines)
    for line, words in zip(
        lines,
        [
            ("a.png", "not an image in a known format"),
            ("b.jpg", "no mask of the same name"),
            ("c.pbm", "the mask is 50 x 40 pixels and the image is 48 x 40"),
            ("d.tiff", "covers the whole image", "--polarity black"),
        ],
        strict=True,
    ):
        for word in words:
            assert word in line


def test_skip_existing_leaves_what_is_there(call, album):
    (album / "out").mkdir()
    (album / "out" / "a.png").write_bytes(b"mine")
    code, out, _ = call(
        "--skip-existing", image=album / "images", mask=album / "masks", output=album / "out"
    )
    assert code == 0
    assert out.startswith("4 filled, 1 skipped in")
    assert (album / "out" / "a.png").read_bytes() == b"mine"


def test_a_format_for_all_outputs(call, album, photo, mask):
    code, _, _ = call(
        image=album / "images", mask=album / "masks", output=album / "out", format="png"
    )
    assert code == 0
    assert written(album / "out") == ["a.png", "b.png", "c.png", "d.png", "sub/a.png"]
    with Image.open(album / "images" / "b.jpg") as image:
        known = np.asarray(image)[~centre()]
    np.testing.assert_array_equal(load(album / "out" / "b.png")[~centre()], known)
    result = call(image=photo, mask=mask, output=album / "x.jpg", format="png")
    assert_one_error(result, 2, "x.jpg", "its suffix and --format name different formats")
    assert call(image=photo, mask=mask, output=album / "y.jpeg", format="jpeg")[0] == 0


def test_a_mask_that_is_probably_inverted_is_mentioned(call, album):
    save(album / "masks" / "b.png", ~centre())
    code, out, err = call(image=album / "images", mask=album / "masks", output=album / "out")
    assert code == 0
    assert out.startswith("5 filled in")
    (note,) = [line for line in err.splitlines() if "more than half" in line]
    assert "more than half was filled: 1, for example 92% of" in note
    assert "b.jpg; if the mask is inverted, use --polarity black" in note


def test_a_photograph_with_a_clear_hole_as_its_mask_is_told_the_polarity(call, album, photo):
    bright = np.full((*centre().shape, 3), 200, np.uint8)
    layer = np.dstack([bright, np.where(centre(), 0, 255).astype(np.uint8)])
    Image.fromarray(layer).save(album / "layer.png")
    code, _, err = call(image=photo, mask=album / "layer.png", output=album / "x.png")
    assert code == 0
    assert "if the mask is inverted, use --polarity clear" in err


def test_a_subfolder_that_cannot_be_listed_is_a_failure(call, album, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    code, out, err = call(image=album / "images", mask=album / "masks", output=album / "out")
    assert code == 1
    assert out.startswith("4 filled, 1 failed in")
    assert f"error: {album / 'images' / 'sub'}: Permission denied" in err


def test_names_that_would_steer_a_terminal_are_escaped(call, album):
    names = ["bad\x1b[2J.png", "r\udcff.png", "li\nne.png"]
    for name in names:
        (album / "images" / name).write_bytes(b"no image")
        save(album / "masks" / name, centre())
    save(album / "masks" / "\udcfe.png", centre())
    code, _, err = call(image=album / "images", mask=album / "masks", output=album / "out")
    assert code == 1
    assert err.count("error: ") == 3
    assert "\x1b" not in err
    for name in ("bad\\x1b[2J.png", "r\\udcff.png", "\\udcfe.png"):
        assert name in err


def test_progress_shows_images_and_windows_on_a_terminal_only(call, tmp_path, mask, monkeypatch):
    hole = np.zeros((300, 400), bool)
    hole[20:30, 20:380] = True  # long: several windows, one after the other
    image = save(tmp_path / "images" / "one.png", picture(300, 400))
    inputs = {"image": image.parent, "mask": save(tmp_path / "m.png", hole), "strategy": "crop"}
    _, _, err = call(**inputs, output=tmp_path / "out")
    assert err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(terminal, "_REDRAW", 0.0)
    monkeypatch.setenv("COLUMNS", "64")
    _, out, err = call(**inputs, output=tmp_path / "out")
    assert out.startswith("1 filled in")
    lines = err.split("\r\x1b[K")
    assert "0/1  one.png" in lines[1]
    assert "one.png, window 1/" in err
    assert re.search(r"\d:\d\d:\d\d left", err)
    assert max(map(len, lines)) < 64
    assert lines[-1] == ""


def test_input_is_never_replaced_unless_asked(call, album, mask, model):
    images, masks = album / "images", album / "masks"
    photo = images / "a.png"
    before = photo.read_bytes()
    for output in (photo, images, images / "sub" / ".." / "a.png"):
        result = call(image=photo, mask=mask, output=output)
        assert_one_error(result, 2, "would replace its input", "--overwrite-input")
    assert_one_error(call(image=images, mask=masks, output=images), 2, "would replace its input")
    link = album / "link.png"
    link.hardlink_to(photo)
    assert_one_error(call(image=photo, mask=mask, output=link), 2, "would replace its input")
    assert photo.read_bytes() == before
    refused = call("--overwrite-input", image=photo, mask=mask, output=mask)
    assert_one_error(refused, 2, "replace a mask")
    copy = album / "model.png"
    copy.write_bytes(model.read_bytes())
    refused = call(model=copy, image=photo, mask=mask, output=copy)
    assert_one_error(refused, 2, "replace a mask or the model")
    assert call("--overwrite-input", image=photo, mask=mask, output=photo)[0] == 0
    np.testing.assert_array_equal(load(photo), reference_fill(picture(), centre()))


def test_outputs_that_would_collide_are_left_out_and_named(call, album):
    save(album / "images" / "c.png", picture())
    inputs = {"image": album / "images", "mask": album / "masks", "output": album / "out"}
    for flags in ((), ("--skip-existing",)):
        code, output, errors = call(*flags, **inputs)
        assert code == 1
        assert "2 failed" in output
        assert errors.count("as well") == 2
        for name in ("c.pbm", "c.png"):
            assert f"{album / 'images' / name}: " in errors
        assert not (album / "out" / "c.png").exists()
        assert len(list((album / "out").iterdir())) >= 2


def test_a_foreign_model_is_refused(call, photo, mask, tmp_path):
    foreign = write_model(tmp_path / "foreign.onnx", metadata={})
    refused = call(model=foreign, image=photo, mask=mask, output=tmp_path / "out.png")
    assert_one_error(refused, 2, foreign, "not a model exported by")
    assert not (tmp_path / "out.png").exists()


def test_bad_input_is_named_in_one_line(call, photo, mask, tmp_path):
    output = tmp_path / "out.png"
    none = tmp_path / "none.png"
    assert_one_error(call(image=none, mask=mask, output=output), 2, none, "no such image")
    assert_one_error(call(image=photo, mask=none, output=output), 2, none, "no such mask")
    (tmp_path / "empty").mkdir()
    result = call(image=tmp_path / "empty", mask=mask, output=output)
    assert_one_error(result, 2, "empty", "no image files in this folder")
    result = call(image=photo, mask=tmp_path / "empty", output=output)
    assert_one_error(result, 2, photo, "no mask of the same name")
    small = save(tmp_path / "small.png", centre(20, 48))
    result = call(image=photo, mask=small, output=output)
    assert_one_error(result, 2, small, "48 x 20", "48 x 40")
    torn = tmp_path / "torn.png"
    torn.write_bytes(photo.read_bytes()[:900])
    assert_one_error(call(image=torn, mask=mask, output=output), 2, torn, "damaged")
    assert_one_error(call(image=photo, mask=torn, output=output), 2, torn, "damaged")
    assert_one_error(call(image=photo, mask="alpha", output=output), 2, photo, "no alpha channel")
    full = save(tmp_path / "full.png", np.ones((40, 48), bool))
    result = call(image=photo, mask=full, output=output)
    assert_one_error(result, 2, full, "covers the whole image", "--polarity black")
    result = call(image=photo, mask=mask, output=output, max_pixels=1000)
    assert_one_error(result, 2, photo, "48 x 40", "limit of 1000")
    result = call(image=photo, mask=mask, output=tmp_path / "out.xyz")
    assert_one_error(result, 2, "must be one of .png", "got '.xyz'")
    for flag, value in (("threshold", 300), ("dilate", -1), ("working_size", 3), ("threads", -1)):
        result = call(image=photo, mask=mask, output=output, **{flag: value})
        assert_one_error(result, 2, flag.replace("_", "-"), value)
    result = call(image=photo, mask=mask, output=output, provider="abacus")
    assert_one_error(result, 2, "abacus", "available:", "cpu")
    assert not output.exists()


def test_what_libraries_say_about_a_damaged_file_is_not_repeated(call, mask, tmp_path):
    torn = tmp_path / "torn.tif"
    Image.fromarray(picture()[..., 0] > 90).save(torn, compression="group4")
    content = bytearray(torn.read_bytes())
    content[20:60] = bytes(40)  # libtiff tells stderr of every line that it cannot decode
    torn.write_bytes(content)
    _, _, err = call(image=tmp_path, mask=mask, output=tmp_path / "out")
    assert err == ""


def test_unwritable_output_is_a_failure_while_working(call, photo, mask, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("a file where a folder should be")
    assert_one_error(call(image=photo, mask=mask, output=blocker / "out.png"), 1, blocker)
    assert_one_error(
        call(image=photo, mask=mask, output="/proc/nowhere/out.png"), 1, "/proc/nowhere"
    )
    code, out, err = call(image=photo.parent, mask=mask, output="/proc/nowhere")
    assert (code, "failed" in out, err.count("error: ")) == (1, True, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy", "zoom"], "choose from crop, resize, original"),
        (["--polarity", "grey"], "choose from white, black"),
        (["--threshold", "high"], "invalid int value: 'high'"),
        (["--over"], "unrecognized arguments: --over"),
    ],
)
def test_wrong_usage_lists_what_is_valid(call, photo, mask, tmp_path, capfd, words, message):
    with pytest.raises(SystemExit) as exit_info:
        call(*words, image=photo, mask=mask, output=tmp_path / "out.png")
    assert exit_info.value.code == 2
    assert message in capfd.readouterr().err.replace("'", "").replace("high", "'high'")


GUIDE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(kind):
    fenced = (part.partition("\n") for part in GUIDE.split("```")[1::2])
    return [text for language, _, text in fenced if language == kind]


def test_the_guides_examples_run(model, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(named_models, "FOLDER", tmp_path / "models")
    (tmp_path / "models").mkdir()
    for name in ("model.onnx", "models/photo.onnx"):
        (tmp_path / name).write_bytes(model.read_bytes())
    for name in ("photo.jpg", "photos/a/cat.jpg", "photos/dog.png"):
        save(tmp_path / name, picture())
    for name in ("mask.png", "masks/a/cat.png", "masks/dog.png"):
        save(tmp_path / name, centre())
    save(tmp_path / "stamp.png", centre()[::2, ::2])
    alpha = np.where(centre(), 0, 255).astype(np.uint8)[..., None]
    save(tmp_path / "cutout.png", np.concatenate([picture(), alpha], axis=2))
    save(tmp_path / "pairs" / "cat.jpg", picture())
    save(tmp_path / "pairs" / "cat_mask001.png", centre())
    commands = [line for block in blocks("") for line in block.splitlines() if "predict" in line]
    assert len(commands) == 6
    for command in commands:
        python, *words = shlex.split(command)
        assert (python, *words[:2]) == ("python", "-m", "serving.predict")
        assert predict.main(words[2:]) == 0, capfd.readouterr().err
    np.testing.assert_array_equal(
        load(tmp_path / "filled.png")[..., :3], reference_fill(picture(), centre())
    )
    code = blocks("python")
    assert len(code) == 3
    variables = {}
    for block in code:
        exec(block, variables)
    np.testing.assert_array_equal(
        variables["filled"], reference_fill(variables["photograph"].pixels, centre())
    )


def test_the_guide_knows_every_flag():
    flags = {flag for action in predict._parser()._actions for flag in action.option_strings}
    mentioned = set(re.findall(r"--[a-z][a-z-]+", GUIDE))
    assert {flag for flag in flags if flag.startswith("--")} - mentioned == {"--help"}
