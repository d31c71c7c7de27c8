"""CSA: coherent semantic attention for image inpainting.

Two U-Nets one after the other: a rough one, and one that refines its result, in whose encoder the
coherent semantic attention fills the hole of the 1/8 map position by position. Trained with L1 on
both results, a consistency loss that pulls the attention's and the decoder's features towards
VGG16's of the true image, and two relativistic discriminators, one of images and one of features.

Reference:
    Liu, Jiang, Xiao, Yang, "Coherent Semantic Attention for Image Inpainting", ICCV 2019.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import keras
from keras import layers, ops

from musical_tf.conventions import Tensor, composite, downsample_hole, mask_image
from musical_tf.discriminators import feature_patch_discriminator, patch_discriminator
from musical_tf.layers.attention_maps import AttentionMap
from musical_tf.layers.coherent_attention import (
    CoherentSemanticAttention,
    attention_maps,
    attention_sources,
)
from musical_tf.layers.cropping import CropLike
from musical_tf.losses import hole_l1_loss, l1_loss
from musical_tf.losses.consistency import consistency_loss
from musical_tf.losses.relativistic import (
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from musical_tf.losses.vgg16 import VGG16Activations
from musical_tf.methods.base import FunctionalGenerator, MethodConfig
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {
    "paper": {},
    "lite": {
        "width": 32,
        "width_limit": 4,
        "levels": 5,
        "lambda_hole": 500.0,
        "discriminator_width": 16,
    },
}
"""The publication; small enough for two CPU cores, for 128 pixels."""

RECIPE: Mapping[str, dict] = {
    # Adam 2e-4, beta_1 0.5, one photograph a step. The authors' code keeps the rate for 20 epochs
    # and brings it to 0 over 100 more; a cosine stands for both.
    "paper": {"batch_size": 1, "epochs": 120, "schedule": "cosine"},
    "lite": {},
}
"""What the training recipe of a preset differs in from the project's own of that name."""

ATTENTION_LEVEL = 3
"""The attention stands in the encoder, in front of this level's normalisation."""

ATTENTION_FACTOR = 2**ATTENTION_LEVEL
"""Pixels a side that one position of the attention's map stands for."""

TARGET_CHANNELS = 512
"""Channels of VGG16's relu4_3, what the consistency loss compares with."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture and objective; the defaults are the paper's, its gaps filled by its code.

    Attributes:
        width: Channels of the outermost level of both networks.
        width_limit: Channels of the widest level, as a multiple of `width`.
        levels: Convolutions that halve the resolution, in both networks (the U-Net of pix2pix has
            8, from 256 pixels to one position).
        attention: Whether the coherent semantic attention is there at all.
        attention_max_scores: Bound on the attention's memory, None for none, see
            `CoherentSemanticAttention`.
        lambda_l1: Weight of the mean absolute error of each of the two whole raw outputs.
        lambda_hole: Weight of the mean absolute error of both in the hole (not in the paper).
        lambda_consistency: Weight of the consistency loss; 0.01 of that of L1.
        lambda_adversarial: Weight of each adversarial term; 0.002 of that of L1.
        feature_normalization: `"imagenet"` or `"none"`, what VGG16 is fed.
        feature_weights: `"torchvision"` or a file, see `VGG16Activations`.
        discriminator_width: Channels of the patch discriminator's first layer; the feature patch
            discriminator has eight times as many in all of its.
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {
        "width": 1,
        "width_limit": 1,
        "levels": ATTENTION_LEVEL + 1,
        "discriminator_width": 1,
    }

    width: int = 64
    width_limit: int = 8
    levels: int = 8
    attention: bool = True
    attention_max_scores: int | None = None
    lambda_l1: float = 100.0
    lambda_hole: float = 0.0
    lambda_consistency: float = 1.0
    lambda_adversarial: float = 0.2
    feature_normalization: str = "imagenet"
    feature_weights: str = "torchvision"
    discriminator_width: int = 64

    def __post_init__(self):
        super().__post_init__()
        channels = _widths(self)[ATTENTION_LEVEL]
        if self.lambda_consistency and TARGET_CHANNELS % channels:
            raise ValueError(
                f"the attention's channels, width x min({ATTENTION_FACTOR}, width_limit), must "
                f"divide the {TARGET_CHANNELS} of the consistency loss, received: {channels}; "
                "without that loss (lambda_consistency=0) they may be any number"
            )


def build_generator(config: Config, dtype: str | None = None) -> "CSAGenerator":
    """The generator of a configuration; `dtype` is a Keras policy, None the global one."""
    return CSAGenerator(config, dtype=dtype)


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The discriminators of images, `"patch"`, and of VGG16's relu3_3, `"feature_patch"`.

    None when the weight of the adversarial terms is 0.

    Raises:
        ValueError: If images of this size leave the feature patch discriminator no score.
    """
    if config.lambda_adversarial == 0:
        return {}
    if image_size < 64:
        raise ValueError(
            "CSA's feature patch discriminator needs images of at least 64 x 64 pixels, received: "
            f"{image_size}; train at a larger image size, or without it (lambda_adversarial=0)"
        )
    return {
        "patch": patch_discriminator(
            config.discriminator_width, normalization="instance", use_bias=True
        ),
        "feature_patch": feature_patch_discriminator(8 * config.discriminator_width),
    }


