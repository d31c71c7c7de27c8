"""What an evaluation shows, computed by hand from results that are written down here."""

import copy
import html
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from musical_tf.metrics import HIGHER_IS_BETTER
from training.evaluation import drawings, page, statistics, tables
from training.evaluation.sample import Sample, show_hole


def _row(file, fraction, **metrics):
    return {
        "file": file,
        "hole_fraction": fraction,
        "bucket": statistics.hole_bucket(fraction),
        "metrics": {
            name: {"authors/psnr": psnr, "authors/l1_percent": l1, "lpips/alex": lpips}
            for name, (psnr, l1, lpips) in metrics.items()
        },
    }


def _results(rows, labels):
    return {
        "command": "python -m training.evaluate --output 'a b'",
        "created": "2026-01-02 03:04 UTC",
        "commit": "abc123",
        "hardware": "a processor, 2 cores",
        "dataset": "celeba",
        "split": "test",
        "split_note": "",
        "image_size": 32,
        "mask": "box",
        "count": len(rows),
        "skipped": {"broken.jpg": "truncated"},
        "protocols": {"authors": "Whole image.", "lpips": "Learned distance."},
        "methods": [
            {
                "name": name,
                "label": label,
                "kind": "run" if name == "model" else "baseline",
                "seconds_per_image": 0.0125,
                "aggregates": statistics.aggregate(rows, name),
            }
            for name, label in labels.items()
        ],
        "images": rows,
    }


@pytest.fixture
def results():
    rows = [
        _row("a.png", 0.10, model=(20.0, 4.0, 0.30), telea=(18.0, 5.0, 0.20)),
        _row("b/<i>&b.png", 0.15, model=(30.0, 1.0, 0.10), telea=(31.0, 2.0, 0.20)),
        _row("c.png", 0.25, model=(None, 0.0, 0.00), telea=(29.0, 3.0, 0.05)),
    ]
    return _results(rows, {"model": "musical lite", "telea": "Telea"})


@pytest.fixture
def samples():
    """Three samples of one grey each; the model's result is one level brighter, Telea's two."""
    kept = []
    for number, grey in enumerate((40, 120, 200)):
        image = np.full((32, 32, 3), grey, np.uint8)
        hole = np.zeros((32, 32), bool)
        hole[8:24, 8:24] = True
        predictions = {"model": image + np.uint8(1), "telea": image + np.uint8(2)}
        kept.append(Sample(number, image, hole, predictions))
    return kept


@pytest.mark.parametrize(
    ("fraction", "bucket"),
    [
        *((0.0, "0-10%"), (0.0999, "0-10%"), (0.1, "10-20%"), (0.25, "20-30%"), (0.3, "30-40%")),
        *((0.1 * 3, "30-40%"), (1 - 0.4, "60-100%"), (0.59999, "50-60%"), (1.0, "60-100%")),
    ],
)
def test_a_bucket_includes_its_lower_end(fraction, bucket):
    assert statistics.hole_bucket(fraction) == bucket
    for wrong in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="0 to 1"):
            statistics.hole_bucket(wrong)


class TestAggregate:
    def test_by_hand(self, results):
        groups = statistics.aggregate(results["images"], "model")
        assert list(groups) == ["all", "10-20%", "20-30%"]
        # The third image equals the truth: its PSNR is infinite and left out, its l1 counts.
        assert groups["all"]["count"] == 3
        assert groups["all"]["metrics"]["authors/psnr"] == pytest.approx(25.0)
        assert groups["all"]["metrics"]["authors/l1_percent"] == pytest.approx(5 / 3)
        assert groups["all"]["undefined"] == {"authors/psnr": 1}
        assert groups["10-20%"]["count"] == 2
        assert groups["10-20%"]["metrics"]["lpips/alex"] == pytest.approx(0.2)
        assert groups["10-20%"]["undefined"] == {}
        assert groups["20-30%"]["metrics"]["authors/psnr"] is None
        groups = statistics.aggregate(results["images"], "telea")
        assert groups["all"]["metrics"]["authors/psnr"] == pytest.approx(26.0)


