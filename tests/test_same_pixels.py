"""One photograph, a folder and the server give the same file, with a model that copies."""

import numpy as np
from PIL import Image

from serving import predict
from serving.session import InpaintingSession
from tests.test_server import serving


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
