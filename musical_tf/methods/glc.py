"""GLC: globally and locally consistent image completion.

A fully convolutional completion network with dilated convolutions, trained in three phases: alone
with the squared error in the hole, then its discriminator alone, then both together. The
discriminator sees the whole completed image and a crop around the hole, and gives one score.

Reference:
    Iizuka, Simo-Serra, Ishikawa, "Globally and Locally Consistent Image Completion", ACM
    Transactions on Graphics 36(4), SIGGRAPH 2017.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import keras
from keras import layers, ops

from musical_tf.conventions import Tensor, composite, mask_image
from musical_tf.discriminators import local_global_discriminator
from musical_tf.layers.blocks import Blocks
from musical_tf.losses import discriminator_loss, generator_adversarial_loss
from musical_tf.losses.local_window import crop_window, hole_window
from musical_tf.losses.reconstruction import hole_l2_loss
from musical_tf.methods.base import FunctionalGenerator, MethodConfig
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {
    "paper": {},
    "lite": {
        "width": 32,
        "completion_steps": 1_800,
        "discriminator_only_steps": 200,
        "discriminator_width": 16,
        "discriminator_features": 256,
    },
}
"""The publication; half the channels, and phases that fit 10,000 steps."""

RECIPE: Mapping[str, dict] = {
    # Section 4: 500,000 steps of 96 photographs at 256 pixels, one random rectangle each.
    "paper": {"batch_size": 96, "epochs": None, "steps": 500_000, "mask": "box"},
    # The same proportions of the three phases. No averaged weights: the statistics of batch
    # normalization belong to the weights they were taken with.
    "lite": {"epochs": None, "steps": 10_000, "learning_rate": 1e-3, "ema": 0.0},
}
"""What the training recipe of a preset differs in from the project's own of that name."""

SIZE_MULTIPLE = 4
"""The completion network halves the resolution twice."""

DILATIONS = (2, 4, 8, 16)
"""Of the four dilated convolutions."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture, objective and phases; the defaults are the paper's.

    Attributes:
        width: Channels of the first convolution (Table 1: 64); the widest have four times as many.
        alpha: Weight of the adversarial term beside the squared error (Eq. 4; Section 4: 0.0004).
            0 trains the completion network alone, without phases.
        completion_steps: Steps of the first phase, the completion network alone (Section 4, T_C).
        discriminator_only_steps: Steps of the second, the discriminator alone (Section 4, T_D).
            After it both are trained, to the end of the run (T_train in all).
        discriminator_width: Channels of the discriminator's first convolutions (Table 2).
        discriminator_features: Length of the vector each of its two branches gives (Table 2).
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {
        "width": 2,
        "alpha": 0,
        "completion_steps": 0,
        "discriminator_only_steps": 0,
        "discriminator_width": 1,
        "discriminator_features": 1,
    }

    width: int = 64
    alpha: float = 4e-4
    completion_steps: int = 90_000
    discriminator_only_steps: int = 10_000
    discriminator_width: int = 64
    discriminator_features: int = 1024


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The context discriminator as `"context"`; none when `alpha` is 0.

    Its crop has half the side of the training images (Section 3.3).
    """
    if config.alpha == 0:
        return {}
    context = local_global_discriminator(
        image_size, image_size // 2, config.discriminator_width, config.discriminator_features
    )
    return {"context": context}


@keras.saving.register_keras_serializable("musical_tf")
class CompletionNetwork(FunctionalGenerator):
    """The completion network of Table 1.

    With w the width and h the image's height:

    1. Conv 5x5: `(h, w)`.
    2. Conv 3x3 s2, Conv 3x3: `(h/2, 2w)`.
    3. Conv 3x3 s2, two Conv 3x3, Conv 3x3 of dilation 2, 4, 8 and 16, two Conv 3x3: `(h/4, 4w)`.
    4. ConvT 4x4 s2, Conv 3x3: `(h/2, 2w)`.
    5. ConvT 4x4 s2, `(h, w)`; Conv 3x3, `(h, w/2)`.
    6. Conv 3x3 -> 3, sigmoid, brought from [0, 1] to [-1, 1].

    Batch normalization (epsilon 1e-5, statistics moved by 0.1) and ReLU follow every convolution
    but the last. Only the last has a bias. Weights start from He's normal distribution. The network
    sees the image with its hole erased, and the hole.

    Arguments and result: see `FunctionalGenerator`.

    Reference:
        Iizuka et al., SIGGRAPH 2017, Section 3.2, Table 1.
    """

    method = "glc"
    config_class = Config
    size_multiple = SIZE_MULTIPLE

    @staticmethod
    def connect(image, hole, config, policy):
        """Table 1."""
        return _complete(image, hole, config.width, policy), {}


