"""Measures a trained run or an exported ONNX file on a dataset's photographs.

    python -m training.evaluate --dataset celeba --data-dir DIR --run runs/celeba --output DIR

writes into the output folder

* `results.json`: every number, per image and averaged, with what is needed to measure it again;
* `results.md`: the table, per protocol and per hole size;
* `index.html` and `images/`: input, result and truth side by side, worst or best first;
* `contact_sheet.png`: the worst and the best as one picture.

With `--attention-maps` the page also shows which known positions the holes were filled from. With
`--baselines` the same photographs and holes go through the classical methods of
`training.evaluation.baselines` too; without `--run` and `--onnx` through nothing else. Files appear
when all of them are finished, `results.json` last: where it is, the evaluation is whole.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from musical_tf.arguments import Parser

from .data.datasets import DATASETS
from .evaluation import attention_maps, measuring, report
from .evaluation.measuring import DEFAULT_IMAGE_SIZE, EvaluationSet, Method, OutputFolder
from .evaluation.predictors import OnnxPredictor, RunPredictor

FORMAT = "musical-tf evaluation 1"
"""Names the layout of `results.json`; another layout gets another number."""

DEFAULT_PROTOCOLS = ("authors", "hole", "lpips")

ATTENTION_IMAGES = 8
"""How many images `--attention-maps` means without a number."""

FILES = ("index.html", "contact_sheet.png", "results.md", "results.json")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="musical-evaluate",
        description="Measure a trained run or an ONNX file: tables, a contact sheet and a page of "
        "the images side by side, worst first.",
    )
    model = parser.add_argument_group("what to measure (one of both, or --baselines alone)")
    model = model.add_mutually_exclusive_group()
    model.add_argument(
        "--run",
        metavar="RUN",
        help="run directory written by training.fit, or the name of a model that is part of the "
        "package: faces, photo",
    )
    model.add_argument("--onnx", metavar="FILE", help="file written by export/to_onnx.py")
    measuring.add_baselines_argument(parser)
    measuring.add_data_arguments(parser, "the model's", DATASETS)
    parser.add_argument(
        "--attention-maps",
        type=measuring.at_least(2),
        nargs="?",
        const=ATTENTION_IMAGES,
        metavar="N",
        help="show for N images, half of them the worst and half the best, which known positions "
        f"the hole was filled from ({ATTENTION_IMAGES} without a number); needs --run",
    )
    measuring.add_measuring_arguments(parser, DEFAULT_PROTOCOLS, page_images=100)
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
    command = shlex.join(["python", "-m", "training.evaluate", *argv])

    def finish(args: argparse.Namespace, results: dict[str, Any]) -> None:
        print(report.markdown(results))
        print(f"Page: {Path(args.output) / 'index.html'}")

    return measuring.run_command(
        build_parser(), argv, lambda args: Evaluation(args, command).run, finish
    )


class Evaluation:
    """One evaluation: everything that can be wrong is found on construction, `run` measures.

    Args:
        args: What `build_parser` parsed.
        command: The command line, for the record.

    Raises:
        OSError, ValueError, ModuleNotFoundError: On bad input; the message names it.
    """

    def __init__(self, args: argparse.Namespace, command: str):
        self.command = command
        self.output = OutputFolder(args.output, FORMAT, FILES, "evaluation")
        self.baselines = measuring.choose_baselines(args.baselines)
        self.predictor = _open_model(args)
        recipe = {} if self.predictor is None else self.predictor.recipe
        trained_at = None if self.predictor is None else self.predictor.training_size
        self.image_size = args.image_size or trained_at or DEFAULT_IMAGE_SIZE
        if args.onnx and not (args.image_size or trained_at):
            raise ValueError(f"ONNX file {args.onnx}: it names no training size; give --image-size")
        dataset = args.dataset or recipe.get("dataset")
        if dataset is None or (args.dataset is None and dataset not in DATASETS):
            raise ValueError(f"--dataset is missing; choose from {', '.join(DATASETS)}")
        same = dataset == recipe.get("dataset")
        data_dir = args.data_dir or (recipe.get("data_dir") if same else None)
        mask = str(args.mask or recipe.get("mask") or "center")
        self.test = EvaluationSet(
            dataset, data_dir, args.split, self.image_size, args.shorter_side, mask, args.limit
        )
        self.batch_size = args.batch_size
        self.page_images = args.page_images
        self.protocols = measuring.choose_protocols(
            args.protocol, DEFAULT_PROTOCOLS, self.image_size
        )
        self.source = args.run or args.onnx
        self.attention_maps = args.attention_maps
        if self.attention_maps is not None:
            self._check_attention_maps()

    def _check_attention_maps(self) -> None:
        """Raises ValueError where a generator would only after everything has been measured."""
        if not isinstance(self.predictor, RunPredictor):
            raise ValueError(
                "--attention-maps needs --run: an ONNX file tells nothing but its result"
            )
        blank = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        try:
            self.predictor.attention_maps(blank, self.test.holes.deterministic(0)[None])
        except ValueError as error:
            raise ValueError(f"--attention-maps: {error}") from error

    def run(self) -> dict[str, Any]:
        """Measures, writes the output folder and returns the results.

        Raises:
            OSError: If it cannot be written; what an earlier evaluation left there is untouched.
            ValueError: If not one photograph can be read.
            RuntimeError: If the model fails.
        """
        methods = self._methods()
        with self.output.staging() as stage:
            measured = measuring.measure(
                methods, self.test, self.protocols, self.batch_size, self.page_images
            )
            if self.attention_maps is not None:
                self._add_attention_maps(measured)
            results = self._describe(methods, measured)
            report.write_page(stage, results, measured.samples)
            report.contact_sheet(results, measured.samples).save(stage / "contact_sheet.png")
            (stage / "results.md").write_text(report.markdown(results), encoding="utf-8")
            self.output.publish(stage, results)
        return results

    def _methods(self) -> list[Method]:
        """The model first."""
        methods = measuring.baseline_methods(self.baselines)
        if self.predictor is not None:
            model = self.predictor
            label, ablation = model.label, model.recipe.get("ablation")
            if ablation:
                label += f", {ablation.replace('_', ' ')}"
            methods.insert(0, Method("model", label, model.kind, model.predict, compiles=True))
        return methods

    def _add_attention_maps(self, measured: measuring.Measured) -> None:
        rows = measured.rows
        ranking = report.first_ranked("model", rows[0])
        for sample in report.worst_and_best(rows, measured.samples, ranking, self.attention_maps):
            maps = self.predictor.attention_maps(sample.image[None], sample.hole[None])
            sample.attention.update(maps)
            rows[sample.number]["attention"] = {
                name: attention_maps.summarize(scale) for name, scale in maps.items()
            }

    def _describe(self, methods: Sequence[Method], measured: measuring.Measured) -> dict[str, Any]:
        rows = measured.rows
        described = []
        for method in methods:
            model = method.kind != "baseline"
            described.append(
                {
                    "name": method.name,
                    "label": method.label,
                    "kind": method.kind,
                    "source": str(self.source) if model else None,
                    "sha256": self.predictor.source_hash if model else None,
                    "seconds_per_image": measured.seconds[method.name] / len(rows),
                    "aggregates": report.aggregate(rows, method.name),
                }
            )
        return {
            "format": FORMAT,
            "command": self.command,
            **measuring.describe_program(),
            **self.test.describe(self.protocols, len(rows)),
            "batch_size": self.batch_size,
            "methods": described,
            "images": rows,
        }


def _open_model(args: argparse.Namespace) -> RunPredictor | OnnxPredictor | None:
    if args.run:
        return RunPredictor(args.run)
    if args.onnx:
        return OnnxPredictor(args.onnx)
    if args.baselines is None:
        raise ValueError("nothing to measure: give --run DIR, --onnx FILE or --baselines")
    return None


if __name__ == "__main__":
    sys.exit(main())
