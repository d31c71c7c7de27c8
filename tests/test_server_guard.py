"""Requests that a web page of another site, or a hostile client, makes."""

import base64
import json
import logging
import time
import tracemalloc

import pytest

from serving.server import command_line, guard, request_body
from serving.server.request_body import parse_json
from serving.server.request_terms import RequestError
from tests.server_client import IMAGE, MASK, error_of, serving, text

ADDRESS = "http://localhost:8080"


@pytest.fixture(scope="module")
def client(session):
    with serving(session, address=ADDRESS, allowed_hosts=("photos.lan",)) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "127.0.0.1:8080", "127.3.2.1", "[::1]:8080", "LOCALHOST",
     "a.localhost", "localhost.", "photos.lan", "Photos.Lan:443"],
)  # fmt: skip
def test_names_of_this_machine_are_allowed(client, host):
    assert client.get("/v1/model", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "",
     "192.168.1.7", "0.0.0.0", "localhost@evil.example", "localhost:80:80",
     "evil.example#localhost", "[::2]"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/model", "/metrics", "/", "/healthz", "/nothing"])
def test_a_rebound_name_is_refused(client, host, path):
    response = client.get(path, headers={"host": host})
    assert (response.status_code, error_of(response)[0]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "Cross-Site", "sec-fetch-mode": "navigate"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost:8080.evil.example"},
    ],
)
def test_another_sites_page_cannot_post(client, headers):
    response = client.post("/v1/inpaint", files={"image": ("a", IMAGE)}, headers=headers)
    assert (response.status_code, error_of(response)[0]) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8080"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "same-origin"},
        # behind a proxy that sets Host to its own
        {"origin": "https://photos.example.org", "sec-fetch-site": "same-origin"},
    ],
)
def test_our_own_page_and_programs_can(client, headers):
    files = {"image": ("a", IMAGE), "mask": ("a", MASK)}
    assert client.post("/v1/inpaint", files=files, headers=headers).status_code == 200


