"""Every command line ends on Ctrl-C, or without a package, with one line while it imports."""

import contextlib
import os

import pytest

from export import ship, to_onnx, to_saved_model
from serving import predict, predict_many
from serving.server import command_line
from tests.processes import run_python
from training import compare, demo, evaluate, fit_jax, options

INTERRUPTING = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.parametrize(
    "command",
    [
        *(["-m", f"training.{name}"] for name in ("fit", "fit_jax", "evaluate", "compare", "demo")),
        *(["-m", f"serving.{name}"] for name in ("predict_many", "server")),
        ["-m", "serving.predict", "a.png", "b.png", "c.png"],
        *(["-m", "export.ship"], ["export/to_onnx.py"], ["export/to_saved_model.py"]),
        ["-c", "from training import console_scripts; console_scripts.fit()"],
    ],
    ids=lambda command: command[-1],
)
def test_ctrl_c_during_an_import_is_one_line(command, tmp_path):
    (tmp_path / "numpy.py").write_text(INTERRUPTING)
    done = run_python(*command, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "training.fit", "--dataset", "demo"],
        ["-m", "serving.predict", "a.png", "b.png", "c.png"],
        ["export/to_onnx.py", "--run", "nowhere", "--output", "out"],
    ],
    ids=lambda command: command[1],
)
def test_without_the_environment_the_missing_package_is_one_line(command):
    done = run_python("-S", *command)  # no site-packages, like a Python outside .venv
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the Python package ")
    assert "activate" in line


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "training.evaluate", "--run", "nowhere", "--output", "out"],
        ["-m", "training.fit", "--dataset", "demo", "--dry-run"],
        ["export/to_onnx.py", "--run", "nowhere", "--output", "out"],
    ],
    ids=lambda command: command[1],
)
def test_tensorflow_is_imported_without_its_messages(command, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nprint(os.environ['TF_CPP_MIN_LOG_LEVEL'], flush=True)\nos._exit(0)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    done = run_python(*command, env=environment | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "3\n")


PARSERS = {
    "predict": predict._parser,
    "predict_many": predict_many._parser,
    "server": command_line._parser,
    "fit": options.make_parser,
    "fit_jax": fit_jax._parser,
    "evaluate": evaluate.build_parser,
    "compare": compare.build_parser,
    "demo": demo.parser,
    "to_onnx": to_onnx._parser,
    "to_saved_model": to_saved_model._parser,
    "ship": ship._parser,
}


@pytest.mark.parametrize("name", PARSERS)
def test_an_unset_variable_is_no_path(name, capsys):
    """Every command line refuses it; `Path("")` would be the working directory."""
    for words in (["--output", ""], ["--output="], ["--image", "a.png", "--output", " "]):
        with pytest.raises(SystemExit) as exit_info:
            PARSERS[name]().parse_args(words)
        assert exit_info.value.code == 2
        assert "--output must have a value, got '" in capsys.readouterr().err


def test_a_list_that_cannot_be_written_is_one_line(capsys, monkeypatch):
    with monkeypatch.context() as patch, open("/dev/full", "w", buffering=1) as full:
        patch.setattr("sys.stdout", full)
        assert predict.main(["--list-models"]) == 2
        with contextlib.suppress(OSError):  # what is still to be written
            full.close()
    assert capsys.readouterr().err.count("\n") == 1
