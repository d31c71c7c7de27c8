"""The comparison's command line on tiny runs, and what it says of numbers written down here."""

import html
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

import musical_tf
from benchmarks import publish_results
from musical_tf.metrics import evaluate_pair
from musical_tf.run_directory import RunDirectory
from tests.serving_model import metadata_for, write_model
from tests.tiny_run import one_line, write_run
from training.compare import main
from training.data.holes import open_masks
from training.evaluation import drawings, learning_curves, page, published, statistics, tables

SIZE = 64
RECIPE = {
    "dataset": "folder",
    "method": "musical",
    "image_size": SIZE,
    "shorter_side": SIZE,
    "mask": "center",
    "steps": 400,
    "batch_size": 16,
    "seed": 3,
    "precision": "float32",
    "ablation": None,
}

VALIDATIONS = "step,psnr,ssim,l1_percent\n100,21.5,0.81,4.5\n200,23.25,0.84,3.5\n"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "test").mkdir()
    for number in range(3):
        picture = data.astronaut()[40 * number : 40 * number + 160, 120:320]
        Image.fromarray(picture).resize((80, SIZE)).save(folder / "test" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, photographs):
    """MUSICAL, an ablation of it and GLC, each a few channels wide."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = RECIPE | {"data_dir": str(photographs)}
    whole = write_run(folder / "whole", preset="lite", **recipe)
    part = {"from_step": 0, "to_step": 100, "seconds": 60.0, "cpu_seconds": 90.0}
    parts = [part, part | {"from_step": 100, "to_step": 250, "seconds": 30.0}]
    (whole / "time.json").write_text(json.dumps(parts))
    (whole / "validation.csv").write_text(VALIDATIONS)
    ablated = recipe | {"ablation": "no_attention", "steps": 20}
    write_run(folder / "ablated", preset="lite", attention=False, **ablated)
    (folder / "ablated" / "checkpoints" / "step-00000020").mkdir(parents=True)
    glc = folder / "glc"
    glc.mkdir()
    musical_tf.create("glc", "lite", width=2).save(glc / "generator.keras")
    (glc / "recipe.json").write_text(json.dumps(recipe | {"method": "glc", "mask": "box"}))
    return folder


def arguments(runs, output, *more):
    paths = [str(runs / name) for name in ("whole", "ablated", "glc")]
    return ["--runs", *paths, "--mask", "center", "--output", str(output), "--rounds", "1", *more]


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    """A finished comparison's folder."""
    output = tmp_path_factory.mktemp("compared") / "out"
    more = ("--baselines", "telea", "patchmatch", "--attention-images", "1", "--batch-size", "2")
    assert main(arguments(runs, output, *more)) == 0
    return output


def read(output):
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


