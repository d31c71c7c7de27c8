"""The papers' discriminators: Keras models from images `(B, H, W, 3)` in [-1, 1] to float32 logits.

`dtype` is a dtype or policy of the layers, None the global one. The logits are float32 with every
policy.
"""

import contextlib
import math
import os
from collections.abc import Sequence

import keras
from keras import layers

from musical_tf.pretrained import downloaded_file, input_affine, load_keras_weights

MINIMUM_SIZE = 96
"""Pixels: DenseNet121 divides each side by 32, and the 3x3 valid convolution on top needs 3."""

_FILE = "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"
_URL = "https://storage.googleapis.com/tensorflow/keras-applications/densenet/" + _FILE
_MD5 = "30ee3e1110167f948a6b9946edeeb738"


def densenet121_discriminator(
    image_size: int | tuple[int, int],
    weights: str | os.PathLike = "imagenet",
    normalization: str = "imagenet",
    dtype=None,
) -> keras.Model:
    """Builds MUSICAL's discriminator (section 3.3, "a pretrained DenseNet121").

    1. `(B, H, W, 3)` in [-1, 1] is normalized as the network expects it.
    2. DenseNet121 without its classifier, last batch normalization and ReLU included:
       `(B, H/32, W/32, 1024)`.
    3. Conv 3x3, valid, 1024 -> 256 with a bias: a map of scores `(B, H/32 - 2, W/32 - 2, 256)`,
       6 x 6 at 256 x 256 pixels.

    Call it with `training=True` for batch statistics that also update the moving ones,
    `training=False` for the moving ones. The momentum of batch normalization is 0.9, that of the
    published network (Keras' default is 0.99); its epsilon is 1.001e-5, the published 1e-5 raised
    to what fused kernels accept.

    Args:
        image_size: Side in pixels, or `(height, width)`; at least 96.
        weights: `"imagenet"`, the weights of `keras.applications`, downloaded by Keras on first
            use; `"random"`, convolutions from N(0, 0.02); or the path of an `.h5` or `.weights.h5`
            file of the network without top. The scores' convolution starts from N(0, 0.02) and a
            zero bias with each of them.
        normalization: `"imagenet"`, by mean and standard deviation, or `"none"`, the [-1, 1] image
            as it is.

    Raises:
        ValueError: On an image that is too small, an unknown `normalization`, or a file of another
            network.
        FileNotFoundError: If the file is missing.
        ConnectionError: If the ImageNet weights cannot be downloaded.

    Reference: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < MINIMUM_SIZE:
        raise ValueError(
            f"the DenseNet121 discriminator needs images of at least {MINIMUM_SIZE} x "
            f"{MINIMUM_SIZE} pixels, got {height} x {width}; train at a larger image size, or "
            "without it (lambda_adversarial=0)"
        )
    scale, offset = input_affine(normalization)
    source = os.fspath(weights)
    if source == "imagenet":  # before the network is built: failing late wastes seconds
        instead = (
            "set discriminator_weights to the path of that file, or discriminator_weights=random "
            "to train the discriminator from random weights"
        )
        source = downloaded_file(_FILE, _URL, _MD5, instead)
    elif source != "random" and not os.path.isfile(source):
        raise FileNotFoundError(
            f"DenseNet121 weights {source!r}: no such file; expected 'imagenet', 'random', or the "
            f"path of {_FILE}"
        )

    with _dtype_policy(dtype):
        image = layers.Input((height, width, 3), name="image")
        normalized = layers.Rescaling(scale.tolist(), offset.tolist(), name="normalize")(image)
        backbone = keras.applications.DenseNet121(
            include_top=False, weights=None, input_tensor=normalized
        )
        for layer in backbone.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
        if source == "random":
            for layer in backbone.layers:
                if isinstance(layer, layers.Conv2D):
                    kernel = layer.kernel
                    kernel.assign(_normal()(kernel.shape))
        else:
            expected = "the weights of keras.applications.DenseNet121 without its top"
            load_keras_weights(backbone, source, expected)
        scores = layers.Conv2D(
            256,
            3,
            padding="valid",
            kernel_initializer=_normal(),
            name="scores",
        )(backbone.output)
        return _model(image, scores, "densenet121_discriminator")


@contextlib.contextmanager
def _dtype_policy(dtype):
    """Sets the global policy for a moment: `keras.applications` takes no dtype of its own."""
    before = keras.config.dtype_policy()
    if dtype is not None:
        keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def patch_discriminator(
    width: int = 64,
    n_layers: int = 3,
    normalization: str = "batch",
    spectral: bool = False,
    use_bias: bool = False,
    dtype=None,
) -> keras.Model:
    """Builds pix2pix's PatchGAN discriminator; with three layers each score sees 70 x 70 pixels.

    With w the width and n the number of layers:

    1. Conv 4x4 s2, LeakyReLU: `(B, H/2, W/2, w)`.
    2. n - 1 times Conv 4x4 s2, normalization, LeakyReLU, doubling the channels up to 8w.
    3. Conv 4x4 s1, normalization, LeakyReLU: one less a side.
    4. Conv 4x4 s1 -> 1: one less again, `(B, 30, 30, 1)` at 256 x 256 and n = 3.

    All padded by one pixel. LeakyReLU's slope is 0.2, the normalization's epsilon 1e-5 (batch
    statistics move by 0.1). Weights start from N(0, 0.02).

    Args:
        width: Channels of the first layer.
        n_layers: Int >= 1, convolutions of stride 2.
        normalization: `"batch"` or `"instance"`.
        spectral: Whether every kernel is divided by its largest singular value.
        use_bias: Whether the convolutions have biases. Before a normalization they do nothing.

    Raises:
        ValueError: On a count below 1 or an unknown normalization.

    Reference: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks",
    CVPR 2017.
    """
    if width < 1 or n_layers < 1:
        raise ValueError(f"width and n_layers must be at least 1, got {width} and {n_layers}")
    if normalization not in ("batch", "instance"):
        raise ValueError(f"normalization must be one of 'batch', 'instance', got {normalization!r}")

    def convolve(features, filters, strides):
        features = layers.ZeroPadding2D(1)(features)
        convolution = layers.Conv2D(
            filters, 4, strides, use_bias=use_bias, kernel_initializer=_normal()
        )
        if spectral:
            convolution = layers.SpectralNormalization(convolution)
        return convolution(features)

    with _dtype_policy(dtype):
        image = layers.Input((None, None, 3), name="image")
        features = layers.LeakyReLU(0.2)(convolve(image, width, 2))
        for index in range(1, n_layers + 1):
            strides = 2 if index < n_layers else 1
            features = convolve(features, width * min(2**index, 8), strides)
            if normalization == "batch":
                features = _batch_normalization()(features)
            else:
                features = layers.GroupNormalization(groups=-1, epsilon=1e-5)(features)
            features = layers.LeakyReLU(0.2)(features)
        scores = convolve(features, 1, 1)
        return _model(image, scores, "patch_discriminator")


def dcgan_discriminator(image_size: int, width: int = 64, dtype=None) -> keras.Model:
    """Builds Context Encoder's discriminator: convolutions down to 4 x 4, then one score.

    1. Conv 4x4 s2, LeakyReLU: `(B, S/2, S/2, w)`.
    2. Conv 4x4 s2, batch normalization, LeakyReLU until the map is 4 x 4; the last four maps of
       any size have w, 2w, 4w, 8w channels, those before them w.
    3. Conv 4x4 valid -> 1.

    LeakyReLU's slope is 0.2. Batch normalization has epsilon 1e-5, its statistics move by 0.1, its
    scale starts from N(1, 0.02). No biases. Weights start from N(0, 0.02).

    Args:
        image_size: Side S in pixels, a power of two, at least 64.
        width: Channels w.

    Raises:
        ValueError: On another size, or a width below 1.

    Reference: Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016,
    supplement; Radford et al., "Unsupervised Representation Learning with Deep Convolutional
    Generative Adversarial Networks", ICLR 2016.
    """
    if image_size < 64 or image_size & (image_size - 1):
        raise ValueError(f"image_size must be a power of two, at least 64, got {image_size}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    halvings = image_size.bit_length() - 3  # down to 4 x 4
    with _dtype_policy(dtype):
        image = layers.Input((image_size, image_size, 3), name="image")
        features = image
        for index in range(halvings):
            filters = width * 2 ** max(index - (halvings - 4), 0)
            features = layers.Conv2D(
                filters, 4, 2, padding="same", use_bias=False, kernel_initializer=_normal()
            )(features)
            if index > 0:
                features = _batch_normalization(_normal(mean=1.0))(features)
            features = layers.LeakyReLU(0.2)(features)
        score = layers.Conv2D(1, 4, use_bias=False, kernel_initializer=_normal())(features)
        return _model(image, layers.Flatten()(score), "dcgan_discriminator")


def local_global_discriminator(
    image_size: int, crop_size: int, width: int = 64, features: int = 1024, dtype=None
) -> keras.Model:
    """Builds GLC's context discriminator: a crop and the whole image, judged together.

    Each of the two branches, with w the width:

    1. Conv 5x5 s2, batch normalization, ReLU with w, 2w, 4w, 8w, 8w, 8w channels, as many as bring
       the side to about 4: six for 256 pixels, five for 128.
    2. Dense -> `features`, ReLU.

    The two vectors are concatenated, Dense -> 1. Batch normalization has epsilon 1e-5, its
    statistics move by 0.1. Weights start from He's normal distribution.

    Args:
        image_size: Side of the image in pixels, at least 16.
        crop_size: Side of the crop in pixels, at least 16.
        width: Channels w.
        features: Length of each branch's vector.

    Call it with `[crop, image]`, `(B, c, c, 3)` and `(B, S, S, 3)`.

    Raises:
        ValueError: On a size below 16, or a width or number of features below 1.

    Reference: Iizuka et al., "Globally and Locally Consistent Image Completion", SIGGRAPH 2017,
    Section 3.3, Table 2.
    """
    if min(image_size, crop_size) < 16:
        raise ValueError(
            f"image_size and crop_size must be at least 16, got {image_size} and {crop_size}"
        )
    if min(width, features) < 1:
        raise ValueError(f"width and features must be at least 1, got {width} and {features}")

    def judge(image, size, name):
        maps = image
        for index in range(round(math.log2(size / 4))):
            maps = layers.Conv2D(
                width * min(2**index, 8),
                5,
                2,
                padding="same",
                use_bias=False,
                kernel_initializer="he_normal",
                name=f"{name}{index + 1}_conv",
            )(maps)
            maps = _batch_normalization(name=f"{name}{index + 1}_norm")(maps)
            maps = layers.ReLU(name=f"{name}{index + 1}_act")(maps)
        flat = layers.Flatten(name=f"{name}_flat")(maps)
        return layers.Dense(
            features, "relu", kernel_initializer="he_normal", name=f"{name}_features"
        )(flat)

    with _dtype_policy(dtype):
        crop = layers.Input((crop_size, crop_size, 3), name="crop")
        image = layers.Input((image_size, image_size, 3), name="image")
        both = [judge(crop, crop_size, "local"), judge(image, image_size, "global")]
        score = layers.Dense(1, name="score")(layers.Concatenate(name="both")(both))
        return _model([crop, image], score, "local_global_discriminator")


def _model(inputs, scores, name: str) -> keras.Model:
    logits = layers.Activation("linear", dtype="float32", name="logits")(scores)
    return keras.Model(inputs, logits, name=name)


def _normal(mean: float = 0.0) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(mean, 0.02)


def _batch_normalization(gamma_initializer="ones", name=None) -> layers.BatchNormalization:
    """Batch normalization with the numbers of Torch, which the papers' authors used."""
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=gamma_initializer, name=name
    )


