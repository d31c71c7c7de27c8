"""Shift-Net: image inpainting by rearranging deep features.

A U-Net down to one position, in whose decoder every missing position of the 1/8 map also receives
the encoder feature of the known position that is most like it, trained with L1, a guidance loss
that pulls the decoder's features in the hole towards the encoder's of the true image, and a
PatchGAN.

Reference:
    Yan, Li, Li, Zuo, Shan, "Shift-Net: Image Inpainting via Deep Feature Rearrangement", ECCV 2018.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, ops

from musical_tf.conventions import Tensor, downsample_hole, mask_image
from musical_tf.discriminators import patch_discriminator
from musical_tf.layers.attention_maps import AttentionMap, map_of_rows
from musical_tf.layers.blocks import Blocks
from musical_tf.layers.shift import ShiftConnection, shift_sources
from musical_tf.losses import VGG16Features, generator_adversarial_loss, gram_matrix, l1_loss
from musical_tf.losses.reconstruction import discounted_hole, hole_l2_loss, region_l1_loss
from musical_tf.methods.base import FunctionalGenerator, MethodConfig, judge
from musical_tf.methods.base import Objective as BaseObjective

PRESETS: Mapping[str, dict] = {
    "paper": {},
    "official": {
        "lambda_hole": 400.0,
        "lambda_style": 10.0,
        "lambda_content": 1.0,
        "feature_normalization": "none",
        "discriminator_normalization": "instance",
        "discriminator_spectral": True,
    },
    "lite": {"width": 48, "width_limit": 4, "levels": 5, "discriminator_width": 32},
}
"""The publication and the code released with it; losses and discriminator of the authors' later
PyTorch code; small enough for two CPU cores, for any multiple of 32 pixels."""

RECIPE: Mapping[str, dict] = {
    # Section 4: Adam 2e-4, beta_1 0.5, one photograph a step, 30 epochs.
    "paper": {"batch_size": 1, "epochs": 30},
    # The PyTorch code: 30 epochs at this rate, then 0 epochs of decay.
    "official": {"batch_size": 1, "epochs": 30},
    "lite": {"learning_rate": 5e-4},
}
"""What the training recipe of a preset differs in from the project's own of that name."""

SHIFT_LEVEL = 3
"""The shift stands where decoder and encoder maps of this level meet, at an eighth of the side."""

