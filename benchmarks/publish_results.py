"""Keeps measured numbers in `results/` and writes the documents' tables from them.

    python -m benchmarks.publish_results add NAME EVALUATION[=LABEL]... [--run LABEL=RUN ...]
    python -m benchmarks.publish_results training NAME --about TEXT [--verdict TEXT]
        LABEL=RUN[,RUN...]... [--evaluation EVALUATION[=LABEL] ...]
    python -m benchmarks.publish_results tables

`add` takes folders that `python -m training.evaluate` or `training.compare` wrote on the same
photographs and holes, and keeps averages, commands, commits and hardware as `results/NAME.json`;
LABEL renames the evaluation's model, and `--run` adds how its weights were trained. A comparison
adds training and cost, its tables as `results/NAME.md` and its page as `results/NAME.html`.
`training` keeps all tries, the failed ones too, as `results/training/NAME.json`, with the figures
of evaluations. An evaluation's model belongs to a try if LABEL is the try's, or if it was made from
the try's last run folder. `tables` rewrites every block `<!-- results:NAME -->` ... `<!-- /results
-->` of `DOCUMENTS` from `results/NAME.json`, and the plots.
`results:card/NAME` is the card of a model of the package, `results:short/NAME` a record of settings
in a row each, and `results:training` all records of tries."""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import measure, plots, result_tables
from benchmarks.result_tables import Record
from export.ship import describe_stage, describe_stages
from musical_tf import named_models
from musical_tf.files import write_whole
from training.evaluation import page as comparison_page

