"""VGG16, whose features the perceptual, style, content and consistency terms compare.

The features of another VGG16 than torchvision's have another scale, and the weights of a paper's
terms then mean nothing. Therefore that network is packed with the project, and any other is brought
to its scale (see `VGG16Features`).
"""

import os
from collections.abc import Mapping, Sequence
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
    ("conv4_1", "conv4_2", "conv4_3"),
)
"""The convolutions up to relu4_3; a 2x2 max-pool ends each block."""

POOLS = ("pool1", "pool2", "pool3")
"""The maps of `VGG16Features`."""

MAPS = tuple(
    name
    for index, block in enumerate(BLOCKS, start=1)
    for name in (*(each.replace("conv", "relu") for each in block), f"pool{index}")
)
"""All maps in order: what each convolution and each pool gives."""

_WIDTHS = (64, 128, 256, 512)
_PACKAGED = ("vgg16_torchvision_block1-3_fp16.npz", "vgg16_torchvision_block4_fp16.npz")
_KERAS_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/" + _KERAS_FILE
_KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"
_KERAS_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # RGB; what Keras' VGG16 subtracts


@keras.saving.register_keras_serializable(package="musical_tf")
class VGG16Activations(keras.layers.Layer):
    """Feature maps of an ImageNet VGG16; frozen, gradients reach the image.

    1. `(B, H, W, 3)` in [-1, 1] is normalized as the network expects it, in float32.
    2. Blocks of 3x3 convolutions with ReLU, each ended by a 2x2 max-pool, in `dtype`, up to the
       deepest map that is asked for.
    3. The maps are returned as float32: `relu3_3` is `(B, H/4, W/4, 256)`, `relu4_3` `(B, H/8, W/8,
       512)`, `pool1` `(B, H/2, W/2, 64)`.

    Args:
        activations: Names, `relu1_1` to `relu4_3` and `pool1` to `pool4`, in the order of the
            network.
        weights: `"torchvision"`, the files packed with the project; or the path of an `.npz` that
            holds the same arrays (`conv1_1/kernel`, `conv1_1/bias`, ...).
        normalization: `"imagenet"`: mean and standard deviation, what the network was trained on;
            `"none"`: the [-1, 1] image takes the place of the normalized one.
        dtype: Dtype or policy of the convolutions. None follows the global policy; a mixed one
            computes in 16 bits. The weights are frozen, so they are stored in the dtype they are
            used in.

    Call arguments:
        image: Float tensor `(B, H, W, 3)`, RGB in [-1, 1], `H` and `W` at least 8.

    Returns:
        List of the maps, float32.

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
        wanted = [name for name in MAPS if name in self.activations]
        if not wanted or wanted != list(self.activations):
            raise ValueError(
                f"activations must be some of {', '.join(MAPS)}, in this order, got "
                f"{', '.join(self.activations) or 'none'}"
            )
        arrays, mean = self._load_arrays()
        self._affine = input_affine(normalization, mean)
        self._filters = {}
        for name in MAPS[: MAPS.index(wanted[-1]) + 1]:
            if not name.startswith("pool"):
                name = name.replace("relu", "conv")
                self._filters[name] = tuple(
                    self._add_frozen(f"{name}_{kind}", arrays[f"{name}/{kind}"])
                    for kind in ("kernel", "bias")
                )

    def _load_arrays(self) -> tuple[dict[str, np.ndarray], tuple[float, float, float]]:
        """Float32 arrays for RGB input over ImageNet's deviation, and the mean to subtract."""
        if self.weights_source == "torchvision":
            return _packaged_arrays(4), IMAGENET_MEAN
        _check_file(self.weights_source, "'torchvision', or the path of an .npz in the layout of")
        return read_arrays(self.weights_source, _shapes(range(4))), IMAGENET_MEAN

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
        found = _run(features, self._filters, self.activations)
        return [ops.cast(each, "float32") for each in found]

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        shapes = []
        for name in self.activations:
            halvings = _block(name) - (not name.startswith("pool"))
            halved = (side if side is None else side // 2**halvings for side in sides)
            shapes.append((batch, *halved, _WIDTHS[_block(name) - 1]))
        return shapes

    def compute_output_spec(self, image):
        """The maps are float32 whatever the compute dtype."""
        shapes = self.compute_output_shape(tuple(image.shape))
        return [keras.KerasTensor(shape, dtype="float32") for shape in shapes]

    def get_config(self):
        own = {
            "activations": self.activations,
            "weights": self.weights_source,
            "normalization": self.normalization,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="musical_tf")
class VGG16Features(VGG16Activations):
    """Feature maps pool1, pool2 and pool3 of an ImageNet VGG16: see `VGG16Activations`.

    The maps are `(B, H/2, W/2, 64)`, `(B, H/4, W/4, 128)` and `(B, H/8, W/8, 256)`, float32.

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
            on RGB normalized by ImageNet's mean and standard deviation; taken as it is) or a Keras
            VGG16 without top, `.h5` or `.weights.h5` (rescaled as above).
        normalization, dtype: As of `VGG16Activations`.

    Raises:
        ValueError: On an unknown `normalization`, or a file that is not VGG16's weights.
        FileNotFoundError: If the file is missing.
        ConnectionError: If Keras' weights cannot be downloaded.

    Example:

    >>> features = VGG16Features()
    >>> truth, prediction = features(image), features(generator([image, hole]))
    >>> loss = 0.07 * perceptual_loss(truth, prediction) + 250 * style_loss(truth, prediction)
    """

    def __init__(
        self,
        weights: str | os.PathLike = "torchvision",
        normalization: str = "imagenet",
        dtype=None,
        **kwargs,
    ):
        super().__init__(POOLS, weights, normalization, dtype, **kwargs)

    def _load_arrays(self) -> tuple[dict[str, np.ndarray], tuple[float, float, float]]:
        self.scales = np.ones(len(POOLS))
        source = self.weights_source
        if source == "torchvision":
            return _packaged_arrays(3), IMAGENET_MEAN
        if source == "keras":
            instead = "set feature_weights=torchvision (packed with the project), or to a file"
            path: str | Path = downloaded_file(_KERAS_FILE, _KERAS_URL, _KERAS_MD5, instead)
        else:
            _check_file(
                source,
                "'torchvision', 'keras', the path of a Keras VGG16 (no top) .h5, or of an .npz in "
                "the layout of",
            )
            if Path(source).suffix.lower() == ".npz":
                return read_arrays(source, _shapes(range(3))), IMAGENET_MEAN
            path = source
        arrays = _read_keras_arrays(path)
        self.scales = _scales_to_packaged(arrays, _KERAS_MEAN, self.normalization)
        return _fold_scales(arrays, self.scales), _KERAS_MEAN

    def get_config(self):
        config = super().get_config()
        del config["activations"]
        return config


def _block(name: str) -> int:
    """The number of the block that a map belongs to, from 1."""
    return int(name.removeprefix("relu").removeprefix("pool").partition("_")[0])


def _run(features: Tensor, filters: Mapping[str, Sequence], wanted: Sequence[str]) -> list[Tensor]:
    """The maps of the names `wanted`; `filters` holds each convolution's kernel and bias."""
    found: list[Tensor] = []
    for name in MAPS[: MAPS.index(wanted[-1]) + 1]:
        if name.startswith("pool"):
            features = ops.max_pool(features, pool_size=2, strides=2, padding="valid")
        else:
            kernel, bias = filters[name.replace("relu", "conv")]
            features = ops.relu(ops.conv(features, kernel, padding="same") + bias)
        if name in wanted:
            found.append(features)
    return found


def _shapes(blocks: range) -> dict[str, tuple[int, ...]]:
    """Array name -> shape, for the blocks of these indices."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = 3
    for index, (block, width) in enumerate(zip(BLOCKS, _WIDTHS, strict=True)):
        for name in block:
            if index in blocks:
                shapes |= {f"{name}/kernel": (3, 3, channels, width), f"{name}/bias": (width,)}
            channels = width
    return shapes


def _packaged_arrays(blocks: int) -> dict[str, np.ndarray]:
    arrays = packaged_arrays(_PACKAGED[0], _shapes(range(3)))
    return arrays if blocks == 3 else arrays | packaged_arrays(_PACKAGED[1], _shapes(range(3, 4)))


def _check_file(source: str, expected: str) -> None:
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"VGG16 weights {source!r}: no such file; expected {expected} the packaged files"
        )


def _read_keras_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads Keras' VGG16; folds its input, BGR in [0, 255], into the first kernel."""
    model = keras.applications.VGG16(include_top=False, weights=None)
    load_keras_weights(model, path, "the weights of keras.applications.VGG16 without its top")
    arrays = {}
    for name in (name for block in BLOCKS[:3] for name in block):
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
    filters = {
        name: (arrays[f"{name}/kernel"], arrays[f"{name}/bias"])
        for block in BLOCKS[:3]
        for name in block
    }
    image = ops.convert_to_tensor(_calibration_photographs() * scale + offset, dtype="float32")
    return np.array([float(ops.mean(pooled)) for pooled in _run(image, filters, POOLS)])


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
    wanted = _mean_activations(_packaged_arrays(3), IMAGENET_MEAN, normalization)
    return wanted / found


def _fold_scales(arrays: dict[str, np.ndarray], scales: np.ndarray) -> dict[str, np.ndarray]:
    """Multiplies map i by `scales[i]` inside the weights, by `relu(s x) = s relu(x)`.

    With the input of a block already multiplied by the previous factor, its first kernel takes the
    ratio of the two and all its biases take its own.
    """
    folded, previous = dict(arrays), 1.0
    for block, scale in zip(BLOCKS[:3], scales.astype("float32"), strict=True):
        folded[f"{block[0]}/kernel"] = arrays[f"{block[0]}/kernel"] * (scale / previous)
        for name in block:
            folded[f"{name}/bias"] = arrays[f"{name}/bias"] * scale
        previous = scale
    return folded
