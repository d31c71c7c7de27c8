"""DeepFill v1: generative inpainting with contextual attention.

Two networks in a row. The first draws a coarse filling from the reconstruction loss alone; the
second sees it pasted into the photograph and refines it along two branches, one of dilated
convolutions and one with an attention layer that copies from the known part. Two Wasserstein
critics, of the whole image and of the hole's surroundings, judge the result.

Reference:
    Yu, Lin, Yang, Shen, Lu, Huang, "Generative Image Inpainting with Contextual Attention",
    CVPR 2018.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import keras
from keras import layers, ops

from musical_tf.conventions import Tensor, composite, downsample_hole, mask_image
from musical_tf.discriminators import wasserstein_critic
from musical_tf.layers import MirrorPadding2D, StridedContextualAttention
from musical_tf.layers.attention_maps import AttentionMap
from musical_tf.losses.local_window import crop_window, hole_window
from musical_tf.losses.reconstruction import discounted_hole, region_l1_loss
from musical_tf.losses.wasserstein import critic_loss, generator_critic_loss, gradient_penalty
from musical_tf.methods.base import FunctionalGenerator, MethodConfig
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {"paper": {}, "lite": {"width": 16, "critic_width": 16}}
"""The publication; small enough for two CPU cores."""

DOWNSAMPLING = 4
"""Pixels per feature position, along each side, between the strided and the upsampled layers."""

DILATIONS = (2, 4, 8, 16)
"""Of the four dilated convolutions in a row."""

GLOBAL_WIDTHS = (1, 2, 4, 4)
LOCAL_WIDTHS = (1, 2, 4, 8)
"""Channels of the critics' four layers, as multiples of `critic_width`."""

