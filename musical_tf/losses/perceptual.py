"""Perceptual loss, Eq. (4), and style loss, Eq. (5) and (6), on the pooled feature maps of VGG16.

The trade-off weights of the paper (0.07 and 250) were tuned on the VGG16 that torchvision
distributes. The features of another VGG16 have another scale and the weights then mean nothing,
which is why that network is packed with the project and any other is brought to its scale (see
`VGG16Features`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from musical_tf.conventions import Tensor
from musical_tf.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    downloaded_file,
    input_affine,
    load_keras_weights,
    packaged_arrays,
    read_arrays,
)

BLOCKS = (
    ("conv1_1", "conv1_2"),
    ("conv2_1", "conv2_2"),
    ("conv3_1", "conv3_2", "conv3_3"),
)
"""The convolutions up to pool3; a 2x2 max-pool ends each block."""

_WIDTHS = (64, 128, 256)
_PACKAGED = "vgg16_torchvision_block1-3_fp16.npz"
_KERAS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/" + _KERAS_FILE
_KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"
_KERAS_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # RGB; what Keras' VGG16 subtracts


@keras.saving.register_keras_serializable(package="musical_tf")
class VGG16Features(keras.layers.Layer):
    """Feature maps pool1, pool2 and pool3 of an ImageNet VGG16; frozen, gradients reach the image.

    1. `(B, H, W, 3)` in [-1, 1] is normalised as the network expects it, in float32.
    2. Three blocks of 3x3 convolutions with ReLU, each ended by a 2x2 max-pool, in `dtype`.
    3. Maps `(B, H/2, W/2, 64)`, `(B, H/4, W/4, 128)`, `(B, H/8, W/8, 256)` are returned as float32.

    Samples of a batch do not see each other: several images cost one call when they are
    concatenated along the batch, and the maps of the truth can be computed once and compared many
    times.

    Scale of Keras' weights. Keras' VGG16 answers with activations some 150 to 200 times those of
    torchvision's (measured on 32 CelebA faces, means at pool1, pool2, pool3: 140, 326, 371 against
    0.80, 1.72, 2.44), which would make the perceptual term hundreds and the style term ten
    thousands of times what the paper's weights were tuned for. So each map is multiplied by one
    number, chosen on loading such that its mean activation over three photographs of scikit-image
    equals that of the packaged network with the same `normalization`. ReLU and max-pooling are
    positively homogeneous, so these three numbers fold exactly into the kernels and biases: no
    cost, and no activation too large for float16. They are kept in `scales`.

    Args:
        weights: `"torchvision"`, the file packed with the project; `"keras"`, the weights of
            `keras.applications`, downloaded by Keras on first use; or the path of a file, either
            `.npz` in the layout of the packaged one (`conv1_1/kernel`, `conv1_1/bias`, ..., trained
            on RGB normalised by ImageNet's mean and standard deviation; taken as it is) or a Keras
            VGG16 without top, `.h5` or `.weights.h5` (rescaled as above).
        normalization: `"imagenet"`: mean and standard deviation, what the network was trained on;
            `"none"`: the [-1, 1] image takes the place of the normalised one, as in the authors'
            code.
        dtype: Dtype or policy of the convolutions. None follows the global policy; a mixed one
            computes in 16 bits. The weights are frozen, so they are stored in the dtype they are
            used in.

    Call arguments:
        image: Float tensor `(B, H, W, 3)`, RGB in [-1, 1], `H` and `W` at least 8.

    Returns:
        List of the three maps, float32.

    Raises:
        ValueError: On an unknown `normalization`, or a file that is not VGG16's weights.
        FileNotFoundError: If the file is missing.
        ConnectionError: If Keras' weights cannot be downloaded.

    Example:

    >>> features = VGG16Features()
    >>> truth, prediction = features(image), features(generator([image, hole]))
    >>> loss = 0.07 * perceptual_loss(truth, prediction) + 250 * style_loss(truth, prediction)

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition", ICLR 2015.
    """

    def __init__(
        self,
        weights: str | os.PathLike = "torchvision",
        normalization: str = "imagenet",
        dtype=None,
        **kwargs,
    ):
        kwargs.pop("trainable", None)  # from get_config: this network is never trained
        super().__init__(dtype=dtype, autocast=False, trainable=False, **kwargs)
        self.weights_source = os.fspath(weights)
        self.normalization = normalization
        arrays, mean = _load_arrays(self.weights_source)
        self._affine = input_affine(normalization, mean)
        self.scales = np.ones(len(BLOCKS))
        if mean != IMAGENET_MEAN:
            self.scales = _scales_to_packaged(arrays, mean, normalization)
            arrays = _fold_scales(arrays, self.scales)
        self._filters = [[self._add_frozen(name, arrays) for name in block] for block in BLOCKS]

    def _add_frozen(self, name: str, arrays: dict[str, np.ndarray]) -> tuple:
        def add(kind: str):
            value = arrays[f"{name}/{kind}"]
            return self.add_weight(
                name=f"{name}_{kind}",
                shape=value.shape,
                initializer=lambda shape, dtype: ops.convert_to_tensor(value, dtype=dtype),
                dtype=self.compute_dtype,
                trainable=False,
                autocast=False,
            )

        return add("kernel"), add("bias")

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] != 3:
            raise ValueError(f"image must have shape (B, H, W, 3), got {tuple(input_shape)}")

    def call(self, image: Tensor) -> list[Tensor]:
        """Returns `[pool1, pool2, pool3]` of `image`."""
        scale, offset = self._affine
        features = ops.cast(ops.cast(image, "float32") * scale + offset, self.compute_dtype)
        return [ops.cast(pooled, "float32") for pooled in _pooled_maps(features, self._filters)]

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        sides = [(height, width)]
        for _ in _WIDTHS:
            sides.append(tuple(side // 2 if side is not None else None for side in sides[-1]))
        return [(batch, *side, channels) for side, channels in zip(sides[1:], _WIDTHS, strict=True)]

    def compute_output_spec(self, image):
        """The maps are float32 whatever the compute dtype."""
        shapes = self.compute_output_shape(tuple(image.shape))
        return [keras.KerasTensor(shape, dtype="float32") for shape in shapes]

    def get_config(self):
        own = {"weights": self.weights_source, "normalization": self.normalization}
        return {**super().get_config(), **own}


def perceptual_loss(features_true: Sequence[Tensor], features_pred: Sequence[Tensor]) -> Tensor:
    """Perceptual loss, Eq. (4): the sum over maps of `mean(|true - pred|)`.

    The mean is over height, width and channel (the equation's `1 / HWC`) and over the batch.

    Args:
        features_true: Feature maps `(B, H_i, W_i, C_i)` of the truth, such as `VGG16Features`
            returns.
        features_pred: Feature maps of the prediction, of the same shapes.

    Returns:
        Float32 scalar.
    """
    return sum(
        ops.mean(ops.abs(ops.cast(true, "float32") - ops.cast(pred, "float32")))
        for true, pred in zip(features_true, features_pred, strict=True)
    )


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix, Eq. (6), normalised as in Eq. (5): `F^T F / (H W C)`, `F` being `(H W, C)`.

    Always float32: the sum over positions leaves the range of float16.

    Args:
        features: Float tensor `(B, H, W, C)`.

    Returns:
        Float32 tensor `(B, C, C)`, symmetric.
    """
    height, width, channels = ops.shape(features)[1:]
    flat = ops.reshape(ops.cast(features, "float32"), (-1, height * width, channels))  # (B, HW, C)
    gram = ops.matmul(ops.transpose(flat, (0, 2, 1)), flat)  # (B, C, C)
    return gram / ops.cast(height * width * channels, "float32")


def style_loss(features_true: Sequence[Tensor], features_pred: Sequence[Tensor]) -> Tensor:
    """Style loss, Eq. (5): the sum over maps of `mean(|gram(true) - gram(pred)|)`.

    The mean is over the `C x C` entries and the batch.

    Args:
        features_true: Feature maps `(B, H_i, W_i, C_i)` of the truth.
        features_pred: Feature maps of the prediction. Their height and width may differ from the
            truth's.

    Returns:
        Float32 scalar.
    """
    return sum(
        ops.mean(ops.abs(gram_matrix(true) - gram_matrix(pred)))
        for true, pred in zip(features_true, features_pred, strict=True)
    )


def _pooled_maps(features: Tensor, filters: Sequence) -> list[Tensor]:
    """The convolutional blocks; `filters` holds for each block its `(kernel, bias)` pairs."""
    maps = []
    for block in filters:
        for kernel, bias in block:
            features = ops.relu(ops.conv(features, kernel, padding="same") + bias)
        features = ops.max_pool(features, pool_size=2, strides=2, padding="valid")
        maps.append(features)
    return maps


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes, channels = {}, 3
    for block, width in zip(BLOCKS, _WIDTHS, strict=True):
        for name in block:
            shapes[f"{name}/kernel"] = (3, 3, channels, width)
            shapes[f"{name}/bias"] = (width,)
            channels = width
    return shapes


def _load_arrays(source: str) -> tuple[dict[str, np.ndarray], tuple[float, float, float]]:
    """Returns float32 arrays for RGB input over ImageNet's deviation, and the mean to subtract."""
    if source == "torchvision":
        return packaged_arrays(_PACKAGED, _shapes()), IMAGENET_MEAN
    if source == "keras":
        path = downloaded_file(
            _KERAS_FILE,
            _KERAS_URL,
            _KERAS_MD5,
            instead="set feature_weights=torchvision (packed with the project) or to the path of "
            "a file",
        )
        return _read_keras_arrays(path), _KERAS_MEAN
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"VGG16 weights {source!r}: no such file; expected 'torchvision', 'keras', or the path "
            "of an .npz in the layout of the packaged file or of a Keras VGG16 (no top) .h5"
        )
    if Path(source).suffix.lower() == ".npz":
        return read_arrays(source, _shapes()), IMAGENET_MEAN
    return _read_keras_arrays(source), _KERAS_MEAN


def _read_keras_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads Keras' VGG16; folds its input, BGR in [0, 255], into the first kernel."""
    model = keras.applications.VGG16(include_top=False, weights=None)
    load_keras_weights(model, path, "the weights of keras.applications.VGG16 without its top")
    arrays = {}
    for name in (name for block in BLOCKS for name in block):
        kernel, bias = model.get_layer(name.replace("conv", "block").replace("_", "_conv")).weights
        arrays[f"{name}/kernel"] = ops.convert_to_numpy(ops.cast(kernel, "float32"))
        arrays[f"{name}/bias"] = ops.convert_to_numpy(ops.cast(bias, "float32"))
    grey_levels = 255.0 * np.array(IMAGENET_STD, "float32")
    first = arrays["conv1_1/kernel"][:, :, ::-1]  # its input channels from BGR to RGB
    arrays["conv1_1/kernel"] = first * grey_levels[:, np.newaxis]
    return arrays


def _calibration_photographs() -> np.ndarray:
    """Three photographs that arrive with scikit-image: `(3, 128, 128, 3)` float32 in [-1, 1]."""
    from skimage import data  # here, since only foreign weights need it

    crops = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee()):
        image = photograph.astype("float32")
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        halved = image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3).mean((1, 3))
        top, left = (rows - 128) // 2, (columns - 128) // 2
        crops.append(halved[top : top + 128, left : left + 128] / 127.5 - 1.0)
    return np.stack(crops)


