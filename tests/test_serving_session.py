import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from musical_tf import onnx_runtime
from musical_tf.contract import Contract
from serving.memory import (
    BYTES_PER_PAIR,
    BYTES_PER_PIXEL,
    MEMORY_LIMIT,
    check_memory,
    estimate_memory,
)
from serving.session import InpaintingSession, ModelError, ProviderError
from serving.tiling import STRATEGIES
from tests.processes import ROOT, succeed
from tests.serving_model import metadata_for, reference_fill, write_model

onnxruntime = onnx_runtime.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def session(folder):
    return InpaintingSession(write_model(folder / "model.onnx"), providers=["cpu"], threads=1)


def sample(height, width, seed=0):
    """A photograph and a hole of two parts."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    hole = np.zeros((height, width), bool)
    hole[height // 4 : height // 2, width // 4 : width // 2] = True
    hole[-1, -1] = True
    return image, hole


@pytest.mark.parametrize("io", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_every_variant_of_the_contract_gives_the_same_result(folder, io, layout):
    path = write_model(folder / f"{io}_{layout}.onnx", io, layout)
    session = InpaintingSession(path, providers=["cpu"], threads=1)
    assert (session.contract.io, session.contract.layout) == (io, layout)
    assert session.contract.parity == {"max_grey_levels": 0}
    described = session.describe()
    assert described["provider"] == session.provider == "CPUExecutionProvider"
    assert (described["method"], session.contract.training_size) == ("musical", 64)
    image, hole = sample(40, 56)
    filled = session.inpaint(image, hole, "original")
    np.testing.assert_array_equal(filled, reference_fill(image, hole))


@pytest.mark.parametrize(
    "size", [(16, 16), (17, 33), (64, 64), (15, 40), (40, 15), (5, 3), (1, 90), (200, 300)]
)
@pytest.mark.parametrize("strategy", ["crop", "resize", "original"])
def test_any_size_keeps_known_pixels_and_fills_the_hole(session, size, strategy):
    image, hole = sample(*size)
    image //= 4
    image[hole] = 255
    filled = session.inpaint(image, hole, strategy)
    assert filled.dtype == np.uint8
    assert filled.shape == image.shape
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    # The model fills with means of at most 63, and enlarging overshoots a little.
    assert filled[hole].max() <= 80


@pytest.mark.parametrize("named", [None, "crop", "resize", "original"])
def test_the_file_says_how_a_large_photograph_is_looked_at(folder, named):
    path = write_model(folder / f"{named}.onnx", metadata=metadata_for(strategy=named))
    session = InpaintingSession(path, ["cpu"], threads=1)
    assert session.describe()["strategy"] == session.contract.strategy == (named or "crop")
    # Dark around the first hole and bright elsewhere, so that each strategy has another mean.
    image, hole = sample(250, 300)
    image[:130, :160] //= 4
    by_strategy = {each: session.inpaint(image, hole, each) for each in STRATEGIES}
    default = session.inpaint(image, hole)
    same = [each for each in STRATEGIES if np.array_equal(by_strategy[each], default)]
    assert same == [named or "crop"]


def test_small_images_are_padded_without_taking_hole_pixels_for_known_ones(session):
    image = np.full((4, 4, 3), 255, np.uint8)
    hole = np.zeros((4, 4), bool)
    hole[:, 1:] = True
    image[:, 0] = 40
    assert (session.inpaint(image, hole) == 40).all()


def test_inputs_are_not_changed_and_the_result_is_new(session):
    image, hole = sample(80, 80)
    expected = session.inpaint(image[::2, ::-2].copy(), hole[::2, ::-2].copy())
    kept_image, kept_hole = image.copy(), hole.copy()
    for array in (image, hole):
        array.setflags(write=False)
    filled = session.inpaint(image[::2, ::-2], hole[::2, ::-2])  # views are accepted
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(image, kept_image)
    np.testing.assert_array_equal(hole, kept_hole)
    unfilled = session.inpaint(image, np.zeros_like(hole))
    np.testing.assert_array_equal(unfilled, image)
    assert not np.shares_memory(unfilled, image)


def test_batch_uses_each_image_with_its_own_hole(session):
    pairs = [sample(20, 24, seed) for seed in range(3)]
    pairs[1][1][:] = False
    pairs[2] = pairs[2][0], np.roll(pairs[2][1], 5, axis=1)
    images, holes = (np.stack(part) for part in zip(*pairs, strict=True))
    filled = session.inpaint_batch(images, holes)
    for index in (0, 2):
        np.testing.assert_array_equal(filled[index], reference_fill(*pairs[index]))
    np.testing.assert_array_equal(filled[1], images[1])
    image, hole = sample(6, 7)  # below the smallest size
    filled = session.inpaint_batch(image[None], hole[None])
    np.testing.assert_array_equal(filled[0], session.inpaint(image, hole, "original"))


def test_threads_share_a_session(session):
    """Whatever runs beside it, a call gives what it gives alone, bit for bit."""
    samples = [sample(30 + 11 * seed, 290 - 7 * seed, seed) for seed in range(8)]
    calls = [
        lambda pair=pair, strategy=strategy: session.inpaint(*pair, strategy)
        for pair in samples
        for strategy in ("crop", "resize", "original")
    ]
    calls += [lambda pair=pair: session.inpaint_batch(*(a[None] for a in pair)) for pair in samples]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            order = np.random.default_rng(0).permutation(len(calls))
            results = list(pool.map(lambda index: calls[index](), order))
            for index, result in zip(order, results, strict=True):
                np.testing.assert_array_equal(result, expected[index])


def test_float_results_are_rounded_and_clipped(folder):
    image, hole = sample(20, 20)
    for value, level in ((0.4999 / 255, 0), (1.6 / 255, 2), (7.0, 255), (-7.0, 0)):
        path = write_model(folder / "constant.onnx", "float32", result=value)
        filled = InpaintingSession(path, ["cpu"]).inpaint(image, hole, "original")
        assert (filled[hole] == level).all()
    path = write_model(folder / "nan.onnx", "float32", result=float("nan"))
    with pytest.raises(RuntimeError, match="not finite"):
        InpaintingSession(path, ["cpu"]).inpaint(image, hole)


def test_a_model_that_changes_known_pixels_cannot(folder):
    # The same graph under a false flag: this one reads the mask the other way round.
    path = write_model(folder / "inverted.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Greater":
            node.op_type = "Less"
    onnx.save(model, path)
    image, hole = sample(40, 40)
    session = InpaintingSession(path, ["cpu"])
    np.testing.assert_array_equal(session.inpaint(image, hole)[~hole], image[~hole])
    filled = session.inpaint_batch(image[None], hole[None])[0]
    np.testing.assert_array_equal(filled[~hole], image[~hole])


def test_wrong_batches_and_sizes_are_named(session):
    image, hole = sample(20, 20)
    for images, holes in (
        (image[None].astype("float32"), hole[None]),
        (image[None, ..., :2], hole[None]),
        (image[None], hole[None, 1:]),
        (image[None], hole[None].astype("uint8")),
        (image, hole),
    ):
        with pytest.raises(ValueError, match=r"images must be uint8 \(B, H, W, 3\) and holes bool"):
            session.inpaint_batch(images, holes)
    with pytest.raises(ValueError, match="must have pixels"):
        session.inpaint_batch(image[None, :0], hole[None, :0])
    with pytest.raises(TypeError, match="images must be a NumPy array, got list"):
        session.inpaint_batch([image], hole[None])
    with pytest.raises(ValueError, match=r"holes\[1\] covers the whole image"):
        session.inpaint_batch(np.stack([image, image]), np.stack([hole, np.ones_like(hole)]))
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        session.inpaint(image, hole, working_size=64.0)
    with pytest.raises(ValueError, match="working_size must be at least 1 pixel, got 0"):
        session.inpaint(image, hole, working_size=0)


def test_progress_counts_the_windows_and_may_end_the_filling(session):
    image, hole = sample(400, 600)
    calls = []
    session.inpaint(image, hole, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 2), (1, 2), (2, 2)]

    def cancel(done, total):
        raise InterruptedError(f"after {done}")

    with pytest.raises(InterruptedError, match="after 0"):
        session.inpaint(image, hole, progress=cancel)


def test_a_run_beyond_the_memory_limit_is_refused_before_it_starts(session):
    image, hole = np.zeros((1600, 1600, 3), np.uint8), np.zeros((1600, 1600), bool)
    hole[:800, :800] = True
    with pytest.raises(ValueError, match=r"1600 x 1600 .* strategy crop or resize"):
        session.inpaint(image, hole, "original")
    assert session.inpaint(image, hole, "crop").shape == image.shape


def test_the_estimate_follows_the_image_and_the_box_around_the_hole():
    holes = np.zeros((2, 64, 96), bool)
    holes[0, 8:24, 10:42] = True

    def expected(box):
        return 2 * 64 * 96 * (BYTES_PER_PIXEL + BYTES_PER_PAIR * (box // 16) // 16)

    assert estimate_memory(holes) == expected(16 * 32)
    holes[0, 8:24, 20:30] = False
    assert estimate_memory(holes) == expected(16 * 32)
    holes[1, 39] = True
    assert estimate_memory(holes) == expected(32 * 96)
    features = 2 * 64 * 96 * BYTES_PER_PIXEL
    assert 4**4 * (estimate_memory(holes, factor=16) - features) == expected(32 * 96) - features


@pytest.mark.parametrize(
    ("entries", "factor"),
    [
        ({}, 4),
        ({"attention_factor": "2"}, 2),
        ({"recipe": '{"config": {"attention_level": 2}}'}, 2),
        ({"recipe": '{"config": {"attention_level": 4}}'}, 8),
        ({"recipe": '{"config": {"attention_level": [4]}}'}, 4),
        ({"recipe": '["config"]'}, 4),
        ({"recipe": "[" * 100_000}, 4),
    ],
)
def test_a_file_tells_how_coarse_its_attention_is(entries, factor):
    assert Contract.from_metadata(metadata_for(**entries)).attention_factor == factor


def test_the_model_of_the_package_may_see_windows_of_twice_its_size():
    contract = InpaintingSession("photo", ["cpu"]).contract
    hole = np.ones((1, 512, 512), bool)
    assert contract.attention_factor == 8
    check_memory(hole, contract, MEMORY_LIMIT)
    with pytest.raises(ValueError, match="the model's own is 256"):
        check_memory(hole, dataclasses.replace(contract, attention_factor=4), MEMORY_LIMIT)


def test_a_bound_on_the_attention_bounds_the_estimate(folder):
    holes = np.zeros((1, 640, 640), bool)
    holes[:, 160:480, 160:480] = True
    features = 640 * 640 * BYTES_PER_PIXEL
    assert estimate_memory(holes, 80**2 * 160**2 - 1) == (
        features + BYTES_PER_PAIR * (80**2 * 160**2 - 1)
    )
    assert estimate_memory(holes, 10**12) == estimate_memory(holes)
    # A row of the box, with what is around it, is always worked on at once.
    assert estimate_memory(holes, 1) == features + BYTES_PER_PAIR * 7 * 86 * 160**2

    path = write_model(folder / "bounded.onnx", metadata=metadata_for(attention_max_scores="5000"))
    limit = estimate_memory(holes, 5000)
    bounded = InpaintingSession(path, ["cpu"], memory_limit=limit)
    assert bounded.contract.attention_max_scores == 5000
    image = np.zeros((640, 640, 3), np.uint8)
    assert bounded.inpaint(image, holes[0], "original").shape == image.shape
    bounded.memory_limit = limit - 1
    with pytest.raises(ValueError, match="strategy crop or resize"):
        bounded.inpaint(image, holes[0], "original")


def test_a_run_of_the_training_size_is_never_refused(session):
    frugal = InpaintingSession(session.model_path, ["cpu"], memory_limit=1)
    image, hole = sample(64, 64)
    np.testing.assert_array_equal(frugal.inpaint(image, hole), session.inpaint(image, hole))
    image, hole = sample(65, 64)
    with pytest.raises(ValueError, match="a higher memory limit"):
        frugal.inpaint(image, hole, "original")
    images, holes = (np.stack([array] * 2) for array in sample(64, 64))
    with pytest.raises(ValueError, match=r"2 image\(s\) of 64 x 64 .* a higher memory limit"):
        frugal.inpaint_batch(images, holes)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"not a model exported by this project.*has: nothing"),
        ({"author": "somebody"}, r"has no 'musical_tf.contract' \(it has: author\)"),
        (metadata_for(contract="3"), "must be version 1 or 2, got .3."),
        (metadata_for(preset=None), "its metadata lacks 'musical_tf.preset'"),
        (metadata_for(layout="hwcn"), "'musical_tf.layout' is 'hwcn'; expected 'nhwc' or 'nchw'"),
        (metadata_for(io="int4"), "'musical_tf.io' is 'int4'; expected 'uint8' or 'float32'"),
        (metadata_for(value_range="[-1, 1]"), "value_range' is '\\[-1, 1\\]'; expected"),
        (metadata_for(mask_polarity="255 = known"), "mask_polarity' is '255 = known'; expected"),
        (
            metadata_for(training_size="big"),
            "training_size' must be a whole number within 1 and 8192, got 'big'",
        ),
        (metadata_for(training_size="9" * 5000), "within 1 and 8192, got '9999"),
        (metadata_for(size_multiple="0"), "a whole number within 1 and 1024, got '0'"),
        (metadata_for(attention_max_scores="all"), "max_scores' must be a whole number within 1"),
        (
            metadata_for(strategy="zoom"),
            "'musical_tf.strategy' is 'zoom'; expected 'crop' or 'resize' or 'original'",
        ),
        (metadata_for(parity="{"), "parity' is not JSON"),
        (metadata_for(parity="[" * 100_000), "parity' is not JSON"),
        (metadata_for(parity="[1]"), r"parity' must be a JSON object, got \[1\]"),
        (metadata_for(io="float32"), "'image' must be tensor\\(float\\)"),
        (
            metadata_for(layout="nchw"),
            r"axis 3 of 'image' is fixed at 3, where the contract \(nchw\)",
        ),
    ],
)
def test_files_with_another_contract_are_refused_with_the_reason(folder, metadata, message):
    path = write_model(folder / "foreign.onnx", metadata=metadata)
    with pytest.raises(ModelError, match=message) as error:
        InpaintingSession(path, ["cpu"])
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_a_file_that_copies_is_asked_for_copies_or_the_networks_fill(folder, io):
    value = 200.0 if io == "uint8" else 200 / 255
    session = InpaintingSession(write_model(folder / f"copies_{io}.onnx", io, copies=value))
    image, hole = sample(40, 40)
    for fill in ("auto", "copy"):
        assert (session.inpaint(image, hole, "original", fill=fill)[hole] == 200).all()
        assert (session.inpaint_batch(image[None], hole[None], fill)[0][hole] == 200).all()
    painted = session.inpaint(image, hole, "original", fill="network")
    np.testing.assert_array_equal(painted, reference_fill(image, hole))
    with pytest.raises(ValueError, match="fill must be one of auto, copy, network, got 'sharp'"):
        session.inpaint(image, hole, fill="sharp")
    session = InpaintingSession(write_model(folder / f"{io}.onnx", io))
    with pytest.raises(ValueError, match="fill must be auto or network, got 'copy'"):
        session.inpaint(image, hole, fill="copy")


def test_a_large_photograph_is_copied_at_its_own_size(folder):
    session = InpaintingSession(write_model(folder / "large.onnx", copies=200.0))
    image = np.full((256, 256, 3), 100, np.uint8)
    image[:40, :40] = 60
    image[1:4:2, ::2] = 80  # sharper than the model sees
    hole = np.zeros((256, 256), bool)
    hole[100:200, 100:200] = True
    filled = session.inpaint(image, hole, "resize")
    # Every small pixel comes from the first one: cells of its 4 x 4 pixels, at level 200.
    inside = filled[120:180, 120:180].reshape(15, 4, 15, 4, 3)
    assert (inside == inside[:1, :, :1]).all()
    cell = inside[0, :, 0].astype(int) - image[:4, :4]
    np.testing.assert_allclose(cell, cell.mean(), atol=3)
    assert abs(inside.mean() - 200) < 3
    np.testing.assert_array_equal(filled[~hole], image[~hole])


def test_files_whose_graph_breaks_the_contract_are_refused(folder):
    path = write_model(folder / "fixed.onnx", sizes=("batch", 64, 64))
    with pytest.raises(ModelError, match=r"axis 1 of 'image' is fixed at 64.*any size"):
        InpaintingSession(path, ["cpu"])
    path = write_model(folder / "named.onnx", mask_name="hole")
    with pytest.raises(ModelError, match="its inputs must be image, mask, got image, hole"):
        InpaintingSession(path, ["cpu"])
    path = write_model(folder / "bytes.onnx", metadata=metadata_for(dataset="photographs"))
    path.write_bytes(path.read_bytes().replace(b"photographs", b"\xff\xfehotographs"))
    with pytest.raises(ModelError, match=r"bytes\.onnx: "):
        InpaintingSession(path, ["cpu"])


def test_files_that_are_no_models_are_refused(folder):
    missing = folder / "missing.onnx"
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx: no such model file"):
        InpaintingSession(missing)
    with pytest.raises(ModelError, match="not a file"):
        InpaintingSession(folder)
    whole = write_model(folder / "whole.onnx").read_bytes()
    for content in (b"", b"not a model", whole[: len(whole) // 2], bytes(1000)):
        path = folder / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.onnx: "):
            InpaintingSession(path, ["cpu"])


def test_providers_are_checked(folder):
    path = write_model(folder / "providers.onnx")
    with pytest.raises(
        ProviderError, match=r"'abacus' is not in this installation.*available: .*cpu"
    ):
        InpaintingSession(path, ["abacus"])
    with pytest.raises(ProviderError, match="empty"):
        InpaintingSession(path, [])
    with pytest.raises(ValueError, match="threads must be 0 or more, got -1"):
        InpaintingSession(path, threads=-1)
    assert InpaintingSession(path, ["CPUExecutionProvider"]).provider == "CPUExecutionProvider"


def test_a_provider_that_runs_nothing_is_not_reported_as_running(folder):
    """Each provider of this installation either computes, or asking for it is an error.

    PyPI's own builds register one, Azure, that takes none of a model's nodes.
    """
    path = write_model(folder / "providers.onnx")
    for name in onnxruntime.get_available_providers():
        try:
            session = InpaintingSession(path, [name])
        except ProviderError as error:
            message = str(error)
            assert name != "CPUExecutionProvider"
        else:
            message = ""
            assert session.provider == name
        if name == "AzureExecutionProvider":
            assert "must include CPUExecutionProvider" in message
            assert "got Azure" in message
    assert InpaintingSession(path).provider != "AzureExecutionProvider"


@pytest.fixture(scope="module")
def with_variants(folder):
    return InpaintingSession(write_model(folder / "variants.onnx", copies=100, has_seed=True))


def test_each_seed_gives_its_own_fill_every_time(with_variants):
    image, hole = sample(40, 56)
    assert with_variants.describe()["variants"] is True
    for seed, level in ((0, 100), (1, 101), (7, 107), (2**31 - 1, 147)):
        filled = with_variants.inpaint(image, hole, "original", seed=seed)
        assert (filled[hole] == level).all()
        np.testing.assert_array_equal(filled[~hole], image[~hole])
    assert (with_variants.inpaint_batch(image[None], hole[None], seed=3)[0][hole] == 103).all()
    assert (with_variants.inpaint(image, hole, "original")[hole] == 100).all()


def test_a_seed_where_there_is_one_fill_is_refused(session, with_variants):
    image, hole = sample(40, 56)
    assert session.describe()["variants"] is False
    session.inpaint(image, hole, seed=0)
    with pytest.raises(ValueError, match=rf"seed must be 0, got 1: {session.name} has no variants"):
        session.inpaint(image, hole, seed=1)
    with pytest.raises(ValueError, match="seed must be 0 with fill network"):
        with_variants.inpaint(image, hole, fill="network", seed=1)
    for seed in (-1, 2**31):
        with pytest.raises(ValueError, match=f"seed must be within 0 and .*got {seed}"):
            with_variants.inpaint(image, hole, seed=seed)


# On Linux a new process inherits its parent's `ru_maxrss`, and pytest with TensorFlow in it may
# have needed more than what is measured here; `VmHWM` begins anew.
MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from serving.session import InpaintingSession

def peak_kibibytes():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])

session = InpaintingSession(sys.argv[1], ["cpu"], threads=1)
image = np.full((4000, 6000, 3), 90, np.uint8)
hole = np.zeros((4000, 6000), bool)
hole[200:260, 300:380] = True
hole[1500:3000, 2000:3800] = True
hole[np.arange(3900), np.arange(3900) + 20] = True
before = peak_kibibytes()
filled = session.inpaint(image, hole, "crop")
after = peak_kibibytes()
assert np.array_equal(filled[~hole], image[~hole])
assert np.ptp(filled[hole]) <= 2
print((after - before) // 1024)
"""


def test_a_24_megapixel_photograph_takes_bounded_memory(session):
    mebibytes = int(succeed(sys.executable, "-c", MEASURE, session.model_path, cwd=ROOT))
    # 8 bytes a pixel beside image and hole, as `InpaintingSession` promises.
    assert 50 < mebibytes < 8 * 24e6 / 2**20
