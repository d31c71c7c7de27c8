"""The worker processes, without a server around them."""

import contextlib
import ctypes
import errno
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from benchmarks import hostile_files
from musical_tf import images
from serving.server import worker, worker_pool
from serving.server.jobs import AbandonedError, Job
from serving.server.settings import Settings
from serving.server.worker import TooCostlyError
from serving.server.worker_pool import Codec, WorkerPool
from tests.pictures import encoded, png_chunk
from tests.processes import ROOT
from tests.test_image_depth import ALPHA, png16, tiff
from tests.waiting import WAIT, wait_until

TURNED = struct.pack("<HHHIII", 1, 274, 3, 1, 6, 0)  # a directory of one tag: the orientation


def new_job():
    return Job(lambda job: None)


@contextlib.contextmanager
def started():
    ended = []
    pool = WorkerPool(2, seconds=WAIT, observe=ended.append)
    pool.ended = ended
    pool.start()
    pool.wait_until_ready()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def shared_pool():
    with started() as pool:
        yield pool


@pytest.fixture
def pool(shared_pool):
    """Two workers; those that an earlier test ended have been replaced."""
    shared_pool.wait_until_ready()
    shared_pool.ended.clear()
    return shared_pool


PHOTO = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)


def test_images_come_back_as_the_reader_gives_them(pool):
    codec = Codec(pool, new_job())
    content = encoded(PHOTO)
    there = codec.read_photograph(io.BytesIO(content), name="image", max_pixels=10_000)
    here = images.read_photograph(io.BytesIO(content), name="image", max_pixels=10_000)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert there.pixels.flags.writeable
    assert (there.format, there.encoding) == (here.format, here.encoding)
    mask = encoded(PHOTO[..., 0])
    options = {"name": "mask", "max_pixels": 10_000, "threshold": 100}
    np.testing.assert_array_equal(
        codec.load_mask(io.BytesIO(mask), **options).hole,
        images.read_mask(io.BytesIO(mask), **options),
    )
    for image_format in ("PNG", "JPEG", "WEBP"):
        assert codec.encode_photograph(
            there, 255 - there.pixels, image_format, None
        ) == images.encode_photograph(here, 255 - here.pixels, image_format, None)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"no image", images.ImageError),
        (encoded(PHOTO)[:300], images.ImageError),
        (encoded(np.zeros((200, 200), np.uint8)), images.TooManyPixelsError),
    ],
)
def test_errors_keep_type_and_text(pool, content, kind):
    options = {"name": "image", "max_pixels": 10_000}
    with pytest.raises(kind) as here:
        images.read_photograph(io.BytesIO(content), **options)
    with pytest.raises(kind) as there:
        Codec(pool, new_job()).read_photograph(io.BytesIO(content), **options)
    assert type(there.value) is type(here.value)
    assert str(there.value) == str(here.value)
    assert pool.ended == []


