"""The documents: their commands and code work, their links lead somewhere, the site builds."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml
from nbclient import NotebookClient
from PIL import Image

import musical_tf
from serving import named_models, predict
from tests import test_packaging as packaging
from tests.processes import ROOT, succeed

ADDRESS = packaging.setup_cfg()["metadata"]["url"]
DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "MODEL_CARD.md", "CHANGELOG.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
REPOSITORY = re.compile(
    rf"(?:{ADDRESS}/(?:blob|tree)|{ADDRESS.replace('github', 'raw.githubusercontent')})/main/"
)
"""Absolute links to the project's own files: the README is shown on package indexes too."""


def documented_commands() -> list[tuple[str, str]]:
    """Every line of a code block, and every `code` span, that starts like a command of ours."""
    found = {}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
        blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.M | re.S)
        prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        candidates = [line for block in blocks for line in block.splitlines()]
        candidates += re.findall(r"`([^`\n]+)`", prose)
        for line in candidates:
            command = re.sub(r"\s+#.*", "", line).strip().removeprefix(".venv/bin/")
            if re.match(r"(python |musical-(?!tf)\w+( |$)|make( |$)|pip install )", command):
                found.setdefault(command, name)
    return [(name, command) for command, name in found.items()]


@pytest.mark.parametrize(
    ("document", "command"), [pytest.param(*pair, id=pair[1]) for pair in documented_commands()]
)
def test_documented_command_exists(document, command, capsys):
    program, *arguments = shlex.split(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        for argument in arguments:
            name, is_variable, _ = argument.partition("=")
            pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
            assert re.search(pattern, makefile, re.M), argument
        return
    if program == "pip" and "-r" in arguments:
        assert (ROOT / arguments[-1]).is_file()
        return
    if program == "pip":
        extras = re.findall(r"\[(.+?)\]", command)[0].split(",")
        assert not set(extras) - set(packaging.setup_cfg()["options.extras_require"])
        return
    if program == "python" and arguments[0] == "-m":
        module, arguments = arguments[1], arguments[2:]
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
        if arguments[0].startswith("examples/"):
            return  # what they import is installed with them, see `make test-examples`
        module, arguments = arguments[0].removesuffix(".py").replace("/", "."), arguments[1:]
    else:
        assert program in packaging.console_scripts()
        return
    if module in ("pytest", ".ci.check_environment"):
        return
    main = importlib.import_module(module).main
    packaging.exit_code(main, ["--help"])
    help_text = capsys.readouterr().out
    for flag in (argument for argument in arguments if argument.startswith("--")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_text), f"{document}: {flag}"
    # Values are checked on the way to --help: a wrong choice or type ends with exit code 2 there.
    assert packaging.exit_code(main, [*arguments, "--help"]) == 0, capsys.readouterr().err


def python_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text("utf-8"), re.M | re.S)


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), "uint8")
    mask = np.zeros((48, 64), "uint8")
    mask[10:20, 20:40] = 255
    Image.fromarray(image).save("in.jpg")
    Image.fromarray(mask).save("mask.png")
    Path("model.onnx").symlink_to(named_models.find("photo"))
    names = {}
    for block in python_blocks("README.md"):
        exec(block, names)
    known = mask == 0
    filled = np.asarray(Image.open("out.png"))
    np.testing.assert_array_equal(filled[known], names["image"][known])
    np.testing.assert_array_equal(names["filled"][0][known], names["image"][known])
    assert (filled[~known] != names["image"][~known]).any()


def test_python_of_the_methods_runs():
    rng = np.random.default_rng(0)
    hole = np.zeros((1, 32, 32, 1), "float32")
    hole[:, 8:24, 8:24] = 1
    image = rng.uniform(-1, 1, (1, 32, 32, 3)).astype("float32")
    names = {"features": rng.normal(size=(1, 32, 32, 4)).astype("float32")}
    names |= {"hole": hole, "image": image}
    network, attention = python_blocks("docs/methods.md")
    exec(network.replace('"paper"', '"lite"', 1), names)
    known = hole[..., 0] == 0
    np.testing.assert_array_equal(np.asarray(names["result"])[known], image[known])
    exec(attention, names)
    assert names["features"].shape == (1, 32, 32, 4)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text("utf-8")
    folder = (ROOT / name).parent
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        own = REPOSITORY.sub("", target)
        base = folder if own == target else ROOT
        path = own.partition("#")[0]
        if path and not re.match(r"https?:", own) and not (base / path).exists():
            missing.append(target)
    assert missing == []


