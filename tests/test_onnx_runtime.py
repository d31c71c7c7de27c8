"""ONNX Runtime is imported with its telemetry disabled."""

import os

import pytest

from tests.processes import ROOT, run_python

WATCH = """
import importlib.abc, os, sys
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print("telemetry disabled:", os.environ.get("ORT_DISABLE_TELEMETRY"))
            sys.exit()
sys.meta_path.insert(0, Watch())
"""


def value_at_import(statement, arguments=(), **environment):
    """What the variable was when a fresh process imported ONNX Runtime."""
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = run_python("-c", WATCH + statement, *arguments, env=clean | environment)
    assert done.stdout.startswith("telemetry disabled: "), done.stderr
    return done.stdout.removeprefix("telemetry disabled: ").strip()


@pytest.mark.parametrize(
    "statement",
    [
        "from musical_tf import onnx_runtime; onnx_runtime.load()",
        "import serving.session",
        "from serving import server; server.main(['--port', '0'])",
        "from serving import predict; "
        "predict.main(['examples/photo.png', 'examples/mask.png', 'c.png'])",
        "from export import parity; parity.onnx_runtime(b'')",
        "from training.evaluation.predictors import OnnxPredictor; OnnxPredictor('README.md')",
    ],
)  # fmt: skip
def test_the_variable_is_set_before_the_import(statement):
    assert value_at_import(statement) == "1"


def test_the_python_example_sets_the_variable_before_the_import():
    run = "import runpy; runpy.run_path('examples/python/inpaint.py')"
    assert value_at_import(run, ["a", "b", "c", "d"]) == "1"


@pytest.mark.parametrize(
    ("example", "start"),
    [("node/inpaint.mjs", 'import("onnxruntime-node")'), ("cpp/inpaint.cpp", "Ort::Env env(")],
)
def test_the_other_examples_set_the_variable_before_the_start(example, start):
    before = (ROOT / "examples" / example).read_text().split(start)[0]
    assert "ORT_DISABLE_TELEMETRY" in before
    assert 'from "onnxruntime-node"' not in before
    if example.endswith(".cpp"):
        assert before.split("int main(")[1].endswith("disable_telemetry();\n    ")


@pytest.mark.parametrize(("given", "found"), [("0", "0"), ("", "1")])
def test_a_value_of_the_users_own_is_kept(given, found):
    load = "from musical_tf import onnx_runtime; onnx_runtime.load()"
    assert value_at_import(load, ORT_DISABLE_TELEMETRY=given) == found
