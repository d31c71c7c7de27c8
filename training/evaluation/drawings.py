"""Pictures side by side: the contact sheet, and figures in the layout of the papers'."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from . import published, tables
from .sample import Sample
from .statistics import describe_metric, ranking_metric, worst_and_best

PAPER, INK, MUTED = (250, 249, 247), (28, 27, 26), (112, 107, 101)


def fit_cell(picture: np.ndarray, longest: int) -> Image.Image:
    """Shrinks to the cell; enlarges what is under half of it by whole pixels, without smoothing."""
    image = Image.fromarray(picture)
    scale = longest / max(image.size)
    if scale >= 2:
        factor = int(scale)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def grid(
    rows: Sequence[Sequence[np.ndarray]],
    cell: int,
    heads: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    title: str = "",
    gap: int = 8,
) -> Image.Image:
    """Pictures in rows and columns on an RGB sheet.

    Args:
        rows: `(H, W, 3)` uint8 each; at least one row.
        cell: Longest side of a picture on the sheet, pixels; see `fit_cell`.
        heads: Text above each column.
        captions: Text below each picture, on at most two lines.
        title: Text above all.
        gap: Pixels between pictures.
    """
    pictures = [[fit_cell(picture, cell) for picture in row] for row in rows]
    widths = [max(picture.width for picture in column) for column in zip(*pictures, strict=True)]
    small, line = ImageFont.load_default(14), 20
    texts = [
        [_wrapped(text, small, width) for text, width in zip(row, widths, strict=True)]
        for row in captions
    ] or [[[]] * len(widths)] * len(rows)
    below = [max(len(lines) for lines in row) * line + 10 * any(row) for row in texts]
    above = (34 if title else 0) + (24 if heads else 0)
    heights = [max(picture.height for picture in row) for row in pictures]
    width = sum(widths) + gap * (len(widths) - 1)
    sheet = Image.new("RGB", (width, above + sum(heights) + sum(below) + gap * len(rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        heading = ImageFont.load_default(18)
        draw.text((0, 0), fit_text(title, heading, width), INK, heading)
    y = above
    for number, row in enumerate(pictures):
        x = 0
        for column, picture in enumerate(row):
            if heads and number == 0:
                head = fit_text(heads[column], small, widths[column])
                draw.text((x, above - 22), head, MUTED, small)
            sheet.paste(picture, (x, y))
            for index, text in enumerate(texts[number][column]):
                draw.text((x, y + picture.height + 4 + line * index), text, MUTED, small)
            x += widths[column] + gap
        y += heights[number] + below[number] + gap
    return sheet


def stacked(parts: Sequence[Image.Image], beside: bool = False, gap: int = 40) -> Image.Image:
    """Pictures beside or below each other on one sheet."""
    sizes = [(part.size if beside else part.size[::-1]) for part in parts]
    length = sum(size[0] for size in sizes) + gap * (len(parts) - 1)
    across = max(size[1] for size in sizes)
    sheet = Image.new("RGB", (length, across) if beside else (across, length), PAPER)
    at = 0
    for part, size in zip(parts, sizes, strict=True):
        sheet.paste(part, (at, 0) if beside else (0, at))
        at += size[0] + gap
    return sheet


def framed(picture: Image.Image, margin: int) -> Image.Image:
    """The picture with a margin around it."""
    return ImageOps.expand(picture, margin, PAPER)


def fit_text(text: str, font: Any, width: int) -> str:
    """Shortens text until it is at most `width` pixels wide."""
    shown = text
    while text and font.getlength(shown) > width:
        text = text[:-1]
        shown = f"{text.rstrip()}…"
    return shown if text else ""


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """At most two lines, each at most `width` pixels wide."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return [fit_text(line, font, width) for line in [*lines[:1], " ".join(lines[1:])] if line]


# --- the evaluation's contact sheet ---------------------------------------------------------------


