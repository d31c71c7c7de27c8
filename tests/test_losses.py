import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from scipy import ndimage
from skimage import data
from skimage.metrics import structural_similarity

from musical_tf import losses
from musical_tf.pretrained import IMAGENET_MEAN, IMAGENET_STD, packaged_arrays, read_arrays

from .published_weights import write_published_layout

VGG_LAYERS = {
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
    "conv3_2": (256, 256),
    "conv3_3": (256, 256),
}
VGG_SHAPES = {f"{name}/kernel": (3, 3, *ends) for name, ends in VGG_LAYERS.items()} | {
    f"{name}/bias": ends[1:] for name, ends in VGG_LAYERS.items()
}


def photograph(top, left, height, width):
    return data.astronaut()[top : top + height, left : left + width].astype("float32") / 127.5 - 1


@pytest.fixture(scope="module")
def faces():
    """Two crops, `(2, 40, 56, 3)`: not square, and not a multiple of the pools' 8 rows alone."""
    return np.stack([photograph(80, 200, 40, 56), photograph(300, 60, 40, 56)])


@pytest.fixture(scope="module")
def arrays():
    return packaged_arrays("vgg16_torchvision_block1-3_fp16.npz", VGG_SHAPES)


@pytest.fixture(scope="module")
def vgg():
    return losses.VGG16Features()


# Pixels


def test_l1_and_l2_are_means_over_everything():
    image = np.zeros((2, 1, 2, 3), "float32")
    prediction = np.zeros_like(image)
    prediction[0, 0, 1] = (0.5, -1.0, 0.0)
    assert float(losses.l1_loss(image, prediction)) == pytest.approx(1.5 / 12)
    assert float(losses.l2_loss(image, prediction)) == pytest.approx(1.25 / 12)


def test_hole_l1_counts_the_hole_only_and_divides_by_all_pixels():
    image = np.zeros((1, 2, 2, 3), "float32")
    prediction = np.full_like(image, 0.5)
    hole = np.zeros((1, 2, 2, 1), "float32")
    hole[0, 1, 0] = 1
    assert float(losses.hole_l1_loss(image, prediction, hole)) == pytest.approx(0.5 / 4)


def test_ssim_loss_is_scikit_images_measure():
    images = np.stack([photograph(60, 180, 40, 56), photograph(200, 40, 40, 56)])
    blurred = ndimage.gaussian_filter(images, (0, 2, 2, 0))
    similarities = [
        structural_similarity(a / 2 + 0.5, b / 2 + 0.5, channel_axis=2, data_range=1)
        for a, b in zip(images, blurred, strict=True)
    ]
    loss = float(losses.ssim_loss(images, blurred))
    assert loss == pytest.approx(1 - np.mean(similarities), abs=1e-4)
    assert float(losses.ssim_loss(images, images)) == pytest.approx(0, abs=1e-5)


def test_gradient_of_ssim_loss_is_that_of_its_values():
    image = tf.constant(photograph(60, 180, 16, 20)[None])
    step = np.random.default_rng(0).normal(size=image.shape).astype("float32")
    prediction = tf.constant(ndimage.gaussian_filter(image.numpy(), (0, 1, 1, 0)))
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        loss = losses.ssim_loss(image, prediction)
    slope = float(tf.reduce_sum(tape.gradient(loss, prediction) * step))
    ends = [float(losses.ssim_loss(image, prediction + sign * 5e-3 * step)) for sign in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / 1e-2, rel=0.02)


def test_total_variation_by_hand():
    image = np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 1.0]], "float32")[None, :, :, None]
    vertical, horizontal = (0.5 + 0.5 + 1.0) / 3, (1.0 + 1.0 + 0.0 + 0.5) / 4
    assert float(losses.total_variation_loss(image)) == pytest.approx(vertical + horizontal)


