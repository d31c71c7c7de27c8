"""The script that carries measured numbers into the README."""

import json
import re

import pytest

from benchmarks import publish_results, result_tables


def evaluation(folder, psnr, **changes):
    """A folder as `training.evaluate` writes it, with the fields the script reads."""
    folder.mkdir()
    metrics = {"authors/psnr": psnr, "authors/ssim": 0.9, "authors/l1_percent": 1.5}
    method = {"label": "musical lite", "kind": "run", "seconds_per_image": 0.1}
    method["aggregates"] = {"all": {"metrics": metrics}}
    baseline = {**method, "label": "Telea", "kind": "baseline"}
    source = {
        "dataset": "celeba",
        "split": "test",
        "image_size": 128,
        "shorter_side": 128,
        "mask": "center",
        "count": 500,
        "protocols": {"authors": "..."},
        "command": f"evaluate {folder.name}",
        "created": "now",
        "commit": "abc",
        "hardware": "two cores",
        "software": {},
        "data_dir": "/private",
        "images": [1, 2],
        "methods": [method, baseline],
        **changes,
    }
    (folder / "results.json").write_text(json.dumps(source))
    return folder


@pytest.mark.parametrize("document", publish_results.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_what_was_measured(document):
    text = document.read_text()
    assert publish_results.with_tables(text) == text
    assert "<!-- results:" in text


def test_nothing_that_is_kept_names_a_place_on_somebodys_disk():
    folders = (publish_results.RESULTS, publish_results.CARDS)
    files = [file for folder in folders for file in folder.rglob("*.json")]
    assert files
    # A command is kept as it was typed: one that names such a place is to be run anew without it.
    places = {
        f"{file.name}: {word}"
        for file in files
        for word in re.findall(
            r"""(?:^|[\s"'=,])(/\w[^\s"']*|[A-Z]:[/\\][^\s"']*)""", file.read_text()
        )
    }
    assert not places


def test_ratios_and_quantities_become_tables():
    record = {"ratios": {"slow / fast": 7.125}, "hardware": "two cores", "command": "python -m b"}
    lines = result_tables.table(record).splitlines()
    assert "| slow / fast | 7.12 |" in lines
    assert "python -m b" in lines
    record = {"quantities": {"memory": "1.93 GB"}, "hardware": "h", "command": "c"}
    assert result_tables.table(record).splitlines()[2] == "| memory | 1.93 GB |"
    with pytest.raises(ValueError, match=r"results:nothing, and .*nothing\.json is not there"):
        publish_results.with_tables("<!-- results:nothing -->\n<!-- /results -->")


def test_evaluations_are_merged_and_relabelled(tmp_path):
    one, two = evaluation(tmp_path / "one", 26.0), evaluation(tmp_path / "two", 25.5)
    record = publish_results.condense({one: "", two: "L1 alone"}, {})
    assert [method["label"] for method in record["methods"]] == [
        *("musical lite", "Telea", "L1 alone", "Telea")
    ]
    assert "private" not in json.dumps(record)
    lines = result_tables.table(record).splitlines()
    assert lines[0] == "| method | PSNR | SSIM | l1 |"
    assert lines[4] == "| L1 alone | 25.50 dB | 0.9000 | 1.500 % |"
    assert "evaluate two" in lines


def test_other_photographs_are_not_mixed_in(tmp_path):
    one, two = evaluation(tmp_path / "one", 26.0), evaluation(tmp_path / "two", 25.5, count=10)
    with pytest.raises(ValueError, match=r"two differs from .*one in count"):
        publish_results.condense({one: "", two: ""}, {})
    with pytest.raises(ValueError, match="--run names 'x', which is none of musical lite"):
        publish_results.condense({one: ""}, {"x": tmp_path})


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
    lines = result_tables.table(record).splitlines()
    assert lines[0].endswith("| l1 | parameters | multiply-adds | time | steps | CPU minutes |")
    assert lines[2].endswith("| 1.500 % | 6.22 M | 0.67 G | 1.00 | 2,000 | 10.0 |")
    assert lines[3].endswith("| 1.500 % | – | – | 0.07 | – | – |")
    line = "* PSNR: musical lite, ahead of Telea by 7.00 dB ± 0.25 dB; better on 100% of the"
    assert lines[5] == f"{line} photographs."
    with pytest.raises(ValueError, match="six is a comparison, whose methods have labels: 'mine'"):
        publish_results.condense({tmp_path / "six": "mine"}, {})


def run_folder(folder, name, init=None, **config):
    """A run folder with what is read of it."""
    run = folder / name
    run.mkdir()
    recipe = {"data_dir": "/private", "image_size": 64, "init": init, "config": config, "seed": 0}
    (run / "recipe.json").write_text(json.dumps(recipe))
    (run / "time.json").write_text('[{"to_step": 1500, "seconds": 600, "cpu_seconds": 1140}]')
    (run / "log.jsonl").write_text('{"step": 1499, "l1": 0.3}\n{"step": 1500, "l1": 0.1}\n')
    return run


@pytest.fixture
def tries(tmp_path):
    """Two tries, the second of two stages, and an evaluation of each with Telea beside it."""
    one = run_folder(tmp_path, "one", lambda_style=250.0, width=32)
    two = run_folder(tmp_path, "two", lambda_style=0.0, width=32)
    three = run_folder(tmp_path, "three", init=str(two), lambda_style=50.0, width=32)
    evaluations = {}
    for run, psnr in ((one, 24.35), (three, 25.08)):
        evaluated = evaluation(tmp_path / f"eval_{run.name}", psnr)
        source = json.loads((evaluated / "results.json").read_text())
        source["methods"][0]["source"] = f"runs/{run.name}"
        source["methods"][1]["source"] = None
        (evaluated / "results.json").write_text(json.dumps(source))
        evaluations[evaluated] = ""
    return {"strong": [one], "late": [two, three]}, evaluations


def test_tries_are_kept_with_what_differs_and_what_came_of_it(tries):
    record = publish_results.describe_tries(*tries, about="How much style?", verdict="Late.")
    assert "private" not in json.dumps(record)
    lines = result_tables.table(record).splitlines()
    assert lines[:2] == ["How much style?", ""]
    assert lines[2] == "| try | what differs | steps | CPU minutes | PSNR | SSIM | l1 |"
    figures = "| 0.9000 | 1.500 % |"
    assert lines[4] == f"| strong | lambda_style 250.0 | 1,500 | 19 | 24.35 dB {figures}"
    assert lines[5] == (
        f"| late | lambda_style 0.0 then 50.0 | 1,500 + 1,500 | 38 | 25.08 dB {figures}"
    )
    assert lines[6].startswith("| Telea | – | – | – | ")
    assert "Late." in lines
    assert "evaluate eval_three" in lines
    record = publish_results.describe_tries(tries[0], {}, about="?", verdict="")
    lines = result_tables.table(record).splitlines()
    assert lines[2].endswith("| CPU minutes | training loss `l1` |")
    assert "| late | lambda_style 0.0 then 50.0 | 1,500 + 1,500 | 38 | 0.2000 |" in lines
    del tries[0]["late"]
    with pytest.raises(ValueError, match=r"eval_three: musical lite is none of the tries strong"):
        publish_results.describe_tries(*tries, about="?", verdict="")


def test_tries_that_go_on_from_the_first_show_what_their_own_stages_change():
    first, second = {"rate": 2, "steps": 5}, {"rate": 1, "steps": 9, "zoom": 0.0}
    third = {"rate": 2, "steps": 9, "zoom": 0.1}
    tries = [[first], [first, second], [first, second, third]]
    assert result_tables.differences(tries) == ["", "rate 1", "zoom 0.1"]


def test_tries_are_listed_by_name(tries, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publish_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(publish_results, "CARDS", tmp_path / "cards")
    monkeypatch.setattr(publish_results, "DOCUMENTS", (tmp_path / "log.md",))
    (tmp_path / "log.md").write_text("<!-- results:training -->\n<!-- /results -->\n")
    assert publish_results.main(["tables"]) == 0
    assert "No tries are recorded yet." in (tmp_path / "log.md").read_text()
    (one,), stages = tries[0]["strong"], ",".join(map(str, tries[0]["late"]))
    words = ["training", "style", f"strong={one}", f"late={stages}", "--about", "How much?"]
    assert publish_results.main([*words, "--evaluation", *map(str, tries[1])]) == 0
    text = (tmp_path / "log.md").read_text()
    assert "## style\n\nHow much?\n" in text
    total = "All 3 runs, those of the shipped models included: 0.5 hours, 0.9 hours of all cores"
    assert f"{total} together." in " ".join(text.split())
    card = {"stages": [{"run": "four", "steps": 9, "minutes": 60.0, "cpu_minutes": 120.0}]}
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "photo.json").write_text(json.dumps(card))
    assert publish_results.main(["tables"]) == 0
    assert "All 4 runs" in (tmp_path / "log.md").read_text()
    assert "1.5 hours, 3.0 hours" in (tmp_path / "log.md").read_text()
    assert publish_results.main(["training", "x", "nothing", "--about", "?"]) == 1
    assert "expected LABEL=RUN[,RUN...]" in capsys.readouterr().err


def setting(psnr, missed=(), **bars):
    """A record of `benchmarks.shipped_models`, of one setting."""
    metrics = {"authors/psnr": psnr, "authors/ssim": 0.9, "authors/l1_percent": 1.5}
    methods = {
        "faces": {"metrics": metrics, "known_change": 0},
        "MI-GAN": {"metrics": metrics | {"lpips/alex": 0.2}, "known_change": 26},
    }
    place = {"dataset": "celeba", "side": 256, "hole": "center", "count": 500, "model": "faces"}
    place |= {"shorter_side": 256, "resampling": "bicubic"}
    ran = {"command": "python -m b", "hardware": "two cores"}
    return {"methods": methods, "bars": bars, "missed": list(missed), **place, **ran}


def test_shipped_models_stand_beside_others_and_bars():
    record = {"settings": {"one": setting(26.0, **{"authors/psnr": 25.5})}}
    lines = result_tables.table(record).splitlines()
    assert lines[2] == (
        "| CelebA, 256 px | center | **`faces`** | 26.00 dB | 0.9000 | 1.500 % |  | exact |"
    )
    assert lines[3].endswith("| 1.500 % | 0.2000 | ± 26 |")
    assert lines[4] == "| | | *bar* | ≥ 25.50 dB |  |  |  | exact |"
    assert "Every bar is reached." in lines
    record = {"settings": {"one": setting(25.0, missed=["authors/psnr 25, bar 25.5"])}}
    lines = result_tables.table(record).splitlines()
    assert "* one: authors/psnr 25, bar 25.5" in lines
    assert "Every bar is reached." not in lines
    assert result_tables.table(record, "short").splitlines()[2] == (
        "| CelebA, 256 px | center | `faces` | 25.00 dB / 0.9000 | 25.00 dB / 0.9000 / 0.2000 |"
    )
    del record["settings"]["one"]["methods"]["MI-GAN"]
    record["settings"]["two"] = setting(25.0)
    lines = result_tables.table(record, "short").splitlines()
    assert lines[2].endswith("| 25.00 dB / 0.9000 | not yet measured |")


def test_a_card_becomes_tables(tmp_path):
    recipe = {"image_size": 64, "mask": "center", "batch_size": 16, "learning_rate": 0.0005}
    recipe["config"] = {"width": 32, "width_limit": 7}
    spent = {"steps": 1500, "minutes": 90.0, "cpu_minutes": 171.0}
    kinds = {"bytes": 10_400_000, "sha256": "abcdef0123456789" * 4}
    card = {
        "method": "musical",
        "preset": "lite",
        "parameters": 5_010_000,
        "data": "scribbles",
        "licence": "anything goes",
        "hardware": "a loom",
        "recipe": recipe,
        "total": spent,
        "files": {"onnx": kinds, "keras": kinds},
        "parity": {"ONNX file from the run": {"max": 1.0}},
        "stages": [{"recipe": recipe, "photographs": "8500 files, 0123", **spent}] * 2,
    }
    lines = result_tables.table(card).splitlines()
    assert "`width=32`, `width_limit=7`, 5.01 M parameters" in lines[2]
    assert "10.4 MB, float16, sha256 `abcdef0123456789`; " in lines[5]
    assert "gray levels from the trained weights: at most 1 |" in lines[5]
    assert "1.5 hours, 2.9 hours of all cores together; a loom" in lines[7]
    card["stages"][0] = spent | {"recipe": recipe | {"ablation": "no_attention"}}
    assert result_tables.table(card).splitlines()[-2].startswith("| 1, no attention | – | 64 |")
    assert lines[-1] == "| 2 | 8500 files | 64 | center | 16 | 0.0005 | 1,500 | 90 | 171 |"


def test_figures_at_another_scale_than_todays_say_so():
    setting = {"dataset": "celeba", "side": 256, "shorter_side": 256, "resampling": "bicubic"}
    assert result_tables.place(setting) == "CelebA, 256 px"
    whole = setting | {"whole": True}
    assert result_tables.place(whole) == "CelebA, whole, shorter side 256 px"
    before = setting | {"shorter_side": 350}
    del before["resampling"]
    expected = "CelebA, 256 px of a shorter side of 350, bilinear"
    assert result_tables.place(before) == expected
