"""The HTTP interface, from a request's bytes to the answer's, without a network between them."""

import base64
import io
import json
import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

from serving import predict
from serving.server import create_app
from serving.server.request_terms import FORMATS
from serving.server.schemas import OPTIONS, Options, option_schemas
from serving.session import InpaintingSession
from tests.pictures import header_only_png
from tests.server_client import (
    BYTES,
    HOLE,
    IMAGE,
    MASK,
    PHOTO,
    decoded,
    error_of,
    png,
    post,
    post_json,
    rotated_jpeg,
    serving,
    text,
    with_alpha,
)
from tests.serving_model import metadata_for, write_model


@pytest.fixture(scope="module")
def client(session):
    with serving(session, isolate=True, max_bytes=3_000_000, max_pixels=1_000_000) as client:
        yield client


@pytest.fixture(scope="module")
def locked(session):
    """A client of a server with a token, which the client does not send."""
    with serving(session, token="s3cret") as client:
        yield client


# ---- what comes back


def test_the_hole_is_filled_and_every_known_pixel_is_kept(client):
    response = post(client)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == "tiny model.onnx"
    assert response.headers["x-provider"] == "CPUExecutionProvider"
    assert re.fullmatch(r"queue;dur=\d+\.\d, run;dur=\d+\.\d", response.headers["server-timing"])
    assert response.headers["cache-control"] == "no-store"
    filled = decoded(response.content)
    np.testing.assert_array_equal(filled[~HOLE], PHOTO[~HOLE])
    assert (filled[HOLE] != PHOTO[HOLE]).any()


@pytest.mark.parametrize(
    ("image", "mask", "options", "flags"),
    [
        (IMAGE, MASK, {}, []),
        (rotated_jpeg(), MASK, {"format": "jpeg"}, []),
        (rotated_jpeg(), MASK, {"format": "webp"}, []),
        (rotated_jpeg(), MASK, {}, []),
        (with_alpha(), None, {}, []),
        (with_alpha(), MASK, {"format": "webp"}, []),
        (with_alpha(grey=True), None, {}, []),
        (png(PHOTO[..., 0]), MASK, {"format": "jpeg"}, []),
        (IMAGE, png(PHOTO[..., 1]), {"threshold": 200}, ["--threshold", "200"]),
        (IMAGE, png(PHOTO[..., 1]), {"threshold": 0, "invert": "true"},
         ["--threshold", "0", "--polarity", "black"]),
        (IMAGE, MASK, {"dilate": 5, "strategy": "resize"},
         ["--dilate", "5", "--strategy", "resize"]),
        (IMAGE, MASK, {"strategy": "original"}, ["--strategy", "original"]),
        (IMAGE, png(np.zeros_like(PHOTO[..., 0])), {}, []),
    ],
)  # fmt: skip
def test_the_answer_is_the_file_that_predict_writes(
    client, model, tmp_path, image, mask, options, flags
):
    (tmp_path / "photo.png").write_bytes(image)
    (tmp_path / "mask.png").write_bytes(mask or b"")
    suffix = {"png": "png", "jpeg": "jpg", "webp": "webp"}[options.get("format", "png")]
    arguments = {
        "model": model,
        "image": tmp_path / "photo.png",
        "mask": tmp_path / "mask.png" if mask else "alpha",
        "output": tmp_path / f"filled.{suffix}",
    }
    arguments = [item for key, value in arguments.items() for item in (f"--{key}", str(value))]
    assert predict.main(arguments + flags) == 0
    response = post(client, image, mask, **options)
    assert response.status_code == 200, response.text
    assert response.content == (tmp_path / f"filled.{suffix}").read_bytes()


def test_an_image_larger_than_the_model_goes_through_windows(client, session):
    photo = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    hole = np.zeros(photo.shape[:2], bool)
    hole[20:40, 30:60] = hole[200:290, 100:390] = True
    filled = decoded(post(client, png(photo), png(hole.astype(np.uint8) * 255)).content)
    np.testing.assert_array_equal(filled, session.inpaint(photo, hole))


def test_json_is_answered_with_json(client):
    response = post_json(client, image=text(IMAGE), mask=text(MASK), dilate=2, invert=False)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert base64.b64decode(answer.pop("image")) == post(client, dilate=2).content
    milliseconds = answer.pop("milliseconds")
    assert sorted(milliseconds) == ["queue", "run"]
    assert all(value >= 0 for value in milliseconds.values())
    assert answer == {
        "format": "png",
        "width": 80,
        "height": 48,
        "model": "tiny model.onnx",
        "provider": "CPUExecutionProvider",
        "mask": "gray, levels 0, 255: levels above 127 are the hole",
        "hole_share": float(response.headers["x-hole-share"]),
    }


