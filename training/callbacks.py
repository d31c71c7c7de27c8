"""What happens around the training steps: progress, logs, pictures, checkpoints, and reasons to
stop.

A protocol of our own rather than Keras' callbacks: a continued run starts at a step other than 0,
and every callback must be closed however the run ends.
"""

import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from musical_tf.files import write_whole

if TYPE_CHECKING:
    from .trainer import Trainer

Logs = Mapping[str, float]


class Callback:
    """Does nothing; subclasses override what they need. Steps count finished steps, from 1."""

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Before the first step; `step` are done already."""

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """After every step, with its loss terms."""

    def on_epoch(self, trainer: "Trainer", epoch: int, step: int) -> None:
        """After the last step of every epoch; epochs count from 1."""

    def on_end(self, trainer: "Trainer", step: int) -> None:
        """When the run is done or was asked to stop, not when it failed."""

    def close(self) -> None:
        """Always, at the very end."""


class ProgressBar(Callback):
    """A live bar: steps, time left, and every loss term.

    Args:
        steps: Int, the last step.
        steps_per_epoch: Photographs / batch size.
        console: Where to draw; standard output by default.
    """

    def __init__(self, steps: int, steps_per_epoch: Fraction | int, console: Console | None = None):
        self.steps_per_epoch = steps_per_epoch
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[terms]}"),
            console=console or Console(),
            refresh_per_second=2,
            speed_estimate_period=120,
        )
        self.task = self.progress.add_task("", total=steps, epoch=1, terms="", start=False)

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Starts drawing."""
        self.progress.start()
        self.progress.update(self.task, completed=step)
        self.progress.start_task(self.task)

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Moves the bar."""
        epoch = (step - 1) // self.steps_per_epoch + 1
        self.progress.update(self.task, completed=step, epoch=epoch, terms=show_terms(logs))

    def close(self) -> None:
        """Gives the terminal back."""
        self.progress.stop()


class ProgressLines(Callback):
    """What a log file wants instead of a bar: a plain line now and then, with the means since the
    last one.

    Args:
        steps: Int, the last step.
        steps_per_epoch: Photographs / batch size.
        seconds: Float, time between two lines. The first step and the last always get one.
        stream: Text stream; standard output by default.
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
        self.begun_at = 0.0
        self.first_step = 0
        self.written_at = 0.0
        self.waiting: list[Logs] = []

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Starts the clock."""
        self.first_step = step

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Writes a line when it is time."""
        now = time.monotonic()
        self.waiting.append(logs)
        if step == self.first_step + 1:
            # The first step compiles the graph; counted, it would spoil the estimate of the time
            # left.
            self.begun_at = now
            self._write(step, "?")
        elif now - self.written_at >= self.seconds or step == self.steps:
            pace = (now - self.begun_at) / (step - self.first_step - 1)
            self._write(step, show_duration(pace * (self.steps - step)), pace)

    def on_end(self, trainer: "Trainer", step: int) -> None:
        """Writes the last line."""
        if self.waiting:
            self._write(step, "stopped")

    def _write(self, step: int, left: str, pace: float | None = None) -> None:
        means = {
            name: sum(logs[name] for logs in self.waiting) / len(self.waiting)
            for name in self.waiting[-1]
        }
        epoch = (step - 1) // self.steps_per_epoch + 1
        speed = "" if pace is None else f"  {pace:.3g} s/step"
        print(
            f"step {step}/{self.steps}  epoch {epoch}  left {left}{speed}  {show_terms(means)}",
            file=self.stream,
            flush=True,
        )
        self.waiting.clear()
        self.written_at = time.monotonic()