class TestRanking:
    def test_first_metric_with_a_direction(self):
        row = {"metrics": {"model": {"deepfill/tv_percent": 1.0, "deepfill/l1_percent": 2.0}}}
        assert statistics.first_ranked("model", row) == ("model", "deepfill/l1_percent")

    def test_no_direction(self):
        with pytest.raises(ValueError, match="deepfill/tv_percent"):
            statistics.first_ranked("model", {"metrics": {"model": {"deepfill/tv_percent": 1.0}}})

    def test_worst_is_low_psnr_but_high_l1(self, results, samples):
        def order(metric, count=3):
            kept = statistics.worst_and_best(results["images"], samples, ("model", metric), count)
            return [sample.number for sample in kept]

        assert order("authors/psnr") == [0, 1, 2]  # 20, 30, equal to the truth
        assert order("authors/l1_percent") == [0, 1, 2]
        assert order("authors/psnr", count=2) == [0, 2]

    def test_the_middle_goes_first(self, results):
        rows = [
            _row(f"{i}.png", 0.2, model=(float(psnr), 1, 1))
            for i, psnr in enumerate((24, 21, 25, 23, 22, 26))
        ]
        kept = [Sample(i, None, None) for i in range(6)]
        chosen = statistics.worst_and_best(rows, kept, ("model", "authors/psnr"), 3)
        assert [sample.number for sample in chosen] == [1, 4, 5]

    def test_every_metric_has_a_label(self):
        for metric in HIGHER_IS_BETTER:
            assert metric.partition("/")[2] in statistics.METRICS


class TestMarkdown:
    def test_tables_by_hole_size_and_what_was_left_out(self, results):
        text = tables.markdown(results)
        assert text.startswith("# musical lite on celeba\n")
        assert "3 images, split test, 32 × 32 pixels, mask box\n" in text
        assert (
            "| Method | authors: PSNR dB ↑ | authors: l1 % ↓ | lpips: LPIPS ↓ | s / image |\n"
            "|---|---:|---:|---:|---:|\n"
            "| musical lite | 25.00 | **1.667** | **0.1333** | 0.013 |\n"
            "| Telea | **26.00** | 3.333 | 0.1500 | 0.013 |\n"
        ).replace("0.013", f"{0.0125:.3f}") in text
        for heading in ("All holes, 3 images", "Hole 10–20%, 2 images", "Hole 20–30%, 1 image"):
            assert f"## {heading}\n" in text
        # Infinite over all images of the bucket: there is no mean.
        assert "| musical lite | – | **0.000** | **0.0000** |  |" in text
        assert "- 1 file was skipped: broken.jpg (truncated)\n" in text
        assert "- musical lite: authors PSNR is infinite for 1 of 3 images" in text
        assert "commit abc123." in text
        assert text.endswith("`python -m training.evaluate --output 'a b'`\n")

    def test_one_method_has_a_row_a_hole_size(self, results):
        text = tables.markdown(_results(results["images"], {"model": "musical lite"}))
        assert "##" not in text
        assert (
            f"| All, 3 images | 25.00 | 1.667 | 0.1333 | {0.0125:.3f} |\n"
            "| 10–20%, 2 images | 25.00 | 2.500 | 0.2000 |  |\n"
            "| 20–30%, 1 image | – | 0.000 | 0.0000 |  |\n"
        ) in text
        text = tables.markdown(_results(results["images"][:2], {"model": "m"}))
        assert "##" not in text
        assert "(10 to 20% of the image)" in text
        assert "**" not in text


def test_hole_is_hatched(samples):
    shown = show_hole(samples[0].image, samples[0].hole)
    hole = samples[0].hole
    np.testing.assert_array_equal(shown[~hole], samples[0].image[~hole])
    assert {tuple(pixel) for pixel in shown[hole]} == {(178,) * 3, (226,) * 3}


def counts(sheet, *levels):
    pixels = np.asarray(sheet).reshape(-1, 3)
    return [int((pixels == level).all(axis=1).sum()) for level in levels]


