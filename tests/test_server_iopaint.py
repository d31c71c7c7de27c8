"""IOPaint's routes, called as its web page, a Krita plug-in and scripts call them."""

import base64
import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from serving.session import InpaintingSession
from tests.pictures import header_only_png
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
from tests.serving_model import write_model

WEB_PAGE = {
    "ldm_steps": 30, "ldm_sampler": "ddim", "zits_wireframe": True, "cv2_flag": "INPAINT_NS",
    "cv2_radius": 5, "hd_strategy": "Crop", "hd_strategy_crop_triger_size": 640,
    "hd_strategy_crop_margin": 128, "hd_trategy_resize_imit": 2048, "prompt": "", "croper_x": 0,
    "negative_prompt": "out of frame, [worst quality], {blurry}", "use_croper": False,
    "croper_y": 0, "croper_height": 512, "croper_width": 512, "use_extender": False,
    "extender_x": 0, "extender_y": 0, "extender_height": 48, "extender_width": 80,
    "sd_mask_blur": 12, "sd_strength": 1, "sd_steps": 50, "sd_guidance_scale": 7.5,
    "sd_sampler": "DPM++ 2M", "sd_seed": 42, "sd_match_histograms": False, "sd_lcm_lora": False,
    "paint_by_example_example_image": None, "p2p_image_guidance_scale": 1.5,
    "enable_controlnet": False, "controlnet_conditioning_scale": 0.4, "controlnet_method": "",
    "enable_brushnet": False, "brushnet_method": "random_mask", "brushnet_conditioning_scale": 1,
    "powerpaint_task": "text-guided",
}  # fmt: skip
"""What IOPaint's web page sends beside image and mask."""

LARGE_EXAMPLE = {"paint_by_example_example_image": text(bytes(200_000))}
IMAGE_URL, MASK_URL = (f"data:image/png;base64,{text(content)}" for content in (IMAGE, MASK))


@pytest.fixture(scope="module")
def client(session):
    with serving(session, max_bytes=3_000_000, max_pixels=1_000_000) as client:
        yield client


def ask(client, **fields):
    return client.post("/api/v1/inpaint", json=fields)


