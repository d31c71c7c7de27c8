"""What is installed, by which name, and whether the documents speak of things that exist."""

import configparser
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import musical_tf
from tests.processes import ROOT, run_python, succeed

PACKAGE_FOLDERS = {
    "musical_tf": "musical_tf",
    "musical_tf.training": "training",
    "musical_tf.export": "export",
    "musical_tf.serving": "serving",
}
MACHINES = {
    "Linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux Arm": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS Arm": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
}


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(value: str) -> list[str]:
    stripped = (line.strip() for line in value.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def checkout_name(module: str) -> str:
    """`musical_tf.training.fit`, as installed, is `training.fit` in a checkout."""
    return re.sub(r"^musical_tf\.(?=(training|export|serving)\b)", "", module)


def console_scripts() -> dict[str, str]:
    entries = lines(setup_cfg()["options.entry_points"]["console_scripts"])
    return dict(re.split(r"\s*=\s*", entry, maxsplit=1) for entry in entries)


def exit_code(main, arguments: list[str]) -> int:
    """A command line's exit code, whether it returns it or argparse leaves by SystemExit."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


def requirements(extra: str, machine: dict[str, str]) -> dict[str, Requirement]:
    """Everything an extra asks for on a machine, the project's own extras followed."""
    extras = setup_cfg()["options.extras_require"]
    found = {}
    for line in lines(extras[extra]):
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate(machine):
            continue
        if requirement.name == "musical-tf":
            for other in requirement.extras:
                found |= requirements(other, machine)
        else:
            found[requirement.name] = requirement
    return found


@pytest.fixture(scope="module")
def check_environment():
    path = ROOT / ".ci" / "check_environment.py"
    spec = importlib.util.spec_from_file_location("check_environment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what the wheels are made of."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "MODEL_CARD.md"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for folder in (*PACKAGE_FOLDERS.values(), "weights"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    return source


def build(source: Path, target: Path) -> Path:
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    succeed(sys.executable, "-c", code, target, cwd=source)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """The project's wheel."""
    return build(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder where the project's wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run_installed(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    return run_python(*words, cwd=cwd, env=os.environ | {"PYTHONPATH": str(installed)})


# ---- one place for everything


def test_version_is_written_once():
    attribute = setup_cfg()["metadata"]["version"].removeprefix("attr:").strip()
    module, _, name = attribute.rpartition(".")
    assert getattr(importlib.import_module(module), name) == musical_tf.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", musical_tf.__version__)
    literal = re.compile(rf"[\"']{re.escape(musical_tf.__version__)}[\"']")
    holders = [
        str(path.relative_to(ROOT))
        for folder in PACKAGE_FOLDERS.values()
        for path in (ROOT / folder).rglob("*.py")
        if literal.search(path.read_text("utf-8"))
    ]
    assert holders == [str(Path("musical_tf/version.py"))]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert headings[0] in ("Unreleased", musical_tf.__version__)


def package_files() -> dict[str, Path]:
    """Name in a wheel -> file of the checkout, of all but caches."""
    return {
        f"{name.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}": path
        for name, folder in PACKAGE_FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# ---- the wheels


def test_two_wheels_hold_the_project_under_one_name(source, wheel, tmp_path):
    """And every file of the checkout: none is undeclared."""
    serving = zipfile.ZipFile(wheel)
    weights = zipfile.ZipFile(build(source / "weights", tmp_path))
    files = package_files()
    heavy = {name for name, path in files.items() if path.suffix in (".keras", ".npz")}
    for archive, project, expected in (
        (serving, "musical_tf", files.keys() - heavy),
        (weights, "musical_tf_weights", heavy),
    ):
        information = f"{project}-{musical_tf.__version__}.dist-info"
        names = {name for name in archive.namelist() if not name.startswith(information + "/")}
        assert names == expected
    metadata = weights.read(f"{information}/METADATA").decode()
    assert f"Requires-Dist: musical-tf=={musical_tf.__version__}" in metadata
    licences = {Path(name).name for name in serving.namelist() if ".dist-info/" in name}
    assert {"LICENSE", "NOTICE", "MODEL_CARD.md"} <= licences
    assert wheel.stat().st_size <= 25e6


def test_installed_serving_runs_without_tensorflow(installed, tmp_path):
    done = run_installed(
        installed,
        "-c",
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'onnx', 'tf2onnx'): sys.modules[name] = None\n"
        "import musical_tf, numpy; print(musical_tf.__file__, musical_tf.list_models())\n"
        "image, mask = numpy.full((40, 40, 3), 90, 'uint8'), numpy.eye(40, dtype=bool)\n"
        "print(musical_tf.inpaint(image, mask).shape)\n"
        "from musical_tf.serving import predict, predict_many\n"
        "from musical_tf.serving.server.command_line import main as server\n"
        "for main in (predict.main, predict_many.main, server):\n"
        "    try: main(['--help'])\n"
        "    except SystemExit as end: print(end.code)\n",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{installed / 'musical_tf' / '__init__.py'} ['faces', 'photo']")
    assert "(40, 40, 3)" in done.stdout
    assert done.stdout.count("--model") >= 3


def test_installed_serving_starts_its_worker_processes(installed, tmp_path):
    """Which import the same package as the server, and import its main module not once more."""
    (tmp_path / "program.py").write_text(
        "from musical_tf.serving.server import worker\n"
        "from musical_tf.serving.server.jobs import Job\n"
        "from musical_tf.serving.server.worker_pool import WorkerPool\n"
        "print('main')\n"
        "pool = WorkerPool(2, 10)\n"
        "pool.start()\n"
        "pool.wait_until_ready()\n"
        "print(pool.run(Job(None), worker.command, 'x')[-1])\n"
        "pool.close()\n"
    )
    done = run_installed(installed, "program.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "main"
    assert len(done.stdout.splitlines()) == 2


# ---- one TensorFlow, one ONNX Runtime


def test_this_environment_has_one_of_each(check_environment):
    found = check_environment.owners()
    assert check_environment.problems(found, ["tensorflow", "keras", "onnxruntime"]) == []


def test_two_of_one_kind_are_found(check_environment):
    found = {"tensorflow": ["tensorflow 2.21.0", "tensorflow-cpu 2.21.0"], "onnxruntime": []}
    twice, absent = check_environment.problems(found, ["onnxruntime"])
    assert "tensorflow 2.21.0 and tensorflow-cpu 2.21.0" in twice
    assert "`onnxruntime` is not installed" in absent


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("extra", ["all", "all-gpu"])
def test_extras_choose_one_of_each_and_the_server(extra, machine):
    found = requirements(extra, machine)
    assert len(found.keys() & {"tensorflow", "tensorflow-cpu"}) == 1
    assert len(found.keys() & {"onnxruntime", "onnxruntime-gpu"}) == 1
    server = requirements("server", machine).keys()  # which is combined with either of them
    assert not server & {"onnxruntime", "onnxruntime-gpu"}
    assert server <= found.keys()


def test_linux_gets_the_processor_builds_or_those_of_cuda_12():
    linux = MACHINES["Linux x86-64"]
    assert {"tensorflow-cpu", "onnxruntime"} <= requirements("all", linux).keys()
    found = requirements("all-gpu", linux)
    assert found["tensorflow"].extras == {"and-cuda"}
    assert found["onnxruntime-gpu"].specifier.contains("1.26.0")
    assert not found["onnxruntime-gpu"].specifier.contains("1.27.0")


@pytest.mark.parametrize("extra", ["serve", "serve-gpu", "server", "batch"])
def test_serving_asks_for_no_tensorflow(extra):
    base = {Requirement(line).name for line in lines(setup_cfg()["options"]["install_requires"])}
    found = requirements(extra, MACHINES["Linux x86-64"]).keys() | base
    assert not [name for name in found if name.startswith(("tensor", "keras", "tf2onnx"))]


# ---- command lines


@pytest.mark.parametrize("script", console_scripts())
def test_console_script_starts_its_command_line(script, monkeypatch, capsys):
    module, _, function = console_scripts()[script].partition(":")
    start = getattr(importlib.import_module(checkout_name(module)), function)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    assert exit_code(lambda _: start(), []) == 0
    assert capsys.readouterr().out.startswith(f"usage: {script} ")


@pytest.mark.parametrize(
    ("script", "absent", "extra"),
    [
        ("musical-fit", "tensorflow", "train"),
        ("musical-export", "tensorflow", "train,export,serve"),
        ("musical-inpaint", "onnxruntime", "serve"),
        ("musical-inpaint-many", "ray", "batch,serve"),
        ("musical-serve", "fastapi", "server,serve"),
        ("musical-serve", "onnxruntime", "server,serve"),
    ],
)
def test_console_script_names_the_extra_that_is_missing(installed, tmp_path, script, absent, extra):
    (tmp_path / "photo.png").write_bytes(b"not read before it is clear that all is there")
    arguments = {
        "musical-fit": ["--dataset", "demo", "--dry-run"],
        "musical-export": ["--run", str(tmp_path), "--output", str(tmp_path / "model.onnx")],
        "musical-inpaint": [str(tmp_path / "photo.png"), "alpha", str(tmp_path / "out.png")],
        "musical-inpaint-many": [
            *("--image", str(tmp_path), "--mask", "alpha", "--output", str(tmp_path / "out")),
        ],
        "musical-serve": [],
    }[script]
    module, _, function = console_scripts()[script].partition(":")
    code = (
        f"import sys; sys.modules[{absent!r}] = None; sys.argv = {[script, *arguments]}\n"
        f"from {module} import {function}; sys.exit({function}())"
    )
    done = run_installed(installed, "-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"{script}: error: the Python package {absent} is not installed; "
        f"pip install 'musical-tf[{extra}]' brings what this command needs\n"
    )
