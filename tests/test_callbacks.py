"""What happens between steps: logs, samples, progress, signals, validation."""

import contextlib
import csv
import io
import itertools
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.progress import ProgressSample

from musical_tf.command_line import clock
from musical_tf.metrics import authors_metrics
from musical_tf.run_directory import RunDirectory
from training.callbacks import LossLog, Saver, StopAfter, StopOnSignal, TensorBoard
from training.loop import Loop
from training.progress import ProgressBar, ProgressLines
from training.samples import SampleSheet
from training.validation import Validation

from .tiny_trainer import SIZE, batch_at, make_trainer

pytestmark = pytest.mark.usefixtures("eager")


def read_log(folder: Path) -> tuple[list[dict], list[dict]]:
    with (folder / "log.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return table, lines


def test_logs_have_every_step_once_after_a_resume_and_a_torn_line(tmp_path):
    logs = {"l1": 0.25, "total": 2.5}
    log = LossLog(RunDirectory(tmp_path))
    log.on_begin(None, 0)
    for step in range(1, 6):
        log.on_step(None, step, logs)
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "l1"')
    log = LossLog(RunDirectory(tmp_path))
    log.on_begin(None, 3)
    for step in (4, 5):
        log.on_step(None, step, {"l1": 0.5, "total": 5.0})
    log.close()
    table, lines = read_log(tmp_path)
    assert [row["step"] for row in lines] == [1, 2, 3, 4, 5]
    assert [row["l1"] for row in lines] == [0.25] * 3 + [0.5] * 2
    assert [int(row["step"]) for row in table] == [1, 2, 3, 4, 5]
    assert [float(row["total"]) for row in table] == [2.5] * 3 + [5.0] * 2


def test_a_log_on_a_full_disk_is_an_os_error(tmp_path):
    log = LossLog(RunDirectory(tmp_path))
    log.on_begin(None, 0)
    full = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    log.table = csv.writer(full)
    with pytest.raises(OSError, match="No space left"):
        log.on_step(None, 1, {"l1": 1.0})
    log.close()
    with contextlib.suppress(OSError):
        full.close()


def test_the_run_calls_everything_in_order_and_closes(tmp_path):
    trainer = make_trainer(adversarial=False)
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    holes = np.zeros((2, SIZE, SIZE), bool)
    holes[:, 4:12, 4:12] = True
    board = TensorBoard(tmp_path / "tensorboard", every=1)
    saved = []
    done = trainer.run(
        map(batch_at, itertools.count()),
        5,
        2,
        [
            Saver(saved.append, every=3),
            LossLog(RunDirectory(tmp_path)),
            board,
            SampleSheet(tmp_path / "samples", images, holes, board.show),
        ],
    )
    assert done == 5
    assert saved == [3, 5]
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["epoch-0001.png", "epoch-0002.png", "step-00000005.png"]
    assert len(read_log(tmp_path)[0]) == 5
    tags = set()
    for path in (tmp_path / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {(value.tag, event.step) for value in event.summary.value}
    assert {("loss/l1", 1), ("optimizer/learning_rate", 5), ("samples", 4)} <= tags

    sheet = np.asarray(Image.open(tmp_path / "samples" / "step-00000005.png"))
    assert sheet.shape == (24 + 2 * (SIZE + 4), 4 * SIZE + 3 * 4, 3)
    shown, hole, result, truth = (
        sheet[24 : 24 + SIZE, left : left + SIZE] for left in range(0, 4 * SIZE, SIZE + 4)
    )
    np.testing.assert_array_equal(truth, images[0])
    np.testing.assert_array_equal(hole[..., 0] > 0, holes[0])
    np.testing.assert_array_equal(result[~holes[0]], images[0][~holes[0]])
    assert (shown[holes[0]] == 255).all()
    assert not np.array_equal(result[holes[0]], images[0][holes[0]])


class Counting(Loop):
    """Trains nothing; its pictures are off by `errors[step]` levels in the hole."""

    def __init__(self, errors=(), done=0, steps_a_call=1):
        self.errors, self.done, self.steps_a_call = errors, done, steps_a_call
        self.terms = {name: 0.5 for name in ("l1", "adversarial", "perceptual", "style", "total")}

    @property
    def finished(self):
        return self.done

    def update(self, batch):
        self.done += self.steps_a_call
        return self.terms

    def inpaint(self, image, hole):
        return np.where(hole[..., None], image + np.uint8(self.errors[self.done]), image)

    def save_generator(self, path):
        Path(path).write_text(str(self.done))


def forever():
    return itertools.repeat(True)


def test_a_signal_finishes_the_step_saves_and_stops(capsys):
    before = signal.getsignal(signal.SIGTERM)

    def stream():
        for step in itertools.count():
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield True

    stopper = StopOnSignal()
    saved = []
    done = Counting().run(stream(), 100, 10, [stopper, Saver(saved.append, every=50)])
    assert (done, saved) == (3, [3])
    assert stopper.received == signal.SIGTERM
    assert "SIGTERM: finishing this step" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_time_that_is_up_stops_after_a_step_and_a_signal_before_the_first():
    stopper = StopOnSignal()
    os.kill(os.getpid(), signal.SIGINT)
    assert Counting().run(forever(), 5, 5, [stopper]) == 0
    assert Counting().run(forever(), 100, 100, [StopAfter(0.0)]) == 1


def test_calls_of_several_steps_save_at_the_first_step_past_the_multiple():
    saved = []
    assert Counting(steps_a_call=20).run(forever(), 100, 10, [Saver(saved.append, 30)]) == 100
    assert saved == [40, 60, 100]


def test_progress_shows_every_term_and_the_time_left(capsys):
    Counting().run(forever(), 4, 2, [ProgressLines(4, 2, seconds=0.0)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("step 1/4  epoch 1  left ?")
    assert lines[3].startswith("step 4/4  epoch 2  left 0:00:00")
    screen = io.StringIO()
    bar = ProgressBar(6, 2, Console(file=screen, force_terminal=True, width=300))
    Counting(done=4).run(forever(), 6, 2, [bar])
    assert "6/6" in screen.getvalue()
    for name in Counting().terms:
        assert f"{name} " in lines[3]
        assert f"{name} " in screen.getvalue()
    assert clock(3725.4) == "1:02:05"


def test_a_terminal_of_80_columns_shows_the_time_left():
    screen = io.StringIO()
    bar = ProgressBar(208600, 2980, Console(file=screen, force_terminal=True, width=80))
    bar.on_begin(None, 104300)
    bar.on_step(None, 104301, Counting().terms)
    task = bar.progress.tasks[0]
    now = bar.progress.get_time()
    task._progress.clear()
    task._progress.extend(ProgressSample(now - 3 + step * 0.3, 1) for step in range(9))
    screen.seek(screen.truncate(0))
    bar.progress.refresh()
    bar.close()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"104301/208600 .*left \d:\d\d:\d\d total 0\.5 ", shown)
    assert max(map(len, re.split("[\r\n]", shown))) <= 80


# The best validation is the second; the fifth is the third in a row that is no better.
ERRORS = {10: 9, 20: 5, 30: 7, 40: 5, 50: 6, 60: 1}


def validate(folder, steps=60, patience=0, done=0):
    folder.mkdir(exist_ok=True)
    image = np.full((1, SIZE, SIZE, 3), 100, np.uint8)
    hole = np.zeros((1, SIZE, SIZE), bool)
    hole[:, 4:12, 4:12] = True
    validation = Validation(RunDirectory(folder), image, hole, 10, patience)
    return Counting(ERRORS, done).run(forever(), steps, 10, [validation]), validation


def test_validations_are_logged_and_the_best_weights_kept(tmp_path, capsys):
    done, validation = validate(tmp_path, steps=55)
    assert done == 55
    with (tmp_path / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["10", "20", "30", "40", "50"]
    truth = np.full((SIZE, SIZE, 3), 100, np.uint8)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[4:12, 4:12] = True
    expected = authors_metrics(truth, truth + np.uint8(9), hole)
    found = {f"authors/{name}": float(value) for name, value in rows[0].items() if name != "step"}
    assert found == pytest.approx(expected)
    assert (tmp_path / "best.keras").read_text() == "20"
    assert validation.best["step"] == 20
    assert "validation at step 50" in capsys.readouterr().out


def test_a_run_without_progress_stops_early_and_a_resumed_one_at_the_same_step(tmp_path):
    done, validation = validate(tmp_path / "whole", patience=3)
    assert (done, validation.exhausted) == (50, True)
    # Killed at 35, after its checkpoint at 25: the validation at 30 is measured again.
    assert validate(tmp_path / "parts", steps=35, patience=3)[0] == 35
    done, validation = validate(tmp_path / "parts", patience=3, done=25)
    assert (done, validation.exhausted) == (50, True)
    texts = [(tmp_path / name / "validation.csv").read_text() for name in ("whole", "parts")]
    assert texts[0] == texts[1]
    assert validate(tmp_path / "parts", patience=3, done=50)[0] == 50


def test_a_second_signal_ends_the_process_at_once():
    child = os.fork()
    if not child:
        StopOnSignal(stream=open(os.devnull, "w"))  # noqa: SIM115
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM
