"""Fills the holes of a folder of any number of photographs, with several processes or machines.

    python -m serving.predict_many --image PHOTOS/ --mask MASKS/ --output FILLED/

The outputs are those of `serving.predict` with as many threads, byte for byte; another number of
threads changes some values by rounding. Ray Data distributes the images, a few at a time, to
workers with one session each. A worker that ends is started again and skips finished images. Rerun
the same command to resume: an image whose output exists is finished. The report in the output
folder lists the failures with their reasons.

Exit code 0: every image has its output. 1: some failed, and the rest has been done, or no work was
possible. 2: wrong usage or unusable input. 130: interrupted.
"""

import argparse
import contextlib
import importlib
import json
import logging
import os
import pickle
import re
import socket
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from musical_tf.arguments import Parser
from musical_tf.command_line import clock, missing_package, printable
from musical_tf.contract import Contract
from musical_tf.files import sha256, write_whole
from musical_tf.images import ImageError

from . import named_models, offline, terminal
from .file_options import FORMATS, add_arguments, check_numbers, check_quality
from .filling import SUSPICIOUS, mask_lines, notes_on, open_session, remove_stale
from .pairing import ALPHA, Job, formats_of, list_jobs

PROGRAM = "musical-inpaint-many"
REPORT = "musical-inpaint-many.json"
"""Name of the report in the output folder."""

BLOCK = 16
"""How many images a worker is handed at once, at most."""

