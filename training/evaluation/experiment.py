"""What `training.evaluate` and `training.compare` share: models over photographs, into a folder."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import DATASETS
from . import attention_maps, explanations, page, provenance, source_maps, tables
from .command_line import DEFAULT_IMAGE_SIZE, choose_baselines, choose_protocols
from .measuring import Candidate, EvaluationSet, Measured, baseline_candidates, measure
from .output_folder import OutputFolder
from .predictors import Predictor, RunPredictor
from .sample import Sample
from .statistics import aggregate

SHARED_OPTIONS = {"dataset": "--dataset", "image_size": "--image-size", "mask": "--mask"}
"""Keys of a recipe that are the results' where all models agree -> the flag where not."""


class Experiment:
    """Measures methods on the same photographs and holes and writes the output folder.

    Every wrong input is found on construction; `run` measures.

    Args:
        args: The parsed command line, see `command_line`.
        command: The command line, for the record.

    Attributes:
        form: The `format` of `results.json`; another layout gets another number.
        what: What it is called in messages.
        files: Names of the files in the output folder.
        default_protocols: Protocols without `--protocol`.
        first_images: Images to keep from the beginning of the split.
    """

    form: str
    what: str
    files: tuple[str, ...]
    default_protocols: tuple[str, ...]
    first_images = 0

    def __init__(self, args: argparse.Namespace, command: str):
        self.args, self.command = args, command
        self.output = OutputFolder(args.output, self.form, self.files, self.what)
        baselines = choose_baselines(args.baselines)
        self.candidates = [*self.open_models(len(baselines)), *baseline_candidates(baselines)]
        shared = _shared_options(self.candidates, args)
        size = shared["image_size"] or DEFAULT_IMAGE_SIZE
        self.protocols = choose_protocols(args.protocol, self.default_protocols, size)
        recipes = [each.predictor.recipe for each in self.candidates if each.predictor]
        same = [each for each in recipes if each.get("dataset") == shared["dataset"]]
        data_dir = args.data_dir or next((each.get("data_dir") for each in same), None)
        mask = str(shared["mask"] or "center")
        self.test = EvaluationSet(
            shared["dataset"], data_dir, args.split, size, args.shorter_side, mask, args.limit
        )

    def open_models(self, baselines: int) -> list[Candidate]:
        """The models that the command line names; `baselines` are measured as well."""
        raise NotImplementedError

    def describe_candidate(self, candidate: Candidate) -> dict[str, Any]:
        """What the results say of a candidate beyond its figures."""
        return {}

    def describe(self, measured: Measured, methods: list[dict[str, Any]]) -> dict[str, Any]:
        """What the results say of the methods."""
        return {"methods": methods}

    def write(self, stage: Path, results: dict[str, Any], measured: Measured) -> None:
        """Writes the page and the pictures into the stage."""
        raise NotImplementedError

    def run(self) -> str:
        """Measures, writes the output folder and returns the results as Markdown.

        Raises:
            OSError: If it cannot be written; what an earlier run left there is untouched.
            ValueError: If no photograph can be read.
            RuntimeError: If a model fails.
        """
        from musical_tf import __version__

        args = self.args
        with self.output.staging() as stage:
            measured = measure(
                self.candidates,
                self.test,
                self.protocols,
                args.batch_size,
                args.page_images,
                self.first_images,
            )
            described = [self._described(each, measured) for each in self.candidates]
            results = {
                "format": self.form,
                "command": self.command,
                "version": __version__,
                **provenance.describe(),
                **self.test.describe(self.protocols, len(measured.rows)),
                "batch_size": args.batch_size,
                **self.describe(measured, described),
                "images": measured.rows,
            }
            self.write(stage, results, measured)
            text = tables.markdown(results)
            (stage / "results.md").write_text(text, encoding="utf-8")
            self.output.publish(stage, results)
        return text

    def _described(self, candidate: Candidate, measured: Measured) -> dict[str, Any]:
        name = candidate.name
        return {
            "name": name,
            "label": candidate.label,
            "kind": candidate.kind,
            **self.describe_candidate(candidate),
            "source": candidate.source,
            "sha256": candidate.predictor.source_hash if candidate.predictor else None,
            "seconds_per_image": measured.seconds[name] / len(measured.rows),
            "aggregates": aggregate(measured.rows, name),
        }

    def explain(
        self, candidate: Candidate, sample: Sample, title: str
    ) -> tuple[explanations.Item | None, dict[str, Any]]:
        """Returns where a model filled one photograph from, None where it does not say.

        Behind it, what the results keep of that, by "attention" and "source".
        """
        predictor, name = candidate.predictor, candidate.name
        kept: dict[str, Any] = {}
        if predictor is None:
            return None, kept
        inputs = (sample.image[None], sample.hole[None])
        maps = predictor.attention_maps(*inputs) if _fits(predictor, sample.hole) else {}
        source = predictor.sources(*inputs)[0] if predictor.copies else None
        if maps:
            kept["attention"] = {key: attention_maps.summarize(m) for key, m in maps.items()}
        if source is not None:
            kept["source"] = source_maps.summarize(source)
        if not kept:
            return None, kept
        stem = f"{sample.number:05d}-{page.slug(name)}"
        result = sample.predictions[name]
        return explanations.Item(title, stem, sample.image, result, maps, source), kept


def _fits(predictor: Predictor, hole: np.ndarray) -> bool:
    if not (isinstance(predictor, RunPredictor) and predictor.has_attention):
        return False
    return not any(side % predictor.generator.size_multiple for side in hole.shape)


def with_ablation(label: str, recipe: Mapping[str, Any]) -> str:
    """A model's label, and what was left out of it."""
    ablation = recipe.get("ablation")
    return f"{label}, {ablation.replace('_', ' ')}" if ablation else label


def _shared_options(candidates: Iterable[Candidate], args: argparse.Namespace) -> dict[str, Any]:
    """Dataset, image size and mask: the flags', or what all models were trained on.

    Raises:
        ValueError: Where there is no flag and the models differ, or a value is not known.
    """
    models = [(each.label, each.predictor) for each in candidates if each.predictor]
    shared = {}
    for key, flag in SHARED_OPTIONS.items():
        found: dict[Any, str] = {}
        for label, predictor in models:
            recipe = {**predictor.recipe, "image_size": predictor.training_size}
            if recipe.get(key) is not None:
                found.setdefault(recipe[key], label)
        given = getattr(args, key)
        if given is None and len(found) > 1:
            whose = ", ".join(f"{label} {value}" for value, label in found.items())
            raise ValueError(
                f"the runs differ in {key.replace('_', ' ')}: {whose}; "
                f"say with {flag} what all are measured at"
            )
        shared[key] = given if given is not None else next(iter(found), None)
    if args.dataset is None and shared["dataset"] not in DATASETS:
        raise ValueError(f"--dataset is missing; choose from {', '.join(DATASETS)}")
    if shared["image_size"] is None and any(each.kind == "onnx" for _, each in models):
        raise ValueError("no ONNX file names its training size; give --image-size")
    return shared
