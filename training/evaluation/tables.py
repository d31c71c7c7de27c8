"""What results say in tables and sentences, and as a Markdown document.

Everything here is a function of the results, the dictionary that becomes `results.json`. Results of
`training.compare` have "verdicts", and their methods "cost" and "training". `page` writes the same
tables as HTML.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import published
from .statistics import Metric, describe_metric, metrics_of, protocol_of

Results = Mapping[str, Any]


class Best(str):
    """A cell that is the best of its column."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: Its head.
        group: A head above it and its neighbors of the same group; "" without one.
        name: Its head where groups are not shown; `label` by default.
        is_published: Whether a paper's figures stand in it.
        edge: Whether a line separates it from the column before.
    """

    label: str
    group: str = ""
    name: str = ""
    is_published: bool = False
    edge: bool = False


@dataclass(frozen=True)
class Table:
    """A table: heading or "", columns, cells with the row's head first, sentences below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def _plain(*labels: str) -> tuple[Column, ...]:
    return tuple(Column(label) for label in labels)


def metric_label(metric: str) -> str:
    """A metric as a column's head: label, unit, and an arrow to where it is better."""
    description = describe_metric(metric)
    arrow = {"higher": " ↑", "lower": " ↓"}.get(description.better, "")
    unit = f" {description.unit}" if description.unit else ""
    return f"{description.label}{unit}{arrow}"


def _cells(metrics: Sequence[str], rows: Sequence[Sequence[float | None]]) -> list[tuple[str, ...]]:
    """Figures as text, those of several rows with the best of each column marked."""
    columns = []
    for metric, values in zip(metrics, zip(*rows, strict=True), strict=True):
        description = describe_metric(metric)
        best = description.best(values) if len(values) > 1 else None
        kinds = [str if value is None or value != best else Best for value in values]
        columns.append([k(description.format(v)) for k, v in zip(kinds, values, strict=True)])
    return list(zip(*columns, strict=True))


# --- every metric, by hole size -------------------------------------------------------------------


def metric_tables(results: Results) -> list[Table]:
    """Every metric: a table a hole size, its title the hole size; or one table without a title.

    With one method, one table has a row a hole size. Where all holes fall in one bucket it would
    only repeat the row of all.
    """
    methods, metrics = results["methods"], metrics_of(results)
    buckets = dict(methods[0]["aggregates"])
    if len(buckets) == 2:
        buckets = {"all": buckets["all"]}
    one_method = len(methods) == 1 and len(buckets) > 1
    columns = [Column("Hole size" if one_method else "Method")]
    for metric in metrics:
        protocol, label = protocol_of(metric), metric_label(metric)
        first = columns[-1].group != protocol
        columns.append(Column(label, protocol, f"{protocol}: {label}", edge=first))
    columns.append(Column("s / image", edge=True))

    def rows_of(bucket: str, heads: Sequence[str]) -> list[tuple[str, ...]]:
        means = [
            [m["aggregates"][bucket]["metrics"][metric] for metric in metrics] for m in methods
        ]
        # Seconds are not taken apart by hole size.
        seconds = [seconds_per_image(m) if bucket == "all" else "" for m in methods]
        cells = zip(heads, _cells(metrics, means), seconds, strict=True)
        return [(head, *figures, last) for head, figures, last in cells]

    titles = {}
    for bucket, group in buckets.items():
        name = "All" if bucket == "all" else bucket.replace("-", "–")
        if not one_method:  # under the heading "Hole size" the word would only widen the column
            name = "All holes" if bucket == "all" else f"Hole {name}"
        titles[bucket] = f"{name}, {count_images(group['count'])}"
    if one_method:
        rows = [row for bucket, title in titles.items() for row in rows_of(bucket, [title])]
        return [Table("", tuple(columns), tuple(rows))]
    labels = [method["label"] for method in methods]
    return [
        Table(title if len(buckets) > 1 else "", tuple(columns), tuple(rows_of(bucket, labels)))
        for bucket, title in titles.items()
    ]


def seconds_per_image(method: Mapping[str, Any]) -> str:
    """Seconds, without the unit."""
    return f"{method['seconds_per_image']:.3f}"


def count_images(count: int) -> str:
    """ "1 image", "2 images"."""
    return "1 image" if count == 1 else f"{count:,} images"


# --- who is best ----------------------------------------------------------------------------------


def winners_table(results: Results) -> Table:
    """Who is best, a row a metric."""
    methods = {method["name"]: method for method in results["methods"]}
    first = results["methods"][0]
    rows = []
    for verdict in results["verdicts"]:
        metric, ranking = verdict["metric"], verdict["ranking"]
        description = describe_metric(metric)
        best, second = (methods[name] for name in ranking[:2])
        rows.append(
            (
                f"{protocol_of(metric)}: {metric_label(metric)}",
                best["label"],
                description.format(best["aggregates"]["all"]["metrics"][metric]),
                second["label"],
                _difference(verdict, description),
                "–" if verdict["wins"] is None else f"{verdict['wins']:.0%}",
                f"{ranking.index(first['name']) + 1} of {len(ranking)}",
            )
        )
    heads = ("Metric", "Best", "Its mean", "Second", "Ahead by, ± 95 %", "Better on")
    return Table(
        "Who wins",
        _plain(*heads, f"Place of {first['label']}"),
        tuple(rows),
        notes=(
            "Ahead by: mean difference between the best and the second on the same image. A "
            "difference whose interval contains zero may be chance. Better on: the share of "
            "images. Metrics that two protocols define alike are listed once.",
            _win_count(results),
        ),
    )


