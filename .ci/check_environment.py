"""Fails when an environment holds two TensorFlows or two ONNX Runtimes, or lacks one that it needs.

Two distributions that own the same import name overwrite each other's files: the one installed
last wins, and uninstalling either breaks the other. pip does not notice, because to pip they are
unrelated names.

    python .ci/check_environment.py [import_name ...]

The names given (`tensorflow`, `onnxruntime`, ...) have to be there exactly once; every other known
one at most once.
"""

import sys
from importlib import metadata

WATCHED = ("tensorflow", "keras", "onnxruntime", "cv2")
"""Import names that more than one distribution on the package index provides."""


def owners() -> dict[str, list[str]]:
    """Returns the distributions, as `name version`, that provide each watched import name."""
    providers = metadata.packages_distributions()
    return {
        name: sorted({f"{owner} {metadata.version(owner)}" for owner in providers.get(name, [])})
        for name in WATCHED
    }


def problems(found: dict[str, list[str]], required: list[str]) -> list[str]:
    """Returns a line for every import name with two owners, or that is required and has none."""
    lines = []
    for name, distributions in found.items():
        if len(distributions) > 1:
            lines.append(f"`{name}` is provided by {' and '.join(distributions)}; keep exactly one")
    for name in required:
        if name not in found:
            lines.append(f"`{name}` is not watched; expected one of {', '.join(WATCHED)}")
        elif not found[name]:
            lines.append(f"`{name}` is not installed")
    return lines


def main(argv: list[str] | None = None) -> int:
    """Checks the running interpreter's environment; returns 1 when something is wrong with it."""
    required = sys.argv[1:] if argv is None else argv
    lines = problems(owners(), required)
    for line in lines:
        print(f"check_environment: error: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