SHIFT_FACTOR = 2**SHIFT_LEVEL
"""Pixels a side that one position of the shifted map stands for."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """Architecture and objective; the defaults are the paper's.

    Attributes:
        width: Channels of the outermost level.
        width_limit: Channels of the widest level, as a multiple of `width`.
        levels: Convolutions that halve the resolution (Section 3: the U-Net of pix2pix, 8, from
            256 pixels to one position). Image sides are multiples of 2 to this power; 128 pixels
            take at most 7.
        shift: Whether the shift connection is there at all (Section 5.3).
        lambda_l1: Weight of the mean absolute error of the whole raw output (Section 3.3).
        lambda_hole: Weight of the mean absolute error over the hole, spatially discounted by 0.9
            (not in the paper).
        lambda_guidance: Weight of the guidance loss (Section 3.1; 0.01 of that of L1).
        lambda_adversarial: Weight of the adversarial term (Section 3.3; 0.002 of that of L1).
        lambda_style: Weight of the squared distance of VGG16's Gram matrices (not in the paper).
        lambda_content: Weight of the squared distance of VGG16's features (not in the paper).
        feature_normalization: `"imagenet"` or `"none"`, what VGG16 is fed.
        feature_weights: `"torchvision"`, `"keras"` or a file, see `VGG16Features`.
        discriminator_width: Channels of the discriminator's first layer.
        discriminator_normalization: `"batch"` or `"instance"`.
        discriminator_spectral: Whether the discriminator's kernels are spectrally normalized.
    """

    PRESETS = PRESETS
    LEAST: ClassVar = {
        "width": 1,
        "width_limit": 1,
        "levels": SHIFT_LEVEL + 1,
        "discriminator_width": 1,
    }

    width: int = 64
    width_limit: int = 8
    levels: int = 8
    shift: bool = True
    lambda_l1: float = 100.0
    lambda_hole: float = 0.0
    lambda_guidance: float = 1.0
    lambda_adversarial: float = 0.2
    lambda_style: float = 0.0
    lambda_content: float = 0.0
    feature_normalization: str = "imagenet"
    feature_weights: str = "torchvision"
    discriminator_width: int = 64
    discriminator_normalization: str = "batch"
    discriminator_spectral: bool = False


def build_discriminators(config: Config, image_size: int) -> dict[str, keras.Model]:
    """The PatchGAN as `"patch"`; none when the weight of the adversarial term is 0.

    Raises:
        ValueError: If images of this size do not go through the generator.
    """
    multiple = 2**config.levels
    if image_size % multiple:
        fitting = (image_size & -image_size).bit_length() - 1
        raise ValueError(
            f"Shift-Net with levels={config.levels} takes images whose side is a multiple of "
            f"{multiple}, got {image_size}; levels={fitting} is the most that fits"
        )
    if config.lambda_adversarial == 0:
        return {}
    patch = patch_discriminator(
        config.discriminator_width,
        normalization=config.discriminator_normalization,
        spectral=config.discriminator_spectral,
    )
    return {"patch": patch}


@keras.saving.register_keras_serializable("musical_tf")
class ShiftNetGenerator(FunctionalGenerator):
    """The network of Figure 2.

    With w the width, h the image's height and L the number of levels; level l has
    min(2^(l-1), `width_limit`) w channels and a map of h / 2^l:

    1. Down, level 1: Conv 4x4 s2; levels 2 to L - 1: LeakyReLU(0.2), Conv 4x4 s2, IN; level L:
       LeakyReLU(0.2), Conv 4x4 s2.
    2. Up, from level L to 2: ReLU, ConvT 4x4 s2, IN, giving the map of the level above, which is
       concatenated with what the way down had there.
    3. Where the maps of level 3 meet, after their ReLU, the third group of channels of
       `ShiftConnection` is joined to them.
    4. Up, level 1: ReLU, ConvT 4x4 s2 -> 3, tanh.

    IN is instance normalization, affine, epsilon 1e-5. There are no biases. Weights start from
    N(0, 0.02). The network sees the image with its hole erased, and the hole.

    Arguments and result: see `FunctionalGenerator`.

    Reference:
        Yan et al., ECCV 2018, Section 3, Figure 2.
    """

    method = "shift_net"
    config_class = Config

    @staticmethod
    def connect(image, hole, config, policy):
        prediction, decoder, encoder = _unet(image, hole, config, policy)
        return prediction, {"prediction": prediction, "decoder": decoder, "encoder": encoder}

    @property
    def size_multiple(self) -> int:
        """2 to the power of `levels`; fewer levels take smaller multiples."""
        return 2**self.config.levels

    def training_outputs(self, inputs) -> dict[str, Tensor]:
        """The prediction and what the guidance loss compares.

        Args:
            inputs: `[image, hole]`, where the image is the true one, under the hole too.

        Returns:
            `prediction`: what `call` returns. `decoder`: `(B, H/8, W/8, C)`, the decoder's features
            before the shift. `truth`: the same shape, the encoder's features of the true image; no
            gradient passes.
        """
        features = self.tapped(inputs, training=True)
        truth = ops.concatenate([ops.convert_to_tensor(each) for each in inputs], axis=-1)
        names = ["down1_conv", ENCODER_ACTIVATION]
        for level in range(SHIFT_LEVEL, 1, -1):
            names[1:1] = [f"down{level}_{kind}" for kind in ("act", "conv", "norm")]
        for name in names:
            truth = self.get_layer(name)(truth)
        return {
            "prediction": features["prediction"],
            "decoder": features["decoder"],
            "truth": ops.stop_gradient(truth),
        }

    def attention_sources(self, inputs) -> Tensor:
        """Which known position of the 1/8 map each missing one copies.

        Returns:
            `(B, H/8, W/8, 2)` int32, row and column of the source, -1 where nothing is copied. A
            position is missing if any of its 8 x 8 pixels is.

        Raises:
            ValueError: If the configuration has no shift.
        """
        if not self.config.shift:
            raise ValueError("this shift_net copies nothing: its config has shift=False")
        features = self.tapped(inputs, training=False)
        hole = downsample_hole(ops.convert_to_tensor(inputs[1]), SHIFT_FACTOR)
        return shift_sources(features["decoder"], features["encoder"], hole)

    def attention_maps(self, inputs) -> dict[str, AttentionMap]:
        """The map `"1x1"`: one source of weight 1 a position, as of `attention_sources`."""
        sources = ops.convert_to_numpy(self.attention_sources(inputs))
        hole = downsample_hole(ops.convert_to_tensor(inputs[1]), SHIFT_FACTOR)
        missing = ops.convert_to_numpy(hole)[..., 0] > 0.5

        def rows_of(sample):
            rows, columns = sources[sample][missing[sample]].T
            weights = np.zeros((len(rows), *missing.shape[1:]), "float32")
            weights[np.arange(len(rows)), rows, columns] = 1.0
            return weights

        return {"1x1": map_of_rows(rows_of, missing, SHIFT_FACTOR, patch_size=1)}


def _unet(image, hole, config, policy):
    """Prediction, and the features of decoder and encoder that the shift compares."""
    block = Blocks(policy, use_bias=False)
    widths = [config.width * min(2**level, config.width_limit) for level in range(config.levels)]
    features = ops.concatenate([mask_image(image, hole), hole], axis=-1)  # (B, H, W, 4)
    features, skips = block.go_down(features, widths)
    for level in range(config.levels, 0, -1):
        name = f"up{level}"
        if level == SHIFT_LEVEL:
            decoder = block.relu(features, name)
            encoder = layers.ReLU(dtype=policy, name=ENCODER_ACTIVATION)(skips.pop())
            if config.shift:
                small = downsample_hole(hole, SHIFT_FACTOR)
                features = ShiftConnection(**block.named("shift"))(decoder, encoder, small)
            else:
                features = block.join([decoder, encoder], name)
        else:
            if level < config.levels:
                features = block.join([features, skips.pop()], name)
            features = block.relu(features, name)
        features = block.double(features, widths[level - 2] if level > 1 else 3, name)
        if level > 1:
            features = block.normalize(features, name)
    prediction = layers.Activation("tanh", dtype="float32", name="tanh")(features)
    return prediction, decoder, encoder


ENCODER_ACTIVATION = "shift_encoder_act"
"""The layer whose output is the encoder's side of the shift."""


