"""What pixels come out of a photograph, what is skipped, and that batch s is that of (seed, s)."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from skimage import data

from training.data import photographs as photo_files
from training.data import pipeline
from training.data.datasets import open_dataset
from training.data.holes import BoxHole, open_masks
from training.data.photographs import UnusableImageError

from .pictures import header_only_png
from .test_datasets import SIZE, write


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


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
    (folder / "i-bomb.png").write_bytes(header_only_png(60000, 60000))
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