def build_objective(config: Config) -> "Objective":
    """The training objective."""
    return Objective(config)


@keras.saving.register_keras_serializable("musical_tf")
class CSAGenerator(FunctionalGenerator):
    """The rough network and the one that refines its result.

    With w the width, h the image's height and L the number of levels; a map of level l has
    min(2^l, `width_limit`) w channels in the refinement network, min(2^(l-1), `width_limit`) w in
    the rough one, and h / 2^l rows.

    The rough network is pix2pix's, on the image with its hole erased:

    1. Down, level 1: Conv 4x4 s2; levels 2 to L - 1: LeakyReLU(0.2), Conv 4x4 s2, IN; level L:
       LeakyReLU(0.2), Conv 4x4 s2.
    2. Up, levels L to 2: ReLU, ConvT 4x4 s2, IN, concatenated with what entered the level on the
       way down; level 1: ReLU, ConvT 4x4 s2 -> 3, tanh.

    The refinement network takes the rough result in the hole of the image, and the image with its
    hole erased, 6 channels:

    3. Conv 3x3 -> w.
    4. Down, levels 1 to L - 1: LeakyReLU(0.2), Conv 4x4 s2 dilation 2 with the channels it has, IN,
       LeakyReLU(0.2), Conv 3x3, IN; level L: LeakyReLU(0.2), Conv 4x4 s2 dilation 2. At level 3,
       32 x 32 x 512 of 256 x 256 pixels, `CoherentSemanticAttention` stands in front of the last
       IN.
    5. Up, level L: ReLU, ConvT 4x4 s2, IN; levels L - 1 to 1: ReLU, Conv 3x3 to the channels of the
       level above, IN, ReLU, ConvT 4x4 s2, IN; each concatenated with what entered the level.
    6. ReLU, Conv 3x3 -> 3.

    IN is instance normalisation, affine, epsilon 1e-5. Convolutions have biases and start from
    N(0, 0.02). Maps of odd sides are halved upwards, and cropped when they are doubled again.

    No gradient passes from the refinement to the rough network, which learns from its own L1 alone.

    Arguments and result: see `FunctionalGenerator`; the result is clipped to [-1, 1].

    Reference:
        Liu et al., ICCV 2019.
    """

    method = "csa"
    config_class = Config
    size_multiple = ATTENTION_FACTOR

    @staticmethod
    def connect(image, hole, config, policy):
        """Both networks, with the features that the losses and the attention compare."""
        masked = mask_image(image, hole)
        rough = _rough_network(masked, config, policy)
        filled = composite(ops.stop_gradient(rough), masked, hole)
        taps = _refinement_network(filled, masked, hole, config, policy)
        return ops.clip(taps["prediction"], -1.0, 1.0), {"rough": rough, **taps}

    def training_outputs(self, inputs) -> dict[str, Tensor]:
        """What the losses compare.

        Args:
            inputs: `[image, hole]` as for a call.

        Returns:
            `prediction`: what `call` returns before it is clipped, so that a gradient comes back
            from beyond -1 and 1. `rough`: the rough network's, float32 in [-1, 1]. `coherent` and
            `decoded`: `(B, H/8, W/8, C)`, the attention's output and the decoder's features of that
            size.
        """
        outputs = self.tapped(inputs, training=True)
        return {name: outputs[name] for name in ("prediction", "rough", "coherent", "decoded")}

    def attention_sources(self, inputs) -> Tensor:
        """Which known position of the 1/8 map is the best match of each missing one.

        Args:
            inputs: `[image, hole]` as for a call.

        Returns:
            `(B, H/8, W/8, 2)` int32, row and column of the source, -1 where nothing is filled. A
            position is missing if any of its 8 x 8 pixels is.

        Raises:
            ValueError: If the configuration has no attention.
        """
        self._require_attention()
        _, hole = inputs
        searched = self.tapped(inputs, training=False)["searched"]
        hole = downsample_hole(ops.convert_to_tensor(hole), ATTENTION_FACTOR)
        return attention_sources(searched, hole, self.config.attention_max_scores)

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """Which known positions of the 1/8 map each missing one is a blend of.

        Args:
            inputs: `[image, hole]` as for a call.

        Returns:
            `"1x1"` -> `AttentionMap`: the weights of the output, which keeps a share of every match
            before it; `attention_sources` are the matches themselves.

        Raises:
            ValueError: If the configuration has no attention.
        """
        self._require_attention()
        searched = self.tapped(inputs, training=False)["searched"]
        hole = downsample_hole(ops.convert_to_tensor(inputs[1]), ATTENTION_FACTOR)
        return attention_maps(searched, hole, ATTENTION_FACTOR, self.config.attention_max_scores)

    def _require_attention(self):
        if not self.config.attention:
            raise ValueError("this csa has no attention: its config has attention=False")


