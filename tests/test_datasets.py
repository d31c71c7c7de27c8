"""Which photographs a dataset has, and how it splits them."""

import os
import socket
import zipfile

import numpy as np
import pytest
from PIL import Image

from training.data import celeba as celeba_files
from training.data import datasets
from training.data.datasets import open_dataset
from training.data.holes import open_masks
from training.data.photographs import UnusableImageError

SIZE = 64


def write(path, size=(80, 70), value=None):
    """Writes a photograph of one grey level, or of seeded noise; `size` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        pixels = np.random.default_rng(len(path.name)).integers(
            0, 256, (size[1], size[0], 3), np.uint8
        )
        Image.fromarray(pixels).save(path)
    else:
        Image.new("RGB", size, (value,) * 3).save(path)
    return path


def names(photographs):
    return [path.replace("\\", "/").rsplit("/", 1)[-1] for path in photographs.paths]


# ------------------------------------------------------------------------------------------- celeba


@pytest.fixture
def celeba(tmp_path):
    """Six images of CelebA's size in its layout: partitions 0 0 0 1 1 2."""
    lines = []
    for number, partition in enumerate((0, 0, 0, 1, 1, 2), start=1):
        name = f"{number:06}.jpg"
        write(tmp_path / "img_align_celeba" / name, (178, 218))
        lines.append(f"{name} {partition}")
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_celeba_trains_on_partitions_0_and_1_and_tests_on_2(celeba):
    split = {s: names(open_dataset("celeba", celeba, s, SIZE)) for s in datasets.SPLITS}
    assert split["train"] == ["000001.jpg", "000002.jpg", "000003.jpg", "000004.jpg", "000005.jpg"]
    assert split["val"] == ["000004.jpg", "000005.jpg"]
    assert split["test"] == ["000006.jpg"]


def test_celeba_is_resized_by_its_shorter_side_and_cropped_at_the_centre(celeba):
    photographs = open_dataset("celeba", celeba, "test", 128)
    image = photographs.load(0)
    with Image.open(photographs.paths[0]) as whole:
        resized = np.asarray(whole.resize((128, round(218 * 128 / 178)), Image.Resampling.BICUBIC))
    top = (resized.shape[0] - 128) // 2
    np.testing.assert_array_equal(image, resized[top : top + 128])


