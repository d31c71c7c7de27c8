"""Fills a photograph of any size at its full resolution: full_size.py MODEL PHOTO MASK OUTPUT.

`../README.md` has the rule in words. All of it is whole numbers, so every language computes the
same pixels.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

WINDOW = 512  # pixels that the model sees each way, at most
LEAST = 16  # pixels that a model takes each way, at least


def fill(session: onnxruntime.InferenceSession, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fills `hole`, `(H, W)` bool, in `image`, `(H, W, 3)` uint8; known pixels stay as they are."""
    if not hole.any():
        return image.copy()
    (top, height), (left, width) = (extent(np.any(hole, axis=axis)) for axis in (1, 0))
    scale = -(-max(height, width) // WINDOW)
    cells = [max(LEAST, -(-side // scale)) for side in (height, width)]
    seen = image[top : top + height, left : left + width]
    small, is_missing = shrink(seen, hole[top : top + height, left : left + width], scale, cells)
    names = [output.name for output in session.get_outputs() if output.name != "predicted"]
    feeds = {"image": small[None], "mask": np.where(is_missing, 255, 0).astype(np.uint8)[None]}
    filled, *more = (output[0] for output in session.run(names, feeds))
    source = more[0] if more else np.full((*cells, 2), -1, np.int32)  # version 1: all painted

    result = image.copy()
    rows, columns = np.nonzero(hole)
    for start in range(0, len(rows), 2**18):  # bounds the memory
        y, x = (each[start : start + 2**18] for each in (rows, columns))
        at = (y - top, x - left)
        result[y, x] = full_size_pixels(seen, filled, source, scale, *at)
    return result


def extent(is_touched: np.ndarray) -> tuple[int, int]:
    """Start and length of the window along an axis: twice the hole, within the photograph."""
    size, touched = len(is_touched), np.nonzero(is_touched)[0]
    first, end = int(touched[0]), int(touched[-1]) + 1
    side = min(size, max(WINDOW, 2 * (end - first)))
    return min(max(0, (first + end - side) // 2), size - side), side


def shrink(seen, hole, scale, cells) -> tuple[np.ndarray, np.ndarray]:
    """Means of the known pixels of each cell; and the cells with a missing or without any pixel."""
    margin = [(0, cells[axis] * scale - hole.shape[axis]) for axis in (0, 1)]
    blocks = (cells[0], scale, cells[1], scale)
    known = np.pad(~hole, margin)
    count = known.reshape(blocks).sum(axis=(1, 3))
    masked = np.pad(seen, (*margin, (0, 0))) * known[..., None]
    total = masked.reshape(*blocks, 3).sum(axis=(1, 3), dtype=np.int64)
    divisor = np.maximum(count, 1)[..., None]
    is_missing = np.pad(hole, margin).reshape(blocks).any(axis=(1, 3)) | (count == 0)
    return ((2 * total + divisor) // (2 * divisor)).astype(np.uint8), is_missing


def full_size_pixels(seen, filled, source, scale, y, x) -> np.ndarray:
    """Copies from `seen`, with the colors of the small result `filled`, at the places (y, x)."""
    offset = source[y // scale, x // scale] - np.stack([y // scale, x // scale], axis=-1)
    is_copied = source[y // scale, x // scale, :1] >= 0
    origin = np.where(is_copied, np.stack([y, x], axis=-1) + offset * scale, 0)
    from_y, from_x = np.minimum(origin, np.array(seen.shape[:2]) - 1).T
    unit = 4 * scale**2
    copied = seen[from_y, from_x] * np.int64(unit) - enlarged(filled, scale, from_y, from_x)
    value = np.where(is_copied, copied, 0) + enlarged(filled, scale, y, x)
    return (np.clip(value + unit // 2, 0, 255 * unit) // unit).astype(np.uint8)


def enlarged(small: np.ndarray, scale: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The small picture, enlarged bilinearly, at the places (y, x), times 4 `scale`²."""
    height, width = small.shape[:2]
    row, down = np.divmod(2 * y + 1 - scale, 2 * scale)
    column, right = np.divmod(2 * x + 1 - scale, 2 * scale)
    value = np.zeros((len(y), 3), np.int64)
    for i, weight in ((row, 2 * scale - down), (row + 1, down)):
        for j, share in ((column, 2 * scale - right), (column + 1, right)):
            corner = small[np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
            value += (weight * share)[:, None] * corner
    return value


def main() -> None:
    """Runs the command line."""
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    model, photo, mask, output = sys.argv[1:]
    image = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))
    hole = np.asarray(Image.open(mask).convert("L")) > 127
    if hole.shape != image.shape[:2] or hole.all():
        sys.exit(
            "full_size.py: error: the mask must have the photograph's size, "
            f"{image.shape[1]} x {image.shape[0]}, and leave a part of it, "
            f"got {hole.shape[1]} x {hole.shape[0]}, {hole.mean():.0%} white"
        )
    onnxruntime.set_default_logger_severity(3)  # 3 = errors
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    Image.fromarray(fill(session, image, hole)).save(output)


if __name__ == "__main__":
    main()
