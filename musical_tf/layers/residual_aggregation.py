"""Detail for a fill that has none: the residuals of known patches, chosen by attention.

A network trained with L1 paints the mean of all fills there could be, and the mean has no texture.
Its colours and broad shapes say which known patches look alike, though, and those have texture. So
what a blur takes away from the known photograph, its *residual*, is aggregated by an attention of
patches and laid over the fill. Nothing is learnt. Beside a hole the blur sees the fill too; else
all detail that can appear is the photograph's own.

Neighbours have to choose neighbours, or texture is shuffled: the attention is propagated as in
Eq. (2) of MUSICAL, query and candidate shifted together, over and over.

References:
    Yi, Tang, Azizi, Jang, Xu, "Contextual Residual Aggregation for Ultra High-Resolution Image
    Inpainting", CVPR 2020.
    Wang, Li, Zhang, Du, "MUSICAL", IJCAI 2019, Eq. (2).
"""

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor, composite, downsample_hole
from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.membrane import Membrane
from musical_tf.layers.patch_matching import (
    _as_columns,
    _as_rows,
    _gram,
    _QueryWindow,
    _shifted,
    box_sum,
    diagonal_box_sum,
)
from musical_tf.layers.strided_matching import depth_to_space, space_to_depth

CELL = 8
"""Pixels per position of queries and candidates, along each side."""

RESIDUAL_SIGMA = 3.0
"""Pixels. A residual is what a Gaussian blur of this deviation takes away."""

MATCHED = 5
"""Positions along each side of the patches that are compared, by colour and roughness."""

ROUGHNESS_WEIGHT = 2.0
"""What a difference of roughness counts against one of colour. Roughness is the root mean square of
the residual; in a hole it is expected to be what a membrane makes of that around it."""

PASTED = 3
"""Positions along each side of the patches that are pasted, overlapping. All of one is known."""

PROPAGATION = 5
"""Window of Eq. (2), in positions."""

PROPAGATIONS = 8
"""How often: what is known beside a hole is heard 128 pixels inside."""

TEMPERATURE = 1.0
"""Of the softmax, in mean distances between a patch of the hole and the one most like it."""

SHARPNESS = 6
"""Power of the propagated attention. With less, several patches are averaged, and their mean is a
pattern repeated; with more, float16 and float32 would choose differently."""

TOLERANCE = 0.2
"""Squared difference of a patch from what is pasted on it that leaves a third of the detail."""

LEAST_TEMPERATURE = 3e-3
"""Squared colour difference, in [-1, 1], below which patches look alike anyway."""

ENERGY_WINDOW = 17
"""Pixels along each side over which the energy of detail is measured."""

DEPTH_WINDOW = 33
"""Pixels along each side. Where the hole has half of this window or less, as at a straight border,
no detail is laid; from five sixths on, eleven pixels inside, all that is missing."""

WIDE = (0.9, 1.0)
"""Shares of that window: a hole that nowhere has the first is a stroke and gets no detail, one that
has the second is wide."""

REACH = 49
"""Pixels along each side of what is near a wide place: from there to the hole's border and a
little more."""


