"""Where a figure comes from: when, of which commit, on what, with what."""

import contextlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

SOFTWARE = (
    *("tensorflow", "tensorflow-cpu", "keras", "onnx", "tf2onnx", "onnxruntime"),
    *("onnxruntime-gpu", "torch", "jax", "jaxlib", "opencv-python-headless"),
    *("patchmatch-cython", "scikit-image", "numpy", "pillow"),
)


def describe() -> dict[str, Any]:
    """Returns `created`, `commit`, `hardware` and `software`, ready for JSON."""
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "hardware": hardware(),
        "software": software(),
    }


def commit() -> str | None:
    """The checkout's commit, with "+changes" if files differ from it; None outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        # Tracked or not: an installed copy may lie in a virtual environment inside another project.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def hardware() -> str:
    """Processor, cores and, when TensorFlow is loaded, the GPUs it sees."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    text = f"{processor}, {cores} core{'s' if cores > 1 else ''}"
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        for device in tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(device)
            text += f", {details.get('device_name', 'GPU')}"
    return text


def software() -> dict[str, str]:
    """Python and the installed ones of `SOFTWARE`, name -> version."""
    versions = {"python": platform.python_version()}
    for name in SOFTWARE:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
