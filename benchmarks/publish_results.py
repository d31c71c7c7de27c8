"""Keeps measured numbers in `results/` and writes the documents' tables from them.

    python -m benchmarks.publish_results add NAME EVALUATION[=LABEL]... [--run LABEL=RUN ...]
    python -m benchmarks.publish_results training NAME --about TEXT [--verdict TEXT]
        LABEL=RUN[,RUN...]... [--evaluation EVALUATION[=LABEL] ...]
    python -m benchmarks.publish_results tables

`add` takes folders that `python -m training.evaluate` or `training.compare` wrote on the same
photographs and holes, drops the rows of single images and keeps the averages, commands, commits and
hardware as `results/NAME.json`; LABEL renames the evaluation's model, and `--run` adds how its
weights were trained, from a run folder. A comparison brings training and cost along, its
tables as `results/NAME.md` and its page, the photographs left out, as `results/NAME.html`.

`training` keeps what was tried, the losers too, as `results/training/NAME.json`: for every try its
stages, a run folder each and the last one's weights measured, with recipes, steps and minutes, and
the figures that evaluations of its last run found, all on the same photographs. An evaluation's
model is a try's if LABEL is the try's, or if it was made from the try's last run folder.

`tables` rewrites every block `<!-- results:NAME -->` ... `<!-- /results -->` of `DOCUMENTS` from
such a record or from the ratios that a benchmark left. `results:card/NAME` is the card of a model
that is part of the package, `results:short/NAME` a record of settings in a row each, and
`results:training` all records of tries. The tests hold the documents to what `tables` writes.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

from export.ship import describe_stage, describe_stages
from musical_tf import named_models
from musical_tf.files import write_whole
from training.evaluation import page as comparison_page

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
CARDS = named_models.FOLDER
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "MODEL_CARD.md",
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "performance.md",
    ROOT / "docs" / "training_log.md",
)
BLOCK = re.compile(r"(<!-- results:([\w/-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)

UNINTERESTING = ("steps", "epochs", "init", "seed", "checkpoint_every")
"""Keys of recipes that tell no two tries apart."""

SAME_PHOTOGRAPHS = (
    *("dataset", "split", "image_size", "shorter_side", "resampling", "mask", "count", "protocols"),
)
BEFORE_RESAMPLING = {"resampling": "bilinear"}
"""The filter of results that were measured before it was written down."""
KEPT = ("command", "created", "commit", "hardware", "software")
COMPARED = ("cost", "training")
"""What a method of a comparison has beyond one of an evaluation."""

COLUMNS = {
    "authors/psnr": ("PSNR", "{:.2f} dB"),
    "authors/ssim": ("SSIM", "{:.4f}"),
    "authors/l1_percent": ("l1", "{:.3f} %"),
    "lpips/alex": ("LPIPS", "{:.4f}"),
}

DATASETS = {"celeba": "CelebA", "paris_streetview": "Paris StreetView"}

COST_COLUMNS = ("parameters", "multiply-adds", "time", "steps", "CPU minutes")
"""Of comparisons; the time is relative to the first method's."""


def condense(evaluations: dict[Path, str], runs: dict[str, Path]) -> dict:
    """Merges evaluations of the same photographs into one record without single images.

    Args:
        evaluations: Folder with a `results.json` of `training.evaluate` -> label of its model, ""
            to keep its own.
        runs: Label of a method -> run folder that trained it.

    Raises:
        ValueError: When the evaluations did not measure the same photographs and holes.
    """
    record, methods, measured, verdicts = {}, [], [], []
    for folder, label in evaluations.items():
        source = json.loads((folder / "results.json").read_text())
        shared = {key: (BEFORE_RESAMPLING | source)[key] for key in SAME_PHOTOGRAPHS}
        if record and shared != record:
            different = [key for key in SAME_PHOTOGRAPHS if shared[key] != record[key]]
            raise ValueError(
                f"{folder} differs from {next(iter(evaluations))} in {', '.join(different)}"
            )
        record = shared
        measured.append({key: source[key] for key in KEPT})
        if label and "verdicts" in source:
            raise ValueError(f"{folder} is a comparison, whose methods have labels: {label!r}")
        methods += [
            {
                "label": label if label and method["kind"] != "baseline" else method["label"],
                "seconds_per_image": method["seconds_per_image"],
                "metrics": method["aggregates"]["all"]["metrics"],
                **{key: method[key] for key in COMPARED if method.get(key)},
            }
            for method in source["methods"]
        ]
        verdicts += labelled(source)
    labels = [method["label"] for method in methods]
    unknown = sorted(set(runs) - set(labels))
    if unknown:
        raise ValueError(f"--run names {unknown[0]!r}, which is none of {', '.join(labels)}")
    training = {label: describe_run(run) for label, run in runs.items()}
    record |= {"measured": measured, "methods": methods, "training": training}
    return record | ({"verdicts": verdicts} if verdicts else {})