def _difference(verdict: Mapping[str, Any], description: Metric) -> str:
    text = description.format(verdict["difference"], 1)
    if verdict["margin"] is None:
        return text
    text += f" ± {description.format(verdict['margin'], 1)}"
    return text if verdict["clear"] else f"{text} (a tie)"


def _win_count(results: Results) -> str:
    first = results["methods"][0]
    winners = [verdict["ranking"][0] for verdict in results["verdicts"]]
    wins, count = winners.count(first["name"]), len(winners)
    if wins == count:
        return f"{first['label']} has the best mean by every one of {count} metrics."
    others = [m["label"] for m in results["methods"][1:] if m["name"] in winners]
    by = f"{wins} of {count} metrics; by the rest" if wins else f"none of {count} metrics;"
    return f"{first['label']} has the best mean by {by} it is {' or '.join(others)}."


# --- the papers' tables ---------------------------------------------------------------------------


def paper_tables(results: Results) -> list[Table]:
    """The MUSICAL paper's table of this dataset and DeepFill's, measured figures beside theirs.

    A dataset of which the paper has no table is shown in its layout, without figures of the paper.
    A table whose protocol was not measured is left out.
    """
    musical, deepfill = published.musical_table(results["dataset"]), published.DEEPFILL_TABLE
    measured = set(metrics_of(results))
    return [
        _paper_table(results, paper, metrics)
        for paper, metrics in ((musical, published.MUSICAL_METRICS), (deepfill, deepfill.metrics))
        if set(metrics) <= measured
    ]


def _paper_table(
    results: Results, paper: published.PublishedTable | None, metrics: Sequence[str]
) -> Table:
    methods = results["methods"]
    nothing = ("–",) * len(metrics)
    means = [[m["aggregates"]["all"]["metrics"][metric] for metric in metrics] for m in methods]
    rows = [(m["label"], *cells) for m, cells in zip(methods, _cells(metrics, means), strict=True)]
    heads = [metric_label(metric) for metric in metrics]
    if paper is None:
        title = "Layout of Wang et al., IJCAI 2019, Tables 1 to 3"
        return Table(title, _plain("Method", *heads), tuple(rows))
    used = set()
    for number, method in enumerate(methods):
        # An ablation is not the paper's method.
        figures = None if method["ablation"] else paper.figures(method["method"])
        used |= {method["method"]} if figures else set()
        rows[number] += figures or nothing
    rows += [
        (f"{label} (paper)", *nothing, *values)
        for label, name, values in paper.rows
        if name not in used
    ]
    differences = paper.differences(results)
    comparable = (
        f"The paper's figures are of other data and not comparable: {'; '.join(differences)}. "
        "Training differs too."
        if differences
        else "The paper's figures are of the same dataset, size and hole by its description; "
        "the training, the photographs' files and the split may differ."
    )
    columns = [Column("Method"), *(Column(head, "measured here") for head in heads)]
    columns += [
        Column(head, "the paper's own", f"{head} (paper)", is_published=True, edge=head is heads[0])
        for head in heads
    ]
    return Table(paper.source, tuple(columns), tuple(rows), notes=(comparable, *paper.notes))


# --- cost and training ----------------------------------------------------------------------------


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def cost_table(results: Results) -> Table:
    """Parameters, multiply-adds, and milliseconds of one photograph alone."""
    size = results["image_size"]
    rows = []
    for method in results["methods"]:
        cost = method["cost"]
        parameters, adds = cost["parameters"], cost["multiply_adds"]
        milliseconds = 1000 * cost["seconds"]["median"]
        rows.append(
            (
                method["label"],
                _or_dash(parameters and parameters / 1e6, "{:.2f}"),
                _or_dash(adds and adds / 1e9, "{:.3f}"),
                f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}",
                f"{cost['times_the_first']:.2f}",
            )
        )
    heads = ("Method", "Parameters, million", "Multiply-adds, thousand million", "ms an image")
    return Table(
        "Cost",
        _plain(*heads, f"Time / {results['methods'][0]['label']}"),
        tuple(rows),
        notes=(
            "Parameters of the generator. Multiply-adds of its convolutions and matrix products "
            "(one multiplication with its addition counts once, so FLOPs are twice as many), for "
            f"a photograph of {size} × {size} pixels with the hole of the first one. The cost of "
            "an attention grows with the hole.",
            f"ms an image: median of {results['rounds']} calls with the first photograph alone, "
            "each method once a round, in one process with the same threads. Compare the ratios: "
            "milliseconds depend on the machine.",
        ),
    )