def _widths(config):
    """Channels of the refinement network's maps, from the image's size down."""
    return [config.width * min(2**level, config.width_limit) for level in range(config.levels)]


def _rough_network(masked, config, policy):
    """Steps 1 and 2 of `CSAGenerator`: `(B, H, W, 3)` in [-1, 1]."""
    block = _Blocks(policy, "rough")
    widths = _widths(config)
    features, skips = masked, []
    for level in range(1, config.levels + 1):
        name = f"down{level}"
        if level > 1:
            skips.append(features)
            features = block.leaky_relu(features, name)
        features = block.halve(features, widths[level - 1], name)
        if 1 < level < config.levels:
            features = block.normalize(features, name)
    for level in range(config.levels, 1, -1):
        name = f"up{level}"
        features = block.relu(features, name)
        features = block.normalize(block.double(features, widths[level - 2], name), name)
        features = block.join(features, skips.pop(), name)
    features = block.double(block.relu(features, "up1"), 3, "up1")
    features = block.crop(features, masked, "up1")
    return layers.Activation("tanh", dtype="float32", name="rough_tanh")(features)


def _refinement_network(filled, masked, hole, config, policy):
    """Steps 3 to 6: the raw `prediction`, and the features `searched`, `coherent`, `decoded`."""
    block = _Blocks(policy, "refine")
    widths = _widths(config)
    features = ops.concatenate([filled, masked], axis=-1)  # (B, H, W, 6)
    features = block.convolve(features, widths[0], "entry")
    skips, searched, coherent = [], None, None
    for level in range(1, config.levels + 1):
        name = f"down{level}"
        skips.append(features)
        features = block.halve_dilated(block.leaky_relu(features, name), widths[level - 1], name)
        if level == config.levels:
            break
        features = block.leaky_relu(block.normalize(features, f"{name}_dilated"), f"{name}_same")
        features = block.convolve(features, widths[level], name)
        if level == ATTENTION_LEVEL:
            searched = coherent = features
            if config.attention:
                coherent = features = CoherentSemanticAttention(
                    config.attention_max_scores, dtype=policy, name="attention"
                )(features, downsample_hole(hole, ATTENTION_FACTOR))
        features = block.normalize(features, name)

    decoded = None
    for level in range(config.levels, 0, -1):
        name = f"up{level}"
        if level < config.levels:
            features = block.convolve(block.relu(features, f"{name}_same"), widths[level - 1], name)
            features = block.normalize(features, f"{name}_same")
        features = block.double(block.relu(features, name), widths[level - 1], name)
        features = block.normalize(features, name)
        features = block.crop(features, skips[-1], name)
        if level == ATTENTION_LEVEL + 1:
            decoded = features
        features = layers.Concatenate(dtype=policy, name=f"refine_{name}_skip")(
            [features, skips.pop()]
        )
    features = block.convolve(block.relu(features, "exit"), 3, "exit")
    prediction = layers.Activation("linear", dtype="float32", name="prediction")(features)
    return {
        "prediction": prediction,
        "searched": searched,
        "coherent": coherent,
        "decoded": decoded,
    }


