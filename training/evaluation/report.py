"""What an evaluation shows: averages, a Markdown table, a contact sheet, a page to leaf through.

Everything here is a function of the results (the dictionary that becomes `results.json`, see
`training.evaluate`) and of the `Sample`s kept for showing. Nothing is measured here.

The page and its pictures are files beside each other, not one file: pictures are PNG, since JPEG
would add its own damage to what is being judged, and that would make one file of 30 MB or more.
"""

import html
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import attention_maps
from .report_page import PAGE, SCRIPT, STYLE

if TYPE_CHECKING:
    from musical_tf.layers.attention_maps import AttentionMap


@dataclass(frozen=True)
class Metric:
    """How a metric is written.

    Args:
        label: What a reader sees.
        unit: Behind a single value; "" for a pure number.
        decimals: Digits after the point.
        better: "higher", "lower", or "" where neither is.
    """

    label: str
    unit: str
    decimals: int
    better: str

    def format(self, value: float | None) -> str:
        """The value without its unit, "–" where there is none."""
        return "–" if value is None else f"{value:.{self.decimals}f}"


METRICS = {
    "psnr": Metric("PSNR", "dB", 2, "higher"),
    "ssim": Metric("SSIM", "", 4, "higher"),
    "l1_percent": Metric("l1", "%", 3, "lower"),
    "l2_percent": Metric("l2", "%", 3, "lower"),
    "tv_percent": Metric("TV", "%", 2, ""),
    "alex": Metric("LPIPS", "", 4, "lower"),
}
"""By the part of a metric's name that follows its protocol's."""

BUCKETS = ("0-10%", "10-20%", "20-30%", "30-40%", "40-50%", "50-60%", "60-100%")
"""Hole sizes, the share of the image that is missing in steps of ten, lower end included."""


@dataclass
class Sample:
    """One image kept for showing.

    Args:
        number: Position in the results' `images`.
        image: `(H, W, 3)` uint8, the truth.
        hole: `(H, W)` bool, True = missing.
        predictions: Method name -> `(H, W, 3)` uint8, composited.
        attention: Scale -> map of this image alone, of the first method; empty where not shown.
    """

    number: int
    image: np.ndarray
    hole: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    attention: dict[str, "AttentionMap"] = field(default_factory=dict)


def describe_metric(name: str) -> Metric:
    """How `protocol/metric` is written; one that `METRICS` does not hold goes by its own name."""
    metric = name.partition("/")[2]
    return METRICS.get(metric, Metric(metric, "", 4, ""))