def training_table(results: Results) -> Table | None:
    """How each run was trained; None without runs that say so."""
    runs = [method for method in results["methods"] if method["training"]]
    if not runs:
        return None
    rows = []
    for method in runs:
        training, recipe = method["training"], method["training"]["recipe"]
        steps = _or_dash(training["steps"], "{:,}")
        if _is_unfinished(method):
            steps += f" of {recipe['steps']:,}"
        spent = (_or_dash(training[key], "{:.1f}") for key in ("cpu_minutes", "minutes"))
        keys = ("batch_size", "seed", "precision", "mask", "image_size")
        batch, *others = (str(recipe.get(key, "–")) for key in keys)
        rows.append((method["label"], steps, batch, *spent, *others))
    heads = ("Method", "Steps", "Batch", "CPU minutes", "Minutes", "Seed", "Precision", "Holes")
    return Table("Training", _plain(*heads, "Pixels"), tuple(rows), tuple(_fairness(results, runs)))


def _is_unfinished(method: Mapping[str, Any]) -> bool:
    done, planned = method["training"]["steps"], method["training"]["recipe"].get("steps")
    return done is not None and planned is not None and done < planned


def _fairness(results: Results, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader has to know before they call one method better than another."""
    notes = ["CPU minutes are the sum over all cores; a dash means that the run has no record."]
    known = [m["training"]["cpu_minutes"] for m in runs]
    if len(runs) > 1 and None not in known:
        least, most = min(known), max(known)
        differ = "The runs were not trained equally long" if most > 1.1 * least else "Equal budgets"
        notes.append(f"{differ}: {least:.1f} to {most:.1f} CPU minutes.")
    unfinished = [method["label"] for method in runs if _is_unfinished(method)]
    if unfinished:
        notes.append(
            f"Weights from before the planned end of training: {', '.join(unfinished)}. The "
            "learning rate had not decayed to its end."
        )
    for key in ("mask", "image_size", "dataset"):
        other: dict[Any, list[str]] = {}
        for method in runs:
            value = method["training"]["recipe"].get(key)
            if value not in (None, results[key]):
                other.setdefault(value, []).append(method["label"])
        for value, labels in other.items():
            notes.append(
                f"{', '.join(labels)} {'was' if len(labels) == 1 else 'were'} trained with "
                f"{key.replace('_', ' ')} {value} and measured with {results[key]}."
            )
    if len({m["training"]["recipe"].get("seed") for m in runs}) == 1:
        notes.append("One seed each; the effect of the seed was not measured.")
    return notes


# --- the document ---------------------------------------------------------------------------------


def is_comparison(results: Results) -> bool:
    """Whether `training.compare` measured them."""
    return "verdicts" in results


def title(results: Results) -> str:
    """The results' name."""
    first = results["methods"][0]
    subject = "Baselines" if first["kind"] == "baseline" else first["label"]
    if is_comparison(results):
        subject = f"{len(results['methods'])} methods"
    return f"{subject} on {results['dataset']}"


def subtitle(results: Results) -> str:
    """How many images of which split and size, and the holes."""
    size, images = results["image_size"], count_images(results["count"])
    text = f"{images}, split {results['split']}, {size} × {size} pixels, mask {results['mask']}"
    sizes = [bucket for bucket in results["methods"][0]["aggregates"] if bucket != "all"]
    fractions = {row["hole_fraction"] for row in results["images"]}
    if len(fractions) == 1:
        text += f" ({next(iter(fractions)):.0%} of the image)"
    elif len(sizes) == 1:
        text += f" ({sizes[0].replace('-', ' to ')} of the image)"
    return text


def notes(results: Results) -> list[str]:
    """The footer: the metrics' definitions, what was left out, and the figures' origin."""
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
    made = f"Measured {results['created']} on {results['hardware']}"
    lines.append(f"{made}, commit {results['commit']}." if results["commit"] else f"{made}.")
    return lines


def after_metrics(results: Results) -> list[Table]:
    """The tables of a comparison that follow those of the metrics."""
    training = training_table(results)
    return [*paper_tables(results), cost_table(results), *([training] if training else [])]


def markdown(results: Results) -> str:
    """The results as a Markdown document that ends with a newline."""
    lines = [f"# {title(results)}", "", subtitle(results), ""]
    compared = is_comparison(results)
    if compared:
        lines += [*_markdown(winners_table(results)), "## Every metric", ""]
    for table in metric_tables(results):
        lines += _markdown(table, "###" if compared else "##")
    for table in after_metrics(results) if compared else ():
        lines += _markdown(table)
    lines += [f"- {note}" for note in (*notes(results), f"Command: `{results['command']}`")]
    return "\n".join(lines) + "\n"


def _markdown(table: Table, level: str = "##") -> list[str]:
    lines = [f"{level} {table.title}", ""] if table.title else []
    lines += [_markdown_row([column.name or column.label for column in table.columns])]
    lines += ["|---|" + "---:|" * (len(table.columns) - 1)]
    for row in table.rows:
        lines.append(_markdown_row([f"**{c}**" if isinstance(c, Best) else c for c in row]))
    return [*lines, "", *(f"{note}\n" for note in table.notes)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
