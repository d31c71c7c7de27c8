"""`musical_tf.inpaint`: every form of photograph and mask, and what it imports."""

import os

import numpy as np
import pytest
from PIL import Image

import musical_tf
from musical_tf import named_models as library
from serving import named_models
from tests.processes import run_python
from tests.serving_model import metadata_for, reference_fill, write_model

RGB = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
HOLE = np.zeros((40, 48), bool)
HOLE[10:20, 15:30] = True
GRAY, ALPHA = RGB[..., 0], np.where(HOLE, 255, 90).astype(np.uint8)
ORIGINAL = metadata_for(strategy="original")  # pictures smaller than the training size
MASK = np.where(HOLE, np.uint8(255), np.uint8(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx", metadata=ORIGINAL)


def expected_of(array):
    """What the model makes of an image of any number of channels, of 8 bits."""
    planes = array.reshape(40, 48, -1)
    colors = 3 if planes.shape[2] > 2 else 1
    filled = reference_fill(np.broadcast_to(planes[..., :colors], RGB.shape), HOLE)
    return np.dstack([filled[..., :colors], planes[..., colors:]]).reshape(array.shape)


ARRAYS = {
    "rgb": RGB,
    "rgba": np.dstack([RGB, ALPHA]),
    "gray": GRAY,
    "gray, three axes": GRAY[..., None],
    "gray with alpha": np.dstack([GRAY, ALPHA]),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_as_it_is(model, array):
    filled = musical_tf.inpaint(array, HOLE, model=model)
    np.testing.assert_array_equal(filled, expected_of(array))
    assert not np.shares_memory(filled, array)
    deep = array.astype(np.uint16) * 256 + 7
    filled = musical_tf.inpaint(deep, HOLE, model=model)
    assert filled.dtype == np.uint16
    np.testing.assert_array_equal(filled >> 8, expected_of(array))
    np.testing.assert_array_equal(filled[~HOLE], deep[~HOLE])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "I;16", "1", "P", "P with alpha"])
def test_a_pil_image_and_a_path_give_a_pil_image(model, tmp_path, mode):
    rgba = Image.fromarray(ARRAYS["rgba"])
    image = {
        "I;16": lambda: Image.fromarray(GRAY.astype(np.uint16) * 256 + 7),
        "P": lambda: rgba.convert("RGB").convert("P"),
        "P with alpha": lambda: rgba.quantize(),
    }.get(mode, lambda: rgba.convert(mode))()
    path = tmp_path / "photo.png"
    image.save(path, icc_profile=b"profile")
    came = {"1": "L", "P": "RGB", "P with alpha": "RGBA"}.get(mode, mode)
    for given in (Image.open(path), str(path), path):
        filled = musical_tf.inpaint(given, Image.fromarray(MASK), model=model)
        assert (filled.mode, filled.size) == (came, image.size)
        assert filled.info["icc_profile"] == b"profile"
        before = np.asarray(image if came == mode else image.convert(came))
        np.testing.assert_array_equal(np.asarray(filled)[~HOLE], before[~HOLE])
        assert (np.asarray(filled)[HOLE] != before[HOLE]).any()


def test_a_transparent_level_of_16_bits_stays(model):
    image = Image.fromarray(GRAY.astype(np.uint16) * 256 + 7)
    image.info["transparency"] = 7
    filled = musical_tf.inpaint(image, HOLE, model=model)
    assert (filled.mode, filled.info["transparency"]) == ("I;16", 7)
    np.testing.assert_array_equal(np.asarray(filled)[~HOLE], np.asarray(image)[~HOLE])


def test_every_form_of_a_mask_is_the_same_hole(model, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    masks = (
        *(HOLE, HOLE[..., None], HOLE.astype(np.uint8)),
        *(MASK, MASK[..., None], np.dstack([MASK] * 3)),
        *(Image.fromarray(MASK), Image.fromarray(HOLE), tmp_path / "mask.png"),
        Image.fromarray(MASK).convert("P").convert("PA"),
        Image.fromarray(HOLE.astype(np.uint16) * 65535),
    )  # fmt: skip
    for mask in masks:
        np.testing.assert_array_equal(musical_tf.inpaint(RGB, mask, model=model), expected_of(RGB))


def test_a_turned_file_is_upright_and_a_pil_image_as_it_lies(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.rot90(RGB, 1)).save(path, exif=exif)
    np.testing.assert_array_equal(musical_tf.inpaint(path, HOLE, model=model), expected_of(RGB))
    lying = musical_tf.inpaint(Image.open(path), np.rot90(HOLE, 1), model=model)
    np.testing.assert_array_equal(np.rot90(lying, -1), expected_of(RGB))


@pytest.mark.parametrize(
    ("image", "mask", "error", "message"),
    [
        ([[0]], HOLE, TypeError, "image must be a path, a PIL image .* got list"),
        (RGB, HOLE.tolist(), TypeError, "mask must be a path, a PIL image .* got list"),
        (RGB / 255, HOLE, ValueError, r"uint8 or uint16 .* got float64 \(40, 48, 3\)"),
        (np.zeros((40, 48, 5), np.uint8), HOLE, ValueError, r"1 to 4.*got uint8 \(40, 48, 5"),
        (RGB[:0], HOLE[:0], ValueError, r"image must have pixels, got shape \(0, 48, 3\)"),
        (RGB, HOLE[:, 1:], ValueError, r"height and width \(40, 48\), got \(40, 47\)"),
        (RGB, HOLE / 1, ValueError, "mask must be bool or uint8 .* got float64"),
        (RGB, np.ones_like(HOLE), ValueError, "covers the whole image"),
        (Image.new("CMYK", (48, 40)), HOLE, ValueError, "image must have mode L, .* got CMYK"),
        *(
            (RGB, Image.new(mode, (48, 40)), ValueError, f"mask must have mode L, .* got {mode}")
            for mode in ("CMYK", "YCbCr", "LAB", "HSV", "I", "F", "RGBX", "La")
        ),
        (RGB, np.zeros((40, 48, 5), np.uint8), ValueError, r"mask must .* got uint8 \(40, 48, 5"),
        ("none.png", HOLE, FileNotFoundError, "none.png"),
        (RGB, "none.png", FileNotFoundError, "none.png"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_is_named(model, image, mask, error, message):
    with pytest.raises(error, match=message):
        musical_tf.inpaint(image, mask, model=model)


def test_models_and_devices_are_chosen_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(named_models, "FOLDER", tmp_path)
    for name, level in (("faces", 10), ("photo", 20)):
        write_model(tmp_path / f"{name}.onnx", metadata=ORIGINAL, result=level)
    assert musical_tf.list_models() == ["faces", "photo"]
    assert (musical_tf.inpaint(RGB, HOLE)[HOLE] == 20).all()
    assert (musical_tf.inpaint(RGB, HOLE, model="faces", device="cpu")[HOLE] == 10).all()
    write_model(
        tmp_path / "photo.onnx", metadata=ORIGINAL, result=30
    )  # a file that changes is opened again
    assert (musical_tf.inpaint(RGB, HOLE)[HOLE] == 30).all()
    with pytest.raises(ValueError, match="'abacus' is not in this installation"):
        musical_tf.inpaint(RGB, HOLE, device="abacus")
    with pytest.raises(ValueError, match="fill must be one of"):
        musical_tf.inpaint(RGB, HOLE, fill="sharp")
    with pytest.raises(FileNotFoundError, match="names: faces, photo"):
        musical_tf.inpaint(RGB, HOLE, model="fases")
    with pytest.raises(TypeError, match="model must be a name or a path, got NoneType"):
        musical_tf.inpaint(RGB, HOLE, model=None)


IMPORTS = """
import sys
import musical_tf
from musical_tf import named_models as library

def loaded():
    return {"keras", "tensorflow", "onnxruntime", "serving"} & set(sys.modules)

assert not loaded(), loaded()
assert "photo" in musical_tf.list_models()
musical_tf.inpaint
assert loaded() == {"serving"}, loaded()
sys.modules["onnxruntime"] = None
try:
    musical_tf.inpaint("photo.jpg", "mask.png")
except ImportError as error:
    print(error)
assert loaded() == {"serving", "onnxruntime"}, loaded()
"""


def test_the_library_imports_what_a_call_needs():
    done = run_python("-c", IMPORTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install 'musical-tf[serve]'" in done.stdout


@pytest.mark.parametrize("imports", ["import keras, musical_tf", "import musical_tf, keras"])
def test_keras_loads_a_generator_whichever_is_imported_first(imports):
    """With Keras' NumPy backend, which is imported in a third of TensorFlow's time."""
    code = f"import sys; {imports}; print(keras.models.load_model(sys.argv[1]).method)"
    environment = os.environ | {"KERAS_BACKEND": "numpy"}
    done = run_python("-c", code, library.file("faces"), env=environment)
    assert (done.returncode, done.stdout) == (0, "musical\n"), done.stderr


def test_the_hint_without_keras():
    code = (
        "import sys, musical_tf\nsys.modules['keras'] = None\n"
        "try:\n    musical_tf.load('faces')\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = run_python("-c", code)
    assert 'pip install "musical-tf[train]"' in done.stdout, done.stderr
