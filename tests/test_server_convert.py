"""`/v1/convert`: a photograph, or its filled version, in another format."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from musical_tf import images
from tests.serving_model import write_model
from tests.test_server import (
    HOLE,
    MASK,
    PHOTO,
    InpaintingSession,
    decoded,
    error_of,
    png,
    post,
    rotated_jpeg,
    serving,
    with_alpha,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    session = InpaintingSession(write_model(tmp_path_factory.mktemp("model") / "model.onnx"))
    with serving(session, max_pixels=100_000) as client:
        yield client


def convert(client, files, **options):
    files = {name: (name, content) for name, content in files.items()}
    return client.post("/v1/convert", files=files, data=options)


def deep_png():
    stream = io.BytesIO()
    samples = np.random.default_rng(1).integers(0, 65536, PHOTO.shape[:2], np.uint16)
    Image.fromarray(samples).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (rotated_jpeg(), {"format": "same"}),
        (rotated_jpeg(), {"format": "jpg", "quality": "30"}),
        (deep_png(), {"format": "same"}),
        (with_alpha(), {"format": "webp"}),
        (png(PHOTO), {"format": "avif", "quality": "70"}),
    ],
)
def test_the_filled_version_is_encoded_as_if_filled_in_that_format(client, image, options):
    filled = post(client, image, MASK)
    assert filled.status_code == 200, filled.text
    answer = convert(client, {"image": image, "filled": filled.content}, **options)
    assert answer.status_code == 200, answer.text
    direct = post(client, image, MASK, **options)
    assert answer.headers["content-type"] == direct.headers["content-type"]
    assert answer.content == direct.content


def test_a_photograph_is_converted(client):
    for save in (
        lambda stream: Image.fromarray(PHOTO).save(stream, "AVIF", quality=95),
        lambda stream: pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(stream, quality=95),
    ):
        stream = io.BytesIO()
        save(stream)
        answer = convert(client, {"image": stream.getvalue()})
        assert answer.headers["content-type"] == "image/png"
        expected = images.read_photograph(io.BytesIO(stream.getvalue()), name="").pixels
        np.testing.assert_array_equal(decoded(answer.content), expected)
    assert convert(client, {"image": png(PHOTO)}, format="same").content == png(PHOTO)


def test_what_cannot_be_converted_is_refused(client):
    image = png(PHOTO)
    clear = np.dstack([PHOTO, np.where(HOLE, 0, 255).astype(np.uint8)])
    for files, options, expected in (
        ({}, {"format": "png"}, (400, "invalid_image")),
        ({"image": b"no image"}, {}, (400, "invalid_image")),
        ({"image": image, "filled": b"no image"}, {}, (400, "invalid_filled")),
        ({"image": image, "filled": png(PHOTO[1:])}, {}, (400, "filled_size")),
        ({"image": png(clear)}, {"format": "jpeg"}, (400, "invalid_option")),
        ({"image": image}, {"format": "gif"}, (400, "invalid_option")),
        ({"image": image}, {"quality": "0"}, (400, "invalid_option")),
        ({"image": image, "mask": MASK}, {}, (400, "invalid_option")),
        ({"image": png(np.zeros((400, 400), np.uint8))}, {}, (413, "too_many_pixels")),
    ):
        answer = convert(client, files or {"image": b""}, **options)
        assert (answer.status_code, error_of(answer)[0]) == expected
    answer = client.post("/v1/convert", json={"image": ""})
    assert (answer.status_code, error_of(answer)[0]) == (415, "unsupported_media_type")