def test_celeba_in_a_zip_gives_the_same_photographs(celeba, tmp_path_factory):
    zipped = tmp_path_factory.mktemp("zipped")
    with zipfile.ZipFile(zipped / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/", "")
        for file in sorted((celeba / "img_align_celeba").iterdir()):
            archive.write(file, f"img_align_celeba/{file.name}")
    partitions = (celeba / "list_eval_partition.txt").read_text()
    (zipped / "list_eval_partition.txt").write_text(partitions)
    unpacked = open_dataset("celeba", celeba, "train", SIZE)
    packed = open_dataset("celeba", zipped, "train", SIZE)
    assert names(packed) == names(unpacked)
    for index in range(len(packed)):
        np.testing.assert_array_equal(packed.load(index), unpacked.load(index))


def test_damaged_zip_and_damaged_member(celeba, tmp_path_factory):
    zipped = tmp_path_factory.mktemp("damaged")
    (zipped / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 0\n")
    archive = zipped / "img_align_celeba.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as opened:
        for name in ("000001.jpg", "000002.jpg"):
            opened.write(celeba / "img_align_celeba" / name, f"img_align_celeba/{name}")
    content = bytearray(archive.read_bytes())
    content[2000] ^= 255  # inside the first member: its checksum no longer holds
    archive.write_bytes(content)
    photographs = open_dataset("celeba", zipped, "train", SIZE)
    with pytest.raises(UnusableImageError, match=r"000001\.jpg: cannot be unpacked: Bad CRC"):
        photographs.load(0)
    assert photographs.load(1).shape == (SIZE, SIZE, 3)
    newer = bytearray(content)
    newer[newer.index(b"PK\1\2") + 6] = 99  # the version that is needed to unpack it
    for damaged in (content[:3000], newer):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a whole zip file"):
            open_dataset("celeba", zipped, "train", SIZE)


def test_celeba_as_kaggle_packs_it(celeba):
    (celeba / "list_eval_partition.txt").rename(celeba / "partitions")
    lines = (celeba / "partitions").read_text().replace(" ", ",")
    (celeba / "list_eval_partition.csv").write_text("image_id,partition\n" + lines)
    (celeba / "img_align_celeba").rename(celeba / "inner")
    (celeba / "img_align_celeba").mkdir()
    (celeba / "inner").rename(celeba / "img_align_celeba" / "img_align_celeba")
    photographs = open_dataset("celeba", celeba, "test", SIZE)
    assert names(photographs) == ["000006.jpg"]
    assert photographs.load(0).shape == (SIZE, SIZE, 3)


def test_celeba_files_that_are_absent_and_lines_that_make_no_sense_are_named(celeba):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    photographs = open_dataset("celeba", celeba, "train", SIZE)
    assert len(photographs) == 4
    (path,) = photographs.skipped
    assert path.endswith("000002.jpg")
    assert "1 skipped" in photographs.describe()
    assert "000002.jpg" in photographs.describe()
    (celeba / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg train\n")
    with pytest.raises(ValueError, match="line 2: expected an image name and 0, 1 or 2"):
        open_dataset("celeba", celeba, "train", SIZE)


# ---------------------------------------------------------------------- paris, places, folder, demo


def test_paris_by_both_names_of_its_folders(tmp_path):
    write(tmp_path / "paris_train_original" / "a.JPG", (936, 537))
    write(tmp_path / "paris_eval" / "paris_eval_gt" / "b.png", (227, 227))
    train = open_dataset("paris_streetview", tmp_path, "train", 256)
    assert names(train) == ["a.JPG"]
    assert train.load(0).shape == (350, round(936 * 350 / 537), 3)
    half = open_dataset("paris_streetview", tmp_path, "train", 128)
    assert half.load(0).shape[0] == 175
    test = open_dataset("paris_streetview", tmp_path, "test", 256)
    assert names(test) == ["b.png"]
    assert test.load(0).shape == (256, 256, 3)
    val = open_dataset("paris_streetview", tmp_path, "val", 256)
    assert names(val) == ["b.png"]
    assert "the test photographs" in val.describe()


@pytest.mark.parametrize("train", ["canyon", "train/canyon"])
def test_canyon_of_plain_folders_and_of_the_easy_format(tmp_path, train):
    write(tmp_path / train / "1.jpg")
    if "/" in train:
        write(tmp_path / "train" / "beach" / "2.jpg")
    write(tmp_path / "val" / ("canyon" if "/" in train else "") / "3.jpg")
    assert names(open_dataset("places_canyon", tmp_path, "train", SIZE)) == ["1.jpg"]
    assert names(open_dataset("places_canyon", tmp_path, "test", SIZE)) == ["3.jpg"]


def test_canyon_of_the_standard_archives_takes_the_validation_list(tmp_path):
    write(tmp_path / "data_256" / "c" / "canyon" / "1.jpg")
    write(tmp_path / "data_256" / "b" / "beach" / "2.jpg")
    for number in (1, 2, 3):
        write(tmp_path / "val_256" / f"Places365_val_{number:08}.jpg")
    (tmp_path / "categories_places365.txt").write_text("/b/beach 48\n/c/canyon 73\n")
    (tmp_path / "places365_val.txt").write_text(
        "Places365_val_00000001.jpg 73\nPlaces365_val_00000002.jpg 48\n"
        "Places365_val_00000003.jpg 73\nPlaces365_val_00000009.jpg 73\n"
    )
    assert names(open_dataset("places_canyon", tmp_path, "train", SIZE)) == ["1.jpg"]
    test = open_dataset("places_canyon", tmp_path, "test", SIZE)
    assert names(test) == ["Places365_val_00000001.jpg", "Places365_val_00000003.jpg"]
    assert [path[-12:] for path in test.skipped] == ["00000009.jpg"]
    (tmp_path / "categories_places365.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"categories_places365\.txt"):
        open_dataset("places_canyon", tmp_path, "test", SIZE)


def test_folder_honours_its_subfolders(tmp_path):
    write(tmp_path / "train" / "deep" / "a.png")
    write(tmp_path / "test" / "b.png")
    (tmp_path / "train" / "notes.txt").write_text("no image")
    write(tmp_path / "train" / "._a.png")
    assert names(open_dataset("folder", tmp_path, "train", SIZE)) == ["a.png"]
    assert names(open_dataset("folder", tmp_path, "test", SIZE)) == ["b.png"]
    val = open_dataset("folder", tmp_path, "val", SIZE)
    assert names(val) == ["b.png"]
    assert "the test photographs" in val.describe()


def split_names(folder):
    return {s: set(names(open_dataset("folder", folder, s, SIZE))) for s in datasets.SPLITS}


def test_folder_splits_by_the_hash_of_the_path_and_keeps_to_it(tmp_path):
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
    before = split_names(tmp_path)
    assert sum(len(part) for part in before.values()) == 100
    assert len(set.union(*before.values())) == 100
    assert len(before["train"]) > 80
    for number in range(100, 200):
        (tmp_path / f"{number}.png").touch()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    after = split_names(moved)
    for split in datasets.SPLITS:
        assert before[split] <= after[split]


def test_folder_of_a_handful_or_of_one_name_still_has_every_split(tmp_path):
    for number in range(40):
        (tmp_path / f"scene{number:02d}").mkdir()
        (tmp_path / f"scene{number:02d}" / "color.png").touch()
    counts = [len(open_dataset("folder", tmp_path, split, SIZE)) for split in datasets.SPLITS]
    assert sum(counts) == 40
    assert counts[0] >= 30
    assert min(counts) >= 1
    few = tmp_path / "few"
    few.mkdir()
    for number in range(3):
        (few / f"{number}.png").touch()
    assert [len(part) for part in split_names(few).values()] == [1, 1, 1]
    (few / "0.png").unlink()
    (few / "1.png").unlink()
    with pytest.raises(ValueError, match="holds 1 images, too few"):
        open_dataset("folder", few, "test", SIZE)


def listed_paths(folder):
    """The files of all splits of `list.txt`, sorted."""
    splits = (open_dataset("folder", folder / "list.txt", split, SIZE) for split in datasets.SPLITS)
    return sorted(path for split in splits for path in split.paths)


def test_folder_reads_a_list_of_files(tmp_path):
    for number in range(40):
        write(tmp_path / "images" / f"{number}.png", (20, 20), value=number)
    listed = [f"images/{number}.png" for number in range(20)]
    listed.append(str(tmp_path / "images" / "30.png"))
    (tmp_path / "list.txt").write_text("# mine\n\n" + "\n".join(listed) + "\n")
    assert listed_paths(tmp_path) == sorted(str(tmp_path / name) for name in listed)
    lines = "".join(f"images\\{number}.png\r\n" for number in range(40))  # of Windows
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_bytes(lines.encode(encoding))
        whole = sorted(str(tmp_path / "images" / f"{number}.png") for number in range(40))
        assert listed_paths(tmp_path) == whole
    (tmp_path / "list.txt").write_text(
        "images/1.png\nimages/2.png\nimages/3.png\n./images/1.png\n" * 3
    )
    assert listed_paths(tmp_path) == [str(tmp_path / "images" / f"{n}.png") for n in (1, 2, 3)]
    for content in (b"\x89PNG\r\n\x1a\n", b"a.png\0b.png", b"\xff\xfe\x00"):
        (tmp_path / "list.bin").write_bytes(content)
        with pytest.raises(ValueError, match="must be a folder or a text file in UTF-8"):
            open_dataset("folder", tmp_path / "list.bin", "train", SIZE)
    (tmp_path / "list.txt").write_text("Photographs of the archive.\nNone is here.\n")
    with pytest.raises(FileNotFoundError, match=r"must have paths .* got the line 'Photographs of"):
        open_dataset("folder", tmp_path / "list.txt", "train", SIZE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFO")
def test_a_fifo_is_skipped_and_never_waited_for(tmp_path):
    write(tmp_path / "train" / "a.png", (40, 40))
    os.mkfifo(tmp_path / "train" / "b.png")
    (tmp_path / "test").mkdir()
    photographs = open_dataset("folder", tmp_path, "train", SIZE)
    with pytest.raises(UnusableImageError, match="must be a regular file, got a FIFO"):
        photographs.load(1)
    assert photographs.load_usable([1, 0], 0)[0] == 0
    masks = tmp_path / "masks"
    masks.mkdir()
    os.mkfifo(masks / "c.png")
    with pytest.raises(ValueError, match="must be a regular file, got a FIFO"):
        open_masks(masks, SIZE)


def test_a_format_that_starts_another_program_is_not_opened(tmp_path, monkeypatch):
    write(tmp_path / "train" / "a.png", (40, 40))
    (tmp_path / "test").mkdir()
    (tmp_path / "train" / "b.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    )
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("started"))
    photographs = open_dataset("folder", tmp_path, "train", SIZE)
    with pytest.raises(UnusableImageError, match="not an image in a known format"):
        photographs.load(1)


def test_a_zip_member_is_unpacked_within_its_bound(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/000001.jpg", bytes(200_000))
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n")
    monkeypatch.setattr(celeba_files, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(UnusableImageError, match="at most 100,000 bytes, got 200,000"):
        open_dataset("celeba", tmp_path, "train", SIZE).load(0)


def test_demo_is_embedded_and_holds_photographs_out(monkeypatch):
    def refuse(*arguments):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    train = open_dataset("demo", None, "train", SIZE)
    test = open_dataset("demo", None, "test", SIZE)
    assert len(train) >= 10
    assert len(test) >= 2
    assert not set(train.paths) & set(test.paths)
    for photographs in (train, test):
        for index in range(len(photographs)):
            shorter_side = round(SIZE * 350 / 256) if photographs is train else SIZE
            assert min(photographs.load(index).shape[:2]) == shorter_side
        assert photographs.skipped == {}
    with pytest.raises(ValueError, match="takes no data directory"):
        open_dataset("demo", "somewhere", "train", SIZE)


def test_demo_shows_colours_in_every_order_of_the_channels():
    train = open_dataset("demo", None, "train", SIZE)
    (own,) = (path for path in train.paths if path.endswith("astronaut.png"))
    found = {}
    for path in train.paths:
        if path.startswith(own):
            found[path.removeprefix(own)] = train.load(train.paths.index(path))
    assert set(found) == {"", ":gbr", ":brg", ":rbg", ":bgr", ":grb"}
    for order, image in found.items():
        channels = ["rgb".index(channel) for channel in order[1:] or "rgb"]
        np.testing.assert_array_equal(image, found[""][..., channels])
    assert not [path for path in train.paths if "brick.png:" in path]
    assert not [path for path in open_dataset("demo", None, "test", SIZE).paths if ":" in path]


@pytest.mark.parametrize(
    ("name", "url", "layout"),
    [
        ("celeba", "mmlab.ie.cuhk.edu.hk", "list_eval_partition.txt"),
        ("paris_streetview", "github.com/pathak22/context-encoder", "DIR/train"),
        ("places_canyon", "places2.csail.mit.edu", "DIR/train/canyon"),
        ("folder", "--data-dir", "train, val and test"),
    ],
)
def test_missing_dataset_says_what_to_download_and_where_it_was_looked_for(
    tmp_path, name, url, layout
):
    for where in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            open_dataset(name, where, "train", SIZE)
        for text in (url, layout, str(where), name):
            assert text in str(caught.value)


def test_other_folders_and_unknown_names_are_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"data.celeba is not there"):
        open_dataset("celeba", None, "train", SIZE)
    with pytest.raises(FileNotFoundError, match="needs a data directory"):
        open_dataset("folder", None, "train", SIZE)
    with pytest.raises(ValueError, match=r"unknown dataset 'celebs'.*demo.*did you mean 'celeba'"):
        open_dataset("celebs", None, "train", SIZE)
    with pytest.raises(ValueError, match="unknown split 'training'; known: train, val, test"):
        open_dataset("demo", None, "training", SIZE)
