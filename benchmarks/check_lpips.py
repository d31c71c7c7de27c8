"""Compares our LPIPS with the two distances its authors publish for their example images.

    python -m benchmarks.check_lpips ex_ref.png ex_p0.png ex_p1.png

The three 64 x 64 images are in the `imgs` folder of the LPIPS repository,
https://github.com/richzhang/PerceptualSimilarity, and not in this one. Its README prints 0.722 and
0.138 for the AlexNet version.
"""

import sys

import numpy as np
from PIL import Image

from musical_tf.metrics import LPIPS

PUBLISHED = (0.722, 0.138)


def main(argv: list[str] | None = None) -> int:
    """The command line: 0 when both distances are the published ones to their last digit."""
    files = sys.argv[1:] if argv is None else argv
    if len(files) != 3:
        print("check_lpips: error: expected ex_ref.png ex_p0.png ex_p1.png", file=sys.stderr)
        return 2
    try:
        images = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files]
        reference, *others = (image[None] / 127.5 - 1.0 for image in images)
        lpips = LPIPS()
        distances = [float(np.asarray(lpips(reference, other)).item()) for other in others]
    except (OSError, ValueError) as error:
        print(f"check_lpips: error: {error}", file=sys.stderr)
        return 1
    for distance, published in zip(distances, PUBLISHED, strict=True):
        print(f"{distance:.4f}, published {published}")
    return int(max(abs(a - b) for a, b in zip(distances, PUBLISHED, strict=True)) > 6e-4)


if __name__ == "__main__":
    sys.exit(main())