@keras.saving.register_keras_serializable("musical_tf")
class ResidualAggregation(keras.layers.Layer):
    """Lays detail of the known surroundings over a smooth fill.

    Detail is added as far as the fill lacks it: next to nothing beside the hole's border and where
    a fill is sharp already. A hole of up to 29 pixels is left as it is: a stroke's fill follows its
    borders, and pasted texture would not. Among plain walls it gets no more than plain walls have,
    and little is pasted where nothing known is like the fill. In training it hands the fill
    through. Computed in float32 whatever the policy. Nothing to learn.

    Args:
        strength: Factor of the residuals, 0 = none, 1 = as found.

    Call arguments:
        fill: `(B, H, W, 3)` float in [-1, 1], a prediction. H and W are multiples of 8.
        image: `(B, H, W, 3)` float in [-1, 1]. What lies under the hole is not looked at.
        hole: `(B, H, W, 1)`, 1 = missing.
        training: Bool. If True the fill is returned as it is, known pixels' too.

    Returns:
        `(B, H, W, 3)` float32 in [-1, 1], known pixels the image's; the fill alone in the hole
        where no 24 x 24 pixels on the grid of 8 are known.

    Raises:
        ValueError: On a strength that is below 0 or not finite, or on sides that are known and not
            multiples of 8.

    References:
        Yi et al., CVPR 2020, Section 3.2 (the residuals); Wang et al., IJCAI 2019, Eq. (2).
    """

    def __init__(self, strength: float = 1.0, **options):
        super().__init__(**{**options, "dtype": "float32"})
        if not 0 <= strength < float("inf"):
            raise ValueError(f"strength must be >= 0 and finite, received: {strength!r}")
        self.strength = strength
        self.membrane = Membrane(name="membrane")

    def build(self, fill_shape, image_shape, hole_shape):
        """Nothing to build; looks at the sides."""
        if any(side is not None and side % CELL for side in fill_shape[1:3]):
            raise ValueError(
                f"height and width must be multiples of {CELL}, received: {tuple(fill_shape)}"
            )

    def call(
        self, fill: Tensor, image: Tensor, hole: Tensor, training: bool | None = None
    ) -> Tensor:
        """See the class."""
        fill = ops.cast(fill, "float32")
        if training:
            return fill
        hole = ops.cast(ops.cast(hole, "float32") > 0.5, "float32")
        filled = composite(fill, ops.cast(image, "float32"), hole)
        residual = filled - gaussian_blur(filled, RESIDUAL_SIGMA)
        expected = self.membrane(_energy(residual, 1.0 - hole), hole)
        aggregated = hole * _aggregate(filled, residual, expected, hole)
        found = _energy(aggregated, hole) + 1e-6
        lacking = (ops.minimum(found, expected) - _energy(residual, hole)) / found
        share = _box_mean(hole, DEPTH_WINDOW)
        depth = _near_wide(share) * ops.clip(3.0 * (share - 0.5), 0.0, 1.0)
        # Of 0 the root has no gradient.
        gain = self.strength * depth * ops.sqrt(ops.maximum(lacking, 1e-12))
        detailed = ops.clip(filled + gain * aggregated, -1.0, 1.0)
        return composite(detailed, filled, hole)

    def compute_output_shape(self, fill_shape, image_shape, hole_shape):
        """The shape of the fill."""
        return fill_shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "strength": self.strength}