def hole_bucket(fraction: float) -> str:
    """The bucket of a hole that covers `fraction` (0 to 1) of the image.

    Raises:
        ValueError: Outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"hole fraction: expected 0 to 1, got {fraction}")
    # Rounded first: 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996, by way of getting there.
    return BUCKETS[min(math.floor(round(fraction * 10, 9)), len(BUCKETS) - 1)]


def aggregate(images: Sequence[Mapping[str, Any]], method: str) -> dict[str, dict[str, Any]]:
    """Averages of one method over all images and over each hole size that occurs.

    Args:
        images: Rows of the results: each with "bucket" and "metrics", a mapping method ->
            `protocol/metric` -> value or None. At least one.
        method: Method name.

    Returns:
        "all" and every bucket that occurs, by size -> {"count", "metrics": {metric: mean},
        "undefined": {metric: count}}. An image whose value is None (an infinite PSNR, because the
        result equals the truth) is left out of that mean and counted under "undefined"; a mean of
        nothing is None.
    """
    groups = {"all": list(images)}
    for bucket in BUCKETS:
        rows = [row for row in images if row["bucket"] == bucket]
        if rows:
            groups[bucket] = rows
    return {name: _aggregate_group(rows, method) for name, rows in groups.items()}


def _aggregate_group(rows: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    means: dict[str, float | None] = {}
    undefined: dict[str, int] = {}
    for metric in rows[0]["metrics"][method]:
        column = [row["metrics"][method][metric] for row in rows]
        defined = [value for value in column if value is not None]
        means[metric] = statistics.fmean(defined) if defined else None
        if len(defined) < len(column):
            undefined[metric] = len(column) - len(defined)
    return {"count": len(rows), "metrics": means, "undefined": undefined}


def ranking_metric(results: Mapping[str, Any]) -> tuple[str, str]:
    """Method and metric that "worst first" means; see `first_ranked`."""
    return first_ranked(results["methods"][0]["name"], results["images"][0])


def first_ranked(method: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """The method and its first metric that has a better and a worse.

    Raises:
        ValueError: If none has.
    """
    for metric in row["metrics"][method]:
        if describe_metric(metric).better:
            return method, metric
    raise ValueError(f"no metric to rank by among {', '.join(row['metrics'][method])}")


def worst_and_best(
    images: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    ranking: tuple[str, str],
    count: int,
) -> list[Sample]:
    """The `count` samples to show, worst first: all, or the worst and the best half of them.

    Args:
        images: Rows of the results, which `Sample.number` points into.
        samples: What to choose from.
        ranking: Method and metric.
        count: Int >= 2.
    """
    ordered = sorted(samples, key=lambda s: (-badness(images[s.number], *ranking), s.number))
    if len(ordered) <= count:
        return ordered
    worst = count - count // 2
    return ordered[:worst] + ordered[-(count // 2) :]


def badness(row: Mapping[str, Any], method: str, metric: str) -> float:
    """A number that is larger for a worse result; an undefined value counts as perfect."""
    value = row["metrics"][method][metric]
    if value is None:
        return -math.inf
    return -value if describe_metric(metric).better == "higher" else value


def markdown(results: Mapping[str, Any]) -> str:
    """The results as a Markdown document: one table over all images, one a hole size, and a footer.

    Args:
        results: The evaluation's results.

    Returns:
        Text that ends with a newline.
    """
    lines = [f"# {_title(results)}", "", subtitle(results), ""]
    first_column, groups = table_groups(results)
    for heading, rows in groups:
        lines += [f"## {heading}", ""] if heading else []
        lines += markdown_table(results, first_column, rows)
        lines.append("")
    lines += [f"- {note}" for note in notes(results)]
    lines += [f"- Command: `{results['command']}`"]
    return "\n".join(lines) + "\n"


def markdown_table(
    results: Mapping[str, Any], first_column: str, rows: Sequence["_TableRow"]
) -> list[str]:
    """One group of `table_groups` as the lines of a Markdown table."""
    columns = columns_of(results)
    head = [first_column, *(f"{protocol_of(metric)}: {column_label(metric)}" for metric in columns)]
    lines = [
        "| " + " | ".join([*head, "s / image"]) + " |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]
    for row in rows:
        best = _best(results, row.bucket)
        cells = [row.label.replace("|", "\\|")]
        for metric in columns:
            text = describe_metric(metric).format(_mean(row.method, row.bucket, metric))
            cells.append(f"**{text}**" if row.method["name"] in best[metric] else text)
        lines.append("| " + " | ".join([*cells, row.seconds()]) + " |")
    return lines


def contact_sheet(
    results: Mapping[str, Any], samples: Sequence[Sample], rows: int = 4, cell: int = 256
) -> Image.Image:
    """The worst and the best results as one picture: input, result, each baseline, truth.

    Args:
        results: The evaluation's results.
        samples: At least one.
        rows: Images a block, worst and best each. With fewer than twice as many samples, one
            block shows all of them, worst first.
        cell: Longest side of a picture on the sheet, pixels. Pictures under half of it are
            enlarged by a whole factor.

    Returns:
        An RGB image.

    Raises:
        ValueError: Without samples.
    """
    if not samples:
        raise ValueError("contact sheet: expected at least one image, got none")
    ranking = ranking_metric(results)
    label = describe_metric(ranking[1]).label
    ordered = worst_and_best(results["images"], samples, ranking, len(samples))
    if len(ordered) >= 2 * rows:
        groups = [
            (f"Worst by {label}", ordered[:rows]),
            (f"Best by {label}", ordered[::-1][:rows]),
        ]
    else:
        groups = [(f"Worst first, by {label}", ordered[: 2 * rows])]
    blocks = [_sheet_block(results, title, group, ranking, cell) for title, group in groups]
    # Two narrow blocks stand beside each other, two wide ones above each other.
    beside = len(results["methods"]) + 2 <= 4
    gap, margin = 40, 32
    if beside:
        width = sum(block.width for block in blocks) + gap * (len(blocks) - 1)
        height = max(block.height for block in blocks)
    else:
        width = max(block.width for block in blocks)
        height = sum(block.height for block in blocks) + gap * (len(blocks) - 1)
    title_font, small_font = ImageFont.load_default(26), ImageFont.load_default(15)
    title = fit_text(_title(results), title_font, width)
    # Pillow's own font has no multiplication sign.
    below = fit_text(subtitle(results).replace("×", "x"), small_font, width)
    header = 84
    sheet = Image.new("RGB", (width + 2 * margin, height + header + 2 * margin), SHEET_PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin - 6), title, SHEET_INK, title_font)
    draw.text((margin, margin + 32), below, SHEET_MUTED, small_font)
    x, y = margin, margin + header
    for block in blocks:
        sheet.paste(block, (x, y))
        if beside:
            x += block.width + gap
        else:
            y += block.height + gap
    return sheet


SHEET_PAPER, SHEET_INK, SHEET_MUTED = (250, 249, 247), (28, 27, 26), (112, 107, 101)


def _sheet_block(
    results: Mapping[str, Any],
    title: str,
    samples: Sequence[Sample],
    ranking: tuple[str, str],
    cell: int,
) -> Image.Image:
    methods = results["methods"]
    _, metric = ranking
    description = describe_metric(metric)
    columns = ["Input", *(method["label"] for method in methods), "Truth"]
    pictures = [
        [
            fit_cell(picture, cell)
            for picture in (show_hole(s.image, s.hole), *_results(s, methods), s.image)
        ]
        for s in samples
    ]
    gap, header, caption = 8, 52, 30
    widths = [max(row[i].width for row in pictures) for i in range(len(columns))]
    heights = [max(picture.height for picture in row) for row in pictures]
    block = Image.new(
        "RGB",
        (sum(widths) + gap * (len(columns) - 1), header + sum(heights) + caption * len(samples)),
        SHEET_PAPER,
    )
    draw = ImageDraw.Draw(block)
    heading, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((0, 0), fit_text(title, heading, block.width), SHEET_INK, heading)
    y = header
    for row_number, (sample, row) in enumerate(zip(samples, pictures, strict=True)):
        metrics = results["images"][sample.number]["metrics"]
        captions = [Path(results["images"][sample.number]["file"]).name]
        for method in methods:
            value = metrics[method["name"]][metric]
            captions.append(f"{description.format(value)} {description.unit}".strip())
        captions.append("")
        x = 0
        for picture, width, column, text in zip(row, widths, columns, captions, strict=True):
            if row_number == 0:
                draw.text((x, header - 22), fit_text(column, small, width), SHEET_MUTED, small)
            block.paste(picture, (x, y))
            draw.text((x, y + picture.height + 4), fit_text(text, small, width), SHEET_MUTED, small)
            x += width + gap
        y += heights[row_number] + caption
    return block


def _results(sample: Sample, methods: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
    return [sample.predictions[method["name"]] for method in methods]


def fit_cell(picture: np.ndarray, longest: int) -> Image.Image:
    """Shrinks to the cell; enlarges what is under half of it by whole pixels, without smoothing."""
    image = Image.fromarray(picture)
    scale = longest / max(image.size)
    if scale >= 2:
        factor = int(scale)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if scale >= 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS)


def fit_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Shortens text until it is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…" if text else ""


def show_hole(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The image with its hole hatched, so that it shows on a white wall and on a night sky alike.

    Args:
        image: `(H, W, 3)` uint8.
        hole: `(H, W)` bool, True = missing.

    Returns:
        `(H, W, 3)` uint8.
    """
    rows, columns = np.indices(hole.shape)
    hatch = np.where((rows + columns) % 8 < 2, np.uint8(178), np.uint8(226))
    return np.where(hole[..., None], hatch[..., None], image)


