"""What is found, what pixels come out, what is skipped, and that batch s is that of (seed, s)."""

import io
import os
import socket
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from skimage import data

from training.data import celeba as celeba_files
from training.data import datasets, pipeline
from training.data import photographs as photo_files
from training.data.datasets import open_dataset
from training.data.holes import BoxHole, open_masks
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


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


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
    archive.write_bytes(content[:3000])
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
    with pytest.raises(ValueError, match="holds 1 images: too few"):
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


# ------------------------------------------------------------------------------------------- pixels


def decode(image, kind="PNG", side=20, **options):
    return photo_files.decode(encode(image, kind, **options), side)


def test_grey_is_repeated_and_16_bit_is_scaled():
    ramp = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    expected = np.repeat(np.round(ramp / 257).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(Image.fromarray(ramp)), expected)
    np.testing.assert_array_equal(decode(Image.fromarray(ramp), "TIFF"), expected)
    grey = Image.fromarray(expected[..., 0])
    np.testing.assert_array_equal(decode(grey), expected)
    bits = Image.fromarray(expected[..., 0] > 99)
    np.testing.assert_array_equal(decode(bits), np.where(expected > 99, 255, 0))


def test_transparency_is_flattened_on_white():
    for mode, colour, expected in (
        ("RGBA", (0, 100, 200, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 200, 255), (0, 100, 200)),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),
        ("LA", (100, 51), (224, 224, 224)),
    ):
        flat = decode(Image.new(mode, (20, 20), colour))
        np.testing.assert_allclose(flat.reshape(-1, 3), [expected] * 400, atol=1)
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    np.testing.assert_array_equal(decode(palette)[0, 0], (10, 20, 30))
    np.testing.assert_array_equal(decode(palette, transparency=1)[0, 0], (255, 255, 255))
    keyed = Image.new("RGB", (20, 20), (1, 2, 3))
    np.testing.assert_array_equal(decode(keyed, transparency=(1, 2, 3))[0, 0], (255, 255, 255))


def test_cmyk_becomes_rgb_and_samples_of_unknown_range_are_refused():
    red = decode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", quality=95)
    np.testing.assert_allclose(red[10, 10], (255, 0, 0), atol=6)
    for pixels, kind in (
        (np.zeros((20, 20), np.float32), "32-bit floating point"),
        (np.full((20, 20), 10**6, np.int32), "32-bit integer"),
    ):
        with pytest.raises(UnusableImageError, match="range is not known"):
            photo_files.to_rgb(Image.fromarray(pixels))
        with pytest.raises(UnusableImageError, match=f"it is {kind}"):
            decode(Image.fromarray(pixels), "TIFF")


def test_orientation_is_honored_and_a_damaged_block_of_exif_no_reason_to_skip():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(data.chelsea()[:40, :60])
    turned = decode(image, "JPEG", 40, exif=exif, quality=95)
    expected = np.rot90(decode(image, "JPEG", 40, quality=95), -1)
    np.testing.assert_array_equal(turned, expected)
    damaged = decode(image, "JPEG", exif=b"Exif\x00\x00MM\x00*garbage")
    assert damaged.shape == (20, 30, 3)


def test_large_jpegs_are_reduced_while_decoding_and_look_the_same():
    image = Image.fromarray(data.astronaut()).resize((1024, 1024), Image.Resampling.BICUBIC)
    file = encode(image, "JPEG", quality=95)
    expected = image.resize((100, 100), Image.Resampling.BILINEAR)
    error = np.abs(photo_files.decode(file, 100).astype(float) - np.asarray(expected))
    assert error.mean() < 2
    # Small ones are enlarged by the resize alone.
    assert decode(Image.new("RGB", (30, 16)), side=64).shape == (64, 120, 3)


# ----------------------------------------------------------------------------------- unusable files


