"""The Markdown of a record in `results/`, by the templates in `templates/`."""

import json
from collections.abc import Iterable
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
"""Metric -> heading and form."""
DATASETS = {
    "celeba": "CelebA",
    "paris_streetview": "Paris StreetView",
    "landscapes": "LNSIM landscapes",
    "natural": "ImageNet and BSDS500",
    "facades": "Urban100",
}
BEFORE_RESAMPLING = {"resampling": "bilinear"}
"""The filter of results that were measured before it was written down."""
UNINTERESTING = ("steps", "epochs", "init", "seed", "checkpoint_every")
"""Keys of recipes that do not distinguish tries."""

FORMS = {
    "tries": "tries",
    "stages": "card",
    "settings": "settings",
    "cost": "cost",
    "ratios": "ratios",
    "quantities": "ratios",
    "methods": "methods",
    "files": "precision",
    "hostile": "soak",
}
"""Key of a record -> its template."""


def table(record: Record, form: str | None = None) -> str:
    """The Markdown of one record: a table by the form or its keys, the measurement, the command."""
    form = form or next(name for key, name in FORMS.items() if key in record)
    return _environment().get_template(f"{form}.md.j2").render(record=record, card=record)


def _environment() -> jinja2.Environment:
    folder = Path(__file__).with_name("templates")
    loader = jinja2.FileSystemLoader(folder)
    environment = jinja2.Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True)
    functions = (figure, figures, shown, titles, scaled, place, logged_terms, compared)
    for function in (*functions, commands_of, others):
        environment.globals[function.__name__] = function
    return environment


# ---- metrics and photographs


def figure(column: str, value: float) -> str:
    return COLUMNS[column][1].format(value)


def figures(metrics: Record | None, columns: Iterable[str], missing: str = "–") -> list[str]:
    values = {column: (metrics or {}).get(column) for column in columns}
    return [missing if value is None else figure(c, value) for c, value in values.items()]


def shown(metrics: Record | None) -> list[str]:
    """The columns of which there are metrics; all for None."""
    return [column for column in COLUMNS if metrics is None or column in metrics]


def titles(columns: Iterable[str]) -> list[str]:
    return [COLUMNS[column][0] for column in columns]


def scaled(record: Record) -> str:
    """The size of the photographs and how they were scaled to it."""
    size, side = record["image_size"], record.get("shorter_side", record["image_size"])
    resampling = (BEFORE_RESAMPLING | record)["resampling"]
    text = f"{size} x {size}, {resampling} scaling"
    return text if side == size else f"{text} to a shorter side of {side}"


def place(setting: Record) -> str:
    """A setting's photographs, and their scaling where it is not that of today's tests."""
    side, shorter_side = setting["side"], setting["shorter_side"]
    shape = "whole, shorter side " if setting.get("whole") else ""
    text = f"{DATASETS[setting['dataset']]}, {shape}{side} px"
    if shorter_side != side:
        text += f" of a shorter side of {shorter_side}"
    resampling = (BEFORE_RESAMPLING | setting)["resampling"]
    return text if resampling == "bicubic" else f"{text}, {resampling}"


def commands_of(record: Record) -> list[tuple[str, str, str]]:
    """Command, hardware and numbers of photographs of settings, each command once."""
    found: dict[tuple[str, str], set[int]] = {}
    for setting in record["settings"].values():
        made = (setting["command"], setting["hardware"])
        found.setdefault(made, set()).add(setting["count"])
    return [
        (*made, " and ".join(f"{count:,}" for count in sorted(counts, reverse=True)))
        for made, counts in found.items()
    ]


def others(record: Record) -> list[str]:
    """The methods of settings that are no models of the package."""
    settings = record["settings"].values()
    models = {each["model"] for each in settings}
    return list(dict.fromkeys(m for each in settings for m in each["methods"] if m not in models))


# ---- tries


def logged_terms(record: Record) -> list[str]:
    """Headings of the losses that every try has logged, for tries without an evaluation."""
    logged = [each["stages"][-1].get("recent", {}) for each in record["tries"]]
    terms = [term for term in ("l1", "hole") if all(term in each for each in logged)]
    return [f"training loss `{term}`" for term in terms]


def compared(record: Record) -> list[tuple[Record, str]]:
    """Tries, each with its differences from the others."""
    flat = [[_flat(stage["recipe"]) for stage in each["stages"]] for each in record["tries"]]
    return list(zip(record["tries"], differences(flat), strict=True))


def differences(tries: list[list[Record]]) -> list[str]:
    """What distinguishes each try, the recipes of its stages, in words.

    Where all continue the first, it is what the stages of their own change in its last one.
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
    # A recipe from before a key was known counts as 0.
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