def feature_patch_discriminator(width: int = 512, channels: int = 256, dtype=None) -> keras.Model:
    """Builds CSA's discriminator of features, which judges VGG16's relu3_3 patch by patch.

    1. Conv 4x4 s2, LeakyReLU: `(B, h/2, w/2, width)`.
    2. Conv 4x4 s2, instance normalization without scale and offset, LeakyReLU: `(B, h/4, w/4,
       width)`.
    3. Conv 4x4 s2: scores `(B, h/8, w/8, width)`, 8 x 8 for an image of 256 x 256 pixels.

    LeakyReLU's slope is 0.2, the normalization's epsilon 1e-5. Convolutions have biases and start
    from N(0, 0.02).

    Args:
        width: Channels of every layer.
        channels: Channels of the features.

    Raises:
        ValueError: On a width or number of channels below 1.

    Reference: Liu et al., "Coherent Semantic Attention for Image Inpainting", ICCV 2019.
    """
    if width < 1 or channels < 1:
        raise ValueError(f"width and channels must be at least 1, got {width} and {channels}")

    def convolve(maps):
        return layers.Conv2D(width, 4, 2, padding="same", kernel_initializer=_normal())(maps)

    with _dtype_policy(dtype):
        features = layers.Input((None, None, channels), name="features")
        maps = layers.LeakyReLU(0.2)(convolve(features))
        maps = layers.GroupNormalization(groups=-1, epsilon=1e-5, center=False, scale=False)(
            convolve(maps)
        )
        scores = convolve(layers.LeakyReLU(0.2)(maps))
        return _model(features, scores, "feature_patch_discriminator")


