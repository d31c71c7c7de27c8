"""Fills a hole with pixels copied from the known part of the same photograph.

A network trained with L1 predicts the mean of all plausible fills, which has no texture. This layer
uses the prediction as a guide: every hole pixel gets an *offset* to a known pixel, and the pixel is
copied from there. Neighboring pixels prefer the same offset, so the copies are coherent pieces of
the photograph. Nothing is learned.

References:
    He and Sun, "Statistics of Patch Offsets for Image Completion", ECCV 2012 (a few dominant
    offsets, chosen by a Markov random field).
    Felzenszwalb and Huttenlocher, "Efficient Belief Propagation for Early Vision", IJCV 2006.
    Pérez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003 (the joining of the copies).
"""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor, composite
from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.membrane import Membrane

SIZE_MULTIPLE = 4
"""Divisor of height and width: the pixels under a position of the coarsest level."""

PAINTED = -1
"""Row and column in `source` of a pixel that was not copied."""

NEIGHBORS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Row and column steps to the four neighbors; the opposite of number `i` is `(i + 2) % 4`."""


class Level(NamedTuple):
    """One level of the coarse-to-fine search.

    Attributes:
        factor: Pixels per position along each side.
        kept: Number of offsets that a position takes over from the coarser level; 0 at the coarsest
            level, where every position has all candidates.
        labels: Number of offsets of a position that belief propagation chooses from. They are the
            best ones next to the neighbors' offsets of the coarser level.
        rounds: Rounds of belief propagation.
        guide_sigma: Standard deviation of the blur under which copy and guide are compared, in
            positions.
    """

    factor: int
    kept: int
    labels: int
    rounds: int
    guide_sigma: float


LEVELS = (Level(4, 0, 12, 5, 1.0), Level(2, 3, 6, 3, 1.5))
"""Two pixels share an offset: a search at the full resolution finds hardly better ones, in twice
the time."""


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
    """

    guide: float = 1.5
    roughness: float = 0.01
    border: float = 4.0
    change: float = 1e-3
    screen: float = 0.03
    trusted_screen: float = 8.0


WEIGHTS = Weights()

CELL = 4
"""Pixels per position, along each side, of the maps on which candidates are found."""

MATCHED = (-1, 0, 1)
"""Rows and columns of the positions of a patch that are compared when candidates are found."""

QUERY_STEP = 2
"""Positions between two patches for which the most similar patch is found."""

MOST_QUERIES = 512
"""Patches for which the most similar one is found, at most; a bound on memory and time."""

KNOWN_CANDIDATES, GUIDE_CANDIDATES = 24, 16
"""Offsets from patches of the surroundings to others, and from patches of the guide."""

BAND = 33
"""Positions along each side of the window in which surroundings of the hole are searched."""

SHORTEST = 1 / 15
"""Shortest offset between two known patches, as a share of the longer side."""

THICK = 13
"""Side in pixels of a square of missing pixels. A hole in which none fits is painted, a wire for
example: known pixels are close everywhere, and the network knows their colors."""

INVALID = 10.0
"""Energy of an offset that leads to no known pixel; more than any valid one has."""

UNUSABLE = 1e6
"""Squared distance of a patch that may not be matched."""

DAMPING = 0.3
"""Share of the previous message in belief propagation."""

TRUST_SIGMA = 4.0
"""Standard deviation, in positions, of the window whose known share is taken."""

JOINING_ROUNDS = 20
"""Rounds of conjugate gradients when the copies are joined."""