class _Blocks:
    """The few kinds of box of both networks, named after the one they stand in."""

    def __init__(self, policy, network):
        self.policy = policy
        self.network = network

    def _options(self, name, kind):
        return {"dtype": self.policy, "name": f"{self.network}_{name}_{kind}"}

    def _convolve(self, kind, features, filters, size, name, suffix="conv", **options):
        return kind(
            filters,
            size,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            **options,
            **self._options(name, suffix),
        )(features)

    def convolve(self, features, filters, name):
        # On the way up the authors have transposed convolutions of stride 1: the same thing.
        return self._convolve(layers.Conv2D, features, filters, 3, name, padding="same")

    def halve(self, features, filters, name):
        return self._convolve(layers.Conv2D, features, filters, 4, name, padding="same", strides=2)

    def halve_dilated(self, features, filters, name):
        """Conv 4x4 of stride 2 and dilation 2, padded by 3, which TensorFlow does not have.

        It sees rows and columns 2i - 3, 2i - 1, 2i + 1, 2i + 3: the odd ones alone. So those are
        picked, and convolved with neither stride nor dilation.
        """
        one_more = layers.ZeroPadding2D(((0, 1), (0, 1)), **self._options(name, "odd"))(features)
        odd = one_more[:, 1::2, 1::2]
        padded = layers.ZeroPadding2D(((2, 1), (2, 1)), **self._options(name, "pad"))(odd)
        return self._convolve(layers.Conv2D, padded, filters, 4, name, "dilated_conv")

    def double(self, features, filters, name):
        return self._convolve(
            layers.Conv2DTranspose, features, filters, 4, name, "double", padding="same", strides=2
        )

    def crop(self, features, reference, name):
        return CropLike(**self._options(name, "crop"))(features, reference)

    def join(self, features, skip, name):
        features = self.crop(features, skip, name)
        return layers.Concatenate(**self._options(name, "skip"))([features, skip])

    def normalize(self, features, name):
        return layers.GroupNormalization(groups=-1, epsilon=1e-5, **self._options(name, "norm"))(
            features
        )

    def leaky_relu(self, features, name):
        return layers.LeakyReLU(0.2, **self._options(name, "act"))(features)

    def relu(self, features, name):
        return layers.ReLU(**self._options(name, "act"))(features)


