"""Compares trained runs, exported files and classical methods: same photographs, same holes.

    python -m training.compare --dataset celeba --data-dir DIR --runs runs/a runs/b --output DIR

writes into the output folder

* `results.json`: every number, per image and averaged, with how each run was trained and what it
  costs;
* `results.md`: the tables: who wins by which metric, the papers' tables beside the papers' own
  figures, hole sizes, cost, training;
* `index.html` and `images/`: the same with the pictures, and where the attentions looked;
* `figure.png`: the first photographs of the split in the layout of the MUSICAL paper's Figures 3
  to 5; `images/ablations.png` in that of its Figure 6, where runs are ablations.

Files appear when all of them are finished, `results.json` last: where it is, the comparison is
whole. `training.evaluate` measures a single model with the same metrics.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.arguments import Parser
from musical_tf.run_directory import RunDirectory

from .data.datasets import DATASETS
from .evaluation import (
    attention_maps,
    compare_page,
    compare_report,
    cost,
    measuring,
    published,
    report,
)
from .evaluation.measuring import DEFAULT_IMAGE_SIZE, EvaluationSet, Method, OutputFolder
from .evaluation.predictors import OnnxPredictor, RunPredictor

FORMAT = "musical-tf comparison 1"
"""Names the layout of `results.json`; another layout gets another number."""

DEFAULT_PROTOCOLS = ("authors", "hole", "deepfill", "lpips")

FILES = ("index.html", "figure.png", "results.md", "results.json")

SHARED_OPTIONS = {"dataset": "--dataset", "image_size": "--image-size", "mask": "--mask"}
"""Keys of a recipe that become the comparison's where all runs agree -> the flag where not."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="musical-compare",
        description="Compare trained runs, ONNX files and classical methods on the same "
        "photographs and holes: tables beside the papers' own, pictures, cost, training.",
    )
    what = parser.add_argument_group("what to compare, at least two in all")
    what.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="[NAME=]RUN",
        help="run directories written by training.fit, or names of models that are part of the "
        "package (faces, photo), the one that the others are compared with first; NAME is what "
        "tables call it, by default method and preset, or the model's own",
    )
    what.add_argument(
        "--onnx",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="files written by export/to_onnx.py",
    )
    measuring.add_baselines_argument(what)
    measuring.add_data_arguments(parser, "the runs'", DATASETS)
    parser.add_argument(
        "--rounds",
        type=measuring.at_least(1),
        default=10,
        metavar="N",
        help="times each method fills one photograph alone, in turns with the others (10)",
    )
    parser.add_argument(
        "--figure-images",
        type=measuring.at_least(1),
        default=6,
        metavar="N",
        help="photographs of the figure, the first of the split (6)",
    )
    parser.add_argument(
        "--attention-images",
        type=measuring.at_least(0),
        default=2,
        metavar="N",
        help="photographs of which every attention is drawn, the first of the split; 0 for none "
        "(2)",
    )
    parser.add_argument(
        "--no-photographs",
        action="store_true",
        help="tables alone, on the page too: for photographs that may not be passed on",
    )
    measuring.add_measuring_arguments(parser, DEFAULT_PROTOCOLS, page_images=40)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments; None takes the process' own.

    Returns:
        0, 2 for bad usage or input, 1 for a failure while measuring, 130 when interrupted.
    """
    # TensorFlow's chatter would bury the one line that matters; what fails raises as well.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    argv = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", "-m", "training.compare", *argv])

    def finish(args: argparse.Namespace, results: dict[str, Any]) -> None:
        print(compare_report.markdown(results))
        print(f"Page: {Path(args.output) / 'index.html'}")

    return measuring.run_command(
        build_parser(), argv, lambda args: Comparison(args, command).run, finish
    )


@dataclass(frozen=True)
class Entry:
    """One method of the comparison.

    Args:
        method: What is measured.
        source: Run directory or file; None for a baseline.
        predictor: What runs it; None for a baseline.
    """

    method: Method
    source: str | None = None
    predictor: RunPredictor | OnnxPredictor | None = None


class Comparison:
    """One comparison: everything that can be wrong is found on construction, `run` measures.

    Args:
        args: What `build_parser` parsed.
        command: The command line, for the record.

    Raises:
        OSError, ValueError, ModuleNotFoundError: On bad input; the message names it.
    """

    def __init__(self, args: argparse.Namespace, command: str):
        self.command = command
        self.output = OutputFolder(args.output, FORMAT, FILES, "comparison")
        names = measuring.choose_baselines(args.baselines)
        if len(args.runs) + len(args.onnx) + len(names) < 2:
            raise ValueError(
                "nothing to compare: give at least two of --runs, --onnx and --baselines; "
                "training.evaluate measures a single model"
            )
        self.entries = [_open(text, _open_run) for text in args.runs]
        self.entries += [_open(text, OnnxPredictor) for text in args.onnx]
        self.entries += [Entry(method) for method in measuring.baseline_methods(names)]
        _check_names(self.entries)
        shared = _shared_options(self.entries, args)
        size = shared["image_size"] or DEFAULT_IMAGE_SIZE
        self.protocols = measuring.choose_protocols(args.protocol, DEFAULT_PROTOCOLS, size)
        recipes = [entry.predictor.recipe for entry in self.entries if entry.predictor]
        of_dataset = [each for each in recipes if each.get("dataset") == shared["dataset"]]
        data_dir = args.data_dir or next((each.get("data_dir") for each in of_dataset), None)
        self.set = EvaluationSet(
            shared["dataset"],
            data_dir,
            args.split,
            size,
            args.shorter_side,
            str(shared["mask"] or "center"),
            args.limit,
        )
        self.batch_size = args.batch_size
        self.page_images = args.page_images
        self.rounds = args.rounds
        self.figure_images = args.figure_images
        self.attention_images = args.attention_images
        self.has_photographs = not args.no_photographs

    def run(self) -> dict[str, Any]:
        """Measures, writes the output folder and returns the results.

        Raises:
            OSError: If it cannot be written; what an earlier comparison left there is untouched.
            ValueError: If not one photograph can be read.
            RuntimeError: If a model fails.
        """
        with self.output.staging() as stage:
            measured = measuring.measure(
                [entry.method for entry in self.entries],
                self.set,
                self.protocols,
                self.batch_size,
                self.page_images,
                first=max(self.figure_images, self.attention_images),
            )
            results = self._describe(measured)
            if self.has_photographs:
                figures = measured.first[: self.figure_images]
                attentions = self._attention_maps(results, measured.first[: self.attention_images])
                compare_page.write(stage, results, measured.samples, figures, attentions)
                compare_report.figure(results, figures).save(stage / "figure.png")
            else:
                compare_page.write(stage, results, (), ())
            (stage / "results.md").write_text(compare_report.markdown(results), encoding="utf-8")
            self.output.publish(stage, results)
        return results

    def _describe(self, measured: measuring.Measured) -> dict[str, Any]:
        rows = measured.rows
        costs = self._costs(measured.first[0])
        described = []
        for entry in self.entries:
            name = entry.method.name
            recipe = entry.predictor.recipe if entry.predictor else {}
            described.append(
                {
                    "name": name,
                    "label": entry.method.label,
                    "kind": entry.method.kind,
                    "method": _method_of(entry),
                    "ablation": recipe.get("ablation"),
                    "source": entry.source,
                    "sha256": entry.predictor.source_hash if entry.predictor else None,
                    "training": _training(entry),
                    "cost": costs[name],
                    "seconds_per_image": measured.seconds[name] / len(rows),
                    "aggregates": report.aggregate(rows, name),
                }
            )
        return {
            "format": FORMAT,
            "command": self.command,
            **measuring.describe_program(),
            **self.set.describe(self.protocols, len(rows)),
            "batch_size": self.batch_size,
            "rounds": self.rounds,
            "methods": described,
            "verdicts": compare_report.verdicts(rows, described),
            "images": rows,
        }

    def _costs(self, sample: report.Sample) -> dict[str, dict[str, Any]]:
        """Parameters, multiply-adds and time of each method, for one photograph alone."""
        images, holes = sample.image[None], sample.hole[None]

        def call(method: Method) -> Callable[[], Any]:
            return lambda: method.fill(images, holes)

        seconds = cost.take_turns(
            {entry.method.name: call(entry.method) for entry in self.entries}, self.rounds
        )
        reference = seconds[self.entries[0].method.name]["median"]
        costs = {}
        for entry in self.entries:
            parameters = multiply_adds = None
            if isinstance(entry.predictor, RunPredictor):
                parameters = entry.predictor.generator.count_params()
                mask = holes.astype(np.uint8) * np.uint8(255)
                multiply_adds = cost.count_multiply_adds(entry.predictor.inpaint, images, mask)
            time = seconds[entry.method.name]
            costs[entry.method.name] = {
                "parameters": parameters,
                "multiply_adds": multiply_adds,
                "seconds": time,
                "times_the_first": time["median"] / reference,
            }
        return costs

    def _attention_maps(
        self, results: dict[str, Any], samples: Sequence[report.Sample]
    ) -> list[attention_maps.Item]:
        """Where each attention looked, a photograph and method an item; kept in the results too."""
        items = []
        for sample in samples:
            row = results["images"][sample.number]
            for entry in self.entries:
                maps = _look(entry, sample)
                if not maps:
                    continue
                name = entry.method.name
                row.setdefault("attention", {})[name] = {
                    scale: attention_maps.summarize(each) for scale, each in maps.items()
                }
                items.append(
                    attention_maps.Item(
                        title=f"{entry.method.label}: {row['file']}",
                        stem=f"{sample.number:05d}-{report.slug(name)}",
                        image=sample.image,
                        result=sample.predictions[name],
                        maps=maps,
                    )
                )
        return items


def _look(entry: Entry, sample: report.Sample) -> dict[str, Any]:
    """Scale -> attention map of a run for one photograph; empty where there is no attention."""
    if not isinstance(entry.predictor, RunPredictor):
        return {}
    generator = entry.predictor.generator
    config = generator.config
    # Shift-Net's is called after its paper; Context Encoder and GLC have none of the kind.
    attentive = getattr(config, "attention", getattr(config, "shift", False))
    if not attentive or any(side % generator.size_multiple for side in sample.hole.shape):
        return {}
    return entry.predictor.attention_maps(sample.image[None], sample.hole[None])


def _open_run(path: str) -> RunPredictor:
    from musical_tf import named_models

    folder = RunDirectory(path)
    if not named_models.is_name(path) and folder.is_run and not folder.weights.is_file():
        raise FileNotFoundError(
            f"run {path}: it has no weights yet, there is no {folder.weights.name}; training "
            "writes it with the first checkpoint"
        )
    return RunPredictor(path)


def _open(text: str, opener: Callable[[str], RunPredictor | OnnxPredictor]) -> Entry:
    """`[NAME=]PATH` as an entry; a path that has an equals sign itself and exists is a path."""
    label, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        label, path = "", text
    if equals and not path:
        raise ValueError(f"{text!r}: expected NAME=PATH, got no path")
    predictor = opener(path)
    is_named = getattr(predictor, "card", None) is not None
    label = label.strip() or (path if is_named else _default_label(predictor))
    method = Method(_slug(label), label, predictor.kind, predictor.predict, compiles=True)
    return Entry(method, path, predictor)


def _default_label(predictor: RunPredictor | OnnxPredictor) -> str:
    method, _, rest = predictor.label.partition(" ")
    label = f"{published.TITLES.get(method, method)} {rest}".strip()
    ablation = predictor.recipe.get("ablation")
    return f"{label}, {ablation.replace('_', ' ')}" if ablation else label


def _slug(label: str) -> str:
    words = "".join(c if c.isalnum() and c.isascii() else " " for c in label.lower()).split()
    return "-".join(words) or "model"


def _check_names(entries: Sequence[Entry]) -> None:
    """Two rows of one name could not be told apart.

    Raises:
        ValueError: Naming both.
    """
    seen: dict[str, Entry] = {}
    for entry in entries:
        name = entry.method.name
        if name in ("input", "truth", "hole", "spread"):
            raise ValueError(f"{entry.method.label!r} is no name for a method; choose another")
        if name in seen:
            sources = " and ".join(str(each.source or name) for each in (seen[name], entry))
            raise ValueError(
                f"two methods are called {entry.method.label!r}: {sources}; "
                "give one another name with NAME=PATH"
            )
        seen[name] = entry


def _shared_options(entries: Sequence[Entry], args: argparse.Namespace) -> dict[str, Any]:
    """Dataset, image size and mask: the flags', or what all models were trained on.

    Raises:
        ValueError: Where there is no flag and the models differ, or no dataset is known.
    """
    shared = {}
    for key, flag in SHARED_OPTIONS.items():
        given = getattr(args, key)
        found = {}
        for entry in entries:
            if entry.predictor is None:
                continue
            size = entry.predictor.training_size
            value = size if key == "image_size" else entry.predictor.recipe.get(key)
            if value is not None:
                found.setdefault(value, entry.method.label)
        if given is None and len(found) > 1:
            whose = ", ".join(f"{label} {value}" for value, label in found.items())
            raise ValueError(
                f"the runs differ in {key.replace('_', ' ')}: {whose}; "
                f"say with {flag} what all are measured at"
            )
        shared[key] = given if given is not None else next(iter(found), None)
    if shared["dataset"] is None:
        raise ValueError(f"--dataset is missing; choose from {', '.join(DATASETS)}")
    if shared["image_size"] is None and any(entry.predictor for entry in entries):
        raise ValueError("no model names its training size; give --image-size")
    return shared


def _method_of(entry: Entry) -> str | None:
    """The registry key of a model, the name of a baseline; None where a file does not say."""
    if entry.predictor is None:
        return entry.method.name
    if isinstance(entry.predictor, OnnxPredictor):
        return entry.predictor.metadata.get("method")
    return entry.predictor.generator.method


def _training(entry: Entry) -> dict[str, Any] | None:
    """How a run was trained, from its folder; None for what is no run folder."""
    folder = Path(entry.source) if entry.source else None
    if entry.method.kind != "run":
        return None
    if entry.predictor.card is not None:
        card = entry.predictor.card
        return {"recipe": card["recipe"], **card["total"]}
    if not folder.is_dir():
        return None
    recipe = {key: value for key, value in entry.predictor.recipe.items() if key != "data_dir"}
    return {"recipe": recipe, **RunDirectory(folder).duration()}


if __name__ == "__main__":
    sys.exit(main())