class Objective(BaseObjective):
    """The loss of Section 3.3 as named terms.

    `l1`, `guidance` (Section 3.1), `adversarial` and, of the later code, `hole`, `style` and
    `content`.
    """

    def __init__(self, config: Config):
        weights = {
            "l1": config.lambda_l1,
            "hole": config.lambda_hole,
            "guidance": config.lambda_guidance,
            "style": config.lambda_style,
            "content": config.lambda_content,
            "adversarial": config.lambda_adversarial,
        }
        super().__init__(weights)
        self.vgg: Any = None
        if "style" in self.generator_weights or "content" in self.generator_weights:
            self.vgg = VGG16Features(config.feature_weights, config.feature_normalization)

    def outputs(self, generator, batch):
        """See `ShiftNetGenerator.training_outputs`."""
        return generator.training_outputs([batch["image"], batch["hole"]])

    def terms(self, batch, prediction, discriminators):
        image, hole = batch["image"], batch["hole"]
        raw = prediction["prediction"]

        @functools.cache
        def maps():
            truth = [ops.stop_gradient(each) for each in self.vgg(image)]
            return list(zip(truth, self.vgg(raw), strict=True))

        def square(a, b):
            return ops.mean(ops.square(a - b))

        return {
            "l1": lambda: l1_loss(image, raw),
            "hole": lambda: region_l1_loss(image, raw, hole, discounted_hole(hole)),
            "guidance": lambda: guidance_loss(prediction["decoder"], prediction["truth"], hole),
            "style": lambda: sum(square(gram_matrix(a), gram_matrix(b)) for a, b in maps()),
            "content": lambda: sum(square(a, b) for a, b in maps()),
            "adversarial": lambda: generator_adversarial_loss(
                discriminators["patch"](raw, training=True)
            ),
        }

    def discriminator_terms(self, batch, prediction, discriminators):
        return judge(discriminators, "patch", batch["image"], prediction["prediction"])


def guidance_loss(decoder: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Guidance loss, Section 3.1: squared distance to the true features, in the hole.

    The mean over all positions and channels of `hole * (decoder - truth)^2`, a float32 scalar: a
    larger hole gives a larger loss. The features are `(B, H/8, W/8, C)` float, the hole
    `(B, H, W, 1)`, at the image's resolution.
    """
    return hole_l2_loss(truth, decoder, downsample_hole(hole, SHIFT_FACTOR))


build_generator = ShiftNetGenerator
"""The generator of a configuration: `(config, dtype=None)`."""

build_objective = Objective
"""The training objective of a configuration."""
