"""Offline jobs: the ledger without Ray, and a whole job with Ray whose processes are killed."""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from musical_tf import files
from serving import filling, offline, pairing, predict, predict_many
from tests.processes import ROOT
from tests.serving_model import metadata_for, write_model

SETTINGS = {"model": "abc", "strategy": "crop"}


def make_folder(folder: Path, count: int, side: int = 40) -> None:
    """`photos/` and `masks/`: images in two formats, most in a subfolder, each of its own grain."""
    rng = np.random.default_rng(0)
    hole = np.zeros((side, side), np.uint8)
    hole[side // 4 : side // 2, side // 4 : side // 2] = 255
    for kind in ("photos", "masks"):
        (folder / kind / "more").mkdir(parents=True)
    for index in range(count):
        name = f"more/{index:04}" if index % 3 else f"{index:04}"
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{name}{('.png', '.jpg')[index % 2]}")
        Image.fromarray(hole).save(folder / "masks" / f"{name}.png")


def flags(folder: Path, model: Path, output: str = "out") -> list[str]:
    paths = {"image": "photos", "mask": "masks", "output": output}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(folder / path))]
    return [*words, "--model", str(model)]


def jobs_in(folder: Path) -> list[pairing.Job]:
    return pairing.list_jobs(folder / "photos", folder / "masks", folder / "out")[0]


def options(folder: Path, model: Path) -> dict:
    return vars(predict_many._parser().parse_args(flags(folder, model)))


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and offline.FOLDER not in path.parts and path.name != predict_many.REPORT
    }


def fill_all(folder: Path, model: Path) -> tuple[list[str], offline.Account]:
    ledger, jobs = offline.Ledger(folder / "out"), jobs_in(folder)
    with ledger.run(SETTINGS) as run:
        worker = offline.Worker(options(folder, model), run)
        outcomes = [worker.fill(job) for job in jobs]
        worker.close()
    return outcomes, offline.take_account(ledger, jobs, folder / "photos")


# ---- one worker, in this process


def test_worker_writes_what_the_single_command_writes(tmp_path, model):
    make_folder(tmp_path, 6)
    assert predict.main(flags(tmp_path, model, "single")) == 0
    outcomes, account = fill_all(tmp_path, model)
    assert outcomes == ["filled"] * 6
    assert outputs(tmp_path / "out") == outputs(tmp_path / "single")
    assert (len(account.done), account.failed, account.lost, account.twice) == (6, {}, [], [])
    (line,) = predict_many._report_of(account, "")["masks"]
    assert line.startswith("6 masks: gray, levels 0, 255: levels above 127 are the hole; 6.2% of")


def test_second_run_does_nothing_twice_and_tries_failures_again(tmp_path, model):
    make_folder(tmp_path, 6)
    broken = tmp_path / "photos" / "broken.png"
    broken.write_bytes(b"no picture")
    (tmp_path / "masks" / "more" / "0001.png").rename(tmp_path / "masks" / "broken.png")
    outcomes, account = fill_all(tmp_path, model)
    assert sorted(outcomes) == ["failed"] * 2 + ["filled"] * 5
    assert sorted(account.failed) == ["broken.png", "more/0001.jpg"]
    assert "no mask of the same name" in account.failed["more/0001.jpg"]
    before = {path: path.stat().st_ino for path in (tmp_path / "out").rglob("*.png")}
    Image.new("RGB", (40, 40)).save(broken)
    outcomes, account = fill_all(tmp_path, model)
    assert sorted(outcomes) == ["failed", "filled", *["skipped"] * 5]
    assert sorted(account.failed) == ["more/0001.jpg"]
    assert account.twice == []
    assert {path: path.stat().st_ino for path in before} == before


