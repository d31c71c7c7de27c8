"""One photograph a file, decoded on demand."""

import logging
import threading
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from musical_tf.command_line import printable
from musical_tf.images import MAX_PIXELS, ImageError
from musical_tf.images.opening import decoded, turn_upright

from .listing import Listing

logger = logging.getLogger(__name__)

CACHE_BYTES = 2 * 1024**3
"""Default bound on the decoded photographs kept in memory: 2 GiB."""

MIN_SIDE = 16
"""Photographs with a shorter side below this many pixels are skipped, whatever the crop."""
MAX_ENLARGEMENT = 4
"""Photographs that would have to be enlarged more than this to fill the crop are skipped."""
MAX_ASPECT = 16
"""Photographs more elongated than this to one are skipped: they would fill the memory."""
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Filters that resize photographs, widened when reducing. The authors' code has the second."""


class UnusableImageError(ImageError):
    """A file that cannot be used as a photograph; the message says why, without the path."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts any Pillow image to 8-bit RGB.

    Gray is repeated, palettes are looked up, transparency is flattened on white as in browsers,
    16-bit samples are scaled (Pillow's own conversion clips them at 255), CMYK is converted without
    a color profile, of an animation the first frame is taken.

    Raises:
        UnusableImageError: If the range of its samples is not known (float, or 32-bit beyond 16-bit
            values).
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        samples = np.asarray(image).astype(np.int64)
        if samples.min() < 0 or samples.max() > 65535:
            raise UnusableImageError("32-bit samples outside 0..65535: their range is not known")
        return Image.fromarray(((samples + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnusableImageError("floating-point samples: their range is not known")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def decode(
    file: BinaryIO,
    shorter_side: int,
    min_side: int = MIN_SIDE,
    resampling: str = "bilinear",
) -> np.ndarray:
    """Reads a photograph, upright, and resizes its shorter side to `shorter_side` pixels.

    Returns:
        `(height, width, 3)` uint8 RGB, of the file's aspect ratio.

    Raises:
        UnusableImageError: If the file is no image, cut off, too long or too large, or its shorter
            side is below `min_side`.
    """

    def prepare(image: Image.Image, name: str) -> None:
        del name
        if min(image.size) < min_side:
            raise UnusableImageError(
                f"tiny: {image.width} x {image.height}, expected a shorter side of at least "
                f"{min_side}"
            )
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise UnusableImageError(
                f"{image.width} x {image.height} is longer than {MAX_ASPECT} to 1"
            )
        # JPEG only: lets libjpeg decode a large photograph at 1/2, 1/4 or 1/8, still at least
        # twice too large.
        image.draft(image.mode, (2 * shorter_side, 2 * shorter_side))

    try:
        with decoded(file, "photograph", MAX_PIXELS, prepare) as image:
            turn_upright(image)
            rgb = to_rgb(image)
    except UnusableImageError:
        raise
    except ImageError as error:
        reason = str(error).removeprefix("photograph: ")
        raise UnusableImageError(f"cannot be read: {reason}") from error
    scale = shorter_side / min(rgb.size)
    width, height = (max(shorter_side, round(side * scale)) for side in rgb.size)
    size = (width, height)
    if size != rgb.size:
        rgb = rgb.resize(size, RESAMPLING[resampling])
    return np.asarray(rgb)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the central `(size, size, 3)` of a `(height, width, 3)` at least that large."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


class Photographs:
    """The photographs of one split of a dataset, decoded on demand; thread-safe.

    Args:
        name, split: The dataset's name and the split, for messages.
        listing: Where the files are.
        image_size: Pixels of a square crop.
        shorter_side: Pixels of the shorter side after resizing, at least `image_size`.
        crop, flip: "center" or "random", and whether to flip left and right, in training.
        cache_bytes: Bound on the decoded photographs kept in memory; 0 keeps none.
        resampling: A key of `RESAMPLING`.

    Attributes:
        paths: One path a photograph. A member of a zip file reads `archive.zip/member`.
        skipped: Path -> reason, of every file found unusable so far.
    """

    def __init__(
        self,
        name: str,
        split: str,
        listing: Listing,
        image_size: int,
        shorter_side: int,
        crop: str = "center",
        flip: bool = True,
        cache_bytes: int = CACHE_BYTES,
        resampling: str = "bilinear",
    ):
        if crop not in ("center", "random"):
            raise ValueError(f'crop must be "center" or "random", got {crop!r}')
        if shorter_side < image_size:
            raise ValueError(
                f"shorter_side must be at least image_size ({image_size}), got {shorter_side}"
            )
        self.name = name
        self.split = split
        self.paths = list(listing.paths)
        self.skipped = dict(listing.skipped)
        self.image_size = image_size
        self.shorter_side = shorter_side
        self.crop = crop
        self.flip = flip
        self.cache_bytes = cache_bytes
        self.resampling = resampling
        self.note = listing.note
        self._open = listing.open
        self._min_side = max(MIN_SIDE, image_size // MAX_ENLARGEMENT)
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0
        self._unusable: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> np.ndarray:
        """Returns the pixels of `paths[index]`.

        Returns:
            `(height, width, 3)` uint8 RGB, read-only, upright. The shorter side is `shorter_side`;
            of a dataset that is cropped at the center, `(image_size, image_size, 3)`.

        Raises:
            UnusableImageError: If the file cannot be used; the message names it and the reason, and
                so does `skipped`.
        """
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        path = self.paths[index]
        if index in self._unusable:
            raise UnusableImageError(f"{path}: {self.skipped[path]}")
        try:
            with self._open(path) as file:
                image = decode(file, self.shorter_side, self._min_side, self.resampling)
        except (OSError, UnusableImageError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._skip(index, reason)
            raise UnusableImageError(f"{path}: {reason}") from error
        if self.crop == "center":
            image = center_crop(image, self.image_size)
        image = np.ascontiguousarray(image)
        image.setflags(write=False)
        with self._lock:
            if index not in self._cache and self._cached_bytes + image.nbytes <= self.cache_bytes:
                self._cache[index] = image
                self._cached_bytes += image.nbytes
        return image

    def _skip(self, index: int, reason: str) -> None:
        with self._lock:
            if index in self._unusable:
                return
            self.skipped[self.paths[index]] = reason
            self._unusable.add(index)
            count = len(self._unusable)
        if count <= 10:
            logger.warning("skipped %s: %s", printable(self.paths[index]), reason)
        elif count == 11:
            logger.warning("skipped more than 10 photographs of %s; no more are named", self.name)

    def load_usable(
        self, order: Sequence[int] | np.ndarray, position: int
    ) -> tuple[int, np.ndarray]:
        """Loads `order[position]`, or the next usable photograph after it in `order`, cyclically.

        Which one that is depends on the files alone, not on the timing of the workers.

        Returns:
            The index and the pixels, as `load` returns them.

        Raises:
            ValueError: If no photograph can be used; names the first few and their reasons.
        """
        for offset in range(len(order)):
            index = int(order[(position + offset) % len(order)])
            try:
                return index, self.load(index)
            except UnusableImageError:
                continue
        raise ValueError(
            f"{self.name}: none of the {len(self)} photographs of the {self.split} split "
            f"can be used: {first_few(self.skipped)}"
        )

    def describe(self) -> str:
        """Returns a line for logs: how many photographs, how they are cut, what was skipped."""
        first = f" ({first_few(self.skipped)})" if self.skipped else ""
        parts = (
            f"{self.name} {self.split}: {len(self):,} photographs",
            f"shorter side {self.shorter_side}, {self.crop} crop {self.image_size}",
            self.note,
            f"{len(self.skipped):,} skipped{first}",
        )
        return ", ".join(filter(None, parts))


def first_few(skipped: dict[str, str], count: int = 3) -> str:
    """Returns the first photographs with their reasons, and how many more there are."""
    shown = [f"{path}: {reason}" for path, reason in list(skipped.items())[:count]]
    rest = len(skipped) - len(shown)
    return "; ".join(shown) + (f"; and {rest:,} more" if rest else "")