def write_page(folder: Path, results: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Writes `index.html` and the pictures it shows, `images/*.png`, into an existing folder.

    Args:
        folder: Where to; what it holds under these names is overwritten.
        results: The evaluation's results.
        samples: The images to show.
    """
    pictures = folder / "images"
    pictures.mkdir(exist_ok=True)
    ranking = ranking_metric(results)
    ordered = worst_and_best(results["images"], samples, ranking, len(samples))
    items = [_attention_item(results, sample) for sample in ordered if sample.attention]
    attention = attention_maps.write_section(folder, items) if items else ""
    cards = [_write_card(pictures, results, sample, ranking) for sample in ordered]
    page = PAGE
    for name, text in {
        "style": STYLE,
        "script": SCRIPT,
        "title": html.escape(_title(results)),
        "subtitle": html.escape(subtitle(results)),
        "tiles": _tiles(results),
        "tables": html_tables(results),
        "sorts": _sort_options(results, ranking),
        "shown": html.escape(_shown(results, samples, ranking)),
        "columns": str(len(results["methods"]) + 2),
        "cards": "\n".join(cards),
        "attention": attention,
        "notes": "".join(f"<li>{html.escape(note)}</li>" for note in notes(results)),
        "command": html.escape(results["command"]),
    }.items():
        page = page.replace(f"<!--{name}-->", text).replace(f"/*{name}*/", text)
    (folder / "index.html").write_text(page, encoding="utf-8")


def _attention_item(results: Mapping[str, Any], sample: Sample) -> attention_maps.Item:
    return attention_maps.Item(
        title=results["images"][sample.number]["file"],
        stem=f"{sample.number:05d}",
        image=sample.image,
        result=sample.predictions[results["methods"][0]["name"]],
        maps=sample.attention,
    )


def _write_card(
    folder: Path, results: Mapping[str, Any], sample: Sample, ranking: tuple[str, str]
) -> str:
    row = results["images"][sample.number]
    first = results["methods"][0]
    _, metric = ranking
    description = describe_metric(metric)
    pictures = [("input", "Input", show_hole(sample.image, sample.hole), "")]
    for method in results["methods"]:
        value = row["metrics"][method["name"]][metric]
        # With one method its figure stands in the card's head already.
        several = len(results["methods"]) > 1
        text = f"{description.format(value)} {description.unit}".strip() if several else ""
        pictures.append((method["name"], method["label"], sample.predictions[method["name"]], text))
    pictures.append(("truth", "Truth", sample.image, ""))

    figures = []
    for key, label, picture, text in pictures:
        name = f"{sample.number:05d}-{slug(key)}.png"
        Image.fromarray(picture).save(folder / name, optimize=True)
        height, width = picture.shape[:2]
        value = f"<span>{html.escape(text)}</span>" if text else ""
        figures.append(
            f'<figure><button type="button" aria-label="Enlarge: {html.escape(label)}">'
            f'<img src="images/{name}" alt="{html.escape(label)}: {html.escape(row["file"])}" '
            f'width="{width}" height="{height}" loading="lazy" decoding="async"></button>'
            f"<figcaption><b>{html.escape(label)}</b>{value}</figcaption></figure>"
        )
    strips = [f'<div class="strip">{"".join(figures)}</div>']
    if sample.attention:
        drawn = attention_maps.drawings(_attention_item(results, sample))
        figures = [
            f'<figure><button type="button" aria-label="Enlarge: {html.escape(label)}">'
            f'<img src="{html.escape(file)}" alt="{html.escape(label)}: '
            f'{html.escape(row["file"])}" loading="lazy" decoding="async"></button>'
            f"<figcaption><b>{html.escape(label)}</b></figcaption></figure>"
            for label, file in drawn
        ]
        strips.append(f'<div class="strip drawn" style="--columns:3">{"".join(figures)}</div>')
    own = row["metrics"][first["name"]]
    data = html.escape(json.dumps({**own, "hole": row["hole_fraction"]}))
    facts = [
        f"{describe_metric(name).label} {describe_metric(name).format(value)}"
        for name, value in own.items()
        if protocol_of(name) == protocol_of(metric)
    ]
    facts.append(f"hole {row['hole_fraction']:.0%}")
    return (
        f'<article data-values="{data}" data-file="{html.escape(row["file"])}">'
        f"<header><h3>{html.escape(row['file'])}</h3>"
        f"<p>{html.escape(' · '.join(facts))}</p></header>"
        f"{''.join(strips)}</article>"
    )


def slug(text: str) -> str:
    """The text as a part of a file's name."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text)


def _tiles(results: Mapping[str, Any]) -> str:
    method = results["methods"][0]
    if method["kind"] == "baseline":
        return ""
    protocol = protocol_of(ranking_metric(results)[1])
    tiles = []
    for metric, value in method["aggregates"]["all"]["metrics"].items():
        if protocol_of(metric) in (protocol, "lpips"):
            description = describe_metric(metric)
            tiles.append((description.label, description.format(value), description.unit))
    tiles.append(("per image", _seconds(method), "s"))
    items = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}"
        f"{f'<small>{html.escape(unit)}</small>' if unit else ''}</dd></div>"
        for label, value, unit in tiles
    )
    return f'<dl class="tiles">{items}</dl>'


