"""Who may import whom: the rules that keep data flowing one way, held on the source itself.

`violations` reads every import of a tree, wherever it stands, and compares it with the rules. The
second half of this file plants each violation in a tree of its own, so that no rule is a dead one.
"""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.processes import ROOT

FOLDERS = ("training", "export", "serving")
"""Top-level in a checkout, inside `musical_tf` when installed; so never imported by these names."""

NOT_OURS = ("build", "dist", "runs", "node_modules")

MAY_IMPORT_TENSORFLOW = (
    "musical_tf/layers/attention_reference.py",
    "musical_tf/losses/gradient.py",
)
"""The literal reading of the paper, `tf.image.extract_patches`, and gradients, which Keras does not
have; only when they are called."""

SERVING_MAY_IMPORT = {"numpy", "PIL", "scipy"}
"""Beside the standard library and its own modules: what `pip install .[serve]` installs."""

IMAGE_MODULES = ("musical_tf.images.depth", "musical_tf.images.opening")
IMAGE_DECODERS = {"pillow_heif"}
"""Imported in a function, where their extra is installed."""

KERAS_FREE = (
    "musical_tf.arguments",
    "musical_tf.command_line",
    "musical_tf.contract",
    "musical_tf.files",
    "musical_tf.image_formats",
    "musical_tf.images",
    "musical_tf.named_models",
    "musical_tf.onnx_runtime",
    "musical_tf.version",
)
"""Modules of the library that import no Keras, so that `serving` may import them."""

SERVER_FOLDER = "serving/server/"
STARTS_WORKERS = tuple(
    f"{SERVER_FOLDER}{name}.py"
    for name in (
        "allocator",
        "inpaint_request",
        "jobs",
        "request_terms",
        "selecting",
        "settings",
        "worker",
        "worker_pool",
    )
)
"""Modules of the server that import none of its packages: worker processes start through them."""

SERVER_MAY_IMPORT = SERVING_MAY_IMPORT | {
    *("fastapi", "starlette", "pydantic", "python_multipart", "uvicorn", "prometheus_client"),
}
"""What `pip install .[server,serve]` adds, for these modules and no other."""

SELECTING_MODULE = "serving/server/selecting.py"
"""The one module that `pip install .[select]` adds OpenCV for, and only in its functions."""

ARGUMENTS_MODULE, ARGUMENTS_MAY_IMPORT = "musical_tf/arguments.py", ("argparse", "argcomplete")
"""The parser that the command lines of `training`, `export` and `serving` share."""

ONNX_RUNTIME_MODULE = "musical_tf/onnx_runtime.py"
"""The one module that imports ONNX Runtime, after it has disabled the telemetry."""

BATCH_MODULE = "serving/predict_many.py"
"""The one module that `pip install .[batch,serve]` adds Ray for, and only in its functions."""


class Import(NamedTuple):
    """One imported name: its absolute dotted name, where it stands, and whether in a function."""

    name: str
    line: int
    lazy: bool
    relative: bool

    def within(self, *packages: str) -> bool:
        return any(
            self.name == package or self.name.startswith(package + ".") for package in packages
        )


def imports(path: Path, root: Path) -> Iterator[Import]:
    """Every name that a file imports, relative ones resolved, `importlib` with a literal too."""
    package = path.relative_to(root).parent.parts

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, lazy, False)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{prefix}.{alias.name}" if prefix else alias.name
                yield Import(name, node.lineno, lazy, node.level > 0)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            argument = node.args[0] if node.args else None
            if (
                called in ("import_module", "__import__")
                and isinstance(argument, ast.Constant)
                and isinstance(argument.value, str)
            ):
                yield Import(argument.value, node.lineno, lazy, False)
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inner)

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), False)