def test_pixel_losses_are_float32_for_16_bit_images():
    image = ops.cast(np.full((1, 64, 64, 3), 1.0), "float16")
    prediction = ops.cast(np.full((1, 64, 64, 3), 1.0 - 2.0**-10), "float16")
    loss = losses.l1_loss(image, prediction)
    assert loss.dtype == "float32"
    assert float(loss) == pytest.approx(2.0**-10, rel=1e-6)
    assert losses.total_variation_loss(image).dtype == "float32"


def test_pixel_losses_refuse_shapes_that_would_broadcast():
    image = np.zeros((2, 4, 4, 3), "float32")
    with pytest.raises(ValueError, match=r"one shape, got \(2, 4, 4, 3\), \(2, 4, 4, 1\)"):
        losses.l1_loss(image, image[..., :1])
    with pytest.raises(ValueError, match=r"one shape"):
        losses.l1_loss(image, image[0])
    with pytest.raises(ValueError, match=r"one shape"):
        losses.ssim_loss(image, image[..., :1])
    with pytest.raises(ValueError, match=r"hole must have shape \(B, H, W, 1\), got \(2, 4, 4\)"):
        losses.hole_l1_loss(image, image, image[..., 0])


# The game


def test_adversarial_losses_by_hand():
    real, fake = np.array([[2.0, -1.0]], "float32"), np.array([[0.5]], "float32")

    def probability(logits):
        return 1 / (1 + np.exp(-logits))

    expected = (-np.log(probability(real)).mean() - np.log(1 - probability(fake)).mean()) / 2
    assert float(losses.discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-6)
    expected = -np.log(probability(fake)).mean()
    assert float(losses.generator_adversarial_loss(fake)) == pytest.approx(expected, rel=1e-6)


def test_adversarial_losses_stay_finite_and_keep_their_gradient_when_one_side_has_won():
    logits = tf.constant([-60000.0, 60000.0], "float16")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.generator_adversarial_loss(logits)
    assert float(loss) == pytest.approx(float(logits[1]) / 2)
    # Non-saturating: the rejected sample has the full slope.
    np.testing.assert_allclose(tape.gradient(loss, logits), [-0.5, 0.0])
    assert np.isfinite(float(losses.discriminator_loss(-logits, logits)))


# Eq. (4) to (6)


def test_gram_matrix_by_hand():
    features = np.array([[[1.0, 2.0], [3.0, 4.0]]], "float32")[None]  # (1, 1, 2, 2)
    gram = losses.gram_matrix(features)
    np.testing.assert_allclose(gram[0], np.array([[10.0, 14.0], [14.0, 20.0]]) / 4)


def test_gram_matrix_of_float16_features_does_not_overflow():
    features = ops.cast(np.full((1, 16, 16, 4), 200.0), "float16")  # 256 * 200^2 is out of range
    gram = losses.gram_matrix(features)
    assert gram.dtype == "float32"
    np.testing.assert_allclose(gram, np.full((1, 4, 4), 1e4))


def test_perceptual_and_style_loss_follow_the_equations():
    rng = np.random.default_rng(0)
    shapes = [(2, 4, 6, 3), (2, 2, 3, 5)]
    true = [rng.normal(size=shape).astype("float32") for shape in shapes]
    pred = [rng.normal(size=shape).astype("float32") for shape in shapes]
    perceptual = style = 0.0
    for each_true, each_pred in zip(true, pred, strict=True):
        batch, height, width, channels = each_true.shape
        for sample in range(batch):
            difference = np.abs(each_true[sample] - each_pred[sample]).sum()
            perceptual += difference / (height * width * channels) / batch
            for i in range(channels):
                for j in range(channels):
                    entry = sum(
                        each_true[sample, y, x, i] * each_true[sample, y, x, j]
                        - each_pred[sample, y, x, i] * each_pred[sample, y, x, j]
                        for y in range(height)
                        for x in range(width)
                    )
                    style += abs(entry) / (height * width * channels) / channels**2 / batch
    assert float(losses.perceptual_loss(true, pred)) == pytest.approx(perceptual, rel=1e-5)
    assert float(losses.style_loss(true, pred)) == pytest.approx(style, rel=1e-5)
    with pytest.raises(ValueError, match="zip"):
        losses.perceptual_loss(true, pred * 2)


