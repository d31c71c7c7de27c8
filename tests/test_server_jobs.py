"""The queue and the batcher, without a server around them."""

import contextlib
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from serving.server.jobs import AbandonedError, Batcher, Job, JobQueue, QueueFullError
from tests.waiting import WAIT, wait_until


def new_job():
    return Job(lambda job: None)


class Model:
    """Returns every image plus one; notes its batches; waits for `gate`."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, images, holes, fill):
        assert self.gate.wait(WAIT)
        self.batches.append(images.shape)
        if (images == 99).any():
            raise RuntimeError("it cannot do 99")
        return images + 1


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    batcher = Batcher(model, limit=4, patience=WAIT)
    batcher.start()
    yield batcher
    model.gate.set()
    batcher.close()


def run_together(batcher, values, sizes=None):
    """Runs windows in threads of their own; returns what came back, results and errors."""
    results = [None] * len(values)
    ready = threading.Barrier(len(values))

    def run(number):
        side = sizes[number] if sizes else 8
        image = np.full((1, side, side, 3), values[number], np.uint8)
        with batcher.caller():
            ready.wait(WAIT)
            try:
                holes = np.ones((1, side, side), bool)
                (results[number],) = batcher.run(new_job(), ("auto",), image, holes)
            except RuntimeError as error:
                results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(values))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return results


def test_windows_of_jobs_that_work_together_wait_for_each_other(batcher, model):
    results = run_together(batcher, [1, 2, 3, 4])
    assert [int(result[0, 0, 0]) for result in results] == [2, 3, 4, 5]
    assert model.batches == [(4, 8, 8, 3)]


def test_a_lone_window_waits_for_nobody(batcher, model):
    started = time.monotonic()
    run_together(batcher, [1])
    assert time.monotonic() - started < WAIT / 2  # of the patience
    assert model.batches == [(1, 8, 8, 3)]


def test_patience_ends(model):
    batcher = Batcher(model, limit=4, patience=0.05)
    batcher.start()
    with batcher.caller():  # a job that brings nothing
        run_together(batcher, [1, 2])
    batcher.close()
    assert sum(shape[0] for shape in model.batches) == 2


def test_a_batch_is_no_larger_than_allowed(batcher, model):
    results = run_together(batcher, list(range(1, 11)))
    assert [int(result[0, 0, 0]) for result in results] == list(range(2, 12))
    assert max(shape[0] for shape in model.batches) == 4


def test_only_windows_of_one_size_go_together(batcher, model):
    results = run_together(batcher, [1, 2, 3, 4], sizes=[8, 16, 8, 16])
    assert [result.shape[0] for result in results] == [8, 16, 8, 16]
    assert sorted(model.batches) == [(2, 8, 8, 3), (2, 16, 16, 3)]


def test_each_job_gets_its_own_windows(batcher, model):
    results = {}

    def run(values):
        images = np.array(values, np.uint8)[:, None, None, None] * np.ones((8, 8, 3), np.uint8)
        with batcher.caller():
            ready.wait(WAIT)
            results[values] = batcher.run(new_job(), ("auto",), images, images[..., 0] > 0)

    groups = [(1, 2), (3,), (4, 5, 6)]
    ready = threading.Barrier(len(groups))
    threads = [threading.Thread(target=run, args=(values,)) for values in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    for values in groups:
        assert [int(image[0, 0, 0]) - 1 for image in results[values]] == list(values)
    assert [shape[0] for shape in model.batches] == [6]


def test_one_bad_window_spoils_no_other(batcher, model):
    results = run_together(batcher, [1, 99, 3])
    assert [int(results[index][0, 0, 0]) for index in (0, 2)] == [2, 4]
    assert str(results[1]) == "it cannot do 99"
    assert [shape[0] for shape in model.batches] == [3, 1, 1, 1]


def test_an_abandoned_window_is_not_run(batcher, model):
    model.gate.clear()
    job, errors = new_job(), []

    def run():
        try:
            batcher.run(job, ("auto",), np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 8, 8), bool))
        except AbandonedError as error:
            errors.append(error)

    first = threading.Thread(target=run_together, args=(batcher, [1]))
    first.start()
    wait_until(lambda: batcher.is_running)
    second = threading.Thread(target=run)
    second.start()
    wait_until(lambda: batcher.waiting == 1)
    job.abandon()
    model.gate.set()
    for thread in (first, second):
        thread.join(WAIT)
    assert len(errors) == 1
    assert len(model.batches) == 1
    with pytest.raises(AbandonedError):
        batcher.run(job, ("auto",), np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 8, 8), bool))


def test_waiting_for_the_model_counts_as_waiting(model):
    model.gate.clear()
    batcher = Batcher(model)
    batcher.start()
    jobs = JobQueue(workers=2, capacity=2)
    jobs.start()

    def work(job):
        return batcher.run(
            job, ("auto",), np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 8, 8), bool)
        )

    first, second = jobs.submit(work), jobs.submit(work)
    wait_until(lambda: batcher.is_running and batcher.waiting == 1)
    time.sleep(0.2)
    model.gate.set()
    for job in (first, second):
        job.future.result(WAIT)
    jobs.close()
    batcher.close()
    worked, waited = sorted((job.queue_seconds, job.run_seconds) for job in (first, second))
    assert worked[0] < 0.2 <= worked[1]
    assert waited[1] < 0.2 <= waited[0]


def test_the_time_to_wait_grows_with_what_jobs_have_taken():
    jobs = JobQueue(workers=1, capacity=0)
    jobs.start()

    def retry_after():
        with jobs.admit(), pytest.raises(QueueFullError) as caught, jobs.admit():
            pass
        assert str(caught.value).startswith("1 ")
        return caught.value.retry_after

    for _ in range(30):
        jobs.submit(lambda job: None).future.result(WAIT)
    short = retry_after()
    for _ in range(5):
        jobs.submit(lambda job: time.sleep(0.1)).future.result(WAIT)
    wait_until(lambda: retry_after() > 0.05)
    assert short < 0.05
    jobs.close()


def test_work_that_was_given_up_counts_for_the_time_to_wait():
    jobs = JobQueue(workers=1, capacity=0)
    jobs.start()
    release = threading.Event()
    job = jobs.submit(lambda job: release.wait(WAIT))
    wait_until(lambda: job.future.running())
    jobs.abandon(job)
    with jobs.admit():
        time.sleep(1.2)
        with pytest.raises(QueueFullError) as caught, jobs.admit():
            pass
    assert caught.value.retry_after >= 1.2  # it still runs, and none was measured before
    release.set()
    job.future.result(WAIT)
    jobs.close()
    assert jobs.join(WAIT)


def test_uploads_that_hold_places_count_for_the_time_to_wait():
    jobs = JobQueue(workers=1, capacity=3)
    with contextlib.ExitStack() as uploads:
        for _ in range(4):
            uploads.enter_context(jobs.admit())
        with pytest.raises(QueueFullError) as caught, jobs.admit():
            pass
    assert caught.value.retry_after == pytest.approx(4.0)  # four places of the first guess, 1 s


def test_a_slow_upload_leaves_its_place_to_the_same_client(monkeypatch):
    jobs, left = JobQueue(workers=1, capacity=1), []
    with contextlib.ExitStack() as places:
        read = places.enter_context(jobs.admit("a", lambda: left.append("read")))
        jobs.submit(lambda job: None, read)  # its thread has not been started
        places.enter_context(jobs.admit("a", lambda: left.append("slow")))
        with pytest.raises(QueueFullError), jobs.admit("a"):
            pass
        monkeypatch.setattr("serving.server.jobs.SLOW", 0.0)
        places.enter_context(jobs.admit("a"))
        assert left == ["slow"]
        with pytest.raises(QueueFullError), jobs.admit("a"):
            pass
    assert jobs.admitted == 0


def test_clients_take_turns_and_the_greediest_leaves_a_place():
    jobs, done, left = JobQueue(workers=1, capacity=5), [], []
    with contextlib.ExitStack() as places:

        def submit(client, name):
            place = places.enter_context(jobs.admit(client, lambda: left.append(name)))
            jobs.submit(lambda job: done.append(name), place)

        for name in ("a1", "a2", "a3", "a4", "a5", "a6"):
            submit("a", name)
        with pytest.raises(QueueFullError):
            submit("a", "a7")
        submit("b", "b1")
        submit("c", "c1")
        submit("b", "b2")
        assert left == ["a6", "a5", "a4"]
        with pytest.raises(QueueFullError):  # three, two and one: nobody has two more than b
            submit("b", "b3")
        assert jobs.admitted == 6
        jobs.start()
        jobs.close()
        assert jobs.join(WAIT)
        assert done[:4] == ["a1", "b1", "c1", "a2"]
        with pytest.raises(QueueFullError):  # results that are being sent stay
            submit("d", "d1")
    assert jobs.admitted == 0


def test_the_end_waits_for_running_work_as_long_as_it_is_told(model):
    jobs, batcher = JobQueue(workers=2, capacity=0), Batcher(model)
    assert jobs.join(0)  # never started
    jobs.start()
    batcher.start()
    release = threading.Event()
    job = jobs.submit(lambda job: release.wait(WAIT))
    wait_until(lambda: job.future.running())
    jobs.close()
    batcher.close()
    assert not jobs.join(0.05)
    release.set()
    assert jobs.join(WAIT)
    assert batcher.join(WAIT)


def test_an_error_in_a_job_is_its_own(model):
    jobs = JobQueue(workers=1, capacity=1)
    jobs.start()
    failed = jobs.submit(lambda job: 1 / 0)
    after = jobs.submit(lambda job: "fine")
    with pytest.raises(ZeroDivisionError):
        failed.future.result(WAIT)
    assert after.future.result(WAIT) == "fine"
    jobs.close()


def test_an_error_keeps_nothing_of_its_job_alive():
    class Pixels:
        pass

    held = [Pixels()]
    seen = weakref.ref(held[0])

    def work(job):
        own = held.pop()
        try:
            raise ValueError(type(own).__name__)
        except ValueError as error:
            same = error  # a cycle, as in `Future`
            raise RuntimeError("refused") from same

    job = Job(work)
    gc.disable()
    try:
        job.run()
        assert isinstance(job.future.exception(), RuntimeError)
        assert seen() is None
    finally:
        gc.enable()
