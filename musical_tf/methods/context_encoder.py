"""Context Encoder: features, and pictures, learned by predicting what is missing from its context.

A convolutional encoder down to one vector and a decoder from it to the center of the image, trained
with the squared error and an adversarial term.

The published network has one geometry: 128 x 128 pixels in, the 64 x 64 in their middle out. Here
it is shown a square window around each sample's own hole, resampled to 128 x 128, so that any hole
in an image of any size can be filled. Of a 128 x 128 image with a centered hole the window is the
image itself, pixel for pixel, and the network is the published one.

Reference:
    Pathak, Krähenbühl, Donahue, Darrell, Efros, "Context Encoders: Feature Learning by Inpainting",
    CVPR 2016.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import layers, ops

from musical_tf.conventions import Tensor, mask_image
from musical_tf.discriminators import dcgan_discriminator
from musical_tf.layers.blocks import Blocks
from musical_tf.losses import generator_adversarial_loss
from musical_tf.methods.base import MethodConfig, MethodGenerator, judge
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {
    "paper": {},
    "lite": {"width": 32, "bottleneck": 512, "discriminator_width": 32},
}
"""The publication and its code; half the channels and a short bottleneck, for two CPU cores."""

REGIONS = ("center", "any")

RECIPE: Mapping[str, dict] = {
    # The authors' code: 128 pixels, 64 photographs a step, 500 epochs, 2e-4 times 10 for the
    # encoder and decoder, which the squared error drives.
    "paper": {"image_size": 128, "batch_size": 64, "epochs": 500, "learning_rate": 2e-3},
    # No averaged weights: the statistics of batch normalization belong to the weights they were
    # taken with.
    "lite": {"learning_rate": 2e-3, "ema": 0.0},
}
"""What the training recipe of a preset differs in from the project's own of that name."""

FRAME = 128
"""Pixels a side of what the network sees."""

SMALLEST_PATCH = 16.0
"""Pixels of the image a side that `"center"` predicts at least, though the hole be a speck."""

INTERPOLATED = 1e-3
"""Share of missing pixels from which a resampled pixel counts as missing; below it is rounding."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture and objective; the defaults are the paper's.

    Attributes:
        region: `"center"`: the network predicts the middle of a window that is centered on the hole
            (Section 3.3, "central region"). `"any"`: the network sees the whole image and predicts
            all of it ("random region").
        overlap: Pixels of the 64 x 64 prediction that lie outside the hole, on each side, where the
            image has room for it (the authors' code: 4; the paper: 7, of a larger image). Of
            `"center"` only.
        width: Channels of the first convolutions.
        bottleneck: Length of the vector between encoder and decoder (supplement: 4000).
        known_weight: Weight of the squared error at known pixels of the prediction, beside 1 in the
            hole (the paper: 10 in the overlap). None: 10 for `"center"`, 1 for `"any"`, as in
            the authors' code.
        lambda_l2: Weight of the squared error (Section 5.1: 0.999).
        lambda_adversarial: Weight of the adversarial term (Section 5.1: 0.001).
        discriminator_width: Channels of the discriminator's first convolution.
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {"width": 1, "bottleneck": 1, "known_weight": 0, "discriminator_width": 1}

    region: str = "center"
    overlap: int = 4
    width: int = 64
    bottleneck: int = 4000
    known_weight: float | None = None
    lambda_l2: float = 0.999
    lambda_adversarial: float = 0.001
    discriminator_width: int = 64

    def __post_init__(self):
        super().__post_init__()
        if self.region not in REGIONS:
            raise ValueError(f"region must be one of {list(REGIONS)}, got {self.region!r}")
        if not 0 <= self.overlap < FRAME // 4:
            raise ValueError(
                f"overlap must be at least 0 and below {FRAME // 4}, got {self.overlap!r}"
            )

    @property
    def patch_size(self) -> int:
        """Pixels a side of what the network predicts: half of what it sees, or all of it."""
        return FRAME // 2 if self.region == "center" else FRAME


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The discriminator of predicted patches as `"patch"`; none when its term's weight is 0.

    The patches have one size, whatever `image_size` is.
    """
    if config.lambda_adversarial == 0:
        return {}
    return {"patch": dcgan_discriminator(config.patch_size, config.discriminator_width)}


