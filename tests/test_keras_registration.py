"""`keras.models.load_model` knows the generators after `import musical_tf`, in either order."""

import subprocess
import sys

import pytest

from musical_tf import named_models

FILE = str(named_models.file("faces"))


def run(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("imports", ["import keras, musical_tf", "import musical_tf, keras"])
def test_keras_loads_a_generator(imports):
    done = run(f"{imports}\nprint(keras.models.load_model({FILE!r}).method)")
    assert done.stdout.split()[-1:] == ["musical"], done.stderr


def test_the_package_alone_imports_no_keras():
    assert run("import sys, musical_tf; assert 'keras' not in sys.modules").returncode == 0


def test_the_hint_without_keras():
    done = run(
        "import sys, musical_tf\nsys.modules['keras'] = None\n"
        "try:\n    musical_tf.load('faces')\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    assert 'pip install "musical-tf[train]"' in done.stdout, done.stderr