def _mean_activations(
    arrays: dict[str, np.ndarray], mean: tuple[float, float, float], normalization: str
) -> np.ndarray:
    scale, offset = input_affine(normalization, mean)
    filters = [[(arrays[f"{n}/kernel"], arrays[f"{n}/bias"]) for n in block] for block in BLOCKS]
    image = ops.convert_to_tensor(_calibration_photographs() * scale + offset, dtype="float32")
    return np.array([float(ops.mean(pooled)) for pooled in _pooled_maps(image, filters)])


def _scales_to_packaged(
    arrays: dict[str, np.ndarray], mean: tuple[float, float, float], normalization: str
) -> np.ndarray:
    """One factor a map that gives it the mean activation of the packaged network's."""
    found = _mean_activations(arrays, mean, normalization)
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError(
            "the VGG16 weights give no usable features: mean activations at pool1, pool2, pool3 "
            f"over sample photographs are {found.tolist()}, expected positive numbers"
        )
    wanted = _mean_activations(packaged_arrays(_PACKAGED, _shapes()), IMAGENET_MEAN, normalization)
    return wanted / found


def _fold_scales(arrays: dict[str, np.ndarray], scales: np.ndarray) -> dict[str, np.ndarray]:
    """Multiplies map i by `scales[i]` inside the weights, by `relu(s x) = s relu(x)`.

    With the input of a block already multiplied by the previous factor, its first kernel takes the
    ratio of the two and all its biases take its own.
    """
    folded, previous = dict(arrays), 1.0
    for block, scale in zip(BLOCKS, scales.astype("float32"), strict=True):
        folded[f"{block[0]}/kernel"] = arrays[f"{block[0]}/kernel"] * (scale / previous)
        for name in block:
            folded[f"{name}/bias"] = arrays[f"{name}/bias"] * scale
        previous = scale
    return folded
