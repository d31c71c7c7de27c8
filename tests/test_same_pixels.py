"""Fills of a model that copies: the same by every interface, and as good after other rounding."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from musical_tf import onnx_runtime
from serving import named_models, predict
from serving.session import InpaintingSession
from tests.processes import ROOT
from tests.test_server import serving

onnxruntime = onnx_runtime.load()


def test_one_photograph_a_folder_and_the_server_give_the_same_file(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    photo, mask = photos / "one.png", masks / "one.png"
    Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC).save(photo)
    marks = np.zeros((256, 256), np.uint8)
    marks[90:160, 90:160] = 255
    Image.fromarray(marks).save(mask)

    assert predict.main([str(photo), str(mask), str(tmp_path / "single.png")]) == 0
    assert predict.main([str(photos), str(masks), str(tmp_path / "folder")]) == 0
    with serving(InpaintingSession("photo"), isolate=False) as client:
        files = {"image": photo.open("rb"), "mask": mask.open("rb")}
        answer = client.post("/v1/inpaint", files=files)
    single = (tmp_path / "single.png").read_bytes()
    assert single != photo.read_bytes()
    assert (tmp_path / "folder" / "one.png").read_bytes() == single
    assert answer.content == single


@pytest.fixture(scope="module")
def sky():
    """A photograph's clear sky, in which every patch is like many others, with a hole."""
    photo = Image.open(ROOT / "serving" / "page" / "sample-rocket.jpg").crop((200, 60, 430, 290))
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((57, 57, 172, 172), fill=255)
    return np.asarray(photo), np.asarray(mask)


def fill(sky, level):
    """`inpainted`, `source` and `predicted`, at a level of graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    path = str(named_models.find("photo"))
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    feeds = {"image": sky[0][None], "mask": sky[1][None]}
    outputs = session.run(["inpainted", "source", "predicted"], feeds)
    return [output[0] for output in outputs]


def smoothed(pixels, hole):
    """Blurred colors in the hole, and the root mean square of what the blur removes."""
    blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(8))
    colors = np.asarray(blurred, np.float64)[hole]
    return colors, np.sqrt(np.square(pixels[hole] - colors).mean())


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_another_rounding_may_copy_other_pixels_but_fills_as_well(sky, level):
    levels = onnxruntime.GraphOptimizationLevel
    expected, _, expected_guide = fill(sky, levels.ORT_ENABLE_BASIC)
    got, source, guide = fill(sky, getattr(levels, level))
    hole = sky[1] > 127
    assert np.abs(guide.astype(int) - expected_guide).max() <= 1
    copied = hole & (source[..., 0] >= 0)
    assert copied.sum() > 0.5 * hole.sum()
    assert not hole[tuple(source[copied].T)].any()
    assert np.array_equal(got[~hole], sky[0][~hole])
    # Copies follow the network's fill, so blurred colors agree as it does.
    (got_colors, got_detail), (colors, detail) = (smoothed(each, hole) for each in (got, expected))
    assert np.abs(got_colors - colors).mean() < 1.0
    assert abs(got_detail / detail - 1.0) < 0.03