# VGG16


def numpy_vgg16(image, arrays, normalization):
    """The same network in plain numpy: the sum over nine shifted copies, block maxima of 2 x 2."""
    features = np.asarray(image, "float64")
    if normalization == "imagenet":
        features = ((features + 1) / 2 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    maps = []
    for name in VGG_LAYERS:
        kernel, bias = arrays[f"{name}/kernel"], arrays[f"{name}/bias"]
        padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = features.shape[1:3]
        total = sum(
            padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
            for dy in range(3)
            for dx in range(3)
        )
        features = np.maximum(total + bias, 0)
        if name in ("conv1_2", "conv2_2", "conv3_3"):
            even = features[:, : height // 2 * 2, : width // 2 * 2]
            features = np.stack([even[:, y::2, x::2] for y in (0, 1) for x in (0, 1)]).max(0)
            maps.append(features)
    return maps


@pytest.mark.parametrize("normalization", ["imagenet", "none"])
def test_vgg16_equals_plain_numpy(faces, arrays, normalization):
    faces = faces[:, :37, :43]  # odd sides: the pools drop the last row and column
    maps = losses.VGG16Features(normalization=normalization)(faces)
    expected = numpy_vgg16(faces, arrays, normalization)
    assert [tuple(each.shape) for each in maps] == [
        (2, 18, 21, 64),
        (2, 9, 10, 128),
        (2, 4, 5, 256),
    ]
    for each, reference in zip(maps, expected, strict=True):
        assert each.dtype == "float32"
        np.testing.assert_allclose(each, reference, atol=1e-5 * reference.max())


def test_vgg16_keeps_the_scale_that_the_trade_off_weights_are_tuned_for(vgg):
    """Means over 128 pixels of the astronaut's face, by `numpy_vgg16` on the packaged weights.

    With 32 CelebA faces, shorter side 128 pixels, they are about 0.8, 1.7 and 2.4.
    """
    means = [float(ops.mean(each)) for each in vgg(photograph(40, 160, 128, 128)[None])]
    np.testing.assert_allclose(means, [0.973136, 1.904476, 2.899476], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_vgg16_in_16_bits_gives_nearly_the_same_losses(vgg, faces, dtype):
    half = losses.VGG16Features(dtype=dtype)
    assert half.compute_dtype == dtype.removeprefix("mixed_")
    truth, other = half(faces[:1]), half(faces[1:])
    assert all(each.dtype == "float32" for each in truth)
    for loss in (losses.perceptual_loss, losses.style_loss):
        expected = float(loss(vgg(faces[:1]), vgg(faces[1:])))
        assert float(loss(truth, other)) == pytest.approx(expected, rel=5e-3)


def test_vgg16_is_frozen(vgg, faces):
    vgg(faces)
    assert vgg.trainable_variables == []
    assert len(vgg.non_trainable_variables) == 14
    vgg.trainable = True
    assert vgg.trainable_variables == []
    vgg.trainable = False


def gradient_of_feature_losses(network, truth, prediction, loss_scale=1.0):
    features = network(truth)
    image = tf.constant(prediction)
    with tf.GradientTape() as tape:
        tape.watch(image)
        maps = network(image)
        loss = 0.07 * losses.perceptual_loss(features, maps)
        loss = (loss + 250 * losses.style_loss(features, maps)) * loss_scale
    return float(loss), tape.gradient(loss, image).numpy() / loss_scale


def test_gradient_of_the_feature_losses_is_the_finite_difference(vgg, faces):
    truth, prediction = faces[:1], faces[1:]
    _, gradient = gradient_of_feature_losses(vgg, truth, prediction)
    direction = np.sign(gradient) * 2e-4
    up, _ = gradient_of_feature_losses(vgg, truth, prediction + direction)
    down, _ = gradient_of_feature_losses(vgg, truth, prediction - direction)
    assert up - down == pytest.approx(2 * float((gradient * direction).sum()), rel=0.02)


def test_gradient_survives_float16_with_loss_scaling(vgg, faces):
    truth, prediction = faces[:1], faces[1:]
    _, expected = gradient_of_feature_losses(vgg, truth, prediction)
    half = losses.VGG16Features(dtype="mixed_float16")
    _, gradient = gradient_of_feature_losses(half, truth, prediction, loss_scale=2.0**15)
    assert np.isfinite(gradient).all()
    cosine = (gradient * expected).sum() / np.linalg.norm(gradient) / np.linalg.norm(expected)
    assert cosine > 0.99


def test_vgg16_rebuilds_from_its_config(vgg, faces):
    layer = losses.VGG16Features(normalization="none", dtype="float16", name="features")
    again = losses.VGG16Features.from_config(layer.get_config())
    assert (again.normalization, again.compute_dtype, again.name) == ("none", "float16", "features")
    np.testing.assert_array_equal(again(faces)[2], layer(faces)[2])


def test_vgg16_reads_a_file_in_the_packaged_layout(faces, arrays, vgg, tmp_path):
    path = tmp_path / "doubled.npz"
    doubled = {
        name: array * 2 if name in ("conv3_3/kernel", "conv3_3/bias") else array
        for name, array in arrays.items()
    }
    np.savez(path, **doubled)
    layer = losses.VGG16Features(path)
    np.testing.assert_allclose(layer(faces)[1], vgg(faces)[1], rtol=1e-6)
    np.testing.assert_allclose(layer(faces)[2], 2 * vgg(faces)[2], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def keras_vgg16(arrays):
    """Keras' VGG16 computing the packaged features, 170, 190 and 150 times as large, from BGR."""
    model = keras.applications.VGG16(include_top=False, weights=None)
    factors = {"1": 170.0, "2": 190.0, "3": 150.0}
    previous = 1.0
    for name in VGG_LAYERS:
        kernel, bias = arrays[f"{name}/kernel"], arrays[f"{name}/bias"] * factors[name[4]]
        if name == "conv1_1":
            kernel = kernel / (255 * np.array(IMAGENET_STD))[:, None]
            kernel = kernel[:, :, ::-1]  # BGR
        if name.endswith("_1"):
            kernel = kernel * factors[name[4]] / previous
            previous = factors[name[4]]
        model.get_layer(f"block{name[4]}_conv{name[6]}").set_weights([kernel, bias])
    return model


@pytest.fixture(scope="module")
def weights_files(keras_vgg16, tmp_path_factory):
    """Its weights in both layouts that Keras has, by suffix."""
    folder = tmp_path_factory.mktemp("vgg16")
    files = {suffix: folder / f"vgg16{suffix}" for suffix in (".h5", ".weights.h5")}
    write_published_layout(keras_vgg16, files[".h5"])
    keras_vgg16.save_weights(files[".weights.h5"])
    return files


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
def test_keras_weights_are_brought_to_the_scale_of_the_packaged_ones(weights_files, faces, suffix):
    layer = losses.VGG16Features(weights_files[suffix], normalization="none")
    np.testing.assert_allclose(layer.scales, [1 / 170, 1 / 190, 1 / 150], rtol=1e-4)
    expected = losses.VGG16Features(normalization="none")(faces)
    for each, reference in zip(layer(faces), expected, strict=True):
        np.testing.assert_allclose(each, reference, atol=1e-4 * float(ops.max(reference)))


def test_keras_weights_see_keras_own_preprocessing(keras_vgg16, weights_files, faces):
    layer = losses.VGG16Features(weights_files[".weights.h5"])
    levels = keras.applications.vgg16.preprocess_input((faces + 1) * 127.5)
    pool3 = keras.Model(keras_vgg16.input, keras_vgg16.get_layer("block3_pool").output)(levels)
    expected = np.asarray(pool3) * layer.scales[2]
    np.testing.assert_allclose(layer(faces)[2], expected, atol=1e-4 * expected.max())


def test_unknown_choices_are_named():
    with pytest.raises(
        FileNotFoundError, match=r"'imagenet': no such file; expected 'torchvision'"
    ):
        losses.VGG16Features("imagenet")
    with pytest.raises(ValueError, match=r"one of 'imagenet', 'none', got 'caffe'"):
        losses.VGG16Features(normalization="caffe")


def test_vgg16_refuses_images_that_are_not_rgb(vgg):
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\), got \(1, 8, 8, 4\)"):
        losses.VGG16Features()(np.zeros((1, 8, 8, 4), "float32"))


def test_broken_npz_files_are_explained(arrays, tmp_path):
    path = tmp_path / "weights.npz"
    path.write_text("not an archive")
    with pytest.raises(ValueError, match=r"weights\.npz: not an \.npz file of weights"):
        losses.VGG16Features(path)
    np.savez(path, **{name: arrays[name] for name in arrays if name != "conv2_1/bias"})
    with pytest.raises(ValueError, match=r"not there: conv2_1/bias"):
        losses.VGG16Features(path)
    np.savez(path, **(arrays | {"conv1_1/bias": np.zeros(63, "float32")}))
    with pytest.raises(ValueError, match=r"conv1_1/bias must have shape \(64,\), got \(63,\)"):
        losses.VGG16Features(path)
    np.savez(path, **(arrays | {"conv1_1/bias": np.full(64, np.nan, "float32")}))
    with pytest.raises(ValueError, match=r"conv1_1/bias must be finite"):
        losses.VGG16Features(path)
    np.savez(path, a=np.arange(4096, dtype="float32"))
    content = bytearray(path.read_bytes())
    content[4000:4100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.npz: the weights are damaged"):
        read_arrays(path, {"a": (4096,)})


def test_wrong_keras_files_are_explained_and_kept(tmp_path):
    path = tmp_path / "other.h5"
    path.write_text("not hdf5")
    with pytest.raises(
        ValueError, match=r"other\.h5: expected the weights of keras\.applications\."
    ):
        losses.VGG16Features(path)
    assert path.read_text() == "not hdf5"
    other = tmp_path / "other.weights.h5"
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save_weights(other)
    with pytest.raises(ValueError, match=r"VGG16 without its top, but it does not load"):
        losses.VGG16Features(other)
    with pytest.raises(ValueError, match=r"an \.h5 or \.weights\.h5 file"):
        losses.VGG16Features(__file__)


def test_a_keras_file_that_lacks_a_layer_is_refused(weights_files, tmp_path):
    path = shutil.copy(weights_files[".weights.h5"], tmp_path / "partial.weights.h5")
    with h5py.File(path, "r+") as file:
        layers = [name for name in file["layers"] if file["layers"][name]["vars"]]
        file["layers"][layers[2]]["vars"]["0"][...] = np.nan
    with pytest.raises(ValueError, match=r"is missing or not finite"):
        losses.VGG16Features(path)


def test_refused_download_says_what_to_do_and_no_foreign_file_is_deleted(no_network):
    with pytest.raises(ConnectionError) as caught:
        losses.VGG16Features("keras")
    message = str(caught.value)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in message
    assert "feature_weights=torchvision" in message
    assert "6d6bbae143d832006294945121d1f1fc" in message
    no_network.mkdir(parents=True, exist_ok=True)
    mine = no_network / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    mine.write_text("mine")
    with pytest.raises(ValueError, match=r"its md5 is .*, expected 6d6bbae1"):
        losses.VGG16Features("keras")
    assert mine.read_text() == "mine"
