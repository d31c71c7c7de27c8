"""The function that is exported, and the check that every runtime computes it."""

import functools

import keras
import numpy as np
import pytest

from export.errors import ExportError
from export.parity import TOLERANCES, check_parity, measure_parity
from musical_tf.inference import InpaintingFunction
from tests.tiny_run import holes, photographs


class Recorder:
    """A generator that shows what it was given."""

    size_multiple = 16

    def __call__(self, inputs, training):
        assert training is False
        self.image, self.hole = (keras.ops.convert_to_numpy(value) for value in inputs)
        return keras.ops.zeros_like(inputs[0]) + 0.5


def test_scales_erases_and_composites():
    recorder = Recorder()
    image = np.zeros((1, 16, 16, 3), "uint8")
    image[0, 0, 0] = (0, 51, 255)
    mask = np.zeros((1, 16, 16), "uint8")
    mask[0, 3, 4], mask[0, 3, 5] = 128, 127
    image[0, 3, 4] = 77
    result = np.asarray(InpaintingFunction(recorder)(image, mask))
    np.testing.assert_allclose(recorder.image[0, 0, 0], (-1, -0.6, 1), atol=1e-6)
    assert recorder.hole.sum() == recorder.hole[0, 3, 4, 0] == 1  # above 127, not from 127 on
    assert not recorder.image[0, 3, 4].any()
    expected = image.copy()
    expected[0, 3, 4] = 191  # 0.5 -> 191.25
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("size", [(17, 31), (5, 40), (1, 1)])
def test_pads_image_and_hole_by_reflection(size):
    recorder = Recorder()
    image, mask = photographs(2, *size), np.zeros((2, *size), "uint8")
    mask[1, -1, -1] = 255
    mask[1, 0, 0] = 255
    InpaintingFunction(recorder)(image, mask)
    pads = [(0, 0)] + [(0, -side % 16) for side in size]
    mode = {"mode": "reflect"} if min(size) > 15 else None
    assert recorder.image.shape == (2, size[0] + pads[1][1], size[1] + pads[2][1], 3)
    np.testing.assert_array_equal(recorder.hole[:, : size[0], : size[1], 0], mask / 255)
    if mode:
        expected = np.pad(mask / 255, pads, **mode)
        np.testing.assert_array_equal(recorder.hole[..., 0], expected)
        known = np.pad(image / 127.5 - 1, [*pads, (0, 0)], **mode) * (1 - expected[..., None])
        np.testing.assert_allclose(recorder.image, known, atol=1e-6)


def test_float32_nchw_is_the_same_function():
    recorder = Recorder()
    image, mask = photographs(2, 20, 33), holes(2, 20, 33)
    whole = np.asarray(InpaintingFunction(recorder)(image, mask))
    seen = recorder.image
    planes = (image / 255).astype("float32").transpose(0, 3, 1, 2)
    result = InpaintingFunction(recorder, "float32", "nchw")(planes, (mask > 127).astype("float32"))
    np.testing.assert_allclose(recorder.image, seen, atol=1e-6)
    result = np.asarray(result).transpose(0, 2, 3, 1)
    assert np.abs(result * 255 - whole).max() <= 0.5  # whole gray levels round
    np.testing.assert_array_equal(result[mask == 0], planes.transpose(0, 2, 3, 1)[mask == 0])


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"io must be one of uint8, float32, got 'int8'"):
        InpaintingFunction(Recorder(), io="int8")
    with pytest.raises(ValueError, match=r"layout must be one of nhwc, nchw, got 'hwc'"):
        InpaintingFunction(Recorder(), layout="hwc")
    with pytest.raises(ValueError, match="size_multiple must be a positive integer"):
        InpaintingFunction(lambda inputs, training: inputs[0])


def as_runtime(fill):
    """A runtime of a file of version 1 that fills by a function."""
    return lambda image, mask: {"inpainted": fill(image, mask)}


def test_parity_check_catches_every_kind_of_difference():
    inpaint = InpaintingFunction(Recorder(), io="float32")

    def keras_itself(image, mask):
        return np.asarray(inpaint(image, mask))

    def two_levels_off(image, mask):
        result = keras_itself(image, mask)
        return np.where(mask[..., None] > 0.5, result + 2 / 255, result)

    def nan(image, mask):
        return np.where(mask[..., None] > 0.5, np.float32("nan"), keras_itself(image, mask))

    def touches_known(image, mask):
        return keras_itself(image, mask) + np.float32(1e-3)

    same = {"same": as_runtime(keras_itself)}
    check_parity(measure_parity(inpaint, same, 32))
    for runtime, message in (
        (two_levels_off, r"differs from Keras by 2\.000 gray levels; at most 1"),
        (nan, "differs from Keras by nan"),
        (touches_known, "alters known pixels"),
    ):
        report = measure_parity(inpaint, {"runtime": as_runtime(runtime)}, 32)
        with pytest.raises(ExportError, match=message):
            check_parity(report)


def test_each_precision_has_its_own_tolerance():
    inpaint = InpaintingFunction(Recorder(), io="float32")

    def off_by(largest, everywhere):
        def run(image, mask):
            error = np.full(image.shape, everywhere / 255, "float32")
            error[:, 20, 20] = largest / 255
            result = np.asarray(inpaint(image, mask))
            return np.where(mask[..., None] > 0.5, result + error, result)

        return run

    for precision, (largest, average) in TOLERANCES.items():
        for run, message in (
            (off_by(largest * 0.9, average * 0.5), None),
            (off_by(largest * 1.1, average * 0.5), r"gray levels; at most"),
            (off_by(largest * 0.9, average * 1.1), r"gray levels on average; at most"),
        ):
            runtimes = {"onnx": as_runtime(run)}
            report = measure_parity(inpaint, runtimes, 32, {"onnx": precision})
            assert report["runtimes"]["onnx"]["precision"] == precision
            if message is None:
                check_parity(report)
            else:
                with pytest.raises(ExportError, match=f"{message} .* in {precision}"):
                    check_parity(report)


def test_a_report_refuses_sources_that_are_missing():
    class Copying:
        """Paints the hole, and says so, or that each pixel is its own source."""

        io, layout, contract = "uint8", "nhwc", "2"

        def outputs(self, image, mask, painted=True):
            hole = (mask > 127)[..., None]
            filled = np.where(hole, np.uint8(9), image)
            places = np.stack(np.indices(mask.shape[1:], dtype="int32"), axis=-1)
            source = np.where(hole & painted, np.int32(-1), places)
            return {"inpainted": filled, "source": source, "predicted": filled}

    inpaint = Copying()
    check_parity(measure_parity(inpaint, {"whole": inpaint.outputs}, 32))
    broken = functools.partial(inpaint.outputs, painted=False)
    with pytest.raises(ExportError, match="copies from pixels that are not known"):
        check_parity(measure_parity(inpaint, {"broken": broken}, 32))
