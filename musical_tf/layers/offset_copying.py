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

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor, composite, per_channel
from musical_tf.layers.gaussian_blur import gaussian_blur
from musical_tf.layers.membrane import Membrane
from musical_tf.layers.offset_candidates import frequent_offsets
from musical_tf.layers.offset_graph import WEIGHTS, Graph, Nodes, Scale, expected_roughness
from musical_tf.layers.offset_maps import erode, rows_of, with_margin

PAINTED = -1
"""Row and column in `source` of a pixel that was not copied."""

FACTOR = 2
"""Pixels along each side that share an offset. Half the resolution: a search at the full one, and a
coarser one before it, find hardly better offsets in more time."""

LABELS = 8
"""Number of offsets of a position, the best ones, that belief propagation chooses from."""

ROUNDS = 8
"""Rounds of belief propagation."""

THICK = 13
"""Side in pixels of a square of missing pixels. A hole in which none fits is painted, a wire for
example: known pixels are close everywhere, and the network knows their colors."""

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
       the offset changes. It is minimized by belief propagation at half the resolution.
    3. Joining: the gradients of the copies are integrated (Poisson), with the known pixels at the
       border and a weak pull to the prediction.

    A hole in which no square of `THICK` pixels fits is left to the prediction.

    The samples of a batch are processed one after the other, so memory is that of one sample; one
    with such a hole takes no time. In training the prediction is returned. Computed in float32
    whatever the policy.

    Call arguments:
        prediction: `(B, H, W, 3)` float in [-1, 1]. H and W are even.
        image: `(B, H, W, 3)` float in [-1, 1]. Values under the hole are ignored.
        hole: `(B, H, W, 1)`, 1 = missing.
        seed: Scalar integer, which of the plausible fills. 0 is the best one. Others prefer other
            parts of the photograph, see `musical_tf.layers.offset_graph.preference`.
        training: Bool. If True, nothing is copied.

    Returns:
        `(filled, source)`. `filled`: `(B, H, W, 3)` float32 in [-1, 1], known pixels equal the
        image's. `source`: `(B, H, W, 2)` int32, row and column of the known pixel that a pixel was
        copied from. For a known pixel these are its own. For a pixel with no offset to a known
        pixel both are -1, and `filled` is the prediction there.

    Raises:
        ValueError: If a known side is odd.
    """

    def __init__(self, **options):
        super().__init__(**{**options, "dtype": "float32"})
        self.membrane = Membrane(name="membrane")

    def build(self, prediction_shape, image_shape, hole_shape):
        """Checks the sides.

        Raises:
            ValueError: If a known side is odd.
        """
        if any(side is not None and side % FACTOR for side in prediction_shape[1:3]):
            raise ValueError(
                f"height and width must be multiples of {FACTOR}, got {tuple(prediction_shape)}"
            )

    def call(
        self,
        prediction: Tensor,
        image: Tensor,
        hole: Tensor,
        seed: Tensor | int = 0,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns `(filled, source)`, see the class."""
        prediction = ops.cast(prediction, "float32")
        image = ops.cast(image, "float32")
        hole = ops.cast(ops.cast(hole, "float32") > 0.5, "float32")
        guide = composite(prediction, image, hole)
        own = own_places(hole)
        if training:
            return prediction, own
        is_thick = ops.max(erode(hole, THICK), axis=(1, 2, 3)) > 0.0
        samples = ops.cast(ops.nonzero(is_thick)[0], "int32")

        def copy_one(step, filled, source):
            sample = rows_of(samples, step)
            one_guide, one_hole = (rows_of(each, sample)[None] for each in (guide, hole))
            places, colors, found = self._copy(one_guide, one_hole, seed)
            places = ops.pad(places, [[0, 0], [1, 0]]) + sample * np.array([1, 0, 0], "int32")
            filled = ops.scatter_update(filled, places, colors)
            return step + 1, filled, ops.scatter_update(source, places, found)

        _, filled, source = ops.while_loop(
            lambda step, *_: step < ops.shape(samples)[0],
            copy_one,
            (0, ops.clip(guide, -1.0, 1.0), own),
        )
        return composite(filled, image, hole), source

    def compute_output_spec(self, prediction, image, hole, seed=0, training=None):
        """Returns the specifications of `filled` and `source`."""
        return (
            keras.KerasTensor(prediction.shape, "float32"),
            keras.KerasTensor((*prediction.shape[:3], 2), "int32"),
        )

    def _copy(self, guide, hole, seed):
        """Rows and columns `(N, 2)` of the missing pixels of one sample, fill `(N, 3)`, source."""
        guide = 0.5 * guide + 0.5
        scale = Scale(guide, hole, FACTOR, seed)
        graph = Graph(scale, expected_roughness(scale, self.membrane))
        labels, energies = _prune(graph, graph.labels_of(frequent_offsets(scale.guide, scale.hole)))
        beliefs = _propagate(graph, labels, energies)
        best = _pick(labels, _least(beliefs, 1))

        nodes = Nodes(guide, hole)
        parent = graph.position(nodes.row // FACTOR, nodes.column // FACTOR)
        parent = ops.minimum(rows_of(graph.node, parent), graph.count - 1)
        copied = rows_of(rows_of(graph.is_usable, best), parent)
        row, column = (FACTOR * rows_of(steps, parent) for steps in graph.steps_to(best))
        best = nodes.labels_at(nodes.row + row, nodes.column + column)[:, None]
        best = ops.where(copied, best, nodes.here)
        joined = _join(nodes, best, gaussian_blur(1.0 - hole, TRUST_SIGMA))
        source = ops.where(copied, nodes.place(best), PAINTED)
        places = ops.stack([nodes.row, nodes.column], axis=1)
        # But for the node too many.
        return places[:-1], ops.clip(2.0 * joined - 1.0, -1.0, 1.0)[:-1], source[:-1]


def _prune(graph, labels):
    """The `LABELS` labels of least energy, `(N, LABELS)`, and their energies."""
    energies = graph.energies(labels)
    order = _least(energies, LABELS)
    return _pick(labels, order), _pick(energies, order)


def _propagate(graph, labels, energies):
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

    messages = ops.fori_loop(0, ROUNDS, one_round, ops.zeros_like(seams[..., 0]))
    return energies + ops.sum(messages, axis=0)


def _least(values, number):
    """`(N, number)` int32: columns of the least values of each row of `(N, L)`, sorted."""
    return ops.cast(ops.top_k(-values, number)[1], "int32")


def _pick(values, order):
    """Entries `(N, number)` of each row of `(N, L)`, by their columns."""
    count, width = ops.shape(values)
    index = order + width * ops.arange(count)[:, None]
    return rows_of(ops.reshape(values, (-1,)), index)


def _join(graph, labels, known_share):
    """Colors `(N, 3)` with the gradients of the copies, known pixels at the border.

    Args:
        graph: The nodes at the full resolution.
        labels: `(N, 1)` int32.
        known_share: `(1, H, W, 1)`, how much of the surroundings of each pixel is known.
    """
    theirs = rows_of(ops.pad(labels, [[0, 1], [0, 0]]), graph.neighbors)  # (4, N, 1)
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
    trust = rows_of(with_margin(ops.square(known_share), 0.0), graph.here[:, 0])
    screen = WEIGHTS.screen + WEIGHTS.trusted_screen * trust
    right_side = screen * guide + ops.sum(gradients, axis=0)
    degree = per_channel(screen + ops.sum(linked + bordered, axis=0), 3)

    def apply(values):
        beside = rows_of(ops.pad(values, [[0, 1], [0, 0]]), graph.neighbors)
        return degree * values - ops.sum(beside, axis=0)

    residual = right_side - apply(copies)

    def one_round(_, state):
        values, residual, direction, energy = state
        applied = apply(direction)
        length = energy / ops.maximum(ops.sum(direction * applied), 1e-12)
        values, residual = values + length * direction, residual - length * applied
        left = ops.sum(ops.square(residual))
        direction = residual + left / ops.maximum(energy, 1e-12) * direction
        return values, residual, direction, left

    state = (copies, residual, residual, ops.sum(ops.square(residual)))
    return ops.fori_loop(0, JOINING_ROUNDS, one_round, state)[0]


def own_places(hole):
    """`(B, H, W, 2)` int32: row and column of every known pixel, `PAINTED` of the others."""
    height, width = ops.shape(hole)[1:3]
    rows, columns = ops.arange(height)[:, None], ops.arange(width)[None]
    rows, columns = rows + ops.zeros_like(columns), columns + ops.zeros_like(rows)
    places = ops.cast(ops.stack([rows, columns], axis=-1), "int32")[None]
    known = 1 - ops.cast(per_channel(hole, 2), "int32")
    return known * (places - PAINTED) + PAINTED
