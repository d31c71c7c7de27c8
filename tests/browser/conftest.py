"""One browser and one server for all tests of the page."""

import pytest

from serving.session import InpaintingSession

from ..serving_model import write_model
from .screen import Screen, Server, find_chromium


@pytest.fixture(scope="session")
def session(tmp_path_factory):
    """The tiny model, opened once."""
    return InpaintingSession(write_model(tmp_path_factory.mktemp("model") / "tiny model.onnx"))


@pytest.fixture(scope="session")
def server(session):
    server = Server(session, max_pixels=1_000_000, max_bytes=1_000_000)
    yield server
    server.close()


@pytest.fixture
def serve(session):
    """Starts a server with settings of the test's own, and ends it after the test."""
    servers = []

    def start(sessions=session, **settings) -> Server:
        servers.append(Server(sessions, **settings))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


@pytest.fixture(scope="session")
def chromium():
    try:
        from playwright.sync_api import expect, sync_playwright
    except ModuleNotFoundError:
        pytest.fail("these tests need the Python package playwright: pip install '.[examples]'")
    expect.set_options(timeout=20_000)  # milliseconds; enough for a machine with other work
    path = find_chromium()
    if path is None:
        pytest.fail("these tests need Chromium; on Debian and Ubuntu: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, server):
    """Opens the page; at the end everything that was opened is checked."""
    screens = []

    def open_page(url: str = server.url, **options) -> Screen:
        screens.append(Screen(chromium, url, **options))
        return screens[-1]

    yield open_page
    try:
        for screen in screens:
            screen.check()
    finally:
        for screen in screens:
            screen.context.close()


@pytest.fixture
def visit_both_models(visit, server):
    """Opens the page of a server that offers the models of the package."""

    def answer(route):
        known = route.fetch().json()
        known["models"] = [known | {"model": name} for name in ("photo", "faces")]
        route.fulfill(json=known)

    def open_page(**options) -> Screen:
        screen = visit("about:blank", **options)
        screen.url = server.url
        screen.page.route("**/v1/model", answer)
        screen.page.goto(server.url)
        screen.expect("#choice").to_be_visible()
        return screen

    return open_page