def documents(folders: list[Path], name: str) -> dict[str, bytes]:
    """A single comparison's tables and its page without photographs -> file in `results/`."""
    if len(folders) != 1 or not (folders[0] / "results.md").is_file():
        return {}
    results = json.loads((folders[0] / "results.json").read_text())
    if "verdicts" not in results:  # an evaluation, whose table is all there is
        return {}
    with tempfile.TemporaryDirectory() as folder:
        comparison_page.write(Path(folder), results, ())
        page = (Path(folder) / "index.html").read_bytes()
    return {f"{name}.md": (folders[0] / "results.md").read_bytes(), f"{name}.html": page}


def labelled(comparison: dict) -> list[dict]:
    """A comparison's verdicts with its methods' labels for their names; none of an evaluation."""
    if "verdicts" not in comparison:
        return []
    labels = {method["name"]: method["label"] for method in comparison["methods"]}
    return [
        {**verdict, "ranking": [labels[name] for name in verdict["ranking"]]}
        for verdict in comparison["verdicts"]
    ]


def describe_run(run: Path) -> dict:
    """A run's recipe, without the place its photographs lay in, its minutes and last losses."""
    stage = describe_stage(run)
    return {key: stage[key] for key in ("recipe", "minutes", "cpu_minutes", "last")}


def describe_tries(
    tries: dict[str, list[Path]], evaluations: dict[Path, str], about: str, verdict: str
) -> dict:
    """The record of a question that training runs were to answer.

    Args:
        tries: Label -> run folders, its stages in order.
        evaluations: Folder with a `results.json` -> label of the try that its model is, "" to find
            it by the run folder that it was made from.
        about: The question, in words.
        verdict: The answer, in words; "" for none yet.

    Raises:
        ValueError: When evaluations did not measure the same photographs, or one is of no try.
    """
    last = {runs[-1].resolve().name: label for label, runs in tries.items()}
    metrics, shared, measured = {}, {}, []
    for folder, given in evaluations.items():
        source = json.loads((folder / "results.json").read_text())
        photographs = {key: (BEFORE_RESAMPLING | source)[key] for key in SAME_PHOTOGRAPHS}
        if shared and photographs != shared:
            different = [key for key in SAME_PHOTOGRAPHS if photographs[key] != shared[key]]
            raise ValueError(f"{folder} differs from the others in {', '.join(different)}")
        shared = photographs
        measured.append({key: source[key] for key in KEPT})
        for method in source["methods"]:
            made_from = Path(method.get("source") or "").name
            label = given if given and method["kind"] != "baseline" else last.get(made_from)
            if method["kind"] == "baseline":
                label = method["label"]
            elif label not in tries:
                raise ValueError(
                    f"{folder}: {method['label']} is none of the tries {', '.join(tries)}; say "
                    f"which with {folder}=LABEL"
                )
            metrics[label] = method["aggregates"]["all"]["metrics"]
    return {
        "about": about,
        "verdict": verdict,
        **shared,
        "measured": measured,
        "tries": [
            {
                "label": label,
                "stages": describe_stages(runs),
                "metrics": metrics.pop(label, None),
            }
            for label, runs in tries.items()
        ],
        "beside": metrics,
    }


