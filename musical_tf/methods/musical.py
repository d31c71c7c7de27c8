"""MUSICAL: multi-scale image contextual attention learning for inpainting.

A U-Net whose inner levels keep their resolution and widen their view by dilation, with one
multi-scale attention module on the decoder's side at a quarter of the image's size, trained with
L1, perceptual, style, total variation and adversarial terms.

Reference:
    Wang, Li, Zhang, Du, "MUSICAL: Multi-Scale Image Contextual Attention Learning for Inpainting",
    IJCAI 2019.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
from keras import layers, ops

from musical_tf.conventions import composite, downsample_hole, mask_image
from musical_tf.discriminators import densenet121_discriminator
from musical_tf.layers import Membrane, MultiScaleAttention
from musical_tf.layers.attention_maps import AttentionMap
from musical_tf.layers.blocks import Blocks
from musical_tf.losses import (
    VGG16Features,
    generator_adversarial_loss,
    hole_l1_loss,
    l1_loss,
    l2_loss,
    perceptual_loss,
    ssim_loss,
    style_loss,
    total_variation_loss,
)
from musical_tf.methods.base import FunctionalGenerator, MethodConfig, judge
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {
    "paper": {},
    "official": {
        "softmax_scale": 1.0,
        "attention_variant": "official",
        "lambda_hole": 6.0,
        "adversarial_factor": 0.2,
        "composite_features": True,
        "feature_normalization": "none",
        "discriminator_normalization": "none",
        "discriminator_weights": "random",
    },
    "lite": {"width": 32, "inner_levels": 2, "lambda_hole": 500.0},
}
"""The publication; what the authors' code does; small enough for two CPU cores and a browser."""

ABLATIONS: Mapping[str, dict] = {
    "no_adversarial": {"lambda_adversarial": 0.0},
    "single_scale": {"patch_sizes": (3,)},
    "no_attention": {"attention": False},
    "no_se": {"squeeze_ratio": 0},
}
"""What each ablation takes away, as fields of `Config`. The first two are the paper's experiments 1
and 2 (Section 4.2, Figure 6), the others ours: the attention module as a whole, and the
squeeze-and-excitation in it."""