@pytest.mark.parametrize(
    ("image", "mask", "more", "seed"),
    [
        (IMAGE_URL, MASK_URL, WEB_PAGE, "42"),
        (IMAGE_URL, MASK_URL, {}, "42"),
        (text(IMAGE), text(MASK), {"sd_seed": 7}, "7"),
        (
            base64.encodebytes(IMAGE).decode(),
            text(MASK),
            {"sd_seed": 8, "example": [[1, 2]]},
            "8",
        ),
        (IMAGE_URL, MASK_URL, WEB_PAGE | LARGE_EXAMPLE, "42"),
        (IMAGE_URL, MASK_URL, {"sd_seed": "9"}, "9"),
        (IMAGE_URL, MASK_URL, {"sd_seed": "any"}, "42"),
        (IMAGE_URL, MASK_URL, {"sd_seed": None}, "42"),
        (IMAGE_URL, MASK_URL, {"sd_seed": 2**70}, "42"),
    ],
    ids=[
        *("web page", "krita", "script", "other fields", "large example"),
        *("text of digits", "text", "null", "too large"),
    ],
)
def test_the_answer_is_the_filled_png(client, image, mask, more, seed):
    answer = ask(client, image=image, mask=mask, **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == seed
    assert answer.content == post(client).content


def test_transparency_stays_and_a_jpeg_is_answered_as_png(client):
    alpha = np.full(HOLE.shape, 200, np.uint8)
    answer = ask(client, image=text(png(np.dstack([PHOTO, alpha]))), mask=MASK_URL)
    np.testing.assert_array_equal(decoded(answer.content)[..., 3], alpha)
    stream = io.BytesIO()
    Image.fromarray(PHOTO).save(stream, "JPEG")
    answer = ask(client, image=text(stream.getvalue()), mask=MASK_URL)
    assert Image.open(io.BytesIO(answer.content)).format == "PNG"


def test_a_mask_may_be_strokes_on_a_clear_layer(client):
    strokes = np.dstack([HOLE * np.uint8(255)] * 4)
    answer = ask(client, image=IMAGE_URL, mask=text(png(strokes)))
    assert answer.content == post(client).content


@pytest.mark.parametrize(
    ("fields", "status", "part"),
    [
        ({"image": IMAGE_URL}, 422, "mask must be base64"),
        ({"mask": MASK_URL}, 422, "image must be base64"),
        ({"image": IMAGE_URL, "mask": None}, 422, "mask must be base64"),
        ({"image": IMAGE_URL, "mask": text(png(np.zeros((8, 8), np.uint8)))}, 400, "mask"),
        ({"image": "?", "mask": MASK_URL}, 400, "not base64"),
        ({"image": text(b"abc"), "mask": MASK_URL}, 400, "image"),
        ({"image": text(header_only_png(20000, 20000)), "mask": MASK_URL}, 413, "pixels"),
        ({"image": IMAGE_URL, "mask": MASK_URL, "prompt": "a" * 70_000}, 400, "flat JSON"),
    ],
)
def test_an_error_has_its_reason_where_clients_look(client, fields, status, part):
    answer = ask(client, **fields)
    assert answer.status_code == status
    error = answer.json()
    assert part in error["detail"]
    assert error["errors"] == error["detail"]
    assert isinstance(error["error"], str)


def test_other_requests_get_a_clear_answer(client):
    form = client.post("/api/v1/inpaint", files={"image": ("a", IMAGE), "mask": ("b", MASK)})
    assert (form.status_code, "base64" in form.json()["detail"]) == (415, True)
    deep = client.post(
        "/api/v1/inpaint", content=b"[" * 60_000, headers={"content-type": "application/json"}
    )
    assert (deep.status_code, deep.json()["error"]) == (400, "invalid_json")
    assert client.post("/api/v1/adjust_mask", json={}).json()["error"] == "not_found"
    assert client.get("/api/v1/inputimage").status_code == 404


def test_clients_find_the_model_and_the_configuration(client):
    config = client.get("/api/v1/server-config").json()
    (model,) = config["modelInfos"]
    assert client.get("/api/v1/model").json() == model
    assert (model["name"], model["model_type"]) == ("tiny model.onnx", "inpaint")
    assert (config["plugins"], client.get("/api/v1/samplers").json()) == ([], [])
    assert client.post("/api/v1/model", json={"name": model["name"]}).json() == model
    other = client.post("/api/v1/model", json={"name": "lama"})
    assert (other.status_code, "--model" in other.json()["detail"]) == (400, True)


def test_the_token_is_asked_for(session):
    with serving(session, token="s3cret", isolate=False) as client:
        answer = ask(client, image=IMAGE_URL, mask=MASK_URL)
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
        assert client.get("/api/v1/model").status_code == 401


def test_each_seed_is_a_variant_and_the_default_is_that_of_the_other_routes(tmp_path):
    session = InpaintingSession(
        write_model(tmp_path / "variants.onnx", copies=100, has_seed=True), ["cpu"]
    )
    with serving(session, isolate=False) as client:
        fill = partial(ask, client, image=IMAGE_URL, mask=MASK_URL)
        assert fill().content == post(client).content
        assert fill(sd_seed=42).content == post(client).content
        assert fill(sd_seed=7).content == post(client, seed="7").content
        assert fill(sd_seed=7).content != fill().content
        answers = [fill(sd_seed=-1) for _ in range(4)]
        seeds = {answer.headers["x-seed"] for answer in answers}
        assert len(seeds) > 1
        again = fill(sd_seed=int(answers[0].headers["x-seed"]))
        assert again.content == answers[0].content
        assert fill(sd_seed=-7).status_code == fill(sd_seed=2**40).status_code == 200
        # And in the other forms of a request.
        form = post(client, seed="3", strategy="original").content
        assert (decoded(form)[HOLE] == 103).all()
        fields = {"image": text(IMAGE), "mask": text(MASK), "strategy": "original"}
        answer = post_json(client, **fields, seed=3).json()
        assert base64.b64decode(answer["image"]) == form
        refused = post(client, seed="3", fill="network")
        assert error_of(refused)[0] == "invalid_option"
        assert client.get("/v1/model").json()["variants"] is True


def test_a_seed_is_ignored_by_a_model_without_variants_as_by_iopaints_own(client):
    assert ask(client, image=IMAGE_URL, mask=MASK_URL, sd_seed=7).content == post(client).content
    code, message = error_of(post(client, seed="7"))
    assert code == "invalid_option"
    assert "has no variants" in message