def _aggregate(image, residual, energy, hole):
    """The residuals of the patches attended to, `(B, H, W, C)`; 0 outside the holes' window."""
    roughness = ops.sqrt(energy + 1e-8)
    marks = ops.concatenate([image, ROUGHNESS_WEIGHT * roughness], axis=-1)
    missing = downsample_hole(hole, CELL)  # (B, h, w, 1)
    window = _QueryWindow(missing)
    attention = _attention(ops.average_pool(marks, CELL), missing, window)
    reach = PASTED // 2
    margins = [[0, 0]] * 3 + [[reach, reach]] * 2
    attention = ops.pad(attention, margins)  # candidates outside the map have no attention

    cells = ops.swapaxes(space_to_depth(residual, CELL), 1, 2)
    batch, width, height, channels = ops.shape(cells)
    flat_cells = ops.reshape(cells, (batch, width * height, channels))
    overlapped = 0.0
    for (row, column), weight in np.ndenumerate(_paste_weights(channels // CELL**2)):
        # A position sees the part of its neighbour's patch that reaches over it.
        shifted = _shifted(attention, (1, 4), row, PASTED)
        shifted = _shifted(shifted, (2, 3), column, PASTED)
        rows, columns = ops.shape(shifted)[1:3]
        flat = ops.reshape(shifted, (batch, rows * columns, width * height))
        overlapped = overlapped + ops.matmul(flat, flat_cells) * weight
    overlapped = ops.reshape(overlapped, (batch, rows, columns, channels))
    return depth_to_space(window.paste(overlapped), CELL)


def _attention(marks, missing, window):
    """`(B, h, w, 4)` marks to know a place by -> `(B, n, m, w, h)`, for the window and half a
    pasted patch around it. Rows sum to one, or to zero where none is asked for or no patch can be
    pasted."""
    marks = gaussian_blur(marks, 0.5)
    halo = PASTED // 2 + MATCHED // 2
    inside = ops.ones_like(missing)
    energy = ops.sum(ops.square(marks), axis=-1, keepdims=True)
    # |p - q|^2 = |p|^2 + |q|^2 - 2 p.q as one product; outside the map everything is 0.
    queries = ops.concatenate([energy, inside, -2.0 * marks], axis=-1)
    candidates = ops.concatenate([inside, energy, marks], axis=-1)
    distance = diagonal_box_sum(_gram(window.crop(queries, halo), candidates, None), MATCHED)
    counted = diagonal_box_sum(_gram(window.crop(inside, halo), inside, None), MATCHED)
    distance = ops.relu(distance) / ops.maximum(counted, 1.0)

    whole = box_sum(1.0 - missing, PASTED) > PASTED**2 - 0.5
    usable = _as_columns(ops.cast(whole, "float32"))
    distance = distance + 1e4 * (1.0 - usable)
    least = ops.min(distance, axis=(3, 4), keepdims=True)
    # What else the window holds, because of another of the batch, is neither counted nor heard.
    asked = _as_rows(window.crop(missing, PASTED // 2))
    temperature = ops.sum(asked * least, axis=(1, 2), keepdims=True)
    temperature = temperature / ops.maximum(ops.sum(asked, axis=(1, 2), keepdims=True), 1.0)
    likeness = (least - distance) / (TEMPERATURE * temperature + LEAST_TEMPERATURE)
    likeness = usable * ops.exp(ops.maximum(likeness, -60.0))
    reached = ops.cast(box_sum(missing, PASTED) > 0.5, "float32")
    likeness = likeness * _as_rows(window.crop(reached, PASTED // 2))

    attention = _normalize(likeness)
    reach = PROPAGATION // 2
    margins = [[0, 0], [reach, reach], [reach, reach], [0, 0], [0, 0]]
    for _ in range(PROPAGATIONS):
        heard = diagonal_box_sum(ops.pad(attention, margins), PROPAGATION)
        attention = _normalize(likeness * heard)
    attention = _normalize(attention**SHARPNESS)
    unlike = ops.sum(attention * distance, axis=(3, 4), keepdims=True)
    return attention * ops.exp(-unlike / TOLERANCE)


def _normalize(attention):
    return attention / (ops.sum(attention, axis=(3, 4), keepdims=True) + 1e-30)


def _paste_weights(channels):
    """The share of each part of a pasted patch, `(3, 3)` arrays of a cell's values.

    A patch fades out towards its sides (Hann), and the shares of a pixel sum to one. Indexed by the
    position of the patch's middle relative to the cell.
    """
    hann = np.hanning(PASTED * CELL + 2)[1:-1]
    parts = np.outer(hann, hann).reshape(PASTED, CELL, PASTED, CELL).transpose(0, 2, 1, 3)
    parts = parts / parts.sum((0, 1))
    shares = np.empty((PASTED, PASTED), object)
    for place in np.ndindex(shares.shape):
        part = parts[PASTED - 1 - place[0], PASTED - 1 - place[1]]
        shares[place] = np.repeat(part.reshape(-1), channels).astype("float32")
    return shares


def _box_mean(maps, size):
    """Mean over the window around each pixel, of the pixels there are."""
    for window in ((size, 1), (1, size)):
        maps = ops.average_pool(maps, window, 1, "same")
    return maps


def _near_wide(share):
    """1 near places where a hole is wide, 0 near strokes, by the hole's share of windows."""
    least, enough = WIDE
    wide = ops.clip((share - least) / (enough - least), 0.0, 1.0)
    for window in ((REACH, 1), (1, REACH)):
        wide = ops.max_pool(wide, window, 1, "same")
    return _box_mean(wide, ENERGY_WINDOW)


def _energy(detail, hole):
    """Mean square of detail around each pixel, of the pixels in the hole, `(B, H, W, 1)`."""
    squares = hole * ops.mean(ops.square(detail), axis=-1, keepdims=True)
    return _box_mean(squares, ENERGY_WINDOW) / (_box_mean(hole, ENERGY_WINDOW) + 1e-6)