class TestResults:
    def test_all_files_and_no_others(self, compared):
        assert sorted(path.name for path in compared.iterdir()) == [
            *("figure.png", "images", "index.html", "results.json", "results.md")
        ]

    def test_without_photographs_there_are_tables_alone(self, photographs, compared, tmp_path):
        output = shutil.copytree(compared, tmp_path / "out")  # what it replaces had pictures
        flags = ["--dataset", "folder", "--data-dir", str(photographs), "--image-size", "64"]
        flags += ["--limit", "1", "--rounds", "1", "--no-photographs", "--output", str(output)]
        assert main(["--baselines", "telea", "mean", *flags]) == 0
        assert sorted(path.name for path in output.iterdir()) == [
            *("index.html", "results.json", "results.md")
        ]
        assert "<img" not in (output / "index.html").read_text()
        page.write(tmp_path, read(compared), ())
        text = (tmp_path / "index.html").read_text()
        assert "<img" not in text
        assert "{{" not in text
        assert "Every metric" in text
        assert text.count("<table") == (compared / "index.html").read_text().count("<table")

    def test_every_method_saw_the_same_photographs_and_holes(self, compared):
        """Measured again from the pictures that the page shows."""
        results = read(compared)
        names = [method["name"] for method in results["methods"]]
        assert names == [
            *("musical-lite", "musical-lite-no-attention", "glc-lite", "telea", "patchmatch")
        ]
        hole = open_masks("center", SIZE).deterministic(0)
        assert len(results["images"]) == 3
        for number, row in enumerate(results["images"]):
            shown = {
                key: np.asarray(Image.open(compared / "images" / f"{number:05d}-{key}.png"))
                for key in ("truth", *names)
            }
            for name in names:
                np.testing.assert_array_equal(shown[name][~hole], shown["truth"][~hole])
                again = evaluate_pair(shown["truth"], shown[name], hole, results["protocols"])
                assert row["metrics"][name] == pytest.approx(again)

    def test_how_each_run_was_trained(self, compared):
        training = {m["name"]: m["training"] for m in read(compared)["methods"]}
        whole = training["musical-lite"]
        assert (whole["steps"], whole["minutes"], whole["cpu_minutes"]) == (250, 1.5, 3.0)
        assert whole["recipe"]["seed"] == 3
        assert "data_dir" not in whole["recipe"]
        # Without a record of time the newest checkpoint still tells the step.
        ablated = training["musical-lite-no-attention"]
        assert (ablated["steps"], ablated["minutes"]) == (20, None)
        assert training["telea"] is None

    def test_learning_curves(self, compared):
        """Of the runs that were validated; minutes are 3.0 for 250 steps."""
        methods = [m for m in read(compared)["methods"] if m["name"] == "musical-lite"]
        axes = Figure().subplots(3, 2)
        learning_curves.plot(axes, methods)
        drawn = [[axis.lines[0].get_xydata().tolist() for axis in row] for row in axes]
        assert drawn[0] == [[[100, 21.5], [200, 23.25]], [[1.2, 21.5], [2.4, 23.25]]]
        assert drawn[2][0] == [[100, 4.5], [200, 3.5]]
        page = (compared / "index.html").read_text()
        svg = page[page.index("<svg", page.index("Learning curves</h2>")) : page.rindex("</svg>")]
        assert "MUSICAL lite" in svg
        assert "GLC lite" not in svg
        assert learning_curves.draw([{"training": None}, {"training": {"steps": 1}}, {}]) is None

    def test_cost(self, compared, runs):
        methods = {m["name"]: m for m in read(compared)["methods"]}
        for name, folder in (("musical-lite", "whole"), ("glc-lite", "glc")):
            assert methods[name]["cost"]["parameters"] == sum(
                int(np.prod(weight.shape)) for weight in musical_tf.load(runs / folder).weights
            )
        # The attention's own products are all that it has more.
        adds = {name: method["cost"]["multiply_adds"] for name, method in methods.items()}
        assert adds["musical-lite"] > adds["musical-lite-no-attention"] > 0
        assert adds["telea"] is None
        assert methods["musical-lite"]["cost"]["times_the_first"] == 1.0
        for method in methods.values():
            assert method["cost"]["seconds"]["median"] > 0

    def test_attention_of_those_that_have_one(self, compared):
        first, second, *_ = read(compared)["images"]
        assert list(first["attention"]) == ["musical-lite"]
        assert set(first["attention"]["musical-lite"]) == {"1x1", "3x3"}
        assert "attention" not in second
        drawn = "00000-musical-lite-attention-3x3-color.png"
        assert f'"images/{drawn}"' in (compared / "index.html").read_text()
        assert (compared / "images" / drawn).is_file()

    def test_markdown(self, compared):
        text = (compared / "results.md").read_text()
        assert "| MUSICAL lite | 250 of 400 | 16 | 3.0 | 1.5 | 3 | float32 | center | 64 |" in text
        assert "Weights from before the planned end of training: MUSICAL lite" in text
        assert "GLC lite was trained with mask box and measured with center." in text
        # No paper has a table of somebody's folder of photographs.
        assert "## Layout of Wang et al., IJCAI 2019, Tables 1 to 3" in text
        assert "| PatchMatch | 16.1 " not in text
        assert re.search(r"\| PatchMatch \|.*\| 16\.1 \| 3\.9 \| 16\.62 \| 25\.0 \|", text)
        assert "of other data and not comparable: folder here, Places2 there" in text

    def test_the_figure_is_in_the_papers_order(self, compared):
        results = read(compared)
        captions = list(drawings.figure_columns(results).values())
        assert captions == ["Input", "GLC lite", "MUSICAL lite", "Truth"]
        captions = list(drawings.ablation_columns(results).values())
        assert captions == ["Input", "Ground truth", "No attention", "MUSICAL lite"]
        with Image.open(compared / "images" / "ablations.png") as picture:
            assert picture.mode == "RGB"

    def test_a_comparison_is_replaced_and_nothing_else(self, photographs, tmp_path, capsys):
        output = tmp_path / "out"
        flags = ["--dataset", "folder", "--data-dir", str(photographs), "--image-size", "64"]
        flags += ["--limit", "1", "--rounds", "1", "--protocol", "authors", "--output", str(output)]
        for second in ("mean", "navier_stokes"):
            assert main(["--baselines", "telea", second, *flags]) == 0
        results = read(output)
        assert [method["name"] for method in results["methods"]] == ["telea", "navier_stokes"]
        # One image has no spread.
        assert {verdict["margin"] for verdict in results["verdicts"]} == {None}
        assert not list((output / "images").glob("*-mean.png"))
        capsys.readouterr()
        (output / "results.json").write_text('{"format": "musical-tf evaluation 1"}')
        assert main(["--baselines", "telea", "mean", *flags]) == 2
        assert "not from a finished comparison" in one_line(capsys)


