"""A filled photograph that is kept for showing."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Sample:
    """One image kept for showing.

    Attributes:
        number: Position in the results' `images`.
        image: `(H, W, 3)` uint8, the truth.
        hole: `(H, W)` bool, True = missing.
        predictions: Method name -> `(H, W, 3)` uint8, composited.
    """

    number: int
    image: np.ndarray
    hole: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def picture(self, key: str) -> np.ndarray:
        """`(H, W, 3)` uint8: "input", "truth" or a method's result."""
        if key == "input":
            return show_hole(self.image, self.hole)
        return self.image if key == "truth" else self.predictions[key]


def show_hole(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The image with its hole hatched, which shows on bright and on dark photographs."""
    rows, columns = np.indices(hole.shape)
    hatch = np.where((rows + columns) % 8 < 2, np.uint8(178), np.uint8(226))
    return np.where(hole[..., None], hatch[..., None], image)
