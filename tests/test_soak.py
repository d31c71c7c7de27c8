"""The verdicts of `benchmarks.soak`: each must be able to fail."""

import base64
import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from benchmarks import models, soak, soak_requests
from benchmarks.measure import Memory, processor_seconds
from tests.serving_model import reference_fill

# Of the model's training size, so that nothing is enlarged and the reference is exact.
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
HOLE = np.zeros(PIXELS.shape[:2], bool)
HOLE[10:20, 30:50] = True


@pytest.mark.parametrize("is_json", [False, True])
def test_only_the_right_pixels_are_an_answer(session, is_json):
    good = soak_requests.Good(session, PIXELS, HOLE, is_json=is_json)

    def is_right(pixels):
        content = models.encoded(Image.fromarray(pixels), "PNG")
        if is_json:
            content = json.dumps({"image": base64.b64encode(content).decode()}).encode()
        return good.is_answered_by(content)

    right = reference_fill(PIXELS, HOLE)
    assert is_right(right)
    known, filled = right.copy(), right.copy()
    known[0, 0, 0] ^= 1
    filled[15, 40] ^= 8
    for wrong in (known, filled, right[1:], PIXELS):
        assert not is_right(wrong)


@pytest.mark.parametrize(
    ("growth", "spikes", "grows"),
    [
        (0, 0, False),
        (-20, 0, False),
        (1, 0, False),
        (20, 0, True),
        (0, 200, False),  # running requests, more of them in the second half
        (20, 200, True),
    ],
)
@pytest.mark.parametrize("step", [1, 450], ids=["slowly", "in steps"])
def test_memory_that_grows_is_seen(growth, spikes, grows, step):
    memory = Memory(process=0)
    rng = np.random.default_rng(0)
    for index in range(1800):
        start = 128 * (index < 100)  # the first minutes do not count
        spike = spikes * (rng.random() < (0.1 if index < 900 else 0.2))
        grown = growth * (index // step * step) / 1800
        server = 300 + grown + rng.uniform(-8, 8) + start + spike
        memory.samples.append((index * 2, int(server * 2**20), 2**26))
    summary = soak.summary(memory)
    assert summary["server"]["grows"] == grows
    assert not summary["children"]["grows"]
    assert summary["children"]["median_mib"] == 64
    assert len(summary["server"]["mib"]) == len(summary["minutes"]) == 60


def test_what_a_process_has_used_of_the_processor_is_counted():
    before, started = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() < started + 0.1:
        pass
    assert 0.08 <= processor_seconds(os.getpid()) - before < 1