@keras.saving.register_keras_serializable("musical_tf")
class ContextEncoder(MethodGenerator, keras.Model):
    """The network of the supplement's Figure 9, and the window it looks through.

    With w the width:

    1. A square window of the image, see `context_window`, is resampled to 128 x 128, its hole
       erased.
    2. Encoder: Conv 4x4 s2 with w, w, 2w, 4w, 8w channels, `(4, 4, 8w)`; Conv 4x4 valid, the
       bottleneck.
    3. Decoder: ConvT 4x4 valid, `(4, 4, 8w)`; ConvT 4x4 s2 with 4w, 2w, w (and w once more if all
       of the window is predicted); ConvT 4x4 s2 -> 3, tanh: the patch, `(64, 64, 3)` or
       `(128, 128, 3)`.
    4. The patch is resampled to its place in the image. Outside it the prediction is the image.

    Batch normalization (epsilon 1e-5, statistics moved by 0.1, scale from N(1, 0.02)) follows every
    convolution but the first and the last; then LeakyReLU(0.2) in the encoder and behind the
    bottleneck, ReLU in the decoder. There are no biases. Weights start from N(0, 0.02).

    Training needs at least two photographs a batch: over one, batch normalization of the bottleneck
    leaves nothing. Images have any size; arguments and result are otherwise those of
    `FunctionalGenerator`.

    Reference:
        Pathak et al., CVPR 2016, Section 3, Figure 9.
    """

    method = "context_encoder"
    config_class = Config
    size_multiple = 1

    def __init__(self, config: Config | Mapping, dtype=None, name: str = "context_encoder"):
        config = self.read_config(config)
        policy = keras.dtype_policies.get(dtype)
        super().__init__(name=name, dtype=policy)
        self.config = config
        self.policy = policy
        self.network = _encode_and_decode(config, policy)
        self.built = True  # whatever the image's size, the network looks at one

    def call(self, inputs, training=None, mask=None):
        image, hole = (ops.cast(each, "float32") for each in inputs)
        window = self.window_of(hole)
        patch = self._predict_patch(image, hole, window, training)
        return window.paste(patch, mask_image(image, hole))

    def training_outputs(self, inputs) -> dict[str, Tensor]:
        """The prediction, and the patch that the losses compare with the truth.

        Args:
            inputs: `[image, hole]`, where the image is the true one, under the hole too.

        Returns:
            `prediction`: what `call` returns; `patch`: `(B, S, S, 3)`, what the network predicts;
            `truth`: the same of the image; `patch_hole`: `(B, S, S, 1)`, 1 where a pixel is
            missing.

        Raises:
            ValueError: On a batch of one.
        """
        image, hole = (ops.convert_to_tensor(each, dtype="float32") for each in inputs)
        if image.shape[0] == 1:
            raise ValueError(
                "the Context Encoder trains on batches of at least 2 photographs, got 1; "
                "the batch normalization of the bottleneck makes one photograph all zeros"
            )
        window = self.window_of(hole)
        patch = self._predict_patch(image, hole, window, training=True)
        return {
            "prediction": window.paste(patch, mask_image(image, hole)),
            "patch": patch,
            "truth": window.cut_patch(image),
            "patch_hole": _is_missing(window.cut_patch(hole)),
        }

    def window_of(self, hole: Tensor) -> "Window":
        """Where the network looks for `(B, H, W, 1)` holes, see `context_window`."""
        return context_window(hole, self.config.region, self.config.overlap)

    def _predict_patch(self, image, hole, window, training):
        frame = window.cut_frame(mask_image(image, hole))
        frame = mask_image(frame, _is_missing(window.cut_frame(hole)))
        return self.network(frame, training=training)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs, training=None, mask=None):
        return keras.KerasTensor(tuple(inputs[0].shape), dtype="float32")