RECIPE = {
    "paper": {
        "image_size": 256,
        "mask": "box",
        "batch_size": 16,
        "learning_rate": 1e-4,
        "beta_1": 0.5,
        "beta_2": 0.9,
    },
    "lite": {"mask": "box", "learning_rate": 2e-4, "beta_1": 0.5, "beta_2": 0.9},
}
"""What the paper and its authors' code say of the training, by preset."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture and objective; the defaults are the paper's.

    Attributes:
        width: Channels of the outermost layers of both networks.
        attention: Whether the attention layer is there at all; its branch stays.
        attention_rate: Step of the positions that are matched (Section 4.1, "Memory efficiency").
        patch_size: Side of the patches that are compared.
        fuse_size: Window of the attention's propagation (Section 4.1).
        softmax_scale: Scale of the scores before the softmax.
        attention_implementation: `"fast"` or `"reference"`, see `StridedContextualAttention`.
        attention_max_scores: Bound on the attention's memory, None for none, see
            `ContextualAttention`.
        critic_width: Channels of the critics' first layers.
        critic_steps: Updates of the critics an update of the generator (Algorithm 1).
        discount: Weight of a missing pixel per step from the known ones (Section 3: 0.9).
        lambda_l1: Weight of the discounted mean absolute error in the hole.
        lambda_known: Weight of the mean absolute error outside it.
        coarse_factor: Multiplies both for the coarse network's output.
        lambda_adversarial: Weight of each critic in the generator's loss.
        lambda_penalty: Weight of the gradient penalty in the critics' loss (Section 3).
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {"width": 2, "critic_width": 1, "critic_steps": 1, "coarse_factor": 0}

    width: int = 32
    attention: bool = True
    attention_rate: int = 2
    patch_size: int = 3
    fuse_size: int = 3
    softmax_scale: float = 10.0
    attention_implementation: str = "fast"
    attention_max_scores: int | None = None
    critic_width: int = 64
    critic_steps: int = 5
    discount: float = 0.9
    lambda_l1: float = 1.2
    lambda_known: float = 1.2
    coarse_factor: float = 1.2
    lambda_adversarial: float = 0.001
    lambda_penalty: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount must be above 0 and <= 1, got {self.discount!r}")


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The critics by name, `global` and `local`; none when their weight is 0.

    The local one sees a square of half the image's side, which is the paper's 128 of 256.
    """
    if config.lambda_adversarial == 0:
        return {}

    def critic(size, multiples):
        return wasserstein_critic(size, [config.critic_width * each for each in multiples])

    return {
        "global": critic(image_size, GLOBAL_WIDTHS),
        "local": critic(image_size // 2, LOCAL_WIDTHS),
    }


@keras.saving.register_keras_serializable("musical_tf")
class DeepFillGenerator(FunctionalGenerator):
    """The two networks of Figures 2 and 4.

    With c the width and h the image's height; convolutions are 3 x 3 unless said:

    1. Coarse network, on <image, 1, hole>:
        Conv 5x5 `(h, c)`, Conv s2 `(h/2, 2c)`, Conv `(h/2, 2c)`, Conv s2 `(h/4, 4c)`, 2 Conv,
        4 Conv of dilation 2, 4, 8, 16, 2 Conv `(h/4, 4c)`, then the decoder.
    2. Its output is pasted into the hole, and <pasted, 1, hole> goes to two branches:
        a. dilated: Conv 5x5 `(h, c)`, Conv s2 `(h/2, c)`, Conv `(h/2, 2c)`, Conv s2 `(h/4, 2c)`,
           2 Conv `(h/4, 4c)`, 4 Conv of dilation 2, 4, 8, 16.
        b. attention: Conv 5x5 `(h, c)`, Conv s2 `(h/2, c)`, Conv `(h/2, 2c)`, Conv s2 `(h/4, 4c)`,
           2 Conv `(h/4, 4c)`, **contextual attention**, 2 Conv.
    3. Both are concatenated `(h/4, 8c)`, 2 Conv `(h/4, 4c)`, then the decoder.

    Decoder: nearest neighbors doubled, 2 Conv `(h/2, 2c)`, doubled, Conv `(h, c)`,
    Conv `(h, c/2)`, Conv `(h, 3)`, clipped to [-1, 1].

    ELU after every convolution, but ReLU before the attention and none before clipping. No
    normalization. Borders are padded by reflection. Convolutions have biases and start from
    Glorot's uniform distribution.

    Arguments and result: see `FunctionalGenerator`; the result is the refined prediction.

    Reference:
        Yu et al., CVPR 2018, Sections 3 and 4, Figures 2 to 4; widths as in the authors' code.
    """

    method = "deepfill_v1"
    config_class = Config

    @staticmethod
    def connect(image, hole, config, policy):
        """Both networks."""
        return _networks(image, hole, config, policy), {}

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training, mask=mask)["prediction"]

    def training_outputs(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """`prediction` and `coarse`, the raw outputs of the second and the first network.

        Each is `(B, H, W, 3)` float32 in [-1, 1]; `inputs` are those of a call.
        """
        return super().call(inputs, training=True)

    def attention_sources(self, inputs: list[Tensor]) -> Tensor:
        """The best match of each missing position, `(B, H / 4, W / 4, 2)` int32, row and column.

        See `StridedContextualAttention.attention_sources`.

        Raises:
            ValueError: If the configuration has no attention.
        """
        attention, seen = self._attended(inputs)
        return attention.attention_sources(*seen)

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """The map `"3x3"` of `(B, H / 4, W / 4)` positions, see `StridedContextualAttention`."""
        attention, seen = self._attended(inputs)
        return attention.attention_maps(*seen, DOWNSAMPLING)

    def _attended(self, inputs):
        """The attention layer and what it is called with."""
        if not self.config.attention:
            raise ValueError("this generator has no attention: its config has attention=False")
        attention = self.get_layer("attention")
        inputs = [ops.convert_to_tensor(each) for each in inputs]
        self.check_size(inputs[0])
        return attention, keras.Model(self.inputs, attention.input)(inputs, training=False)

    def compute_output_spec(self, inputs, training=None, mask=None):
        return super().compute_output_spec(inputs, training=training, mask=mask)["prediction"]

    @property
    def size_multiple(self) -> int:
        """Of the attention's positions."""
        return DOWNSAMPLING * self.config.attention_rate


def _networks(image, hole, config, policy):
    block = _Blocks(policy, DOWNSAMPLING * config.attention_rate)
    c = config.width
    known = mask_image(image, hole)

    features = block.stem(known, hole, "coarse", (c, 2 * c, 2 * c, 4 * c))
    features = block.dilated(features, 4 * c, "coarse")
    features = block.convolve_all(features, "coarse", 11, (4 * c, 4 * c))
    coarse = block.decode(features, c, "coarse")

    pasted = composite(coarse, known, hole)
    dilated = block.stem(pasted, hole, "dilated", (c, c, 2 * c, 2 * c))
    dilated = block.dilated(dilated, 4 * c, "dilated")

    attended = block.stem(pasted, hole, "attention", (c, c, 2 * c, 4 * c), "relu")
    if config.attention:
        attended = StridedContextualAttention(
            config.attention_rate,
            config.patch_size,
            config.fuse_size,
            config.softmax_scale,
            config.attention_implementation,
            config.attention_max_scores,
            dtype=policy,
            name="attention",
        )(attended, downsample_hole(hole, DOWNSAMPLING))
    attended = block.convolve_all(attended, "attention", 9, (4 * c, 4 * c))

    features = layers.Concatenate(dtype=policy, name="branches")([dilated, attended])
    features = block.convolve_all(features, "refined", 11, (4 * c, 4 * c))
    return {"prediction": block.decode(features, c, "refined"), "coarse": coarse}


class _Blocks:
    """The few kinds of box in Figure 2. `minimum_side` follows the resolution down and up."""

    def __init__(self, policy, size_multiple):
        self.policy = policy
        self.size_multiple = size_multiple
        self.minimum_side = size_multiple

    def convolve(self, features, filters, name, size=3, strides=1, dilation=1, activation="elu"):
        padding = dilation * (size // 2)
        features = MirrorPadding2D(
            padding, self.minimum_side, dtype=self.policy, name=f"{name}_pad"
        )(features)
        self.minimum_side //= strides
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="valid",
            dilation_rate=dilation,
            activation=activation,
            kernel_initializer="glorot_uniform",
            dtype=self.policy,
            name=name,
        )(features)

    def convolve_all(self, features, name, first, widths):
        """3 x 3 convolutions in a row, numbered from `first`."""
        for index, width in enumerate(widths, start=first):
            features = self.convolve(features, width, f"{name}_conv{index}")
        return features

    def stem(self, image, hole, name, widths, last_activation="elu"):
        """The six layers that all three encoders begin with, down to a quarter of the side."""
        self.minimum_side = self.size_multiple
        features = ops.concatenate([image, ops.ones_like(hole), hole], axis=-1)  # (B, H, W, 5)
        first, second, third, fourth = widths
        features = self.convolve(features, first, f"{name}_conv1", size=5)
        features = self.convolve(features, second, f"{name}_conv2", strides=2)
        features = self.convolve(features, third, f"{name}_conv3")
        features = self.convolve(features, fourth, f"{name}_conv4", strides=2)
        features = self.convolve(features, 4 * first, f"{name}_conv5")
        return self.convolve(features, 4 * first, f"{name}_conv6", activation=last_activation)

    def dilated(self, features, filters, name):
        for index, dilation in enumerate(DILATIONS, start=7):
            features = self.convolve(features, filters, f"{name}_conv{index}", dilation=dilation)
        return features

    def decode(self, features, width, name):
        features = self.double(features, f"{name}_double1")
        features = self.convolve_all(features, name, 13, (2 * width, 2 * width))
        features = self.double(features, f"{name}_double2")
        features = self.convolve_all(features, name, 15, (width, width // 2))
        features = self.convolve(features, 3, f"{name}_conv17", activation=None)
        return ops.clip(ops.cast(features, "float32"), -1.0, 1.0)

    def double(self, features, name):
        self.minimum_side *= 2
        return layers.UpSampling2D(2, interpolation="nearest", dtype=self.policy, name=name)(
            features
        )


class Objective(BaseObjective):
    """The losses of Section 3, as named terms.

    The generator's: `hole` and `coarse_hole` (spatially discounted mean absolute error of the two
    outputs in the hole), `known` and `coarse_known` (the same outside, not discounted),
    `adversarial_global` and `adversarial_local`. The critics': `critic_global`, `critic_local`, and
    `penalty_global`, `penalty_local`, weighted.

    The critics judge the refined prediction pasted into the photograph; the local one judges the
    square of `losses.local_window.hole_window`.
    """

    def __init__(self, config: Config):
        weights = {
            "hole": config.lambda_l1,
            "coarse_hole": config.lambda_l1 * config.coarse_factor,
            "known": config.lambda_known,
            "coarse_known": config.lambda_known * config.coarse_factor,
            "adversarial_global": config.lambda_adversarial,
            "adversarial_local": config.lambda_adversarial,
        }
        super().__init__(weights)
        self.discriminator_steps = config.critic_steps
        self.discount = config.discount
        self.lambda_penalty = config.lambda_penalty

    def outputs(self, generator, batch):
        """See `DeepFillGenerator.training_outputs`."""
        return generator.training_outputs([batch["image"], batch["hole"]])

    def terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        refined, coarse = prediction["prediction"], prediction["coarse"]

        @functools.cache
        def weight():
            return discounted_hole(hole, self.discount)

        @functools.cache
        def views():
            return _views(hole, discriminators, composite(refined, image, hole))

        def adversarial(name):
            return generator_critic_loss(discriminators[name](views()[name][0], training=True))

        return {
            "hole": lambda: region_l1_loss(image, refined, hole, weight()),
            "coarse_hole": lambda: region_l1_loss(image, coarse, hole, weight()),
            "known": lambda: region_l1_loss(image, refined, 1.0 - hole),
            "coarse_known": lambda: region_l1_loss(image, coarse, 1.0 - hole),
            "adversarial_global": lambda: adversarial("global"),
            "adversarial_local": lambda: adversarial("local"),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        pasted = composite(ops.stop_gradient(prediction["prediction"]), image, hole)
        views = _views(hole, discriminators, image, pasted, hole)
        terms, penalties = {}, {}
        for name, (real, fake, missing) in views.items():
            critic = discriminators[name]
            scores = critic(ops.concatenate([real, fake], axis=0), training=True)
            terms[f"critic_{name}"] = critic_loss(*ops.split(scores, 2, axis=0))
            if self.lambda_penalty > 0:
                fraction = keras.random.uniform(
                    (ops.shape(real)[0], 1, 1, 1), dtype="float32", seed=critic.seed_generator
                )
                penalties[f"penalty_{name}"] = self.lambda_penalty * gradient_penalty(
                    functools.partial(critic, training=True), real, fake, fraction, missing
                )
        return {**terms, **penalties}


def _views(hole, discriminators, *maps):
    """What each critic sees of some maps: the whole, and the hole's square."""
    if not discriminators:
        return {}
    size = discriminators["local"].input_shape[1]
    window = hole_window(hole, size)
    return {"global": maps, "local": [crop_window(each, window, size) for each in maps]}


build_generator = DeepFillGenerator
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
