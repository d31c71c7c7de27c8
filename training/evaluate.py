"""Measures a trained run or an exported ONNX file on a dataset's photographs.

    python -m training.evaluate --dataset celeba --data-dir DIR --run runs/celeba --output DIR

writes into the output folder

* `results.json`: every number, per image and averaged, with what is needed to measure it again;
* `results.md`: the table, per protocol and per hole size;
* `index.html` and `images/`: input, result and truth side by side, worst or best first;
* `contact_sheet.png`: the worst and the best as one picture.

With `--attention-maps` the page also shows which known positions the holes were filled from, and
which known pixels were copied into them. With `--baselines` the same photographs and holes go
through the classical methods of `training.evaluation.baselines` too; without `--run` and `--onnx`
through nothing else. Files appear when all of them are finished, `results.json` last: where it is,
the evaluation is whole.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf import named_models
from musical_tf.arguments import Parser

from .evaluation import command_line, drawings, page
from .evaluation.experiment import Experiment, with_ablation
from .evaluation.measuring import Candidate, Measured
from .evaluation.predictors import OnnxPredictor, Predictor, RunPredictor
from .evaluation.statistics import first_ranked, worst_and_best

ATTENTION_IMAGES = 8
"""How many images `--attention-maps` means without a number."""


class Evaluation(Experiment):
    """One model, baselines, or both."""

    form = "musical-tf evaluation 1"
    what = "evaluation"
    files = ("index.html", "contact_sheet.png", "results.md", "results.json")
    default_protocols = ("authors", "hole", "lpips")

    def __init__(self, args: argparse.Namespace, command: str):
        super().__init__(args, command)
        if args.attention_maps is None:
            return
        # Now: a generator would only say so after everything has been measured.
        model = self.candidates[0].predictor
        if model is None or (model.kind == "onnx" and not model.copies):
            raise ValueError(
                "--attention-maps needs --run, or a file with the output source: other files "
                "return only the result"
            )
        blank = np.zeros((1, self.test.image_size, self.test.image_size, 3), np.uint8)
        if model.has_attention or not model.copies:
            try:
                model.attention_maps(blank, self.test.holes.deterministic(0)[None])
            except ValueError as error:
                raise ValueError(f"--attention-maps: {error}") from error

    def open_models(self, baselines: int) -> list[Candidate]:
        """The model of `--run` or `--onnx`."""
        source = self.args.run or self.args.onnx
        if source is None:
            if not baselines:
                raise ValueError("nothing to measure: give --run DIR, --onnx FILE or --baselines")
            return []
        model: Predictor = RunPredictor(source) if self.args.run else OnnxPredictor(source)
        label = with_ablation(model.label, model.recipe)
        return [Candidate("model", label, model.kind, model.predict, source, model)]

    def write(self, stage: Path, results: dict[str, Any], measured: Measured) -> None:
        """The page and the contact sheet."""
        rows, samples = measured.rows, measured.samples
        items = []
        if self.args.attention_maps is not None:
            ranking = first_ranked("model", rows[0])
            for sample in worst_and_best(rows, samples, ranking, self.args.attention_maps):
                row = rows[sample.number]
                item, kept = self.explain(self.candidates[0], sample, row["file"])
                row |= kept
                items += [item] if item else []
        page.write(stage, results, samples, attentions=items)
        drawings.contact_sheet(results, samples).save(stage / "contact_sheet.png")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="musical-evaluate",
        usage="musical-evaluate (--run RUN | --onnx FILE | --baselines) --output DIR [options]",
        description="Measures a trained run or an ONNX file, and writes tables, a contact sheet "
        "and a page of the images side by side, worst first.",
    )
    what = parser.add_argument_group("what to measure (one of the two, or --baselines alone)")
    model = what.add_mutually_exclusive_group()
    model.add_argument(
        "--run",
        metavar="RUN",
        help="run folder of training.fit, its best.keras, or an included model: "
        f"{named_models.listed()}",
    )
    model.add_argument("--onnx", metavar="FILE", help="file written by export/to_onnx.py")
    command_line.add_baselines_argument(parser)
    parser.add_argument(
        "--attention-maps",
        type=command_line.at_least(2),
        nargs="?",
        const=ATTENTION_IMAGES,
        metavar="N",
        help="show for N images, half of them the worst and half the best, which known positions "
        f"the hole was filled from (default N: {ATTENTION_IMAGES}); needs --run, or a file of a "
        "model that copies",
    )
    command_line.add_arguments(parser, "the model's", Evaluation.default_protocols, page_images=100)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit code is that of `command_line.run`."""
    return command_line.run(build_parser(), "training.evaluate", argv, Evaluation)


if __name__ == "__main__":
    sys.exit(main())