def wasserstein_critic(image_size: int, widths: Sequence[int], dtype=None) -> keras.Model:
    """Builds a critic of DeepFill: strided convolutions, then one score without bounds.

    1. For each width, Conv 5x5 s2, LeakyReLU of slope 0.2: `(B, S/2, S/2, widths[0])`, ...
    2. Dense to one score `(B, 1)`, without a bias: only differences of scores count.

    No normalization, which would tie a sample's gradient to its batch. Weights start from Glorot's
    uniform distribution.

    The critic's `seed_generator` is meant for the points between photograph and fake at which its
    gradient is penalized. Its state is among the critic's variables: a run that is resumed draws
    what the uninterrupted one draws.

    Args:
        image_size: Side S in pixels.
        widths: Channels of the convolutions.

    Raises:
        ValueError: On a size, or a width, below 1, or no width.

    Reference: Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018,
    Section 3, "Global and local Wasserstein GANs".
    """
    if not widths or min(image_size, *widths) < 1:
        raise ValueError(
            f"image_size and widths must be at least 1, got {image_size} and {list(widths)}"
        )
    with _dtype_policy(dtype):
        image = layers.Input((image_size, image_size, 3), name="image")
        features = image
        for width in widths:
            features = layers.Conv2D(
                width, 5, 2, padding="same", kernel_initializer="glorot_uniform"
            )(features)
            features = layers.LeakyReLU(0.2)(features)
        flat = layers.Flatten()(features)
        score = layers.Dense(
            1, use_bias=False, kernel_initializer="glorot_uniform", dtype="float32", name="score"
        )(flat)
    critic = keras.Model(image, score, name="wasserstein_critic")
    critic.seed_generator = keras.random.SeedGenerator()
    return critic
