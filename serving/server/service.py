"""The models of a server, and the threads and processes that serve them."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from musical_tf import images

from .. import tiling
from ..options import FillOptions
from ..session import InpaintingSession
from . import output_folder, request_body, schemas, selecting
from .answering import AnsweringRequests
from .inpaint_request import Filled, convert_request, fill_request
from .jobs import AbandonedError, Batcher, Job, JobQueue
from .metrics import Metrics
from .request_terms import invalid_option, unavailable
from .settings import Settings
from .worker_pool import Codec, WorkerError, WorkerPool

_LOG = logging.getLogger(__name__)


class Service:
    """Models, and the threads and processes that serve them.

    Attributes:
        sessions: Name -> model; the first is the one for requests that name none.
        batchers: Name -> the thread that runs it.
        is_ready: Whether every model has run once.
        is_closing: Set at shutdown: new requests are refused, others finish.
        failure: Why the worker processes do not start, or `failed_model` could not run.
        pool: The worker processes; None if `Settings.isolate` is off.

    Raises:
        ValueError: If two models have one name.
    """

    def __init__(self, sessions: Sequence[InpaintingSession], settings: Settings) -> None:
        # By name: clients must not see paths.
        self.sessions = {session.name: session for session in sessions}
        if len(self.sessions) < len(sessions):
            named = ", ".join(session.name for session in sessions)
            raise ValueError(f"every model needs a name of its own, got {named}")
        self.settings = settings
        self.metrics = Metrics()
        self.jobs = JobQueue(settings.workers, settings.queue)
        self.requests = AnsweringRequests()
        self.batchers = {
            name: Batcher(session.run_windows, settings.batch, observe=self.metrics.observe_batch)
            for name, session in self.sessions.items()
        }
        self.metrics.queue_depth.set_function(lambda: self.jobs.depth)
        self.pool: WorkerPool | None = None
        if settings.isolate:
            ended = self.metrics.workers_ended
            pool = WorkerPool(
                settings.workers, settings.timeout, lambda reason: ended.labels(reason).inc()
            )
            self.metrics.workers.set_function(lambda: pool.alive)
            self.pool = pool
        self.is_ready = False
        self.is_closing = False
        self.failure: Exception | None = None
        self.failed_model = ""

    @property
    def default(self) -> str:
        """The model for requests that name none."""
        return next(iter(self.sessions))

    def start(self) -> None:
        """Starts threads and processes, and runs every model once in one of the threads."""
        if self.pool is not None:
            self.pool.start()
        self.jobs.start()
        for batcher in self.batchers.values():
            batcher.start()
        self.jobs.submit(self._warm_up)

    def close(self) -> None:
        """Ends the processes, and lets the threads end once their work is done.

        Called when every request has its answer: jobs that still decode were abandoned.
        """
        self.is_closing = True
        if self.pool is not None:
            self.pool.close()
        self.jobs.close()
        for batcher in self.batchers.values():
            batcher.close()

    def has_ended(self, seconds: float) -> bool:
        """Waits so long for the threads after `close`; False if one still computes."""
        end = time.monotonic() + seconds
        threads: list[JobQueue | Batcher] = [self.jobs, *self.batchers.values()]
        return all(each.join(max(0.0, end - time.monotonic())) for each in threads)

    def describe(self) -> dict[str, Any]:
        """The answer to `/v1/model`."""
        settings = self.settings
        limits = {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "timeout": settings.timeout,
        }
        described = [
            {**session.describe(), "model": name} for name, session in self.sessions.items()
        ]
        folder = settings.output_dir
        return {
            **described[0],
            "models": described,
            "limits": limits,
            "output_dir": None if folder is None else str(folder),
        }

    def refuse_unless_ready(self) -> None:
        """Raises `RequestError` 503 where no request can be taken."""
        if self.is_closing:
            raise unavailable("shutting_down", "the server is ending", 5)
        if self.failure is not None:
            what = "the model does" if self.failed_model else "the worker processes do"
            raise unavailable("not_ready", f"{what} not run", 60)
        if not self.is_ready:
            raise unavailable("not_ready", "the model has not run yet", 1)

    def refuse_unless_able(self) -> None:
        """Raises `RequestError` 503 where no request is taken, or where one would only wait."""
        self.refuse_unless_ready()
        if self.jobs.is_stuck:
            raise unavailable("not_ready", "abandoned requests occupy every thread", 5)
        if self.pool is not None and self.pool.failure is not None:
            raise unavailable("not_ready", "the worker processes do not start", 5)

    def inpaint_json(self, content: bytearray, job: Job) -> tuple[Filled, str]:
        """`inpaint` of a body in JSON."""
        return self.inpaint(request_body.parse_json(content), job)

    def inpaint(self, fields: dict[str, Any], job: Job) -> tuple[Filled, str]:
        """Everything between a body's fields and an answer; runs in a thread of the queue.

        Returns:
            The answer, and the name of the model that gave it.
        """
        options = schemas.read_options(fields, tuple(self.sessions))
        model = options.model or self.default
        fill_hole = partial(self._fill, job, model)
        codec, max_pixels = self._codec(job), self.settings.max_pixels
        filled = fill_request(fields, options, max_pixels, fill_hole, job.check, codec)
        return self._save(filled, fields.get("name", "")), model

    def convert(self, fields: dict[str, Any], job: Job) -> Filled:
        """The same to encode a photograph in another format."""
        options = schemas.read_options(fields, tuple(self.sessions))
        crop = schemas.read_box(fields, "crop")
        codec, max_pixels = self._codec(job), self.settings.max_pixels
        return convert_request(fields, options, max_pixels, job.check, codec, crop)

    def select(self, fields: dict[str, Any], job: Job) -> Filled:
        """The same to select an object."""
        box = schemas.read_box(fields, "box")
        cut = selecting.cut_out
        if self.pool is not None:
            cut = partial(self.pool.run, job, selecting.cut_out_within_limits, what=selecting.WHAT)
        codec, max_pixels = self._codec(job), self.settings.max_pixels
        return selecting.select_request(fields, box, max_pixels, job.check, codec, cut)

    def _save(self, filled: Filled, name: str) -> Filled:
        """The result with the name under which the folder has it, if there is a folder."""
        folder = self.settings.output_dir
        if folder is None:
            return filled
        try:
            saved = output_folder.save(folder, name, filled.format, filled.content)
        except OSError as error:  # the client still gets the result
            _LOG.error("the result was not saved in %s: %s", folder, error)
            return filled
        return replace(filled, saved=saved)

    def _codec(self, job: Job) -> Any:
        return images if self.pool is None else Codec(self.pool, job)

    def _fill(
        self, job: Job, model: str, image: np.ndarray, hole: np.ndarray, options: FillOptions
    ) -> np.ndarray:
        """What `InpaintingSession.inpaint` does, every window through the model's batcher."""
        how = options.fill, options.seed
        try:
            self.sessions[model].copies(*how)
        except ValueError as error:
            raise invalid_option(str(error)) from None
        contract, batcher = self.sessions[model].contract, self.batchers[model]
        strategy = options.strategy or contract.strategy
        with batcher.caller():
            run = partial(batcher.run, job, how)
            return tiling.fill(image, hole, run, contract.training_size, strategy, job.report)

    def _warm_up(self, job: Job) -> None:
        if self.pool is not None:
            try:
                self.pool.wait_until_ready()
            except WorkerError as error:
                self.failure = error
                return
            except AbandonedError:
                return
        for name, session in self.sessions.items():
            side = session.contract.training_size
            image = np.full((side, side, 3), 127, np.uint8)
            hole = np.zeros((side, side), bool)
            hole[side // 4 : -(side // 4), side // 4 : -(side // 4)] = True
            try:
                self._fill(job, name, image, hole, FillOptions(strategy="original"))
            except Exception as error:
                self.failure, self.failed_model = error, name
                break
        self.is_ready = self.failure is None
