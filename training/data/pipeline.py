"""The endless stream of training batches, and the samples of an evaluation.

Everything random is drawn from generators seeded with `(seed, sample number)`, so batch `s` can be
made without making the batches before it: that is what lets a resumed run see the photographs an
uninterrupted one would have seen.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from .holes import HoleSource
from .photographs import Photographs, UnusableImageError, center_crop

if TYPE_CHECKING:
    import tensorflow as tf

# Non-zero words that keep the generators of epochs, samples and holes apart: numpy pads short seeds
# with zeros, so (seed, 3) and (seed, 3, 0) would be one generator.
_EPOCH_STREAM = 0x65706F63


@dataclass
class SampleStream:
    """The endless stream of training samples: `sample(n)` is a pure function of the seed and `n`.

    Sample `n` belongs to epoch `n // len(photographs)`; each epoch is a permutation drawn from
    (seed, epoch). An unusable photograph is replaced by the next usable one of the epoch's
    permutation. Crop, flip, zoom, colors and hole are drawn, in that order, from a generator seeded
    with `(seed, n)`.

    Attributes:
        photographs, holes: What to draw from, of the same image size.
        seed: Int >= 0.
        zoom, jitter: See `recipes.Recipe`.
    """

    photographs: Photographs
    holes: HoleSource
    seed: int
    zoom: float = 0.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def order(self, epoch: int) -> np.ndarray:
        """Returns the epoch's permutation of the photographs' indices, int64."""
        with self._lock:
            if epoch not in self._orders:
                rng = np.random.default_rng((self.seed, epoch, _EPOCH_STREAM))
                # Workers straddle at most one epoch boundary, or a few when the dataset is smaller
                # than the prefetch.
                while len(self._orders) >= 8:
                    del self._orders[min(self._orders)]
                self._orders[epoch] = rng.permutation(len(self.photographs))
            return self._orders[epoch]

    def sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns image `(S, S, 3)` uint8 RGB and hole `(S, S)` bool, True = missing."""
        number = int(number)
        epoch, position = divmod(number, len(self.photographs))
        _, image = self.photographs.load_usable(self.order(epoch), position)
        rng = np.random.default_rng((self.seed, number))
        if self.photographs.crop == "random":
            size = self.photographs.image_size
            top = rng.integers(image.shape[0] - size + 1)
            left = rng.integers(image.shape[1] - size + 1)
            image = image[top : top + size, left : left + size]
        if self.photographs.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.zoom:
            image = _zoomed(image, self.zoom, rng)
        if self.jitter:
            image = _recolored(image, self.jitter, rng)
        return np.ascontiguousarray(image), self.holes.hole(rng)


def _zoomed(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    size = image.shape[0]
    side = size / (1 + rng.uniform(0, most))
    left, top = rng.uniform(0, size - side, size=2)
    enlarged = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    return np.asarray(enlarged)


def _recolored(image: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    picture = Image.fromarray(image)
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind, factor in zip(kinds, rng.uniform(1 - most, 1 + most, size=3), strict=True):
        picture = kind(picture).enhance(factor)
    return np.asarray(picture)


def training_pipeline(
    stream: SampleStream,
    batch_size: int,
    start_step: int = 0,
    workers: int | None = None,
    part: tuple[int, int] | None = None,
) -> "tf.data.Dataset":
    """Makes the endless stream of training batches.

    Batch `s` is a pure function of (seed, s): to resume after `s` batches, make the pipeline with
    `start_step=s`. Epochs follow each other without a gap, so that a batch may hold the end of one
    and the beginning of the next.

    Args:
        stream: The samples.
        batch_size: Photographs a batch.
        start_step: Number of the first batch.
        workers: Photographs decoded at the same time; None for the number of CPU cores, at most 16.
        part: The first sample of each batch to make, and how many, where other processes make the
            others; None for the whole batch.

    Returns:
        A dataset of `{"image": (B, H, W, 3) float32 in [-1, 1], "hole": (B, H, W, 1) float32, 1 =
        missing}`.

    Raises:
        ValueError: If no photograph can be used; names the first few.
    """
    # Here, not above: the first import takes seconds, which listing files and evaluating an ONNX
    # file need not pay.
    import tensorflow as tf

    from musical_tf import conventions

    image_size = stream.photographs.image_size
    first, count = part or (0, batch_size)
    if not 0 <= first <= first + count <= batch_size or count < 1:
        raise ValueError(f"part must lie within a batch of {batch_size}, got {part}")
    # Fails here, with a ValueError, rather than in a worker thread whose errors TensorFlow wraps.
    stream.sample(start_step * batch_size + first)
    workers = workers or min(16, os.cpu_count() or 1)

    def make(number: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        # Pillow lets go of the interpreter lock while it decodes and resizes, so Python workers do
        # run side by side.
        image, hole = tf.numpy_function(
            stream.sample, [number], [tf.uint8, tf.bool], stateful=False
        )
        image.set_shape((image_size, image_size, 3))
        hole.set_shape((image_size, image_size))
        return image, hole

    def finish(image: "tf.Tensor", hole: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return {
            "image": conventions.normalize(image),
            "hole": tf.cast(hole, tf.float32)[..., tf.newaxis],
        }

    numbers = tf.data.Dataset.range(start_step * count, 2**62)
    if count < batch_size:
        numbers = numbers.map(lambda n: n // count * batch_size + first + n % count)
    samples = numbers.map(make, num_parallel_calls=workers, deterministic=True)
    batches = samples.batch(count, drop_remainder=True).map(finish).prefetch(4)
    options = tf.data.Options()
    # Its own threads: with TensorFlow's inter-op pool set to one, decoding would wait for the
    # training step.
    options.threading.private_threadpool_size = workers + 2
    options.deterministic = True
    return batches.with_options(options)


def steps_for_epochs(epochs: float, photographs: int, batch_size: int) -> int:
    """Returns the number of batches in which so many photographs are drawn `epochs` times."""
    return max(1, -int(-epochs * photographs // batch_size))


def evaluation_samples(
    photographs: Photographs, holes: HoleSource
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields every usable photograph of a split once, cropped at the center, by path.

    Nothing is random: hole `i` belongs to path `i`, whether or not others were skipped.

    Yields:
        Path, image `(S, S, 3)` uint8 RGB, hole `(S, S)` bool, True = missing.

    Raises:
        ValueError: If no photograph can be used; names the first few.
    """
    indices = range(len(photographs))
    first, _ = photographs.load_usable(indices, 0)
    for index in indices[first:]:
        try:
            image = photographs.load(index)
        except UnusableImageError:
            continue
        image = center_crop(image, photographs.image_size)
        yield photographs.paths[index], image, holes.deterministic(index)
