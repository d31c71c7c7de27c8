"""Compares our LPIPS with the two distances that its authors publish for their example images.

    python -m benchmarks.check_lpips ex_ref.png ex_p0.png ex_p1.png

The three 64 x 64 images are in the `imgs` folder of the LPIPS repository,
https://github.com/richzhang/PerceptualSimilarity, and not in this one. Its README has 0.722 and
0.138 for the AlexNet version. The exit code is 0 if both are the same to their last digit.
"""

import argparse
import sys

import numpy as np
from PIL import Image

from benchmarks import measure

PUBLISHED = (0.722, 0.138)


@measure.command(measure.argument("files", nargs=3, metavar="FILE"))
def main(options: argparse.Namespace) -> int:
    from musical_tf.metrics import LPIPS

    images = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in options.files]
    reference, *others = (image[None] / 127.5 - 1.0 for image in images)
    lpips = LPIPS()
    distances = [float(np.asarray(lpips(reference, other)).item()) for other in others]
    print(
        *(f"{own:.4f}, published {other}" for own, other in zip(distances, PUBLISHED, strict=True)),
        sep="\n",
    )
    return int(max(abs(np.subtract(distances, PUBLISHED))) > 6e-4)


if __name__ == "__main__":
    sys.exit(main())
