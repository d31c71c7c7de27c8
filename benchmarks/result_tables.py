"""The Markdown of a record in `results/`, see `benchmarks.publish_results`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

Record = dict[str, Any]

COLUMNS = {
    "authors/psnr": ("PSNR", "{:.2f} dB"),
    "authors/ssim": ("SSIM", "{:.4f}"),
    "authors/l1_percent": ("l1", "{:.3f} %"),
    "lpips/alex": ("LPIPS", "{:.4f}"),
}
DATASETS = {"celeba": "CelebA", "paris_streetview": "Paris StreetView"}
COST_COLUMNS = ("parameters", "multiply-adds", "time", "steps", "CPU minutes")
"""Of comparisons; the time is relative to the first method's."""
BEFORE_RESAMPLING = {"resampling": "bilinear"}
"""The filter of results that were measured before it was written down."""
UNINTERESTING = ("steps", "epochs", "init", "seed", "checkpoint_every")
"""Keys of recipes that tell no two tries apart."""


def table(record: Record) -> str:
    """The Markdown of one record: a row a method or a ratio, then what was measured and how."""
    forms = {
        **{"tries": training_table, "stages": card_table, "settings": settings_table},
        **{"ratios": ratios_table, "quantities": ratios_table, "methods": methods_table},
        "rows": races_table,
    }
    return next(form for key, form in forms.items() if key in record)(record)