def why_forbidden(file: str, found: Import, siblings: set[str]) -> str | None:
    """The rule that an import breaks, or None.

    Args:
        file: Path of the importing file from the root, with slashes.
        found: The import.
        siblings: Names of the modules in the same folder.
    """
    parts = file.split("/")
    top = parts[0]
    if found.within("tensorflow_addons"):
        return "tensorflow-addons is at its end of life and fails on import"
    if found.within("tests") and top in ("musical_tf", *FOLDERS):
        return "the product never imports its tests"
    if top in ("musical_tf", *FOLDERS) and not found.relative and found.within(*FOLDERS):
        return "installed, these folders lie inside musical_tf: import siblings relatively"
    if top in FOLDERS and found.relative and not found.within(top):
        return "a relative import that leaves its folder works only where it is installed"
    if found.within("onnxruntime") and top != "examples" and file != ONNX_RUNTIME_MODULE:
        return "ONNX Runtime is imported by musical_tf.onnx_runtime.load, without its telemetry"
    if file == ONNX_RUNTIME_MODULE or (
        file == ARGUMENTS_MODULE and found.within("argparse", "argcomplete")
    ):
        return None
    if top == "musical_tf":
        if found.within(*(f"musical_tf.{folder}" for folder in FOLDERS)):
            return "the library does not know who uses it"
        if found.within("argparse", "onnx", "onnxruntime", "tf2onnx"):
            return "the library has no command line and no onnx"
        if found.within("tensorflow") and not (file in MAY_IMPORT_TENSORFLOW and found.lazy):
            return f"only {' and '.join(MAY_IMPORT_TENSORFLOW)} import tensorflow, in a function"
        if (
            file in ("musical_tf/__init__.py", "musical_tf/version.py")
            and not found.lazy
            and not found.within("musical_tf.version", "musical_tf.keras_registration")
            and found.name.split(".")[0] not in sys.stdlib_module_names
        ):
            return "musical_tf.serving starts through this file and must not load keras"
        module = file.removesuffix(".py").replace("/", ".")
        if any(module == free or module.startswith(free + ".") for free in KERAS_FREE):
            name = found.name.split(".")[0]
            ours = found.within(*KERAS_FREE)
            decoder = found.lazy and name in IMAGE_DECODERS and module in IMAGE_MODULES
            allowed = SERVING_MAY_IMPORT | sys.stdlib_module_names
            if not ours and not decoder and name not in allowed:
                return "serving starts through this module: NumPy and Pillow only"
        if parts[1] == "layers" and found.within(
            "musical_tf.losses", "musical_tf.methods", "musical_tf.discriminators"
        ):
            return "layers are below losses, discriminators and methods"
        if parts[1] == "losses" and found.within("musical_tf.methods"):
            return "losses are below methods"
        if parts[1] == "methods" and file != "musical_tf/methods/__init__.py":
            others = siblings - {"__init__", "base", Path(file).stem}
            if found.within(*(f"musical_tf.methods.{other}" for other in others)):
                return "methods never import each other"
    if top == "serving" and not found.within("serving", *KERAS_FREE):
        name = found.name.split(".")[0]
        is_server = file.startswith(SERVER_FOLDER) and file not in STARTS_WORKERS
        allowed = SERVER_MAY_IMPORT if is_server else SERVING_MAY_IMPORT
        if found.lazy:
            allowed = allowed | {BATCH_MODULE: {"ray"}, SELECTING_MODULE: {"cv2"}}.get(file, set())
        if name not in allowed | sys.stdlib_module_names:
            return f"serving imports {', '.join(sorted(allowed))} and nothing else"
    if top == "serving" and not file.startswith(SERVER_FOLDER) and found.within("serving.server"):
        return "serving starts without the server's packages"
    return None


def violations(root: Path) -> list[str]:
    """Every import below `root` that breaks a rule, as `file:line: name: rule`."""
    messages = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if any(part.startswith(".") or part in NOT_OURS for part in relative.parts):
            continue
        siblings = {other.stem for other in path.parent.glob("*.py")} - {path.stem}
        for found in imports(path, root):
            reason = why_forbidden(relative.as_posix(), found, siblings)
            if reason:
                messages.append(f"{relative.as_posix()}:{found.line}: {found.name}: {reason}")
    return messages


def test_the_tree_keeps_the_rules():
    assert violations(ROOT) == []


def test_the_walk_reaches_every_part():
    """An empty walk would pass everything."""
    seen = {
        found.name.split(".")[0]
        for folder in ("musical_tf", *FOLDERS)
        for path in (ROOT / folder).rglob("*.py")
        for found in imports(path, ROOT)
    }
    assert {"keras", "tensorflow", "onnxruntime", "numpy", "PIL", "musical_tf"} <= seen
    assert all((ROOT / file).is_file() for file in MAY_IMPORT_TENSORFLOW)