def test_outputs_that_were_there_before_are_kept(tmp_path, model):
    make_folder(tmp_path, 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0000.png").write_bytes(b"mine")
    outcomes, account = fill_all(tmp_path, model)
    assert outcomes == ["skipped", "filled", "filled"]
    assert account.done["0000.png"] == "kept"
    assert (tmp_path / "out" / "0000.png").read_bytes() == b"mine"


def test_image_that_ends_every_process_counts_as_failed(tmp_path, model):
    make_folder(tmp_path, 2)
    ledger = offline.Ledger(tmp_path / "out")
    first, second = jobs_in(tmp_path)
    with ledger.run(SETTINGS) as run:
        for _ in range(offline.TRIES):
            recorder = ledger.join(run)
            recorder.write("0000.png", None)  # and its process ends
            recorder.close()
        worker = offline.Worker(options(tmp_path, model), run)
        assert (worker.fill(first), worker.fill(second)) == ("failed", "filled")
        worker.close()
    account = offline.take_account(ledger, [first, second], tmp_path / "photos")
    assert "3 processes ended" in account.failed["0000.png"]
    # A new run gives it a new chance.
    assert fill_all(tmp_path, model)[0] == ["filled", "skipped"]


# ---- the ledger


def test_no_worker_joins_while_a_run_begins(tmp_path):
    class Watched(offline.Ledger):
        def _check_settings(self, settings):
            super()._check_settings(settings)
            with open(tmp_path / offline.FOLDER / "workers.lock", "ab") as stream:
                self.free = files.lock(stream, shared=True)

    ledger = Watched(tmp_path)
    with ledger.run(SETTINGS) as run:
        assert not ledger.free  # or a late worker of the run before would find its name
        ledger.join(run).close()


def test_ledger_ignores_a_line_that_was_cut_off(tmp_path):
    ledger = offline.Ledger(tmp_path)
    with ledger.run(SETTINGS) as run:
        recorder = ledger.join(run)
        recorder.write("a.png", None)
        recorder.write("a.png", "filled", share=0.25)
        recorder.write("b.png", None)
        recorder.close()
    (path,) = (tmp_path / offline.FOLDER).glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"image": "b.png", "outc')
    finished, begun = ledger.entries()
    assert (finished.image, finished.outcome, finished.share) == ("a.png", "filled", 0.25)
    assert (begun.image, begun.outcome) == ("b.png", None)
    assert ledger.unfinished(run) == {"b.png": 1}
    assert ledger.processes(run) == 1


def test_account_sees_what_is_lost_and_what_was_done_twice(tmp_path, model):
    make_folder(tmp_path, 3)
    ledger = offline.Ledger(tmp_path / "out")
    first, second, third = jobs_in(tmp_path)
    with ledger.run(SETTINGS) as run:
        for _ in range(2):
            recorder = ledger.join(run)
            recorder.write("0000.png", "filled", share=0.75)
            recorder.write("more/0001.jpg", None)
            recorder.close()
    for job in (first, second):
        job.output.parent.mkdir(parents=True, exist_ok=True)
        job.output.write_bytes(b"")
    account = offline.take_account(ledger, [first, second, third], tmp_path / "photos", 0.5)
    assert account.twice == ["0000.png"]
    assert account.suspects == {"0000.png": 0.75}
    assert account.lost == ["more/0002.png"]
    assert account.done["more/0001.jpg"] == "filled"  # its process ended before it could say so


def test_two_runs_and_other_settings_in_one_folder_are_refused(tmp_path, monkeypatch):
    ledger = offline.Ledger(tmp_path)
    with (
        ledger.run(SETTINGS),
        pytest.raises(ValueError, match="another run is at work"),
        offline.Ledger(tmp_path).run(SETTINGS),
    ):
        pass
    with ledger.run(SETTINGS) as run:
        survivor = ledger.join(run)
    monkeypatch.setattr(offline, "PATIENCE", 0.2)
    with pytest.raises(ValueError, match="still at work"), ledger.run(SETTINGS):
        pass
    survivor.close()
    with ledger.run(SETTINGS), pytest.raises(RuntimeError, match="is over"):
        ledger.join(run)
    with (
        pytest.raises(ValueError, match="begun with strategy 'crop', now it is 'resize'"),
        ledger.run(SETTINGS | {"strategy": "resize"}),
    ):
        pass


def test_only_own_partial_files_are_removed(tmp_path):
    make_folder(tmp_path, 1)
    out = tmp_path / "out"
    out.mkdir()
    partials = []
    for name in ("0000.png", "else.png"):
        with files.whole_file(out / name) as partial:
            partial.write_bytes(b"whole")
        partial.write_bytes(b"half")  # what a killed process leaves
        partials.append(partial)
    own, other = partials
    assert filling.remove_stale(jobs_in(tmp_path)) == 1
    assert (own.exists(), other.exists()) == (False, True)


def test_rows_carry_every_file_name(tmp_path):
    name = os.fsdecode(b"\xff\xfe.png")
    for mask in (tmp_path / "m.png", pairing.ALPHA, None):
        job = pairing.Job(tmp_path / name, mask, tmp_path / "out" / name, f"about {name}")
        assert pickle.loads(pickle.dumps(job)) == job


# ---- the command line, as far as it goes without Ray


def assert_one_error(capfd, *words: str) -> None:
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("musical-inpaint-many: error: ")
    assert all(word in err for word in words), err


def test_ray_that_is_not_installed_is_named_with_its_extra(tmp_path, model, monkeypatch, capfd):
    make_folder(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert predict_many.main(flags(tmp_path, model)) == 1
    assert_one_error(capfd, "ray is not installed", "pip install 'musical-tf[batch,serve]'")
    assert not (tmp_path / "out").exists()


def test_cluster_that_is_not_there_is_one_line():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"no Ray cluster at {address}: "):
            predict_many._knock(address)
        unused.listen()
        predict_many._knock(address)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--workers", "0"], ["--workers must be within 1 and 10000, got 0"]),
        (["--threads", "0"], ["--threads must be within 1 and 1024, got 0"]),
        (["--gpus", "-1"], ["--gpus must be within 0 and 64, got -1"]),
        (["--dilate", "-1"], ["--dilate"]),
        (["--image", "photos/0000.png"], ["--image must be a folder", "musical-inpaint fills"]),
        (["--image", "absent"], ["absent: no such image file or folder"]),
        (["--output", "photos"], ["would replace its input"]),
    ],
)
def test_wrong_use_is_one_line(tmp_path, model, capfd, monkeypatch, more, words):
    make_folder(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    assert predict_many.main([*flags(tmp_path, model), *more]) == 2
    assert_one_error(capfd, *words)


@pytest.mark.parametrize(
    ("named", "more", "strategy"),
    [(None, [], "crop"), ("resize", [], "resize"), ("resize", ["--strategy", "crop"], "crop")],
)
def test_a_run_is_held_to_the_strategy_that_it_uses(tmp_path, named, more, strategy):
    """Asked for or the model's own: what a run was begun with may be said or left out later."""
    model = write_model(tmp_path / "model.onnx", metadata=metadata_for(strategy=named))
    arguments = predict_many._parser().parse_args([*flags(tmp_path, model), *more])
    settings = predict_many._settings(vars(arguments), predict_many._check_model(arguments))
    assert settings["strategy"] == strategy


# ---- with Ray: two workers, and both kinds of kill


def start(folder: Path, model: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "serving.predict_many", *flags(folder, model)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what, process: subprocess.Popen, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)
    return found


def finished(out: Path) -> list[Path]:
    """The whole results; a worker that is killed leaves a hidden file half written."""
    paths = (path for kind in ("png", "jpg") for path in out.rglob(f"*.{kind}"))
    return [path for path in paths if not path.name.startswith(".")]


def listening_addresses(process: psutil.Process) -> set[str]:
    """Where a process and those that it started listen."""
    found = set()
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            connections = each.net_connections("inet")
            found |= {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.examples
def test_killed_job_goes_on_and_every_image_is_filled_once(tmp_path, model):
    count = 600
    make_folder(tmp_path, count, side=160)
    broken = tmp_path / "photos" / "broken.png"
    broken.write_bytes(b"no picture")
    (tmp_path / "masks" / "more" / "0001.png").rename(tmp_path / "masks" / "broken.png")
    out = tmp_path / "out"

    driver = start(tmp_path, model)
    wait_for(lambda: len(finished(out)) > 40, driver)
    addresses = listening_addresses(psutil.Process(driver.pid))
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    done = {path: path.stat() for path in finished(out)}
    assert 40 < len(done) < count
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}

    # The same command, and this time one of the workers is killed.
    driver = start(tmp_path, model)
    ledger = out / offline.FOLDER
    runs = {path.name.split("_")[0] for path in ledger.glob("*.jsonl")}
    wait_for(lambda: len(finished(out)) > len(done) + 60, driver)
    fresh = [path for path in ledger.glob("*.jsonl") if path.name.split("_")[0] not in runs]
    os.kill(int(fresh[0].stem.split("-")[-2]), signal.SIGKILL)
    printed, errors = driver.communicate(timeout=300)
    assert driver.returncode == 1, errors
    report = json.loads((out / predict_many.REPORT).read_text())
    assert report["images"] == count + 1
    assert report["done"] == {"filled": count - 1}
    assert (report["lost"], report["twice"]) == (0, 0)
    assert [failure["image"] for failure in report["failed"]] == ["broken.png", "more/0001.jpg"]
    assert report["last_run"]["restarts"] >= 1
    # Ray itself says before that a worker was killed.
    summary, masks = printed.splitlines()[-2:]
    assert summary.startswith(f"{count - 1} filled, 2 failed; ")
    assert masks.endswith("levels above 127 are the hole; 6.2% of each image is hole")
    words = [line.split(": ")[:2] for line in errors.splitlines()]
    assert {program for program, _ in words} == {predict_many.PROGRAM}, errors
    kinds = [kind for _, kind in words if kind != "progress"]  # of which a slow machine has some
    assert kinds == ["note", "error", "error"], errors
    for path, stat in done.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)

    # What was missing is added: the third time it is complete, and as if made by one process.
    Image.new("RGB", (160, 160)).save(broken)
    mask = (tmp_path / "masks" / "0000.png").read_bytes()
    (tmp_path / "masks" / "more" / "0001.png").write_bytes(mask)
    driver = start(tmp_path, model)
    printed, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert printed.startswith(f"{count + 1} filled; 2 now, ")
    assert predict.main(flags(tmp_path, model, "single")) == 0
    assert outputs(out) == outputs(tmp_path / "single")
