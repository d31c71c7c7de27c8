"""The page of an evaluation or a comparison: one folder that is read in any browser, offline.

The page and its pictures are separate files: pictures are PNG, since JPEG would add its own damage
to what is being judged, and that would make one file of 30 MB or more.
"""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from . import drawings, explanations, learning_curves, tables
from .sample import Sample
from .statistics import (
    describe_metric,
    metrics_of,
    protocol_of,
    ranking_metric,
    worst_and_best,
)

PICTURES = "images"
"""The folder of an output folder that holds the page's pictures."""


@functools.cache
def _templates() -> Any:
    import jinja2  # `--help` need not wait for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["best"] = lambda cell: isinstance(cell, tables.Best)
    environment.filters["runs"] = _runs
    environment.globals["names"] = _names
    return environment


def _runs(columns: Sequence[tables.Column]) -> list[list[tables.Column]]:
    """Neighboring columns of the same group."""
    return [list(run) for _, run in itertools.groupby(columns, key=lambda column: column.group)]


def _names(**wanted: bool) -> str | None:
    """An element's classes; None for no class attribute."""
    return " ".join(name for name, present in wanted.items() if present) or None


def render(template: str, **values: Any) -> str:
    """A template of `templates/`, filled in; text is escaped."""
    return _templates().get_template(template).render(**values)


def write(
    folder: Path,
    results: Mapping[str, Any],
    samples: Sequence[Sample],
    figures: Sequence[Sample] = (),
    attentions: Sequence[explanations.Item] = (),
) -> None:
    """Writes `index.html` and the pictures it shows, `images/*.png`, into an existing folder.

    Without `samples` the page has tables alone. `figures` are the images in the layout of the
    paper's figures, `attentions` where fills came from, a method and image an item.
    """
    pictures = folder / PICTURES
    if samples or figures:
        pictures.mkdir(exist_ok=True)
    for sample in {sample.number: sample for sample in (*samples, *figures)}.values():
        for key in ("input", *(m["name"] for m in results["methods"]), "truth"):
            Image.fromarray(sample.picture(key)).save(folder / _file(sample, key), optimize=True)
    sections = [_section("metrics", tables.metric_tables(results))]
    if tables.is_comparison(results):
        seconds = (
            f"s / image is the mean over all images in batches of {results['batch_size']}; the "
            "table of cost has the time of one image alone."
        )
        sections[0] |= {"title": "Every metric", "notes": [seconds]}
        sections.insert(0, _section("winners", [tables.winners_table(results)], words=True))
        sections += [_section(slug(t.title.lower()), [t]) for t in tables.after_metrics(results)]
        if curves := learning_curves.draw(results["methods"]):
            sections.append(_curves_section(curves.decode()))
    if figures:
        sections[1:1] = _figure_sections(pictures, results, figures)
    text = render(
        "page.html.j2",
        title=tables.title(results),
        subtitle=tables.subtitle(results),
        tiles=_tiles(results),
        sections=sections,
        attention=explanations.write_section(folder, attentions) if attentions else None,
        gallery=_gallery(results, samples) if samples else None,
        footnotes=tables.notes(results),
        command=results["command"],
    )
    (folder / "index.html").write_text(text, encoding="utf-8")


def slug(text: str) -> str:
    """The text as a part of a file's name."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text)


def _file(sample: Sample, key: str) -> str:
    return f"{PICTURES}/{sample.number:05d}-{slug(key)}.png"


def _section(name: str, shown: Sequence[tables.Table], words: bool = False) -> dict[str, Any]:
    """A section of tables, in the template's terms."""
    first, count = shown[0], len(shown)
    title = first.title if count == 1 else ""
    return {"id": name, "title": title, "tables": shown, "words": words, "notes": first.notes}


def _curves_section(svg: str) -> dict[str, Any]:
    text = (
        "Each run's validations while it trained, on the split val. The minutes are the run's mean "
        "CPU time for a step times the steps."
    )
    plot = Markup(svg[svg.index("<svg") :])
    return {"id": "curves", "title": "Learning curves", "plot": plot, "text": text}


