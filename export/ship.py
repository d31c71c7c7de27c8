"""Makes a trained run one of the models that are part of the package.

    python -m export.ship --name faces --run runs/faces_128 runs/faces_256 \
        --data "8,000 aligned faces of CelebA" --licence "CelebA: non-commercial research" \
        --hardware "AMD EPYC, 2 cores" --strategy resize

The last run is shipped, those before it are the stages that it started from. Three files appear, or
none:

* `serving/models/NAME.onnx`: float16, in the default contract, its metadata complete;
* `musical_tf/weights/NAME.keras`: the same weights to fine-tune from, rounded to float16;
* `musical_tf/weights/NAME.json`: the card. Data, licence, recipes, steps and minutes of every
  stage, hashes, and how far both files are from the run.

Nothing is written if ONNX Runtime and Keras differ by more than the tolerance of float16, if a
known pixel changes, or if a file is larger than `LARGEST`.
"""

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from musical_tf.arguments import Parser
from musical_tf.contract import PREFIX
from musical_tf.files import whole_file
from musical_tf.run_directory import WEIGHTS, RunDirectory

from .command_line import add_strategy_argument, run_command
from .convert import check_writable, export
from .errors import ExportError
from .parity import check_parity, describe_parity, measure_parity, onnx_runtime
from .serving_module import load_inpainting

PROGRAM = "python -m export.ship"

FORMAT = "musical-tf model card 1"
"""Names the layout of a card; another layout gets another number."""

LARGEST = 12_000_000
"""Bytes that the ONNX file, and the Keras file, may have."""

MODELS = Path(__file__).resolve().parents[1] / "serving" / "models"
"""Where `serving.named_models` looks."""

RECENT = 100
"""Lines of a log that a loss is averaged over: of one step it says little."""

TEXTS = {
    "data": "the photographs it was trained on, in words",
    "licence": "license of the weights, as their data allows",
    "hardware": "what it was trained on, in words",
}
"""What the card says in words -> the help of its option."""

