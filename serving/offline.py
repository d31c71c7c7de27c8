"""Offline jobs: what has become of each image, written down so that none is lost or done twice.

An image is done when its output exists: outputs are written whole or not at all, so that is true
after any crash. What the ledger adds is who did what, why an image failed, and which ones ended the
process that worked on them. `serving.predict_many` spreads the work; nothing here knows how.
"""

import argparse
import contextlib
import json
import os
import pickle
import secrets
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from musical_tf.files import lock, write_whole

from .filling import FAILURES, Outcome, fill_file, open_session, say_of
from .pairing import Job

FOLDER = ".musical-inpaint-many"
"""Folder of the ledger in the folder of the outputs; hidden, so that it is not read as images."""

TRIES = 3
"""How many processes of one run an image may end before it counts as failed."""

FAILED = "failed"
PATIENCE = 60.0  # seconds for the workers of a run that was killed to end

_SETTINGS, _DRIVER, _WORKERS = "settings.json", "driver.lock", "workers.lock"


@dataclass(frozen=True)
class Entry:
    """What one process has written about one image; `outcome` is None while it is begun only,
    and `details` are the other fields of `filling.Outcome`."""

    run: str
    process: str
    image: str
    outcome: str | None
    share: float = 0.0
    reason: str = ""
    details: Mapping[str, Any] | None = None


class Ledger:
    """The folder in which the processes of a job write down what they do.

    One file for each worker process of each run, to which that process alone appends: a line when
    it begins an image, one when it is through. A line that a killed process has left unfinished is
    not read.

    Args:
        output: The folder of the job's outputs.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._folder = output / FOLDER

    @contextlib.contextmanager
    def run(self, settings: Mapping[str, Any]) -> Iterator[str]:
        """Makes this process the only one that may start workers for the job; gives the run's name.

        Args:
            settings: What has an influence on the outputs; the same for every run.

        Raises:
            OSError: If the folder cannot be written.
            ValueError: If another run is at work, or an earlier one had other settings.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        with open(self._folder / _DRIVER, "a+b") as driver:
            if not lock(driver):
                raise ValueError(f"{self._output}: another run is at work in this folder")
            with open(self._folder / _WORKERS, "ab") as workers:
                if not lock(workers, wait=PATIENCE):
                    raise ValueError(
                        f"{self._output}: workers of a run that was ended are still at work"
                    )
                self._check_settings(settings)
                # Before the workers' lock is free: a late one of that run would join it meanwhile.
                driver.truncate(0)
                driver.write(name.encode())
                driver.flush()
            yield name

    def join(self, run: str) -> "Recorder":
        """What a worker of `run` writes with; until its process ends, no other run begins.

        Raises:
            RuntimeError: If `run` is over.
        """
        return Recorder(self._folder, run)

    def entries(self, run: str = "") -> list[Entry]:
        """Everything that was finished, and what was begun only; in order of runs, or of one."""
        found = []
        for path in sorted(self._folder.glob(f"{run}_*.jsonl" if run else "*.jsonl")):
            of_run, _, process = path.stem.partition("_")
            begun: dict[str, Entry] = {}
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # cut off when its process was killed
                    entry = Entry(of_run, process, **json.loads(line))
                    if entry.outcome is None:
                        begun[entry.image] = entry
                    else:
                        begun.pop(entry.image, None)
                        found.append(entry)
            found += begun.values()
        return found

    def processes(self, run: str) -> int:
        """How many worker processes a run has had."""
        return sum(1 for _ in self._folder.glob(f"{run}_*.jsonl"))

    def unfinished(self, run: str) -> Counter[str]:
        """Image -> how many processes of a run have begun it and not come through."""
        return Counter(entry.image for entry in self.entries(run) if entry.outcome is None)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path = self._folder / _SETTINGS
        if not path.exists():
            write_whole(path, (json.dumps(settings, indent=1) + "\n").encode())
            return
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: it is damaged: {error}") from error
        for name in settings:
            if before.get(name) != settings[name]:
                raise ValueError(
                    f"{self._output}: this job was begun with {name} {before.get(name)!r}, now it "
                    f"is {settings[name]!r}; say what it was, or take another folder"
                )


class Recorder:
    """Appends to one process's own file of the ledger; see `Ledger.join`."""

    def __init__(self, folder: Path, run: str) -> None:
        # Kept open, and with it the lock, until the process ends.
        self._presence = open(folder / _WORKERS, "ab")  # noqa: SIM115
        if not lock(self._presence, wait=PATIENCE, shared=True) or (
            (folder / _DRIVER).read_bytes() != run.encode()
        ):
            raise RuntimeError(f"{folder.parent}: run {run} is over")
        process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._file = open(folder / f"{run}_{process}.jsonl", "ab", buffering=0)  # noqa: SIM115

    def write(self, image: str, outcome: str | None, **details: Any) -> None:
        """Appends one line; see `Entry`."""
        fields = {"image": image, "outcome": outcome, **details}
        self._file.write((json.dumps(fields) + "\n").encode())

    def close(self) -> None:
        """Lets other runs begin although this process goes on."""
        self._file.close()
        self._presence.close()


