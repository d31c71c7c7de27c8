"""Whether `benchmarks.fuzz` counts its cases, and notices failures, slow cases and memory."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz, measure

SETTINGS = settings(
    max_examples=20, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
HELD = []


def harmless(number):
    pass


def broken(number):
    assert number < 1000, "the number is large"


def leaking(number):
    HELD.append(b"x" * 2**20)


def hungry(number):
    b"x" * 2**26


def slow(number):
    time.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (harmless, None),
        (broken, "AssertionError: the number is large"),
        (leaking, "the process grew by"),
        (hungry, "a turn took 6"),
        (slow, "a case took"),
    ],
)
def test_what_must_not_happen_is_a_failure(body, failure, monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(fuzz, "SECONDS", 0.005 if body is slow else 60)
    monkeypatch.setattr(fuzz, "PEAK", (2**5 if body is hungry else 2**10) * 2**20)
    test = SETTINGS(given(st.integers(0, 10**6))(body))
    monkeypatch.setattr(fuzz, "load_properties", lambda turn: {"one": test})
    monkeypatch.setattr(fuzz, "TURN", 20)
    cases = 20 if body in (hungry, slow) else 200
    assert fuzz.main(["--cases", str(cases)]) == (failure is not None)
    figures = json.loads((tmp_path / "fuzz.json").read_text())
    assert figures["command"] == f"python -m benchmarks.fuzz --cases {cases} --seed 0"
    if failure is None:
        assert figures["failures"] == []
        assert figures["cases"] == 200
    else:
        assert failure in figures["failures"][0]
    HELD.clear()


def test_fewer_cases_than_asked_for_are_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    test = SETTINGS(given(st.booleans())(harmless))
    monkeypatch.setattr(fuzz, "load_properties", lambda turn: {"one": test})
    assert fuzz.main(["--cases", "20"]) == 1
    assert "2 cases were drawn, not 20" in (tmp_path / "fuzz.json").read_text()


@pytest.mark.parametrize("cases", ["0", "-1"])
def test_no_cases_are_an_error(cases, capsys):
    with pytest.raises(SystemExit):
        fuzz.main(["--cases", cases])
    assert f"--cases must be 1 or more, got {cases}" in capsys.readouterr().err
