"""The missing positions of a photograph as a graph, and the energy of the offsets of its nodes."""

import dataclasses

import numpy as np
from keras import ops

from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.offset_maps import erode, rows_of, squared_norm, with_margin

NEIGHBORS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Row and column steps to the four neighbors; the opposite of number `i` is `(i + 2) % 4`."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of the energy, on squared differences of RGB in [0, 1].

    Attributes:
        guide: Blurred copy against blurred guide.
        roughness: Squared log ratio of the copy's roughness to the roughness that a membrane over
            the surroundings expects.
        border: Copied against known pixel, at the known neighbors of a hole pixel.
        change: Constant cost of two neighbors with different offsets.
        screen: Squared difference of the joined copies from the guide.
        trusted_screen: The same, times the squared known share of the surroundings: close to known
            pixels the guide's colors are right.
        preference: What a seed adds at most to the energy of a label, see `preference`.
    """

    guide: float = 2.5
    roughness: float = 0.02
    border: float = 4.0
    change: float = 4e-3
    screen: float = 0.006
    trusted_screen: float = 24.0
    preference: float = 0.16


WEIGHTS = Weights()

GUIDE_SIGMA = 2.5
"""Standard deviation of the blur under which copy and guide are compared, in positions."""

SEEDS = 99991
"""Seeds that differ by a multiple of this prime are the same."""

INVALID = 10.0
"""Energy of an offset that leads to no known pixel; more than any valid one has."""


class Scale:
    """Guide, hole, roughness and preference at a resolution: `(1, h, w, C)`."""

    def __init__(self, guide, hole, factor, seed):
        self.guide = ops.average_pool(guide, factor, factor)
        self.hole = ops.max_pool(hole, factor, factor)
        self.roughness = roughness_of(self.guide)
        self.preference = preference(seed, *ops.shape(self.hole)[1:3])


def preference(seed, height, width):
    """How much a seed dislikes to copy from a place, `(1, h, w, 1)` in [0, 1]; 0 for the seed 0.

    A few waves of one to three periods across the longer side, in directions and with phases that
    the seed decides. Smooth, so that coherent copies stay coherent.
    """
    # Whole numbers, so that every runtime computes the same phases.
    seed = ops.cast(ops.mod(ops.cast(seed, "int64"), SEEDS), "int32")
    phases = ops.cast(ops.mod(seed * _PHASE_STEPS, SEEDS), "float32") * (2.0 * np.pi / SEEDS)
    side = ops.cast(ops.maximum(height, width), "float32")
    rows = ops.cast(ops.arange(height), "float32")[:, None] / side
    columns = ops.cast(ops.arange(width), "float32")[None] / side
    waves = [
        ops.cos(2.0 * np.pi * (down * rows + right * columns) + phases[index])
        for index, (down, right) in enumerate(_WAVES)
    ]
    disliked = 0.5 + 0.5 * sum(waves) / len(waves)
    disliked = disliked * ops.cast(ops.not_equal(seed, 0), "float32")
    return disliked[None, :, :, None]


def roughness_of(image):
    """Root mean square of the high-pass around each pixel, `(1, H, W, 1)`."""
    detail = image - gaussian_blur(image, 2.0)
    return ops.sqrt(gaussian_blur(ops.mean(ops.square(detail), axis=-1, keepdims=True), 4.0) + 1e-6)


def expected_roughness(scale, membrane):
    """The roughness that a membrane over the surroundings expects, `(1, h, w, 1)`."""
    return membrane(scale.roughness, 1.0 - erode(1.0 - scale.hole, 9))


class Nodes:
    """The missing positions at a resolution.

    A *position* is a flat index into a map with a margin of one. A *label* of a node is the
    position that its color is copied from.

    Attributes:
        count: N, one more than there are missing positions: without a hole no tensor may be empty.
        row, column: `(N,)` int32, place of each node, without the margin.
        here: `(N, 1)` int32, position of each node.
        node: `(P,)` int32, the node at a position, N where there is none.
        steps: `(4, 1, 1)` int32, from a position to its neighbors.
        neighbors: `(4, N)` int32, the node a step of `NEIGHBORS` away, N where there is none.
        bordered: `(4, N)` bool, whether a known position is there.
        colors: `(P, 3)`, the guide.
    """

    def __init__(self, guide, hole):
        self.height, self.width = ops.shape(hole)[1:3]
        self.pitch = self.width + 2
        self.nowhere = 2 * self.pitch - 1
        missing = hole > 0.5
        places = ops.cast(ops.nonzero(ops.reshape(missing, (-1,)))[0], "int32")
        places = ops.concatenate([places, ops.zeros((1,), "int32")])
        self.count = ops.shape(places)[0]
        self.row = places // self.width
        self.column = places - self.row * self.width
        self.here = self.position(self.row, self.column)[:, None]
        self.steps = (ops.multiply(_ROW_STEPS, self.pitch) + _COLUMN_STEPS)[..., None]
        numbers = ops.cumsum(ops.reshape(ops.cast(missing, "int32"), (-1,))) - 1
        numbers = ops.where(missing, ops.reshape(numbers, ops.shape(hole)), self.count)
        self.node = with_margin(numbers, self.count)[:, 0]
        is_real = ops.arange(self.count) < self.count - 1
        beside = (self.here + self.steps)[..., 0]  # (4, N)
        self.neighbors = ops.where(is_real, rows_of(self.node, beside), self.count)
        known = with_margin(1.0 - hole, 0.0)[:, 0] > 0.5
        self.bordered = ops.logical_and(is_real, rows_of(known, beside))

        self.colors = with_margin(guide)

    def position(self, row, column):
        """The position of a place without the margin."""
        return (row + 1) * self.pitch + column + 1

    def labels_of(self, offsets):
        """`(K, 2)` offsets -> labels `(N, K)`."""
        return self.labels_at(
            self.row[:, None] + offsets[None, :, 0], self.column[:, None] + offsets[None, :, 1]
        )

    def labels_at(self, rows, columns):
        """Labels at places; those outside the image lead to a position that is not usable."""
        inside = ops.logical_and(rows >= 0, rows < self.height)
        inside = ops.logical_and(inside, ops.logical_and(columns >= 0, columns < self.width))
        return ops.where(inside, self.position(rows, columns), self.nowhere)

    def steps_to(self, labels):
        """`(N, 1)` labels -> rows down and columns to the right that they lead, `(N,)` each."""
        place = self.place(labels)
        return place[:, 0] - self.row, place[:, 1] - self.column

    def place(self, labels):
        """`(N, 1)` labels -> `(N, 2)` row and column, without the margin."""
        row = labels // self.pitch
        return ops.concatenate([row, labels - row * self.pitch], axis=1) - 1

    def copied(self, labels):
        """Colors that labels lead to."""
        return rows_of(self.colors, labels)


class Graph(Nodes):
    """Nodes and the energy of their labels.

    Attributes:
        is_usable: `(P,)` bool, known with known neighbors.
    """

    def __init__(self, scale, expected):
        super().__init__(scale.guide, scale.hole)
        usable = with_margin(erode(1.0 - scale.hole, 3), 0.0)
        self.is_usable = usable[:, 0] > 0.5
        blurred = WEIGHTS.guide**0.5 * with_margin(gaussian_blur(scale.guide, GUIDE_SIGMA))
        found, expected = (
            WEIGHTS.roughness**0.5 * ops.log(ops.maximum(with_margin(each), 1e-3))
            for each in (scale.roughness, expected)
        )
        # Squared differences of the two are the energy of a label.
        preference = WEIGHTS.preference * with_margin(scale.preference)
        penalty = ops.sqrt(INVALID * (1.0 - usable) + preference)
        self._offered = ops.concatenate([blurred, found, penalty], axis=1)  # (P, 5)
        wanted = ops.concatenate([blurred, expected, 0.0 * penalty], axis=1)
        self._wanted = rows_of(wanted, self.here)  # (N, 1, 5)

    def energies(self, labels):
        """`(N, L)` energy of each label by itself."""
        energy = squared_norm(rows_of(self._offered, labels) - self._wanted)
        # Few nodes lie at the border: the others are left out.
        is_bordered = ops.any(self.bordered, axis=0)
        border = ops.cast(ops.nonzero(is_bordered)[0], "int32")
        border = ops.concatenate([border, ops.zeros((1,), "int32")])
        here, there = rows_of(self.here, border), rows_of(labels, border)
        jumps = squared_norm(self.copied(there + self.steps) - self.copied(here + self.steps))
        bordered = ops.take(self.bordered, border, axis=1)[..., None]
        jumps = WEIGHTS.border * ops.sum(ops.where(bordered, jumps, 0.0), axis=0)
        jumps = jumps * ops.cast(
            ops.arange(ops.shape(border)[0])[:, None] < ops.shape(border)[0] - 1, "float32"
        )
        number = ops.cumsum(ops.cast(is_bordered, "int32")) - 1
        number = ops.where(is_bordered, number, ops.shape(border)[0] - 1)
        return energy + rows_of(jumps, number)

    def seams(self, labels):
        """`(4, N, L, L)` energy of a label of a node beside one of its neighbor."""
        neighbors = ops.minimum(self.neighbors, self.count - 1)
        theirs = rows_of(labels, neighbors)  # (4, N, L)
        # Both copies are compared here and at the neighbor: (4, N, L, 6).
        beside = self.copied(labels + self.steps)
        here = self.copied(labels)[None] + ops.zeros_like(beside)
        mine = ops.concatenate([here, beside], axis=-1)
        continued = theirs - self.steps
        other = ops.concatenate([self.copied(continued), self.copied(theirs)], axis=-1)
        product = ops.matmul(mine, ops.transpose(other, (0, 1, 3, 2)))
        seams = squared_norm(mine)[..., None] + squared_norm(other)[:, :, None] - 2.0 * product
        differs = labels[..., None] != continued[:, :, None]
        return ops.relu(seams) + WEIGHTS.change * ops.cast(differs, "float32")

    def of_neighbors(self, values):
        """`(4, N + 1, ...)`, one array per direction -> `(4, N, ...)`, those of the neighbors."""
        flat = ops.reshape(values, (len(NEIGHBORS) * (self.count + 1), *values.shape[2:]))
        return rows_of(flat, self.neighbors + _DIRECTIONS * (self.count + 1))


_ROW_STEPS, _COLUMN_STEPS = np.array(NEIGHBORS, "int32").T[..., None]  # (4, 1)
_WAVES = ((1, 0), (0, 1), (2, 1), (-1, 2), (3, -1), (1, 3))
_PHASE_STEPS = np.array([7919, 10007, 3571, 15485, 1299, 20011], "int32")
_DIRECTIONS = np.arange(len(NEIGHBORS), dtype="int32")[:, None]
