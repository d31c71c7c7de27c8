"""Sample sheets: fixed photographs, their holes and what the network makes of them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from musical_tf.files import write_whole

from .callbacks import Logs, Periodic


class SampleSheet(Periodic):
    """A picture of fixed photographs now and then and at the end: input, hole, result, truth.

    Args:
        folder: Where `epoch-0001.png` or `step-00000123.png` go; made if missing.
        images: `(N, H, W, 3)` uint8 RGB.
        holes: `(N, H, W)` bool, True = missing.
        show: Called with (tag, sheet as (H', W', 3) uint8, step) for each sheet; TensorBoard's for
            instance.
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
        self.drawn_at = 0

    def on_begin(self, trainer: Any, step: int) -> None:
        super().on_begin(trainer, step)
        self.drawn_at = step

    def on_epoch(self, trainer: Any, epoch: int, step: int) -> None:
        if not self.every:
            self._draw(trainer, self.folder / f"epoch-{epoch:04d}.png", step)

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.is_due(step):
            self._draw(trainer, self.folder / f"step-{step:08d}.png", step)

    def on_end(self, trainer: Any, step: int) -> None:
        if self.drawn_at != step:
            self._draw(trainer, self.folder / f"step-{step:08d}.png", step)

    def _draw(self, trainer: Any, path: Path, step: int) -> None:
        if not len(self.images):
            return
        sheet = draw_sheet(trainer, self.images, self.holes)
        self.folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        Image.fromarray(sheet).save(data, format="PNG")
        write_whole(path, data.getvalue())
        if self.show is not None:
            self.show("samples", sheet, step)
        self.drawn_at = step


def draw_sheet(trainer: Any, images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Draws one row a photograph: input with the hole white, hole, result, truth.

    Args:
        trainer: Its generator fills the holes, one photograph at a time.
        images: `(N, H, W, 3)` uint8 RGB.
        holes: `(N, H, W)` bool.

    Returns:
        `(16 + N (H + 4), 4 (W + 4), 3)` uint8: a line of titles, then the rows.
    """
    count, height, width, _ = images.shape
    gap, title = 4, 16
    sheet = Image.new("RGB", (4 * (width + gap), title + count * (height + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(("input", "hole", "result", "truth")):
        draw.text((column * (width + gap) + 2, 2), name, fill="black")
    for row, (image, hole) in enumerate(zip(images, holes, strict=True)):
        cells = (
            np.where(hole[..., None], np.uint8(255), image),
            np.repeat(hole[..., None].astype(np.uint8) * 255, 3, axis=-1),
            trainer.inpaint(image, hole),
            image,
        )
        for column, cell in enumerate(cells):
            position = (column * (width + gap), title + row * (height + gap))
            sheet.paste(Image.fromarray(cell), position)
    return np.asarray(sheet)
