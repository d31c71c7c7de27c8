"""Good and hostile requests to a server, sent by many clients, and their outcomes."""

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any, NamedTuple

import numpy as np
import urllib3
from PIL import Image

from benchmarks import hostile_files, models
from benchmarks.servers import FILL, PATIENCE, form, send
from serving.session import InpaintingSession

CLIENTS = 96
"""Requests at a time at most, good and hostile."""

SLOW_CLIENTS = 3
"""Clients at a time that send a byte a second; each holds a place of the queue."""

FAULTS = 50
"""Faults that are kept in words."""

JSON = "application/json"

LEVELS = 2
"""Gray levels by which a filled pixel may differ between two processes."""


class Good:
    """A good request, form or JSON, and the pixels of its answer.

    The hole, `(H, W)` bool, is a mask or with `alpha` the transparency of the photograph, `(H, W,
    3)` uint8, in a format by Pillow's name. `session` fills as the server does."""

    def __init__(
        self,
        session: InpaintingSession,
        pixels: np.ndarray,
        hole: np.ndarray,
        image_format: str = "PNG",
        alpha: bool = False,
        is_json: bool = False,
    ) -> None:
        image = Image.fromarray(pixels)
        if alpha:
            image.putalpha(Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)))
        self.files = {"image": models.encoded(image, image_format)}
        if not alpha:
            mask = Image.fromarray(hole.astype(np.uint8) * 255)
            self.files["mask"] = models.encoded(mask, "PNG")
        self.body, self.content_type = form(self.files)
        if is_json:
            texts = {name: base64.b64encode(each).decode() for name, each in self.files.items()}
            self.body, self.content_type = json.dumps(texts).encode(), JSON
        self._hole = hole
        self._pixels = session.inpaint(_decoded(self.files["image"]), hole)

    def is_answered_by(self, content: bytes) -> bool:
        """Whether an answer is the right image."""
        if self.content_type == JSON:
            content = base64.b64decode(json.loads(content)["image"])
        pixels = _decoded(content)
        if pixels.shape != self._pixels.shape:
            return False
        apart = np.abs(pixels.astype(int) - self._pixels)
        return not apart[~self._hole].any() and int(apart.max()) <= LEVELS