def import_graph(root: Path) -> dict[str, set[str]]:
    """Each module of the product -> the modules that it imports, in functions and for types too.

    A module names its own packages freely.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in ("musical_tf", *FOLDERS)
        for path in (root / folder).rglob("*.py")
    }
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        names = {found.name for found in imports(path, root)}
        known = {
            next((n for n in (name, name.rpartition(".")[0]) if n in files), "") for name in names
        }
        graph[module] = {name for name in known - {""} if not f"{module}.".startswith(f"{name}.")}
    return graph


def test_no_modules_import_each_other_in_a_circle(tmp_path):
    graphlib.TopologicalSorter(import_graph(ROOT)).prepare()
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "a.py").write_text("from .b import f")
    (tmp_path / "serving" / "b.py").write_text("def f():\n    from . import a")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(tmp_path)).prepare()


SCRIPT_IMPORT = re.compile(r'\b(?:import|from)\b[\s(]*"\./([^"]+)"')


def script_graph(folder: Path) -> dict[str, set[str]]:
    """Maps each JavaScript module of a folder to the ones that it imports or re-exports."""
    scripts = {path.name: path.read_text("utf-8") for path in folder.glob("*.js")}
    return {name: set(SCRIPT_IMPORT.findall(text)) for name, text in scripts.items()}


def test_no_scripts_of_the_page_import_each_other_in_a_circle():
    graph = script_graph(ROOT / "serving" / "page")
    assert set.union(*graph.values()) == graph.keys() - {"app.js"}  # the walk reaches every script
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    "source", ['import "./a.js";', 'export {\n  f,\n} from "./a.js";', 'await import("./a.js");']
)
def test_a_circle_of_scripts_is_found(tmp_path, source):
    (tmp_path / "a.js").write_text('import { f } from "./b.js";')
    (tmp_path / "b.js").write_text(source)
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(script_graph(tmp_path)).prepare()


@pytest.fixture
def tree(tmp_path):
    """A small tree that keeps the rules, every exception among them used."""
    for file, source in {
        "musical_tf/__init__.py": "from musical_tf.version import __version__",
        "musical_tf/version.py": "",
        "musical_tf/layers/__init__.py": "from musical_tf.layers import attention_reference",
        "musical_tf/layers/attention_reference.py": "def f():\n    import tensorflow as tf",
        "musical_tf/losses/__init__.py": "from ..layers import attention_reference",
        "musical_tf/methods/__init__.py": "import pkgutil, keras",
        "musical_tf/methods/musical.py": "from musical_tf.layers import X\nimport keras",
        "musical_tf/methods/csa.py": "from musical_tf.losses import Y",
        "training/__init__.py": "",
        "training/fit.py": "import tensorflow\nfrom . import trainer\nimport musical_tf",
        "training/trainer.py": "from musical_tf.methods import musical",
        "export/__init__.py": "",
        "export/convert.py": "import onnx, tf2onnx\nfrom musical_tf import load",
        "export/to_onnx.py": "from . import convert",
        "serving/__init__.py": "",
        "musical_tf/arguments.py": "import argparse",
        "musical_tf/onnx_runtime.py": "def load():\n    import onnxruntime",
        "serving/session.py": "import numpy, json\nfrom PIL import Image\n"
        "from musical_tf import onnx_runtime",
        "examples/python/inpaint.py": "import onnxruntime",
        "serving/predict.py": "from .session import S\nfrom . import session",
        "serving/server/app.py": "import fastapi, prometheus_client\nfrom ..session import S",
        "serving/server/__init__.py": "def f():\n    from .app import create_app",
        "serving/predict_many.py": "def f():\n    import ray.data",
        "build/lib/old.py": "import tensorflow_addons",
        ".venv/lib/some.py": "import tensorflow_addons",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source + "\n")
    return tmp_path


def test_a_tree_that_keeps_the_rules_passes(tree):
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("musical_tf/layers/a.py", "from serving.session import S", "import siblings relatively"),
        ("training/a.py", "from training.trainer import T", "import siblings relatively"),
        ("musical_tf/layers/a.py", "from ..export import to_onnx", "does not know who uses it"),
        ("musical_tf/a.py", "from musical_tf.serving import s", "does not know who uses it"),
        ("serving/session.py", "import onnxruntime", "without its telemetry"),
        ("tests/a.py", "def f():\n    from onnxruntime import q", "without its telemetry"),
        ("musical_tf/a.py", "def f():\n    import argparse", "no command line and no onnx"),
        ("musical_tf/a.py", "def f():\n    from tensorflow import image", "in a function"),
        ("musical_tf/layers/attention_reference.py", "import tensorflow", "in a function"),
        ("musical_tf/a.py", "import importlib\nimportlib.import_module('tensorflow')", "in a func"),
        ("musical_tf/__init__.py", "import keras", "must not load keras"),
        ("musical_tf/arguments.py", "import keras", "NumPy and Pillow only"),
        ("musical_tf/layers/a.py", "from ..methods import musical", "layers are below"),
        ("musical_tf/losses/a.py", "from ..methods import musical", "losses are below methods"),
        ("musical_tf/methods/csa.py", "from .musical import Config", "never import each other"),
        ("training/a.py", "from tests import b", "never imports its tests"),
        ("serving/a.py", "def f():\n    import keras", "and nothing else"),
        ("serving/a.py", "from musical_tf import losses", "and nothing else"),
        ("serving/a.py", "class A:\n    import fastapi", "and nothing else"),
        ("serving/predict_many.py", "import ray", "and nothing else"),
        ("serving/server/selecting.py", "import cv2", "and nothing else"),
        ("serving/server/app.py", "import requests", "and nothing else"),
        ("serving/server/worker.py", "import fastapi", "and nothing else"),
        ("serving/predict.py", "from . import server", "without the server's packages"),
        ("training/a.py", "from ..serving import session", "leaves its folder"),
        ("benchmarks/a.py", "import tensorflow_addons as tfa", "end of life"),
    ],
)
def test_a_planted_violation_is_found(tree, file, source, rule):
    (tree / file).parent.mkdir(exist_ok=True)
    (tree / file).write_text(source + "\n")
    messages = violations(tree)
    assert len(messages) == 1, messages
    assert messages[0].startswith(f"{file}:{len(source.splitlines())}:")
    assert rule in messages[0]
