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
from typing import NamedTuple

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
        rounds: Rounds of belief propagation.
        guide_sigma: Standard deviation of the blur under which copy and guide are compared, in
            positions.
    """

    factor: int
    kept: int
    rounds: int
    guide_sigma: float


LEVELS = (Level(4, 0, 6, 1.0), Level(2, 5, 4, 1.5), Level(1, 4, 4, 2.5))


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
    """

    guide: float = 1.5
    roughness: float = 0.01
    border: float = 4.0
    change: float = 1e-3
    screen: float = 0.02


WEIGHTS = Weights()

CELL = 2
"""Pixels per position, along each side, of the maps on which candidates are found."""

MATCHED = (-3, -1, 1, 3)
"""Rows and columns of the positions of a patch that are compared when candidates are found."""

QUERY_STEP = 2
"""Positions between two patches for which the most similar patch is found."""

MOST_QUERIES = 1024
"""Patches for which the most similar one is found, at most; a bound on memory and time."""

KNOWN_CANDIDATES, GUIDE_CANDIDATES = 24, 16
"""Offsets from patches of the surroundings to others, and from patches of the guide."""

BAND = 33
"""Positions along each side of the window in which surroundings of the hole are searched."""

SHORTEST = 1 / 15
"""Shortest offset between two known patches, as a share of the longer side."""

INVALID = 10.0
"""Energy of an offset that leads to no known pixel; more than any valid one has."""

DAMPING = 0.3
"""Share of the previous message in belief propagation."""

JOINING_ROUNDS = 30
"""Rounds of conjugate gradients when the copies are joined."""


