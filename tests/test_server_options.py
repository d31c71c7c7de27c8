"""Option values as clients write them, and the formats of answers."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from serving.server.request_terms import RequestError
from serving.server.schemas import read_options
from tests.pictures import encoded
from tests.server_client import (
    HOLE,
    IMAGE,
    MASK,
    PHOTO,
    decoded,
    error_of,
    png,
    post,
    post_json,
    serving,
    text,
)

MODELS = ("photo", "faces")


@pytest.fixture(scope="module")
def client(session):
    with serving(session, isolate=False) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        *(("invert", value, True) for value in ("True", "true", "TRUE", "1", "on", "yes", " on ")),
        *(("invert", value, True) for value in (True, 1)),
        *(("invert", value, False) for value in ("False", "false", "0", "off", "No", "", None)),
        *(("invert", value, False) for value in (False, 0)),
        *(("format", value, "jpeg") for value in ("jpg", "JPEG", "Jpg", "jpeg", "jfif")),
        *(("format", value, "png") for value in ("PNG", "", " ", None, "null", "undefined")),
        ("format", "Same", "same"), ("format", "AVIF", "avif"),
        ("polarity", "Clear", "clear"), ("polarity", "", "white"),
        ("strategy", "CROP", "crop"), ("strategy", None, None), ("strategy", "", None),
        *(("threshold", value, 127) for value in ("127", 127, 127.0, " 127 ")),
        *(("threshold", value, None) for value in ("", None, "null")),
        ("seed", "7", 7), ("seed", "", 0),
        ("dilate", "007", 7), ("quality", "90", 90), ("quality", "", None),
        ("model", "", "photo"), ("model", None, "photo"), ("model", "faces", "faces"),
    ],
)  # fmt: skip
def test_values_are_read_as_clients_write_them(name, given, read):
    assert getattr(read_options({name: given}, MODELS), name) == read


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("invert", "maybe", "invert must be true or false, got 'maybe'"),
        ("invert", 2, "invert must be true or false, got '2'"),
        ("format", "gif", "format must be one of png, jpeg, webp, avif, same, got 'gif'"),
        ("format", 7, "format must be one of png, jpeg, webp, avif, same, got '7'"),
        ("strategy", False, "strategy must be one of crop, resize, original, got 'False'"),
        ("threshold", True, "threshold must be a whole number from 0 to 254, got 'True'"),
        ("threshold", 1.5, "threshold must be a whole number from 0 to 254, got '1.5'"),
        ("threshold", 255, "threshold must be a whole number from 0 to 254, got '255'"),
        ("threshold", "1e2", "threshold must be a whole number from 0 to 254, got '1e2'"),
        ("dilate", 257, "dilate must be a whole number from 0 to 256, got '257'"),
        ("dilate", "-1", "dilate must be a whole number from 0 to 256, got '-1'"),
        ("dilate", "9" * 5000, "dilate must be a whole number from 0 to 256, got '" + "9" * 100),
        ("dilate", {}, "dilate must be a whole number from 0 to 256, got '{}'"),
        ("seed", "-1", "seed must be a whole number from 0 to 2147483647, got '-1'"),
        ("seed", True, "seed must be a whole number from 0 to 2147483647, got 'True'"),
        ("quality", 0, "quality must be a whole number from 1 to 100, got '0'"),
        ("quality", "nan", "quality must be a whole number from 1 to 100, got 'nan'"),
        ("polarity", "grey", "polarity must be one of white, black, clear, got 'grey'"),
        ("model", "cats", "model must be one of photo, faces, got 'cats'"),
        ("model", 1, "model must be one of photo, faces, got '1'"),
    ],
)
def test_other_values_are_refused_by_name(name, given, message):
    with pytest.raises(RequestError) as refusal:
        read_options({name: given}, MODELS)
    assert refusal.value.code == "invalid_option"
    assert str(refusal.value).startswith(message)


def test_form_and_json_are_read_alike(client):
    expected = post(client, invert="true", format="webp", mask=png(255 - np.uint8(255) * HOLE))
    assert expected.status_code == 200
    mask = png(255 - np.uint8(255) * HOLE)
    form = post(client, mask=mask, invert="True", format="WEBP", strategy="", dilate="", model="")
    assert form.content == expected.content
    answer = post_json(
        client, image=text(IMAGE), mask=text(mask), invert=1, format="WebP", strategy=None,
        dilate=None, model=None, threshold=None, quality=None,
    )  # fmt: skip
    assert base64.b64decode(answer.json()["image"]) == expected.content


CLEAR = png(np.dstack([np.zeros_like(PHOTO), np.where(HOLE, 0, 255).astype(np.uint8)]))


@pytest.mark.parametrize(
    ("mask", "options", "reading"),
    [
        (MASK, {}, "gray, levels 0, 255: levels above 127 are the hole"),
        (png(255 - np.uint8(255) * HOLE), {"polarity": "black", "invert": "false"},
         "gray, levels 0, 255: levels up to 127 are the hole"),
        (png(255 - np.uint8(255) * HOLE), {"polarity": "Black", "invert": "true"},
         "gray, levels 0, 255: levels up to 127 are the hole"),
        (CLEAR, {"polarity": "clear"}, "opacity, levels 0, 255: the clear part is the hole"),
    ],
)  # fmt: skip
def test_the_answer_says_how_the_mask_was_read(client, mask, options, reading):
    form = post(client, mask=mask, **options)
    answer = post_json(client, image=text(IMAGE), mask=text(mask), **options).json()
    assert form.content == base64.b64decode(answer["image"]) == post(client).content
    assert (form.headers["x-mask"], answer["mask"]) == (reading, reading)
    share = round(float(HOLE.mean()), 6)
    assert (float(form.headers["x-hole-share"]), answer["hole_share"]) == (share, share)


@pytest.mark.parametrize("polarity", ["white", "clear"])
def test_polarity_and_invert_must_agree(client, polarity):
    code, message = error_of(post(client, polarity=polarity, invert="true"))
    assert code == "invalid_option"
    assert message == f"polarity must be black with invert, got '{polarity}'; leave out invert"


def test_a_file_that_does_not_copy_is_not_asked_to(client):
    answer = post(client, fill="copy")
    code, message = error_of(answer)
    assert (answer.status_code, code) == (400, "invalid_option")
    assert "fill must be auto or network" in message
    filled = decoded(post(client, fill="Network").content)
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])


def test_a_file_that_nobody_chose_is_no_mask(client):
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    image = png(np.dstack([PHOTO, alpha]))
    expected = post(client, image, None)
    assert expected.status_code == 200
    unchosen = client.post("/v1/inpaint", files={"image": ("a", image), "mask": ("", b"")})
    empty = client.post("/v1/inpaint", files={"image": ("a", image), "mask": (None, b"")})
    blank = post_json(client, image=text(image), mask="")
    assert unchosen.content == empty.content == expected.content
    assert base64.b64decode(blank.json()["image"]) == expected.content


@pytest.mark.parametrize(
    ("given", "asked", "media_type", "kind"),
    [
        ("PNG", "jpg", "image/jpeg", "JPEG"),
        ("PNG", "webp", "image/webp", "WEBP"),
        ("JPEG", "avif", "image/avif", "AVIF"),
        ("PNG", "same", "image/png", "PNG"),
        ("JPEG", "same", "image/jpeg", "JPEG"),
        ("WEBP", "same", "image/webp", "WEBP"),
        ("TIFF", "same", "image/tiff", "TIFF"),
        ("BMP", "same", "image/bmp", "BMP"),
    ],
)
def test_the_answer_has_the_format_that_was_asked_for(client, given, asked, media_type, kind):
    response = post(client, encoded(PHOTO, given), format=asked)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == media_type
    assert Image.open(io.BytesIO(response.content)).format == kind
    if kind in ("PNG", "TIFF", "BMP") or (given, kind) == ("PNG", "WEBP"):
        source = decoded(encoded(PHOTO, given))
        np.testing.assert_array_equal(decoded(response.content)[~HOLE], source[~HOLE])


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_quality_trades_size_for_fidelity(client, name):
    smooth = np.asarray(Image.fromarray(PHOTO[:6, :10]).resize((80, 48)))
    errors, sizes = [], []
    for quality in (5, 60, 100):
        content = post(client, png(smooth), format=name, quality=quality).content
        sizes.append(len(content))
        errors.append(np.abs(decoded(content)[~HOLE].astype(int) - smooth[~HOLE]).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_png_ignores_the_quality(client):
    assert post(client, quality=5).content == post(client).content


def test_an_unpainted_jpeg_is_encoded_again_when_a_quality_is_asked_for(client):
    image, empty = encoded(PHOTO, "JPEG", quality=95), png(np.zeros_like(HOLE, np.uint8))
    same = post(client, image, empty, format="same")
    small = post(client, image, empty, format="same", quality=10)
    assert (same.status_code, small.status_code) == (200, 200)
    assert same.content == image
    assert len(small.content) < len(image) / 2


def test_json_has_its_own_address(client):
    body = {"image": text(IMAGE), "mask": text(MASK)}
    one, other = (
        client.post(path, json=body).json() for path in ("/v1/inpaint", "/v1/inpaint/json")
    )
    assert one["image"] == other["image"]
    form = client.post("/v1/inpaint/json", files={"image": ("a", IMAGE)})
    assert (form.status_code, error_of(form)[0]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/v1/inpaint", "image, mask, strategy, fill"),
        ("POST", "/v1/inpaint/json", "image, mask, strategy, fill"),
        ("POST", "/v1/convert", "image, filled, format"),
        ("POST", "/v1/select", "photograph, strokes, box"),
        *(("GET", path, "leave it out") for path in ("/v1/model", "/v1/jobs/name-of-one")),
        *(("GET", path, "leave it out") for path in ("/metrics", "/healthz", "/readyz")),
    ],
)
def test_query_parameters_are_refused_with_the_fields_of_the_body(client, method, path, fields):
    files = {"image": ("a.png", IMAGE), "mask": ("b.png", MASK)} if method == "POST" else None
    answer = client.request(method, f"{path}?fill=network", files=files)
    code, message = error_of(answer)
    assert (answer.status_code, code) == (400, "invalid_option")
    assert "'fill'" in message
    assert fields in message


def test_a_query_parameter_of_iopaints_route_is_refused_as_its_clients_expect(client):
    answer = client.post("/api/v1/inpaint?sd_seed=1", json={})
    assert answer.status_code == 400
    assert "'sd_seed'" in answer.json()["detail"]


def test_links_to_pages_may_have_query_parameters(client):
    assert client.get("/?from=mail").status_code == client.get("/docs?a=b").status_code == 200