def html_tables(results: Mapping[str, Any]) -> str:
    """The groups of `table_groups` as one HTML table."""
    columns = columns_of(results)
    protocols: dict[str, int] = {}
    for metric in columns:
        protocols[protocol_of(metric)] = protocols.get(protocol_of(metric), 0) + 1
    groups = "".join(
        f'<th colspan="{count}" scope="colgroup">{html.escape(protocol)}</th>'
        for protocol, count in protocols.items()
    )
    # A line between protocols: the first column of each has it.
    edges = {
        metric
        for previous, metric in zip([None, *columns], columns, strict=False)
        if previous is None or protocol_of(previous) != protocol_of(metric)
    }
    heads = [
        f'<th{_classes(edge=metric in edges)} scope="col">{html.escape(column_label(metric))}</th>'
        for metric in columns
    ]
    bodies = []
    first_column, groups_of_rows = table_groups(results)
    for heading, table_rows in groups_of_rows:
        rows = []
        if heading:
            rows.append(
                f'<tr class="bucket"><th colspan="{len(columns) + 2}" scope="rowgroup">'
                f"<span>{html.escape(heading)}</span></th></tr>"
            )
        for row in table_rows:
            best = _best(results, row.bucket)
            cells = []
            for metric in columns:
                text = describe_metric(metric).format(_mean(row.method, row.bucket, metric))
                classes = _classes(edge=metric in edges, best=row.method["name"] in best[metric])
                cells.append(f"<td{classes}>{text}</td>")
            rows.append(
                f'<tr><th scope="row">{html.escape(row.label)}</th>{"".join(cells)}'
                f'<td class="edge">{row.seconds()}</td></tr>'
            )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return (
        f'<table><thead><tr><th rowspan="2" scope="col">{first_column}</th>{groups}'
        f'<th rowspan="2" class="edge" scope="col">s / image</th></tr>'
        f"<tr>{''.join(heads)}</tr></thead>{''.join(bodies)}</table>"
    )