def test_a_job_that_is_given_up_ends_its_worker_and_another_one_serves(pool, monkeypatch):
    monkeypatch.setattr(worker_pool, "GRACE", 0.1)
    jobs, errors = [new_job(), new_job()], []

    def occupy(job):
        try:
            pool.run(job, time.sleep, 1000)
        except AbandonedError as error:
            errors.append(error)

    threads = [threading.Thread(target=occupy, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    wait_until(lambda: not pool._idle)
    started = time.monotonic()
    for job in jobs:
        job.abandon()
    for thread in threads:
        thread.join(WAIT)
    assert len(errors) == 2
    assert time.monotonic() - started < WAIT / 2
    with pytest.raises(AbandonedError):  # given up before, it gets no worker
        pool.run(jobs[0], os.getpid)
    assert pool.ended == ["abandoned"] * 2
    assert pool.run(new_job(), os.getpid) != os.getpid()
    pool.wait_until_ready()


def test_work_that_ends_soon_after_it_was_given_up_costs_no_worker(pool):
    job = new_job()
    threading.Timer(0.05, job.abandon).start()
    pool.run(job, time.sleep, 0.2)
    time.sleep(worker_pool.GRACE)
    assert pool.ended == []
    assert pool.alive == 2


def test_hostile_files_end_in_time_and_the_next_good_one_is_read(pool):
    codec, options = Codec(pool, new_job()), {"name": "image", "max_pixels": 50_000_000}
    refused = []
    hostile = hostile_files.requests(encoded(PHOTO), encoded(PHOTO[..., 0]))
    for name, files in hostile.items():
        started = time.process_time()
        try:
            codec.read_photograph(io.BytesIO(files["image"]), **options)
            codec.load_mask(io.BytesIO(files["mask"]), **options)
        except images.ImageError:
            refused.append(name)
        assert time.process_time() - started < 2  # the server's own; the worker has its limits
    served = {  # what would be large is left out, with a note
        "PNG, 49 megapixels in 150 kB",
        "PNG, EXIF tag of a huge count",
        "PNG, colour profile that unpacks to 256 MB",
    }
    assert set(hostile) - set(refused) <= served
    photograph = codec.read_photograph(io.BytesIO(encoded(PHOTO)), **options)
    np.testing.assert_array_equal(photograph.pixels, PHOTO)


def costly(memory=2**30, seconds=WAIT):
    """Runs in a worker."""
    with worker.limits("image: decoding it", memory, seconds):
        np.ones(2**28)  # 2 GiB
        while seconds < WAIT:
            pass


def test_too_much_memory_is_an_error_and_replaces_the_worker(pool):
    with pytest.raises(TooCostlyError, match=r"^image: decoding it takes more than 1024 MiB"):
        pool.run(new_job(), costly)
    assert pool.ended == ["memory"]
    assert pool.run(new_job(), sum, [1, 2]) == 3


def deep_round_trip(content, max_pixels, memory):
    worker.MEMORY = memory
    photograph = worker.read("read_photograph", content, name="image", max_pixels=max_pixels)
    for image_format in ("PNG", "TIFF"):
        worker.encode_photograph(photograph, photograph.pixels, image_format, seconds=WAIT)
    return photograph.samples.shape


@pytest.mark.parametrize(
    ("pixels", "memory"),
    [
        (3_000_000, 0),  # the share for each pixel alone
        pytest.param(Settings().max_pixels, worker.MEMORY, marks=pytest.mark.slow),
    ],
)
def test_the_largest_photograph_of_16_bits_is_within_the_limits(pool, pixels, memory):
    side = int(pixels**0.5)
    ramp = np.arange(side, dtype=np.uint16) >> 6
    samples = np.add.outer(ramp, ramp)[..., None].repeat(4, axis=2)
    content = {
        "PNG": png16(samples, png_chunk(b"eXIf", b"II*\0\x08\0\0\0" + TURNED)),
        "TIFF": tiff(samples, planarconfig="separate", compression="zlib", **ALPHA),
    }
    for file in content.values():
        assert len(file) < Settings().max_bytes
        file = np.frombuffer(file, np.uint8)
        shape = pool.run(new_job(), deep_round_trip, file, pixels, memory)
        assert shape == samples.shape
    assert pool.ended == []


def test_too_much_processor_time_ends_the_worker(pool):
    with pytest.raises(TooCostlyError, match=r"^image: decoding it takes more than its share of"):
        pool.run(new_job(), costly_in_time, what="image: decoding it", name="image")
    assert pool.ended == ["processor"]
    assert pool.run(new_job(), sum, [1, 2]) == 3


def costly_in_time(name):
    """Runs in a worker."""
    with worker.limits(name, 2**30, 0.1):
        while True:
            pass


def test_a_crash_is_the_images_fault(pool):
    with pytest.raises(images.ImageError, match=r"^image: decoding it crashed the decoder \(SIGS"):
        pool.run(new_job(), crash, what="image: decoding it", name="image")
    assert pool.ended == ["crashed"]
    assert pool.run(new_job(), sum, [1, 2]) == 3


def crash(name):
    """Runs in a worker."""
    ctypes.string_at(0)


def test_a_worker_that_the_system_killed_is_replaced(pool):
    with pytest.raises(MemoryError):
        pool.run(new_job(), signal.raise_signal, signal.SIGKILL)
    os.kill(pool._idle[-1].process.pid, signal.SIGKILL)  # and one that rests
    pool._idle[-1].process.wait()
    assert pool.run(new_job(), sum, [1, 2]) == 3
    assert pool.ended == ["memory", "crashed"]


def test_workers_are_replaced_after_their_share_of_work(monkeypatch):
    """They do not get the token, and serve where pipes may not be enlarged."""

    def refuse(*arguments):
        raise PermissionError(errno.EPERM, "this user has too many pages in pipes")

    monkeypatch.setattr(worker_pool.fcntl, "fcntl", refuse)
    monkeypatch.setenv("MUSICAL_TOKEN", "s3cret")
    monkeypatch.setattr(worker_pool, "JOBS", 3)
    pool = WorkerPool(1, seconds=WAIT)
    pool.start()
    try:
        processes = [pool.run(new_job(), os.getpid) for _ in range(6)]
        assert pool.run(new_job(), os.getenv, "MUSICAL_TOKEN") is None
    finally:
        pool.close()
    assert len(set(processes)) == 2


def test_workers_ignore_what_ends_the_server(pool):
    process = pool.run(new_job(), os.getpid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process, number)
    time.sleep(0.1)
    assert pool.ended == []
    assert {pool.run(new_job(), os.getpid) for _ in range(2)} == {process}


def test_the_end_ends_every_process():
    errors = []

    def occupy():
        try:
            pool.run(new_job(), time.sleep, 1000)
        except AbandonedError as error:
            errors.append(error)

    with started() as pool:
        processes = [each.process for each in pool._all]
        thread = threading.Thread(target=occupy)
        thread.start()
        wait_until(lambda: len(pool._idle) == 1)
    thread.join(WAIT)
    assert len(errors) == 1
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(AbandonedError):
        pool.run(new_job(), os.getpid)


def test_processes_that_do_not_start_are_an_error(monkeypatch):
    monkeypatch.setattr(worker_pool, "_RETRY", 0.01)
    monkeypatch.setattr(worker, "command", lambda package: [sys.executable, "-c", "exit(7)"])
    pool = WorkerPool(1, seconds=WAIT)
    pool.start()
    try:
        with pytest.raises(worker_pool.WorkerError, match="ended before it was ready, with 7"):
            pool.wait_until_ready()
        assert pool.failure is not None
    finally:
        pool.close()


def test_a_server_that_is_killed_leaves_no_process_not_even_one_that_works():
    code = (
        "import threading, time\n"
        "from serving.server.jobs import Job\n"
        "from serving.server.worker_pool import WorkerPool\n"
        "pool = WorkerPool(2, seconds=9)\n"
        "pool.start()\n"
        "pool.wait_until_ready()\n"
        "processes = [each.process.pid for each in pool._all]\n"
        "work = (Job(lambda job: None), time.sleep, 1000)\n"
        "threading.Thread(target=pool.run, args=work, daemon=True).start()\n"
        "time.sleep(0.1)\n"
        "print(*processes, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        processes = [psutil.Process(int(number)) for number in server.stdout.readline().split()]
        server.kill()
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=WAIT)[1] == []


def test_a_worker_imports_neither_a_model_nor_a_server(pool):
    names = pool.run(new_job(), loaded_modules)
    assert {"PIL", "numpy", "musical_tf"} <= names
    assert not names & {"onnxruntime", "keras", "tensorflow", "fastapi", "uvicorn", "scipy"}


def loaded_modules():
    """Runs in a worker."""
    return {name.partition(".")[0] for name in sys.modules}
