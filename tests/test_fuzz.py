"""The profile `fuzz` of the properties fails on errors, slow cases and memory."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROPERTY = """
import time
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import conftest
held = []

@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_property(number):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        ("pass", None),
        ("assert number < 0, 'negative'", "negative"),
        ("held.append(b'x' * 2**20)", "the process grew by"),
        ("b'x' * 2**29", "a turn took 5"),
        ("time.sleep(0.03)", "DeadlineExceeded"),
    ],
)
def test_what_must_not_happen_is_a_failure(body, failure, tmp_path):
    text = PROPERTY.format(body=body)
    if "sleep" in body:
        text = text.replace("max_examples=5", "max_examples=5, deadline=10")
    (tmp_path / "test_it.py").write_text(text)
    words = ["-p", "tests.properties.conftest", "--hypothesis-profile", "fuzz", "-q", "-x"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); import tests.properties, "
            f"pytest; sys.exit(pytest.main({[*words, str(tmp_path)]!r}))",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == (failure is not None), done.stdout
    assert failure is None or failure in done.stdout