def _classes(**wanted: bool) -> str:
    names = " ".join(name for name, present in wanted.items() if present)
    return f' class="{names}"' if names else ""


def _sort_options(results: Mapping[str, Any], ranking: tuple[str, str]) -> str:
    options = []
    for metric in columns_of(results):
        description = describe_metric(metric)
        if not description.better:
            continue
        selected = " selected" if metric == ranking[1] else ""
        protocol = protocol_of(metric)
        plain = len(results["protocols"]) == 1 or protocol == "lpips"
        label = description.label if plain else f"{description.label} ({protocol})"
        options.append(
            f'<option value="{html.escape(metric)}" data-better="{description.better}"{selected}>'
            f"{html.escape(label)}</option>"
        )
    options.append('<option value="hole" data-better="lower">hole size</option>')
    return "".join(options)


def _shown(results: Mapping[str, Any], samples: Sequence[Sample], ranking: tuple[str, str]) -> str:
    count = len(results["images"])
    label = describe_metric(ranking[1]).label
    first = results["methods"][0]
    # With a model on the page it is clear whose figures order it.
    whose = f" of {first['label']}" if first["kind"] == "baseline" else ""
    if len(samples) >= count:
        return f"All {count} images{f', ranked by {label}{whose}' if whose else ''}."
    return f"The worst and the best by {label}{whose}: {len(samples)} of {count} images."


def _title(results: Mapping[str, Any]) -> str:
    first = results["methods"][0]
    subject = "Baselines" if first["kind"] == "baseline" else first["label"]
    return f"{subject} on {results['dataset']}"


def subtitle(results: Mapping[str, Any]) -> str:
    """How many images of which split and size, and the holes."""
    size = results["image_size"]
    count = results["count"]
    images = "1 image" if count == 1 else f"{count:,} images"
    text = f"{images}, split {results['split']}, {size} × {size} pixels, mask {results['mask']}"
    sizes = [bucket for bucket in results["methods"][0]["aggregates"] if bucket != "all"]
    fractions = {row["hole_fraction"] for row in results["images"]}
    if len(fractions) == 1:
        text += f" ({next(iter(fractions)):.0%} of the image)"
    elif len(sizes) == 1:
        text += f" ({sizes[0].replace('-', ' to ')} of the image)"
    return text


