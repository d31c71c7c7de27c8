"""CSA's consistency loss, and VGG16's inner activations, which it and a discriminator look at."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.losses.perceptual import BLOCKS as FIRST_BLOCKS
from musical_tf.pretrained import input_affine, packaged_arrays, read_arrays

BLOCKS = (*FIRST_BLOCKS, ("conv4_1", "conv4_2", "conv4_3"))
"""The convolutions up to relu4_3; a 2x2 max-pool stands between the blocks."""

_WIDTHS = (64, 128, 256, 512)
_PACKAGED = ("vgg16_torchvision_block1-3_fp16.npz", "vgg16_torchvision_block4_fp16.npz")


@keras.saving.register_keras_serializable(package="musical_tf")
class VGG16Activations(keras.layers.Layer):
    """Activations of an ImageNet VGG16 behind a ReLU; frozen, gradients reach the image.

    1. `(B, H, W, 3)` in [-1, 1] is normalised as the network expects it, in float32.
    2. Blocks of 3x3 convolutions with ReLU, a 2x2 max-pool between them, in `dtype`, up to the
       deepest activation that is asked for.
    3. The activations are returned as float32: `relu3_3` is `(B, H/4, W/4, 256)`, `relu4_3`
       `(B, H/8, W/8, 512)`.

    Args:
        activations: Names, `relu1_1` to `relu4_3`, in the order of the network.
        weights: `"torchvision"`, the files packed with the project; or the path of an `.npz` that
            holds the same arrays (`conv1_1/kernel`, `conv1_1/bias`, ...).
        normalization: `"imagenet"`: mean and standard deviation, what the network was trained on;
            `"none"`: the [-1, 1] image takes the place of the normalised one.
        dtype: Dtype or policy of the convolutions. None follows the global policy. The weights are
            frozen, so they are stored in the dtype they are used in.

    Call arguments:
        image: Float tensor `(B, H, W, 3)`, RGB in [-1, 1], `H` and `W` at least 8.

    Returns:
        List of the activations, float32.

    Raises:
        ValueError: On an unknown name or `normalization`, or a file that is not VGG16's weights.
        FileNotFoundError: If the file is missing.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015.
    """

    def __init__(
        self,
        activations: Sequence[str] = ("relu3_3", "relu4_3"),
        weights: str | os.PathLike = "torchvision",
        normalization: str = "imagenet",
        dtype=None,
        **kwargs,
    ):
        kwargs.pop("trainable", None)  # from get_config: this network is never trained
        super().__init__(dtype=dtype, autocast=False, trainable=False, **kwargs)
        self.activations = tuple(activations)
        self.weights_source = os.fspath(weights)
        self.normalization = normalization
        order = [_activation(name) for block in BLOCKS for name in block]
        wanted = [name for name in order if name in self.activations]
        if not wanted or wanted != list(self.activations):
            raise ValueError(
                f"activations must be some of {', '.join(order)}, in this order, received: "
                f"{', '.join(self.activations) or 'none'}"
            )
        self._affine = input_affine(normalization)
        arrays = _load_arrays(self.weights_source)
        self._filters = {}
        for name in [name for block in BLOCKS for name in block]:
            self._filters[name] = [
                self._add_frozen(f"{name}_{kind}", arrays[f"{name}/{kind}"])
                for kind in ("kernel", "bias")
            ]
            if _activation(name) == wanted[-1]:
                break

    def _add_frozen(self, name, value):
        return self.add_weight(
            name=name,
            shape=value.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(value, dtype=dtype),
            dtype=self.compute_dtype,
            trainable=False,
            autocast=False,
        )

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] != 3:
            raise ValueError(f"image must have shape (B, H, W, 3), got {tuple(input_shape)}")

    def call(self, image: Tensor) -> list[Tensor]:
        scale, offset = self._affine
        features = ops.cast(ops.cast(image, "float32") * scale + offset, self.compute_dtype)
        found = []
        for block in BLOCKS:
            for name in block:
                if name not in self._filters:
                    return found
                if name == block[0] != "conv1_1":
                    features = ops.max_pool(features, pool_size=2, strides=2, padding="valid")
                kernel, bias = self._filters[name]
                features = ops.relu(ops.conv(features, kernel, padding="same") + bias)
                if _activation(name) in self.activations:
                    found.append(ops.cast(features, "float32"))
        return found

    def get_config(self):
        own = {
            "activations": self.activations,
            "weights": self.weights_source,
            "normalization": self.normalization,
        }
        return {**super().get_config(), **own}


def consistency_loss(target: Tensor, features: Tensor, hole: Tensor) -> Tensor:
    """Squared distance of two feature maps in the hole: `mean(hole * (target - features)^2)`.

    The mean is over all positions, channels and samples, so a larger hole gives a larger loss.

    Args:
        target: `(B, H, W, C)` float, VGG16's activations of the truth. No gradient reaches them.
        features: `(B, H, W, C)` float, the generator's.
        hole: `(B, H, W, 1)` float, 1 = missing.

    Returns:
        Float32 scalar.

    Raises:
        ValueError: If the shapes disagree: broadcasting would compare the wrong things.

    Reference: Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019.
    """
    shapes = [tuple(each.shape) for each in (target, features, hole)]
    fitting = all(len(shape) == 4 for shape in shapes) and shapes[2][3] == 1
    if fitting:
        sides = zip(*(shape[:3] for shape in shapes), strict=True)
        fitting = all(len({side for side in each if side is not None}) <= 1 for each in sides)
        fitting = fitting and shapes[0][3] == shapes[1][3]
    if not fitting:
        raise ValueError(
            "target and features must have one shape (B, H, W, C) and hole (B, H, W, 1), got "
            f"{shapes[0]}, {shapes[1]}, {shapes[2]}"
        )
    target = ops.stop_gradient(ops.cast(target, "float32"))
    difference = ops.cast(features, "float32") - target
    return ops.mean(ops.square(difference) * ops.cast(hole, "float32"))


def _activation(convolution: str) -> str:
    return convolution.replace("conv", "relu")


def _load_arrays(source: str) -> dict:
    shapes, channels = [], 3
    for block, width in zip(BLOCKS, _WIDTHS, strict=True):
        shapes.append({})
        for name in block:
            shapes[-1] |= {f"{name}/kernel": (3, 3, channels, width), f"{name}/bias": (width,)}
            channels = width
    first_three = {name: shape for block in shapes[:3] for name, shape in block.items()}
    if source == "torchvision":
        return packaged_arrays(_PACKAGED[0], first_three) | packaged_arrays(_PACKAGED[1], shapes[3])
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"VGG16 weights {source!r}: no such file; expected 'torchvision', or the path of an "
            ".npz in the layout of the packaged files"
        )
    return read_arrays(source, first_three | shapes[3])