def _figure_sections(
    pictures: Path, results: Mapping[str, Any], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    def section(name: str, title: str, columns: drawings.Columns, **more: str) -> dict[str, Any]:
        captions = drawings.lettered(columns)
        cards = [_card(results, sample, captions) for sample in samples]
        return {
            "id": name,
            "title": title,
            "tables": (),
            "columns": len(columns),
            "cards": cards,
            **more,
        }

    count = "The first photograph" if len(samples) == 1 else f"The first {len(samples)} photographs"
    text = f"{count} of the split, not selected, in the layout of the MUSICAL paper's Figures 3"
    columns = drawings.figure_columns(results)
    found = [section("figure", "Side by side", columns, text=f"{text} to 5.", picture="figure.png")]
    if ablations := drawings.ablation_columns(results):
        drawings.figure(ablations, samples).save(pictures / "ablations.png")
        text = (
            "The same photographs in the layout of the MUSICAL paper's Figure 6: the method "
            "without one of its parts."
        )
        file = f"{PICTURES}/ablations.png"
        found.append(section("ablations", "Ablations", ablations, text=text, picture=file))
    return found


def _card(
    results: Mapping[str, Any],
    sample: Sample,
    columns: drawings.Columns,
    ranking: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """One photograph: a picture a column, with its figures where `ranking` says which."""
    row = results["images"][sample.number]
    methods = row["metrics"]
    words = [f"hole {row['hole_fraction']:.0%}"]
    height, width = sample.hole.shape
    shown = []
    for key, label in columns.items():
        picture = {"label": label, "of": row["file"], "file": _file(sample, key), "value": ""}
        picture |= {"method": key if key in methods else None, "width": width, "height": height}
        # With one method its figures stand in the card's head.
        if ranking and key in methods and len(methods) > 1:
            picture["value"] = describe_metric(ranking[1]).with_unit(methods[key][ranking[1]])
        shown.append(picture)
    card: dict[str, Any] = {"title": row["file"], "pictures": shown}
    if ranking:
        card["file"] = row["file"]
        card["figures"] = json.dumps({**methods, "hole": row["hole_fraction"]})
        if len(methods) == 1:
            words[:0] = [
                f"{describe_metric(name).label} {describe_metric(name).format(value)}"
                for name, value in methods[ranking[0]].items()
                if protocol_of(name) == protocol_of(ranking[1])
            ]
    return card | {"words": " · ".join(words)}


def _gallery(results: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    ranking = ranking_metric(results)
    methods = {method["name"]: method["label"] for method in results["methods"]}
    columns = {"input": "Input", **methods, "truth": "Truth"}
    ordered = worst_and_best(results["images"], samples, ranking, len(samples))
    label, count = describe_metric(ranking[1]).label, results["count"]
    shown = f"All {count} images."
    if len(samples) < count:
        whose = f"{label} of {methods[ranking[0]]}"
        shown = f"The worst and the best by {whose}: {len(samples)} of {count} images."
    sorts = []
    for metric in metrics_of(results):
        description = describe_metric(metric)
        if description.better:
            name = f"{protocol_of(metric)}: {description.label}"
            sorts.append((metric, name, description, metric == ranking[1]))
    cards = [_card(results, sample, columns, ranking) for sample in ordered]
    return {"shown": shown, "methods": methods, "sorts": sorts, "cards": cards}


def _tiles(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and unit of an evaluated model's main figures."""
    method = results["methods"][0]
    if tables.is_comparison(results) or method["kind"] == "baseline":
        return []
    protocols = (protocol_of(ranking_metric(results)[1]), "lpips")
    tiles = []
    for metric, value in method["aggregates"]["all"]["metrics"].items():
        if protocol_of(metric) in protocols:
            description = describe_metric(metric)
            tiles.append((description.label, description.format(value), description.unit))
    return [*tiles, ("per image", tables.seconds_per_image(method), "s")]