class Objective(BaseObjective):
    """The overall loss as named terms.

    `l1` and `rough_l1` of the two outputs, `hole` of both, `consistency`, `adversarial` and
    `feature_adversarial`.
    """

    def __init__(self, config: Config):
        weights = {
            "l1": config.lambda_l1,
            "rough_l1": config.lambda_l1,
            "hole": config.lambda_hole,
            "consistency": config.lambda_consistency,
            "adversarial": config.lambda_adversarial,
            "feature_adversarial": config.lambda_adversarial,
        }
        super().__init__(weights)
        self.vgg = None
        if config.lambda_consistency or config.lambda_adversarial:
            self.vgg = VGG16Activations(
                ("relu3_3", "relu4_3"), config.feature_weights, config.feature_normalization
            )

    def outputs(self, generator, batch) -> dict[str, Tensor]:
        """The generator's outputs and VGG16's activations.

        Args:
            generator: A `CSAGenerator`.
            batch: `image` `(B, H, W, 3)` in [-1, 1] and `hole` `(B, H, W, 1)`.

        Returns:
            What `CSAGenerator.training_outputs` gives. Where a term needs them, `truth_middle`
            `(B, H/4, W/4, 256)` and `truth_deep` `(B, H/8, W/8, 512)`, the photograph's relu3_3 and
            relu4_3. For the adversarial terms `prediction_middle`, the prediction's relu3_3.
        """
        prediction = generator.training_outputs([batch["image"], batch["hole"]])
        return {**prediction, **self.activations(batch, prediction)}

    def activations(self, batch, prediction) -> dict[str, Tensor]:
        """The part of `outputs` that VGG16 computes."""
        if self.vgg is None:
            return {}
        middle, deep = (ops.stop_gradient(each) for each in self.vgg(batch["image"]))
        maps = {"truth_middle": middle, "truth_deep": deep}
        if "feature_adversarial" in self.generator_weights:
            maps["prediction_middle"] = self.vgg(prediction["prediction"])[0]
        return maps

    def generator_terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        refined, rough = prediction["prediction"], prediction["rough"]
        terms = {
            "l1": lambda: l1_loss(image, refined),
            "rough_l1": lambda: l1_loss(image, rough),
            "hole": lambda: hole_l1_loss(image, refined, hole) + hole_l1_loss(image, rough, hole),
            "consistency": lambda: self._consistency(prediction, hole),
            "adversarial": lambda: relativistic_generator_loss(
                discriminators["patch"](image, training=True),
                discriminators["patch"](refined, training=True),
            ),
            "feature_adversarial": lambda: relativistic_generator_loss(
                discriminators["feature_patch"](prediction["truth_middle"], training=True),
                discriminators["feature_patch"](prediction["prediction_middle"], training=True),
            ),
        }
        return {name: terms[name]() for name in self.generator_weights}

    def _consistency(self, prediction, hole):
        target = prediction["truth_deep"]
        hole = downsample_hole(hole, ATTENTION_FACTOR)
        channels = prediction["coherent"].shape[-1]
        if channels != TARGET_CHANNELS:  # a narrower network: means of neighbouring channels
            target = ops.reshape(target, (*ops.shape(target)[:3], channels, -1))
            target = ops.mean(target, axis=-1)
        return consistency_loss(target, prediction["coherent"], hole) + consistency_loss(
            target, prediction["decoded"], hole
        )

    def discriminator_terms(self, batch, prediction, discriminators):
        if not discriminators:
            return {}
        real, fake = batch["image"], prediction["prediction"]
        terms = {}
        for name, inputs in {
            "patch": (real, fake),
            "feature_patch": (prediction["truth_middle"], prediction["prediction_middle"]),
        }.items():
            real_logits, fake_logits = (
                discriminators[name](each, training=True) for each in inputs
            )
            terms[name] = relativistic_discriminator_loss(real_logits, fake_logits)
        return terms
