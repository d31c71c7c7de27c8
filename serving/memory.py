"""The memory that a run of a model needs, estimated before it starts."""

import numpy as np

from musical_tf.contract import Contract

from .options import ModelOptions

MEMORY_LIMIT = ModelOptions.memory_limit * 2**30
"""Bytes. What one run beyond the training size may need by default."""

BYTES_PER_PIXEL = 740
"""What one run of a model keeps for each pixel it sees, in features; see `estimate_memory`."""

BYTES_PER_PAIR = 42
"""What it keeps for each pair that attention compares, in scores; see `estimate_memory`. Of files
exported before box sums were convolutions; what is exported now takes less than half."""


class InferenceError(RuntimeError):
    """The model failed while it was running."""


def estimate_memory(holes: np.ndarray, max_scores: int | None = None, factor: int = 4) -> int:
    """What one run of a model needs beside its weights, at most.

    Features at several resolutions, proportional to the image, and attention scores: several for
    each pair of a position within the hole's bounding box and a position of the image.
    `python -m benchmarks.serving_memory --model model.onnx` holds both constants against what a
    model really takes.

    Args:
        holes: `(B, H, W)` bool, of which at least one pixel is True.
        max_scores: What the file was exported with, see `musical-export --attention-max-scores`:
            the most pairs it works on at a time, but never less than a row of the box takes with
            the three rows and columns around it.
        factor: Pixels per position, along each side: `Contract.attention_factor`.

    Returns:
        Bytes.
    """
    batch, height, width = holes.shape
    box_height, box_width = _extent(holes)
    positions = batch * (height * width // factor**2)
    pairs = (box_height * box_width // factor**2) * positions
    if max_scores is not None:
        one_row = 7 * (box_width // factor + 6) * positions
        pairs = min(pairs, max(max_scores, one_row))
    return batch * BYTES_PER_PIXEL * height * width + BYTES_PER_PAIR * pairs


def check_memory(holes: np.ndarray, contract: Contract, limit: int) -> None:
    """Refuses a run of a model that is estimated to need more than `limit` bytes.

    Raises:
        ValueError: Says what the run would need and what to do.
    """
    needed = estimate_memory(holes, contract.attention_max_scores, contract.attention_factor)
    if needed > limit:
        batch, height, width = holes.shape
        box_height, box_width = _extent(holes)
        raise ValueError(
            f"{batch} image(s) of {width} x {height} pixels with holes within "
            f"{box_width} x {box_height} would need about {needed / 2**30:.1f} GiB, more than "
            f"the limit of {limit / 2**30:.1f} GiB: use a smaller working size (the model's own "
            f"is {contract.training_size}), strategy crop or resize instead of original, or a "
            "higher memory limit"
        )


def _extent(holes: np.ndarray) -> tuple[int, int]:
    """Height and width of the box around all holes of a `(B, H, W)` batch."""
    rows = np.flatnonzero(holes.any(axis=(0, 2)))
    columns = np.flatnonzero(holes.any(axis=(0, 1)))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