def contact_sheet(
    results: Mapping[str, Any], samples: Sequence[Sample], rows: int = 4, cell: int = 256
) -> Image.Image:
    """The worst and the best results as one RGB picture: input, methods, truth.

    Each block has `rows` images. With fewer than twice as many samples, one block shows all of
    them, worst first.
    """
    if not samples:
        raise ValueError("contact sheet: expected at least one image, got none")
    ranking = ranking_metric(results)
    metric = describe_metric(ranking[1])
    methods = {method["name"]: method["label"] for method in results["methods"]}
    keys = {"input": "Input", **methods, "truth": "Truth"}

    def block(title: str, chosen: Sequence[Sample]) -> Image.Image:
        captions = []
        for sample in chosen:
            row = results["images"][sample.number]
            values = [metric.with_unit(row["metrics"][name][ranking[1]]) for name in methods]
            captions.append([Path(row["file"]).name, *values, ""])
        pictures = [[sample.picture(key) for key in keys] for sample in chosen]
        return grid(pictures, cell, list(keys.values()), captions, title)

    ordered = worst_and_best(results["images"], samples, ranking, len(samples))
    blocks = [block(f"Worst first, by {metric.label}", ordered[: 2 * rows])]
    if len(ordered) >= 2 * rows:
        blocks = [
            block(f"Worst by {metric.label}", ordered[:rows]),
            block(f"Best by {metric.label}", ordered[::-1][:rows]),
        ]
    # Two narrow blocks stand beside each other, two wide ones above each other.
    body = stacked(blocks, beside=len(keys) <= 4)
    head = Image.new("RGB", (body.width, 60), PAPER)
    draw = ImageDraw.Draw(head)
    # Pillow's own font has no multiplication sign.
    below = tables.subtitle(results).replace("×", "x")
    for text, size, y, color in ((tables.title(results), 26, 0, INK), (below, 15, 38, MUTED)):
        font = ImageFont.load_default(size)
        draw.text((0, y), fit_text(text, font, body.width), color, font)
    return framed(stacked([head, body], gap=24), 32)


# --- figures in the papers' layout ----------------------------------------------------------------

Columns = Mapping[str, str]
"""Key of `Sample.picture` -> caption."""


def figure_columns(results: Mapping[str, Any]) -> Columns:
    """The columns of the paper's Figures 3 to 5: input, CE, GLC, SN, the others, ours; then truth.

    Ablations have a figure of their own. Without a model the columns are the baselines.
    """
    whole = [method for method in results["methods"] if not method["ablation"]]
    shown = [method for method in whole if method["kind"] != "baseline"] or whole
    order = published.FIGURE_ORDER

    def place(method: Mapping[str, Any]) -> int:
        name = method["method"]
        return order.index(name) if name in order else len(order) + (name == "musical")

    methods = {method["name"]: method["label"] for method in sorted(shown, key=place)}
    return {"input": "Input", **methods, "truth": "Truth"}


def ablation_columns(results: Mapping[str, Any]) -> Columns:
    """The columns of the paper's Figure 6: input, ground truth, experiments 1 and 2, ours.

    Our own ablations stand between. Empty without an ablation.
    """
    names = published.ABLATIONS
    order = list(names)
    ablated = [method for method in results["methods"] if method["ablation"]]
    if not ablated:
        return {}
    ablated.sort(key=lambda m: order.index(m["ablation"]) if m["ablation"] in order else len(order))
    whole = [m for m in results["methods"] if not m["ablation"]]
    whole = [method for method in whole if method["method"] == ablated[0]["method"]]
    return {
        "input": "Input",
        "truth": "Ground truth",
        **{method["name"]: names.get(method["ablation"], method["label"]) for method in ablated},
        **{method["name"]: method["label"] for method in whole[:1]},
    }


def lettered(columns: Columns) -> dict[str, str]:
    """The captions with "(a)", "(b)" before them."""
    return {
        key: f"({chr(ord('a') + number)}) {caption}"
        for number, (key, caption) in enumerate(columns.items())
    }


def figure(columns: Columns, samples: Sequence[Sample], cell: int = 192) -> Image.Image:
    """A row a photograph, a column a method, captions below the last row."""
    pictures = [[sample.picture(key) for key in columns] for sample in samples]
    captions = [[""] * len(columns) for _ in samples]
    captions[-1] = list(lettered(columns).values())
    return framed(grid(pictures, cell, captions=captions, gap=6), 16)
