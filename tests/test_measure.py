"""`benchmarks.measure`: command lines, results and processes."""

import json

import pytest

from benchmarks import cold_start, measure


@measure.command(measure.argument("--bad", action="store_true"), rounds=3)
def main(options):
    if options.bad:
        raise ValueError("--bad must be left out, got it")
    rounds = measure.in_rounds({"one": lambda: 1, "two": lambda: 2}, options.rounds)
    measure.publish("made", options.command, {"ratios": {"a / b": len(rounds) / 7}})


def test_a_command_keeps_its_results_in_the_folder_that_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", measure.RESULTS)
    assert main(["--rounds", "2", "--results", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "made.json").read_text())
    assert record["ratios"] == {"a / b": 0.29}
    assert record["command"].endswith(f"--rounds 2 --results {tmp_path.name}")
    assert str(tmp_path) not in json.dumps(record)
    assert record["hardware"]
    assert main(["--bad"]) == 2
    assert "must be left out" in capsys.readouterr().err


def test_an_error_in_another_process_is_raised():
    with pytest.raises(ZeroDivisionError):
        measure.in_own_process(divmod, 1, 0)
    assert measure.in_own_process(divmod, 7, 2) == (3, 1)


def test_a_cold_start_is_compared_with_its_imports(monkeypatch):
    words = []

    def run(*command, **options):
        words.append(command[0])
        return (3.0 if command[0] == "serving.predict" else 2.0), 0

    monkeypatch.setattr(measure, "run_command", run)
    monkeypatch.setattr(cold_start.os, "times", iter_times())
    figures = cold_start.start_of_command(2)
    assert words == ["serving.predict", "-c"] * 3
    assert sorted(figures["ratios"].values()) == [1.5, 4.0]


def iter_times():
    """Processor times of ended processes: 4 s of each first command and 1 s of each second."""
    steps = iter([0, 4, 4, 5] * 3)
    return lambda: type("Times", (), {"children_user": next(steps), "children_system": 0})