ROOT, RESULTS = measure.ROOT, measure.RESULTS
CARDS = named_models.FOLDER
DOCUMENTS = tuple(
    ROOT / name
    for name in (
        *("README.md", "MODEL_CARD.md", "docs/onnx.md", "docs/performance.md", "docs/results.md"),
        *("docs/server.md", "docs/training_log.md"),
    )
)
BLOCK = re.compile(r"(<!-- results:([\w/-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)

SAME_PHOTOGRAPHS = (
    *("dataset", "split", "image_size", "shorter_side", "resampling", "mask", "count", "protocols"),
)
KEPT = ("command", "created", "commit", "hardware", "software")
COMPARED = ("cost", "training")
"""What a method of a comparison has beyond one of an evaluation."""


# ---- records


def read_evaluations(folders: Iterable[Path]) -> tuple[Record, dict[Path, Record]]:
    """What evaluations of the same photographs and holes share, and their results by folder.

    Raises:
        ValueError: If they did not measure the same.
    """
    shared: Record = {}
    found: dict[Path, Record] = {}
    for folder in folders:
        source = json.loads((folder / "results.json").read_text())
        complete = result_tables.BEFORE_RESAMPLING | source
        photographs = {key: complete[key] for key in SAME_PHOTOGRAPHS}
        if found and photographs != shared:
            different = ", ".join(k for k in SAME_PHOTOGRAPHS if shared[k] != photographs[k])
            raise ValueError(f"{folder} differs from {next(iter(found))} in {different}")
        shared, found[folder] = photographs, source
    measured = [{key: source[key] for key in KEPT} for source in found.values()]
    return shared | {"measured": measured}, found


def condense(evaluations: dict[Path, str], runs: dict[str, Path]) -> Record:
    """Merges evaluations of the same photographs into one record without single images.

    Args:
        evaluations: Folder with a `results.json` -> label of its model, "" to keep its own.
        runs: Label of a method -> run folder that trained it.
    """
    record, sources = read_evaluations(evaluations)
    methods, verdicts = [], []
    for folder, source in sources.items():
        label = evaluations[folder]
        if label and "verdicts" in source:
            raise ValueError(f"{folder} is a comparison, whose methods have labels: {label!r}")
        for method in source["methods"]:
            kept = {
                "label": label if label and method["kind"] != "baseline" else method["label"],
                "seconds_per_image": method["seconds_per_image"],
                "metrics": method["aggregates"]["all"]["metrics"],
            }
            methods.append(kept | {key: method[key] for key in COMPARED if method.get(key)})
        labels = {method.get("name"): method["label"] for method in source["methods"]}
        verdicts += [
            {**verdict, "ranking": [labels[name] for name in verdict["ranking"]]}
            for verdict in source.get("verdicts", ())
        ]
    known = [method["label"] for method in methods]
    for label in runs:
        if label not in known:
            raise ValueError(f"--run names {label!r}, which is none of {', '.join(known)}")
    record |= {"methods": methods, "training": {}}
    for label, run in runs.items():
        stage = describe_stage(run)
        kept = ("recipe", "minutes", "cpu_minutes", "last")
        record["training"][label] = {key: stage[key] for key in kept}
    return record | ({"verdicts": verdicts} if verdicts else {})


def documents(folders: Sequence[Path], name: str) -> dict[str, bytes]:
    """A single comparison's tables and its page without photographs -> file in `results/`."""
    if len(folders) != 1 or not (folders[0] / "results.md").is_file():
        return {}
    results = json.loads((folders[0] / "results.json").read_text())
    if "verdicts" not in results:  # an evaluation, which has a table only
        return {}
    with tempfile.TemporaryDirectory() as folder:
        comparison_page.write(Path(folder), results, ())
        page = (Path(folder) / "index.html").read_bytes()
    return {f"{name}.md": (folders[0] / "results.md").read_bytes(), f"{name}.html": page}


def describe_tries(
    tries: dict[str, list[Path]], evaluations: dict[Path, str], about: str, verdict: str
) -> Record:
    """The record of a question that training runs were to answer.

    Args:
        tries: Label -> run folders, its stages in order.
        evaluations: Folder with a `results.json` -> label of the try of its model, "" to find it
            by the run folder that it was made from.
        about: The question, in words.
        verdict: The answer, in words; "" for none yet.
    """
    last = {runs[-1].resolve().name: label for label, runs in tries.items()}
    shared, sources = read_evaluations(evaluations)
    metrics = {}
    for folder, source in sources.items():
        for method in source["methods"]:
            label = method["label"]
            if method["kind"] != "baseline":
                made_from = Path(method.get("source") or "").name
                label = evaluations[folder] or last.get(made_from)
                if label not in tries:
                    raise ValueError(
                        f"{folder}: {method['label']} is none of the tries {', '.join(tries)}; say "
                        f"which with {folder}=LABEL"
                    )
            metrics[label] = method["aggregates"]["all"]["metrics"]
    described = [
        {"label": label, "stages": describe_stages(runs), "metrics": metrics.pop(label, None)}
        for label, runs in tries.items()
    ]
    return {"about": about, "verdict": verdict, **shared, "tries": described, "beside": metrics}


# ---- documents


def all_tries() -> str:
    """Every record in `results/training`, a section each; then the total of their time."""
    files = sorted((RESULTS / "training").glob("*.json"))
    if not files:
        return "No tries are recorded yet.\n"
    records = {file.stem: json.loads(file.read_text()) for file in files}
    sections = [f"## {name}\n\n{result_tables.table(each)}" for name, each in records.items()]
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


def with_tables(text: str) -> str:
    """`text` with every results block rewritten.

    Raises:
        ValueError: On a block whose `results/NAME.json` is missing.
    """

    def rewrite(match: re.Match) -> str:
        if match[2] == "training":
            return match[1] + all_tries() + match[3]
        form, _, name = match[2].rpartition("/")
        file = (CARDS if form == "card" else RESULTS) / f"{name}.json"
        if not file.is_file():
            raise ValueError(f"a document shows results:{match[2]}, and {file} is not there")
        return match[1] + result_tables.table(json.loads(file.read_text()), form) + match[3]

    return BLOCK.sub(rewrite, text)


def _parser() -> argparse.ArgumentParser:
    head, usage, *_ = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=head, epilog=" ".join(usage.split()))
    commands = parser.add_subparsers(dest="verb", required=True)
    add = commands.add_parser("add", help="keep the averages of evaluations")
    add.add_argument("name", help="results/NAME.json")
    add.add_argument("evaluation", nargs="+", metavar="EVALUATION[=LABEL]")
    add.add_argument("--run", action="append", default=[], metavar="LABEL=RUN")
    training = commands.add_parser("training", help="keep tries and their figures")
    training.add_argument("name", help="results/training/NAME.json")
    training.add_argument("tries", nargs="+", metavar="LABEL=RUN[,RUN...]")
    training.add_argument("--about", required=True, metavar="TEXT", help="the question")
    training.add_argument("--verdict", default="", metavar="TEXT", help="the answer")
    training.add_argument("--evaluation", nargs="+", default=[], metavar="EVALUATION[=LABEL]")
    commands.add_parser("tables", help="rewrite the documents' tables and plots")
    return parser


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """`KEY[=VALUE]` strings."""
    return dict(text.partition("=")[::2] for text in texts)


def _evaluations(arguments: argparse.Namespace) -> dict[Path, str]:
    return {Path(folder): label for folder, label in _pairs(arguments.evaluation).items()}


def add(arguments: argparse.Namespace) -> None:
    evaluations = _evaluations(arguments)
    runs = {label: Path(run) for label, run in _pairs(arguments.run).items()}
    measure.keep(arguments.name, condense(evaluations, runs), RESULTS)
    for file, content in documents(list(evaluations), arguments.name).items():
        write_whole(RESULTS / file, content)


def training(arguments: argparse.Namespace) -> None:
    tries = {label: runs.split(",") for label, runs in _pairs(arguments.tries).items()}
    if len(tries) < len(arguments.tries) or any("" in (k, *v) for k, v in tries.items()):
        got = " ".join(arguments.tries)
        raise ValueError(f"expected LABEL=RUN[,RUN...], each label once, got {got}")
    folders = {label: [Path(run) for run in runs] for label, runs in tries.items()}
    words = arguments.about, arguments.verdict
    record = describe_tries(folders, _evaluations(arguments), *words)
    measure.keep(arguments.name, record, RESULTS / "training")


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    verbs = {"add": add, "training": training, "tables": lambda _: None}
    try:
        verbs[arguments.verb](arguments)
        for document in DOCUMENTS:
            write_whole(document, with_tables(document.read_text()).encode())
        plots.write(RESULTS, ROOT / "docs" / "images")
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