def training_table(record: dict) -> str:
    """A row a try: what was different, how long it took, what came of it."""
    flat = [[_flat(stage["recipe"]) for stage in each["stages"]] for each in record["tries"]]
    differences = _differences(flat)
    shown = next((each["metrics"] for each in record["tries"] if each["metrics"]), {})
    columns = [name for name in COLUMNS if name in shown]
    # Without an evaluation, what the training itself says is better than nothing.
    losses = [] if columns else _shared_losses(record["tries"])
    header = ["try", "what differs", "steps", "CPU minutes", *(COLUMNS[c][0] for c in columns)]
    header += [f"training loss `{term}`" for term in losses]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for each, differs in zip(record["tries"], differences, strict=True):
        steps = " + ".join(f"{stage['steps']:,}" for stage in each["stages"])
        minutes = f"{sum(stage['cpu_minutes'] for stage in each['stages']):.0f}"
        cells = [each["label"], differs or "–", steps, minutes, *_figures(each["metrics"], columns)]
        cells += [f"{each['stages'][-1]['recent'][term]:.4f}" for term in losses]
        lines.append(f"| {' | '.join(cells)} |")
    for label, metrics in record["beside"].items():
        cells = [label, "–", "–", "–", *_figures(metrics, columns)]
        lines.append(f"| {' | '.join(cells)} |")
    lines = [record["about"], "", *lines]
    if record["verdict"]:
        lines += ["", record["verdict"]]
    if record["measured"]:
        lines += _made_by(
            f"{record['count']} photographs of the {record['split']} split of "
            f"`{record['dataset']}`, {_scaled(record)}, {record['mask']} hole, protocol `authors`; "
            f"{record['measured'][0]['hardware']}",
            [entry["command"] for entry in record["measured"]],
        )
    return "\n".join(lines) + "\n"


def _differences(tries: list[list[dict]]) -> list[str]:
    """What tells each try from the others, in words.

    Where all go on from the first, it is what the stages of their own change in its last one.
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


def _varies(tries: list[list[dict]], key: str) -> bool:
    # A recipe from before a key was known has none of what it turns on.
    values = [[{key: stage.get(key) or 0} for stage in stages] for stages in tries]
    different = {tuple(_runs_of(stages, key)) for stages in values}
    return key not in UNINTERESTING and len(different) > 1


def _values(stages: list[dict], keys: list[str]) -> str:
    return "; ".join(
        f"{key.removeprefix('config.')} {' then '.join(_runs_of(stages, key))}" for key in keys
    )


def _runs_of(stages: list[dict], key: str) -> list[str]:
    """A key's values, stage after stage, repeated ones once."""
    values = [json.dumps(stage.get(key)).strip('"') for stage in stages]
    return [value for i, value in enumerate(values) if i == 0 or value != values[i - 1]]


def _shared_losses(tries: list[dict]) -> list[str]:
    """Those of the first terms, l1 and hole, that every try has."""
    logged = [each["stages"][-1].get("recent", {}) for each in tries]
    return [term for term in ("l1", "hole") if all(term in each for each in logged)]


def _figures(metrics: dict | None, columns: list[str]) -> list[str]:
    return ["–" if not metrics else COLUMNS[c][1].format(metrics[c]) for c in columns]


