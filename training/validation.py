"""Metrics on photographs that are not trained on, while the network trains."""

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from musical_tf.files import write_whole
from musical_tf.run_directory import RunDirectory

from .callbacks import Logs, Periodic
from .progress import show_terms
from .samples import draw_sheet

if TYPE_CHECKING:
    from .callbacks import TensorBoard

SHOWN = 8
"""Photographs of a validation that TensorBoard shows."""


class Validation(Periodic):
    """Measures protocol `authors` now and then, keeps the best weights, and ends a run in time.

    `validation.csv` gets a line each time: the step and the means over the photographs. The weights
    with the highest PSNR are kept beside the last ones. A continued run drops lines of later steps,
    which are measured again, so that it stops where the uninterrupted run would.

    Args:
        run: The run's folder.
        images: `(N, H, W, 3)` uint8 RGB.
        holes: `(N, H, W)` bool, True = missing.
        every: Int >= 1, steps between two validations.
        patience: Int, validations without a better PSNR after which the run stops; 0 = off.
        board: Shows the metrics and some of the filled photographs; None for none.
    """

    def __init__(
        self,
        run: RunDirectory,
        images: np.ndarray,
        holes: np.ndarray,
        every: int,
        patience: int = 0,
        board: "TensorBoard | None" = None,
    ):
        super().__init__(every)
        self.run = run
        self.images = images
        self.holes = holes
        self.patience = patience
        self.board = board
        self.rows: list[dict[str, float]] = []

    @property
    def best(self) -> dict[str, float]:
        """The line with the highest PSNR, the first of equal ones."""
        return max(self.rows, key=lambda row: row["psnr"])

    @property
    def exhausted(self) -> bool:
        """Whether the run has to stop."""
        since = len(self.rows) - 1 - self.rows.index(self.best) if self.rows else 0
        return 0 < self.patience <= since

    def describe_best(self) -> str:
        """Returns `PSNR 24.31 dB at step 3000`."""
        return f"PSNR {self.best['psnr']:.2f} dB at step {self.best['step']:.0f}"

    def on_begin(self, trainer: Any, step: int) -> None:
        super().on_begin(trainer, step)
        self.rows = [row for row in self.run.validations() if row["step"] <= step]
        if self.exhausted:
            trainer.stop_training = True

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        from musical_tf.metrics import authors_metrics

        if not self.is_due(step):
            return
        measured = [
            authors_metrics(image, trainer.inpaint(image, hole), hole)
            for image, hole in zip(self.images, self.holes, strict=True)
        ]
        means = {
            name.partition("/")[2]: float(np.mean([each[name] for each in measured]))
            for name in measured[0]
        }
        self.rows.append({"step": step, **means})
        if self.best["step"] == step:
            trainer.save_generator(self.run.best_weights)
        text = io.StringIO()
        table = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(row | {"step": int(row["step"])} for row in self.rows)
        write_whole(self.run.validation, text.getvalue())
        best = self.describe_best()
        print(f"validation at step {step}  {show_terms(means)}  best {best}", flush=True)
        if self.board is not None:
            self.board.write("validation", means, step)
            sheet = draw_sheet(trainer, self.images[:SHOWN], self.holes[:SHOWN])
            self.board.show("validation", sheet, step)
        if self.exhausted:
            trainer.stop_training = True
