"""Serves a model over HTTP.

    python -m serving.server
    python -m serving.server --model photo faces

It listens on this machine only; another `--host` needs a token. SIGTERM or Ctrl-C finishes the
requests in flight and refuses new ones; a second Ctrl-C ends at once.

Exit code 0: ended by a signal. 1: the model failed when it first ran, or a package is missing. 2:
wrong usage, a model that cannot be used, or an address that is not free. 130: the second Ctrl-C.
"""

import argparse
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musical_tf.arguments import Parser
from musical_tf.command_line import missing_package

from .. import named_models, options
from ..terminal import complain, say
from . import allocator, output_folder
from .settings import TOKEN_VARIABLE, Settings

if TYPE_CHECKING:
    from ..session import InpaintingSession

PROGRAM = "musical-serve"
_LAST_WORK = 1.0  # seconds that the shutdown waits for abandoned work


class UsageError(ValueError):
    """Wrong usage."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code, see above."""
    arguments = _parser().parse_args(argv)
    try:
        options.check_range("port", arguments.port, 0, 65535)
        return _serve(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "musical_tf", "serving"):
            raise
        complain(missing_package(error, "server,serve"), program=PROGRAM)
        return 1
    except (OSError, ValueError) as error:
        complain(say(error), program=PROGRAM)
        return 2


def _serve(arguments: argparse.Namespace) -> int:
    import prometheus_client

    from ..session import InpaintingSession
    from . import uvicorn_server
    from .app import create_app

    allocator.give_back_freed_memory()
    address = _resolve(arguments.host, arguments.port)
    settings = _settings(arguments, is_local=_is_loopback(address))
    chosen = options.ModelOptions(**options.read(arguments, options.ModelOptions))
    sessions = [
        InpaintingSession(
            model,
            providers=None if chosen.provider == "auto" else [chosen.provider],
            threads=chosen.threads,
            memory_limit=chosen.memory_limit * 2**30,
        )
        for model in arguments.model
    ]
    app = create_app(sessions, settings)
    listener = _listen(address)
    prometheus_client.disable_created_metrics()
    _allow_many_connections()
    server = uvicorn_server.make_server(
        app, lambda: _announce(listener, sessions), arguments.access_log
    )
    server.run(sockets=[listener])
    service = app.state.service
    code = 0
    if service.failure is not None:
        reason = say(service.failure)
        if service.failed_model:
            file = service.sessions[service.failed_model].model_path
            reason = f"{file}: the model does not run: {reason}"
        complain(reason, program=PROGRAM)
        code = 1
    service.close()
    if not service.has_ended(_LAST_WORK):
        # Only abandoned work still computes. Python's own shutdown would abort in it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _settings(arguments: argparse.Namespace, is_local: bool) -> Settings:
    """The settings that were asked for.

    Raises:
        UsageError: If the token cannot be one, or is missing where one is needed.
    """
    token = os.environ.get(TOKEN_VARIABLE) if arguments.token is None else arguments.token
    if arguments.no_token:
        token = None
    elif token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UsageError("the token must be printable ASCII characters without spaces")
    elif token is None and not is_local:
        raise UsageError(
            f"--host {arguments.host} can be reached from other machines: set {TOKEN_VARIABLE} "
            "or --token, or use --no-token to allow access without a token"
        )
    folder = _output_dir(arguments.output_dir)
    return Settings(
        **(options.read(arguments, Settings) | {"token": token, "output_dir": folder}),
        allowed_hosts=_allowed_hosts(arguments, is_local),
        allowed_origins=tuple(_origin(origin) for origin in arguments.allow_origin),
    )


def _output_dir(path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        return output_folder.open_folder(path)
    except OSError as error:
        raise UsageError(
            f"--output-dir must be a folder that the server can write to, got {path}: {say(error)}"
        ) from error


def _allowed_hosts(arguments: argparse.Namespace, is_local: bool) -> tuple[str, ...] | None:
    """The names that Host may have; None where other machines call the server by names of theirs.

    Raises:
        UsageError: If one is no name.
    """
    for name in arguments.allow_host:
        if not re.fullmatch(r"[0-9A-Za-z._-]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", name):
            raise UsageError(
                f"--allow-host must be a name or an address without a port, got {name!r}"
            )
    if not is_local and not arguments.allow_host:
        return None
    return tuple(name.lower() for name in (arguments.host, *arguments.allow_host) if name)


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://[^/?#@\s]+", text):
        raise UsageError(
            f"--allow-origin must be like https://example.org (or *), got {text!r}; "
            "leave out the path"
        )
    return text.lower()


def _announce(listener: socket.socket, sessions: "Sequence[InpaintingSession]") -> None:
    """One line: where, what, and what really runs it."""
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    what = ", ".join(
        f"{session.name} ({session.contract.method}, {session.contract.preset}, "
        f"{session.contract.training_size} pixels)"
        for session in sessions
    )
    print(
        f"{PROGRAM}: http://{host}:{port} serves {what} on {sessions[0].provider}; Ctrl-C ends it",
        flush=True,
    )


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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options]",
        description="Serves included models, or files exported by export/to_onnx.py, over HTTP.",
        allow_abbrev=False,
    )
    parser.texts = frozenset(("--host", "--allow-host", "--token"))
    named_models.add_argument(parser, several=True)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; an address that other machines reach needs a token "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="0 selects a free port (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that requests may use in Host, for example behind a proxy; may be "
        "repeated. By default a loopback address allows its own names and --host",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web site, like https://example.org, whose pages may use the server (CORS); may be "
        "repeated, * allows all",
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token",
        help="what clients must send as 'Authorization: Bearer TOKEN'; prefer the environment "
        f"variable {TOKEN_VARIABLE}, which other users of the machine cannot read",
    )
    token.add_argument(
        "--no-token",
        action="store_true",
        help="allow access without a token on any address",
    )
    options.add_arguments(parser, Settings)
    options.add_arguments(parser, options.ModelOptions)
    parser.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="also save every result in this folder, under a new name (default: save nothing)",
    )
    parser.add_argument(
        "--no-access-log",
        dest="access_log",
        action="store_false",
        help="do not print a line for each request",
    )
    return parser
