"""The profile `fuzz` of the properties fails on errors, slow cases and memory."""

import sys

import pytest

from tests.processes import ROOT, succeed

FAILURES = {
    "pass": None,
    "assert number < 0, 'negative'": "negative",
    "held.append(b'x' * 2**20)": "the process grew by",
    "b'x' * 2**29": "a turn took 5",
    "time.sleep(0.03)": "DeadlineExceeded",
}
PROPERTY = """
import time
from hypothesis import given, settings
from hypothesis import strategies as st
held = []

@settings(max_examples=5, {deadline})
@given(st.integers(0, 10**6))
def test_{number}(number):
    {body}
"""
RUN = """
import sys
sys.path.insert(0, {root!r})
import pytest, tests.properties
words = ["-p", "tests.properties.conftest", "--hypothesis-profile", "fuzz", "-q", "-x"]
for number in range({count}):
    print("turns of a property:", pytest.main([*words, f"test_{{number}}.py"]))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What pytest says of a property of each body, in one process."""
    folder = tmp_path_factory.mktemp("fuzz")
    for number, body in enumerate(FAILURES):
        deadline = "deadline=10" if "sleep" in body else ""
        text = PROPERTY.format(body=body, deadline=deadline, number=number)
        (folder / f"test_{number}.py").write_text(text)
    code = RUN.format(root=str(ROOT), count=len(FAILURES))
    said = succeed(sys.executable, "-c", code, cwd=folder)
    return dict(zip(FAILURES, said.split("turns of a property:"), strict=False))


@pytest.mark.parametrize("body", FAILURES)
def test_what_must_not_happen_is_a_failure(body, reports):
    report, failure = reports[body], FAILURES[body]
    assert ("stopping after 1 failures" in report) == (failure is not None), report
    assert failure is None or failure in report
