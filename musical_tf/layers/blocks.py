"""The few kinds of box in the papers' networks, each connected under a name."""

from collections.abc import Sequence

import keras
from keras import layers

from musical_tf.conventions import Tensor
from musical_tf.layers.cropping import CropLike


class Blocks:
    """Connects layers that share a policy, an initializer, a normalization and a prefix.

    A layer is called `{prefix}{name}_{kind}`. Normalization is affine with epsilon 1e-5; the
    statistics of batches move by 0.1.

    Args:
        policy: Keras dtype policy of the layers.
        prefix: What every layer's name begins with.
        initializer: Keras initializer of kernels by name; N(0, 0.02) by default.
        use_bias: Whether convolutions have biases.
        normalization: `"instance"` or `"batch"`.
        random_scale: Whether the scale of the normalization starts from N(1, 0.02), not from 1.
    """

    def __init__(
        self,
        policy,
        prefix: str = "",
        initializer: str | None = None,
        use_bias: bool = True,
        normalization: str = "instance",
        random_scale: bool = False,
    ):
        self.policy = policy
        self.prefix = prefix
        self._initializer = initializer
        self.use_bias = use_bias
        self.normalization = normalization
        self.random_scale = random_scale

    def initializer(self):
        """A new initializer: one that is shared gives equal layers equal values."""
        return self._initializer or keras.initializers.RandomNormal(stddev=0.02)

    def named(self, name: str) -> dict:
        """The options that every layer has."""
        return {"dtype": self.policy, "name": f"{self.prefix}{name}"}

    def convolve(
        self,
        features: Tensor,
        filters: int,
        name: str,
        size: int = 3,
        strides: int = 1,
        *,
        kind=layers.Conv2D,
        suffix: str = "conv",
        **options,
    ) -> Tensor:
        """A convolution of "same" padding, unless `options` say otherwise."""
        options = {"padding": "same", "use_bias": self.use_bias, **options}
        options |= {"kernel_initializer": self.initializer(), **self.named(f"{name}_{suffix}")}
        return kind(filters, size, strides, **options)(features)

    def halve(self, features: Tensor, filters: int, name: str) -> Tensor:
        """Conv 4x4 of stride 2."""
        return self.convolve(features, filters, name, 4, 2)

    def double(self, features: Tensor, filters: int, name: str, suffix: str = "conv") -> Tensor:
        """ConvT 4x4 of stride 2."""
        return self.convolve(
            features, filters, name, 4, 2, kind=layers.Conv2DTranspose, suffix=suffix
        )

    def dilate(self, features: Tensor, filters: int, name: str, dilation: int = 1) -> Tensor:
        """Conv 3x3 with a dilation.

        Its padding is a layer: dilated "same" padding of a dynamic size is 66 ONNX nodes.
        """
        features = layers.ZeroPadding2D(dilation, **self.named(f"{name}_pad"))(features)
        return self.convolve(features, filters, name, padding="valid", dilation_rate=dilation)

    def normalize(self, features: Tensor, name: str) -> Tensor:
        """Instance or batch normalization."""
        named = self.named(f"{name}_norm")
        if self.normalization == "instance":
            return layers.GroupNormalization(groups=-1, epsilon=1e-5, **named)(features)
        scale = keras.initializers.RandomNormal(1.0, 0.02) if self.random_scale else "ones"
        return layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, gamma_initializer=scale, **named
        )(features)

    def leaky_relu(self, features: Tensor, name: str) -> Tensor:
        """LeakyReLU of slope 0.2."""
        return layers.LeakyReLU(0.2, **self.named(f"{name}_act"))(features)

    def relu(self, features: Tensor, name: str) -> Tensor:
        """ReLU."""
        return layers.ReLU(**self.named(f"{name}_act"))(features)

    def join(self, features: Sequence[Tensor], name: str) -> Tensor:
        """Concatenates channels."""
        return layers.Concatenate(**self.named(f"{name}_skip"))(features)

    def crop(self, features: Tensor, reference: Tensor, name: str) -> Tensor:
        """Cuts off what doubling a halved odd map has too many."""
        return CropLike(**self.named(f"{name}_crop"))(features, reference)

    def go_down(self, features: Tensor, widths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """The way down of pix2pix's U-Net, one level for each width.

        Level 1: Conv 4x4 s2; the next: LeakyReLU, Conv 4x4 s2, normalization; the last: LeakyReLU,
        Conv 4x4 s2.

        Returns:
            The innermost features, and what entered each level but the first.
        """
        skips = []
        for level, width in enumerate(widths, start=1):
            name = f"down{level}"
            if level > 1:
                skips.append(features)
                features = self.leaky_relu(features, name)
            features = self.halve(features, width, name)
            if 1 < level < len(widths):
                features = self.normalize(features, name)
        return features, skips