def test_a_link_to_the_page_is_followed(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/v1/model", headers=headers).status_code == 403
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_an_allowed_origin_uses_the_server(session):
    origin = "https://photos.example.org"
    with serving(session, address=ADDRESS, allowed_origins=(origin,), allowed_hosts=()) as client:
        preflight = {
            "origin": origin,
            "sec-fetch-site": "cross-site",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        answer = client.options("/v1/inpaint", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        files = {"image": ("a", IMAGE), "mask": ("a", MASK)}
        headers = {"origin": origin, "sec-fetch-site": "cross-site"}
        answer = client.post("/v1/inpaint", files=files, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin
        other = client.post("/v1/inpaint", files=files, headers={"origin": "https://evil.example"})
        assert other.status_code == 403


@pytest.mark.parametrize(
    ("arguments", "hosts"),
    [
        ([], ("127.0.0.1",)),
        (["--host", "localhost", "--allow-host", "Photos.lan"], ("localhost", "photos.lan")),
        (["--host", "0.0.0.0", "--no-token"], None),
        (["--host", "0.0.0.0", "--no-token", "--allow-host", "a.lan"], ("0.0.0.0", "a.lan")),
    ],
)
def test_the_flags_say_which_hosts_are_allowed(arguments, hosts):
    parsed = command_line._parser().parse_args(arguments)
    is_local = "0.0.0.0" not in arguments
    assert command_line._settings(parsed, is_local).allowed_hosts == hosts


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--allow-host", "a.lan:80"), ("--allow-host", ""), ("--allow-origin", "photos.example.org"),
     ("--allow-origin", "https://photos.example.org/page")],
)  # fmt: skip
def test_a_wrong_flag_is_said_in_one_line(capsys, flag, value):
    assert command_line.main(["--port", "0", flag, value]) == 2
    error = capsys.readouterr().err
    assert f"{flag} must be" in error
    assert error.count("\n") == 1


# ---- logs


@pytest.mark.parametrize(
    ("given", "logged"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%\x1b[2J", "fe80::1"),
        ('1.1.1.1\x1b[2K" 200\r\nINFO', "1.1.1.1?[2K??200??INFO"),
        ("a" * 999, "a" * 64),
    ],
)
def test_a_forged_address_is_cleaned(given, logged):
    assert guard._clean_address(given) == logged


def test_a_path_is_logged_in_one_line(client, caplog, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("serving.server.app._answer_http_error", fail)
    with caplog.at_level(logging.ERROR):
        client.app.router.default, kept = fail, client.app.router.default
        client.get("/a%0aINFO:%1b[2Jforged")
        client.app.router.default = kept
    (record,) = [each for each in caplog.records if each.name == "serving.server.envelope"]
    assert record.getMessage() == "GET /a%0AINFO:%1B%5B2Jforged failed"


# ---- forms


def form(boundary, content=IMAGE):
    return (
        b'--%s\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        b"%s\r\n--%s--\r\n" % (boundary, content, boundary)
    )


@pytest.mark.parametrize(
    "charset",
    ["undefined", "utf-16", "utf-7", "punycode", "idna", "rot13", "no such", "unicode_escape",
     "x" * 999],
)  # fmt: skip
def test_a_charset_that_is_not_utf8_is_refused(client, charset):
    headers = {"content-type": f'multipart/form-data; boundary=12345678; charset="{charset}"'}
    response = client.post("/v1/inpaint", content=form(b"12345678"), headers=headers)
    code, message = error_of(response)
    assert (response.status_code, code) == (400, "invalid_form")
    assert "charset must be utf-8" in message


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "us-ascii"])
def test_the_charset_that_clients_name_is_read(client, charset):
    headers = {"content-type": f"multipart/form-data; boundary=12345678; charset={charset}"}
    response = client.post("/v1/inpaint", content=form(b"12345678"), headers=headers)
    assert error_of(response)[0] == "no_mask"


@pytest.mark.parametrize("boundary", ["b", "bb", "-", '""', "b" * 71, "b" * 5000])
def test_a_boundary_of_another_length_is_refused(client, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    response = client.post("/v1/inpaint", content=form(boundary.encode()), headers=headers)
    assert (response.status_code, error_of(response)[0]) == (400, "invalid_form")


def test_a_file_full_of_boundaries_is_refused_at_once(client):
    content = b"\r\n--AaB03x\r" * 200_000
    headers = {"content-type": "multipart/form-data; boundary=AaB03x"}
    started = time.process_time()
    response = client.post("/v1/inpaint", content=form(b"AaB03x", content), headers=headers)
    assert (response.status_code, error_of(response)[0]) == (400, "invalid_form")
    assert time.process_time() - started < 1


# ---- base64


def test_blanks_in_base64_take_little_memory_and_time():
    blanks = b" " * 20_000_000
    body = bytearray(b'{"image": "' + text(IMAGE).encode() + blanks + b'", "mask": "\\n \\/"}')
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(RequestError, match="mask: it is not base64"):
        parse_json(body)
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * len(blanks)
    assert seconds < 2


@pytest.mark.parametrize(
    "encoded",
    [
        text(IMAGE),
        base64.encodebytes(IMAGE).decode(),
        text(IMAGE).replace("/", "\\/"),
        "data:image/png;base64," + text(IMAGE),
        f" {text(IMAGE)}\t ",
        "data:image/png;base64,\n" + text(IMAGE) + "\r\n",
    ],
)
def test_base64_as_encoders_write_it_is_read(encoded):
    escaped = json.dumps(encoded).replace("\\\\/", "\\/")
    fields = parse_json(f'{{"mask": null, "image" :\n{escaped}}}'.encode())
    assert fields["image"].read() == IMAGE
    assert list(fields) == ["image"]
    for letters in ("+/=", encoded):  # that an encoder escapes
        plain = encoded.replace("\\", "")
        some = "".join(f"\\u{ord(one):04X}" if one in letters else one for one in plain)
        fields = parse_json(f'{{"image": {json.dumps(some)}}}'.replace("\\\\", "\\").encode())
        assert fields["image"].read() == IMAGE


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"image": "QUJD\u00e9"}', "invalid_image"),
        ('{"image": "QUJD\u2003' + "A" * 100_000 + '"}', "invalid_image"),
        ('{"image": "\\u0041"}', "invalid_image"),
        ('{"image": "\\u00e9"}', "invalid_image"),
        ('{"image": "\\ud800"}', "invalid_image"),
        ('{"image": "QUJD\\u00"}', "invalid_image"),
        ('{"im\\u0061ge": "\\ud800"}', "invalid_image"),
        ('{"im\\u0061ge": "QUJD\\u00e9"}', "invalid_image"),
        ('{"image": "QUJ"}', "invalid_image"),
        ('{"image": "QUJD=QUJD"}', "invalid_image"),
        ('{"image": "QUJD", "image": "QUJD"}', "invalid_option"),
        ('{"image": "QUJD', "invalid_json"),
        ('{"model": "' + "A" * 100_000 + '"}', "invalid_json"),
        ('{"image": "QUJD"' + " " * 100_000 + "}", "invalid_json"),
    ],
)
def test_base64_that_is_none_is_refused(body, code):
    with pytest.raises(RequestError) as refusal:
        parse_json(body.encode())
    assert (refusal.value.status, refusal.value.code) == (400, code)


def test_the_files_are_cut_out_of_json_before_it_is_parsed():
    body = bytearray(b'{"image":"QUJD","dilate":2,"mask":"REVG"}')
    assert request_body._cut_files(body) == {"image": b"QUJD", "mask": b"REVG"}
    assert json.loads(body) == {"image": "", "dilate": 2, "mask": ""}
