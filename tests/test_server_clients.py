"""Many clients at once: those that hang up, wait, send too much, or lack the token; and state."""

import asyncio

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.server import create_app, envelope, worker
from serving.server.settings import Settings
from serving.session import InferenceError
from tests.server_client import (
    JSON_HEADERS,
    PHOTO,
    GatedSession,
    asgi_request,
    batcher_of,
    decoded,
    error_of,
    form_request,
    metric,
    png,
    post,
    posting,
    serving,
    status_of,
)
from tests.waiting import WAIT, wait_until


@pytest.fixture(scope="module")
def client(session):
    with serving(session, isolate=True, max_bytes=3_000_000) as client:
        yield client


@pytest.fixture
def gated(model):
    session = GatedSession(model)
    yield session
    session.gate.set()


def test_a_body_without_length_is_read_no_further_than_the_limit(client):
    hung_up = asyncio.Event()
    hung_up.set()
    parts = [bytes(5000)] * 1000
    answered_after = None

    async def send(message):
        nonlocal answered_after
        if message["type"] == "http.response.start":
            assert message["status"] == 413
            answered_after = metric(client, "musical_requests_in_flight")

    _, read = asgi_request(
        client.app, parts, JSON_HEADERS, before_disconnect=hung_up.wait, send=send
    )
    assert answered_after is not None
    # The rest is thrown away, until the client has noticed; none of it is kept.
    assert read == 1000