class TestContactSheet:
    def test_holds_every_picture_whole(self, results, samples):
        sheet = drawings.contact_sheet(results, samples, cell=32)
        for sample in samples:
            grey = int(sample.image[0, 0, 0])
            # The truth, and the input around its hole; the model's result; Telea's.
            expected = [32 * 32 + (32 * 32 - 16 * 16), 32 * 32, 32 * 32]
            assert counts(sheet, grey, grey + 1, grey + 2) == expected
        with pytest.raises(ValueError, match="at least one"):
            drawings.contact_sheet(results, [])

    @pytest.mark.parametrize(("cell", "side"), [(100, 96), (16, 16)])
    def test_pictures_fit_their_cell(self, results, samples, cell, side):
        """Small ones are enlarged by whole pixels, large ones shrunk."""
        samples[0].hole[:] = False
        assert counts(drawings.contact_sheet(results, samples[:1], cell=cell), 41) == [side * side]

    def test_worst_and_best_blocks(self, results, samples):
        two = drawings.contact_sheet(results, samples, rows=1, cell=32)
        assert counts(two, 41, 121, 201) == [32 * 32, 0, 32 * 32]  # the worst, the best


class _Page(HTMLParser):
    """Collects what the tests look at: tags with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "circle", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


class TestPage:
    @pytest.fixture
    def written(self, results, samples, tmp_path):
        page.write(tmp_path, results, samples)
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        return text, _Page(text), tmp_path

    def test_is_well_formed_and_needs_no_network(self, written):
        text, page, _ = written
        assert page.open == []
        assert not re.search(r"\{\{|\{%|Undefined", text)
        assert "<h1>musical lite on celeba</h1>" in text
        assert "<i>" not in text
        assert html.escape("b/<i>&b.png") in text
        assert "http" not in text
        assert "@import" not in text
        assert page.all("link") == []
        assert [a for a in page.all("script") if "src" in a] == []

    def test_cards_are_worst_first_and_carry_their_numbers(self, written):
        _, page, _ = written
        cards = page.all("article")
        assert [card["data-file"] for card in cards] == ["a.png", "b/<i>&b.png", "c.png"]
        first, _, last = (json.loads(card["data-values"]) for card in cards)
        figures = {"authors/psnr": 20.0, "authors/l1_percent": 4.0, "lpips/alex": 0.3}
        assert (first["model"], first["hole"]) == (figures, 0.1)
        assert first["telea"]["authors/psnr"] == 18.0
        assert last["model"]["authors/psnr"] is None

    def test_every_picture_is_there_and_exact(self, written, samples):
        _, page, folder = written
        sources = [image["src"] for image in page.all("img") if "src" in image]
        assert len(sources) == len(set(sources)) == 3 * 4
        assert sorted(sources) == sorted(f"images/{p.name}" for p in (folder / "images").iterdir())
        for sample in samples:
            prefix = folder / "images" / f"{sample.number:05d}"
            with Image.open(f"{prefix}-model.png") as picture:
                np.testing.assert_array_equal(np.asarray(picture), sample.predictions["model"])
            with Image.open(f"{prefix}-truth.png") as picture:
                np.testing.assert_array_equal(np.asarray(picture), sample.image)

    def test_sort_menu_and_table(self, written, results, samples, tmp_path):
        text, parsed, _ = written
        options = parsed.all("option")
        assert {o["value"]: o["data-better"] for o in options if "data-better" in o} == {
            "authors/psnr": "higher",
            "authors/l1_percent": "lower",
            "lpips/alex": "lower",
            "hole": "lower",
        }
        assert [o["value"] for o in options if "selected" in o] == ["model", "authors/psnr"]
        assert '<td class="edge best">26.00</td>' in text
        assert '<td class="edge">25.00</td>' in text
        assert "broken.jpg (truncated)" in text
        page.write(tmp_path, results, samples[:2])
        text = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert "The worst and the best by PSNR of musical lite: 2 of 3 images." in text

    def test_baselines_alone_have_no_headline_figures(self, results, samples, tmp_path):
        alone = copy.deepcopy(results)
        alone["methods"] = alone["methods"][1:]
        page.write(tmp_path, alone, samples)
        parsed = _Page((tmp_path / "index.html").read_text(encoding="utf-8"))
        assert parsed.all("dl") == []
        assert tables.markdown(alone).startswith("# Baselines on celeba\n")
        assert len(parsed.all("article")) == 3
