"""Requests with a name: their progress, and how another request cancels them."""

import threading

import numpy as np
import pytest

from tests.server_client import GatedSession, batcher_of, error_of, form_request, png, post, serving
from tests.serving_model import write_model
from tests.waiting import wait_until

NAME = "a-random_name"


class SlowSession(GatedSession):
    """A model that waits before each window until the test lets one pass."""

    def __init__(self, path):
        super().__init__(path)
        self.turns = threading.Semaphore(100)

    def run_windows(self, images, holes, *options):
        assert self.turns.acquire(timeout=20)
        return super().run_windows(images, holes, *options)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    return SlowSession(write_model(tmp_path_factory.mktemp("model") / "model.onnx"))


def test_progress_is_told_and_cancelling_stops_before_the_next_window(slow):
    photo = np.zeros((64, 1200, 3), np.uint8)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[20:30, 20:-20] = 255  # long: several windows, one after the other
    with serving(slow) as client:
        slow.turns = threading.Semaphore(0)
        slow.batches.clear()
        body, headers = form_request(png(photo), png(hole))
        answers = []

        def send():
            answers.append(
                client.post(
                    "/v1/inpaint",
                    content=b"".join(body),
                    headers={key.decode(): value.decode() for key, value in headers}
                    | {"X-Job": NAME},
                )
            )

        thread = threading.Thread(target=send)
        thread.start()

        def progress():
            return client.get(f"/v1/jobs/{NAME}").json()

        wait_until(lambda: progress().get("windows"))
        windows = progress()["windows"]
        assert windows > 3
        assert progress() == {"state": "running", "windows_done": 0, "windows": windows}
        slow.turns.release(2)
        wait_until(lambda: progress()["windows_done"] == 2)
        wait_until(lambda: batcher_of(client).is_running)
        # The name is taken as long as the request is being answered.
        answer = client.post(
            "/v1/inpaint", files={"image": ("a", png(photo))}, headers={"X-Job": NAME}
        )
        assert (answer.status_code, error_of(answer)[0]) == (409, "job_exists")

        assert client.delete(f"/v1/jobs/{NAME}").status_code == 204
        thread.join(20)
        assert (answers[0].status_code, error_of(answers[0])[0]) == (409, "cancelled")
        assert error_of(client.get(f"/v1/jobs/{NAME}"))[0] == "job_not_found"
        slow.turns.release(100)
        assert post(client).status_code == 200
        assert len(slow.batches) == 4  # two, the one that ran, and that of the last request


def test_names_that_are_none_are_refused(slow):
    with serving(slow, token="secret") as client:
        right = {"Authorization": "Bearer secret"}
        for name in ("short", "x" * 65, "with a blank", "a/b/c/d/e", ""):
            headers = right | {"X-Job": name}
            answer = client.post("/v1/inpaint", files={"image": b""}, headers=headers)
            assert (answer.status_code, error_of(answer)[0]) == (400, "invalid_option"), name
        assert client.delete("/v1/jobs/unknown-name").status_code == 401
        assert client.get("/v1/jobs/unknown-name", headers=right).status_code == 404