@pytest.mark.parametrize("settings", [{"max_bytes": 3_000_000}, {"token": "s3cret"}])
def test_what_the_head_shows_is_refused_before_the_body_is_read(session, settings):
    """A body that is too long, and a missing token."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"3000001")]
    events = []

    async def send(message):
        events.append(message.get("status", "body"))

    async def gone():
        events.append("asked for the body")

    with serving(session, **settings) as client:
        asgi_request(client.app, [], headers, gone, send)
    assert events[0] == (401 if "token" in settings else 413)


def test_a_client_that_hangs_up_while_it_waits_costs_no_run(gated):
    with serving(gated, queue=8) as client:
        service = client.app.state.service
        gated.gate.clear()
        gated.batches.clear()
        with posting(client, 2):  # both threads of the queue are busy with these
            wait_until(lambda: batcher_of(client).is_running and batcher_of(client).waiting == 1)

            async def waiting():
                while service.jobs.depth != 1:
                    await asyncio.sleep(0.005)

            body, headers = form_request()
            sent, _ = asgi_request(client.app, body, headers, waiting)
            assert status_of(sent) == 499  # uvicorn has nobody to send it to
            assert service.jobs.depth == 0
            gated.gate.set()
        assert gated.batches == [1, 1]
        line = 'musical_requests_total{code="client_disconnected",route="/v1/inpaint",status="499"}'
        assert metric(client, line) == 1


def test_a_client_that_hangs_up_stops_a_run_before_its_next_window(gated):
    photo = np.zeros((64, 1200, 3), np.uint8)
    hole = np.zeros(photo.shape[:2], np.uint8)
    hole[20:30, 20:-20] = 255  # long: several windows, one after the other
    with serving(gated) as client:
        body, headers = form_request(png(photo), png(hole))
        gated.batches.clear()
        asgi_request(client.app, body, headers)
        windows = len(gated.batches)
        assert windows > 3
        gated.batches.clear()
        gated.gate.clear()

        async def running():
            while not batcher_of(client).is_running:
                await asyncio.sleep(0.005)

        sent, _ = asgi_request(client.app, body, headers, running)
        assert status_of(sent) == 499
        gated.gate.set()
        assert post(client).status_code == 200
        assert len(gated.batches) == 2  # the window that ran, and that of the second request


def test_a_client_that_hangs_up_in_the_body_leaves_its_place(session):
    with serving(session, queue=0) as client:
        for _ in range(5):
            body, headers = form_request()
            sent, _ = asgi_request(
                client.app, [body[0][:500]], headers, before_disconnect="in the body"
            )
            assert status_of(sent) == 499
        assert post(client).status_code == 200


def test_a_client_that_reads_nothing_keeps_its_place_no_longer_than_the_timeout(session):
    photo = np.random.default_rng(2).integers(0, 256, (600, 600, 3), np.uint8)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[100:120, 100:120] = 255
    with serving(session, queue=0, timeout=1) as client:
        jobs = client.app.state.service.jobs
        pieces = []

        async def stuck(message):
            if message.get("body"):
                pieces.append(len(message["body"]))
                assert jobs.admitted == 1
                await asyncio.sleep(WAIT)

        body, headers = form_request(png(photo), png(mask))
        asgi_request(client.app, body, headers, send=stuck)
        assert pieces == [2**18]  # and not the whole image, which would wait in the transport
        assert jobs.admitted == 0
        line = 'musical_requests_total{code="not_read",route="/v1/inpaint",status="200"}'
        assert metric(client, line) == 1


def test_a_full_queue_is_said_at_once_with_the_time_to_wait(gated):
    with serving(gated, queue=1) as client:
        gated.gate.clear()
        with posting(client, 3) as answers:  # two threads, one place to wait
            wait_until(lambda: client.app.state.service.jobs.admitted == 3)
            response = post(client)
            assert response.status_code == 503
            code, message = error_of(response)
            assert code == "queue_full"
            assert 1 <= int(response.headers["retry-after"]) <= 60
            assert "3 requests are waiting or running already" in message
            gated.gate.set()
        assert [answer.status_code for answer in answers.values()] == [200] * 3
        assert post(client).status_code == 200


def test_a_client_with_many_requests_leaves_room_for_another(gated):
    with serving(gated, queue=3) as client:
        other = TestClient(client.app, client=("192.0.2.7", 1))
        gated.gate.clear()
        with posting(client, 5) as answers:
            wait_until(lambda: client.app.state.service.jobs.depth == 3)
            with posting(other) as served:
                wait_until(lambda: len(answers) == 1)
                (refused,) = answers.values()
                assert (refused.status_code, error_of(refused)[0]) == (503, "queue_full")
                assert refused.headers["retry-after"]
                gated.gate.set()
        assert served[0].status_code == 200
        assert sorted(answer.status_code for answer in answers.values()) == [200] * 4 + [503]


def test_a_request_that_takes_too_long_is_given_up_and_not_run_later(gated):
    with serving(gated, timeout=0.3) as client:
        gated.gate.clear()
        gated.batches.clear()
        with posting(client, 5) as answers:
            pass
        assert [answer.status_code for answer in answers.values()] == [504] * 5
        assert {error_of(answer)[0] for answer in answers.values()} == {"timeout"}
        wait_until(lambda: client.app.state.service.jobs.depth == 0)
        wait_until(lambda: client.get("/readyz").status_code == 503)
        code, message = error_of(client.get("/readyz"))
        assert (code, "occupy every thread" in message) == ("not_ready", True)
        gated.gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert len(gated.batches) <= 1  # the one that had begun
        assert post(client).status_code == 200


def spin(function, content, **options):
    """A decoder that never ends; runs in a worker."""
    while True:
        pass


def spin_for_long(function, content, **options):
    """A decoder that exceeds its processor time; runs in a worker."""
    with worker.limits("image: decoding it", 2**30, 0.1):
        spin(function, content)


def allocate(function, content, **options):
    """A decoder that exceeds its memory; runs in a worker."""
    with worker.limits("image: decoding it", 2**20, 10):
        np.ones(2**24)


def test_hostile_files_cost_workers_and_the_next_request_is_served(session, monkeypatch):
    with serving(session, isolate=True, timeout=1, queue=8) as client:
        expected = post(client).content
        with monkeypatch.context() as patch:
            patch.setattr(worker, "read", spin)
            with posting(client, 10) as answers:
                pass
        assert [answer.status_code for answer in answers.values()] == [504] * 10
        wait_until(lambda: metric(client, 'musical_workers_ended_total{reason="abandoned"}') == 2)
        wait_until(lambda: post(client).status_code == 200)
        assert post(client).content == expected
        assert client.get("/readyz").status_code == 200
        wait_until(lambda: metric(client, "musical_workers") == 2)


@pytest.mark.parametrize("decoder", [spin_for_long, allocate])
def test_an_image_that_exceeds_its_limits_is_refused(client, monkeypatch, decoder):
    with monkeypatch.context() as patch:
        patch.setattr(worker, "read", decoder)
        response = post(client)
    assert (response.status_code, error_of(response)[0]) == (413, "too_costly")
    assert error_of(response)[1].startswith("image: decoding it takes more than")
    assert post(client).status_code == 200


def test_a_body_that_never_ends_is_given_up(session, monkeypatch):
    monkeypatch.setattr(envelope, "_LINGER", 0.1)
    with serving(session, timeout=0.3, queue=0) as client:
        sent, _ = asgi_request(client.app, [], JSON_HEADERS)
        assert status_of(sent) == 504
        assert client.app.state.service.jobs.admitted == 0


def test_windows_of_several_requests_go_through_the_model_together(gated):
    photos = [np.full_like(PHOTO, 20 * number) for number in range(6)]
    with serving(gated, batch=4) as client:
        gated.gate.clear()
        gated.begun.clear()
        gated.batches.clear()
        with posting(client, 6, [png(photo) for photo in photos]) as answers:
            batcher = batcher_of(client)
            # Four threads, and so four windows: one or more in the model, the others waiting.
            wait_until(lambda: gated.begun and gated.begun[0] + batcher.waiting == 4)
            gated.gate.set()
        for number, photo in enumerate(photos):
            np.testing.assert_array_equal(decoded(answers[number].content), photo)
        assert sum(gated.batches) == 6
        assert max(gated.batches) > 1
        assert metric(client, "musical_model_batch_size_sum") == 7  # one is the first run of all


def test_readiness_follows_the_first_run(gated):
    gated.gate.clear()
    with TestClient(create_app(gated, Settings(isolate=False))) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        for response in (client.get("/readyz"), post(client)):
            assert (response.status_code, error_of(response)[0]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
        gated.gate.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        assert client.head("/readyz").status_code == client.head("/healthz").status_code == 200
        client.app.state.service.is_closing = True
        for response in (client.get("/readyz"), post(client)):
            assert (response.status_code, error_of(response)[0]) == (503, "shutting_down")
            assert response.headers["retry-after"]
    gated.failure = InferenceError("it does not run")
    with TestClient(create_app(gated, Settings(isolate=False))) as client:
        wait_until(lambda: client.app.state.service.failure is not None)
        response = client.get("/readyz")
        assert (response.status_code, error_of(response)[0]) == (503, "not_ready")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InferenceError("a secret path"), 500, "internal"),
        (RuntimeError("a secret path"), 500, "internal"),
        (MemoryError("a secret path"), 503, "out_of_memory"),
    ],
)
def test_a_failure_inside_tells_nothing_and_is_survived(gated, caplog, failure, status, code):
    with serving(gated) as client:
        gated.failure = failure
        response = post(client)
        assert (response.status_code, error_of(response)[0]) == (status, code)
        assert "secret" not in response.text
        assert response.headers["x-content-type-options"] == "nosniff"
        assert ("a secret path" in caplog.text) == (status == 500)
        gated.failure = None
        assert post(client).status_code == 200


def test_metrics_count_what_happened(session):
    with serving(session) as client:
        post(client)
        post(client, strategy="magic")
        client.get("/nothing")
        client.get("/page/nothing")
        for line, value in {
            'musical_requests_total{code="ok",route="/v1/inpaint",status="200"}': 1,
            'musical_requests_total{code="invalid_option",route="/v1/inpaint",status="400"}': 1,
            'musical_requests_total{code="not_found",route="other",status="404"}': 1,
            'musical_requests_total{code="not_found",route="/page",status="404"}': 1,
            'musical_request_seconds_count{route="/v1/inpaint"}': 2,
            "musical_queue_seconds_count": 1,
            "musical_run_seconds_count": 1,
            "musical_model_batch_size_sum": 2,
            "musical_model_seconds_count": 2,
            "musical_queue_depth": 0,
            "musical_workers": 0,
            "musical_requests_in_flight": 1,  # this one
        }.items():
            assert metric(client, line) == value, line
        assert metric(client, "musical_run_seconds_sum") > 0
