"""Discriminators: MUSICAL's is an ImageNet DenseNet121 with one scoring convolution on top."""

import contextlib
import os

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

    1. `(B, H, W, 3)` in [-1, 1] is normalised as the network expects it.
    2. DenseNet121 without its classifier, last batch normalisation and ReLU included:
       `(B, H/32, W/32, 1024)`.
    3. Conv 3x3, valid, 1024 -> 256 with a bias: a map of scores `(B, H/32 - 2, W/32 - 2, 256)`,
       6 x 6 at 256 x 256 pixels.

    Call it with `training=True` for batch statistics that also update the moving ones,
    `training=False` for the moving ones. The momentum of batch normalisation is 0.9, that of the
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
        dtype: Dtype or policy. None follows the global policy. The scores are float32 with every
            policy.

    Returns:
        `keras.Model` from images `(B, H, W, 3)` to logits, float32.

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
        source = downloaded_file(
            _FILE,
            _URL,
            _MD5,
            instead="set discriminator_weights to the path of that file, or "
            "discriminator_weights=random to train the discriminator from random weights",
        )
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
                    kernel.assign(keras.initializers.RandomNormal(0.0, 0.02)(kernel.shape))
        else:
            expected = "the weights of keras.applications.DenseNet121 without its top"
            load_keras_weights(backbone, source, expected)
        scores = layers.Conv2D(
            256,
            3,
            padding="valid",
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.02),
            name="scores",
        )(backbone.output)
        logits = layers.Activation("linear", dtype="float32", name="logits")(scores)
    return keras.Model(image, logits, name="densenet121_discriminator")


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