_BLOCKS_PER_WORKER = 16  # of a small folder, so that workers end together
_SHOWN = 10  # failures that are printed; all are in the report
_LINE_EVERY = 30.0  # seconds between two lines of progress where there is no terminal
_START_SECONDS = "120"  # Ray's 30 s are short on a machine that other work keeps busy
_OBJECT_STORE = 100 * 2**20  # bytes; what passes through it are paths
_LEAST_RAY = "2.60"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code, see above."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # see `serving.predict`
            return _run(arguments)
    except ModuleNotFoundError as error:
        terminal.complain(missing_package(error, "batch,serve"), program=PROGRAM)
        return 1
    except (OSError, ValueError) as error:
        terminal.clear_line()
        terminal.complain(terminal.say(error), program=PROGRAM)
        return 2
    except KeyboardInterrupt:
        terminal.clear_line()
        terminal.complain("interrupted; rerun the same command to resume", program=PROGRAM)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise ValueError("this command needs Linux or macOS; musical-inpaint runs on Windows too")
    check_numbers(arguments)
    for name, low, high in (("workers", 1, 10_000), ("threads", 1, 1024), ("gpus", 0, 64)):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name} must be within {low} and {high}, got {value:g}")
    folder, output = (Path(getattr(arguments, name)).absolute() for name in ("image", "output"))
    model = named_models.find(arguments.model).absolute()
    mask = ALPHA if arguments.mask == ALPHA else Path(arguments.mask).absolute()
    if folder.exists() and not folder.is_dir():
        raise ImageError(f"{folder}: --image must be a folder; musical-inpaint fills single files")
    jobs, notes = list_jobs(
        folder, mask, output, suffix=FORMATS.get(arguments.format), protected=model
    )
    check_quality(arguments.quality, formats_of(jobs))
    _prepare_ray(arguments.address)
    contract = _check_model(arguments)
    options = vars(arguments) | {
        "image": str(folder), "mask": str(mask), "output": str(output), "model": str(model)
    }  # fmt: skip
    ledger = offline.Ledger(output)
    with ledger.run(_settings(options, contract)) as run:
        remove_stale(jobs)
        pending = [job for job in jobs if offline.is_pending(job)]
        if len(pending) < len(jobs):
            notes.append(f"{len(jobs) - len(pending)} of {len(jobs)} images were done before")
        started = time.monotonic()
        figures, trouble = {"seconds": 0.0, "workers": 0}, ""
        if pending:
            for note in notes:
                terminal.complain(note, "note", PROGRAM)
            notes = []
            figures, trouble = _fill(pending, options, run)
        figures["seconds_in_all"] = round(time.monotonic() - started, 1)
        figures["restarts"] = max(0, ledger.processes(run) - figures["workers"])
        account = offline.take_account(ledger, jobs, folder, SUSPICIOUS)
        report = {**_report_of(account, trouble), "last_run": {"images": len(pending), **figures}}
        write_whole(output / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return _conclude(report, account, notes, output / REPORT, arguments)


def _fill(pending: Sequence[Job], options: dict[str, Any], run: str) -> tuple[dict[str, Any], str]:
    """Has Ray Data's workers fill images; gives figures, and what ended it before its time."""
    import ray

    figures: dict[str, Any] = {"workers": 0, "seconds": 0.0}
    try:
        with _cluster(options) as workers:
            figures["workers"] = workers
            started = time.monotonic()
            progress = _Progress(len(pending))
            for outcomes in _outcomes(pending, options, run, workers):
                progress.advance(outcomes)
            terminal.clear_line()
            figures["seconds"] = round(time.monotonic() - started, 1)
    except (ray.exceptions.RayError, RuntimeError) as error:
        terminal.clear_line()
        lines = [line for line in str(error).splitlines() if line.strip()]
        return figures, f"Ray has given up: {' '.join(lines[-1].split()) if lines else error!r}"
    return figures, ""


def _outcomes(
    pending: Sequence[Job], options: dict[str, Any], run: str, workers: int
) -> Iterator[list[str]]:
    """Outcomes as they come. What flows are paths and words, so memory does not grow with it."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Pickles, because not every file name is a text.
    rows = [{"job": pickle.dumps(job)} for job in pending]
    block = max(1, min(BLOCK, len(rows) // (workers * _BLOCKS_PER_WORKER)))
    # Workers and tasks that end are started again without limit, Ray Data's default; that an image
    # which ends every process does not go round for ever is seen to in `offline.Worker`.
    results = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block)).map_batches(
        offline.Worker,
        fn_constructor_kwargs={"arguments": options, "run": run},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=options["threads"],
        num_gpus=options["gpus"] or None,
    )
    tables: Any = results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in tables:
        yield table.column("outcome").to_pylist()


def _prepare_ray(address: str | None) -> None:
    """Imports Ray without its usage reports.

    Raises:
        ModuleNotFoundError: If it is not installed.
        ValueError: If it is too old.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # It would write about its own matters beside ours; what ends a job comes as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address is None:
        for wait in ("RAY_gcs_server_port_wait_time_s", "RAY_raylet_start_wait_time_s"):
            os.environ.setdefault(wait, _START_SECONDS)
        # Ray's own switch for the loopback interface. Its name is that of the systems on which it
        # is the default; everywhere else Ray would listen on the network.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray = importlib.import_module("ray")
    importlib.import_module("ray.data")
    numbers = [tuple(map(int, version.split(".")[:2])) for version in (ray.__version__, _LEAST_RAY)]
    if numbers[0] < numbers[1]:
        raise ValueError(f"Ray {_LEAST_RAY} or newer is needed, found {ray.__version__}")
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextlib.contextmanager
def _cluster(options: dict[str, Any]) -> Iterator[int]:
    """Starts Ray on this machine, or joins a cluster; gives the number of workers.

    Raises:
        ValueError: If the cluster cannot be reached, or is too small.
    """
    import ray

    threads, address = options["threads"], options["address"]
    with contextlib.ExitStack() as stack:
        if address is None:
            workers = options["workers"] or max(1, _usable_cpus() // threads)
            # Directly in /tmp: the path of a socket may have about 100 characters.
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
            )
            where = {
                "address": "local",
                "num_cpus": workers * threads,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE,
                "_temp_dir": folder,
            }
        else:
            _knock(address)
            where = {"address": address}
        try:
            with terminal.silent_libraries():  # what is wrong comes as an exception as well
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of no common class but this
            reason = terminal.say(error)
            if address is not None:
                raise ValueError(f"no Ray cluster at {address}: {reason}") from error
            raise RuntimeError(f"it did not start: {reason}") from error
        stack.callback(ray.shutdown)
        resources = ray.cluster_resources()
        if address is not None:
            workers = options["workers"] or int(resources.get("CPU", 0)) // threads
        workers = max(1, workers)
        for kind, share in (("CPU", threads), ("GPU", options["gpus"])):
            present = resources.get(kind, 0)
            if workers * share > present:
                raise ValueError(
                    f"{workers} workers with {share:g} {kind}s each need {workers * share:g}, "
                    f"and Ray has {present:g} {kind}s; use fewer workers"
                )
        yield workers


def _knock(address: str) -> None:
    """Fails at once if no cluster answers; Ray itself would try for minutes.

    Raises:
        ValueError: If HOST:PORT takes no connections. Other forms of address are left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+", host) or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"no Ray cluster at {address}: {terminal.say(error)}") from error


def _usable_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _check_model(arguments: argparse.Namespace) -> Contract:
    """Opens the model once, to report errors before any worker starts; returns its contract."""
    if arguments.address is not None:  # the machine with the accelerator is another one
        arguments = argparse.Namespace(**(vars(arguments) | {"provider": "cpu"}))
    return open_session(arguments).contract


def _settings(options: dict[str, Any], contract: Contract) -> dict[str, Any]:
    """What has an influence on the outputs: runs that go on must agree in it."""
    names = (
        *("image", "mask", "format", "polarity", "threshold", "dilate", "resize_mask"),
        *("working_size", "fill", "seed", "quality"),
    )
    strategy = options["strategy"] or contract.strategy
    return {
        "model": sha256(options["model"]),
        "strategy": strategy,
        **{name: options[name] for name in names},
    }


def _report_of(account: offline.Account, trouble: str) -> dict[str, Any]:
    reason = trouble or "no worker has said what became of it"
    failed = account.failed | dict.fromkeys(account.lost, reason)
    return {
        "images": len(account.done) + len(failed),
        "done": dict(Counter(account.done.values())),
        "lost": len(account.lost),
        "twice": len(account.twice),
        "masks": mask_lines(account.filled.values()),
        "failed": [{"image": image, "reason": failed[image]} for image in sorted(failed)],
        "more_than_half_filled": account.suspects,
        "trouble": trouble,
    }


def _conclude(
    report: dict[str, Any],
    account: offline.Account,
    notes: list[str],
    path: Path,
    arguments: argparse.Namespace,
) -> int:
    """Says what has been done; gives the exit code."""
    last, failures = report["last_run"], report["failed"]
    words = [f"{number} {outcome}" for outcome, number in report["done"].items()]
    words += [f"{len(failures)} failed"] * bool(failures)
    speed = ""
    if last["seconds"]:
        restarts = f", {last['restarts']} started again" if last["restarts"] else ""
        speed = (
            f"; {last['images']} now, {last['images'] / last['seconds']:.1f} images/s by "
            f"{last['workers']} workers{restarts}"
        )
    print(f"{', '.join(words)}{speed}; report: {printable(str(path))}")
    for line in report["masks"]:
        print(line)
    filled = {image: replace(outcome, image=image) for image, outcome in account.filled.items()}
    for note in (*notes, *notes_on(filled.values(), arguments.polarity)):
        terminal.complain(note, "note", PROGRAM)
    if report["trouble"]:
        terminal.complain(report["trouble"], program=PROGRAM)
        return 1
    for failure in failures[:_SHOWN]:
        terminal.complain(failure["reason"], program=PROGRAM)
    if len(failures) > _SHOWN:
        rest = len(failures) - _SHOWN
        terminal.complain(f"and {rest} more, listed in {path}", program=PROGRAM)
    return 1 if failures else 0


class _Progress:
    """A bar on a terminal; elsewhere, in a log, a line now and then."""

    def __init__(self, total: int) -> None:
        self._bar = terminal.ProgressBar(total)
        self._total, self._done, self._failed, self._said = total, 0, 0, 0.0

    def advance(self, outcomes: Sequence[str]) -> None:
        """Takes note of what has become of some more images."""
        self._done += len(outcomes)
        self._failed += sum(outcome == offline.FAILED for outcome in outcomes)
        self._bar.start(self._done, f"{self._failed} failed")
        if not sys.stderr.isatty() and self._bar.seconds - self._said > _LINE_EVERY:
            self._said = self._bar.seconds
            speed = self._done / self._said
            left = clock((self._total - self._done) / speed)
            terminal.complain(
                f"{self._done} of {self._total}, {speed:.1f} images/s, {left} left, "
                f"{self._failed} failed",
                "progress",
                PROGRAM,
            )


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} -i IMAGES -m MASKS -o OUTPUTS [options]",
        description="Fills holes in a large folder of photographs with several processes or "
        "machines. Rerun the same command to resume.",
        allow_abbrev=False,
    )
    add_arguments(parser, folders_only=True)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: as many as the CPUs allow)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads of each worker (default: %(default)s)",
    )
    parser.add_argument(
        "--gpus",
        type=float,
        default=0,
        metavar="SHARE",
        help="GPUs of each worker; with 0.5 two workers share one (default: 0)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="an existing Ray cluster, or auto; every machine needs this package and the same "
        "paths (default: this machine only)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
