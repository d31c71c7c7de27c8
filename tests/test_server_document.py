"""docs/server.md: its examples work, and its tables say what the code says."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from benchmarks import measure
from serving.server import command_line, create_app
from serving.server.metrics import Metrics
from serving.session import InpaintingSession
from tests.processes import ROOT
from tests.test_server_process import running
from tests.waiting import wait_until

DOCUMENT = (ROOT / "docs" / "server.md").read_text("utf-8")


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """The files that the examples name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
    photo[15:35, 20:50, :3] = 200, 30, 30  # an object to select
    photo[..., 3] = 255
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(photo[..., :3]).save("photo.png")
    Image.fromarray(mask).save("mask.png")
    photo[..., 3] = 255 - mask
    Image.fromarray(photo).save("cutout.png")
    return tmp_path


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.M | re.S)


def table(heading):
    """Cells of the rows of the table under a heading, without its own heading row."""
    part = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return rows[1:]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_python_example_works(model, photographs):
    with running(model) as process:
        (example,) = blocks("python")
        done = {}
        exec(example.replace(":8080", f":{process.port}"), done)
    photo, filled = (np.asarray(Image.open(name)) for name in ("photo.png", "filled.png"))
    hole = np.asarray(Image.open("mask.png")) > 127
    np.testing.assert_array_equal(filled[~hole], photo[~hole])
    assert (filled[hole] != photo[hole]).any()
    assert set(json.loads(blocks("json")[0])) == set(done["answer"])


def test_the_curl_examples_work(model, photographs):
    commands = [shlex.split(line) for line in "".join(blocks("sh")).splitlines()]
    assert len(commands) == 4
    with TestClient(create_app(InpaintingSession(model))) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        for program, *arguments in commands:
            fields = [value.split("=") for flag, value in pairwise(arguments) if flag == "-F"]
            files = {name: Path(value[1:]).read_bytes() for name, value in fields if "@" in value}
            options = {name: value for name, value in fields if "@" not in value}
            (path,) = re.findall(r"http://127\.0\.0\.1:8080(\S+)", " ".join(arguments))
            response = client.post(path, files=files, data=options)
            assert response.status_code == 200, response.text
            suffix = response.headers["content-type"].removeprefix("image/")
            assert (program, arguments[-2]) == ("curl", "-o")
            assert Path(arguments[-1]).suffix == f".{suffix}"


def test_the_flags_are_those_of_the_command_line():
    actions = {
        action.option_strings[-1]: action.default
        for action in command_line._parser()._actions
        if action.dest != "help"
    }
    documented = {names(row[0])[0].split()[0]: row[1].strip("`") for row in table("Flags")}
    assert set(documented) == set(actions)
    for flag, default in documented.items():
        if default[:1].isdecimal():
            assert default == str(actions[flag]).removesuffix(".0")


def test_every_error_code_is_explained():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "serving" / "server").glob("*.py"))
    used = set(re.findall(r'(?:RequestError\(\s*\d{3},|unavailable\()\s*"(\w+)"', source))
    used |= set(re.findall(r'40\d: \("(\w+)"', source))
    used |= set(re.findall(r'status_code, \("(\w+)"', source))
    guard = (ROOT / "serving" / "server" / "guard.py").read_text("utf-8")
    used |= set(re.findall(r'return "(\w+_not_allowed)"', guard))
    used |= {f"invalid_{name}" for name in ("image", "mask", "filled", "photograph", "strokes")}
    used |= {"mask_size", "internal"}
    documented = [name for row in table("Errors") for name in names(row[1])]
    assert len(used) > 15
    assert sorted(documented) == sorted(used)


def test_the_metrics_are_those_there_are():
    documented = {name for row in table("Metrics") for name in names(row[0])}
    ours = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in Metrics().registry.collect()
        if metric.name.startswith("musical_")
    }
    assert {name for name in documented if name.startswith("musical_")} == ours


def test_no_good_request_failed_in_the_soak():
    measured = json.loads((measure.RESULTS / "soak.json").read_text())
    assert measured["good"]["failed"] == 0
