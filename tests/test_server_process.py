"""The server as a process: how it starts, how it fails to, what the network does, how it ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import psutil
import pytest

from serving.server import create_app, main, uvicorn_server
from serving.server.settings import Settings
from serving.session import InpaintingSession
from tests.processes import ROOT, run_python
from tests.server_client import form_request
from tests.serving_model import write_model
from tests.waiting import WAIT, wait_until


class Running:
    """A server process, and what it said."""

    def __init__(self, model, *flags, **environment):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--model", model, "--port", "0", *flags],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = [self.process.stdout.readline()]
        found = re.search(r"http://(\S+):(\d+)", self.lines[0])
        if found is None:
            pytest.fail(f"it did not start: {self.lines} {self.process.communicate(timeout=WAIT)}")
        self.host, self.port = found[1].strip("[]"), int(found[2])

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=WAIT)

    def get(self, path, **headers):
        return self.request("GET", path, None, headers)

    def request(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()

    def wait_until_ready(self):
        wait_until(lambda: self.get("/readyz")[0] == 200)

    def metric(self, line):
        found = re.search(rf"^{re.escape(line)} (\S+)$", self.get("/metrics")[1].decode(), re.M)
        return float(found[1]) if found else 0.0

    def is_deaf(self):
        """Whether it takes no new connections."""
        try:
            self.connect().close()
        except OSError:
            return True
        return False

    def workers(self):
        """Its worker processes."""
        found = psutil.Process(self.process.pid).children()
        assert len(found) == 2
        return found

    def end(self, *signals):
        """Sends signals, waits, and returns exit code, output and errors."""
        for number in signals:
            self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=WAIT)
        return self.process.returncode, "".join(self.lines) + output, errors


@contextlib.contextmanager
def running(model, *flags, **environment):
    server = Running(str(model), *flags, **environment)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def form():
    """A form with a photograph and its mask: body and content type."""
    (body,), headers = form_request()
    return body, {"Content-Type": dict(headers)[b"content-type"].decode()}


def raw_form():
    """The same as what goes over the wire, cut in two before its end."""
    body, headers = form()
    head = (
        f"POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {headers['Content-Type']}\r\n\r\n"
    )
    return head.encode() + body[:-10], body[-10:]


def read_answer(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def assert_ended(workers):
    assert psutil.wait_procs(workers, timeout=WAIT)[1] == []


def test_sigterm_finishes_what_has_begun_and_refuses_what_comes(model):
    with running(model) as server:
        workers = server.workers()
        assert re.fullmatch(
            r"musical-serve: http://127\.0\.0\.1:\d+ serves tiny model\.onnx "
            r"\(musical, lite, 64 pixels\) on CPUExecutionProvider; Ctrl-C ends it\n",
            server.lines[0],
        )
        expected = server.request("POST", "/v1/inpaint", *form())
        assert expected[0] == 200
        beginning, rest = raw_form()
        with server.connect() as connection:
            connection.sendall(beginning)
            wait_until(lambda: server.metric("musical_requests_in_flight") == 2)
            server.process.send_signal(signal.SIGTERM)
            wait_until(server.is_deaf)
            connection.sendall(rest)
            assert read_answer(connection) == expected
        code, output, errors = server.end()
        assert (code, errors) == (0, "")
        assert output.count("POST /v1/inpaint HTTP/1.1") == 2
        assert output.count("\n") == output.count("HTTP/1.1") + 1  # it says nothing more
        assert_ended(workers)


def test_workers_end_with_a_server_that_is_killed_and_not_by_signals_of_their_own(model):
    with running(model) as server:
        workers = server.workers()
        for worker in workers:  # as systemd does, and it has to serve nevertheless
            worker.terminate()
        assert server.request("POST", "/v1/inpaint", *form())[0] == 200
        assert server.workers() == workers
        code, _, errors = server.end(signal.SIGKILL)
        assert (code, errors) == (-9, "")
        assert_ended(workers)


def test_a_second_ctrl_c_ends_it_at_once(model):
    with running(model) as server, server.connect() as connection:
        workers = server.workers()
        connection.sendall(raw_form()[0])
        wait_until(lambda: server.metric("musical_requests_in_flight") == 2)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.5)
        assert server.end(signal.SIGINT)[::2] == (130, "")
        assert_ended(workers)


def test_an_answer_before_the_end_of_the_body_arrives(model):
    """urllib asks for the connection to be closed, which would reset it."""
    with running(model, "--max-bytes", "100000") as server:
        for body in (bytes(20_000_000), iter([bytes(100_000)] * 200)):  # with a length, without
            request = urllib.request.Request(
                f"http://127.0.0.1:{server.port}/v1/inpaint",
                body,
                {"Content-Type": "application/json"},
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=WAIT)
            assert caught.value.code == 413
            assert json.load(caught.value)["error"]["code"] == "too_large"


@pytest.mark.parametrize(("size", "status"), [(1, 400), (40, 200)])
def test_a_body_in_tiny_chunks_is_refused(model, size, status):
    """One megabyte in chunks of one byte would take seconds; most of it is not read."""
    body, headers = form()
    body += bytes(1_000_000) if status == 400 else b""
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part)
        for part in (body[start : start + size] for start in range(0, len(body), size))
    )
    head = "POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += f"Content-Type: {headers['Content-Type']}\r\n\r\n"
    with running(model) as server:
        process = psutil.Process(server.process.pid)
        before = process.cpu_times().user
        with server.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(head.encode() + chunks + b"0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert read_answer(connection)[0] == status
        assert process.cpu_times().user - before < 0.5
        assert server.request("POST", "/v1/inpaint", *form())[0] == 200


def test_crowds_that_hang_up_and_nonsense_are_survived(model):
    rng = np.random.default_rng(0)
    beginning, rest = raw_form()
    whole = beginning + rest
    head = whole[: whole.index(b"\r\n\r\n") + 4]
    with running(model, "--queue", "4", "--no-access-log") as server:
        expected = server.request("POST", "/v1/inpaint", *form())

        def crowd(number):
            kind = number % 5
            with server.connect() as connection, contextlib.suppress(ConnectionError):
                if kind == 0:  # leaves in the middle of its body
                    connection.sendall(whole[: len(whole) // 2])
                elif kind == 1:  # leaves before its answer
                    connection.sendall(whole)
                elif kind == 2:  # is no HTTP, or no form
                    nonsense = rng.bytes(3000)
                    if number % 2:
                        nonsense = head + nonsense + bytes(len(whole) - len(head) - 3000)
                    connection.sendall(nonsense + b"\r\n\r\n")
                    statuses.append(read_answer(connection)[0])
                else:
                    connection.sendall(whole)
                    status, content = read_answer(connection)
                    statuses.append(status)
                    assert status != 200 or content == expected[1]

        statuses = []
        threads = [threading.Thread(target=crowd, args=(number,)) for number in range(150)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            assert not thread.is_alive()
        assert set(statuses) <= {200, 400, 503}
        assert {200, 400} <= set(statuses)
        assert server.request("POST", "/v1/inpaint", *form()) == expected
        wait_until(lambda: server.metric("musical_requests_in_flight") == 1)
        code, output, errors = server.end(signal.SIGTERM)
        assert code == 0
        assert output.count("\n") == 1
        assert set(errors.splitlines()) <= {"WARNING:  Invalid HTTP request received."}


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost", b"P" * 100])
def test_a_client_that_never_says_what_it_wants_is_left(model, monkeypatch, beginning):
    monkeypatch.setattr(uvicorn_server, "_PATIENCE", 0.1)
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(InpaintingSession(model))
    server = uvicorn_server.make_server(app, lambda: None)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), timeout=WAIT) as connection:
            connection.sendall(beginning)
            started = time.monotonic()
            wait_until(lambda: server.server_state.connections)
            (protocol,) = server.server_state.connections
            accepted = protocol.transport.get_extra_info("socket")
            # Or an answer of several pieces waits for the client's acknowledgements.
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert connection.recv(1000) == b""
            assert time.monotonic() - started >= 0.1
    finally:
        server.should_exit = True
        thread.join(WAIT)
    assert not thread.is_alive()


def test_a_token_from_the_environment_lets_other_machines_in(model):
    with running(model, "--host", "0.0.0.0", MUSICAL_TOKEN="s3cret") as server:
        assert server.get("/v1/model")[0] == server.get("/metrics")[0] == 401
        assert server.get("/metrics", Authorization="Bearer s3cret")[0] == 200
        status, content = server.get("/v1/model", Authorization="Bearer s3cret")
        assert status == 200
        limits = json.loads(content)["limits"]
        assert limits == {name: getattr(Settings, name) for name in limits}


def test_a_model_that_cannot_run_ends_it(tmp_path):
    model = write_model(tmp_path / "nan.onnx", io="float32", result=float("nan"))
    server = Running(str(model))
    code, _, errors = server.end()
    assert code == 1
    assert errors.splitlines()[-1] == (
        f"musical-serve: error: {model}: the model does not run: "
        "the model returned values that are not finite"
    )
    assert errors.count("\n") == 1


# ---- what keeps it from starting


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "nowhere.onnx"], "nowhere.onnx: no such model file"),
        (["--model", str(ROOT / "setup.cfg")], "ONNX Runtime cannot load it"),
        (["--provider", "abacus"], "execution provider 'abacus' is not in this installation"),
        (["--port", "{taken_port}"], "cannot listen at 127.0.0.1 port {taken_port}: address"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: there is no such"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines: set MUSICAL"),
        (["--host", "::"], "can be reached from other machines"),
        (["--host", ""], "can be reached from other machines"),
        (["--token", ""], "the token must be printable ASCII characters without spaces"),
        (["--token", "ä"], "the token must be printable ASCII"),
        (["--port", "65536"], "--port must be within 0 and 65535, got 65536"),
        (["--max-bytes", "0"], "--max-bytes must be within 1024"),
        (["--max-pixels", "0"], "--max-pixels must be within 1"),
        (["--timeout", "nan"], "--timeout must be within 1 and 3600, got nan"),
        (["--queue", "-1"], "--queue must be within 0"),
        (["--batch", "0"], "--batch must be within 1 and 64, got 0"),
        (["--threads", "-1"], "--threads must be within 0"),
        (["--memory-limit", "0"], "--memory-limit must be within 1"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(model, taken_port, capsys, flags, message):
    flags = [flag.format(taken_port=taken_port) for flag in flags]
    assert main(["--model", str(model), *flags]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("musical-serve: error: ")
    assert message.format(taken_port=taken_port) in output.err.lower() or (
        message.format(taken_port=taken_port) in output.err
    )
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "flags", [["--prot", "1"], ["--port", "x"], ["--token", "a", "--no-token"]]
)
def test_wrong_usage_leaves_with_2(model, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(model), *flags])
    assert stop.value.code == 2
    assert "musical-serve: error: " in capsys.readouterr().err


SERVER_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "fastapi_offline")


@pytest.mark.parametrize("absent", SERVER_PACKAGES)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(model, absent):
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        f"from serving.server import main; sys.exit(main(['--model', {str(model)!r}]))"
    )
    done = run_python("-c", code)
    assert done.returncode == 1
    assert done.stderr == (
        f"musical-serve: error: the Python package {absent} is not installed; "
        "pip install 'musical-tf[server,serve]' brings what this command needs\n"
    )


def test_the_rest_of_serving_needs_none_of_the_servers_packages(model):
    code = (
        f"import sys\nfor name in {SERVER_PACKAGES!r}: sys.modules[name] = None\n"
        "import serving.session, serving.server.jobs, serving.server.inpaint_request\n"
        "from serving.predict import main; main(['--help'])"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
