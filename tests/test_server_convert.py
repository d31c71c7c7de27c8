"""`/v1/convert`: a photograph, or its filled version, in another format."""

import base64
import io
import shutil
import urllib.parse

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from musical_tf import images
from serving.server import output_folder
from tests.server_client import (
    HOLE,
    MASK,
    PHOTO,
    decoded,
    error_of,
    png,
    post,
    rotated_jpeg,
    serving,
    with_alpha,
)


@pytest.fixture(scope="module")
def client(session):
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


def test_crop_cuts_or_extends_and_keeps_the_rest_of_the_file(client):
    height, width = PHOTO.shape[:2]
    answer = convert(client, {"image": png(PHOTO)}, crop=f"10,5,{width - 4},{height - 3}")
    assert np.array_equal(decoded(answer.content), PHOTO[5:-3, 10:-4])
    answer = convert(client, {"image": png(PHOTO)}, crop=f"-7, -2, {width + 9}, {height}")
    larger = decoded(answer.content)
    assert np.array_equal(larger, np.pad(PHOTO, ((2, 0), (7, 9), (0, 0)), mode="edge"))
    # The filled version of the larger canvas gets what the photograph's own file holds.
    turned = rotated_jpeg()
    frame = "-8,0,30,20"
    canvas = convert(client, {"image": turned}, crop=frame).content
    files = {"image": turned, "filled": png(255 - decoded(canvas))}
    kept, stripped = (
        Image.open(io.BytesIO(convert(client, files, crop=frame, format="same", **more).content))
        for more in ({}, {"metadata": "strip"})
    )
    assert kept.size == stripped.size == (38, 20)
    assert kept.format == stripped.format == "JPEG"
    assert kept.getexif()
    assert not stripped.getexif()
    deep = images.read_photograph(
        io.BytesIO(convert(client, {"image": deep_png()}, crop="0,0,300,9").content)
    )
    assert deep.samples.shape[:2] == (9, 300)


@pytest.mark.parametrize(
    ("crop", "code"),
    [
        ("0,0,1000000000", "invalid_option"),
        ("5,5,5,9", "invalid_option"),
        ("1e9,0,5,9", "invalid_option"),
        ("-20,-20,-10,-10", "invalid_option"),
        ("-40000,-40000,40000,40000", "too_many_pixels"),
    ],
)
def test_a_crop_that_cannot_be_is_refused(client, crop, code):
    assert error_of(convert(client, {"image": png(PHOTO)}, crop=crop))[0] == code


def test_every_result_is_saved_under_a_new_name(session, tmp_path):
    folder = tmp_path / "results"
    with serving(session, output_dir=output_folder.open_folder(folder)) as client:
        assert client.get("/v1/model").json()["output_dir"] == str(folder)

        def fill(name, **options):
            files = {"image": (name, png(PHOTO)), "mask": ("mask.png", MASK)}
            answer = client.post("/v1/inpaint", files=files, data=options)
            saved = urllib.parse.unquote(answer.headers.get("X-Saved", ""))
            if saved:
                assert (folder / saved).read_bytes() == answer.content
            return saved

        assert fill("photo.png") == "photo-inpainted.png"
        assert fill("photo.png") == "photo-inpainted-2.png"
        assert fill("photo.png", format="jpeg") == "photo-inpainted.jpg"
        assert fill("../../étä:\\..\\. ..png", format="webp") == "photograph-inpainted.webp"
        assert len(fill("x" * 300 + ".png")) < 130
        body = {
            "image": base64.b64encode(png(PHOTO)).decode(),
            "mask": base64.b64encode(MASK).decode(),
        }
        assert (
            client.post("/v1/inpaint/json", json=body).headers["X-Saved"]
            == "photograph-inpainted.png"
        )
        assert len(list(folder.iterdir())) == 6
        shutil.rmtree(folder)
        assert fill("photo.png") == ""  # the answer is there all the same
