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


def test_quantities_become_a_table():
    record = {"quantities": {"memory": "1.93 GB"}, "hardware": "h", "command": "c"}
    assert publish_results.table(record).splitlines()[:3] == [
        *("| | |", "|---|---|", "| memory | 1.93 GB |")
    ]


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


def comparison(folder):
    """A folder as `training.compare` writes it, with the fields the script reads."""
    evaluation(folder, 26.0)
    source = json.loads((folder / "results.json").read_text())
    ours, telea = source["methods"]
    ours |= {
        "name": "a",
        "cost": {"parameters": 6_220_000, "multiply_adds": 666_000_000, "times_the_first": 1.0},
        "training": {"steps": 2000, "cpu_minutes": 10.04, "recipe": {"seed": 0}},
    }
    cost = {"parameters": None, "multiply_adds": None, "times_the_first": 0.07}
    telea |= {"name": "b", "cost": cost, "training": None}
    verdict = {"metric": "authors/psnr", "ranking": ["a", "b"], "difference": 7.0, "margin": 0.25}
    source["verdicts"] = [verdict | {"clear": True, "wins": 1.0}]
    (folder / "results.json").write_text(json.dumps(source))
    return folder


def test_a_comparison_brings_cost_training_and_verdicts(tmp_path):
    record = publish_results.condense({comparison(tmp_path / "six"): ""}, {})
    assert "private" not in json.dumps(record)
    lines = publish_results.table(record).splitlines()
    assert lines[0].endswith("| l1 | parameters | multiply-adds | time | steps | CPU minutes |")
    assert lines[2].endswith("| 1.500 % | 6.22 M | 0.67 G | 1.00 | 2,000 | 10.0 |")
    assert lines[3].endswith("| 1.500 % | – | – | 0.07 | – | – |")
    line = "* PSNR: musical lite, ahead of Telea by 7.00 dB ± 0.25 dB; better on 100% of the"
    assert lines[5] == f"{line} photographs."


def test_a_comparisons_methods_keep_their_labels(tmp_path):
    with pytest.raises(ValueError, match="six is a comparison, whose methods have labels: 'mine'"):
        publish_results.condense({comparison(tmp_path / "six"): "mine"}, {})
