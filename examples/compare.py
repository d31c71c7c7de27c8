"""How far two pictures are from each other, in gray levels: compare.py FIRST SECOND."""

import sys

import numpy as np
from PIL import Image


def main() -> int:
    """Runs the command line; returns 0, or 2 if the pictures cannot be compared."""
    if len(sys.argv) != 3:
        print("usage: compare.py FIRST SECOND", file=sys.stderr)
        return 2
    try:
        first, second = (
            np.asarray(Image.open(path).convert("RGB")).astype(int) for path in sys.argv[1:]
        )
    except OSError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    if first.shape != second.shape:
        print(f"compare.py: error: shapes {first.shape} and {second.shape} differ", file=sys.stderr)
        return 2
    difference = np.abs(first - second)
    pixels = np.count_nonzero(difference.max(axis=2))
    print(f"at most {difference.max()} gray levels, {pixels} of {first[..., 0].size} pixels differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
