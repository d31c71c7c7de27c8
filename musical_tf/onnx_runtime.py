"""The one import of ONNX Runtime: without its telemetry.

From version 1.32, ONNX Runtime looks up its vendor's host and keeps a device id in the user's
cache, unless `ORT_DISABLE_TELEMETRY` is 1 when it is imported.
"""

import os
from types import ModuleType

TELEMETRY_VARIABLE = "ORT_DISABLE_TELEMETRY"


def disable_telemetry() -> None:
    """Sets `ORT_DISABLE_TELEMETRY=1`; a value that the user has set is kept."""
    os.environ[TELEMETRY_VARIABLE] = os.environ.get(TELEMETRY_VARIABLE) or "1"


def load() -> ModuleType:
    """Imports `onnxruntime` with its telemetry disabled.

    Raises:
        ModuleNotFoundError: If it is not installed; says how to install it.
    """
    disable_telemetry()
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "onnxruntime is not installed; pip install 'musical-tf[serve]', or "
            "'musical-tf[serve-gpu]' for an NVIDIA GPU",
            name=error.name,
        ) from error
    return onnxruntime