def show_terms(logs: Logs) -> str:
    """Returns `name 0.1234` for every term, on one line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in logs.items())


def show_duration(seconds: float) -> str:
    """Returns `H:MM:SS`."""
    minutes, second = divmod(round(max(seconds, 0.0)), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"


class LossLog(Callback):
    """`log.csv` and `log.jsonl`: one line a step, every term unweighted, and never a step twice.

    A line is one write, so a reader or a crash sees whole lines. On resume, lines after the
    checkpoint's step (they will be computed again) and a torn last line are dropped.

    Args:
        run_dir: Folder the two files are in.
        every: Int >= 1, log every so many steps.
    """

    def __init__(self, run_dir: Path, every: int = 1):
        self.csv_path = run_dir / "log.csv"
        self.json_path = run_dir / "log.jsonl"
        self.every = every
        self.names: list[str] | None = None
        self.files: list[int] = []

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Drops stale lines and opens both files."""
        rows = []
        if self.json_path.is_file():
            for line in self.json_path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    stale = row["step"] > step
                except (ValueError, KeyError, TypeError):
                    break
                if stale:
                    break
                rows.append(row)
        if rows:
            self.names = [name for name in rows[0] if name != "step"]
        write_whole(self.json_path, "".join(json.dumps(row) + "\n" for row in rows))
        table = [_csv_line(["step", *self.names])] if rows else []
        table += [_csv_line(row.values()) for row in rows]
        write_whole(self.csv_path, "".join(table))
        flags = os.O_WRONLY | os.O_APPEND
        for path in (self.csv_path, self.json_path):
            self.files.append(os.open(path, flags))

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Appends one line to each file."""
        if step % self.every:
            return
        line = _csv_line([step, *logs.values()])
        if self.names is None:
            self.names = list(logs)
            line = _csv_line(["step", *self.names]) + line
        _write_line(self.files[0], line, self.csv_path)
        _write_line(self.files[1], json.dumps({"step": step, **logs}) + "\n", self.json_path)

    def close(self) -> None:
        """Closes both files."""
        while self.files:
            os.close(self.files.pop())


def _csv_line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _write_line(file: int, line: str, path: Path) -> None:
    data = line.encode()
    if os.write(file, data) != len(data):
        raise OSError(f"{path}: only part of a line could be written; is the disk full?")


class SampleSheet(Callback):
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
        self.folder = folder
        self.images = images
        self.holes = holes
        self.show = show
        self.every = every
        self.drawn_at = 0

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Takes note of where a continued run stands."""
        self.drawn_at = step

    def on_epoch(self, trainer: "Trainer", epoch: int, step: int) -> None:
        """Draws `epoch-0001.png`, if pictures go by epochs."""
        if not self.every:
            self._draw(trainer, self.folder / f"epoch-{epoch:04d}.png", step)

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Draws `step-00000123.png`, if pictures go by steps."""
        if self.every and step % self.every == 0:
            self._draw(trainer, self.folder / f"step-{step:08d}.png", step)

    def on_end(self, trainer: "Trainer", step: int) -> None:
        """Draws `step-00000123.png`, unless this step has its picture already."""
        if self.drawn_at != step:
            self._draw(trainer, self.folder / f"step-{step:08d}.png", step)

    def _draw(self, trainer: "Trainer", path: Path, step: int) -> None:
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


def draw_sheet(trainer: "Trainer", images: np.ndarray, holes: np.ndarray) -> np.ndarray:
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


class TensorBoard(Callback):
    """Scalars of every loss term, the learning rate and the loss scales; and the sample sheets.

    A continued run adds a file. Steps that are computed again come out the same, so the curves do.

    Args:
        folder: Where the event files go.
        every: Int >= 1, write every so many steps.
    """

    def __init__(self, folder: Path, every: int = 10):
        self.folder = folder
        self.every = every
        self.writer: tf.summary.SummaryWriter | None = None

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Opens a new event file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Writes the scalars."""
        if step % self.every:
            return
        with self.writer.as_default(step=step):
            for name, value in logs.items():
                tf.summary.scalar(f"loss/{name}", value)
            for name, value in trainer.scales().items():
                tf.summary.scalar(f"optimizer/{name}", value)

    def show(self, tag: str, sheet: np.ndarray, step: int) -> None:
        """Writes a picture, `(H, W, 3)` uint8."""
        with self.writer.as_default(step=step):
            tf.summary.image(tag, sheet[None])

    def close(self) -> None:
        """Flushes and closes the event file."""
        if self.writer is not None:
            self.writer.close()


