"""What a run prints while it trains: a live bar on a terminal, lines in a log file."""

import sys
import time
from fractions import Fraction
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from musical_tf.command_line import clock

from .callbacks import Callback, Logs


class ProgressBar(Callback):
    """A live bar: steps and the time left, then the loss terms as far as the terminal is wide."""

    def __init__(self, steps: int, steps_per_epoch: Fraction | int, console: Console | None = None):
        self.steps_per_epoch = steps_per_epoch
        terms = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            MofNCompleteColumn(),
            BarColumn(bar_width=10),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[terms]}", table_column=terms),
            console=console or Console(),
            expand=True,
            refresh_per_second=2,
            speed_estimate_period=120,
        )
        self.task = self.progress.add_task("", total=steps, epoch=1, terms="", start=False)

    def on_begin(self, trainer: Any, step: int) -> None:
        self.progress.start()
        self.progress.update(self.task, completed=step)
        self.progress.start_task(self.task)

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        epoch = (step - 1) // self.steps_per_epoch + 1
        # The first that a narrow terminal shows is the total.
        first = {name: value for name, value in logs.items() if name == "total"}
        terms = show_terms({**first, **logs})
        self.progress.update(self.task, completed=step, epoch=epoch, terms=terms)

    def close(self) -> None:
        self.progress.stop()


class ProgressLines(Callback):
    """For a log file: a plain line every `seconds`, with the means since the last one.

    The first step and the last always get a line.
    """

    def __init__(
        self,
        steps: int,
        steps_per_epoch: Fraction | int,
        seconds: float = 30.0,
        stream: TextIO | None = None,
    ):
        self.steps = steps
        self.steps_per_epoch = steps_per_epoch
        self.seconds = seconds
        self.stream = stream or sys.stdout
        self.begun_at: float | None = None
        self.waiting: list[Logs] = []

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        now = time.monotonic()
        self.waiting.append(logs)
        if self.begun_at is None:
            # The first call compiles the graph, which the estimate of the time left must not count.
            self.begun_at, self.first_step = now, step
            self._write(step, "?" if step < self.steps else clock(0))
        elif now - self.written_at >= self.seconds or step == self.steps:
            pace = (now - self.begun_at) / (step - self.first_step)
            self._write(step, clock(pace * (self.steps - step)), f"  {pace:.3g} s/step")

    def on_end(self, trainer: Any, step: int) -> None:
        if self.waiting:
            self._write(step, "stopped")

    def _write(self, step: int, left: str, speed: str = "") -> None:
        count = len(self.waiting)
        means = {n: sum(logs[n] for logs in self.waiting) / count for n in self.waiting[-1]}
        epoch = (step - 1) // self.steps_per_epoch + 1
        line = f"step {step}/{self.steps}  epoch {epoch}  left {left}{speed}  {show_terms(means)}"
        print(line, file=self.stream, flush=True)
        self.waiting.clear()
        self.written_at = time.monotonic()


def show_terms(logs: Logs) -> str:
    """Returns `name 0.1234` for every term, on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
