"""The script that carries measured numbers into the README."""

import json

import pytest

from benchmarks import publish_results


def evaluation(folder, psnr, **changes):
    """A folder as `training.evaluate` writes it, with the fields the script reads."""
    folder.mkdir()
    metrics = {"authors/psnr": psnr, "authors/ssim": 0.9, "authors/l1_percent": 1.5}
    method = {"label": "musical lite", "kind": "run", "seconds_per_image": 0.1}
    method["aggregates"] = {"all": {"metrics": metrics}}
    baseline = {**method, "label": "Telea", "kind": "baseline"}
    source = {
        **{"dataset": "celeba", "split": "test", "image_size": 128, "shorter_side": 128},
        **{"mask": "center", "count": 500, "protocols": {"authors": "..."}},
        **{"command": f"evaluate {folder.name}", "created": "now", "commit": "abc"},
        **{"hardware": "two cores", "software": {}, "data_dir": "/private", "images": [1, 2]},
        **{"methods": [method, baseline]},
        **changes,
    }
    (folder / "results.json").write_text(json.dumps(source))
    return folder


@pytest.mark.parametrize("document", publish_results.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_what_was_measured(document):
    text = document.read_text()
    assert publish_results.with_tables(text) == text
    assert "<!-- results:" in text


def test_a_benchmarks_ratios_become_a_table():
    record = {"ratios": {"slow / fast": 7.125}, "hardware": "two cores", "command": "python -m b"}
    lines = publish_results.table(record).splitlines()
    assert "| slow / fast | 7.12 |" in lines
    assert "python -m b" in lines


def test_evaluations_are_merged_and_relabelled(tmp_path):
    one, two = evaluation(tmp_path / "one", 26.0), evaluation(tmp_path / "two", 25.5)
    record = publish_results.condense({one: "", two: "L1 alone"}, {})
    assert [method["label"] for method in record["methods"]] == [
        *("musical lite", "Telea", "L1 alone", "Telea")
    ]
    assert "private" not in json.dumps(record)
    lines = publish_results.table(record).splitlines()
    assert lines[0] == "| method | PSNR | SSIM | l1 |"
    assert lines[4] == "| L1 alone | 25.50 dB | 0.9000 | 1.500 % |"
    assert "evaluate two" in lines


def test_other_photographs_are_not_mixed_in(tmp_path):
    one, two = evaluation(tmp_path / "one", 26.0), evaluation(tmp_path / "two", 25.5, count=10)
    with pytest.raises(ValueError, match=r"two differs from .*one in count"):
        publish_results.condense({one: "", two: ""}, {})
    with pytest.raises(ValueError, match="--run names 'x', which is none of musical lite"):
        publish_results.condense({one: ""}, {"x": tmp_path})


def test_a_block_without_numbers_is_refused():
    with pytest.raises(ValueError, match=r"results:nothing, and .*nothing\.json is not there"):
        publish_results.with_tables("<!-- results:nothing -->\n<!-- /results -->")