def _encode_and_decode(config, policy):
    """`(B, 128, 128, 3)` -> the patch, as a functional model."""
    block = Blocks(policy, use_bias=False, normalization="batch", random_scale=True)
    at_once: dict[str, Any] = {"size": 4, "padding": "valid"}  # from 4 x 4 to 1 x 1 and back
    width = config.width
    frame = keras.Input((FRAME, FRAME, 3), name="frame")
    features = frame
    for index, multiple in enumerate((1, 1, 2, 4, 8)):
        name = f"encoder{index + 1}"
        features = block.halve(features, multiple * width, name)
        if index > 0:
            features = block.normalize(features, name)
        features = block.leaky_relu(features, name)
    features = block.convolve(features, config.bottleneck, "bottleneck", **at_once)
    features = block.leaky_relu(block.normalize(features, "bottleneck"), "bottleneck")

    transposed = {"kind": layers.Conv2DTranspose, **at_once}
    features = block.convolve(features, 8 * width, "decoder1", **transposed)
    features = block.relu(block.normalize(features, "decoder1"), "decoder1")
    multiples = (4, 2, 1) if config.region == "center" else (4, 2, 1, 1)
    for index, multiple in enumerate(multiples):
        name = f"decoder{index + 2}"
        features = block.double(features, multiple * width, name)
        features = block.relu(block.normalize(features, name), name)
    features = block.double(features, 3, "output")
    patch = layers.Activation("tanh", dtype="float32", name="tanh")(features)
    return keras.Model(frame, patch, name="network")


@dataclasses.dataclass(frozen=True)
class Window:
    """A square of each image that the network looks at, and the square inside it that it predicts.

    Positions are in pixels from the image's upper left corner; they may lie outside it, where the
    image is continued by reflection. Both squares share their center.

    Attributes:
        rows, columns: `(B,)` float32, the center.
        side: `(B,)` float32, the window's side.
        patch_side: `(B,)` float32, the side of the predicted square.
        patch_size: Pixels a side that are predicted.
        height, width: The image's, ints or scalar tensors.
    """

    rows: Tensor
    columns: Tensor
    side: Tensor
    patch_side: Tensor
    patch_size: int
    height: int
    width: int

    def cut_frame(self, image: Tensor) -> Tensor:
        """The window of `(B, H, W, C)`, resampled to `(B, 128, 128, C)`."""
        return self._cut(image, self.side, FRAME)

    def cut_patch(self, image: Tensor) -> Tensor:
        """The predicted square of `(B, H, W, C)`, resampled to `(B, S, S, C)`."""
        return self._cut(image, self.patch_side, self.patch_size)

    def paste(self, patch: Tensor, image: Tensor) -> Tensor:
        """`(B, H, W, C)`: the patch, resampled, in its square; the image around it."""
        rows = self._paste_matrix(self.rows, self.height)
        columns = self._paste_matrix(self.columns, self.width)
        inside = ops.logical_and(
            self._is_inside(self.rows, self.height)[:, :, None, None],
            self._is_inside(self.columns, self.width)[:, None, :, None],
        )
        return ops.where(inside, _resample(patch, rows, columns), image)

    def _cut(self, image, side, size):
        scale = _column(side / size)
        steps = ops.arange(size, dtype="float32") + 0.5

        def matrix(centre, length):
            positions = _column(centre - side / 2) + steps * scale - 0.5
            last = ops.cast(length - 1, "float32")
            positions = last - ops.abs(last - ops.abs(positions))
            return _sampling_matrix(ops.clip(positions, 0.0, last), length, scale)

        rows, columns = matrix(self.rows, self.height), matrix(self.columns, self.width)
        return _resample(image, rows, columns)

    def _paste_matrix(self, centre, length):
        scale = _column(self.patch_size / self.patch_side)
        steps = ops.cast(ops.arange(length), "float32") + 0.5
        positions = (steps - _column(centre - self.patch_side / 2)) * scale - 0.5
        positions = ops.clip(positions, 0.0, self.patch_size - 1.0)
        return _sampling_matrix(positions, self.patch_size, scale)

    def _is_inside(self, centre, length):
        """`(B, length)` bool: whose pixels' centers lie in the predicted square."""
        steps = ops.cast(ops.arange(length), "float32") + 0.5
        return ops.abs(steps - _column(centre)) <= _column(self.patch_side / 2)