class Worker:
    """Fills the images it is handed, with a session of its own: one for each process.

    Args:
        arguments: Options of `predict.add_arguments` and `threads`; `image` and `output` are
            absolute paths of folders.
        run: Name of the run, from `Ledger.run`.
    """

    def __init__(self, arguments: Mapping[str, Any], run: str) -> None:
        self._arguments = argparse.Namespace(**arguments, skip_existing=False)
        self._folder = Path(self._arguments.image)
        ledger = Ledger(Path(self._arguments.output))
        self._recorder = ledger.join(run)
        self._ended = ledger.unfinished(run)
        self._session = open_session(self._arguments)

    def __call__(self, table: Any) -> dict[str, list[str]]:
        """Fills the pickled jobs of an Arrow table; gives what became of each."""
        jobs = table.column("job").to_pylist()
        return {"outcome": [self.fill(pickle.loads(job)) for job in jobs]}

    def fill(self, job: Job) -> str:
        """Fills one image, unless that is done already; gives what became of it."""
        if not is_pending(job):
            return "skipped"  # handed out once more, because its first worker ended after it
        name = image_name(job, self._folder)
        if self._ended[name] >= TRIES:
            reason = (
                f"{job.image}: {TRIES} processes ended while they worked on it: it needs too much "
                "memory, or breaks a library"
            )
            self._recorder.write(name, FAILED, reason=reason)
            return FAILED
        self._recorder.write(name, None)
        try:
            outcome = fill_file(self._session, job, self._arguments)
        except FAILURES as error:
            self._recorder.write(name, FAILED, reason=say_of(job, error))
            return FAILED
        details = vars(outcome) | {"hole": round(outcome.hole, 4)}
        what, share = details.pop("what"), round(details.pop("share"), 4)
        self._recorder.write(name, what, share=share, details=details)
        return what

    def close(self) -> None:
        """Lets other runs begin although this process goes on."""
        self._recorder.close()


@dataclass(frozen=True)
class Account:
    """Where a job stands.

    Attributes:
        done: Image -> outcome, of those whose output is there. "kept": it was there before the job.
        failed: Image -> reason.
        lost: Images without output and without reason: not yet done, or lost if the run is over.
        twice: Images whose output was written more than once.
        suspects: Image -> share of it that was filled, where that is more than `share`.
        filled: Image -> how it was filled, of those in `done` that the job filled.
    """

    done: dict[str, str]
    failed: dict[str, str]
    lost: list[str]
    twice: list[str]
    suspects: dict[str, float]
    filled: dict[str, Outcome]


def take_account(ledger: Ledger, jobs: Sequence[Job], folder: Path, share: float = 1.0) -> Account:
    """Compares what the ledger says with the outputs that are there.

    Args:
        ledger: The job's.
        jobs: All of the job.
        folder: Of the images.
        share: Above it an image is listed in `suspects`.
    """
    written: Counter[str] = Counter()
    last: dict[str, Entry] = {}
    reasons: dict[str, str] = {}
    for entry in ledger.entries():
        if entry.outcome == FAILED:
            reasons[entry.image] = entry.reason
        elif entry.outcome is None:
            last.setdefault(entry.image, entry)
        else:
            written[entry.image] += 1
            last[entry.image] = entry
    account = Account({}, {}, [], [image for image, times in written.items() if times > 1], {}, {})
    for job in jobs:
        name = image_name(job, folder)
        if not is_pending(job):
            final = last.get(name)
            # Begun only: killed after the output was written.
            account.done[name] = (final.outcome or "filled") if final else "kept"
            if final and final.outcome:
                account.filled[name] = Outcome(final.outcome, final.share, **(final.details or {}))
            if final and final.share > share:
                account.suspects[name] = final.share
        elif name in reasons:
            account.failed[name] = reasons[name]
        else:
            account.lost.append(name)
    return account


def is_pending(job: Job) -> bool:
    """Whether there is still something to do; a job with a problem never gets an output."""
    return bool(job.problem) or not job.output.is_file()


def image_name(job: Job, folder: Path) -> str:
    """What a job is called in the ledger: the image's path within its folder, and which mask it is
    if there are several."""
    name = job.image.relative_to(folder).as_posix()
    if job.output.stem == job.image.stem or not isinstance(job.mask, Path):
        return name
    return f"{name} with {job.mask.name}"