def bomb(width, height):
    """A PNG of a few bytes that claims to be `width` x `height`."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.fixture
def mixed(tmp_path):
    """Eight grey photographs, value 10 x number, among as many files that cannot be used."""
    folder = tmp_path / "train"
    write(tmp_path / "test" / "other.png")
    for number in range(8):
        write(folder / f"good{number}.png", (100, 90), value=10 * number)
    whole = encode(Image.fromarray(data.chelsea()), "JPEG").getvalue()
    (folder / "a-truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b-text.jpg").write_text("not an image")
    (folder / "c-empty.png").touch()
    write(folder / "d-tiny.png", (15, 15))
    write(folder / "h-long.png", (20 * 20, 20))
    (folder / "i-bomb.png").write_bytes(bomb(60000, 60000))
    (folder / "j-garbled.jpg").write_bytes(whole[:700] + bytes(9000))
    (folder / "k-dangling.png").symlink_to(tmp_path / "nowhere")
    return tmp_path


def test_unusable_files_are_skipped_counted_and_named(mixed):
    photographs = open_dataset("folder", mixed, "train", SIZE)
    assert len(photographs) == 16
    loaded = [
        path for path, _, _ in pipeline.evaluation_samples(photographs, open_masks("center", SIZE))
    ]
    assert [path[-9:] for path in loaded] == [f"good{number}.png" for number in range(8)]
    reasons = {path.rsplit("/", 1)[-1]: reason for path, reason in photographs.skipped.items()}
    assert len(reasons) == 8
    assert "it ends before its last pixel" in reasons["a-truncated.jpg"]
    assert "not an image in a known format" in reasons["b-text.jpg"]
    assert "not an image in a known format" in reasons["c-empty.png"]
    assert "tiny: 15 x 15, expected a shorter side of at least 16" in reasons["d-tiny.png"]
    assert "longer than 16 to 1" in reasons["h-long.png"]
    assert "more pixels than the limit" in reasons["i-bomb.png"]
    assert reasons["j-garbled.jpg"].startswith("cannot be read")
    assert "No such file" in reasons["k-dangling.png"]
    assert "8 skipped" in photographs.describe()
    assert "and 5 more" in photographs.describe()


def test_tiny_depends_on_the_crop(tmp_path):
    write(tmp_path / "train" / "a.png", (40, 40))
    assert open_dataset("folder", tmp_path, "train", 160).load(0).shape == (219, 219, 3)
    with pytest.raises(UnusableImageError, match="at least 44"):
        open_dataset("folder", tmp_path, "train", 176).load(0)


def test_only_unusable_files_is_an_error_that_names_the_first(mixed):
    for number in range(8):
        (mixed / "train" / f"good{number}.png").unlink()
    photographs = open_dataset("folder", mixed, "train", SIZE)
    holes = open_masks("center", SIZE)
    with pytest.raises(ValueError, match=r"none of the 8 .*: .*and 5 more") as caught:
        pipeline.training_pipeline(pipeline.SampleStream(photographs, holes, 0), 2)
    assert str(caught.value).count(str(mixed / "train")) == 3
    with pytest.raises(ValueError, match="none of the 8 photographs of the train split"):
        next(pipeline.evaluation_samples(photographs, holes))


def stream(photographs, seed=0, crop="center", flip=False, mask="box"):
    photographs.crop, photographs.flip = crop, flip
    return pipeline.SampleStream(photographs, open_masks(mask, SIZE), seed)


def test_a_broken_photograph_is_replaced_by_the_next_of_the_epochs_permutation(mixed):
    photographs = open_dataset("folder", mixed, "train", SIZE)
    samples = stream(photographs)
    usable = {index for index, path in enumerate(photographs.paths) if "good" in path}
    for epoch in (0, 1):
        order = samples.order(epoch)
        assert sorted(order) == list(range(16))
        for position in range(16):
            expected = next(
                order[(position + offset) % 16]
                for offset in range(16)
                if order[(position + offset) % 16] in usable
            )
            value = 10 * int(photographs.paths[expected][-5])
            image, _ = samples.sample(16 * epoch + position)
            np.testing.assert_array_equal(image, value)
    assert not np.array_equal(samples.order(0), samples.order(1))


def test_zoom_shows_a_part_of_the_crop_and_jitter_changes_its_colours(tmp_path):
    ramp = np.tile(np.linspace(40, 200, SIZE).astype("uint8"), (SIZE, 1))
    (tmp_path / "train").mkdir()
    Image.fromarray(np.stack([ramp, ramp.T, 0 * ramp + 90], -1)).save(tmp_path / "train" / "r.png")
    photographs = open_train(tmp_path)
    plain = stream(photographs).sample(3)[0].astype(float)

    def drawn(**options):
        augmented = pipeline.SampleStream(photographs, open_masks("box", SIZE), 0, **options)
        images = [augmented.sample(number)[0].astype(float) for number in range(40)]
        np.testing.assert_array_equal(images[3], augmented.sample(3)[0])
        return images

    spans = [np.ptp(image[..., 0]) / np.ptp(plain[..., 0]) for image in drawn(zoom=0.25)]
    assert min(spans) == pytest.approx(1 / 1.25, abs=0.06)
    assert max(spans) == pytest.approx(1, abs=0.03)
    starts = {image[0, 0, 0] for image in drawn(zoom=0.25)}
    assert len(starts) > 10  # not always the same corner
    means = [image.mean() / plain.mean() for image in drawn(jitter=0.2)]
    assert 0.75 < min(means) < 0.9 < 1.1 < max(means) < 1.25
    for image in drawn():
        np.testing.assert_array_equal(image, plain)


# ----------------------------------------------------------------------------------------- pipeline


def batches(dataset, count):
    return [
        {name: value.numpy() for name, value in batch.items()}
        for batch, _ in zip(dataset, range(count), strict=False)
    ]


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("image", "hole"):
            np.testing.assert_array_equal(one[name], other[name])


def open_train(folder, **options):
    """Opens folder/train whole: with a test folder beside it nothing of it is held out."""
    (folder / "test").mkdir(exist_ok=True)
    return open_dataset("folder", folder, "train", SIZE, **options)


def open_pipeline(folder, seed=3, cache_bytes=photo_files.CACHE_BYTES, mask="box", **options):
    photographs = open_train(folder, cache_bytes=cache_bytes)
    stream = pipeline.SampleStream(photographs, open_masks(mask, SIZE), seed)
    return pipeline.training_pipeline(stream, 3, **options)


@pytest.fixture
def noisy(mixed):
    """`mixed`, the photographs noise, so that crops and flips show."""
    for number in range(8):
        write(mixed / "train" / f"{'n' * (number + 1)}.png", (110, 90))
    return mixed


def test_batches_follow_the_conventions(noisy):
    batch = batches(open_pipeline(noisy), 1)[0]
    assert batch["image"].shape == (3, SIZE, SIZE, 3)
    assert batch["hole"].shape == (3, SIZE, SIZE, 1)
    assert batch["image"].dtype == batch["hole"].dtype == np.float32
    assert set(np.unique(batch["hole"])) == {0.0, 1.0}
    assert batch["hole"].mean() < 0.5
    assert not np.array_equal(batch["hole"][0], batch["hole"][1])
    levels = (batch["image"] + 1) * 127.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert batch["image"].min() >= -1
    assert batch["image"].max() <= 1


def test_batch_s_is_a_function_of_seed_and_s_alone(noisy):
    # 14 batches of 3 over 24 files: across two epochs, past files that are skipped.
    whole = batches(open_pipeline(noisy), 14)
    assert_same(batches(open_pipeline(noisy, start_step=6), 8), whole[6:])
    assert_same(batches(open_pipeline(noisy, workers=1, cache_bytes=0), 14), whole)
    other = batches(open_pipeline(noisy, seed=4), 1)
    assert not np.array_equal(other[0]["image"], whole[0]["image"])


def test_a_slow_sample_keeps_its_place(mixed):
    class SlowAtTimes(BoxHole):
        def hole(self, rng):
            if rng.random() < 0.3:
                time.sleep(0.02)
            return super().hole(rng)

    made = [
        batches(
            pipeline.training_pipeline(
                pipeline.SampleStream(open_train(mixed), SlowAtTimes(SIZE), 0),
                3,
                workers=workers,
            ),
            6,
        )
        for workers in (6, 1)
    ]
    assert_same(*made)


def test_every_epoch_shows_every_photograph_once(tmp_path):
    for number in range(10):
        write(tmp_path / "train" / f"{number}.png", (80, 70), value=number)
    dataset = pipeline.training_pipeline(stream(open_train(tmp_path), mask="center"), 5)
    shown = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches(dataset, 6)])
    epochs = np.round((shown + 1) * 127.5).astype(int).reshape(3, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_crops_and_flips_are_cuts_of_the_photograph(tmp_path):
    # Each pixel tells where it is: red its row, green its column.
    rows, columns = np.mgrid[:88, :100]
    whole = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    (tmp_path / "train").mkdir()
    Image.fromarray(whole).save(tmp_path / "train" / "a.png")
    photographs = open_train(tmp_path, shorter_side=88)
    samples = stream(photographs, crop="random", flip=True)
    places, flips = set(), 0
    for number in range(200):
        image, _ = samples.sample(number)
        if image[0, 0, 1] > image[0, -1, 1]:
            image = image[:, ::-1]
            flips += 1
        top, left = image[0, 0, :2].astype(int)
        np.testing.assert_array_equal(image, whole[top : top + SIZE, left : left + SIZE])
        places.add((top, left))
    assert 70 < flips < 130
    assert {top for top, _ in places} == set(range(88 - SIZE + 1))
    assert {left for _, left in places} >= {0, 100 - SIZE}


def test_the_cache_keeps_to_its_bound_and_saves_the_second_decode(tmp_path):
    for number in range(4):
        write(tmp_path / "train" / f"{number}.png", (SIZE, SIZE), value=number)
    room_for_two = 2 * SIZE * SIZE * 3
    photographs = open_train(tmp_path, cache_bytes=room_for_two, shorter_side=SIZE)
    for index in range(4):
        photographs.load(index)
    for number in range(4):
        (tmp_path / "train" / f"{number}.png").unlink()
    assert [photographs.load(index)[0, 0, 0] for index in (0, 1)] == [0, 1]
    for index in (2, 3):
        with pytest.raises(UnusableImageError, match="No such file"):
            photographs.load(index)
    with pytest.raises(ValueError, match="read-only"):
        photographs.load(0)[0] = 1


def test_evaluation_is_ordered_centred_and_keeps_hole_i_for_path_i(mixed):
    photographs = open_dataset("folder", mixed, "train", SIZE)
    holes = open_masks("irregular", SIZE)
    first = list(pipeline.evaluation_samples(photographs, holes))
    second = list(pipeline.evaluation_samples(photographs, holes))
    assert len(first) == 8
    for (path, image, hole), (same_path, same_image, same_hole) in zip(first, second, strict=True):
        assert path == same_path
        np.testing.assert_array_equal(image, same_image)
        np.testing.assert_array_equal(hole, same_hole)
        index = photographs.paths.index(path)
        np.testing.assert_array_equal(hole, holes.deterministic(index))
        np.testing.assert_array_equal(image, photo_files.center_crop(photographs.load(index), SIZE))
        assert image.dtype == np.uint8
        assert hole.dtype == bool


def test_steps_for_epochs_rounds_up():
    assert pipeline.steps_for_epochs(70, 14900, 5) == 208600
    assert pipeline.steps_for_epochs(1, 10, 3) == 4
    assert pipeline.steps_for_epochs(3, 10, 3) == 10
    assert pipeline.steps_for_epochs(1, 1, 16) == 1