def test_an_exported_file_beside_a_baseline(photographs, tmp_path):
    """The file fills with the mean, which is what the baseline does; an ablation's copies."""
    file = write_model(tmp_path / "mean.onnx")
    part = write_model(tmp_path / "part.onnx", metadata=metadata_for(ablation="no_se"), copies=9)
    flags = ["--dataset", "folder", "--data-dir", str(photographs), "--rounds", "1"]
    flags += ["--protocol", "authors", "--output", str(tmp_path / "out")]
    assert main(["--onnx", str(file), str(part), "--baselines", "mean", *flags]) == 0
    results = read(tmp_path / "out")
    exported, ablated, mean = results["methods"]
    assert (exported["ablation"], ablated["ablation"]) == (None, "no_se")
    assert ablated["label"] == "MUSICAL lite (ONNX), no se"
    assert (exported["label"], exported["kind"]) == ("MUSICAL lite (ONNX)", "onnx")
    assert exported["method"] == "musical"
    copied = results["images"][0]["source"]
    assert {name: each["copied"] for name, each in copied.items()} == {ablated["name"]: 1.0}
    for kind in ("places", "copies"):
        file = tmp_path / "out" / "images" / f"00000-{ablated['name']}-source-{kind}.png"
        assert file.is_file()
    assert exported["cost"]["parameters"] is None
    assert results["image_size"] == SIZE
    for metric, value in exported["aggregates"]["all"]["metrics"].items():
        assert value == pytest.approx(mean["aggregates"]["all"]["metrics"][metric], rel=0.02)
    assert "| MUSICAL lite (ONNX) | – | – |" in (tmp_path / "out" / "results.md").read_text()


