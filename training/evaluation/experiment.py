"""What `training.evaluate` and `training.compare` share: models over photographs, into a folder."""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import DATASETS
from . import attention_maps, explanations, page, provenance, source_maps, tables
from .command_line import DEFAULT_IMAGE_SIZE, choose_baselines, choose_protocols
from .drawings import Sample
from .measuring import EvaluationSet, Measured, Method, baseline_methods, measure
from .output_folder import OutputFolder
from .predictors import Predictor, RunPredictor
from .statistics import aggregate

SHARED_OPTIONS = {"dataset": "--dataset", "image_size": "--image-size", "mask": "--mask"}
"""Keys of a recipe that are the results' where all models agree -> the flag where not."""


@dataclass(frozen=True)
class Entry:
    """One method that is measured.

    Args:
        method: What fills.
        source: Run directory, named model or file; None for a baseline.
        predictor: What runs it; None for a baseline.
    """

    method: Method
    source: str | None = None
    predictor: Predictor | None = None


class Experiment:
    """Measures methods on the same photographs and holes and writes the output folder.

    Everything that can be wrong is found on construction; `run` measures.

    Args:
        args: The parsed command line, see `command_line`.
        command: The command line, for the record.

    Attributes:
        form: The `format` of `results.json`; another layout gets another number.
        what: What it is called in messages.
        files: Names of the files in the output folder.
        protocols: Default protocols.

    Raises:
        OSError, ValueError, ModuleNotFoundError: On bad input; the message names it.
    """

    form: str
    what: str
    files: tuple[str, ...]
    default_protocols: tuple[str, ...]

    def __init__(self, args: argparse.Namespace, command: str):
        self.args, self.command = args, command
        self.output = OutputFolder(args.output, self.form, self.files, self.what)
        baselines = choose_baselines(args.baselines)
        self.entries = [*self.open_models(len(baselines)), *map(Entry, baseline_methods(baselines))]
        shared = _shared_options(self.entries, args)
        size = shared["image_size"] or DEFAULT_IMAGE_SIZE
        self.protocols = choose_protocols(args.protocol, self.default_protocols, size)
        recipes = [entry.predictor.recipe for entry in self.entries if entry.predictor]
        same = [each for each in recipes if each.get("dataset") == shared["dataset"]]
        data_dir = args.data_dir or next((each.get("data_dir") for each in same), None)
        mask = str(shared["mask"] or "center")
        self.test = EvaluationSet(
            shared["dataset"], data_dir, args.split, size, args.shorter_side, mask, args.limit
        )

    def open_models(self, baselines: int) -> list[Entry]:
        """The models that the command line names; `baselines` are measured as well."""
        raise NotImplementedError

    def describe_method(self, entry: Entry, measured: Measured) -> dict[str, Any]:
        """What the results say of a method beyond its figures."""
        return {}

    def describe(self, measured: Measured, methods: list[dict[str, Any]]) -> dict[str, Any]:
        """What the results say beyond the methods and images."""
        return {}

    def write(self, stage: Path, results: dict[str, Any], measured: Measured) -> None:
        """Writes the page and the pictures into the stage."""
        raise NotImplementedError

    first_images = 0
    """Images to keep from the beginning of the split."""

    def run(self) -> str:
        """Measures and writes the output folder.

        Returns:
            The results as a Markdown document.

        Raises:
            OSError: If it cannot be written; what an earlier run left there is untouched.
            ValueError: If not one photograph can be read.
            RuntimeError: If a model fails.
        """
        from musical_tf import __version__

        methods = [entry.method for entry in self.entries]
        args = self.args
        with self.output.staging() as stage:
            measured = measure(
                methods,
                self.test,
                self.protocols,
                args.batch_size,
                args.page_images,
                self.first_images,
            )
            described = [self._describe_entry(entry, measured) for entry in self.entries]
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

    def _describe_entry(self, entry: Entry, measured: Measured) -> dict[str, Any]:
        method = entry.method
        return {
            "name": method.name,
            "label": method.label,
            "kind": method.kind,
            **self.describe_method(entry, measured),
            "source": entry.source,
            "sha256": entry.predictor.source_hash if entry.predictor else None,
            "seconds_per_image": measured.seconds[method.name] / len(measured.rows),
            "aggregates": aggregate(measured.rows, method.name),
        }

    def explain(
        self, entry: Entry, sample: Sample, keep: Callable[[str, Any], None], title: str = ""
    ) -> explanations.Item | None:
        """Where a model filled one photograph from; None where it does not say.

        Args:
            entry: The model.
            sample: The photograph, hole and result.
            keep: Called with "attention" or "source" and what the results keep of it.
            title: What a reader chooses it by.
        """
        predictor, name = entry.predictor, entry.method.name
        if predictor is None:
            return None
        inputs = (sample.image[None], sample.hole[None])
        maps = predictor.attention_maps(*inputs) if _fits(predictor, sample.hole) else {}
        source = predictor.sources(*inputs)[0] if predictor.copies else None
        if maps:
            keep("attention", {key: attention_maps.summarize(each) for key, each in maps.items()})
        if source is not None:
            keep("source", source_maps.summarize(source))
        if not maps and source is None:
            return None
        stem = f"{sample.number:05d}-{page.slug(name)}"
        result = sample.predictions[name]
        return explanations.Item(title, stem, sample.image, result, maps, source)


def _fits(predictor: Predictor, hole: np.ndarray) -> bool:
    if not (isinstance(predictor, RunPredictor) and predictor.has_attention):
        return False
    return not any(side % predictor.generator.size_multiple for side in hole.shape)


def with_ablation(label: str, recipe: Mapping[str, Any]) -> str:
    """A model's label, and what was left out of it."""
    ablation = recipe.get("ablation")
    return f"{label}, {ablation.replace('_', ' ')}" if ablation else label


def _shared_options(entries: Iterable[Entry], args: argparse.Namespace) -> dict[str, Any]:
    """Dataset, image size and mask: the flags', or what all models were trained on.

    Raises:
        ValueError: Where there is no flag and the models differ, or a value is not known.
    """
    models = [(entry.method.label, entry.predictor) for entry in entries if entry.predictor]
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