class Saver(Callback):
    """Calls `save` every so many steps or minutes and at the end, once a step.

    Args:
        save: Called with the number of finished steps.
        every: Int >= 1.
        minutes: Float, save when the last time was so long ago, whatever `every` says: where a step
            takes half a minute, a thousand of them are a night's work.
    """

    def __init__(self, save: Callable[[int], None], every: int, minutes: float = 15.0):
        self.save = save
        self.every = every
        self.seconds = 60.0 * minutes
        self.saved_at = 0
        self.clock = time.monotonic()

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Takes note of the step that a continued run has on disk already."""
        self.saved_at = step
        self.clock = time.monotonic()

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Saves when it is time."""
        if step % self.every == 0 or time.monotonic() - self.clock >= self.seconds:
            self._save(step)

    def on_end(self, trainer: "Trainer", step: int) -> None:
        """Saves what is not saved yet."""
        if self.saved_at != step:
            self._save(step)

    def _save(self, step: int) -> None:
        self.save(step)
        self.saved_at = step
        self.clock = time.monotonic()


class TimeLog(Callback):
    """`time.json`: how long the run took, a part for every process that worked on it.

    Each part has `from_step` and `to_step`, finished steps at its beginning and end; `seconds` of
    the clock; and `cpu_seconds`, those of all cores added up, which other work on the machine
    changes little. Tracing counts, starting TensorFlow does not.

    Args:
        run_dir: Folder the file is in.
    """

    def __init__(self, run_dir: Path):
        self.path = run_dir / "time.json"
        self.parts: list[dict[str, float]] = []

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Reads what earlier processes took, and starts the clocks."""
        if self.path.is_file():
            self.parts = json.loads(self.path.read_text(encoding="utf-8"))
        self.from_step = step
        self.clock, self.cpu_clock = time.monotonic(), time.process_time()

    def write(self, step: int) -> None:
        """Writes the file; `step` are finished."""
        part = {
            "from_step": self.from_step,
            "to_step": step,
            "seconds": round(time.monotonic() - self.clock, 1),
            "cpu_seconds": round(time.process_time() - self.cpu_clock, 1),
        }
        write_whole(self.path, json.dumps([*self.parts, part], indent=1) + "\n")


class StopAfter(Callback):
    """Stops the run when the time is up.

    Args:
        seconds: Float, from the moment this was made.
    """

    def __init__(self, seconds: float):
        self.deadline = time.monotonic() + seconds

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Looks at the clock."""
        if time.monotonic() >= self.deadline:
            trainer.stop_training = True


class StopOnSignal(Callback):
    """Ctrl-C or SIGTERM finishes the step and lets the run save; a second one ends the process at
    once.

    Handlers stand from construction to `close`, so a signal during a slow start is not lost.

    Args:
        signals: Signal numbers.
        stream: Where to say so; standard error by default.
    """

    def __init__(
        self,
        signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
        stream: TextIO | None = None,
    ):
        self.received: int | None = None
        self.stream = stream or sys.stderr
        self.before = {number: signal.signal(number, self._receive) for number in signals}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = number
        name = signal.Signals(number).name
        print(f"{name}: finishing this step, then saving; again to abort at once", file=self.stream)

    def on_begin(self, trainer: "Trainer", step: int) -> None:
        """Stops before the first step if a signal came already."""
        trainer.stop_training = self.received is not None

    def on_step(self, trainer: "Trainer", step: int, logs: Logs) -> None:
        """Stops after this step if a signal came."""
        if self.received is not None:
            trainer.stop_training = True

    def close(self) -> None:
        """Puts the old handlers back."""
        for number, handler in self.before.items():
            signal.signal(number, handler)
