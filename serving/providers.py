"""Execution providers of ONNX Runtime: which are asked for, and which one really computes."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from musical_tf import onnx_runtime

onnxruntime = onnx_runtime.load()

CPU = "CPUExecutionProvider"

_PREFERRED = (
    "CUDAExecutionProvider",
    "ROCMExecutionProvider",
    "DmlExecutionProvider",
    CPU,
)
_HEAVY_OPERATORS = ("Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul", "FusedMatMul")


class ProviderError(ValueError):
    """The execution provider that was asked for is not there, or did not start."""


def resolve(providers: Sequence[str] | None) -> list[str]:
    """ONNX Runtime's names of providers, in order of preference.

    Args:
        providers: ONNX Runtime's names or their short forms ("cuda", "cpu"); None for the fastest
            known one that is installed, and then the CPU.

    Raises:
        ProviderError: On a provider that is not installed; lists those that are.
    """
    available = onnxruntime.get_available_providers()
    if providers is None:
        return [name for name in _PREFERRED if name in available]
    if not providers:
        raise ProviderError("providers is empty; leave it out to have one chosen")
    by_short_name = {name.removesuffix("ExecutionProvider").lower(): name for name in available}
    resolved = []
    for provider in providers:
        name = by_short_name.get(provider.removesuffix("ExecutionProvider").lower())
        if name is None:
            raise ProviderError(
                f"execution provider {provider!r} is not in this installation of ONNX Runtime; "
                f"available: {', '.join(by_short_name)}"
            )
        resolved.append(name)
    return resolved


def is_failure(error: Exception) -> bool:
    """Whether a session did not open because of its provider."""
    return type(error).__name__ in ("EPFail", "EngineError") or "provider" in str(error).lower()


def computing(profile: str | Path, registered: str) -> str:
    """The provider that computed most convolutions and products of a profiled run.

    ONNX Runtime lists a provider that it registered even if that has taken none of the nodes.

    Args:
        profile: The file that `end_profiling` wrote.
        registered: The answer where the profile names none.
    """
    events = json.loads(Path(profile).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if "provider" in event.get("args", {})]
    heavy = [node for node in nodes if node.get("op_name") in _HEAVY_OPERATORS]
    counts = Counter(node["provider"] for node in heavy or nodes)
    return counts.most_common(1)[0][0] if counts else registered