@keras.saving.register_keras_serializable("musical_tf")
class OffsetCopying(keras.layers.Layer):
    """Copies known pixels into a hole, guided by a prediction.

    1. Candidates: patches around the hole are matched with known patches, and so are patches of the
       prediction in the hole. The most frequent offsets of both are the candidates (He and Sun).
    2. Offsets: an energy prefers copies that agree with the blurred prediction, have the roughness
       of the surroundings, continue the known pixels at the border, and agree with each other where
       the offset changes. It is minimized by belief propagation, at a quarter of the
       resolution and then at half of it. There a position keeps its few best offsets and adds those
       of its neighbors and shifts by one position.
    3. Joining: the gradients of the copies are integrated (Poisson), with the known pixels at the
       border and a weak pull to the prediction.

    A hole in which no square of `THICK` pixels fits is left to the prediction.

    The samples of a batch are processed one after the other, so memory is that of one sample. In
    training the prediction is returned. Computed in float32 whatever the policy.

    Call arguments:
        prediction: `(B, H, W, 3)` float in [-1, 1]. H and W are multiples of 4.
        image: `(B, H, W, 3)` float in [-1, 1]. Values under the hole are ignored.
        hole: `(B, H, W, 1)`, 1 = missing.
        training: Bool. If True, nothing is copied.

    Returns:
        `(filled, source)`. `filled`: `(B, H, W, 3)` float32 in [-1, 1], known pixels equal the
        image's. `source`: `(B, H, W, 2)` int32, row and column of the known pixel that a pixel was
        copied from. For a known pixel these are its own. For a pixel with no offset to a known
        pixel both are -1, and `filled` is the prediction there.

    Raises:
        ValueError: If a known side is not a multiple of 4.
    """

    def __init__(self, **options):
        super().__init__(**{**options, "dtype": "float32"})
        self.membrane = Membrane(name="membrane")

    def build(self, prediction_shape, image_shape, hole_shape):
        """Checks the sides.

        Raises:
            ValueError: If a known side is not a multiple of 4.
        """
        if any(side is not None and side % SIZE_MULTIPLE for side in prediction_shape[1:3]):
            raise ValueError(
                f"height and width must be multiples of {SIZE_MULTIPLE}, "
                f"got {tuple(prediction_shape)}"
            )

    def call(
        self, prediction: Tensor, image: Tensor, hole: Tensor, training: bool | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns `(filled, source)`, see the class."""
        prediction = ops.cast(prediction, "float32")
        image = ops.cast(image, "float32")
        hole = ops.cast(ops.cast(hole, "float32") > 0.5, "float32")
        guide = composite(prediction, image, hole)
        if training:
            places = ops.where(hole > 0.5, PAINTED, own_places(guide))
            return prediction, places
        filled, source = ops.map(self._copy, (guide, hole))
        return composite(filled, image, hole), source

    def compute_output_spec(self, prediction, image, hole, training=None):
        """Returns the specifications of `filled` and `source`."""
        return (
            keras.KerasTensor(prediction.shape, "float32"),
            keras.KerasTensor((*prediction.shape[:3], 2), "int32"),
        )

    def _copy(self, sample):
        """`(H, W, 3)` guide in [-1, 1] and `(H, W, 1)` hole -> filled and source of one sample."""
        guide, hole = (ops.expand_dims(each, 0) for each in sample)
        guide = 0.5 * guide + 0.5
        own = ops.where(hole > 0.5, PAINTED, own_places(guide))
        # Without a node there is next to nothing to compute.
        hole = hole * ops.max(_erode(hole, THICK))
        scales = [_Scale(guide, hole, level.factor) for level in LEVELS]
        expected = _expected_roughness(scales, self.membrane)
        graph: Any = None
        labels = beliefs = None
        for level, scale, roughness in zip(LEVELS, scales, expected, strict=True):
            coarser, graph = graph, _Graph(scale, roughness, level.guide_sigma)
            if coarser is None:
                labels = graph.labels_of(_candidates(guide, hole) // level.factor)
            else:
                labels = _inherit(graph, level, coarser, labels, beliefs)
            labels, energies = _prune(graph, labels, level)
            beliefs = _propagate(graph, labels, energies, level.rounds)

        nodes = _Nodes(guide, hole)
        best = _best(labels, beliefs, 1)
        parent = _parents(nodes, graph)
        copied = _rows_of(_rows_of(graph.is_usable, best), parent)
        down, right = (_rows_of(steps[:, 0], parent) for steps in _offsets(graph, best))
        best = nodes.labels_at(nodes.row + down, nodes.column + right)[:, None]
        best = ops.where(copied, best, nodes.here)
        joined = _join(nodes, best, gaussian_blur(1.0 - hole, TRUST_SIGMA))
        joined = ops.pad(joined, [[0, 1], [0, 0]])
        places = ops.where(copied, nodes.place(best), PAINTED)
        places = ops.pad(places, [[0, 1], [0, 0]])
        shape = (nodes.height, nodes.width)
        node = ops.reshape(nodes.inner(nodes.node[:, None]), (-1,))
        missing = (node < nodes.count)[:, None]
        colors = ops.reshape(guide, (-1, 3))
        filled = ops.where(missing, _rows_of(joined, node), colors)
        source = ops.where(missing, _rows_of(places, node), ops.reshape(own, (-1, 2)))
        filled = ops.clip(2.0 * filled - 1.0, -1.0, 1.0)
        return ops.reshape(filled, (*shape, 3)), ops.reshape(source, (*shape, 2))


class _Scale:
    """Guide, hole and roughness at one level: `(1, h, w, C)`."""

    def __init__(self, guide, hole, factor):
        self.factor = factor
        self.guide = ops.average_pool(guide, factor, factor) if factor > 1 else guide
        self.hole = ops.max_pool(hole, factor, factor) if factor > 1 else hole
        self.roughness = _roughness(self.guide)


def _expected_roughness(scales, membrane):
    """The roughness that a membrane over the surroundings expects, `(1, h, w, 1)` per scale."""
    coarsest = scales[0].factor
    maps, holes = [], []
    for scale in scales:
        reliable, roughness = _erode(1.0 - scale.hole, 9), scale.roughness
        if scale.factor < coarsest:
            window = coarsest // scale.factor
            share = ops.average_pool(reliable, window, window)
            roughness = ops.average_pool(roughness * reliable, window, window)
            roughness = roughness / ops.maximum(share, 1e-3)
            reliable = ops.cast(share > 0.0, "float32")
        maps.append(roughness)
        holes.append(1.0 - reliable)
    expected = membrane(ops.concatenate(maps), ops.concatenate(holes))
    for index, scale in enumerate(scales):
        window = coarsest // scale.factor
        yield ops.repeat(ops.repeat(expected[index : index + 1], window, 1), window, 2)


class _Nodes:
    """The missing positions of one level.

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
        self.node = _with_margin(numbers, self.count)[:, 0]
        is_real = ops.arange(self.count) < self.count - 1
        beside = (self.here + self.steps)[..., 0]  # (4, N)
        self.neighbors = ops.where(is_real, _rows_of(self.node, beside), self.count)
        known = _with_margin(1.0 - hole, 0.0)[:, 0] > 0.5
        self.bordered = ops.logical_and(is_real, _rows_of(known, beside))

        self.colors = _with_margin(guide)

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

    def place(self, labels):
        """`(N, 1)` labels -> `(N, 2)` row and column, without the margin."""
        row = labels // self.pitch
        return ops.concatenate([row, labels - row * self.pitch], axis=1) - 1

    def inner(self, values):
        """`(P, C)` -> `(H, W, C)`, without the margin."""
        shape = (self.height + 2, self.pitch, values.shape[1])
        return ops.reshape(values, shape)[1:-1, 1:-1]

    def copied(self, labels):
        """Colors that labels lead to."""
        return _rows_of(self.colors, labels)


class _Graph(_Nodes):
    """Nodes and the energy of their labels.

    Attributes:
        is_usable: `(P,)` bool, known with known neighbors.
    """

    def __init__(self, scale, expected, guide_sigma):
        super().__init__(scale.guide, scale.hole)
        usable = _with_margin(_erode(1.0 - scale.hole, 3), 0.0)
        self.is_usable = usable[:, 0] > 0.5
        blurred = WEIGHTS.guide**0.5 * _with_margin(gaussian_blur(scale.guide, guide_sigma))
        found, expected = (
            WEIGHTS.roughness**0.5 * ops.log(ops.maximum(_with_margin(each), 1e-3))
            for each in (scale.roughness, expected)
        )
        # Squared differences of the two are the energy of a label.
        penalty = INVALID**0.5 * (1.0 - usable)
        self._offered = ops.concatenate([blurred, found, penalty], axis=1)  # (P, 5)
        wanted = ops.concatenate([blurred, expected, 0.0 * penalty], axis=1)
        self._wanted = _rows_of(wanted, self.here)  # (N, 1, 5)

    def energies(self, labels):
        """`(N, L)` energy of each label by itself."""
        energy = _square(_rows_of(self._offered, labels) - self._wanted)
        # Few nodes lie at the border: the others are left out.
        is_bordered = ops.any(self.bordered, axis=0)
        border = ops.cast(ops.nonzero(is_bordered)[0], "int32")
        border = ops.concatenate([border, ops.zeros((1,), "int32")])
        here, there = _rows_of(self.here, border), _rows_of(labels, border)
        jumps = _square(self.copied(there + self.steps) - self.copied(here + self.steps))
        bordered = ops.take(self.bordered, border, axis=1)[..., None]
        jumps = WEIGHTS.border * ops.sum(ops.where(bordered, jumps, 0.0), axis=0)
        jumps = jumps * ops.cast(
            ops.arange(ops.shape(border)[0])[:, None] < ops.shape(border)[0] - 1, "float32"
        )
        number = ops.cumsum(ops.cast(is_bordered, "int32")) - 1
        number = ops.where(is_bordered, number, ops.shape(border)[0] - 1)
        return energy + _rows_of(jumps, number)

    def seams(self, labels):
        """`(4, N, L, L)` energy of a label of a node beside one of its neighbor."""
        neighbors = ops.minimum(self.neighbors, self.count - 1)
        theirs = _rows_of(labels, neighbors)  # (4, N, L)
        # Both copies are compared here and at the neighbor: (4, N, L, 6).
        beside = self.copied(labels + self.steps)
        here = self.copied(labels)[None] + ops.zeros_like(beside)
        mine = ops.concatenate([here, beside], axis=-1)
        continued = theirs - self.steps
        other = ops.concatenate([self.copied(continued), self.copied(theirs)], axis=-1)
        product = ops.matmul(mine, ops.transpose(other, (0, 1, 3, 2)))
        seams = _square(mine)[..., None] + _square(other)[:, :, None] - 2.0 * product
        differs = labels[..., None] != continued[:, :, None]
        return ops.relu(seams) + WEIGHTS.change * ops.cast(differs, "float32")

    def of_neighbors(self, values):
        """`(4, N + 1, ...)`, one array per direction -> `(4, N, ...)`, those of the neighbors."""
        flat = ops.reshape(values, (len(NEIGHBORS) * (self.count + 1), *values.shape[2:]))
        return _rows_of(flat, self.neighbors + _DIRECTIONS * (self.count + 1))


_ROW_STEPS, _COLUMN_STEPS = np.array(NEIGHBORS, "int32").T[..., None]  # (4, 1)
_DIRECTIONS = np.arange(len(NEIGHBORS), dtype="int32")[:, None]


def _with_margin(maps, value=None):
    """`(1, H, W, C)` -> `(P, C)`: a margin of one, of a value or of the outermost ones."""
    margin = [[0, 0], [1, 1], [1, 1], [0, 0]]
    if value is None:
        maps = ops.pad(maps, margin, mode="symmetric")
    else:
        maps = ops.pad(maps, margin, constant_values=value)
    return ops.reshape(maps, (-1, maps.shape[-1]))


def _prune(graph, labels, level):
    """The `level.labels` labels `(N, L)` of least energy, and their energies."""
    energies = graph.energies(labels)
    if labels.shape[1] == level.labels:
        return labels, energies
    order = _least(energies, level.labels)
    return _pick(labels, order), _pick(energies, order)


def _propagate(graph, labels, energies, rounds):
    """Min-sum belief propagation: `(N, L)` labels -> `(N, L)` energies, the least is best."""
    seams = graph.seams(labels)
    has_neighbor = (graph.neighbors < graph.count)[..., None]

    def one_round(_, messages):  # (4, N, L)
        beliefs = energies + ops.sum(messages, axis=0)
        # The neighbor in a direction leaves out what it was told from the opposite one.
        back = ops.concatenate([messages[2:], messages[:2]])
        told = ops.pad(beliefs[None] - back, [[0, 0], [0, 1], [0, 0]])
        sent = ops.min(seams + graph.of_neighbors(told)[:, :, None], axis=3)
        sent = ops.where(has_neighbor, sent - ops.min(sent, axis=2, keepdims=True), 0.0)
        return DAMPING * messages + (1.0 - DAMPING) * sent

    messages = ops.fori_loop(0, rounds, one_round, ops.zeros_like(seams[..., 0]))
    return energies + ops.sum(messages, axis=0)


def _least(values, number):
    """`(N, number)` int32: columns of the least values of each row of `(N, L)`, sorted."""
    return ops.cast(ops.top_k(-values, number)[1], "int32")


def _pick(values, order):
    """Entries `(N, number)` of each row of `(N, L)`, by their columns."""
    count, width = ops.shape(values)
    index = order + width * ops.arange(count)[:, None]
    return _rows_of(ops.reshape(values, (-1,)), index)


def _best(labels, beliefs, number):
    """The `number` labels of least energy, `(N, number)`."""
    return _pick(labels, _least(beliefs, number))


def _parents(nodes, coarser):
    """`(N,)` int32: the node of the coarser level over each node."""
    parent = coarser.position(nodes.row // 2, nodes.column // 2)
    return ops.minimum(_rows_of(coarser.node, parent), coarser.count - 1)


def _offsets(nodes, labels):
    """Rows and columns, `(N, L)` each, that labels lead down and right, at twice the resolution."""
    row = labels // nodes.pitch
    column = labels - row * nodes.pitch
    return 2 * (row - 1 - nodes.row[:, None]), 2 * (column - 1 - nodes.column[:, None])


def _inherit(graph, level, coarser, labels, beliefs):
    """Labels `(N, L)` of a finer level: the parent's best, its neighbors', and shifts."""
    down, right = _offsets(coarser, _best(labels, beliefs, level.kept))
    parent = _parents(graph, coarser)
    beside = _rows_of(ops.transpose(coarser.neighbors), parent)  # (N, 4)
    beside = ops.where(beside < coarser.count, beside, parent[:, None])
    rows, columns = (
        own[:, None]
        + ops.concatenate([_rows_of(steps, parent), _rows_of(steps[:, 0], beside)], axis=1)
        for own, steps in ((graph.row, down), (graph.column, right))
    )
    found = graph.labels_at(rows, columns)
    shifts = [
        down * graph.pitch + right for down, right in np.ndindex(3, 3) if (down, right) != (1, 1)
    ]
    shifted = found[:, :1] + ops.stack(shifts)[None] - graph.pitch - 1
    first = graph.pitch + 1
    shifted = ops.clip(shifted, first, graph.position(graph.height - 1, graph.width - 1))
    return ops.concatenate([found, shifted], axis=1)


def _join(graph, labels, known_share):
    """Colors `(N, 3)` with the gradients of the copies, known pixels at the border.

    Args:
        graph: The nodes at the full resolution.
        labels: `(N, 1)` int32.
        known_share: `(1, H, W, 1)`, how much of the surroundings of each pixel is known.
    """
    theirs = _rows_of(ops.pad(labels, [[0, 1], [0, 0]]), graph.neighbors)  # (4, N, 1)
    linked = ops.cast(graph.neighbors < graph.count, "float32")[..., None]  # (4, N, 1)
    bordered = ops.cast(graph.bordered, "float32")[..., None]
    theirs = ops.where(linked > 0.0, theirs, labels[None] + graph.steps)
    copies = graph.copied(labels)[:, 0]
    mine = copies - graph.copied(labels + graph.steps)[:, :, 0]
    other = (graph.copied(theirs - graph.steps) - graph.copied(theirs))[:, :, 0]
    # Between two labels the gradient is the mean of both. Beyond a known pixel lies the guide, so
    # there the copy's counts alone.
    gradients = linked * 0.5 * (mine + other) + bordered * mine
    gradients = gradients + bordered * graph.copied(graph.here + graph.steps)[:, :, 0]
    guide = graph.copied(graph.here)[:, 0]
    trust = _rows_of(_with_margin(ops.square(known_share), 0.0), graph.here[:, 0])
    screen = WEIGHTS.screen + WEIGHTS.trusted_screen * trust
    right_side = screen * guide + ops.sum(gradients, axis=0)
    degree = screen + ops.sum(linked + bordered, axis=0)

    def apply(values):
        beside = _rows_of(ops.pad(values, [[0, 1], [0, 0]]), graph.neighbors)
        return degree * values - ops.sum(beside, axis=0)

    residual = right_side - apply(copies)
    energy = ops.sum(ops.square(residual), axis=0)

    def one_round(_, state):
        values, residual, direction, energy = state
        applied = apply(direction)
        length = energy / ops.maximum(ops.sum(direction * applied, axis=0), 1e-12)
        values, residual = values + length * direction, residual - length * applied
        left = ops.sum(ops.square(residual), axis=0)
        direction = residual + left / ops.maximum(energy, 1e-12) * direction
        return values, residual, direction, left

    return ops.fori_loop(0, JOINING_ROUNDS, one_round, (copies, residual, residual, energy))[0]


def _rows_of(values, indices):
    """`values[indices]` along the first axis."""
    return ops.take(values, indices, axis=0)


def _candidates(guide, hole):
    """The most frequent offsets, `(K, 2)` int32 in pixels."""
    cells, missing = ops.average_pool(guide, CELL, CELL), ops.max_pool(hole, CELL, CELL)
    height, width = ops.shape(missing)[1:3]
    reach = 2 * max(MATCHED) + 1
    usable = _erode(1.0 - missing, reach)
    near = 1.0 - _erode(1.0 - missing, BAND)
    flat_usable = ops.reshape(usable, (height * width,))
    unusable = UNUSABLE * (1.0 - flat_usable)
    rows = ops.arange(height * width) // width
    columns = ops.arange(height * width) - rows * width
    places = ops.cast(ops.stack([rows, columns], axis=1), "float32")
    shortest = ops.cast(ops.maximum(height, width), "float32") * SHORTEST

    chosen = []
    for maps, asked, count, among_known in (
        (cells, usable * near, KNOWN_CANDIDATES, True),
        (gaussian_blur(cells, 1.5), missing, GUIDE_CANDIDATES, False),
    ):
        patches = _patches(maps)
        patches = patches - ops.mean(patches, axis=0, keepdims=True)
        grid = ops.cast(
            ops.logical_and(rows % QUERY_STEP == 0, columns % QUERY_STEP == 0), "float32"
        ) * ops.reshape(asked, (height * width,))
        queries = ops.cast(ops.nonzero(grid > 0.5)[0], "int32")
        found = ops.shape(queries)[0]
        # Without queries one is asked for, so that no tensor is empty; its vote counts 0.
        stride = ops.maximum((found + MOST_QUERIES - 1) // MOST_QUERIES, 1)
        asked_count = ops.minimum(ops.maximum(found, 1), MOST_QUERIES)
        picked = ops.arange(asked_count) * stride
        votes = ops.cast(picked < found, "float32")
        queries = ops.concatenate([queries, ops.zeros((1,), "int32")])
        queries = _rows_of(queries, ops.minimum(picked, found))
        similarity = _similarity(_rows_of(patches, queries), patches, unusable)
        if among_known:
            asked_places = _rows_of(places, queries)
            near_by = ops.sum(ops.square(asked_places), axis=1, keepdims=True) - shortest**2
            too_close = _similarity(asked_places, places, 0.0) >= near_by
            similarity = ops.where(too_close, -UNUSABLE, similarity)
        # Keras's `argmax` has an operation that ONNX lacks.
        match = ops.cast(ops.top_k(similarity, 1)[1][:, 0], "int32")
        down = _rows_of(rows, match) - _rows_of(rows, queries)
        right = _rows_of(columns, match) - _rows_of(columns, queries)
        chosen.append(CELL * _frequent(down, right, votes, height, width, count))
    return ops.concatenate(chosen)


def _similarity(queries, keys, penalty):
    """`(Q, C)`, `(K, C)` -> `(Q, K)`: minus the squared distances, but for the queries' squares.

    One matrix product: large arrays are not passed over a second time.
    """
    squares = (ops.sum(ops.square(keys), axis=1) + penalty)[:, None]
    queries = ops.concatenate([2.0 * queries, -ops.ones_like(queries[:, :1])], axis=1)
    return ops.matmul(queries, ops.transpose(ops.concatenate([keys, squares], axis=1)))


def _frequent(down, right, votes, height, width, count):
    """The `count` highest peaks of the smoothed histogram of offsets, `(count, 2)` int32."""
    by_row = ops.one_hot(down + height, 2 * height + 1) * votes[:, None]
    by_column = ops.one_hot(right + width, 2 * width + 1)
    histogram = ops.matmul(ops.transpose(by_row), by_column)[None, :, :, None]
    histogram = gaussian_blur(histogram, 1.0)
    peaks = ops.where(histogram >= ops.max_pool(histogram, 5, 1, "same"), histogram, 0.0)
    columns = 2 * width + 1
    order = ops.top_k(ops.reshape(peaks, (1, -1)), count)[1][0]
    return ops.stack([order // columns - height, order % columns - width], axis=1)


def _patches(maps):
    """`(1, h, w, 3)` -> `(h w, 3 * taps)`: the colors at the compared positions of each patch."""
    height, width = ops.shape(maps)[1:3]
    reach = max(MATCHED)
    padded = ops.pad(maps, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
    taps = [
        padded[:, reach + down : height + reach + down, reach + right : width + reach + right]
        for down in MATCHED
        for right in MATCHED
    ]
    return ops.reshape(ops.concatenate(taps, axis=-1), (height * width, 3 * len(taps)))


def _erode(known, size):
    """1 where the whole window is 1; positions outside the image do not count."""
    for window in ((size, 1), (1, size)):
        known = 1.0 - ops.max_pool(1.0 - known, window, 1, "same")
    return known


def _roughness(image):
    """Root mean square of the high-pass around each pixel, `(1, H, W, 1)`."""
    detail = image - gaussian_blur(image, 2.0)
    return ops.sqrt(gaussian_blur(ops.mean(ops.square(detail), axis=-1, keepdims=True), 4.0) + 1e-6)


def _square(difference):
    """Sum of squares over the channels."""
    return ops.sum(ops.square(difference), axis=-1)


def own_places(image):
    """`(B, H, W, 2)` int32: row and column of every pixel."""
    height, width = ops.shape(image)[1:3]
    rows, columns = ops.arange(height)[:, None], ops.arange(width)[None]
    rows, columns = rows + ops.zeros_like(columns), columns + ops.zeros_like(rows)
    places = ops.cast(ops.stack([rows, columns], axis=-1), "int32")[None]
    return places + ops.zeros_like(ops.cast(image[..., :1], "int32"))
