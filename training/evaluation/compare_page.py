# ruff: noqa: E501 - one style rule a line reads better than one broken over four.
"""The comparison's page: one folder that is read in any browser, without a network."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from . import attention_maps, compare_report, report
from .compare_report import Column, Table
from .report_page import SCRIPT, STYLE, THEME_SCRIPT

OWN_STYLE = """
body > header { padding-bottom: 8px; }
main > section { margin-top: 44px; }
main > section > h2 { margin-bottom: 12px; font-size: 1.3rem; }
main > section > p, .notes { color: var(--muted); font-size: .9rem; max-width: 78ch; margin: 10px 0 0; padding: 0; list-style: none; }
.notes li { margin: 4px 0; }
.scroll { margin-top: 0; }
nav.contents { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 20px; }
nav.contents a { color: var(--accent); text-decoration: none; border: 1px solid var(--line); background: var(--card); border-radius: 18px; padding: 5px 14px; font-size: .92rem; }
nav.contents a:hover { background: var(--tint); }
table.words td { text-align: left; }
table.words td:is(:nth-child(3), :nth-child(5), :nth-child(6), :nth-child(7)) { text-align: right; }
table.words thead th { text-align: left; }
table.words thead th:is(:nth-child(3), :nth-child(5), :nth-child(6), :nth-child(7)) { text-align: right; }
td.paper { color: var(--muted); font-style: italic; }
thead th.paper { font-style: italic; }
tbody tr:first-child th[scope="row"] { font-weight: inherit; }
tbody tr:is(.first) th[scope="row"] { font-weight: 650; }
.wide { position: relative; overflow-x: auto; border: 1px solid var(--line); border-radius: 14px; background: var(--card); padding: 14px; }
.wide article { border: 0; padding: 0; background: none; border-radius: 0; content-visibility: visible; }
.wide article + article { margin-top: 10px; }
.wide .strip { grid-template-columns: repeat(var(--columns), minmax(104px, 1fr)); gap: 8px; }
.wide article:not(:last-of-type) figcaption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.wide figcaption b { overflow-wrap: anywhere; }
.wide header { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
#gallery { grid-template-columns: repeat(auto-fill, minmax(min(100%, 860px), 1fr)); }
#gallery .strip { grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); }
.maps { display: grid; gap: 20px; margin-top: 28px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 520px), 1fr)); }
.maps .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); }
main > section > p a { color: var(--accent); }
thead th:first-child { text-align: left; }
@media (max-width: 640px) {
  .controls { flex-wrap: wrap; }
  .bar { position: static; }
  #gallery .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title><!--title--></title>
<style>
<!--style-->
</style>
</head>
<body>
<header>
  <div><h1><!--title--></h1><p class="lede"><!--subtitle--></p>
  <nav class="contents" aria-label="Contents"><!--contents--></nav></div>
  <button class="theme" type="button" aria-label="Switch between light and dark">
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2"><circle cx="12" cy="12" r="9"/><path d="M12 3a9 9 0 0 1 0 18z" fill="currentColor"/></svg>
  </button>
</header>
<main>
<!--sections-->
<!--gallery--></main>
<footer>
  <h2>About these numbers</h2>
  <ul><!--notes--></ul>
  <code><!--command--></code>
</footer>
<script>
<!--script-->
</script>
</body>
</html>
"""

GALLERY = """\
  <section id="images"><h2>Images</h2>
  <div class="bar">
    <p><b><!--shown--></b> Press one to enlarge and compare.</p>
    <div class="controls">
      <label><select id="whose" aria-label="Whose figures"><!--whose--></select></label>
      <label><select aria-label="Sort by"><!--sorts--></select></label>
      <div class="segments" role="group" aria-label="Order">
        <button type="button" data-order="worst" aria-pressed="true">Worst first</button>
        <button type="button" data-order="best" aria-pressed="false">Best first</button>
      </div>
    </div>
  </div>
  <div id="gallery">
<!--cards-->
  </div></section>
<dialog aria-label="Enlarged image"><img alt=""><nav></nav><p></p></dialog>
"""
"""A page without photographs has none of this."""


def write(
    folder: Path,
    results: Mapping[str, Any],
    samples: Sequence[report.Sample],
    figures: Sequence[report.Sample],
    attentions: Sequence[attention_maps.Item] = (),
) -> None:
    """Writes `index.html` and the pictures it shows, `images/*.png`, into an existing folder.

    Args:
        folder: Where to; what it holds under these names is overwritten.
        results: The comparison's results.
        samples: The images of the gallery; without any the page has tables alone.
        figures: The images of the paper's figures' layout.
        attentions: Where the attentions looked, a method and image an item.
    """
    pictures = folder / "images"
    if samples:
        pictures.mkdir(exist_ok=True)
    for sample in {sample.number: sample for sample in (*samples, *figures)}.values():
        _write_pictures(pictures, results, sample)
    winners, *others = compare_report.tables(results)
    sections = [
        ("winners", winners.title, _table(winners, words=True)),
        *([("figure", "Side by side", _figure(results, figures))] if figures else []),
        ("metrics", "Every metric", _every_metric(results)),
        *((_identifier(table.title), table.title, _table(table)) for table in others),
    ]
    ablations = compare_report.ablation_columns(results) if figures else []
    if ablations:
        compare_report.draw_figure(ablations, figures).save(pictures / "ablations.png")
        sections.insert(2, ("ablations", "Ablations", _ablations(results, ablations, figures)))
    attention = ""
    if attentions:
        # The section has a heading and a style of its own.
        body = attention_maps.write_section(folder, attentions) + _drawn(attentions)
        attention = f'<div id="attention">{body}</div>'
    contents = [(key, heading) for key, heading, _ in sections]
    contents += [("attention", "Where the filling came from")] * bool(attention)
    contents += [("images", "Images")] * bool(samples)
    page = _replaced(
        PAGE,
        {
            "style": STYLE.replace("/*columns*/", "1") + OWN_STYLE,
            "script": SCRIPT if samples else THEME_SCRIPT,
            "title": html.escape(compare_report.title(results)),
            "subtitle": html.escape(report.subtitle(results)),
            "contents": "".join(
                f'<a href="#{key}">{html.escape(heading)}</a>' for key, heading in contents
            ),
            "sections": "\n".join(
                f'<section id="{key}"><h2>{html.escape(heading)}</h2>{body}</section>'
                for key, heading, body in sections
            )
            + attention,
            "gallery": _gallery(results, samples) if samples else "",
            "notes": "".join(f"<li>{html.escape(note)}</li>" for note in report.notes(results)),
            "command": html.escape(results["command"]),
        },
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _gallery(results: Mapping[str, Any], samples: Sequence[report.Sample]) -> str:
    ranking = report.ranking_metric(results)
    ordered = report.worst_and_best(results["images"], samples, ranking, len(samples))
    return _replaced(
        GALLERY,
        {
            "whose": _whose_options(results),
            "sorts": _sort_options(results, ranking),
            "shown": html.escape(_shown(results, samples, ranking)),
            "cards": "\n".join(_card(results, sample, ranking) for sample in ordered),
        },
    )


def _replaced(text: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part)
    return text


def _identifier(title: str) -> str:
    return report.slug(title.lower())


# --- tables ---------------------------------------------------------------------------------------


def _table(table: Table, words: bool = False) -> str:
    groups = ""
    if table.groups:
        cells = "".join(
            f'<th colspan="{width}" scope="colgroup">{html.escape(text)}</th>'
            if text
            else '<th rowspan="2" scope="col">Method</th>'
            for text, width in table.groups
        )
        groups = f"<tr>{cells}</tr>"
    heads = "".join(
        f'<th scope="col"{_classes(column, table)}>{html.escape(text)}</th>'
        for column, text in enumerate(table.head)
        if not (table.groups and column == 0)
    )
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(
            f"<td{_classes(column, table, (number, column) in table.best)}>{html.escape(cell)}</td>"
            for column, cell in enumerate(row[1:], start=1)
        )
        rows.append(f'<tr><th scope="row">{html.escape(row[0])}</th>{cells}</tr>')
    style = ' class="words"' if words else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}">'
        f"<table{style}><thead>{groups}<tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"</div>{_notes(table.notes)}"
    )


def _classes(column: int, table: Table, best: bool = False) -> str:
    names = ["best"] * best + ["paper"] * (column in table.published)
    if table.published and column == min(table.published):
        names.append("edge")
    return f' class="{" ".join(names)}"' if names else ""


def _notes(notes: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{html.escape(note)}</li>" for note in notes)}</ul>'


def _every_metric(results: Mapping[str, Any]) -> str:
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Every metric">'
        f"{report.html_tables(results)}</div>"
        '<ul class="notes"><li>s / image is the mean over all images in batches of '
        f"{results['batch_size']}; the table of cost has the time of one image alone.</li></ul>"
    )


# --- pictures -------------------------------------------------------------------------------------


def _write_pictures(folder: Path, results: Mapping[str, Any], sample: report.Sample) -> None:
    shown = {"input": report.show_hole(sample.image, sample.hole), "truth": sample.image}
    shown |= {m["name"]: sample.predictions[m["name"]] for m in results["methods"]}
    for key, picture in shown.items():
        Image.fromarray(picture).save(folder / _file(sample, key), optimize=True)


def _file(sample: report.Sample, key: str) -> str:
    return f"{sample.number:05d}-{report.slug(key)}.png"


def _picture(
    results: Mapping[str, Any], sample: report.Sample, key: str, label: str, value: str = ""
) -> str:
    height, width = sample.image.shape[:2]
    file = results["images"][sample.number]["file"]
    method = f' data-method="{html.escape(key)}"' if key not in ("input", "truth") else ""
    figures = f"<span>{html.escape(value)}</span>" if value else ""
    return (
        f'<figure{method}><button type="button" aria-label="Enlarge: {html.escape(label)}">'
        f'<img src="images/{_file(sample, key)}" alt="{html.escape(label)}: {html.escape(file)}" '
        f'width="{width}" height="{height}" loading="lazy" decoding="async"></button>'
        f"<figcaption><b>{html.escape(label)}</b>{figures}</figcaption></figure>"
    )


def _layout(
    results: Mapping[str, Any], columns: Sequence[Column], samples: Sequence[report.Sample]
) -> str:
    articles = []
    for sample in samples:
        file = results["images"][sample.number]["file"]
        pictures = "".join(
            _picture(results, sample, column.key, f"{compare_report.letter(i)} {column.caption}")
            for i, column in enumerate(columns)
        )
        articles.append(
            f"<article><header><h3>{html.escape(file)}</h3><p>{_hole(results, sample)}</p></header>"
            f'<div class="strip">{pictures}</div></article>'
        )
    return f'<div class="wide" style="--columns: {len(columns)}">{"".join(articles)}</div>'


def _hole(results: Mapping[str, Any], sample: report.Sample) -> str:
    return f"hole {results['images'][sample.number]['hole_fraction']:.0%}"


def _figure(results: Mapping[str, Any], samples: Sequence[report.Sample]) -> str:
    count = "The first photograph" if len(samples) == 1 else f"The first {len(samples)} photographs"
    return _layout(results, compare_report.figure_columns(results), samples) + (
        f"<p>{count} of the split, chosen by nobody, in the layout of the MUSICAL paper's Figures 3 "
        'to 5. <a href="figure.png">As one picture.</a></p>'
    )


def _drawn(items: Sequence[attention_maps.Item]) -> str:
    """Colour maps and arrows of all methods, to be seen beside each other."""
    articles = []
    for item in items:
        drawn = attention_maps.drawings(item)
        pictures = "".join(
            f'<figure><button type="button" aria-label="Enlarge: {html.escape(label)}">'
            f'<img src="{html.escape(file)}" alt="{html.escape(f"{label}, {item.title}")}" '
            'loading="lazy" decoding="async"></button>'
            f"<figcaption><b>{html.escape(label)}</b></figcaption></figure>"
            for label, file in drawn
        )
        words = "; ".join(
            f"{attention_maps.scale_label(name)}: {attention_maps.describe(each, item.sample)}"
            for name, each in item.maps.items()
        )
        articles.append(
            f"<article><header><h3>{html.escape(item.title)}</h3><p>{html.escape(words)}</p></header>"
            f'<div class="strip">{pictures}</div></article>'
        )
    return f'<div class="maps">{"".join(articles)}</div>'


def _ablations(
    results: Mapping[str, Any], columns: Sequence[Column], samples: Sequence[report.Sample]
) -> str:
    return _layout(results, columns, samples) + (
        "<p>The same photographs in the layout of the MUSICAL paper's Figure 6: what the method is "
        'without one of its parts. <a href="images/ablations.png">As one picture.</a></p>'
    )


def _card(results: Mapping[str, Any], sample: report.Sample, ranking: tuple[str, str]) -> str:
    row = results["images"][sample.number]
    _, metric = ranking
    description = report.describe_metric(metric)
    pictures = [_picture(results, sample, "input", "Input")]
    for method in results["methods"]:
        value = f"{description.format(row['metrics'][method['name']][metric])} {description.unit}"
        pictures.append(_picture(results, sample, method["name"], method["label"], value.strip()))
    pictures.append(_picture(results, sample, "truth", "Truth"))
    data = html.escape(json.dumps({**row["metrics"], "hole": row["hole_fraction"]}))
    return (
        f'<article data-values="{data}" data-file="{html.escape(row["file"])}">'
        f"<header><h3>{html.escape(row['file'])}</h3><p>{_hole(results, sample)}</p></header>"
        f'<div class="strip">{"".join(pictures)}</div></article>'
    )


# --- the gallery's menus --------------------------------------------------------------------------


def _whose_options(results: Mapping[str, Any]) -> str:
    options = ['<option value="spread">largest differences</option>']
    for number, method in enumerate(results["methods"]):
        selected = " selected" if number == 0 else ""
        options.append(
            f'<option value="{html.escape(method["name"])}"{selected}>'
            f"{html.escape(method['label'])}</option>"
        )
    return "".join(options)


def _sort_options(results: Mapping[str, Any], ranking: tuple[str, str]) -> str:
    options = []
    for metric in report.columns_of(results):
        description = report.describe_metric(metric)
        if not description.better:
            continue
        selected = " selected" if metric == ranking[1] else ""
        options.append(
            f'<option value="{html.escape(metric)}" data-better="{description.better}" '
            f'data-decimals="{description.decimals}" data-unit="{html.escape(description.unit)}"'
            f"{selected}>{html.escape(f'{report.protocol_of(metric)}: {description.label}')}</option>"
        )
    options.append('<option value="hole" data-better="lower">hole size</option>')
    return "".join(options)


def _shown(
    results: Mapping[str, Any], samples: Sequence[report.Sample], ranking: tuple[str, str]
) -> str:
    count, label = results["count"], report.describe_metric(ranking[1]).label
    if len(samples) >= count:
        return f"All {count} images."
    first = results["methods"][0]["label"]
    return f"The worst and the best by {label} of {first}: {len(samples)} of {count} images."