_PARTS = ("metadata.json", "config.json", "model.weights.h5")
_SMALLEST_COMPRESSED = 64  # values; below, HDF5's own records take more than they save


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, see `command_line.run_command`."""
    arguments = vars(_parser().parse_args(argv))

    def action() -> None:
        card = ship(**arguments)
        files, total = card["files"].items(), card["total"]
        sizes = ", ".join(f"{each['bytes']:,} bytes of {kind}" for kind, each in files)
        print(
            f"{card['name']}: {sizes}; {len(card['stages'])} stage(s), {total['steps']:,} steps, "
            f"{total['minutes']:.0f} minutes, {total['cpu_minutes']:.0f} CPU minutes"
        )
        print(describe_parity({"runtimes": card["parity"]}).replace("; ", "\n"))

    return run_command(PROGRAM, "train,export,serve", action)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Makes a trained run an included model: a float16 ONNX file, Keras weights and "
        "a card, all or none.",
    )
    parser.texts = frozenset(("--name", "--data", "--licence", "--hardware"))
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument(
        "--run",
        dest="runs",
        required=True,
        nargs="+",
        type=Path,
        metavar="DIR",
        help="run folders of training.fit, each started with --init from the previous one; the "
        "last is shipped",
    )
    for name, text in TEXTS.items():
        parser.add_argument(f"--{name}", required=True, metavar="TEXT", help=text)
    add_strategy_argument(parser, "none")
    for name, what in (("models", "the ONNX file goes"), ("weights", "the Keras file and card go")):
        parser.add_argument(
            f"--{name}-dir",
            dest=name,
            type=Path,
            metavar="DIR",
            help=f"where {what} (default: the package's own folder)",
        )
    return parser


def ship(
    name: str,
    runs: Sequence[str | Path],
    *,
    data: str,
    licence: str,
    hardware: str,
    strategy: str | None = None,
    models: str | Path | None = None,
    weights: str | Path | None = None,
) -> dict[str, Any]:
    """Does what the command line says.

    Args:
        name: Lower-case letters, digits and underscores.
        runs: Run directories, the stages in order; the last is shipped.
        data, licence, hardware: See `TEXTS`; the hardware of all stages.
        strategy: How the ONNX file asks to look at a photograph larger than its training size, one
            of `musical_tf.contract.STRATEGIES`; None asks for nothing.
        models, weights: Folder of the ONNX file, and of the Keras file and the card; the package's
            own by default.

    Returns:
        The card.

    Raises:
        FileNotFoundError, ValueError: If a run is not whole, or did not start from the one before,
            or the strategy is unknown.
        OSError: If a file cannot be written.
        ExportError: If what came out is too large, alters known pixels, or differs from the run.
    """
    from musical_tf import named_models

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"--name must be lower-case letters, digits and underscores, got {name!r}")
    texts = {"data": data, "licence": licence, "hardware": hardware}
    for flag, text in texts.items():
        if not text.strip():
            raise ValueError(f"--{flag} must say something, got {text!r}")
    stages = describe_stages([Path(run) for run in runs])
    models = MODELS if models is None else Path(models)
    weights = named_models.FOLDER if weights is None else Path(weights)
    targets = [models / f"{name}.onnx", weights / f"{name}.keras", weights / f"{name}.json"]
    for target in targets:
        check_writable(target)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keras_file = folder / WEIGHTS
        onnx_file = folder / "model.onnx"

        original = load_inpainting(runs[-1])
        original.generator.save(keras_file)
        keras_file.write_bytes(compact(keras_file))
        files = {"keras": _describe_file(keras_file)}
        recipe = stages[-1]["recipe"]
        RunDirectory(folder).write_recipe(recipe)
        export(
            folder,
            onnx_file,
            precision="float16",
            strategy=strategy,
            metadata={
                "name": name,
                "data": data,
                "weights_licence": licence,
                "recipe": json.dumps(recipe),
                "training": json.dumps(stages),
            },
        )
        files["onnx"] = _describe_file(onnx_file)
        card = {
            "format": FORMAT,
            "name": name,
            "method": str(original.generator.method),
            "preset": str(original.generator.preset),
            "parameters": int(original.generator.count_params()),
            "training_size": recipe["image_size"],
            **({} if strategy is None else {"strategy": strategy}),
            "data": data,
            "licence": licence,
            "created": f"{datetime.now(UTC):%Y-%m-%d}",
            "hardware": hardware,
            "total": {
                key: round(sum(stage[key] for stage in stages), 1)
                for key in ("steps", "minutes", "cpu_minutes")
            },
            "recipe": recipe,
            "stages": stages,
            "files": files,
            "parity": _parity(original, onnx_file),
            "metrics": [],
        }
        text = json.dumps(card, indent=1) + "\n"
        contents = [onnx_file.read_bytes(), keras_file.read_bytes(), text.encode()]
    _write_all(dict(zip(targets, contents, strict=True)))
    return card


def compact(file: str | Path) -> bytes:
    """A `.keras` file with its weights stored in half the bytes: kernels in float16, compressed.

    Keras reads them into float32 variables. Biases and scales, small and sensitive, stay float32.
    The same weights give the same bytes.

    Raises:
        ExportError: If a weight is beyond float16's range.
    """
    import h5py

    with zipfile.ZipFile(file) as archive:
        parts = {part: archive.read(part) for part in _PARTS}
    metadata = json.loads(parts["metadata.json"])
    metadata.pop("date_saved", None)
    parts["metadata.json"] = json.dumps(metadata).encode()
    compacted = io.BytesIO()
    with (
        h5py.File(io.BytesIO(parts["model.weights.h5"])) as source,
        h5py.File(compacted, "w") as target,
    ):

        def copy(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                if values.ndim > 1 and values.dtype == np.float32:
                    with np.errstate(over="ignore"):  # said below
                        values = values.astype(np.float16)
                if not np.isfinite(values).all():
                    raise ExportError(f"the weight {path} is beyond float16's range")
                filters = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
                made = target.create_dataset(
                    path,
                    data=values,
                    track_times=False,
                    **(filters if values.size >= _SMALLEST_COMPRESSED else {}),
                )
            else:
                made = target.require_group(path)
            made.attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    parts["model.weights.h5"] = compacted.getvalue()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for part, content in parts.items():
            archive.writestr(zipfile.ZipInfo(part), content)
    return packed.getvalue()


def _describe_file(file: Path) -> dict[str, Any]:
    """Size and hash; `ExportError` if it is larger than `LARGEST`."""
    content = file.read_bytes()
    if len(content) > LARGEST:
        raise ExportError(
            f"the {file.suffix} file has {len(content):,} bytes; at most {LARGEST:,} are allowed, "
            "so nothing was written"
        )
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _parity(original: Any, onnx_file: Path) -> dict[str, dict[str, Any]]:
    """How far the ONNX file is from the run's own weights, and from the Keras file.

    Raises `ExportError` if that is more than float16's tolerance, or a known pixel changes.
    """
    import onnx

    model = onnx.load(onnx_file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    report = measure_parity(
        original,
        {"onnx": onnx_runtime(model)},
        training_size=int(metadata[f"{PREFIX}training_size"]),
        precisions={"onnx": "float16"},
    )
    check_parity(report)
    kept = ("max", "mean", "known_pixels_exact")
    figures = {
        "ONNX file from the run": report["runtimes"]["onnx"],
        "ONNX file from the Keras file": json.loads(metadata[f"{PREFIX}parity"]),
    }
    return {name: {key: each[key] for key in kept} for name, each in figures.items()}


def _write_all(contents: Mapping[Path, bytes]) -> None:
    """Writes all files, or puts back what was there."""
    before = {path: path.read_bytes() if path.is_file() else None for path in contents}
    try:
        with contextlib.ExitStack() as stack:  # writes every file before it renames the first
            for path, content in contents.items():
                stack.enter_context(whole_file(path)).write_bytes(content)
    except BaseException:
        for path, old in before.items():
            if old is not None:
                path.write_bytes(old)
            elif path.is_file():
                path.unlink()
        raise


# What a run says of its training


def describe_stages(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """`describe_stage` of runs, in order, of which each started from the one before.

    The first may have started from a model that is part of the package: its stages come first then.

    Raises:
        FileNotFoundError, ValueError: If one is not whole, or did not start from the one before, or
            started from a model that this installation does not have.
    """
    from musical_tf import named_models

    stages: list[dict[str, Any]] = []
    for index, run in enumerate(runs):
        stage = describe_stage(run)
        init = stage["recipe"].get("init")
        # A folder may be called like a model: the run has the one's place, and the other's name.
        is_model = init is not None and not _is_place(RunDirectory(run).recipe()["init"])
        if index == 0 and is_model:
            stages += named_models.card(init)["stages"]
        else:
            expected = Path(runs[index - 1]).resolve().name if index else None
            if init != expected or is_model:
                started = f"from {'the model ' * is_model}{init}" if init else "from random weights"
                wanted = f"from {expected}, the run before it" if expected else "from nothing"
                raise ValueError(
                    f"{run} started {started}, where --run says {wanted}: name every stage in order"
                )
        stages.append(stage)
    return stages


def describe_stage(run: str | Path) -> dict[str, Any]:
    """Describes a run by its folder.

    Returns:
        `run`, the folder's name; `recipe` without the places of files on somebody's disk;
        `photographs`, how many and a hash, where a checkpoint or `photographs.json` says so;
        `steps`; `minutes` of the clock and `cpu_minutes` of all cores together; `last`, the last
        line of the log; and `recent`, every loss term's mean over the last `RECENT` lines.

    Raises:
        FileNotFoundError, ValueError: If a file of the run is missing, or not what it should be.
    """
    folder = RunDirectory(run)
    recipe, duration, lines = folder.recipe(), folder.duration(), folder.losses()
    if not lines or duration["minutes"] is None:
        raise ValueError(f"{run} must hold finished steps, got none in {folder.log.name}")
    logged = lines[-RECENT:]
    terms = [term for term in lines[-1] if term != "step"]
    photographs = folder.photographs()
    return {
        "run": folder.path.resolve().name,
        "recipe": without_paths(recipe),
        **({} if photographs is None else {"photographs": photographs}),
        "steps": duration["steps"],
        **{name: round(duration[name] or 0.0, 1) for name in ("minutes", "cpu_minutes")},
        "last": lines[-1],
        "recent": {term: sum(line[term] for line in logged) / len(logged) for term in terms},
    }


def without_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without `data_dir`, and with names for what is an absolute path, of any system."""
    cleaned = {}
    for key, value in recipe.items():
        if key == "data_dir":
            continue
        if isinstance(value, Mapping):
            value = without_paths(value)
        elif _is_place(value):
            path = PureWindowsPath(value)  # it reads both kinds of separators
            value = path.parent.name if path.name == WEIGHTS else path.name
        cleaned[key] = value
    return cleaned


def _is_place(value: Any) -> bool:
    """Whether this is an absolute path, on whichever system the run was made."""
    return isinstance(value, str) and any(
        kind(value).is_absolute() for kind in (PurePosixPath, PureWindowsPath)
    )


if __name__ == "__main__":
    sys.exit(main())