def _complete(image, hole, width, policy):
    block = Blocks(policy, initializer="he_normal", use_bias=False, normalization="batch")

    def activate(features, name):
        return block.relu(block.normalize(features, name), name)

    def convolve(features, filters, name, size=3, strides=1):
        return activate(block.convolve(features, filters, name, size, strides), name)

    features = ops.concatenate([mask_image(image, hole), hole], axis=-1)  # (B, H, W, 4)
    features = convolve(features, width, "full1", size=5)
    features = convolve(features, 2 * width, "half1", strides=2)
    features = convolve(features, 2 * width, "half2")
    features = convolve(features, 4 * width, "quarter1", strides=2)
    features = convolve(features, 4 * width, "quarter2")
    features = convolve(features, 4 * width, "quarter3")
    for dilation in DILATIONS:
        name = f"dilated{dilation}"
        features = activate(block.dilate(features, 4 * width, name, dilation), name)
    features = convolve(features, 4 * width, "quarter4")
    features = convolve(features, 4 * width, "quarter5")
    features = activate(block.double(features, 2 * width, "half3"), "half3")
    features = convolve(features, 2 * width, "half4")
    features = activate(block.double(features, width, "full2"), "full2")
    features = convolve(features, width // 2, "full3")
    features = block.convolve(features, 3, "output", use_bias=True)
    prediction = layers.Activation("sigmoid", dtype="float32", name="sigmoid")(features)
    return 2.0 * prediction - 1.0


class Objective(BaseObjective):
    """Squared error in the hole, Eq. (2), and the adversarial term, Eq. (3), in three phases.

    The terms are `mse` and, unless `alpha` is 0, `adversarial`. The discriminator is shown images
    whose known pixels are the photograph's own.
    """

    def __init__(self, config: Config):
        super().__init__({"mse": 1.0, "adversarial": config.alpha})
        self.config = config

    def phase(self, step: Tensor) -> dict[str, Tensor]:
        """The generator alone, then the discriminator alone, then both; see `Config`."""
        first, both = self._boundaries(step)
        return {"generator": ops.logical_or(ops.logical_not(first), both), "discriminators": first}

    def phase_weights(self, step: Tensor) -> dict[str, Tensor]:
        """`generator_weights` with the adversarial term at 0 until both sides are trained."""
        if "adversarial" not in self.generator_weights:
            return dict(self.generator_weights)
        _, both = self._boundaries(step)
        return {
            "mse": ops.convert_to_tensor(1.0, dtype="float32"),
            "adversarial": self.config.alpha * ops.cast(both, "float32"),
        }

    def _boundaries(self, step):
        """Whether the first phase is over, and whether the second is."""
        if self.config.alpha == 0:  # there is no discriminator to wait for
            return ops.zeros_like(step) > 0, ops.zeros_like(step) > 0
        end_of_first = self.config.completion_steps
        return step >= end_of_first, step >= end_of_first + self.config.discriminator_only_steps

    def terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        return {
            "mse": lambda: hole_mse_loss(image, prediction, hole),
            "adversarial": lambda: generator_adversarial_loss(
                _judge(discriminators["context"], composite(prediction, image, hole), hole)
            ),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        """The term of the discriminator's loss.

        A photograph is cropped where another sample of the batch has its hole: the random M_d of
        Section 3.4, which has nothing to do with the photograph.
        """
        if not discriminators:
            return {}
        image, hole = batch["image"], batch["hole"]
        completed = composite(ops.stop_gradient(prediction), image, hole)
        real = _judge(discriminators["context"], image, ops.roll(hole, 1, axis=0))
        fake = _judge(discriminators["context"], completed, hole)
        return {"discriminator": discriminator_loss(real, fake)}


def hole_mse_loss(y_true: Tensor, y_pred: Tensor, hole: Tensor) -> Tensor:
    """Eq. (2): the mean over all pixels of `hole * (y_true - y_pred)^2`, in units of [0, 1].

    The paper's images are in [0, 1], where an error is half of ours; `alpha` weighs the adversarial
    term against that. `(B, H, W, C)` float in [-1, 1] and a hole `(B, H, W, 1)` -> float32 scalar.
    A larger hole gives a larger loss.
    """
    return 0.25 * hole_l2_loss(y_true, y_pred, hole)


def _judge(discriminator, image, hole):
    """Logits of the image and of its square around the hole's center."""
    size = discriminator.inputs[0].shape[1]
    crop = crop_window(image, hole_window(hole, size), size)
    return discriminator([crop, image], training=True)


build_generator = CompletionNetwork
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
