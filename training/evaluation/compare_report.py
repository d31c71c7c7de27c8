"""What a comparison says in words and tables: who wins, the papers' figures, cost, training.

Everything here is a function of the results, the dictionary that becomes `results.json` (see
`training.compare`). Tables are built once, as `Table`, and written as Markdown here and as HTML by
`training.evaluation.compare_page`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import published, report

CONFIDENCE = 1.96
"""Standard errors on each side of a mean difference that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Args:
        title: Heading.
        head: Column heads.
        rows: Cells as text, as many as heads; the first is the row's head.
        best: (row, column) of the cells that are the best of their column.
        published: Columns that hold a paper's figures.
        notes: Sentences below.
        groups: Optional heads over several columns: text and width.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    published: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = field(default=())


# --- who wins -------------------------------------------------------------------------------------


def verdicts(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Who wins by which metric, by how much, and whether the photographs can tell.

    Args:
        rows: One an image, see `report.aggregate`.
        methods: At least two, with "name" and "aggregates".

    Returns:
        One a metric that has a better and a worse, in the order of the protocols; one that is
        another by definition (l1, l2 and PSNR of `hole` and `deepfill`) is counted once:
        "metric"; "ranking", names from the best mean to the worst; "difference", by how much the
        first beats the second, mean over the images; "margin", half the width of its 95 %
        interval (normal approximation over the images), None for a single image; "clear", whether
        the interval leaves out zero; "wins", the share of images on which the first is better than
        the second. Images where either value is undefined are left out; with none left, the last
        four are None.
    """
    found = []
    seen = []
    for metric in methods[0]["aggregates"]["all"]["metrics"]:
        better = report.describe_metric(metric).better
        column = [[row["metrics"][m["name"]][metric] for m in methods] for row in rows]
        if not better or column in seen:
            continue
        seen.append(column)
        means = {m["name"]: m["aggregates"]["all"]["metrics"][metric] for m in methods}
        sign = 1.0 if better == "higher" else -1.0
        # Stable: of equal means the earlier method comes first.
        ranking = sorted(
            means, key=lambda name: -math.inf if means[name] is None else -sign * means[name]
        )
        found.append({"metric": metric, "ranking": ranking, **_paired(rows, metric, sign, ranking)})
    return found


def _paired(
    rows: Sequence[Mapping[str, Any]], metric: str, sign: float, ranking: Sequence[str]
) -> dict[str, Any]:
    gains = []
    for row in rows:
        first, second = (row["metrics"][name][metric] for name in ranking[:2])
        if first is not None and second is not None:
            gains.append(sign * (first - second))
    if not gains:
        return dict.fromkeys(("difference", "margin", "clear", "wins"))
    difference = statistics.fmean(gains)
    margin = None
    if len(gains) > 1:
        margin = CONFIDENCE * statistics.stdev(gains) / math.sqrt(len(gains))
    return {
        "difference": difference,
        "margin": margin,
        "clear": margin is not None and difference > margin,
        "wins": sum(gain > 0 for gain in gains) / len(gains),
    }


def winners_table(results: Mapping[str, Any]) -> Table:
    """Who wins, a row a metric."""
    labels = {method["name"]: method["label"] for method in results["methods"]}
    first = results["methods"][0]
    rows = []
    for verdict in results["verdicts"]:
        metric, ranking = verdict["metric"], verdict["ranking"]
        description = report.describe_metric(metric)
        best, second = (
            next(m for m in results["methods"] if m["name"] == name) for name in ranking[:2]
        )
        place = ranking.index(first["name"]) + 1
        rows.append(
            (
                f"{report.protocol_of(metric)}: {report.column_label(metric)}",
                labels[best["name"]],
                description.format(best["aggregates"]["all"]["metrics"][metric]),
                labels[second["name"]],
                _difference(verdict, description),
                "–" if verdict["wins"] is None else f"{verdict['wins']:.0%}",
                f"{place} of {len(ranking)}",
            )
        )
    return Table(
        "Who wins",
        (
            *("Metric", "Best", "Its mean", "Second", "Ahead by, ± 95 %"),
            *("Better on", f"Place of {first['label']}"),
        ),
        tuple(rows),
        notes=(
            "Ahead by: mean over the images of the best's figure against the second's on the same "
            "image. Where the interval holds zero, these photographs do not tell the two apart. "
            "Better on: the share of images. A metric that two protocols define alike stands once.",
            *_win_count(results),
        ),
    )


def _difference(verdict: Mapping[str, Any], description: report.Metric) -> str:
    if verdict["difference"] is None:
        return "–"
    decimals = description.decimals + 1
    text = f"{verdict['difference']:.{decimals}f}"
    if verdict["margin"] is None:
        return text
    text += f" ± {verdict['margin']:.{decimals}f}"
    return text if verdict["clear"] else f"{text} (a tie)"


def _win_count(results: Mapping[str, Any]) -> list[str]:
    first = results["methods"][0]
    names = [v["metric"] for v in results["verdicts"] if v["ranking"][0] == first["name"]]
    count = len(results["verdicts"])
    if len(names) == count:
        return [f"{first['label']} has the best mean by every one of {count} metrics."]
    winners = {verdict["ranking"][0] for verdict in results["verdicts"]}
    others = [m["label"] for m in results["methods"][1:] if m["name"] in winners]
    by = f"{len(names)} of {count} metrics; by the rest" if names else f"none of {count} metrics;"
    return [f"{first['label']} has the best mean by {by} it is {' or '.join(others)}."]


# --- the papers' tables ---------------------------------------------------------------------------


def paper_tables(results: Mapping[str, Any]) -> list[Table]:
    """The MUSICAL paper's table of this dataset and DeepFill's, measured figures beside theirs.

    A dataset of which the paper has no table is shown in its layout, without figures of the paper.
    A table whose protocol was not measured is left out.
    """
    tables = []
    musical = published.musical_table(results["dataset"])
    layout = musical or published.MUSICAL_TABLES[0]
    if set(layout.metrics) <= set(report.columns_of(results)):
        title = musical.source if musical else "Layout of Wang et al., IJCAI 2019, Tables 1 to 3"
        tables.append(_paper_table(results, layout, musical, title))
    deepfill = published.DEEPFILL_TABLE
    if set(deepfill.metrics) <= set(report.columns_of(results)):
        tables.append(_paper_table(results, deepfill, deepfill, deepfill.source))
    return tables


def _paper_table(
    results: Mapping[str, Any],
    layout: published.PublishedTable,
    paper: published.PublishedTable | None,
    title: str,
) -> Table:
    metrics = layout.metrics
    heads = [report.column_label(metric) for metric in metrics]
    rows, measured = [], []
    used = set()
    for method in results["methods"]:
        means = [method["aggregates"]["all"]["metrics"][metric] for metric in metrics]
        measured.append(means)
        cells = [method["label"], *_formatted(metrics, means)]
        if paper:
            # An ablation is not the paper's method.
            figures = None if method["ablation"] else paper.figures(method["method"])
            used |= {method["method"]} if figures else set()
            cells += figures or ("–",) * len(metrics)
        rows.append(tuple(cells))
    for label, name, values in paper.rows if paper else ():
        if name not in used:
            rows.append((f"{label} (paper)", *("–",) * len(metrics), *values))
    notes = []
    if paper:
        differences = paper.differences(results)
        if differences:
            notes.append(
                f"The paper's figures are of other data and not comparable: "
                f"{'; '.join(differences)}. Training differs too."
            )
        else:
            notes.append(
                "The paper's figures are of the same dataset, size and hole by its description; "
                "the training, the photographs' files and the split may differ."
            )
        notes += paper.notes
    count = len(metrics)
    return Table(
        title,
        ("Method", *heads, *(heads if paper else ())),
        tuple(rows),
        best=_best_cells(metrics, measured),
        published=frozenset(range(1 + count, 1 + 2 * count)) if paper else frozenset(),
        notes=tuple(notes),
        groups=(("", 1), ("measured here", count), ("the paper's own", count)) if paper else (),
    )


def _formatted(metrics: Sequence[str], values: Sequence[float | None]) -> list[str]:
    return [report.describe_metric(m).format(v) for m, v in zip(metrics, values, strict=True)]


def _best_cells(
    metrics: Sequence[str], measured: Sequence[Sequence[float | None]]
) -> frozenset[tuple[int, int]]:
    best = set()
    for column, metric in enumerate(metrics):
        better = report.describe_metric(metric).better
        known = [values[column] for values in measured if values[column] is not None]
        if better and known:
            target = (max if better == "higher" else min)(known)
            best |= {
                (row, column + 1) for row, values in enumerate(measured) if values[column] == target
            }
    return frozenset(best)


# --- cost and training ----------------------------------------------------------------------------


def cost_table(results: Mapping[str, Any]) -> Table:
    """Parameters, multiply-adds, and milliseconds of one photograph alone."""
    first = results["methods"][0]["label"]
    rows = []
    for method in results["methods"]:
        cost = method["cost"]
        adds = cost["multiply_adds"]
        rows.append(
            (
                method["label"],
                "–" if cost["parameters"] is None else f"{cost['parameters'] / 1e6:.2f}",
                "–" if adds is None else f"{adds / 1e9:.3f}",
                _milliseconds(cost["seconds"]["median"]),
                f"{cost['times_the_first']:.2f}",
            )
        )
    size = results["image_size"]
    return Table(
        "Cost",
        (
            *("Method", "Parameters, million", "Multiply-adds, thousand million"),
            *("ms an image", f"Time / {first}"),
        ),
        tuple(rows),
        notes=(
            "Parameters are the generator's. Multiply-adds are those of its convolutions and "
            "matrix products (one multiplication with its addition is one; twice the number is "
            f"what others call FLOPs), for one photograph of {size} × {size} pixels with the "
            "hole of the first one: attention costs more where more is missing.",
            f"ms an image: median of {results['rounds']} calls with the first photograph alone, "
            "every method once a round, in one process with the same threads. Another machine "
            "gives other milliseconds; the ratio is what carries over.",
        ),
    )


def _milliseconds(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def training_table(results: Mapping[str, Any]) -> Table | None:
    """How each run was trained; None without runs that say so."""
    runs = [method for method in results["methods"] if method["training"]]
    if not runs:
        return None
    rows = []
    for method in runs:
        training, recipe = method["training"], method["training"]["recipe"]
        rows.append(
            (
                method["label"],
                _steps(training),
                str(recipe.get("batch_size", "–")),
                _minutes(training["cpu_minutes"]),
                _minutes(training["minutes"]),
                str(recipe.get("seed", "–")),
                str(recipe.get("precision", "–")),
                str(recipe.get("mask", "–")),
                str(recipe.get("image_size", "–")),
            )
        )
    return Table(
        "Training",
        (
            *("Method", "Steps", "Batch", "CPU minutes", "Minutes", "Seed", "Precision"),
            *("Holes", "Pixels"),
        ),
        tuple(rows),
        notes=tuple(_fairness(results, runs)),
    )


def _steps(training: Mapping[str, Any]) -> str:
    done, planned = training["steps"], training["recipe"].get("steps")
    text = "–" if done is None else f"{done:,}"
    if planned is not None and done is not None and done < planned:
        text += f" of {planned:,}"
    return text


def _minutes(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _fairness(results: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know before they call one method better than another."""
    notes = [
        "CPU minutes are those of all cores together; a dash means that the run keeps no record."
    ]
    known = [m["training"]["cpu_minutes"] for m in runs]
    if len(runs) > 1 and None not in known:
        least, most = min(known), max(known)
        if most > 1.1 * least:
            notes.append(
                f"The runs were not trained equally long: {least:.1f} to {most:.1f} CPU minutes."
            )
        else:
            notes.append(f"Equal budgets: {least:.1f} to {most:.1f} CPU minutes.")
    unfinished = [
        m["label"]
        for m in runs
        if m["training"]["recipe"].get("steps") is not None
        and m["training"]["steps"] is not None
        and m["training"]["steps"] < m["training"]["recipe"]["steps"]
    ]
    if unfinished:
        notes.append(
            f"Weights from before the planned end of training: {', '.join(unfinished)}. A rate "
            "that was to decay to zero had not."
        )
    for key, words in (("mask", "holes"), ("image_size", "pixels"), ("dataset", "dataset")):
        other: dict[Any, list[str]] = {}
        for method in runs:
            value = method["training"]["recipe"].get(key)
            if value not in (None, results[key]):
                other.setdefault(value, []).append(method["label"])
        for value, labels in other.items():
            notes.append(
                f"{', '.join(labels)} {'was' if len(labels) == 1 else 'were'} trained on other "
                f"{words} than these: {value} there, {results[key]} here."
            )
    if len({m["training"]["recipe"].get("seed") for m in runs}) == 1:
        notes.append("One seed each: what another seed would give is not measured here.")
    return notes


# --- the document ---------------------------------------------------------------------------------


def title(results: Mapping[str, Any]) -> str:
    """The comparison's name."""
    count = len(results["methods"])
    return f"{count} methods on {results['dataset']}"


def tables(results: Mapping[str, Any]) -> list[Table]:
    """All tables but that of every metric and hole size, which is `report.table_groups`'."""
    training = training_table(results)
    return [
        winners_table(results),
        *paper_tables(results),
        cost_table(results),
        *([training] if training else []),
    ]


def markdown(results: Mapping[str, Any]) -> str:
    """The results as a Markdown document that ends with a newline."""
    lines = [f"# {title(results)}", "", report.subtitle(results), ""]
    winners, *others = tables(results)
    lines += _markdown(winners)
    first_column, groups = report.table_groups(results)
    lines += ["## Every metric", ""]
    for heading, rows in groups:
        lines += [f"### {heading}", ""] if heading else []
        lines += [*report.markdown_table(results, first_column, rows), ""]
    for table in others:
        lines += _markdown(table)
    lines += [f"- {note}" for note in report.notes(results)]
    lines += [f"- Command: `{results['command']}`"]
    return "\n".join(lines) + "\n"


def _markdown(table: Table) -> list[str]:
    head = list(table.head)
    for column in table.published:
        head[column] += " (paper)"
    lines = [f"## {table.title}", "", _markdown_row(head), "|---|" + "---:|" * (len(head) - 1)]
    for number, row in enumerate(table.rows):
        lines.append(
            _markdown_row(
                [
                    f"**{cell}**" if (number, column) in table.best else cell
                    for column, cell in enumerate(row)
                ]
            )
        )
    return [*lines, "", *(f"{note}\n" for note in table.notes)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- figures --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column of a figure.

    Args:
        key: "input", "truth" or a method's name.
        caption: What stands below it.
    """

    key: str
    caption: str

    def picture(self, sample: report.Sample) -> np.ndarray:
        """`(H, W, 3)` uint8."""
        if self.key == "input":
            return report.show_hole(sample.image, sample.hole)
        return sample.image if self.key == "truth" else sample.predictions[self.key]


def figure_columns(results: Mapping[str, Any]) -> list[Column]:
    """The columns of the paper's Figures 3 to 5: input, CE, GLC, SN, the others, ours; then truth.

    Ablations have a figure of their own. Without a model the columns are the baselines.
    """
    models = [m for m in results["methods"] if m["kind"] != "baseline" and not m["ablation"]]
    shown = models or [m for m in results["methods"] if not m["ablation"]]

    def place(method: Mapping[str, Any]) -> int:
        name = method["method"]
        if name in published.FIGURE_ORDER:
            return published.FIGURE_ORDER.index(name)
        last = len(published.FIGURE_ORDER)
        return last + 1 if name == "musical" else last

    ordered = sorted(shown, key=place)
    return [
        Column("input", "Input"),
        *(Column(m["name"], m["label"]) for m in ordered),
        Column("truth", "Truth"),
    ]


def ablation_columns(results: Mapping[str, Any]) -> list[Column] | None:
    """The columns of the paper's Figure 6: input, ground truth, experiments 1 and 2, ours.

    Our own ablations stand between. None without an ablation.
    """
    order = list(published.ABLATIONS)
    ablated = [m for m in results["methods"] if m["ablation"]]
    if not ablated:
        return None
    ablated.sort(key=lambda m: order.index(m["ablation"]) if m["ablation"] in order else len(order))
    method = ablated[0]["method"]
    whole = [m for m in results["methods"] if m["method"] == method and not m["ablation"]]
    return [
        Column("input", "Input"),
        Column("truth", "Ground truth"),
        *(Column(m["name"], published.ABLATIONS.get(m["ablation"], m["label"])) for m in ablated),
        *(Column(m["name"], m["label"]) for m in whole[:1]),
    ]


def letter(number: int) -> str:
    """ "(a)" for 0."""
    return f"({chr(ord('a') + number)})"


def figure(results: Mapping[str, Any], samples: Sequence[report.Sample]) -> Image.Image:
    """The first photographs in the layout of the paper's Figures 3 to 5, as one picture."""
    return draw_figure(figure_columns(results), samples)


def draw_figure(
    columns: Sequence[Column], samples: Sequence[report.Sample], cell: int = 192
) -> Image.Image:
    """A row a photograph, a column a method, captions below.

    Args:
        columns: Captions and pictures.
        samples: At least one.
        cell: Longest side of a picture, pixels; smaller ones are enlarged by whole factors.

    Returns:
        An RGB picture.
    """
    gap, margin, caption = 6, 16, 44
    pictures = [
        [report.fit_cell(column.picture(sample), cell) for column in columns] for sample in samples
    ]
    width = max(picture.width for row in pictures for picture in row)
    heights = [max(picture.height for picture in row) for row in pictures]
    sheet = Image.new(
        "RGB",
        (
            2 * margin + len(columns) * (width + gap) - gap,
            2 * margin + sum(heights) + gap * len(heights) + caption,
        ),
        report.SHEET_PAPER,
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    y = margin
    for row, height in zip(pictures, heights, strict=True):
        for number, picture in enumerate(row):
            sheet.paste(picture, (margin + number * (width + gap), y))
        y += height + gap
    for number, column in enumerate(columns):
        lines = _wrapped(f"{letter(number)} {column.caption}", font, width)
        for line_number, line in enumerate(lines[:2]):
            position = (margin + number * (width + gap), y + 4 + 18 * line_number)
            draw.text(position, report.fit_text(line, font, width), report.SHEET_INK, font)
    return sheet


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