def test_what_is_loaded_and_the_limits(client, session):
    answer = client.get("/v1/model").json()
    assert answer.pop("limits") == {
        "max_bytes": 3_000_000,
        "max_pixels": 1_000_000,
        "timeout": 60.0,
    }
    described = session.describe() | {"model": "tiny model.onnx"}
    assert answer == described | {"models": [described], "output_dir": None}


# ---- what is refused


def many_scans():
    stream = io.BytesIO()
    Image.fromarray(PHOTO[..., 0]).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    scan = content[content.rfind(b"\xff\xda") : -2]
    return content[:-2] + 101 * scan + content[-2:]


ALL_HOLE = png(np.full(HOLE.shape, 255, np.uint8))


@pytest.mark.parametrize(
    ("request_", "status", "code", "part"),
    [
        (partial(post, image=BYTES), 400, "invalid_image", "not an image in a known format"),
        (partial(post, image=b""), 400, "invalid_image", "image: it is empty"),
        (partial(post, image=IMAGE[:300]), 400, "invalid_image", "image: it is damaged"),
        (partial(post, image=None), 400, "invalid_image", "there is no image"),
        (partial(post, image=many_scans()), 400, "invalid_image", "at most 100 scans"),
        (partial(post, mask=BYTES), 400, "invalid_mask", "mask: it is not an image"),
        (partial(post, mask=MASK[:60]), 400, "invalid_mask", "mask: it is damaged"),
        (partial(post, mask=many_scans()), 400, "invalid_mask", "mask: a JPEG must have"),
        (partial(post, mask=None), 400, "no_mask", "mask is missing, and the image"),
        (partial(post, mask=png(HOLE[:40].astype(np.uint8) * 255)), 400, "mask_size",
         "the mask is 80 x 40 pixels and the image is 80 x 48"),
        (partial(post, mask=ALL_HOLE), 400, "hole_covers_image", "polarity"),
        (partial(post, dilate=256), 400, "hole_covers_image", "covers the whole image"),
        (partial(post, image=header_only_png(20000, 20000)), 413, "too_many_pixels",
         "more pixels than the limit"),
        (partial(post, mask=header_only_png(20000, 20000)), 413, "too_many_pixels", "mask"),
        (partial(post, image=header_only_png(2000, 501)), 413, "too_many_pixels", "limit of 1000"),
        (partial(post, image=bytes(3_000_000)), 413, "too_large", "limit of 3000000 bytes"),
        (partial(post, strategy="magic"), 400, "invalid_option", "crop, resize, original"),
        (partial(post, image=with_alpha(), format="jpeg"), 400, "invalid_option", "transparency"),
        (partial(post, image=png(np.zeros((2, 17000, 3), np.uint8)), format="webp"), 400,
         "invalid_option", "webp allows 16383 pixels a side"),
        (partial(post, size=1), 400, "invalid_option",
         "unknown form field 'size'; valid: image, mask, strategy, fill, seed, threshold"),
        (partial(post, threshold=["1", "2"]), 400, "invalid_option", "more than once"),
        (partial(post, threshold="1" * 2000), 400, "invalid_form", "image, mask; short texts"),
        (partial(post_json), 400, "invalid_image", "there is no image"),
        (partial(post_json, image=text(IMAGE)[:-9] + "?"), 400, "invalid_image", "not base64"),
        (partial(post_json, image=7), 400, "invalid_image", "must be base64, got int"),
        (partial(post_json, image="data:image/png,abc"), 400, "invalid_image", "data: URL"),
        (partial(post_json, image=text(IMAGE), mask="?"), 400, "invalid_mask", "not base64"),
        (partial(post_json, image=text(IMAGE), mask=text(MASK), strategy=2), 400,
         "invalid_option", "got '2'"),
        (partial(post_json, picture=""), 400, "invalid_option", "unknown JSON key 'picture'"),
        (partial(post_json, image=[1]), 400, "invalid_json", "flat JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_the_reason(client, request_, status, code, part):
    response = request_(client)
    found, message = error_of(response)
    assert (response.status_code, found) == (status, code), message
    assert part in message
    assert "\n" not in message
    assert len(message) < 400


FORM = "multipart/form-data"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        *(
            ({"content-type": "application/json"}, body, 400, "invalid_json")
            for body in (b"", b"{", b"1", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 9)
        ),
        ({"content-type": FORM}, b"abc", 400, "invalid_form"),
        *(
            ({"content-type": f"{FORM}; boundary=b"}, body, 400, "invalid_form")
            for body in (
                b"abc",
                b"--b\r\n\r\nabc\r\n--b--\r\n",
                b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nno file\r\n--b--\r\n',
                b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ncut off',
            )
        ),
        *(
            (headers, b"{}", 415, "unsupported_media_type")
            for headers in (
                {},
                {"content-type": "text/plain"},
                {"content-type": "application/x-www-form-urlencoded"},
                {"content-type": "application/json", "content-encoding": "gzip"},
            )
        ),
    ],
)
def test_a_body_of_another_kind_is_refused(client, headers, body, status, code):
    response = client.post("/v1/inpaint", content=body, headers=headers)
    assert (response.status_code, error_of(response)[0]) == (status, code)


def test_more_files_than_there_are_is_refused(client):
    files = [(f"image{number}", ("a", b"a")) for number in range(3)]
    response = client.post("/v1/inpaint", files=files)
    assert (response.status_code, error_of(response)[0]) == (400, "invalid_form")


def test_what_the_framework_refuses_is_json_too(client):
    response = client.get("/nothing")
    assert (response.status_code, error_of(response)[0]) == (404, "not_found")
    response = client.get("/v1/inpaint")
    assert (response.status_code, error_of(response)[0]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_strategy_that_needs_too_much_memory_is_refused(model):
    with serving(InpaintingSession(model, memory_limit=1)) as client:
        photo = np.zeros((100, 100, 3), np.uint8)
        mask = np.zeros((100, 100), np.uint8)
        mask[20:70, 20:70] = 255
        response = post(client, png(photo), png(mask), strategy="original")
        assert (response.status_code, error_of(response)[0]) == (413, "too_many_pixels")
        assert "strategy crop or resize" in error_of(response)[1]
        assert post(client, png(photo), png(mask)).status_code == 200


# ---- several models


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A client of a server with two models, `light.onnx` and `dark.onnx`."""
    folder = tmp_path_factory.mktemp("two")
    levels = {"light": 200, "dark": 20}
    models = [write_model(folder / f"{name}.onnx", result=levels[name]) for name in levels]
    with serving([InpaintingSession(model) for model in models]) as client:
        yield client


def level(content: bytes) -> int:
    (value,) = set(np.asarray(Image.open(io.BytesIO(content)))[12:18, 12:18].flat)
    return value


def test_a_request_chooses_its_model(two):
    hole = np.zeros((32, 32), np.uint8)
    hole[10:20, 10:20] = 255
    image, mask = png(np.full((32, 32, 3), 100, np.uint8)), png(hole)
    for model, expected in ((None, 200), ("light.onnx", 200), ("dark.onnx", 20)):
        choice = {} if model is None else {"model": model}
        response = post(two, image=image, mask=mask, **choice)
        assert level(response.content) == expected
        assert response.headers["X-Model"] == (model or "light.onnx")
        answer = post_json(two, image=text(image), mask=text(mask), **choice).json()
        assert level(base64.b64decode(answer["image"])) == expected
        assert answer["model"] == (model or "light.onnx")
    response = post(two, image=image, mask=mask, model="grey.onnx")
    assert error_of(response) == (
        *("invalid_option", "model must be one of light.onnx, dark.onnx, got 'grey.onnx'"),
    )


def test_each_model_looks_at_large_photographs_in_its_own_way(tmp_path):
    photo = np.random.default_rng(1).integers(0, 64, (200, 300, 3), np.uint8)
    photo[100:] += 150
    hole = np.zeros(photo.shape[:2], bool)
    hole[20:40, 30:60] = True
    image, mask = png(photo), png(hole.astype(np.uint8) * 255)
    models = [
        InpaintingSession(
            write_model(tmp_path / f"{name}.onnx", metadata=metadata_for(strategy=strategy))
        )
        for name, strategy in (("plain", None), ("whole", "resize"))
    ]
    expected = {name: models[0].inpaint(photo, hole, name) for name in ("crop", "resize")}
    assert (expected["crop"] != expected["resize"]).any()
    with serving(models) as client:
        described = client.get("/v1/model").json()["models"]
        assert [each["strategy"] for each in described] == ["crop", "resize"]
        for model, own in (("plain.onnx", "crop"), ("whole.onnx", "resize")):
            for choice, strategy in ({}, own), ({"strategy": "crop"}, "crop"):
                form = post(client, image=image, mask=mask, model=model, **choice)
                np.testing.assert_array_equal(decoded(form.content), expected[strategy])
                body = post_json(client, image=text(image), mask=text(mask), model=model, **choice)
                assert base64.b64decode(body.json()["image"]) == form.content


def test_every_model_is_listed_and_the_first_is_the_default(two):
    answer = two.get("/v1/model").json()
    assert [each["model"] for each in answer["models"]] == ["light.onnx", "dark.onnx"]
    assert answer["model"] == "light.onnx"
    document = two.get("/openapi.json").json()
    for path, kind in (
        ("/v1/inpaint", "multipart/form-data"),
        ("/v1/inpaint/json", "application/json"),
    ):
        body = document["paths"][path]["post"]["requestBody"]["content"][kind]
        assert body["schema"]["properties"]["model"]["enum"] == ["light.onnx", "dark.onnx"]


def test_the_open_document_names_no_model_where_there_is_a_token(locked, session):
    document = locked.get("/openapi.json")
    assert document.status_code == 200
    assert session.name not in document.text
    assert '"model"' in document.text


def test_two_models_of_one_name_are_refused(session):
    with pytest.raises(ValueError, match=r"every model needs a name of its own, got tiny model"):
        create_app([session, session])


# ---- pages


SECURITY = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/page/base.css", 200),
        ("/docs", 200),
        ("/docs/assets/swagger-ui.css", 200),
        ("/openapi.json", 200),
        ("/healthz", 200),
        ("/v1/inpaint", 405),
        ("/nothing", 404),
        ("/page/nothing", 404),
        ("/page/../session.py", 404),
        ("/page/%2e%2e/session.py", 404),
        ("/docs/assets/..%2fcore.py", 404),
    ],
)
def test_every_answer_has_the_security_headers(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert {name: response.headers[name] for name in SECURITY} == SECURITY


@pytest.mark.parametrize(("page", "folder"), [("/", "serving/page"), ("/docs", "")])
def test_pages_need_nothing_but_this_server(client, page, folder):
    html = client.get(page).text
    links = re.findall(r"""(?:src|href)=["']([^"'#]+)""", html)
    assert links
    for link in links:
        assert not re.match(r"(?:\w+:)?//", link), link
        assert client.get(str(client.base_url.join(page).join(link).path)).status_code == 200
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)


def test_the_documentation_describes_what_there_is(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        *("/v1/inpaint", "/v1/inpaint/json", "/v1/model", "/healthz", "/readyz", "/metrics"),
        *("/v1/convert", "/v1/select", "/v1/jobs/{job}"),
    }
    operations = {
        operation["operationId"]: operation
        for path in document["paths"].values()
        for operation in path.values()
    }
    kinds = {
        name: list(operation["requestBody"]["content"])
        for name, operation in operations.items()
        if "requestBody" in operation
    }
    forms = {name: ["multipart/form-data"] for name in ("inpaint", "convert", "select")}
    assert kinds == forms | {"inpaint_json": ["application/json"]}
    others = {"describe_model", "health", "readiness", "metrics", "job_progress", "cancel_job"}
    assert set(operations) == others | set(kinds)
    answers = operations["inpaint"]["responses"]
    assert set(answers) == {"200", "400", "403", "409", "413", "415", "503", "504"}
    assert {f"image/{name}" for name in FORMATS} <= set(answers["200"]["content"])
    assert list(operations["inpaint_json"]["responses"]["200"]["content"]) == ["application/json"]
    for name in ("inpaint", "inpaint_json"):
        (content,) = operations[name]["requestBody"]["content"].values()
        properties = content["schema"]["properties"]
        assert set(properties) == {"image", "mask", *OPTIONS}
        # These differ by model, mask and format; each other default is taken.
        own = {"strategy", "threshold", "quality"}
        assert not [name for name in own if "default" in properties[name]]
        for name in set(OPTIONS) - own:
            value = json.dumps(properties[name]["default"]).strip('"')
            assert post(client, **{name: value}).content == post(client).content
        assert properties["format"]["enum"] == [*FORMATS, "same"]
    schemas = option_schemas()
    assert tuple(schemas) == OPTIONS
    assert "anyOf" not in json.dumps(schemas)
    for name, schema in schemas.items():
        assert schema["description"]
        assert schema.get("default") == getattr(Options, name)
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert references
    for reference in references:
        found = document
        for part in reference.split("/"):
            found = found[part]


def test_the_documentation_knows_the_token(locked):
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["paths"]["/v1/inpaint"]["post"]["security"] == [{"token": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_a_token_is_asked_for_where_the_model_is(locked):
    for method, path in (("POST", "/v1/inpaint"), ("GET", "/v1/model"), ("GET", "/metrics")):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer s3cret2"},
            {"authorization": "Bearer"},
            {"authorization": "Basic s3cret"},
            {"authorization": b"Bearer s3cr\xe9t"},
        ):
            response = locked.request(method, path, headers=headers)
            assert (response.status_code, error_of(response)[0]) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json", "/", "/page/base.css"):
        assert locked.get(path).status_code == 200
    right = {"authorization": "Bearer s3cret"}
    assert locked.get("/v1/model", headers=right).status_code == 200
    assert locked.get("/metrics", headers=right).status_code == 200
    files = {"image": ("a", IMAGE), "mask": ("b", MASK)}
    assert locked.post("/v1/inpaint", files=files, headers=right).status_code == 200
