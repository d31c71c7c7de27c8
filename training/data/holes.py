"""Where holes come from: the paper's centre square, random boxes, brush strokes, or mask images."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from musical_tf.arguments import did_you_mean
from musical_tf.images import THRESHOLD, masks_beside, read_mask, stretch_hole

from .listing import list_images

IRREGULAR_RATIOS = (0.01, 0.5)
"""Smallest and largest share of missing pixels in an irregular hole."""

# Keeps the generators of evaluation holes apart from those of training samples, (seed, sample
# number).
_EVALUATION_STREAM = 0x686F6C65


class HoleSource:
    """Base of everything that makes holes; `image_size` is their height and width in pixels."""

    def __init__(self, image_size: int):
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, got {image_size}")
        self.image_size = image_size

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a hole drawn from `rng` alone.

        Returns:
            `(image_size, image_size)` bool, True = missing. Neither all True nor all False.
        """
        raise NotImplementedError

    def deterministic(self, index: int) -> np.ndarray:
        """Returns the hole of evaluation sample `index`, the same on every call and machine."""
        return self.hole(np.random.default_rng((index, _EVALUATION_STREAM)))


class CenterHole(HoleSource):
    """The paper's hole: the central square, 128 x 128 in 256 x 256 (section 4.1)."""

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns rows and columns `size / 4 : 3 * size / 4`; `rng` is left alone."""
        inside = slice(self.image_size // 4, 3 * self.image_size // 4)
        hole = np.zeros((self.image_size, self.image_size), bool)
        hole[inside, inside] = True
        return hole


class BoxHole(HoleSource):
    """One rectangle, each side 1/4 to 1/2 of the image's, anywhere in it."""

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a random rectangle; see `HoleSource.hole`."""
        size = self.image_size
        height, width = rng.integers(size // 4, size // 2, size=2, endpoint=True)
        top = rng.integers(0, size - height, endpoint=True)
        left = rng.integers(0, size - width, endpoint=True)
        hole = np.zeros((size, size), bool)
        hole[top : top + height, left : left + width] = True
        return hole


class IrregularHole(HoleSource):
    """Brush strokes and boxes, until a share of the pixels drawn from 1 % to 50 % is missing.

    A stroke is a thick line that turns a little at each bend; one piece in five is a small box. The
    drawing stops at the first piece that reaches the share aimed at; a piece that would go beyond
    50 % is taken back.

    Args:
        image_size: Height and width of the holes, in pixels.
        share: Share of missing pixels of every hole, within `IRREGULAR_RATIOS`, exceeded by 0.01 at
            most; None to draw it for each.
    """

    def __init__(self, image_size: int, share: float | None = None):
        super().__init__(image_size)
        lowest, highest = IRREGULAR_RATIOS
        if share is not None and not lowest <= share <= highest:
            raise ValueError(f"share must be within {lowest} and {highest}, got {share}")
        self._range = IRREGULAR_RATIOS if share is None else (share, share)
        self._limit = highest if share is None else share + 0.01

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a random scribble; see `HoleSource.hole`."""
        pixels = self.image_size**2
        target = rng.uniform(*self._range) * pixels
        image, missing = Image.new("L", (self.image_size, self.image_size)), 0
        while missing < target:
            before = image.copy()
            if rng.random() < 0.2:
                self._draw_box(ImageDraw.Draw(image), rng)
            else:
                self._draw_stroke(ImageDraw.Draw(image), rng, target - missing)
            drawn = image.histogram()[255]
            if drawn > self._limit * pixels:
                image = before
            else:
                missing = drawn
        return np.asarray(image) > 0

    def _draw_box(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
        size = self.image_size
        width, height = rng.integers(size // 16, size // 6, size=2, endpoint=True)
        left, top = rng.integers(0, size - width), rng.integers(0, size - height)
        draw.rectangle([left, top, left + width, top + height], fill=255)

    def _draw_stroke(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator, area: float):
        """Draws a stroke of about `area` pixels, if that is little, else of up to 16 bends."""
        size = self.image_size
        width = int(rng.integers(max(2, size // 32), max(4, size // 12), endpoint=True))
        bends = int(min(int(rng.integers(4, 16)), 1 + area / (width * size / 12)))
        directions = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.6, size=bends))
        steps = rng.uniform(size / 32, size / 8, size=bends)
        moves = steps[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=1)
        points = rng.uniform(0, size, size=2) + np.cumsum(np.vstack([np.zeros(2), moves]), axis=0)
        points = np.clip(points, 0, size - 1)
        draw.line([tuple(point) for point in points], fill=255, width=width, joint="curve")
        # Round ends, as a brush leaves them.
        for x, y in (points[0], points[-1]):
            draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)


class MixedHoles(HoleSource):
    """A hole of one of several sources of the same image size, each as likely as the others."""

    def __init__(self, sources: Sequence[HoleSource]):
        super().__init__(sources[0].image_size)
        self.sources = tuple(sources)

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns a hole of a source picked at random; see `HoleSource.hole`."""
        return self.sources[rng.integers(len(self.sources))].hole(rng)


class FolderHoles(HoleSource):
    """The mask images of a folder, at any depth; see `musical_tf.images.load_mask`.

    In a folder of pairs, such as `cat.jpg` and `cat_mask001.png`, only the masks are read. All are
    read when the folder is opened, so that a bad one is refused by name before the training starts,
    and kept at one bit a pixel. A mask of another size is stretched to the square.

    Raises:
        FileNotFoundError: If the folder is not there or holds no image.
        ValueError: If a file cannot be read, or has no hole, or nothing but hole.
    """

    def __init__(self, folder: str | Path, image_size: int):
        super().__init__(image_size)
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"mask folder {os.path.abspath(folder)} is not there")
        self.paths = list_images(folder)
        if beside := masks_beside(map(Path, self.paths)):  # the others are their photographs
            self.paths = sorted(map(str, beside))
        if not self.paths:
            raise FileNotFoundError(f"mask folder {os.path.abspath(folder)} holds no images")
        with ThreadPoolExecutor() as pool:
            self._packed = list(pool.map(self._read, self.paths))

    def _read(self, path: str) -> np.ndarray:
        try:
            hole = read_mask(path, name=f"mask {path}")
        except OSError as error:
            raise ValueError(f"mask {path}: {error.strerror}") from error
        hole = stretch_hole(hole, self.image_size, self.image_size)
        if not hole.any():
            raise ValueError(
                f"mask {path} is empty: no pixel above {THRESHOLD}, so nothing to fill"
            )
        if hole.all():
            raise ValueError(
                f"mask {path} is all hole at {self.image_size} x {self.image_size}: "
                "nothing to fill it from"
            )
        return np.packbits(hole)

    def _unpack(self, index: int) -> np.ndarray:
        size = self.image_size
        bits = np.unpackbits(self._packed[index], count=size * size)
        return bits.reshape(size, size).astype(bool)

    def hole(self, rng: np.random.Generator) -> np.ndarray:
        """Returns the hole of a mask picked at random; see `HoleSource.hole`."""
        return self._unpack(int(rng.integers(len(self.paths))))

    def deterministic(self, index: int) -> np.ndarray:
        """Returns the masks one after the other, in the order of their paths, over and over."""
        return self._unpack(index % len(self.paths))


KINDS: dict[str, type[HoleSource]] = {
    "center": CenterHole,
    "box": BoxHole,
    "irregular": IrregularHole,
}
"""The holes that are drawn. Any other specification is several of these joined by `+`, or a folder
of mask images."""


def drawn_kinds(spec: str) -> tuple[str, ...]:
    """Returns the kinds named in `spec`, such as `"center+irregular"`; none if it is a folder."""
    kinds = tuple(spec.split("+"))
    return kinds if all(kind in KINDS for kind in kinds) else ()


def check_masks(spec: str) -> None:
    """Raises ValueError unless `spec` names some of `KINDS` or an existing folder."""
    if drawn_kinds(spec) or os.path.isdir(spec):
        return
    hint = did_you_mean(spec.replace("centre", "center"), KINDS)
    raise ValueError(
        f"mask must be {', '.join(KINDS)}, several of them joined by + (center+irregular), or an "
        f"existing folder of mask images, got {spec!r}{hint}"
    )


def open_masks(spec: str | Path, image_size: int) -> HoleSource:
    """Opens a source of holes: one of `KINDS`, several joined by "+", or a folder of masks.

    Raises:
        ValueError: On anything else, or a mask image that cannot be used; names it.
        FileNotFoundError: If the folder holds no image.
    """
    spec = str(spec)
    check_masks(spec)
    sources = [KINDS[kind](image_size) for kind in drawn_kinds(spec)]
    if not sources:
        return FolderHoles(spec, image_size)
    return MixedHoles(sources) if len(sources) > 1 else sources[0]
