"""Paths that users give to the command line: links, FIFOs, pairs in one folder, leftovers."""

import fcntl
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musical_tf import files, images
from serving import filling, predict
from tests.serving_model import metadata_for, write_model
from training.data import datasets
from training.data.holes import FolderHoles

HOLE = np.zeros((32, 40), np.uint8)
HOLE[8:16, 10:20] = 255
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    metadata = metadata_for(strategy="original")
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx", metadata=metadata)


@pytest.fixture
def call(model, capfd, tmp_path, monkeypatch):
    """Runs the command line in `tmp_path`, where photo.png and mask.png are."""
    monkeypatch.chdir(tmp_path)
    save("photo.png", PIXELS)
    save("mask.png", HOLE)

    def run(image, mask, output, *more):
        words = ["--image", image, "--mask", mask, "--output", output]
        code = predict.main([*words, "--model", str(model), *more])
        return code, *capfd.readouterr()

    return run


def save(path, pixels, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def outputs(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*"))


def changed(path):
    with Image.open(path) as image:
        return (np.asarray(image.convert("RGB")) != PIXELS).any(axis=2)


def test_pairs_in_one_folder(call):
    """LaMa's names: a mask is no photograph, and a photograph no mask."""
    names = {"a.png": ["a_mask001"], "sub/a.png": ["a_mask"], "b.png": ["b_mask1", "b_mask2"]}
    for name, masks in {**names, "venice_mask.png": ["venice_mask_mask"], "alone.png": []}.items():
        save(f"d/{name}", PIXELS)
        for mask in masks:
            save(Path("d", name).with_name(f"{mask}.png"), HOLE)
    save("d/nobody_mask.png", HOLE)
    for mask_folder in ("d", "d/../d/"):
        code, out, err = call("d", mask_folder, "out")
        assert code == 1
        assert out.startswith("5 filled, 1 failed in")
        assert "5 masks: gray, levels 0, 255: levels above 127 are the hole; 6.2% of each" in out
        assert "masks without an image: 1, for instance d/nobody_mask.png" in err
        assert "alone.png: no mask of the same name in d" in err
        names = ["a.png", "b_mask1.png", "b_mask2.png", "sub", "sub/a.png", "venice_mask.png"]
        assert outputs("out") == [name for name in names if name != "sub"]
        for name in outputs("out"):
            assert changed(f"out/{name}").any()
            assert not changed(f"out/{name}")[HOLE == 0].any()
    assert call("d/a.png", "d", "single.png")[0] == 0
    code, _, err = call("d/b.png", "d", "single.png")
    assert (code, "several masks match it" in err) == (2, True)


def test_training_reads_pairs_too(tmp_path):
    for index in range(20):
        save(tmp_path / f"{index}.png", PIXELS)
        save(tmp_path / f"{index}_mask001.png", HOLE)
    found = [datasets.DATASETS["folder"].find(tmp_path, split).paths for split in datasets.SPLITS]
    assert sorted(Path(path).stem for path in sum(found, ())) == sorted(map(str, range(20)))
    holes = FolderHoles(tmp_path, 32)
    assert len(holes.paths) == 20
    assert all(path.endswith("_mask001.png") for path in holes.paths)


def test_a_photograph_is_never_its_own_mask(call):
    os.symlink("photo.png", "link.png")
    os.link("photo.png", "hard.png")
    for mask in ("photo.png", "link.png", "hard.png"):
        code, _, err = call("photo.png", mask, "out.png")
        assert code == 2
        assert "the mask must be another file than the image" in err
    save("only/a.png", PIXELS)
    code, _, err = call("only", "only", "out")
    assert code == 2
    assert "must have a name like cat_mask.png or cat_mask001.png, got none" in err
    assert not Path("out").exists()


def test_masks_with_lamas_names_in_a_folder_of_their_own(call):
    for name in ("a.png", "b.png", "b_mask.png"):
        save(f"d/{name}", PIXELS)
    for name in ("a_mask001.png", "b.png", "b_mask.png"):  # two have a photograph's name
        save(f"m/{name}", HOLE)
    code, _, err = call("d", "m", "out")
    assert (code, err, outputs("out")) == (0, "", ["a.png", "b.png", "b_mask.png"])


def test_links_are_followed_and_loops_are_not(call, monkeypatch):
    save("real/b.jfif", PIXELS, format="JPEG")
    save("real/c.jpe", PIXELS, format="JPEG")
    save("tree/a.png", PIXELS)
    for target, name in (("../real", "l1"), ("../real", "l2"), (".", "loop"), ("..", "up")):
        os.symlink(target, f"tree/{name}")
    os.symlink("../tree", "real/back")
    os.symlink("self.png", "tree/self.png")
    code, out, err = call("tree", "mask.png", "out")
    assert code == 1
    assert out.startswith("5 filled, 1 failed in")
    filled = ["a.png", "l1/b.jfif", "l1/c.jpe", "l2/b.jfif", "l2/c.jpe"]
    assert outputs("out") == filled
    assert "self.png: Too many levels of symbolic links" in err
    assert "links to a folder above, not followed: 4, such as tree/" in err
    once = [str(path) for path in images.find_images("tree", once=True)]
    assert once == ["tree/a.png", "tree/self.png", "tree/l1/b.jfif", "tree/l1/c.jpe"]
    monkeypatch.setattr(images.listing, "MAX_REPEATS", 100)
    for index in range(40):  # 2 ** 40 paths
        os.makedirs(f"chain/{index}")
        for name in "xy":
            os.symlink(f"../{index + 1}", f"chain/{index}/{name}")
    code, _, err = call("chain/0", "mask.png", "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "links lead to the same folders too often" in err


def test_what_is_no_regular_file_is_refused_at_once(call):
    os.mkfifo("fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    os.symlink("/dev/zero", "device.png")
    os.mkdir("d")
    for kind in ("fifo", "socket", "device"):
        os.symlink(f"../{kind}.png", f"d/{kind}.png")
        for paths in (
            (f"{kind}.png", "mask.png", "out.png"),
            ("photo.png", f"{kind}.png", "out.png"),
            ("photo.png", "mask.png", f"{kind}.png"),
        ):
            code, _, err = call(*paths)
            assert (code, err.count("\n")) == (2, 1)
            assert "must be a regular file, got a " + kind in err.lower()
    save("d/good.png", PIXELS)
    code, out, _ = call("d", "mask.png", "out")
    assert (code, out.startswith("1 filled, 3 failed")) == (1, True)
    code, _, err = call("/", "mask.png", "out")
    assert (code, "--image must not be the root folder" in err) == (2, True)
    code, _, err = call("photo.png", "mask.png", "/")
    assert (code, "--output must not be the root folder" in err) == (2, True)


def test_paths_behind_two_dashes_may_begin_with_one(call, model):
    save("-a.png", PIXELS)
    call("photo.png", "mask.png", "o.png")
    words = ["--model", str(model), "--", "-a.png", "mask.png", "--b.png"]
    assert predict.main(words) == 0
    assert Path("--b.png").read_bytes() == Path("o.png").read_bytes()


def test_a_replaced_file_keeps_its_mode_and_a_link_stays_one(call):
    os.chmod("photo.png", 0o640)
    if os.geteuid() == 0:
        os.chown("photo.png", 65534, 65534)
    before = os.stat("photo.png")
    os.symlink("photo.png", "link.png")
    code, _, err = call("link.png", "mask.png", "link.png")
    assert (code, "would replace its input" in err) == (2, True)
    assert call("link.png", "mask.png", "link.png", "--overwrite-input")[0] == 0
    after = os.stat("photo.png")
    assert os.path.islink("link.png")
    assert changed("photo.png").any()
    for name in ("st_mode", "st_uid", "st_gid"):
        assert getattr(after, name) == getattr(before, name)


def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_live_one_stay(call):
    with files.whole_file("out.png") as partial:
        partial.write_bytes(b"whole")
    partial.write_bytes(b"half")
    with open(partial, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert call("photo.png", "mask.png", "out.png")[0] == 0
        assert partial.exists()
    assert call("photo.png", "mask.png", "out.png")[0] == 0
    assert not partial.exists()


def test_bad_files_beside_good_ones_stop_nothing(call):
    for name in ("a.png", "b.png", "b.jpg", "c.png"):
        save(f"d/{name}", PIXELS)
    save("d/a.gif", PIXELS)
    Path("d/c.png").write_bytes(b"")
    save("m/a.png", HOLE)
    save("m/b.png", HOLE)
    save("m/c.png", HOLE)
    Path("m/a.gif").write_bytes(b"GIF89a")
    code, _, err = call("d", "m", "out")
    assert (code, outputs("out")) == (1, ["a.png", "b.jpg", "b.png"])
    assert "files left out, of no known format: 1 (.gif)" in err
    assert "error: d/c.png: it is not an image" in err
    code, _, err = call("d", "m", "png", "--format", "png")
    assert (code, outputs("png")) == (1, ["a.png"])
    assert "d/b.jpg: d/b.png would be written to png/b.png as well" in err


def test_quality_and_format(call):
    sizes = {}
    for suffix in ("jpg", "webp", "avif"):
        for quality in ("20", "90"):
            name = f"{quality}.{suffix}"
            assert call("photo.png", "mask.png", name, "--quality", quality)[0] == 0
            sizes[name] = os.path.getsize(name)
        assert sizes[f"20.{suffix}"] < sizes[f"90.{suffix}"]
    images_of = {"photo.png": "PNG", "90.webp": "WEBP", "90.avif": "AVIF", "90.jpg": "JPEG"}
    for name, own in images_of.items():
        assert call(name, "mask.png", "same/", "--format", "same")[0] == 0
        with Image.open(f"same/{name}") as image:
            assert image.format == own
    assert call("90.webp", "mask.png", "other/", "--format", "JPG", "--quality", "50")[0] == 0
    assert outputs("other") == ["90.jpg"]
    code, _, err = call("photo.png", "mask.png", "out.png", "--quality", "50")
    assert (code, err.count("\n")) == (2, 1)
    assert "--quality must be used with JPEG, WEBP, AVIF, got PNG" in err


def test_heic_becomes_a_png(call):
    assert images.opening.register_heif()
    save("h/a.heic", PIXELS, format="HEIF", quality=-1)
    save("h/b.HIF", PIXELS, format="HEIF", quality=-1)
    code, _, err = call("h", "mask.png", "out")
    assert (code, err, outputs("out")) == (0, "", ["a.png", "b.png"])


def test_masks_that_were_read_differently_are_told_apart(call):
    for name, value in (("a", 255), ("b", 255), ("c", 2)):
        save(f"d/{name}.png", PIXELS)
        save(f"m/{name}.png", np.where(HOLE, np.uint8(value), np.uint8(0)))
    save("m/b.png", np.where(HOLE, np.uint8(200), np.uint8(50)))
    code, out, _ = call("d", "m", "out")
    assert code == 0
    assert "2 masks: gray: levels above 127 are the hole; 6.2% of each image is hole" in out
    assert "mask m/c.png: gray, levels 0, 2: levels above 0 are the hole; 6.2% of the" in out


def test_notes_about_images_are_grouped():
    outcomes = [
        filling.Outcome("filled", image=image, notes=[note])
        for image, note in (("a.png", "x"), ("b.png", "y"), ("c.png", "x"))
    ]
    assert filling.notes_on(outcomes, "white") == ["a.png and 1 more: x", "b.png: y"]
    assert images.MASK_NAME.fullmatch("new\nline_mask01")[1] == "new\nline"