@dataclass(frozen=True)
class _TableRow:
    label: str
    method: Mapping[str, Any]
    bucket: str

    def seconds(self) -> str:
        """Seconds an image; they are not taken apart by hole size."""
        return _seconds(self.method) if self.bucket == "all" else ""


def table_groups(results: Mapping[str, Any]) -> tuple[str, list[tuple[str, list[_TableRow]]]]:
    """What the first column is, and the groups of rows with their headings.

    Several methods: a group a hole size. One method: one group, a row a hole size. Where all holes
    fall in one bucket it would only repeat the row of all.
    """
    methods = results["methods"]
    buckets = dict(methods[0]["aggregates"])
    if len(buckets) == 2:
        buckets = {"all": buckets["all"]}
    one_method = len(methods) == 1 and len(buckets) > 1
    headings = {}
    for bucket, group in buckets.items():
        images = "1 image" if group["count"] == 1 else f"{group['count']:,} images"
        name = "All" if bucket == "all" else bucket.replace("-", "–")
        # Under the heading "Hole size" the word would only widen the column.
        prefix = "" if one_method else "All holes" if bucket == "all" else f"Hole {name}"
        headings[bucket] = f"{prefix or name}, {images}"
    if one_method:
        rows = [_TableRow(heading, methods[0], bucket) for bucket, heading in headings.items()]
        return "Hole size", [("", rows)]
    groups = []
    for bucket, heading in headings.items():
        rows = [_TableRow(method["label"], method, bucket) for method in methods]
        groups.append((heading if len(buckets) > 1 else "", rows))
    return "Method", groups


def columns_of(results: Mapping[str, Any]) -> list[str]:
    """The metrics that were measured, `protocol/metric`."""
    return list(results["methods"][0]["aggregates"]["all"]["metrics"])


def protocol_of(metric: str) -> str:
    """The part of a metric's name before the slash."""
    return metric.partition("/")[0]


def column_label(metric: str) -> str:
    """A metric as a column's head: label, unit, and an arrow to where it is better."""
    description = describe_metric(metric)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(description.better, "")
    unit = f" {description.unit}" if description.unit else ""
    return f"{description.label}{unit}{arrow}"


def _mean(method: Mapping[str, Any], bucket: str, metric: str) -> float | None:
    return method["aggregates"][bucket]["metrics"][metric]


def _best(results: Mapping[str, Any], bucket: str) -> dict[str, set[str]]:
    """Metric -> the methods with the best mean; empty where there is nothing to compare."""
    best: dict[str, set[str]] = {}
    for metric in columns_of(results):
        better = describe_metric(metric).better
        means = {m["name"]: _mean(m, bucket, metric) for m in results["methods"]}
        known = {name: mean for name, mean in means.items() if mean is not None}
        best[metric] = set()
        if better and len(results["methods"]) > 1 and known:
            target = (max if better == "higher" else min)(known.values())
            best[metric] = {name for name, mean in known.items() if mean == target}
    return best


def _seconds(method: Mapping[str, Any]) -> str:
    return f"{method['seconds_per_image']:.3f}"


def notes(results: Mapping[str, Any]) -> list[str]:
    """The footer: what the numbers mean, what was left out, and where they come from."""
    lines = [f"{name}: {text}" for name, text in results["protocols"].items()]
    for method in results["methods"]:
        for metric, count in method["aggregates"]["all"]["undefined"].items():
            lines.append(
                f"{method['label']}: {protocol_of(metric)} {describe_metric(metric).label} is "
                f"infinite for {count} of {results['count']} images, whose result equals the "
                "truth; the mean leaves them out."
            )
    if results["split_note"]:
        lines.append(f"Split {results['split']}: {results['split_note']}")
    skipped = results["skipped"]
    if skipped:
        reasons = "; ".join(f"{path} ({reason})" for path, reason in skipped.items())
        count = "1 file was" if len(skipped) == 1 else f"{len(skipped)} files were"
        lines.append(f"{count} skipped: {reasons}")
    commit = results["commit"]
    made = f"Measured {results['created']} on {results['hardware']}"
    lines.append(f"{made}, commit {commit}." if commit else f"{made}.")
    return lines
