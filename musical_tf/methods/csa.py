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
from musical_tf.layers.blocks import Blocks
from musical_tf.layers.coherent_attention import (
    CoherentSemanticAttention,
    attention_maps,
    attention_sources,
)
from musical_tf.losses import hole_l1_loss, l1_loss
from musical_tf.losses.reconstruction import hole_l2_loss
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
"""The attention stands in the encoder, in front of this level's normalization."""

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
                f"divide the {TARGET_CHANNELS} of the consistency loss, got {channels}; "
                "without that loss (lambda_consistency=0) they may be any number"
            )


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
            "CSA's feature patch discriminator needs images of at least 64 x 64 pixels, got "
            f"{image_size}; train at a larger image size, or without it (lambda_adversarial=0)"
        )
    return {
        "patch": patch_discriminator(
            config.discriminator_width, normalization="instance", use_bias=True
        ),
        "feature_patch": feature_patch_discriminator(8 * config.discriminator_width),
    }


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

    IN is instance normalization, affine, epsilon 1e-5. Convolutions have biases and start from
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

        Returns:
            `(B, H/8, W/8, 2)` int32, row and column of the source, -1 where nothing is filled. A
            position is missing if any of its 8 x 8 pixels is.

        Raises:
            ValueError: If the configuration has no attention.
        """
        searched, hole = self._searched(inputs)
        return attention_sources(searched, hole, self.config.attention_max_scores)

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """The map `"1x1"` of the output, which keeps a share of every match before it.

        `attention_sources` are the matches.
        """
        searched, hole = self._searched(inputs)
        return attention_maps(searched, hole, ATTENTION_FACTOR, self.config.attention_max_scores)

    def _searched(self, inputs):
        """What the attention is called with."""
        if not self.config.attention:
            raise ValueError("this csa has no attention: its config has attention=False")
        hole = downsample_hole(ops.convert_to_tensor(inputs[1]), ATTENTION_FACTOR)
        return self.tapped(inputs, training=False)["searched"], hole


def _widths(config):
    """Channels of the refinement network's maps, from the image's size down."""
    return [config.width * min(2**level, config.width_limit) for level in range(config.levels)]


def _rough_network(masked, config, policy):
    """Steps 1 and 2 of `CSAGenerator`: `(B, H, W, 3)` in [-1, 1]."""
    block = Blocks(policy, "rough_")
    widths = _widths(config)
    features, skips = block.go_down(masked, widths)
    for level in range(config.levels, 1, -1):
        name = f"up{level}"
        features = block.relu(features, name)
        features = block.double(features, widths[level - 2], name, "double")
        features = block.normalize(features, name)
        features = block.crop(features, skips[-1], name)
        features = block.join([features, skips.pop()], name)
    features = block.double(block.relu(features, "up1"), 3, "up1", "double")
    features = block.crop(features, masked, "up1")
    return layers.Activation("tanh", dtype="float32", name="rough_tanh")(features)


def _refinement_network(filled, masked, hole, config, policy):
    """Steps 3 to 6: the raw `prediction`, and the features `searched`, `coherent`, `decoded`."""
    block = Blocks(policy, "refine_")
    widths = _widths(config)
    features = ops.concatenate([filled, masked], axis=-1)  # (B, H, W, 6)
    features = block.convolve(features, widths[0], "entry")
    skips, taps = [], {}
    for level in range(1, config.levels + 1):
        name = f"down{level}"
        skips.append(features)
        features = block.leaky_relu(features, name)
        features = halve_dilated(block, features, widths[level - 1], name)
        if level == config.levels:
            break
        features = block.leaky_relu(block.normalize(features, f"{name}_dilated"), f"{name}_same")
        features = block.convolve(features, widths[level], name)
        if level == ATTENTION_LEVEL:
            taps["searched"] = features
            if config.attention:
                features = CoherentSemanticAttention(
                    config.attention_max_scores, dtype=policy, name="attention"
                )(features, downsample_hole(hole, ATTENTION_FACTOR))
            taps["coherent"] = features
        features = block.normalize(features, name)

    for level in range(config.levels, 0, -1):
        name = f"up{level}"
        if level < config.levels:
            # The authors have transposed convolutions of stride 1 here: the same thing.
            features = block.convolve(block.relu(features, f"{name}_same"), widths[level - 1], name)
            features = block.normalize(features, f"{name}_same")
        features = block.double(block.relu(features, name), widths[level - 1], name, "double")
        features = block.normalize(features, name)
        features = block.crop(features, skips[-1], name)
        if level == ATTENTION_LEVEL + 1:
            taps["decoded"] = features
        features = block.join([features, skips.pop()], name)
    features = block.convolve(block.relu(features, "exit"), 3, "exit")
    prediction = layers.Activation("linear", dtype="float32", name="prediction")(features)
    return {"prediction": prediction, **taps}


def halve_dilated(block: Blocks, features: Tensor, filters: int, name: str) -> Tensor:
    """Conv 4x4 of stride 2 and dilation 2, padded by 3, which TensorFlow does not have.

    It reads rows and columns 2i - 3, 2i - 1, 2i + 1, 2i + 3: the odd ones alone. So those are
    picked, and convolved with neither stride nor dilation.
    """
    one_more = layers.ZeroPadding2D(((0, 1), (0, 1)), **block.named(f"{name}_odd"))(features)
    odd = one_more[:, 1::2, 1::2]
    padded = layers.ZeroPadding2D(((2, 1), (2, 1)), **block.named(f"{name}_pad"))(odd)
    return block.convolve(padded, filters, name, 4, suffix="dilated_conv", padding="valid")


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

    def terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        refined, rough = prediction["prediction"], prediction["rough"]
        return {
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

    def _consistency(self, prediction, hole):
        target = prediction["truth_deep"]
        hole = downsample_hole(hole, ATTENTION_FACTOR)
        channels = prediction["coherent"].shape[-1]
        if channels != TARGET_CHANNELS:  # a narrower network: means of neighboring channels
            target = ops.reshape(target, (*ops.shape(target)[:3], channels, -1))
            target = ops.mean(target, axis=-1)
        return sum(hole_l2_loss(target, prediction[name], hole) for name in ("coherent", "decoded"))

    def discriminator_terms(self, batch, prediction, discriminators):
        if not discriminators:
            return {}
        compared = {
            "patch": (batch["image"], prediction["prediction"]),
            "feature_patch": (prediction["truth_middle"], prediction["prediction_middle"]),
        }
        return {
            name: relativistic_discriminator_loss(
                *(discriminators[name](each, training=True) for each in pair)
            )
            for name, pair in compared.items()
        }


build_generator = CSAGenerator
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
