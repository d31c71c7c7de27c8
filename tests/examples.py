"""What the tests of the examples share: paths, and running what an example consists of."""

import importlib.util
import shutil
import socket
import venv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from .processes import ROOT, succeed

EXAMPLES = ROOT / "examples"
WEB = EXAMPLES / "web"
PHOTO, MASK = EXAMPLES / "photo.png", EXAMPLES / "mask.png"


def pixels(path: Path, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(path).convert(mode))


def import_file(path: Path) -> ModuleType:
    """The module of an example, which is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(*names: str, package: str) -> str:
    """The path of the first of these programs that is installed; there is no test without it."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"none of {', '.join(names)} is installed; on Debian and Ubuntu: {package}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def virtual_environment(folder: Path, *more: str) -> Path:
    """The Python of an environment for an example whose packages pin what TensorFlow uses too."""
    environment, wanted = folder / ".venv", folder / "requirements.txt"
    python, stamp = environment / "bin" / "python", environment / "installed"
    if not stamp.exists() or stamp.stat().st_mtime < wanted.stat().st_mtime:
        venv.create(environment, clear=True, with_pip=True)
        succeed(python, "-m", "pip", "install", "-q", "--no-compile", "-r", wanted, *more)
        stamp.touch()
    return python
