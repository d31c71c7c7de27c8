"""Every command line ends on Ctrl-C with one line, even while it imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INTERRUPTING = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


@pytest.mark.parametrize(
    "command",
    [
        *(["-m", f"training.{name}"] for name in ("fit", "fit_jax", "evaluate", "compare", "demo")),
        *(["-m", f"serving.{name}"] for name in ("predict", "predict_many", "server")),
        *(["-m", "export.ship"], ["export/to_onnx.py"], ["export/to_saved_model.py"]),
        ["-c", "from training import console_scripts; console_scripts.fit()"],
    ],
    ids=lambda command: command[-1],
)
def test_ctrl_c_during_an_import_is_one_line(command, tmp_path):
    (tmp_path / "numpy.py").write_text(INTERRUPTING)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")


def test_evaluate_says_what_is_wrong_without_the_messages_of_tensorflow(tmp_path):
    missing, output = tmp_path / "nowhere", tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "training.evaluate", "--run", str(missing), "--output", str(output)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("musical-evaluate: error: ")
    assert done.stderr.count("\n") == 1