def _flat(recipe: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in recipe.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return flat


def card_table(card: dict) -> str:
    """What a shipped model is, and a row for each stage of its training."""
    files = card["files"]
    recipe = card["recipe"]
    shown = {"width", "width_limit", "inner_levels", "membrane", "copying"}
    config = shown & recipe["config"].keys()
    shape = ", ".join(
        f"`{key}={json.dumps(recipe['config'][key])}`"
        for key in sorted(config)
        if recipe["config"][key]
    )
    worst = card["parity"]["ONNX file from the run"]
    total = card["total"]
    lines = [
        "| | |",
        "|---|---|",
        f"| network | `{card['method']}`, preset `{card['preset']}`, {shape}, "
        f"{card['parameters'] / 1e6:.2f} M parameters |",
        f"| trained on | {card['data']} |",
        f"| licence of the weights | {card['licence']} |",
        f"| ONNX file | {files['onnx']['bytes'] / 1e6:.1f} MB, float16, sha256 "
        f"`{files['onnx']['sha256'][:16]}`; at most {worst['max']:g} grey levels from the trained "
        "weights |",
        f"| Keras file | {files['keras']['bytes'] / 1e6:.1f} MB, sha256 "
        f"`{files['keras']['sha256'][:16]}` |",
        f"| compute | {total['minutes'] / 60:.1f} hours, {total['cpu_minutes'] / 60:.1f} hours of "
        f"all cores together; {card['hardware']} |",
        "",
        "| stage | photographs | size | holes | batch | rate | steps | minutes | CPU minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for number, stage in enumerate(card["stages"], 1):
        each = stage["recipe"]
        photographs = stage.get("photographs", "–").partition(",")[0]
        without = f", {each['ablation'].replace('_', ' ')}" if each.get("ablation") else ""
        lines.append(
            f"| {number}{without} | {photographs} | {each['image_size']} | {each['mask']} | "
            f"{each['batch_size']} | {each['learning_rate']:g} | {stage['steps']:,} | "
            f"{stage['minutes']:.0f} | {stage['cpu_minutes']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def settings_table(record: dict) -> str:
    """A row for each method in each setting, the bar under them, and what was not reached."""
    header = ["photographs", "hole", "method", *(name for name, _ in COLUMNS.values()), "known"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    missed, commands = [], {}
    for name, setting in record["settings"].items():
        for method, each in setting["methods"].items():
            first = method == setting["model"]
            place = [_place(setting), setting["hole"]]
            metrics, known = each["metrics"], each["known_change"]
            cells = [COLUMNS[c][1].format(metrics[c]) if c in metrics else "" for c in COLUMNS]
            cells += ["exact" if known == 0 else f"± {known}"]
            label = f"**`{method}`**" if first else method
            lines.append(f"| {' | '.join([*(place if first else ('', '')), label, *cells])} |")
        if setting["bars"]:
            sign = {"authors/psnr": "≥", "authors/ssim": "≥"}
            cells = [
                f"{sign.get(c, '≤')} {COLUMNS[c][1].format(setting['bars'][c])}"
                if c in setting["bars"]
                else ""
                for c in COLUMNS
            ]
            lines.append(f"| | | *bar* | {' | '.join(cells)} | exact |")
        missed += [f"* {name}: {problem}" for problem in setting["missed"]]
        commands.setdefault((setting["command"], setting["hardware"]), []).append(setting["count"])
    lines += ["", "Every bar is reached." if not missed else "Not reached:"]
    lines += ["", *missed] if missed else []
    for (command, hardware), counts in commands.items():
        number = " and ".join(f"{count:,}" for count in sorted(set(counts), reverse=True))
        lines += _made_by(
            f"{number} photographs of the test splits, protocol `authors`, all pixels of the "
            f"picture; `known`: largest change of a known pixel, in grey levels; {hardware}",
            [command],
        )
    return "\n".join(lines) + "\n"


def short_settings_table(record: dict) -> str:
    """A row for each setting: PSNR, SSIM and, where it was measured, LPIPS of every method."""
    names = ("authors/psnr", "authors/ssim", "lpips/alex")

    def cell(method: dict | None) -> str:
        if method is None:
            return "not yet measured"
        metrics = method["metrics"]
        return " / ".join(COLUMNS[c][1].format(metrics[c]) for c in names if c in metrics)

    settings = record["settings"].values()
    others = list(dict.fromkeys(m for each in settings for m in each["methods"]))
    others = [name for name in others if name not in {each["model"] for each in settings}]
    header = ["photographs", "hole", "model", "", *others]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for each in settings:
        place = _place(each)
        cells = [cell(each["methods"].get(n)) for n in (each["model"], *others)]
        lines.append(f"| {place} | {each['hole']} | `{each['model']}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def all_tries() -> str:
    """Every record in `results/training`, a section each; then what all of it took."""
    files = sorted((RESULTS / "training").glob("*.json"))
    if not files:
        return "No tries are recorded yet.\n"
    records = {file.stem: json.loads(file.read_text()) for file in files}
    sections = [f"## {name}\n\n{table(record)}" for name, record in records.items()]
    # A run may be a stage of several tries, and of a shipped model.
    stages = [stage for each in records.values() for t in each["tries"] for stage in t["stages"]]
    for card in sorted(CARDS.glob("*.json")):
        stages += json.loads(card.read_text())["stages"]
    runs = {(stage["run"], stage["steps"], stage["minutes"]): stage for stage in stages}.values()
    hours, cpu_hours = (sum(run[key] for run in runs) / 60 for key in ("minutes", "cpu_minutes"))
    total = (
        f"All {len(runs)} runs, those of the shipped models included: {hours:.1f} hours, "
        f"{cpu_hours:.1f} hours of all cores together.\n"
    )
    return "\n".join([*sections, total])


def table(record: dict) -> str:
    """The Markdown of one record: a row a method or a ratio, then what was measured and how."""
    forms = {"tries": training_table, "stages": card_table, "settings": settings_table}
    for key, form in forms.items():
        if key in record:
            return form(record)
    if "ratios" in record or "quantities" in record:
        ratios, quantities = record.get("ratios", {}), record.get("quantities", {})
        lines = ["| ratio of medians | |" if ratios else "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in ratios.items()]
        lines += [f"| {name} | {text} |" for name, text in quantities.items()]
        lines += _made_by(record["hardware"], [record["command"]])
        return "\n".join(lines) + "\n"
    columns = [name for name in COLUMNS if name in record["methods"][0]["metrics"]]
    compared = "verdicts" in record
    header = [*(COLUMNS[name][0] for name in columns), *(COST_COLUMNS if compared else ())]
    lines = [f"| method | {' | '.join(header)} |", "|---" * (len(header) + 1) + "|"]
    for method in record["methods"]:
        values = [COLUMNS[name][1].format(method["metrics"][name]) for name in columns]
        values += cost_cells(method) if compared else []
        lines.append(f"| {method['label']} | {' | '.join(values)} |")
    if compared:
        lines += ["", *(verdict_line(each) for each in record["verdicts"] if best_of(each))]
    lines += _made_by(
        f"{record['count']} photographs of the {record['split']} split, {_scaled(record)}, "
        f"{record['mask']} hole, protocol `authors`; {record['measured'][0]['hardware']}",
        [entry["command"] for entry in record["measured"]],
    )
    return "\n".join(lines) + "\n"


def _scaled(record: dict) -> str:
    """The size of the photographs and how they were scaled to it."""
    size, side = record["image_size"], record.get("shorter_side", record["image_size"])
    resampling = (BEFORE_RESAMPLING | record)["resampling"]
    scaled = f"{resampling} scaling" + ("" if side == size else f" to a shorter side of {side}")
    return f"{size} x {size}, {scaled}"


def _place(setting: dict) -> str:
    """A setting's photographs, and their scaling where it is not that of today's tests."""
    side, shorter_side = setting["side"], setting["shorter_side"]
    shape = "whole, shorter side " if setting.get("whole") else ""
    text = f"{DATASETS[setting['dataset']]}, {shape}{side} px"
    if shorter_side != side:
        text += f" of a shorter side of {shorter_side}"
    resampling = (BEFORE_RESAMPLING | setting)["resampling"]
    return text if resampling == "bicubic" else f"{text}, {resampling}"


def _made_by(what: str, commands: list[str]) -> list[str]:
    """The lines below a table: what was measured, and the commands."""
    return ["", f"{what}:", "", "```", *commands, "```"]


def cost_cells(method: dict) -> list[str]:
    """What a method of a comparison costs and how long it was trained, "–" where unknown."""
    cost, training = method.get("cost", {}), method.get("training", {})
    parameters, adds = cost.get("parameters"), cost.get("multiply_adds")
    steps, minutes = training.get("steps"), training.get("cpu_minutes")
    return [
        "–" if parameters is None else f"{parameters / 1e6:.2f} M",
        "–" if adds is None else f"{adds / 1e9:.2f} G",
        f"{cost['times_the_first']:.2f}" if cost else "–",
        "–" if steps is None else f"{steps:,}",
        "–" if minutes is None else f"{minutes:.1f}",
    ]


def best_of(verdict: dict) -> bool:
    """Whether a verdict is on a column of the table, and there is something to say."""
    return verdict["metric"] in COLUMNS and verdict["difference"] is not None


def verdict_line(verdict: dict) -> str:
    """Who wins by a metric, and whether the photographs can tell, as a line of a list."""
    name, form = COLUMNS[verdict["metric"]]
    first, second = verdict["ranking"][:2]
    text = f"* {name}: {first}, ahead of {second} by {form.format(verdict['difference'])}"
    if verdict["margin"] is not None:
        text += f" ± {form.format(verdict['margin'])}"
        text += "" if verdict["clear"] else ", a tie"
    return f"{text}; better on {verdict['wins']:.0%} of the photographs."


def with_tables(text: str) -> str:
    """`text` with every results block rewritten.

    Raises:
        ValueError: On a block whose `results/NAME.json` is not there.
    """

    def rewrite(match: re.Match) -> str:
        if match[2] == "training":
            return match[1] + all_tries() + match[3]
        form, _, name = match[2].rpartition("/")
        file = (CARDS if form == "card" else RESULTS) / f"{name}.json"
        if not file.is_file():
            raise ValueError(f"a document shows results:{match[2]}, and {file} is not there")
        write = short_settings_table if form == "short" else table
        return match[1] + write(json.loads(file.read_text())) + match[3]

    return BLOCK.sub(rewrite, text)


def keep(file: Path, record: dict) -> None:
    """Writes a record, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(record, indent=1) + "\n").encode())


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    usage = re.findall(r"python -m benchmarks\.publish_results (.*(?:\n {8}.*)?)", __doc__)
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="; ".join(" ".join(each.split()) for each in usage),
    )
    commands = parser.add_subparsers(dest="verb", required=True)
    add = commands.add_parser("add", help="keep the averages of evaluations")
    add.add_argument("name", help="results/NAME.json")
    add.add_argument(
        "evaluation",
        nargs="+",
        metavar="EVALUATION[=LABEL]",
        help="output of training.evaluate or training.compare",
    )
    add.add_argument("--run", action="append", default=[], metavar="LABEL=RUN")
    training = commands.add_parser("training", help="keep what was tried, and what came of it")
    training.add_argument("name", help="results/training/NAME.json")
    training.add_argument("tries", nargs="+", metavar="LABEL=RUN[,RUN...]")
    training.add_argument("--about", required=True, metavar="TEXT", help="what was asked")
    training.add_argument("--verdict", default="", metavar="TEXT", help="what was answered")
    training.add_argument(
        "--evaluation",
        nargs="+",
        default=[],
        metavar="EVALUATION[=LABEL]",
        help="output of training.evaluate or training.compare",
    )
    commands.add_parser("tables", help="rewrite the documents' tables")
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "add":
            runs = dict(pair.partition("=")[::2] for pair in arguments.run)
            labels = dict(pair.partition("=")[::2] for pair in arguments.evaluation)
            record = condense(
                {Path(folder): label for folder, label in labels.items()},
                {label: Path(run) for label, run in runs.items()},
            )
            keep(RESULTS / f"{arguments.name}.json", record)
            for file, content in documents([*map(Path, labels)], arguments.name).items():
                write_whole(RESULTS / file, content)
        elif arguments.verb == "training":
            tries = {}
            for text in arguments.tries:
                label, equals, runs = text.partition("=")
                if not (label and equals and runs) or label in tries:
                    raise ValueError(f"expected LABEL=RUN[,RUN...], each label once, got {text!r}")
                tries[label] = [Path(run) for run in runs.split(",")]
            labels = dict(pair.partition("=")[::2] for pair in arguments.evaluation)
            record = describe_tries(
                tries,
                {Path(folder): label for folder, label in labels.items()},
                arguments.about,
                arguments.verdict,
            )
            keep(RESULTS / "training" / f"{arguments.name}.json", record)
        for document in DOCUMENTS:
            write_whole(document, with_tables(document.read_text()).encode())
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
