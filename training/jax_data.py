"""Photographs and holes in a GPU's memory, and batches that are drawn there."""

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data.photographs import Photographs, UnusableImageError
from .recipes import Recipe

LONGEST = 1.5
"""A photograph longer than this times its shorter side is cut off at both ends."""

HOLES = 16384
"""Holes that are drawn beforehand. Each is eight, turned and flipped."""


@dataclass(frozen=True)
class Store:
    """Photographs and holes.

    Attributes:
        arrays: `photographs` `(N, S, S, 3)` uint8, each in the upper left corner; `sizes` `(N, 2)`
            int32, their heights and widths; `holes` `(HOLES, H * W / 8)` uint8, packed bits.
    """

    arrays: dict[str, np.ndarray]

    def describe(self) -> str:
        """How much there is."""
        photographs, holes = self.arrays["photographs"], self.arrays["holes"]
        return f"{len(photographs)} photographs and {len(holes)} holes"

    @classmethod
    def read(cls, recipe: Recipe, photographs: Photographs) -> "Store":
        """Decodes all usable photographs of the recipe's training split, and draws the holes.

        Raises:
            ValueError: If no photograph can be used; names the first few.
        """
        photographs.load_usable(range(len(photographs)), 0)
        photographs.cache_bytes = 0  # each is decoded once
        is_cut = recipe.crop == "center"
        longest = recipe.image_size if is_cut else int(LONGEST * photographs.shorter_side)
        pixels = np.zeros((len(photographs), longest, longest, 3), np.uint8)
        sizes = np.zeros((len(photographs), 2), np.int32)

        def read(index: int) -> None:
            try:
                image = photographs.load(index)
            except UnusableImageError:
                return  # `photographs.skipped` has it
            top, left = (max(0, side - longest) // 2 for side in image.shape[:2])
            image = image[top : top + longest, left : left + longest]
            sizes[index] = image.shape[:2]
            # Its edge goes on: a zoomed crop at the border interpolates with what lies beyond.
            beyond = [(0, longest - side) for side in image.shape[:2]]
            pixels[index] = np.pad(image, [*beyond, (0, 0)], mode="edge")

        workers = recipe.workers or min(16, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(read, range(len(photographs))))
        if not sizes.all():
            usable = sizes[:, 0] > 0
            pixels, sizes = pixels[usable], sizes[usable]
        # JAX runs threads by now, which a fork would not survive.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            counts = [len(range(part, HOLES, workers)) for part in range(workers)]
            holes = np.concatenate(
                list(pool.map(_draw_holes, [recipe] * workers, range(workers), counts))
            )
        arrays: dict[str, np.ndarray] = {"photographs": pixels, "sizes": sizes, "holes": holes}
        return cls(arrays)


def _draw_holes(recipe: Recipe, part: int, count: int) -> np.ndarray:
    source, rng = recipe.open_masks(), np.random.default_rng((recipe.seed, part))
    return np.stack([np.packbits(source.hole(rng)) for _ in range(count)])


def draw_batch(arrays: Mapping[str, Any], key: Any, recipe: Recipe) -> dict[str, Any]:
    """Draws a batch as `data.pipeline.SampleStream` does, each sample on its own.

    Args:
        arrays: Those of `Store`.
        key: JAX's random key.
        recipe: `batch_size`, `image_size`, `crop`, `flip`, `zoom` and `jitter`.

    Returns:
        `image` `(B, H, W, 3)` float32 in [-1, 1] and `hole` `(B, H, W, 1)` float32, 1 = missing.
    """
    import jax

    def sample(key):
        image_key, hole_key = jax.random.split(key)
        return _draw_image(arrays, image_key, recipe), _draw_hole(arrays, hole_key, recipe)

    image, hole = jax.vmap(sample)(jax.random.split(key, recipe.batch_size))
    return {"image": image, "hole": hole}


def _draw_image(arrays, key, recipe):
    import jax
    from jax import numpy as jnp

    which, place, within, zoom, flip, colors = jax.random.split(key, 6)
    index = jax.random.randint(which, (), 0, len(arrays["photographs"]))
    photograph = arrays["photographs"][index].astype("float32")
    size = recipe.image_size
    room = (arrays["sizes"][index] - size).astype("float32")
    if recipe.crop == "random":
        corner = jnp.floor(jax.random.uniform(place, (2,)) * (room + 1.0))
    else:
        corner = jnp.floor(room / 2.0)
    side = size / (1.0 + jax.random.uniform(zoom, maxval=recipe.zoom or 1e-9))
    corner = corner + jax.random.uniform(within, (2,)) * (size - side)
    scale = jnp.full((2,), size / side)
    image = jax.image.scale_and_translate(
        photograph, (size, size, 3), (0, 1), scale, -corner * scale, "cubic", antialias=False
    )
    image = jnp.clip(image, 0.0, 255.0)
    if recipe.flip:
        image = jnp.where(jax.random.bernoulli(flip), image[:, ::-1], image)
    if recipe.jitter:
        image = _recolor(image, 1.0 + recipe.jitter * jax.random.uniform(colors, (3,), minval=-1))
    return jnp.round(image) / 127.5 - 1.0


def _recolor(image, factors):
    """Brightness, contrast and saturation, one after the other, as Pillow's `ImageEnhance`."""
    from jax import numpy as jnp

    luminance = jnp.array([0.299, 0.587, 0.114])
    image = jnp.clip(image * factors[0], 0.0, 255.0)
    grey = jnp.mean(image @ luminance)
    image = jnp.clip(grey + factors[1] * (image - grey), 0.0, 255.0)
    grey = (image @ luminance)[..., None]
    return jnp.clip(grey + factors[2] * (image - grey), 0.0, 255.0)


def _draw_hole(arrays, key, recipe):
    import jax
    from jax import numpy as jnp

    which, turn, rows, columns = jax.random.split(key, 4)
    index = jax.random.randint(which, (), 0, len(arrays["holes"]))
    bits = jnp.unpackbits(arrays["holes"][index])
    hole = bits.reshape(recipe.image_size, recipe.image_size)
    hole = jnp.where(jax.random.bernoulli(turn), hole.T, hole)
    hole = jnp.where(jax.random.bernoulli(rows), hole[::-1], hole)
    hole = jnp.where(jax.random.bernoulli(columns), hole[:, ::-1], hole)
    return hole[..., None].astype("float32")