def test_readme_fits_and_renders_on_a_package_index_and_ci_runs_its_command():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    assert re.findall(r"\]\((?!https://|#)", text) == []
    commands = {command for _, command in documented_commands()}
    assert {"make demo", "make test", "make install"} <= commands
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert re.search(r"^exec make test$", run.read_text("utf-8"), re.M)


# ---- the site


def test_the_site_builds_and_asks_no_other_host(tmp_path):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    words = ("-m", "mkdocs", "build", "--quiet", "--strict", "-d", tmp_path)
    succeed(sys.executable, *words, cwd=ROOT, env=environment)
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "model_card.html", "layers.html", "fill.html"} <= {p.name for p in pages}
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*?\bsrc=[\"']?([^\"'> ]+)", text)
        loaded += re.findall(r"<link\b(?![^>]*canonical)[^>]*?\bhref=[\"']?([^\"'> ]+)", text)
        assert not [each for each in loaded if re.match(r"(https?:)?//", each)], page


@pytest.mark.parametrize(
    "name", ["fill", pytest.param("attention", marks=pytest.mark.slow)], ids=str
)
def test_notebook_runs(name, monkeypatch):
    """With the modules of this checkout, and with the outputs that do not depend on rounding."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", 4)
    kept = [cell.get("outputs") for cell in notebook.cells]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"musical_tf\.(serving|training)\b", r"\1", cell.source)
    # Of a start and of a cell's output they are 60 and 4 seconds: too short on a busy machine.
    limits = dict.fromkeys(("timeout", "startup_timeout", "iopub_timeout"), 600)
    NotebookClient(notebook, kernel_name="python3", **limits).execute()
    for cell, outputs in zip(notebook.cells, kept, strict=True):
        results = [each for each in cell.get("outputs", []) if each.output_type != "stream"]
        assert [each.data.keys() for each in results] == [
            each.data.keys() for each in outputs or [] if each.output_type != "stream"
        ]


# ---- the tutorials


@pytest.mark.parametrize(
    "name",
    ["erase", *(pytest.param(each, marks=pytest.mark.slow) for each in ("application", "train"))],
)
def test_tutorial_runs(name, tmp_path, monkeypatch):
    """In a folder with the checkout's packages, with two steps of training and no server."""
    for folder in ("examples", "export", "musical_tf", "serving", "training"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for file in ("photo.png", "mask.png"):
        (tmp_path / file).write_bytes((ROOT / "examples" / file).read_bytes())
    (tmp_path / "photos").mkdir()
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 256, (128, 128, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    text = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text("utf-8")
    commands = 0
    monkeypatch.chdir(tmp_path)
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        lines = [line for line in block.splitlines() if line.startswith("python ")]
        words = [shlex.split(line.replace("--epochs 20", "--steps 2"))[1:] for line in lines]
        for arguments in [["-c", block]] if language == "python" else words:
            if "serving.server" in arguments:
                continue
            commands += 1
            if arguments[:2] == ["-m", "serving.predict"]:  # needs no process of its own
                assert predict.main(arguments[2:]) == 0
                continue
            succeed(sys.executable, *arguments)
    assert commands >= 3
    filled, photo = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("filled", "photo"))
    hole = np.asarray(Image.open(tmp_path / "mask.png").convert("L")) > 127
    assert (filled[..., :3][hole] != photo[..., :3][hole]).any()


# ---- releases


def test_the_address_and_the_release_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert citation["repository-code"] == ADDRESS
    assert f"repository: {ADDRESS}\n" in site
    for line in packaging.lines(packaging.setup_cfg()["metadata"]["project_urls"]):
        url = line.partition(" = ")[2]
        assert url.startswith(ADDRESS) or f"site_url: {url}\n" in site
    assert citation["version"] == musical_tf.__version__
    released = re.findall(
        rf"^## \[{re.escape(musical_tf.__version__)}\] - (\S+)$",
        (ROOT / "CHANGELOG.md").read_text("utf-8"),
        re.M,
    )
    assert released == [citation["date-released"]]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    for work in (citation, citation["preferred-citation"]):
        assert all(author.keys() & {"name", "family-names"} for author in work["authors"])
