"""Compares trained runs, exported files and classical methods: same photographs, same holes.

    python -m training.compare --dataset celeba --data-dir DIR --runs runs/a runs/b --output DIR

writes into the output folder

* `results.json`: every number, per image and averaged, with how each run was trained and what it
  costs;
* `results.md`: the tables: who wins by which metric, the papers' tables beside the papers' own
  figures, hole sizes, cost, training;
* `index.html` and `images/`: the same with the pictures, which pixels and positions the holes
  were filled from, and the learning curves of runs that were validated;
* `figure.png`: the first photographs of the split in the layout of the MUSICAL paper's Figures 3
  to 5; `images/ablations.png` in that of its Figure 6, where runs are ablations.

Files appear when all of them are finished, `results.json` last: where it is, the comparison is
whole. `training.evaluate` measures a single model with the same metrics.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf import named_models
from musical_tf.arguments import Parser
from musical_tf.run_directory import RunDirectory

from .evaluation import command_line, cost, drawings, page, published
from .evaluation.experiment import Experiment, with_ablation
from .evaluation.measuring import Candidate, Measured
from .evaluation.predictors import OnnxPredictor, Predictor, RunPredictor
from .evaluation.statistics import verdicts

RESERVED = ("input", "truth", "hole", "spread")
"""Names that pictures and menus of the page have already."""


class Comparison(Experiment):
    """At least two methods."""

    form = "musical-tf comparison 1"
    what = "comparison"
    files = ("index.html", "figure.png", "results.md", "results.json")
    default_protocols = ("authors", "hole", "deepfill", "lpips")

    def __init__(self, args: argparse.Namespace, command: str):
        self.first_images = max(args.figure_images, args.attention_images)
        super().__init__(args, command)
        seen: dict[str, Candidate] = {}
        for each in self.candidates:
            name, label = each.name, each.label
            if name in RESERVED:
                raise ValueError(f"{label!r} is no name for a method; choose another")
            if name in seen:
                sources = " and ".join(str(one.source or name) for one in (seen[name], each))
                raise ValueError(
                    f"two methods are called {label!r}: {sources}; "
                    "give one another name with NAME=PATH"
                )
            seen[name] = each

    def open_models(self, baselines: int) -> list[Candidate]:
        """The models of `--runs` and `--onnx`."""
        args = self.args
        if len(args.runs) + len(args.onnx) + baselines < 2:
            raise ValueError(
                "nothing to compare: give at least two of --runs, --onnx and --baselines; "
                "training.evaluate measures a single model"
            )
        runs = [_open(text, RunPredictor) for text in args.runs]
        return [*runs, *(_open(text, OnnxPredictor) for text in args.onnx)]

    def describe_candidate(self, candidate: Candidate) -> dict[str, Any]:
        """Its paper, and how it was trained."""
        model = candidate.predictor
        return {
            "method": candidate.name if model is None else model.method,
            "ablation": None if model is None else model.recipe.get("ablation"),
            "training": _training(candidate),
        }

    def describe(self, measured: Measured, methods: list[dict[str, Any]]) -> dict[str, Any]:
        """The methods with their cost, and who is best."""
        image, hole = measured.first[0].image[None], measured.first[0].hole[None]
        calls = {each.name: partial(each.fill, image, hole) for each in self.candidates}
        seconds = cost.take_turns(calls, self.args.rounds)
        reference = seconds[self.candidates[0].name]["median"]
        for candidate, method in zip(self.candidates, methods, strict=True):
            parameters = multiply_adds = None
            model = candidate.predictor
            if isinstance(model, RunPredictor):
                parameters = model.generator.count_params()
                mask = hole.astype(np.uint8) * np.uint8(255)
                multiply_adds = cost.count_multiply_adds(model.inpaint, image, mask)
            time = seconds[candidate.name]
            method["cost"] = {
                "parameters": parameters,
                "multiply_adds": multiply_adds,
                "seconds": time,
                "times_the_first": time["median"] / reference,
            }
        return {
            "rounds": self.args.rounds,
            "methods": methods,
            "verdicts": verdicts(measured.rows, methods),
        }

    def write(self, stage: Path, results: dict[str, Any], measured: Measured) -> None:
        """The page, and the figure in the paper's layout."""
        if self.args.no_photographs:
            page.write(stage, results, ())
            return
        items = []
        for sample in measured.first[: self.args.attention_images]:
            row = results["images"][sample.number]
            for candidate in self.candidates:
                title = f"{candidate.label}: {row['file']}"
                item, kept = self.explain(candidate, sample, title)
                items += [item] if item else []
                for kind, value in kept.items():
                    row.setdefault(kind, {})[candidate.name] = value
        figures = measured.first[: self.args.figure_images]
        page.write(stage, results, measured.samples, figures, items)
        columns = drawings.figure_columns(results)
        drawings.figure(columns, figures).save(stage / "figure.png")


def _open(text: str, opener: Callable[[str], Predictor]) -> Candidate:
    """`[NAME=]PATH` as a candidate; a path that has an equals sign itself and exists is a path."""
    label, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        label, path = "", text
    if equals and not path:
        raise ValueError(f"{text!r}: expected NAME=PATH, got no path")
    model = opener(path)
    label = label.strip() or (path if model.card is not None else _default_label(model))
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in label.lower()).split()
    return Candidate("-".join(words) or "model", label, model.kind, model.predict, path, model)


def _default_label(model: Predictor) -> str:
    method, _, rest = model.label.partition(" ")
    return with_ablation(f"{published.TITLES.get(method, method)} {rest}".strip(), model.recipe)


def _training(candidate: Candidate) -> dict[str, Any] | None:
    """How a run was trained, from its folder; None for what is no run folder."""
    model, source = candidate.predictor, candidate.source or ""
    if not isinstance(model, RunPredictor):
        return None
    if model.card is not None:
        return {"recipe": model.card["recipe"], **model.card["total"]}
    if not Path(source).is_dir():
        return None
    recipe = {key: value for key, value in model.recipe.items() if key != "data_dir"}
    run = RunDirectory(source)
    return {"recipe": recipe, **run.duration(), "validations": run.validations()}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="musical-compare",
        usage="musical-compare --runs RUN RUN ... --output DIR [options]",
        description="Compares trained runs, ONNX files and classical methods on the same "
        "photographs and holes, and writes tables, pictures, cost and learning curves.",
    )
    what = parser.add_argument_group("what to compare, at least two in all")
    what.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="[NAME=]RUN",
        help="run folders of training.fit or included models "
        f"({named_models.listed()}); the others are compared with the first; NAME is the name in "
        "the tables (default: method and preset, or the model's name)",
    )
    what.add_argument(
        "--onnx",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="files written by export/to_onnx.py",
    )
    command_line.add_baselines_argument(what)
    drawn = "photographs whose attentions and copies are drawn, the first of the split; 0: none"
    for flag, minimum, default, text in (
        ("--rounds", 1, 10, "runs of each method on one photograph, to measure time"),
        ("--figure-images", 1, 6, "photographs of the figure, the first of the split"),
        ("--attention-images", 0, 2, drawn),
    ):
        parser.add_argument(
            flag,
            type=command_line.at_least(minimum),
            default=default,
            metavar="N",
            help=f"{text} (default: {default})",
        )
    parser.add_argument(
        "--no-photographs",
        action="store_true",
        help="write tables only, for photographs that may not be shown",
    )
    command_line.add_arguments(parser, "the runs'", Comparison.default_protocols, page_images=40)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is that of `command_line.run`."""
    return command_line.run(build_parser(), "training.compare", argv, Comparison)


if __name__ == "__main__":
    sys.exit(main())