def context_window(hole: Tensor, region: str, overlap: int) -> Window:
    """Where the network looks, for each sample of a hole `(B, H, W, 1)`.

    `"center"`: the predicted square is centered on the hole's bounding box and holds it.
    1. Its side is that of the box, and as much more as leaves `overlap` of its 64 pixels on each
       side outside the hole. It is made smaller, but not smaller than the box, where the window
       would be larger than the image.
    2. It has at least 16 pixels, or half the shorter side of a smaller image: nothing is magnified
       more than four times.
    3. The window is twice as large.

    `"any"`: both squares are the smallest one around the whole image.

    An image without a hole gets the window of one that is all hole.
    """
    height, width = ops.shape(hole)[1:3]
    missing = hole[..., 0] > 0.5
    if region == "any":
        missing = ops.ones_like(missing)
    top, bottom = _extent(ops.any(missing, axis=2))
    left, right = _extent(ops.any(missing, axis=1))
    box = ops.maximum(bottom - top, right - left)  # (B,)
    patch_size = FRAME
    patch_side = side = box
    if region == "center":
        patch_size = FRAME // 2
        half = ops.cast(ops.minimum(height, width), "float32") / 2
        wanted = box * (patch_size / (patch_size - 2 * overlap))
        patch_side = ops.minimum(wanted, ops.maximum(box, half))
        patch_side = ops.maximum(patch_side, ops.minimum(half, SMALLEST_PATCH))
        side = 2 * patch_side
    centre = ((top + bottom) / 2, (left + right) / 2)
    return Window(*centre, side, patch_side, patch_size, height, width)


def _extent(occupied):
    """`(B, L)` bool -> first and one past the last True, `(B,)` float32; the whole without any."""
    length = ops.shape(occupied)[1]
    positions = ops.arange(length)
    past = ops.max(ops.where(occupied, positions + 1, 0), axis=1)
    first = ops.min(ops.where(occupied, positions, length), axis=1)
    is_empty = past == 0
    first, past = ops.where(is_empty, 0, first), ops.where(is_empty, length, past)
    return ops.cast(first, "float32"), ops.cast(past, "float32")


def _sampling_matrix(positions, length, scale):
    """Weights `(B, N, length)` with which `(B, N)` samples read `length` pixels.

    Bilinear; where pixels are closer than samples, over as many more of them as it takes not to
    alias. `scale` `(B, 1)` is the distance of samples in pixels. Rows sum to one.
    """
    pixels = ops.cast(ops.arange(length), "float32")
    reach = ops.maximum(scale, 1.0)[..., None]
    weights = ops.maximum(1.0 - ops.abs(positions[..., None] - pixels) / reach, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def _resample(image, rows, columns):
    """`(B, H, W, C)` -> `(B, N, M, C)` by `(B, N, H)` and `(B, M, W)`."""
    batch, height, width, _ = ops.shape(image)
    channels = image.shape[-1]
    stacked = ops.matmul(rows, ops.reshape(image, (batch, height, width * channels)))
    stacked = ops.reshape(stacked, (batch, ops.shape(rows)[1], width, channels))
    return ops.matmul(columns[:, None], stacked)


def _is_missing(hole):
    return ops.cast(hole > INTERPOLATED, "float32")


def _column(values):
    return ops.reshape(values, (-1, 1))


class Objective(BaseObjective):
    """The joint loss, Eq. (3), as named terms: `l2` (Eq. 1) and `adversarial` (Eq. 2)."""

    def __init__(self, config: Config):
        weights = {"l2": config.lambda_l2, "adversarial": config.lambda_adversarial}
        super().__init__(weights)
        default = 10.0 if config.region == "center" else 1.0
        self.known_weight = default if config.known_weight is None else config.known_weight

    def outputs(self, generator, batch):
        """See `ContextEncoder.training_outputs`."""
        return generator.training_outputs([batch["image"], batch["hole"]])

    def terms(self, batch, prediction, discriminators):
        patch = prediction["patch"]
        compared = prediction["truth"], patch, prediction["patch_hole"]
        return {
            "l2": lambda: weighted_l2_loss(*compared, self.known_weight),
            "adversarial": lambda: generator_adversarial_loss(
                discriminators["patch"](patch, training=True)
            ),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        return judge(discriminators, "patch", prediction["truth"], prediction["patch"])


def weighted_l2_loss(y_true: Tensor, y_pred: Tensor, hole: Tensor, known_weight: float) -> Tensor:
    """Eq. (1) with a weight on the overlap: mean of `w * (y_true - y_pred)^2`, float32.

    w is 1 in the hole and `known_weight` outside. `y_true` and `y_pred` are `(B, H, W, C)` in
    [-1, 1], the hole is `(B, H, W, 1)`.
    """
    error = ops.cast(y_true, "float32") - ops.cast(y_pred, "float32")
    weight = ops.where(hole > 0.5, 1.0, known_weight)
    return ops.mean(ops.square(error) * weight)


build_generator = ContextEncoder
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