def good_requests(session: InpaintingSession) -> list[Good]:
    """Good requests of several kinds."""
    kinds: list[tuple[int, dict[str, Any]]] = [
        (256, {}),
        (256, {"image_format": "JPEG"}),
        (384, {"image_format": "WEBP"}),
        (320, {"alpha": True}),
        (256, {"is_json": True}),
        (768, {"image_format": "JPEG", "is_json": True}),
    ]
    requests = []
    for side, options in kinds:
        hole = np.zeros((side, side), bool)
        hole[side // 3 : side // 2, side // 4 : side // 2] = True
        requests.append(Good(session, models.photograph(side)[0], hole, **options))
    return requests


class Hostile(NamedTuple):
    """A hostile request. Its manner is "whole", "hangs up" before the answer, "half" and then hangs
    up, "slowly", a byte a second, or "silent" after the headers.
    """

    name: str
    body: bytes
    content_type: str
    manner: str = "whole"


def hostile_requests(good: Good) -> list[Hostile]:
    """Hostile requests of every kind, made of a good one with a PNG and a mask."""
    image, mask = good.files["image"], good.files["mask"]
    kinds = hostile_files.requests(image, mask)
    blanks = hostile_files.json_with_blanks(image, mask, megabytes=16)
    return [
        *(Hostile(name, *form(fields)) for name, fields in kinds.items()),
        Hostile("base64 with blanks", blanks, JSON),
        Hostile("JSON of brackets", b"[" * 2**20, JSON),
        *(
            Hostile(f"client: {manner}", good.body, good.content_type, manner)
            for manner in ("hangs up", "half", "slowly", "silent")
        ),
    ]


class Load:
    """Requests of many clients against one server, and their outcomes.

    Attributes:
        good: Outcome -> number of good requests.
        faults: Faults of good requests and of hostile ones' answers, the first ones.
        hostile: Kind -> answer -> number.
        slowest: Kind -> seconds of its slowest request; good ones are "answered" or "refused".
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.good: Counter[str] = Counter()
        self.faults: list[str] = []
        self.hostile: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._clients = ThreadPoolExecutor(CLIENTS)
        self._running: set[Future] = set()
        self._slow_clients = threading.Semaphore(SLOW_CLIENTS)

    def send(self, request: Good | Hostile, wait: bool = False) -> None:
        """Sends a request in a thread, unless all clients are busy and `wait` is False."""
        is_good = isinstance(request, Good)
        if len(self._running) >= CLIENTS and not wait:
            if is_good:
                with self._lock:
                    self.good["not offered, all clients busy"] += 1
            return
        sent = self._clients.submit(self.send_good if is_good else self._send_hostile, request)
        self._running.add(sent)
        sent.add_done_callback(self._running.discard)

    def drain(self) -> None:
        """Waits until no client is busy."""
        wait_for(set(self._running))

    def send_good(self, request: Good) -> None:
        """Sends a good request in this thread."""
        started = time.monotonic()
        try:
            answer = send(self.port, FILL, request.body, request.content_type)
            outcome = _outcome(answer)
            if answer.status == 200:
                outcome = "answered" if request.is_answered_by(answer.data) else "wrong pixels"
            elif outcome == "503 queue_full" and "Retry-After" in answer.headers:
                outcome = "refused"
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        is_right = outcome in ("answered", "refused")
        kind = f"good, {outcome}" if is_right else "good request"
        self._note(self.good, kind, outcome, time.monotonic() - started, not is_right)

    def _send_hostile(self, request: Hostile) -> None:
        started = time.monotonic()
        try:
            outcome = self._try_hostile(request)
        except (TimeoutError, urllib3.exceptions.TimeoutError):
            outcome = "no answer in time"
        except (OSError, urllib3.exceptions.HTTPError) as error:
            outcome = f"connection closed ({type(error).__name__})"
        seconds = time.monotonic() - started
        late = outcome == "no answer in time" or seconds > PATIENCE
        is_fault = late or outcome.startswith("500")
        self._note(self.hostile[request.name], request.name, outcome, seconds, is_fault)

    def _note(
        self, outcomes: Counter[str], kind: str, outcome: str, seconds: float, is_fault: bool
    ) -> None:
        with self._lock:
            outcomes[outcome] += 1
            if kind != "good request":
                self.slowest[kind] = max(self.slowest[kind], seconds)
            if is_fault and len(self.faults) < FAULTS:
                self.faults.append(f"{kind}: {outcome} after {seconds:.1f} s")

    def _try_hostile(self, request: Hostile) -> str:
        if request.manner == "whole":
            return _outcome(send(self.port, FILL, request.body, request.content_type))
        if request.manner in ("slowly", "silent"):
            if not self._slow_clients.acquire(blocking=False):
                return "not sent, enough slow clients"
            try:
                return self._send_slowly(request)
            finally:
                self._slow_clients.release()
        with self._connect(request) as connection:
            whole = request.manner == "hangs up"
            connection.sendall(request.body if whole else request.body[: len(request.body) // 2])
            time.sleep(0.2)
        return "hung up"

    def _send_slowly(self, request: Hostile) -> str:
        with self._connect(request) as connection:
            connection.settimeout(1)
            end = time.monotonic() + PATIENCE
            answer = b""
            for index in range(len(request.body)):
                if time.monotonic() > end:
                    raise TimeoutError
                if request.manner == "slowly":
                    connection.sendall(request.body[index : index + 1])
                with contextlib.suppress(TimeoutError):
                    piece = connection.recv(4096)
                    answer += piece
                    if not piece or b"\r\n\r\n" in answer:
                        break
            words = answer.split(maxsplit=2)
            return words[1].decode() if len(words) > 1 else "connection closed"

    def _connect(self, request: Hostile) -> socket.socket:
        """A connection on which the request's headers are sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(
            f"POST {FILL} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(request.body)}\r\n"
            f"Content-Type: {request.content_type}\r\n\r\n".encode()
        )
        return connection


def _decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _outcome(answer: urllib3.BaseHTTPResponse) -> str:
    """Status and code of an answer."""
    if answer.status == 200:
        return "200 ok"
    try:
        return f"{answer.status} {answer.json()['error']['code']}"
    except (ValueError, LookupError, TypeError):
        return f"{answer.status} without a code"
