"""Keeps measured numbers in `results/` and writes the README's tables from them.

    python -m benchmarks.publish_results add NAME EVALUATION[=LABEL]... [--run LABEL=RUN ...]
    python -m benchmarks.publish_results tables

`add` takes folders that `python -m training.evaluate` or `training.compare` wrote on the same
photographs and holes, drops the rows of single images and keeps the averages, commands, commits and
hardware as `results/NAME.json`; LABEL renames the evaluation's model, and `--run` adds how its
weights were trained, from a run folder. A comparison brings training and cost along, its
tables as `results/NAME.md` and, made with `--no-photographs`, its page as `results/NAME.html`.
`tables` rewrites every block `<!-- results:NAME -->` ... `<!-- /results -->` of the README and of
docs/performance.md, from such a record or from the ratios that a benchmark left. The tests hold
both documents to what `tables` writes.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from serving.images import write_bytes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "docs" / "performance.md")
BLOCK = re.compile(r"(<!-- results:([\w-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)

SAME_PHOTOGRAPHS = ("dataset", "split", "image_size", "shorter_side", "mask", "count", "protocols")
KEPT = ("command", "created", "commit", "hardware", "software")
COMPARED = ("cost", "training")
"""What a method of a comparison has beyond one of an evaluation."""

COLUMNS = {
    "authors/psnr": ("PSNR", "{:.2f} dB"),
    "authors/ssim": ("SSIM", "{:.4f}"),
    "authors/l1_percent": ("l1", "{:.3f} %"),
    "lpips/alex": ("LPIPS", "{:.4f}"),
}

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
        shared = {key: source[key] for key in SAME_PHOTOGRAPHS}
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
    """A single comparison's own documents that need no other file -> file in `results/`."""
    if len(folders) != 1 or not (folders[0] / "results.md").is_file():
        return {}
    found = {f"{name}.md": (folders[0] / "results.md").read_bytes()}
    if not (folders[0] / "images").exists():
        found[f"{name}.html"] = (folders[0] / "index.html").read_bytes()
    return found


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
    """The recipe of a run, without the place its photographs lay in, and its last losses."""
    recipe = json.loads((run / "recipe.json").read_text())
    recipe.pop("data_dir")
    lines = (run / "log.jsonl").read_text().splitlines()
    parts = json.loads((run / "time.json").read_text())
    minutes, cpu_minutes = (
        round(sum(part[name] for part in parts) / 60, 1) for name in ("seconds", "cpu_seconds")
    )
    return {
        "recipe": recipe,
        "minutes": minutes,
        "cpu_minutes": cpu_minutes,
        "last": json.loads(lines[-1]),
    }


def table(record: dict) -> str:
    """The Markdown of one record: a row a method or a ratio, then what was measured and how."""
    if "ratios" in record or "quantities" in record:
        ratios, quantities = record.get("ratios", {}), record.get("quantities", {})
        lines = ["| ratio of medians | |" if ratios else "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in ratios.items()]
        lines += [f"| {name} | {text} |" for name, text in quantities.items()]
        lines += ["", f"{record['hardware']}:", "", "```", record["command"], "```"]
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
    size = record["image_size"]
    lines += [
        "",
        f"{record['count']} photographs of the {record['split']} split, {size} x {size}, "
        f"{record['mask']} hole, protocol `authors`; {record['measured'][0]['hardware']}:",
        "",
        "```",
        *(entry["command"] for entry in record["measured"]),
        "```",
    ]
    return "\n".join(lines) + "\n"


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
        file = RESULTS / f"{match[2]}.json"
        if not file.is_file():
            raise ValueError(f"a document shows results:{match[2]}, and {file} is not there")
        return match[1] + table(json.loads(file.read_text())) + match[3]

    return BLOCK.sub(rewrite, text)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
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
            RESULTS.mkdir(exist_ok=True)
            text = json.dumps(record, indent=1) + "\n"
            write_bytes(RESULTS / f"{arguments.name}.json", text.encode())
            for file, content in documents([*map(Path, labels)], arguments.name).items():
                write_bytes(RESULTS / file, content)
        for document in DOCUMENTS:
            write_bytes(document, with_tables(document.read_text()).encode())
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