@keras.saving.register_keras_serializable("musical_tf")
class OffsetCopying(keras.layers.Layer):
    """Copies known pixels into a hole, guided by a prediction.

    1. Candidates: patches around the hole are matched with known patches, and so are patches of the
       prediction in the hole. The most frequent offsets of both are the candidates (He and Sun).
    2. Offsets: an energy prefers copies that agree with the blurred prediction, have the roughness
       of the surroundings, continue the known pixels at the border, and agree with each other where
       the offset changes. It is minimized by belief propagation, from a quarter of the resolution
       to the full one. Each finer level keeps the few best offsets of a position and adds those of
       its neighbors and shifts by one pixel.
    3. Joining: the gradients of the copies are integrated (Poisson), with the known pixels at the
       border and a weak pull to the prediction.

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
            places = ops.where(hole > 0.5, PAINTED, _places(guide))
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
        candidates = _candidates(guide, hole)  # (K, 2) in pixels
        coarser = None
        for level in LEVELS:
            graph = _Graph(guide, hole, level, self.membrane)
            if coarser is None:
                offsets = ops.cast(ops.round(candidates / level.factor), "int32")[None]
                offsets = offsets + ops.zeros_like(graph.row)[:, None, None]
            else:
                offsets = _inherit(graph, level, *coarser)
            coarser = graph, offsets, _propagate(graph, offsets, level.rounds)

        best = _best(*coarser[1:], 1)
        _, copied = graph.look_up(best)  # (N, 1)
        best = ops.where(copied, best[:, 0], 0)
        joined = ops.pad(_join(graph, best), [[0, 1], [0, 0]])
        places = ops.stack([graph.row, graph.column], axis=1) + best
        places = ops.pad(ops.where(copied, places, PAINTED), [[0, 1], [0, 0]])
        missing = (graph.node < graph.count)[:, None]
        own = ops.reshape(_places(guide), (-1, 2))
        filled = ops.where(missing, _rows_of(joined, graph.node), graph.colors)
        source = ops.where(missing, _rows_of(places, graph.node), own)
        shape = (graph.height, graph.width)
        filled = ops.clip(2.0 * filled - 1.0, -1.0, 1.0)
        return ops.reshape(filled, (*shape, 3)), ops.reshape(source, (*shape, 2))


class _Graph:
    """The missing positions of one level, its nodes, and what the energy needs of them.

    Attributes:
        row, column: `(N,)` int32, place of each node.
        count: N, one more than there are missing positions: without a hole no tensor may be empty.
        node: `(H W,)` int32, the node at a position, N at known ones.
        neighbors: `(4, N)` int32, the node a step of `NEIGHBORS` away, N where there is none.
        bordered: `(4, N)` bool, whether a known pixel is there.
    """

    def __init__(self, guide, hole, level, membrane):
        factor = level.factor
        if factor > 1:
            guide, hole = (
                ops.average_pool(guide, factor, factor),
                ops.max_pool(hole, factor, factor),
            )
        self.height, self.width = ops.shape(hole)[1:3]
        missing = ops.reshape(hole, (-1,)) > 0.5
        places = ops.cast(ops.nonzero(missing)[0], "int32")
        places = ops.concatenate([places, ops.zeros((1,), "int32")])
        self.count = ops.shape(places)[0]
        self.row = places // self.width
        self.column = places - self.row * self.width
        numbers = ops.cumsum(ops.cast(missing, "int32")) - 1
        self.node = ops.where(missing, numbers, self.count)

        is_known = _erode(1.0 - hole, 3)
        roughness = _roughness(guide)
        expected = membrane(roughness, 1.0 - _erode(1.0 - hole, 9))
        log = ops.log(ops.maximum(ops.concatenate([roughness, expected], axis=-1), 1e-3))
        marks = ops.concatenate([gaussian_blur(guide, level.guide_sigma), log, is_known], axis=-1)
        self.colors = ops.reshape(guide, (-1, 3))  # (H W, 3)
        self.marks = ops.reshape(marks, (-1, 6))  # (H W, 6)

        rows, columns = self.row + _ROW_STEPS, self.column + _COLUMN_STEPS  # (4, N)
        is_real = ops.arange(self.count) < self.count - 1
        inside = ops.logical_and(self._is_inside(rows, columns), is_real)
        neighbors = _rows_of(self.node, self._index(rows, columns))
        self.neighbors = ops.where(inside, neighbors, self.count)
        self.bordered = ops.logical_and(inside, neighbors == self.count)

    def _index(self, rows, columns):
        """Flat positions; those outside the image become the nearest inside."""
        rows = ops.clip(rows, 0, self.height - 1)
        return rows * self.width + ops.clip(columns, 0, self.width - 1)

    def _is_inside(self, rows, columns):
        inside = ops.logical_and(rows >= 0, rows < self.height)
        return ops.logical_and(inside, ops.logical_and(columns >= 0, columns < self.width))

    def _targets(self, offsets):
        return self.row[:, None] + offsets[..., 0], self.column[:, None] + offsets[..., 1]

    def copied(self, offsets):
        """`(..., N, L, 2)` offsets -> `(..., N, L, 3)` colors that they lead to."""
        return _rows_of(self.colors, self._index(*self._targets(offsets)))

    def look_up(self, offsets):
        """Marks `(N, L, 6)` of the pixels that offsets lead to, and whether they may be copied.

        The second is `(N, L)` bool: a known pixel with known neighbors.
        """
        targets = self._targets(offsets)
        marks = _rows_of(self.marks, self._index(*targets))
        return marks, ops.logical_and(self._is_inside(*targets), marks[..., 5] > 0.5)

    def energies(self, offsets):
        """`(N, L)` energy of each offset by itself."""
        there, is_usable = self.look_up(offsets)
        here = _rows_of(self.marks, self._index(self.row, self.column))[:, None]
        energy = WEIGHTS.guide * _square(there[..., :3] - here[..., :3])
        energy = energy + WEIGHTS.roughness * ops.square(there[..., 3] - here[..., 4])
        beside = self.copied(_STEPS + ops.zeros_like(offsets[:, :1]))  # (4, N, 1, 3)
        jumps = _square(self.copied(offsets + _STEPS) - beside)  # (4, N, L)
        border = ops.sum(ops.where(self.bordered[..., None], jumps, 0.0), axis=0)
        energy = energy + WEIGHTS.border * border
        return ops.where(is_usable, energy, INVALID)

    def seams(self, offsets):
        """`(4, N, L, L)` energy of an offset of a node beside one of its neighbor."""
        neighbors = ops.minimum(self.neighbors, self.count - 1)
        theirs = _rows_of(offsets, neighbors)  # (4, N, L, 2)
        # Both copies are compared here and at the neighbor: (4, N, L, 6).
        beside = self.copied(offsets + _STEPS)
        here = self.copied(offsets)[None] + ops.zeros_like(beside)
        mine = ops.concatenate([here, beside], axis=-1)
        other = ops.concatenate([self.copied(theirs), self.copied(theirs + _STEPS)], axis=-1)
        product = ops.matmul(mine, ops.transpose(other, (0, 1, 3, 2)))
        seams = _square(mine)[..., None] + _square(other)[:, :, None] - 2.0 * product
        code = offsets[..., 0] * 65536 + offsets[..., 1]
        differs = code[..., None] != _rows_of(code, neighbors)[:, :, None]
        return ops.relu(seams) + WEIGHTS.change * ops.cast(differs, "float32")

    def of_neighbors(self, values):
        """`(4, N + 1, ...)`, one array per direction -> `(4, N, ...)`, those of the neighbors."""
        flat = ops.reshape(values, (len(NEIGHBORS) * (self.count + 1), *values.shape[2:]))
        return _rows_of(flat, self.neighbors + _DIRECTIONS * (self.count + 1))


_STEPS = np.array(NEIGHBORS, "int32")[:, None, None]  # (4, 1, 1, 2)
_ROW_STEPS, _COLUMN_STEPS = _STEPS[:, :, 0, 0], _STEPS[:, :, 0, 1]  # (4, 1)
_DIRECTIONS = np.arange(len(NEIGHBORS), dtype="int32")[:, None]


def _propagate(graph, offsets, rounds):
    """Min-sum belief propagation: `(N, L, 2)` offsets -> `(N, L)` energies, the least is best."""
    energies, seams = graph.energies(offsets), graph.seams(offsets)
    has_neighbor = (graph.neighbors < graph.count)[..., None]
    messages = ops.zeros_like(seams[..., 0])  # (4, N, L)
    for _ in range(rounds):
        beliefs = energies + ops.sum(messages, axis=0)
        # The neighbor in a direction leaves out what it was told from the opposite one.
        back = ops.concatenate([messages[2:], messages[:2]])
        told = ops.pad(beliefs[None] - back, [[0, 0], [0, 1], [0, 0]])
        sent = ops.min(seams + graph.of_neighbors(told)[:, :, None], axis=3)
        sent = ops.where(has_neighbor, sent - ops.min(sent, axis=2, keepdims=True), 0.0)
        messages = DAMPING * messages + (1.0 - DAMPING) * sent
    return energies + ops.sum(messages, axis=0)


def _best(offsets, beliefs, number):
    """The `number` offsets of least energy, `(N, number, 2)`."""
    count, labels = ops.shape(beliefs)
    order = ops.cast(ops.top_k(-beliefs, number)[1], "int32")
    index = order + labels * ops.arange(count)[:, None]
    return _rows_of(ops.reshape(offsets, (count * labels, 2)), index)


def _inherit(graph, level, coarser, offsets, beliefs):
    """Offsets `(N, L, 2)` of a finer level: the parent's best, its neighbors', and shifts."""
    kept = 2 * _best(offsets, beliefs, level.kept)
    parents = _rows_of(coarser.node, (graph.row // 2) * coarser.width + graph.column // 2)
    parents = ops.minimum(parents, coarser.count - 1)  # the extra node has none
    own = _rows_of(kept, parents)
    beside = _rows_of(ops.transpose(coarser.neighbors), parents)  # (N, 4)
    beside = ops.where(beside < coarser.count, beside, parents[:, None])
    shifts = [shift for shift in np.ndindex(3, 3) if shift != (1, 1)]
    shifted = own[:, :1] + (np.array(shifts, "int32") - 1)[None]
    return ops.concatenate([own, _rows_of(kept[:, 0], beside), shifted], axis=1)


def _join(graph, offsets):
    """Colors `(N, 3)` with the gradients of the copies, known pixels at the border.

    Args:
        graph: The finest level.
        offsets: `(N, 2)` int32.
    """
    offsets = offsets[:, None]  # (N, 1, 2)
    theirs = ops.pad(offsets, [[0, 1], [0, 0], [0, 0]])
    theirs = _rows_of(theirs, graph.neighbors)  # (4, N, 1, 2)
    linked = ops.cast(graph.neighbors < graph.count, "float32")[..., None]  # (4, N, 1)
    bordered = ops.cast(graph.bordered, "float32")[..., None]
    copies = graph.copied(offsets)[:, 0]
    mine = copies - graph.copied(offsets + _STEPS)[:, :, 0]
    other = (graph.copied(theirs) - graph.copied(theirs + _STEPS))[:, :, 0]
    # Between two offsets the gradient is the mean of both. Beyond a known pixel lies the guide, so
    # there the copy's counts alone.
    gradients = linked * 0.5 * (mine + other) + bordered * mine
    steps = _STEPS + ops.zeros_like(offsets)
    gradients = gradients + bordered * graph.copied(steps)[:, :, 0]
    guide = graph.copied(ops.zeros_like(offsets))[:, 0]
    right_side = WEIGHTS.screen * guide + ops.sum(gradients, axis=0)
    degree = WEIGHTS.screen + ops.sum(linked + bordered, axis=0)

    def apply(values):
        beside = _rows_of(ops.pad(values, [[0, 1], [0, 0]]), graph.neighbors)
        return degree * values - ops.sum(beside, axis=0)

    residual = right_side - apply(copies)
    energy = ops.sum(ops.square(residual), axis=0)

    values, direction = copies, residual
    for _ in range(JOINING_ROUNDS):
        applied = apply(direction)
        length = energy / ops.maximum(ops.sum(direction * applied, axis=0), 1e-12)
        values, residual = values + length * direction, residual - length * applied
        left = ops.sum(ops.square(residual), axis=0)
        direction = residual + left / ops.maximum(energy, 1e-12) * direction
        energy = left
    return values


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
    unusable = 1e6 * (1.0 - flat_usable)
    rows = ops.arange(height * width) // width
    columns = ops.arange(height * width) - rows * width
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
        picked = ops.arange(MOST_QUERIES) * stride
        votes = ops.cast(picked < found, "float32")
        queries = ops.concatenate([queries, ops.zeros((1,), "int32")])
        queries = _rows_of(queries, ops.minimum(picked, found))
        distance = ops.sum(ops.square(patches), axis=1)[None] + unusable[None]
        distance = distance - 2.0 * ops.matmul(_rows_of(patches, queries), ops.transpose(patches))
        down = rows[None] - _rows_of(rows, queries)[:, None]
        right = columns[None] - _rows_of(columns, queries)[:, None]
        if among_known:
            length = ops.cast(ops.square(down) + ops.square(right), "float32")
            distance = distance + 1e6 * ops.cast(length <= ops.square(shortest), "float32")
        # Keras's `argmin` has an operation that ONNX lacks.
        match = ops.cast(ops.top_k(-distance, 1)[1][:, 0], "int32")
        down = _rows_of(rows, match) - _rows_of(rows, queries)
        right = _rows_of(columns, match) - _rows_of(columns, queries)
        chosen.append(CELL * _frequent(down, right, votes, height, width, count))
    return ops.concatenate(chosen)


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


def _places(image):
    """`(B, H, W, 2)` int32: row and column of every pixel."""
    height, width = ops.shape(image)[1:3]
    rows, columns = ops.arange(height)[:, None], ops.arange(width)[None]
    rows, columns = rows + ops.zeros_like(columns), columns + ops.zeros_like(rows)
    places = ops.cast(ops.stack([rows, columns], axis=-1), "int32")[None]
    return places + ops.zeros_like(ops.cast(image[..., :1], "int32"))
