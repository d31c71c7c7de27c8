"""A small part of what `python -m benchmarks.fuzz` tries, and whether it would notice anything."""

import json

import numpy as np
import pytest

from benchmarks import fuzz, measure
from musical_tf import images
from serving.session import InpaintingSession

CASES = {"images": 500, "session": 80, "floats": 40, "models": 25, "predict": 25, "http": 100}
CONNECTIONS = 150


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return fuzz.tiny_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("suite", [*CASES, "hangups"])
def test_broken_input_is_refused_and_nothing_else_happens(models, suite):
    cases = range(CASES.get(suite, CONNECTIONS))
    ((_, tally),) = fuzz.run_suites(0, {suite: cases}, models)
    assert tally.failures == []
    assert sum(tally.outcomes.values()) == len(cases)
    assert len(tally.outcomes) > 1  # some of it is refused, some of it is not that broken


def test_a_case_can_be_run_again(models):
    seeds = list(fuzz.seed_files().values())
    files = [fuzz.broken_file(fuzz.generator(5, "images", case), seeds) for case in (7, 8, 7)]
    assert files[0] == files[2] != files[1]


def test_every_format_that_is_read_is_among_the_seeds():
    kinds = {name.split()[0] for name in fuzz.seed_files()}
    assert set(images.READABLE.values()) <= kinds
    assert {"ICO", "TGA", "JPEG2000"} <= kinds


def test_headers_lie_as_told(tmp_path):
    lied = 0
    for name, content in fuzz.seed_files().items():
        changed = fuzz.lie(content, 20000, 20000)
        if changed == content or name.split()[0] not in images.READABLE.values():
            continue
        lied += 1
        path = tmp_path / "lie"
        path.write_bytes(changed)
        with pytest.raises(images.ImageError):
            images.read_photograph(path, max_pixels=10**6)
    assert lied > 30


def test_an_undocumented_error_is_a_failure(models, monkeypatch):
    def fail(*arguments, **keywords):
        raise KeyError("nobody expects this")

    monkeypatch.setattr(images, "read_photograph", fail)
    tally = fuzz.fuzz_images(0, range(5))
    assert tally.outcomes == {"FAILED": 5}
    assert "images case 0: KeyError: 'nobody expects this'" in tally.failures[0]
    monkeypatch.setattr(InpaintingSession, "inpaint", fail)
    assert "KeyError" in fuzz.fuzz_session(0, range(20), models).failures[0]


def test_changed_known_pixels_are_a_failure(models, monkeypatch):
    inpaint = InpaintingSession.inpaint

    def brighten(self, image, *arguments, **keywords):
        return inpaint(self, image, *arguments, **keywords) + np.uint8(1)

    monkeypatch.setattr(InpaintingSession, "inpaint", brighten)
    tally = fuzz.fuzz_session(0, range(20), models)
    assert any("known pixels" in failure for failure in tally.failures)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ((400, "application/json", {"error": {"code": "no_mask", "message": "no"}}), "400 no_mask"),
        ((503, "application/json", {"error": {"code": "full", "message": "no"}}), "503 full"),
        ((500, "application/json", {"error": {"code": "internal", "message": "no"}}), None),
        ((422, "application/json", {"detail": []}), None),
        ((400, "application/json", {"error": {"code": "no_mask", "message": ""}}), None),
    ],
)
def test_only_reasoned_answers_count(answer, outcome):
    status, media_type, body = answer
    content = json.dumps(body).encode()
    if outcome is not None:
        assert fuzz.check_answer(status, media_type, content) == outcome
        return
    with pytest.raises((fuzz.FuzzError, KeyError)):
        fuzz.check_answer(status, media_type, content)


def test_a_model_that_takes_the_process_down_is_survived_and_counted(models, monkeypatch):
    def write(path, rng, whole):
        path.write_bytes(whole[0] if next(turns) else b"die")

    turns = iter([True, False, True])
    monkeypatch.setattr(fuzz, "write_broken_model", write)
    monkeypatch.setattr(fuzz, "open_models", dying_child)
    tally = fuzz.fuzz_models(0, range(3), models)
    assert tally.outcomes == {"lived": 2, "runtime crashed (SIGSEGV)": 1}
    assert tally.failures == []


def dying_child(connection):
    import os
    import signal

    while path := connection.recv():
        with open(path, "rb") as stream:
            if stream.read() == b"die":
                os.kill(os.getpid(), signal.SIGSEGV)
        connection.send(("lived", ""))


def test_the_command_keeps_whole_runs_only(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    assert fuzz.main(["--cases", "20", "--only", "session", "--seed", "3"]) == 0
    assert "session: 2 cases" in capsys.readouterr().out
    assert fuzz.main(["--cases", "0"]) == 2
    assert fuzz.main(["--model", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx: no such model file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(fuzz, "SHARES", {"session": 0.1})
    monkeypatch.setattr(fuzz, "fuzz_hangups", lambda *arguments: fuzz.Tally("hangups"))
    assert fuzz.main(["--cases", "20", "--seed", "3"]) == 0
    figures = json.loads((tmp_path / "fuzz.json").read_text())
    assert figures["command"] == (
        "python -m benchmarks.fuzz --cases 20 --connections 1000 --seed 3"
    )
    assert figures["cases"] == figures["suites"]["session"]["cases"] == 2