def _text(
    header: Sequence[str | None],
    rows: Iterable[Sequence[str]],
    after: Sequence[str] = (),
    made_by: Iterable[tuple[str, Sequence[str]]] = (),
) -> str:
    """A table, lines below it, and what was measured by which commands."""
    head = "|" + "".join(" |" if cell is None else f" {cell} |" for cell in header)
    lines = [head, "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    lines += ["", *after] if after else []
    for what, commands in made_by:
        lines += ["", f"{what}:", "", "```", *commands, "```"]
    return "\n".join(lines) + "\n"


def _figures(metrics: Record | None, columns: Iterable[str], missing: str = "–") -> list[str]:
    pairs = [(COLUMNS[column][1], (metrics or {}).get(column)) for column in columns]
    return [missing if value is None else form.format(value) for form, value in pairs]


def _commands(record: Record) -> list[str]:
    return [entry["command"] for entry in record["measured"]]


def ratios_table(record: Record) -> str:
    """What a benchmark found."""
    ratios = record.get("ratios", {})
    rows = [(name, f"{value:.2f}") for name, value in ratios.items()]
    rows += record.get("quantities", {}).items()
    header = ["ratio of medians" if ratios else None, None]
    return _text(header, rows, made_by=[(record["hardware"], [record["command"]])])


def races_table(record: Record) -> str:
    """A row a hole in a large photograph, against MI-GAN."""
    rows = [
        (row["hole"], str(row["windows"]), f"{row['ratio']:.2f}", f"{row['least']:.2f}")
        for row in record["rows"]
    ]
    header = ["hole", "windows", "MI-GAN / ours", "least of the rounds"]
    return _text(header, rows, made_by=[(record["hardware"], [record["command"]])])


def methods_table(record: Record) -> str:
    """A row a method, of evaluations and of a comparison."""
    columns = [name for name in COLUMNS if name in record["methods"][0]["metrics"]]
    compared = "verdicts" in record
    header = ["method", *(COLUMNS[c][0] for c in columns), *(COST_COLUMNS if compared else ())]
    rows = [
        [m["label"], *_figures(m["metrics"], columns), *(_cost_cells(m) if compared else ())]
        for m in record["methods"]
    ]
    said = [
        _verdict_line(verdict)
        for verdict in record.get("verdicts", ())
        if verdict["metric"] in COLUMNS and verdict["difference"] is not None
    ]
    what = (
        f"{record['count']} photographs of the {record['split']} split, {_scaled(record)}, "
        f"{record['mask']} hole, protocol `authors`; {record['measured'][0]['hardware']}"
    )
    return _text(header, rows, said, [(what, _commands(record))])


def _cost_cells(method: Record) -> list[str]:
    """What a method costs and how long it was trained, "–" where unknown."""
    cost, training = method.get("cost", {}), method.get("training", {})

    def cell(value: float | None, form: str, unit: float = 1) -> str:
        return "–" if value is None else form.format(value / unit if unit > 1 else value)

    return [
        cell(cost.get("parameters"), "{:.2f} M", 1e6),
        cell(cost.get("multiply_adds"), "{:.2f} G", 1e9),
        cell(cost.get("times_the_first"), "{:.2f}"),
        cell(training.get("steps"), "{:,}"),
        cell(training.get("cpu_minutes"), "{:.1f}"),
    ]


def _verdict_line(verdict: Record) -> str:
    """Who wins by a metric, and whether the photographs can tell, as a line of a list."""
    name, form = COLUMNS[verdict["metric"]]
    first, second = verdict["ranking"][:2]
    text = f"* {name}: {first}, ahead of {second} by {form.format(verdict['difference'])}"
    if verdict["margin"] is not None:
        text += f" ± {form.format(verdict['margin'])}"
        text += "" if verdict["clear"] else ", a tie"
    return f"{text}; better on {verdict['wins']:.0%} of the photographs."


def _scaled(record: Record) -> str:
    """The size of the photographs and how they were scaled to it."""
    size, side = record["image_size"], record.get("shorter_side", record["image_size"])
    resampling = (BEFORE_RESAMPLING | record)["resampling"]
    scaled = f"{resampling} scaling" + ("" if side == size else f" to a shorter side of {side}")
    return f"{size} x {size}, {scaled}"


# --- tries ----------------------------------------------------------------------------------------


def training_table(record: Record) -> str:
    """A row a try: what was different, how long it took, what came of it."""
    tries = record["tries"]
    shown = next((each["metrics"] for each in tries if each["metrics"]), {})
    columns = [name for name in COLUMNS if name in shown]
    # Without an evaluation, what the training itself says is better than nothing.
    logged = [each["stages"][-1].get("recent", {}) for each in tries]
    losses = [] if columns else [t for t in ("l1", "hole") if all(t in each for each in logged)]
    header = ["try", "what differs", "steps", "CPU minutes", *(COLUMNS[c][0] for c in columns)]
    header += [f"training loss `{term}`" for term in losses]
    rows = []
    flat = [[_flat(stage["recipe"]) for stage in each["stages"]] for each in tries]
    for each, differs in zip(tries, differences(flat), strict=True):
        steps = " + ".join(f"{stage['steps']:,}" for stage in each["stages"])
        minutes = f"{sum(stage['cpu_minutes'] for stage in each['stages']):.0f}"
        row = [each["label"], differs or "–", steps, minutes, *_figures(each["metrics"], columns)]
        rows.append(row + [f"{each['stages'][-1]['recent'][term]:.4f}" for term in losses])
    for label, metrics in record["beside"].items():
        rows.append([label, "–", "–", "–", *_figures(metrics, columns)])
    made_by = []
    if record["measured"]:
        what = (
            f"{record['count']} photographs of the {record['split']} split of "
            f"`{record['dataset']}`, {_scaled(record)}, {record['mask']} hole, protocol `authors`; "
            f"{record['measured'][0]['hardware']}"
        )
        made_by.append((what, _commands(record)))
    after = [record["verdict"]] if record["verdict"] else []
    return f"{record['about']}\n\n{_text(header, rows, after, made_by)}"


def differences(tries: list[list[Record]]) -> list[str]:
    """What tells each try from the others, in words.

    Where all continue the first, it is what the stages of their own change in its last one.

    Args:
        tries: For each try, the recipe of each stage.
    """
    base = tries[0]
    if len(tries) > 1 and all(stages[: len(base)] == base for stages in tries):
        said, seen = [""], list(base)
        for stages in tries[1:]:
            own = [stage for stage in stages if stage not in seen]
            seen += own
            said.append(_values(own, [key for key in own[0] if _varies([base[-1:], own], key)]))
        return said
    keys = sorted({key for stages in tries for stage in stages for key in stage})
    return [_values(stages, [key for key in keys if _varies(tries, key)]) for stages in tries]


def _varies(tries: list[list[Record]], key: str) -> bool:
    # A recipe from before a key was known has none of what it turns on.
    values = [[{key: stage.get(key) or 0} for stage in stages] for stages in tries]
    return key not in UNINTERESTING and len({tuple(_changes(each, key)) for each in values}) > 1


def _values(stages: list[Record], keys: list[str]) -> str:
    return "; ".join(
        f"{key.removeprefix('config.')} {' then '.join(_changes(stages, key))}" for key in keys
    )


def _changes(stages: list[Record], key: str) -> list[str]:
    """A key's values, stage after stage, repeated ones once."""
    values = [json.dumps(stage.get(key)).strip('"') for stage in stages]
    return [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]


def _flat(recipe: Record, prefix: str = "") -> Record:
    flat: Record = {}
    for key, value in recipe.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


# --- models of the package ------------------------------------------------------------------------


def card_table(card: Record) -> str:
    """What a shipped model is, and a row for each stage of its training."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(card=card)


def settings_table(record: Record) -> str:
    """A row for each method in each setting, the bar under them, and what was not reached."""
    header = ["photographs", "hole", "method", *(name for name, _ in COLUMNS.values()), "known"]
    rows, missed = [], []
    commands: dict[tuple[str, str], set[int]] = {}
    for name, setting in record["settings"].items():
        for method, each in setting["methods"].items():
            known = "exact" if each["known_change"] == 0 else f"± {each['known_change']}"
            place = ["", "", method]
            if method == setting["model"]:
                place = [_place(setting), setting["hole"], f"**`{method}`**"]
            rows.append([*place, *_figures(each["metrics"], COLUMNS, ""), known])
        if setting["bars"]:
            signs = ["≥" if c in ("authors/psnr", "authors/ssim") else "≤" for c in COLUMNS]
            bars = _figures(setting["bars"], COLUMNS, "")
            bars = [bar and f"{sign} {bar}" for sign, bar in zip(signs, bars, strict=True)]
            rows.append(["", "", "*bar*", *bars, "exact"])
        missed += [f"* {name}: {problem}" for problem in setting["missed"]]
        made = (setting["command"], setting["hardware"])
        commands.setdefault(made, set()).add(setting["count"])
    made_by = []
    for (command, hardware), counts in commands.items():
        number = " and ".join(f"{count:,}" for count in sorted(counts, reverse=True))
        what = (
            f"{number} photographs of the test splits, protocol `authors`, all pixels of the "
            f"picture; `known`: largest change of a known pixel, in grey levels; {hardware}"
        )
        made_by.append((what, [command]))
    after = ["Not reached:", "", *missed] if missed else ["Every bar is reached."]
    return _text(header, rows, after, made_by).replace("|  |  | *bar*", "| | | *bar*")


def short_settings_table(record: Record) -> str:
    """A row for each setting: PSNR, SSIM and, where it was measured, LPIPS of every method."""
    names = ("authors/psnr", "authors/ssim", "lpips/alex")

    def cell(method: Record | None) -> str:
        if method is None:
            return "not yet measured"
        return " / ".join(_figures(method["metrics"], [c for c in names if c in method["metrics"]]))

    settings = record["settings"].values()
    models = {each["model"] for each in settings}
    others = dict.fromkeys(m for each in settings for m in each["methods"] if m not in models)
    rows = []
    for each in settings:
        cells = [cell(each["methods"].get(name)) for name in (each["model"], *others)]
        rows.append([_place(each), each["hole"], f"`{each['model']}`", *cells])
    return _text(["photographs", "hole", "model", "", *others], rows)


def _place(setting: Record) -> str:
    """A setting's photographs, and their scaling where it is not that of today's tests."""
    side, shorter_side = setting["side"], setting["shorter_side"]
    shape = "whole, shorter side " if setting.get("whole") else ""
    text = f"{DATASETS[setting['dataset']]}, {shape}{side} px"
    if shorter_side != side:
        text += f" of a shorter side of {shorter_side}"
    resampling = (BEFORE_RESAMPLING | setting)["resampling"]
    return text if resampling == "bicubic" else f"{text}, {resampling}"
