"""What happens around the training steps: logs, checkpoints, and reasons to stop.

A protocol of our own rather than Keras' callbacks: a continued run starts at a step other than 0,
and every callback must be closed however the run ends.
"""

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from musical_tf.files import write_whole
from musical_tf.run_directory import RunDirectory

if TYPE_CHECKING:
    import tensorflow as tf

Logs = Mapping[str, float]


class Callback:
    """Does nothing; subclasses override what they need. Steps count finished steps, from 1."""

    def on_begin(self, trainer: Any, step: int) -> None:
        """Before the first step; `step` are done already."""

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        """After every step, with its loss terms."""

    def on_epoch(self, trainer: Any, epoch: int, step: int) -> None:
        """After the last step of every epoch; epochs count from 1."""

    def on_end(self, trainer: Any, step: int) -> None:
        """When the run is done or was asked to stop, not when it failed."""

    def close(self) -> None:
        """Always, at the very end."""


class Periodic(Callback):
    """Due at every multiple of `every` steps, though a call may make several; 0 = never."""

    def __init__(self, every: int):
        self.every = every
        self.seen = 0

    def on_begin(self, trainer: Any, step: int) -> None:
        self.seen = step

    def is_due(self, step: int) -> bool:
        """Whether a multiple of `every` lies in the steps since the last call."""
        before, self.seen = self.seen, step
        return self.every > 0 and step // self.every > before // self.every


class LossLog(Periodic):
    """`log.csv` and `log.jsonl`: one line a step, every term unweighted, and never a step twice.

    A line is one write, so a reader or a crash sees whole lines. On resume, lines after the
    checkpoint's step (they will be computed again) and a torn last line are dropped.
    """

    def __init__(self, run: RunDirectory, every: int = 1):
        super().__init__(every)
        self.run = run
        self.files: list[TextIO] = []

    def on_begin(self, trainer: Any, step: int) -> None:
        super().on_begin(trainer, step)
        rows = self.run.losses() if self.run.log.is_file() else []
        rows = [row for row in rows if row["step"] <= step]
        write_whole(self.run.log, "".join(json.dumps(row) + "\n" for row in rows))
        self.run.table.write_bytes(b"")
        for path in (self.run.table, self.run.log):
            self.files.append(path.open("a", buffering=1, encoding="utf-8", newline=""))
        self.table = csv.writer(self.files[0], lineterminator="\n")
        self.has_head = False
        for row in rows:
            self._add(row)

    def _add(self, row: Logs) -> None:
        if not self.has_head:
            self.table.writerow(row)
            self.has_head = True
        self.table.writerow(row.values())

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.is_due(step):
            row = {"step": step, **logs}
            self._add(row)
            self.files[1].write(json.dumps(row) + "\n")

    def close(self) -> None:
        while self.files:
            self.files.pop().close()


class TensorBoard(Periodic):
    """Scalars of every loss term, the learning rate and the loss scales; and pictures.

    A continued run adds an event file. Steps that are computed again give the same curves.
    """

    def __init__(self, folder: Path, every: int = 10):
        super().__init__(every)
        self.folder = folder
        self.writer: tf.summary.SummaryWriter | None = None

    def on_begin(self, trainer: Any, step: int) -> None:
        import tensorflow as tf

        super().on_begin(trainer, step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.is_due(step):
            self.write("loss", logs, step)
            self.write("optimizer", trainer.scales(), step)

    def write(self, group: str, values: Logs, step: int) -> None:
        """Writes scalars as `group/name`."""
        import tensorflow as tf

        assert self.writer is not None
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name}", value)

    def show(self, tag: str, sheet: np.ndarray, step: int) -> None:
        """Writes a picture, `(H, W, 3)` uint8."""
        import tensorflow as tf

        assert self.writer is not None
        with self.writer.as_default(step=step):
            tf.summary.image(tag, sheet[None])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class Saver(Periodic):
    """Calls `save(step)` every so many steps or seconds and at the end, once a step.

    The seconds are for large networks: where a step takes half a minute, a thousand take a night.
    """

    def __init__(self, save: Callable[[int], None], every: int, seconds: float = 900.0):
        super().__init__(every)
        self.save = save
        self.seconds = seconds

    def on_begin(self, trainer: Any, step: int) -> None:
        super().on_begin(trainer, step)
        self.saved_at, self.clock = step, time.monotonic()

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.is_due(step) or time.monotonic() - self.clock >= self.seconds:
            self.on_end(trainer, step)

    def on_end(self, trainer: Any, step: int) -> None:
        if self.saved_at != step:
            self.save(step)
            self.saved_at, self.clock = step, time.monotonic()


class TimeLog(Callback):
    """`time.json`: how long the run took, a part for every process that worked on it.

    Each part has `from_step` and `to_step`, finished steps at its beginning and end; `seconds` of
    the clock; and `cpu_seconds`, those of all cores added up, which other work on the machine
    changes little. Tracing counts, starting TensorFlow does not.
    """

    def __init__(self, run: RunDirectory):
        self.run = run

    def on_begin(self, trainer: Any, step: int) -> None:
        self.parts = self.run.times() if self.run.time_file.is_file() else []
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
        self.run.write_times([*self.parts, part])


class StopAfter(Callback):
    """Stops the run at a moment of `time.monotonic()`."""

    def __init__(self, deadline: float):
        self.deadline = deadline

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if time.monotonic() >= self.deadline:
            trainer.stop_training = True


class StopOnSignal(Callback):
    """Ctrl-C or SIGTERM finishes the step and saves; a second one ends the process at once.

    Handlers stand from construction to `close`, so a signal during a slow start is not lost.
    """

    def __init__(self, stream: TextIO | None = None):
        self.received: int | None = None
        self.stream = stream or sys.stderr
        signals = (signal.SIGINT, signal.SIGTERM)
        self.before = {number: signal.signal(number, self._receive) for number in signals}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = number
        name = signal.Signals(number).name
        print(f"{name}: finishing this step, then saving; again to abort at once", file=self.stream)

    def on_begin(self, trainer: Any, step: int) -> None:
        trainer.stop_training = self.received is not None

    def on_step(self, trainer: Any, step: int, logs: Logs) -> None:
        if self.received is not None:
            trainer.stop_training = True

    def close(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
