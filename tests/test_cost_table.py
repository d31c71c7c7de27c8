"""`benchmarks.cost` with small photographs and a stub for MI-GAN's file."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks import cost, measure, models, plots, result_tables
from tests.serving_model import write_model_like_migan


@pytest.fixture(scope="module")
def migan(tmp_path_factory):
    return write_model_like_migan(tmp_path_factory.mktemp("migan") / "stub.onnx")


def figures(ratio, bar=2.0):
    seconds = {"ours": 0.5, "MI-GAN": 0.5 * ratio}
    row = {"name": "a row", "bar": bar, "ratio": ratio, "least": ratio, "rounds": 5}
    return [{**row, "seconds": seconds, "bytes": {"ours": 2e8}}]


@pytest.mark.parametrize("row", ["center", "wire"])
def test_both_models_are_timed_in_turns(row, migan, monkeypatch):
    monkeypatch.setattr(measure, "in_own_process", lambda function, *words: function(*words))
    monkeypatch.setattr(cost, "run_command", lambda *words: (1.0, len(words)))
    options = cost.argparse.Namespace(migan=migan, width=160, rounds=2)
    (found,) = cost.measure_photograph(row, options)
    assert set(found["seconds"]) == {"ours", "MI-GAN"}
    assert found["bytes"] == {"ours": 4, "MI-GAN": 7}
    assert found["rounds"] == 2
    assert 0 <= found["least"] <= found["ratio"] < 1  # the stub has nothing to do
    assert 0 < found["seconds"]["MI-GAN"] < found["seconds"]["ours"]
    assert ("256 x 256" in found["name"]) == (row == "center")


def test_a_ratio_is_the_median_of_the_rounds():
    pairs = [{"ours": 1.0, "MI-GAN": other} for other in (2.0, 3.0, 100.0)]
    found = cost.compare(pairs)
    assert (found["ratio"], found["least"], found["seconds"]["MI-GAN"]) == (3.0, 2.0, 3.0)


def test_the_holes_are_those_of_the_table():
    found = cost.holes(1000)
    assert set(found) == set(cost.HOLES) < set(cost.ROWS)
    for hole in found.values():
        assert hole.shape == (750, 1000)
        assert 0 < hole.mean() < 0.1
    assert found["wire"].any(axis=0).all()
    assert ndimage.label(found["specks"])[1] > 400
    assert ndimage.label(found["blob"])[1] == 1


def test_a_folder_is_filled_in_parts(migan, tmp_path):
    models.write_photographs(tmp_path / "photos", cost.FOLDER_SIZE, 3)
    Image.fromarray(cost.box(cost.FOLDER_SIZE[0], 0.02)).save(tmp_path / "mask.png")
    seconds, peak = cost.loop_over_folder(str(migan), tmp_path, 2)
    assert seconds > 0
    assert peak > 0
    assert len(list((tmp_path / "migan-2").iterdir())) == 3


def test_a_command_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"nothing ended with 1: .*No module named nothing"):
        cost.run_command("nothing")


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Results in a folder of their own, and rows that take no time."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)

    def broken(row, options):
        raise RuntimeError("no browser")

    measurements = {
        "center": lambda row, options: figures(3.0),
        "wire": lambda row, options: figures(1.5),
        "browser": broken,
    }
    monkeypatch.setattr(cost, "ROWS", measurements)
    return tmp_path / "cost.json"


def test_rows_are_written_one_by_one_and_kept(rows, migan):
    command = ["--migan", str(migan), "--rows"]
    assert cost.main([*command, "center"]) == 0
    assert list(json.loads(rows.read_text())["cost"]) == ["center"]
    assert cost.main([*command, "wire"]) == 1
    record = json.loads(rows.read_text())
    assert list(record["cost"]) == ["center", "wire"]
    assert record["cost"]["wire"]["command"].endswith("--migan stub.onnx --rows wire")
    assert str(migan.parent) not in rows.read_text()
    rows.write_text(rows.read_text().replace(record["weights_sha256"], "other weights"))
    cost.main([*command, "center"])
    assert list(json.loads(rows.read_text())["cost"]) == ["center"]


def test_a_row_that_fails_leaves_the_others(rows, migan, capsys):
    command = ["--migan", str(migan), "--rows", "browser", "center"]
    assert cost.main(command) == 1
    assert list(json.loads(rows.read_text())["cost"]) == ["center"]
    assert "no browser" in capsys.readouterr().err


def test_the_table_names_what_is_missed():
    record = {"hardware": "two cores", "cost": {"a": {"command": "c", "figures": figures(3.0)}}}
    lines = result_tables.table(record).splitlines()
    assert lines[2] == "| a row | 3.00 | 3.00 | 0.5 | 1.5 | 200 MB | – |"
    assert "Every bar is reached." in lines
    record["cost"]["a"]["figures"] = figures(1.5)
    text = result_tables.table(record)
    assert "* a row: 1.50, bar 2\n\n" in text
    assert "growth, folder.\n\ntwo cores:\n\n```\nc\n```\n" in text
    assert "cost.svg" not in text
    record["cost"]["growth"] = {"command": "c", "figures": []}
    text = result_tables.table(record)
    assert "(images/cost.svg)\n\ntwo cores:\n\n```\nc\n```\n" in text


def test_every_row_is_measured_or_named_as_missing():
    record = {"hardware": "h", "cost": {}}
    (line,) = [each for each in result_tables.table(record).splitlines() if "Not yet" in each]
    assert line.partition(": ")[2].rstrip(".").split(", ") == list(cost.ROWS)


def test_growth_and_learning_curves_become_plots(tmp_path):
    points = [
        {"axis": axis, "at": at, "of": name, "seconds": at + 1, "bytes": 1e9}
        for axis in plots.COST_AXES
        for at in (1, 3)
        for name in ("ours", "MI-GAN")
    ]
    validations = [{"step": step, "psnr": 20, "ssim": 0.8, "l1_percent": 4} for step in (1, 2)]
    training = {"steps": 2, "cpu_minutes": 1, "validations": validations}
    records = {
        "cost": {"cost": {"growth": {"figures": points}}},
        "race": {"methods": [{"label": "A", "training": training}, {"label": "Telea"}]},
        "other": {"methods": [{"label": "Telea"}]},
    }
    for name, record in records.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    plots.write(tmp_path, tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.glob("*.svg")}
    assert sorted(drawn) == ["cost.svg", "race_curves.svg"]
    assert all(ElementTree.fromstring(svg).tag.endswith("svg") for svg in drawn.values())
    plots.write(tmp_path, tmp_path)
    assert drawn["cost.svg"] == (tmp_path / "cost.svg").read_bytes()


def test_both_boxes_have_their_share():
    for share in (0.01, 0.25):
        assert np.isclose(cost.box(400, share).mean(), share, rtol=0.05)