class Pictures(HTMLParser):
    """What a page asks for, and the headings and labels it has."""

    def __init__(self):
        super().__init__()
        self.files, self.links, self.identifiers, self.unnamed = [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.identifiers.append(attributes["id"])
        if tag == "img":
            self.files += [attributes["src"]] if attributes.get("src") else []
            if attributes.get("src") and not attributes.get("alt"):
                self.unnamed.append(attributes["src"])
        if tag in ("script", "link", "iframe"):
            self.files += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "a":
            self.links.append(attributes["href"])


class TestPage:
    def test_needs_nothing_from_elsewhere(self, compared):
        text = (compared / "index.html").read_text()
        page = Pictures()
        page.feed(text)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
        assert page.files
        assert all((compared / file).is_file() for file in page.files)
        assert not page.unnamed
        for link in page.links:
            target = link.removeprefix("#")
            assert target in page.identifiers or (compared / link).is_file()
        assert len(page.identifiers) == len(set(page.identifiers))
        assert "{{" not in text
        found = [json.loads(html.unescape(v)) for v in re.findall(r'data-values="(.*?)"', text)]
        assert len(found) == 3
        assert {each["musical-lite"]["authors/psnr"] for each in found} == {
            row["metrics"]["musical-lite"]["authors/psnr"] for row in read(compared)["images"]
        }


def test_every_run_that_was_trained_on_something_else_is_named():
    runs = [
        {
            "label": label,
            "training": {
                "steps": 9,
                "minutes": 1.0,
                "cpu_minutes": 2.0,
                "recipe": {"mask": mask, "image_size": size, "dataset": "celeba", "seed": 0},
            },
        }
        for label, mask, size in (("A", "center", 64), ("B", "box", 64), ("C", "box", 96))
    ]
    results = {"mask": "center", "image_size": 64, "dataset": "celeba", "methods": runs}
    notes = tables.training_table(results).notes
    assert [note for note in notes if "measured with" in note] == [
        "B, C were trained with mask box and measured with center.",
        "C was trained with image size 96 and measured with 64.",
    ]


class TestVerdicts:
    @staticmethod
    def rows(*pairs):
        return [
            {"bucket": "20-30%", "metrics": {"a": {"authors/psnr": a}, "b": {"authors/psnr": b}}}
            for a, b in pairs
        ]

    def verdict(self, *pairs):
        rows = self.rows(*pairs)
        methods = [{"name": n, "aggregates": statistics.aggregate(rows, n)} for n in ("a", "b")]
        (verdict,) = statistics.verdicts(rows, methods)
        return verdict

    def test_by_hand(self):
        verdict = self.verdict((20.0, 21.0), (22.0, 23.0), (24.0, 27.0), (26.0, 25.0))
        assert verdict["ranking"] == ["b", "a"]
        # Gains 1, 1, 3, -1: mean 1, deviation sqrt(8 / 3).
        assert verdict["difference"] == pytest.approx(1.0)
        assert verdict["margin"] == pytest.approx(1.96 * (8 / 3) ** 0.5 / 2)
        assert verdict["wins"] == 0.75
        assert not verdict["clear"]
        assert self.verdict((20.0, 21.0), (22.0, 23.1), (24.0, 24.9), (26.0, 27.0))["clear"]

    def test_lower_may_be_better(self):
        rows = [
            {"bucket": "20-30%", "metrics": {"a": {"lpips/alex": 0.1}, "b": {"lpips/alex": 0.3}}}
        ] * 2
        methods = [{"name": n, "aggregates": statistics.aggregate(rows, n)} for n in ("b", "a")]
        (verdict,) = statistics.verdicts(rows, methods)
        assert verdict["ranking"] == ["a", "b"]
        assert verdict["difference"] == pytest.approx(0.2)

    def test_undefined_values(self):
        verdict = self.verdict((None, 21.0), (22.0, 23.0), (26.0, 28.0), (21.0, None))
        assert verdict["ranking"] == ["b", "a"]
        assert verdict["difference"] == pytest.approx(1.5)
        nothing = self.verdict((None, 21.0), (22.0, None))
        assert nothing["difference"] is None
        assert nothing["wins"] is None

    def test_what_two_protocols_define_alike_counts_once(self):
        rows = [
            {
                "bucket": "20-30%",
                "metrics": {
                    name: {"hole/psnr": value, "hole/ssim": value / 40, "deepfill/psnr": value}
                    for name, value in (("a", a), ("b", b))
                },
            }
            for a, b in ((20.0, 21.0), (25.0, 24.0))
        ]
        methods = [{"name": n, "aggregates": statistics.aggregate(rows, n)} for n in ("a", "b")]
        found = [verdict["metric"] for verdict in statistics.verdicts(rows, methods)]
        assert found == ["hole/psnr", "hole/ssim"]


class TestPublished:
    def test_the_papers_winners_are_theirs(self):
        """Of Table 2 the text says that CE has the better PSNR: a slip in a row would show."""
        best = []
        for table in published.MUSICAL_TABLES:
            for column, lower in ((0, False), (1, False), (2, True)):
                values = {label: float(figures[column]) for label, _, figures in table.rows}
                best.append((min if lower else max)(values, key=values.get))
        assert best == ["Our Method"] * 4 + ["CE"] + ["Our Method"] * 4

    def test_comparable_or_not(self):
        table = published.musical_table("celeba")
        same = {"dataset": "celeba", "image_size": 256, "mask": "center", "count": 19_962}
        same |= {"shorter_side": 256, "resampling": "bicubic"}
        assert table.differences(same) == []
        assert table.differences(same | {"shorter_side": 350, "resampling": "bilinear"}) == [
            "shorter side 350 pixels here, 256 there",
            "bilinear resizing here, bicubic there",
        ]
        smaller = {"image_size": 128, "shorter_side": 128, "count": 500}
        assert table.differences(same | smaller) == [
            "128 pixels here, 256 there",
            "500 test photographs here, 19,962 there",
        ]
        assert published.musical_table("folder") is None
        assert published.DEEPFILL_TABLE.differences(same)[0] == "celeba here, Places2 there"

    @pytest.mark.parametrize("suffix", [".md", ".html"])
    def test_the_kept_comparison_names_every_difference(self, suffix):
        file = publish_results.RESULTS / "methods_celeba_128.json"
        text = file.with_suffix(suffix).read_text()
        for table in (published.musical_table("celeba"), published.DEEPFILL_TABLE):
            differences = table.differences(json.loads(file.read_text()))
            assert f"not comparable: {'; '.join(differences)}." in text


TWO = ("telea", "mean", "--dataset", "demo")
"""Two methods and photographs that are always there, for errors that come after them."""


class TestErrors:
    """Each one line, exit code 2, and nothing left behind."""

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            ([], "nothing to compare: give at least two"),
            (["--runs", "WHOLE"], "nothing to compare"),
            (["--runs", "WHOLE", "nowhere"], "run nowhere: no such directory"),
            (["--runs", "WHOLE", "WHOLE"], "two methods are called 'MUSICAL lite'"),
            (["--runs", "WHOLE", "Telea=ABLATED", "--baselines", "telea"], "called 'Telea'"),
            (["--runs", "WHOLE", "Truth=ABLATED"], "'Truth' is no name for a method"),
            (["--runs", "WHOLE", "A="], "'A=': expected NAME=PATH"),
            (["--runs", "WHOLE", "GLC"], "differ in mask: MUSICAL lite center, GLC lite box"),
            (["--runs", "WHOLE", "UNFINISHED"], "it has no weights yet"),
            (["--runs", "WHOLE", "OTHER"], "differ in image size: MUSICAL lite 64, Other 128"),
            (["--baselines", *TWO, "--protocol", "paper"], "unknown protocol 'paper'"),
            (["--baselines", "telea", "lama"], "unknown baseline 'lama'"),
            (["--baselines", "telea", "mean"], "--dataset is missing"),
            (["--onnx", "x.onnx", "y.onnx"], "ONNX file x.onnx: no such file"),
            (["--rounds", "0"], "--rounds: expected a whole number of at least 1, got '0'"),
        ],
    )
    def test_bad_usage(self, runs, tmp_path, monkeypatch, capsys, flags, message):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "unfinished").mkdir()
        (tmp_path / "unfinished" / "recipe.json").write_text(json.dumps(RECIPE))
        other = tmp_path / "other"
        other.mkdir()
        (other / "generator.keras").write_bytes((runs / "whole" / "generator.keras").read_bytes())
        (other / "recipe.json").write_text(json.dumps(RECIPE | {"image_size": 128}))
        names = {
            "WHOLE": str(runs / "whole"),
            "ABLATED": str(runs / "ablated"),
            "GLC": str(runs / "glc"),
            "UNFINISHED": "unfinished",
            "OTHER": "Other=other",
        }
        flags = [re.sub("[A-Z]{3,}$", lambda word: names[word[0]], flag) for flag in flags]
        assert main([*flags, "--output", "out"]) == 2
        error = capsys.readouterr().err
        assert "musical-compare: error: " in error
        assert "Traceback" not in error
        assert message in error
        assert not (tmp_path / "out").exists()

    def test_a_broken_record_of_time(self, tmp_path):
        (tmp_path / "time.json").write_text("[]")
        with pytest.raises(ValueError, match=r"time\.json must record a part of a run"):
            RunDirectory(tmp_path).duration()