OUTER_LEVELS = 4
"""Levels that halve the resolution; the rest are dilated and keep it."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture and objective; the defaults are the paper's.

    Attributes:
        width: Channels of the outermost level (w of the figure).
        width_limit: Channels of the widest level, as a multiple of `width`.
        inner_levels: Dilated levels below the four that halve the resolution (Section 3.1).
        attention: Whether the multi-scale attention module is there at all.
        attention_level: The level behind whose up-convolution it stands (Figure 1: 3, a map of a
            quarter of the image's side). At 4, as the text of Section 3.1 can be read, the map is
            an eighth, with 16 times fewer scores.
        patch_sizes: Patch sizes of the attention (Section 3.2: 1 and 3).
        propagation_size: Window of Eq. (2).
        softmax_scale: Scale of the scores before the softmax (Yu et al. 2018).
        attention_variant: `"paper"` or `"official"`, see `ContextualAttention`.
        attention_implementation: `"fast"` or `"reference"`.
        attention_max_scores: Bound on the attention's memory, None for none, see
            `ContextualAttention`.
        squeeze_ratio: SE reduction, None for the variant's own, 0 for none.
        membrane: Whether the hole starts as the membrane spanned by what surrounds it, and the
            prediction's error along its border is carried on into it (not in the paper).
        copying: Whether `musical_tf.inference.InpaintingFunction` copies known pixels into the
            hole, guided by the prediction. The network itself stays as it is (not in the paper).
        lambda_l1: Weight of the mean absolute error of the whole raw output (Section 4.1).
        lambda_hole: Weight of the mean absolute error in the hole (not in the paper).
        lambda_l2: Weight of the mean squared error of the whole raw output (not in the paper).
        lambda_ssim: Weight of one minus the structural similarity of the whole raw output (not in
            the paper).
        lambda_perceptual: Weight of Eq. (4) (Section 4.1).
        lambda_style: Weight of Eq. (5)-(6) (Section 4.1).
        lambda_tv: Weight of the total variation (Section 4.1).
        lambda_adversarial: Weight of the adversarial term (Section 4.1: 0.3; 0 on CelebA).
        adversarial_factor: Multiplies `lambda_adversarial`; the authors' code has 0.2.
        composite_features: Whether the VGG terms also see the composited image.
        feature_normalization: `"imagenet"` or `"none"`, what VGG16 is fed.
        feature_weights: `"torchvision"`, `"keras"` or a file, see `VGG16Features`.
        discriminator_normalization: `"imagenet"` or `"none"`, what the discriminator is fed.
        discriminator_weights: `"imagenet"`, `"random"` or a file, see `densenet121_discriminator`.
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {"width": 1, "width_limit": 1, "inner_levels": 1, "adversarial_factor": 0}

    width: int = 64
    width_limit: int = 8
    inner_levels: int = 4
    attention: bool = True
    attention_level: int = 3
    patch_sizes: tuple[int, ...] = (1, 3)
    propagation_size: int = 3
    softmax_scale: float = 10.0
    attention_variant: str = "paper"
    attention_implementation: str = "fast"
    attention_max_scores: int | None = None
    squeeze_ratio: int | None = None
    membrane: bool = False
    copying: bool = False
    lambda_l1: float = 100.0
    lambda_hole: float = 0.0
    lambda_l2: float = 0.0
    lambda_ssim: float = 0.0
    lambda_perceptual: float = 0.07
    lambda_style: float = 250.0
    lambda_tv: float = 0.001
    lambda_adversarial: float = 0.3
    adversarial_factor: float = 1.0
    composite_features: bool = False
    feature_normalization: str = "imagenet"
    feature_weights: str = "torchvision"
    discriminator_normalization: str = "imagenet"
    discriminator_weights: str = "imagenet"

    def __post_init__(self):
        # JSON has no tuples.
        object.__setattr__(self, "patch_sizes", tuple(self.patch_sizes))
        super().__post_init__()
        if not 2 <= self.attention_level <= OUTER_LEVELS:
            raise ValueError(
                f"attention_level must be within 2 and {OUTER_LEVELS}, got {self.attention_level!r}"
            )

    @property
    def attention_factor(self) -> int:
        """Pixels per position, along each side, of the attention's map."""
        return 2 ** (self.attention_level - 1)


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The networks of the adversarial term by name; none when its weight is 0 (CelebA)."""
    if config.lambda_adversarial * config.adversarial_factor == 0:
        return {}
    densenet = densenet121_discriminator(
        image_size,
        weights=config.discriminator_weights,
        normalization=config.discriminator_normalization,
    )
    return {"densenet121": densenet}


@keras.saving.register_keras_serializable("musical_tf")
class MusicalGenerator(FunctionalGenerator):
    """The network of Figure 1.

    With w the width and h the image's height, per level the way down and the way up:

    1. Conv 4x4 s2: `(h/2, w)`; ConvT 4x4 s2, tanh: `(h, 3)`.
    2. Conv 4x4 s2, IN: `(h/4, 2w)`; ConvT 4x4 s2, IN: `(h/2, w)`.
    3. Conv 4x4 s2, IN: `(h/8, 4w)`; ConvT 4x4 s2, IN, **multi-scale attention**: `(h/4, 2w)`.
    4. Conv 4x4 s2, IN: `(h/16, 8w)`; ConvT 4x4 s2, IN: `(h/8, 4w)`.
    5. and all but the last: Conv 3x3, IN, Conv 3x3 dilation 2: `(h/16, 8w)`; Conv 3x3, IN.
    6. the last: Conv 3x3, Conv 3x3 dilation 2; Conv 3x3, IN.

    LeakyReLU(0.2) before every convolution on the way down but the first, ReLU on the way up; each
    level's result on the way up is concatenated with what entered the level below. IN is instance
    normalization, affine, epsilon 1e-5. Convolutions have biases and start from N(0, 0.02).

    Arguments and result: see `FunctionalGenerator`.

    Reference:
        Wang et al., IJCAI 2019, Sections 3.1-3.2, Figures 1-2.
    """

    method = "musical"
    config_class = Config
    size_multiple = 2**OUTER_LEVELS

    @classmethod
    def read_config(cls, config: MethodConfig | Mapping):
        """Reads older files, too: they have `detail`, which copying has replaced."""
        if not isinstance(config, MethodConfig) and "detail" in config:
            config = dict(config)
            config["copying"] = config.pop("detail") > 0
        return super().read_config(config)

    @staticmethod
    def connect(image, hole, config, policy):
        return _unet(image, hole, config, policy), {}

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """The maps `"1x1"` and `"3x3"`, of `(B, H / 4, W / 4)` positions in the presets."""
        if not self.config.attention:
            raise ValueError("this musical has no attention: its config has attention=False")
        image, hole = (ops.convert_to_tensor(each) for each in inputs)
        self.check_size(image)
        attention = self.get_layer("attention")
        features, hole = keras.Model(self.inputs, attention.input)([image, hole], training=False)
        return attention.attention_maps(features, hole, self.config.attention_factor)

    def start_without_attention(self, trained: "MusicalGenerator") -> None:
        """Takes over a network trained without the attention; the attention starts as identity.

        Args:
            trained: A generator of the configuration that differs in `attention=False` only.

        Raises:
            ValueError: If that is not what it is.
        """
        own, found = (
            {each.name: each for each in model.layers if each.weights} for model in (self, trained)
        )
        attention = own.pop("attention", None)
        same = own.keys() == found.keys() and all(
            [weight.shape for weight in layer.weights]
            == [weight.shape for weight in found[name].weights]
            for name, layer in own.items()
        )
        if attention is None or not same:
            raise ValueError("expected the same network without the attention")
        for name, layer in own.items():
            layer.set_weights(found[name].get_weights())
        attention.start_as_identity()


def _unet(image, hole, config, policy):
    block = Blocks(policy)
    widths = [
        config.width * min(2**level, config.width_limit) for level in range(OUTER_LEVELS)
    ]  # w, 2w, 4w, 8w
    innermost = OUTER_LEVELS + config.inner_levels

    start = Membrane(name="membrane")(image, hole) if config.membrane else mask_image(image, hole)
    features = ops.concatenate([start, hole], axis=-1)  # (B, H, W, 4)
    skips = []
    for level in range(1, innermost + 1):
        name = f"down{level}"
        if level > 1:
            skips.append(features)
            features = block.leaky_relu(features, name)
        if level <= OUTER_LEVELS:
            features = block.halve(features, widths[level - 1], name)
            if level > 1:
                features = block.normalize(features, name)
        else:
            features = block.dilate(features, widths[-1], name)
            if level < innermost:
                features = block.normalize(features, name)
            features = block.leaky_relu(features, f"{name}_dilated")
            features = block.dilate(features, widths[-1], f"{name}_dilated", dilation=2)

    for level in range(innermost, 1, -1):
        name = f"up{level}"
        features = block.relu(features, name)
        if level > OUTER_LEVELS:
            features = block.dilate(features, widths[-1], name)
        else:
            features = block.double(features, widths[level - 2], name)
        features = block.normalize(features, name)
        if level == config.attention_level and config.attention:
            features = MultiScaleAttention(
                config.patch_sizes,
                config.propagation_size,
                config.softmax_scale,
                config.attention_implementation,
                config.attention_variant,
                config.squeeze_ratio,
                kernel_initializer=block.initializer(),
                max_scores=config.attention_max_scores,
                **block.named("attention"),
            )(features, downsample_hole(hole, config.attention_factor))
        features = block.join([skips.pop(), features], name)
    features = block.double(block.relu(features, "up1"), 3, "up1")
    prediction = layers.Activation("tanh", dtype="float32", name="tanh")(features)
    if config.membrane:
        # A seam is a jump at the border. The error at the border is continued into the hole.
        error = Membrane(name="membrane_error")(image - prediction, hole)
        prediction = ops.clip(prediction + error, -1.0, 1.0)
    return prediction


class Objective(BaseObjective):
    """The overall loss, Eq. (7), as named terms.

    `l1`, `hole`, `l2`, `ssim`, `perceptual` (Eq. 4), `style` (Eq. 5-6), `tv` and `adversarial`.
    """

    def __init__(self, config: Config):
        weights = {
            "l1": config.lambda_l1,
            "hole": config.lambda_hole,
            "l2": config.lambda_l2,
            "ssim": config.lambda_ssim,
            "perceptual": config.lambda_perceptual,
            "style": config.lambda_style,
            "tv": config.lambda_tv,
            "adversarial": config.lambda_adversarial * config.adversarial_factor,
        }
        super().__init__(weights)
        self.composite_features = config.composite_features
        self.vgg: Any = None
        if "perceptual" in self.generator_weights or "style" in self.generator_weights:
            self.vgg = VGG16Features(config.feature_weights, config.feature_normalization)

    def terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]

        @functools.cache
        def features():
            """The truth's VGG16 maps and those of each image that is compared with it."""
            truth = [ops.stop_gradient(each) for each in self.vgg(image)]
            compared = [self.vgg(prediction)]
            if self.composite_features:
                compared.append(self.vgg(composite(prediction, image, hole)))
            return truth, compared

        def of_features(loss):
            truth, compared = features()
            return sum(loss(truth, each) for each in compared)

        return {
            "l1": lambda: l1_loss(image, prediction),
            "hole": lambda: hole_l1_loss(image, prediction, hole),
            "l2": lambda: l2_loss(image, prediction),
            "ssim": lambda: ssim_loss(image, prediction),
            "perceptual": lambda: of_features(perceptual_loss),
            "style": lambda: of_features(style_loss),
            "tv": lambda: total_variation_loss(prediction),
            "adversarial": lambda: generator_adversarial_loss(
                discriminators["densenet121"](prediction, training=True)
            ),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        return judge(discriminators, "densenet121", batch["image"], prediction)


build_generator = MusicalGenerator
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
