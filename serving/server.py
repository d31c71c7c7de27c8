"""Serves a model over HTTP.

    python -m serving.server --model model.onnx

On this machine alone unless `--host` says otherwise; then a token is asked for. SIGTERM or Ctrl-C
finishes what has been taken and refuses what comes; a second Ctrl-C leaves at once.

Exit code 0: ended by a signal. 1: the model failed when it first ran, or a package is missing. 2:
wrong usage, a model that cannot be used, or an address that cannot be had. 130: the second Ctrl-C.
"""

import argparse
import copy
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .http_api import Settings
    from .session import InpaintingSession

PROGRAM = "musical-serve"
TOKEN_VARIABLE = "MUSICAL_TOKEN"

_GRACE = 5  # seconds beyond the timeout until a shutdown stops waiting


class UsageError(ValueError):
    """Wrong usage."""


def create_app(session: "InpaintingSession", settings: "Settings | None" = None) -> "FastAPI":
    """Builds the application around a model, see `serving.http_api.create_app`."""
    from . import http_api

    return http_api.create_app(session, settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit code, see above.
    """
    arguments = _parser().parse_args(argv)
    try:
        _check_numbers(arguments)
        return _serve(arguments)
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        if absent in ("", "musical_tf", "serving"):
            raise
        _complain(
            f"the Python package {absent} is not installed; "
            "pip install 'musical-tf[server,serve]' brings what this command needs"
        )
        return 1
    except (OSError, ValueError) as error:
        _complain(_say(error))
        return 2
    except KeyboardInterrupt:
        return 130


def _serve(arguments: argparse.Namespace) -> int:
    import uvicorn

    from . import http_api
    from .session import InpaintingSession

    token = arguments.token or os.environ.get(TOKEN_VARIABLE) or None
    address = _resolve(arguments.host, arguments.port)
    is_local = _is_loopback(address)
    if not is_local and token is None and not arguments.no_token:
        raise UsageError(
            f"--host {arguments.host} can be reached from other machines: give a --token (or "
            f"{TOKEN_VARIABLE}), or say --no-token to let everybody in"
        )
    settings = http_api.Settings(
        max_bytes=arguments.max_bytes,
        max_pixels=arguments.max_pixels,
        timeout=arguments.timeout,
        queue=arguments.queue,
        batch=arguments.batch,
        token=token,
        protect_metrics=token is not None and not is_local,
    )
    session = InpaintingSession(
        arguments.model,
        providers=None if arguments.provider == "auto" else [arguments.provider],
        threads=arguments.threads,
        memory_limit=arguments.memory_limit * 2**30,
    )
    app = create_app(session, settings)
    service = app.state.service

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            service.is_closing = True
            if self.should_exit and sig == signal.SIGINT:
                os._exit(130)  # threads that still compute would hold a normal exit up
            self.should_exit = True

        async def on_tick(self, counter: int) -> bool:
            return service.failure is not None or await super().on_tick(counter)

    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=_log_config(arguments.access_log),
        timeout_graceful_shutdown=int(settings.timeout) + _GRACE,
        server_header=False,
    )
    _allow_many_connections()
    with _listen(address) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        contract = session.contract
        print(
            f"{PROGRAM}: {url} serves {session.model_path.name} ({contract.method}, "
            f"{contract.preset}, {contract.training_size} pixels) on {session.provider}; "
            "Ctrl-C ends it",
            flush=True,
        )
        Server(config).run(sockets=[listener])
    if service.failure is not None:
        _complain(f"{arguments.model}: the model does not run: {_say(service.failure)}")
        return 1
    return 0


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """The family and address to listen at."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: there is no such address: {error}") from error
    family, _, _, _, address = found[0]
    return family, address


def _is_loopback(address: tuple[socket.AddressFamily, tuple[Any, ...]]) -> bool:
    return ipaddress.ip_address(address[1][0].partition("%")[0]).is_loopback


def _listen(address: tuple[socket.AddressFamily, tuple[Any, ...]]) -> socket.socket:
    family, where = address
    try:
        return socket.create_server(where, family=family, backlog=2048)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot listen at {where[0]} port {where[1]}: {reason}") from error


def _allow_many_connections() -> None:
    """Lets the process have as many sockets as it may: the usual 1024 is soon full."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _log_config(access_log: bool) -> dict[str, Any]:
    """uvicorn's own, but what it says about itself only where something is wrong."""
    from uvicorn.config import LOGGING_CONFIG

    config = copy.deepcopy(LOGGING_CONFIG)
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    config["loggers"]["uvicorn.access"]["level"] = "INFO" if access_log else "WARNING"
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Serves a model exported by export/to_onnx.py over HTTP.",
        allow_abbrev=False,
    )
    parser.add_argument("--model", required=True, metavar="FILE", help="the .onnx file")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; one that other machines reach needs a token "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)"
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        help="what clients must send as 'Authorization: Bearer TOKEN'; better given in the "
        f"environment as {TOKEN_VARIABLE}, where other users of the machine cannot read it",
    )
    token.add_argument(
        "--no-token",
        action="store_true",
        help="ask for none although other machines reach the address",
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=32 * 2**20,
        metavar="N",
        help="refuse larger bodies (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=50_000_000,
        metavar="N",
        help="refuse larger images (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="SECONDS",
        help="give a request up after so long, its waiting included (default: %(default)s)",
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=32,
        metavar="N",
        help="requests that may wait; more are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="most windows of different requests in one run of the model (default: %(default)s)",
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads (default: all)"
    )
    parser.add_argument(
        "--provider",
        default="auto",
        metavar="NAME",
        help="ONNX Runtime execution provider, such as cpu or cuda (default: the fastest there is)",
    )
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=4,
        metavar="GIB",
        help="refuse a run of the model that would need more (default: %(default)s)",
    )
    parser.add_argument(
        "--no-access-log",
        dest="access_log",
        action="store_false",
        help="do not print a line for each request",
    )
    return parser


def _check_numbers(arguments: argparse.Namespace) -> None:
    for name, low, high in (
        ("port", 0, 65535),
        ("max_bytes", 1024, 2**31),
        ("max_pixels", 1, 178_956_970),
        ("timeout", 1, 3600),
        ("queue", 0, 10_000),
        ("batch", 1, 64),
        ("threads", 0, 1024),
        ("memory_limit", 1, 4096),
    ):
        value = getattr(arguments, name)
        if not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} must be within {low} and {high}, got {value}")


def _say(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _complain(message: str) -> None:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
