"""uvicorn, as this project runs it: how it ends, and how long it waits for who says nothing."""

import asyncio
import copy
import gc
import math
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http import h11_impl

from .service import Service

_GRACE = 5  # seconds beyond the timeout of a request until a shutdown stops waiting
_PATIENCE = 10.0  # seconds; a connection without a request is closed after one to two of them
_FRAMING = 2**17
"""Bytes that a chunked request may have around its body, in addition to an eighth of the body.

A chunk costs as much processor time as thousands of bytes, and blocks all other answers.
"""
_QUIT = 130  # exit code of the second Ctrl-C


class Server(uvicorn.Server):
    """A server that ends with exit code 0 on a signal, and ends if its model fails.

    Args:
        config: uvicorn's configuration of an application by `app.create_app`.
        service: The application's.
        announce: Called when connections are taken.
    """

    def __init__(
        self, config: uvicorn.Config, service: Service, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.service = service
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts listening, and says so."""
        await super().startup(sockets)
        # The modules stay for good. Without them Python looks for cycles among everything else
        # often, instead of once in many thousand requests.
        gc.collect()
        gc.freeze()
        gc.collect()
        self.announce()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end; asked ten times a second."""
        return await super().on_tick(counter) or self.service.failure is not None

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Ends on a signal; at once on Ctrl-C after another one.

        Unlike uvicorn's own, it does not raise the signal again when everything is done, which
        would replace the exit code.
        """
        if self.should_exit and sig == signal.SIGINT:
            os._exit(_QUIT)  # threads that still compute would hold a normal exit up
        self.service.is_closing = True
        self.should_exit = True


class _Protocol(h11_impl.H11Protocol):
    """uvicorn's own, but a client that does not get as far as a request is not waited for.

    Nor is one that sends a body in tiny chunks.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does so only for sockets that know they are TCP, which `create_server` does not
        # tell them. Without it every answer waits 40 ms for the client to acknowledge its headers.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._idle_since_cycle: Any = self  # of no cycle
        self._check = self.loop.call_later(_PATIENCE, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        cycle = self.cycle
        before = len(cycle.body) if cycle else 0
        super().data_received(data)
        if self.cycle is None:
            return
        if self.cycle is not cycle:
            before = self._body = self._framing = 0
        body = len(self.cycle.body) - before
        self._body += body
        self._framing += len(data) - body
        is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        if is_chunked and self._framing > _FRAMING + self._body // 8:
            if self.conn.our_state is h11_impl.h11.SEND_RESPONSE:
                self.send_400_response("The chunks of the body are too small.")
            self.transport.close()

    def _close_if_idle(self) -> None:
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self._idle_since_cycle is self.cycle:
            self.transport.close()
            return
        self._idle_since_cycle = self.cycle if is_idle else self
        self._check = self.loop.call_later(_PATIENCE, self._close_if_idle)


def make_server(app: FastAPI, announce: Callable[[], None], access_log: bool = True) -> Server:
    """Configures a server; `run(sockets=[...])` runs it until it is told to end.

    Args:
        app: An application by `app.create_app`.
        announce: Called when connections are taken.
        access_log: Whether to print a line for each request.
    """
    log_config = copy.deepcopy(LOGGING_CONFIG)
    # What uvicorn says about itself is of interest where something is wrong.
    log_config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    log_config["loggers"]["uvicorn.access"]["level"] = "INFO" if access_log else "WARNING"
    log_config["loggers"]["python_multipart"] = {"level": "ERROR"}  # clients' mistakes are answered
    timeout = app.state.service.settings.timeout
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        server_header=False,
        log_config=log_config,
        # Every request ends within its timeout; this catches unforeseen cases.
        timeout_graceful_shutdown=math.ceil(timeout) + _GRACE,
    )
    return Server(config, app.state.service, announce)
