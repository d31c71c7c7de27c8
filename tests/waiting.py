"""Waiting for what other threads and processes do; imports nothing that a worker must not."""

import time

WAIT = 30  # seconds until a test gives up on something that takes none


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
