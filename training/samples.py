"""Sample sheets: fixed photographs, their holes and what the network makes of them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from musical_tf.files import write_whole

from .callbacks import Logs, Periodic
from .evaluation import drawings


class SampleSheet(Periodic):
    """A picture of fixed photographs now and then and at the end: input, hole, result, truth.

    Args:
        folder: Where `epoch-0001.png` or `step-00000123.png` go; made if missing.
        images: `(N, H, W, 3)` uint8 RGB.
        holes: `(N, H, W)` bool, True = missing.
        show: Called with (tag, sheet as (H', W', 3) uint8, step) for each sheet.
        every: Int >= 0, steps between two pictures; 0 = after every epoch.
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        holes: np.ndarray,
        show: Callable[[str, np.ndarray, int], None] | None = None,
        every: int = 0,
    ):
        super().__init__(every)
        self.folder = folder
        self.images = images
        self.holes = holes
        self.show = show

    def on_begin(self, trainer: Any, step: int) -> None:
        super().on_begin(trainer, step)
        self.drawn_at = step

    def on_epoch(self, trainer: Any, epoch: int, step: int) -> None:
        if not self.every:
            self._draw(trainer, f"epoch-{epoch:04d}.png", step)

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.is_due(step):
            self.on_end(trainer, step)

    def on_end(self, trainer: Any, step: int) -> None:
        if self.drawn_at != step:
            self._draw(trainer, f"step-{step:08d}.png", step)

    def _draw(self, trainer: Any, name: str, step: int) -> None:
        sheet = draw_sheet(trainer, self.images, self.holes)
        self.folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        Image.fromarray(sheet).save(data, format="PNG")
        write_whole(self.folder / name, data.getvalue())
        if self.show is not None:
            self.show("samples", sheet, step)
        self.drawn_at = step


def draw_sheet(trainer: Any, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Draws one row a photograph: input with the hole white, hole, result, truth.

    From `(N, H, W, 3)` uint8 RGB and `(N, H, W)` bool to `(H', W', 3)` uint8, one to one.
    """
    rows = []
    for image, hole in zip(images, holes, strict=True):
        missing = np.repeat(hole[..., None], 3, axis=-1)
        white = missing.astype(np.uint8) * np.uint8(255)
        filled = trainer.inpaint(image, hole)
        rows.append((np.where(missing, white, image), white, filled, image))
    heads = ("input", "hole", "result", "truth")
    return np.asarray(drawings.grid(rows, max(images.shape[1:3]), heads, gap=4))
