import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage import data

from musical_tf.discriminators import densenet121_discriminator

from .published_weights import write_published_layout

NOTOP = "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"


@pytest.fixture(scope="module")
def images():
    photograph = data.astronaut().astype("float32") / 127.5 - 1
    return np.stack([photograph[80:176, 200:296], photograph[300:396, 60:156]])


@pytest.fixture(scope="module")
def random_discriminator():
    keras.utils.set_random_seed(0)
    return densenet121_discriminator(96, weights="random")


def test_it_is_the_published_network_with_a_map_of_float32_logits(random_discriminator, images):
    published_without_top = 7_037_504
    assert random_discriminator.count_params() == published_without_top + 9 * 1024 * 256 + 256
    norms = [
        layer
        for layer in random_discriminator.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 121
    assert {(layer.epsilon, layer.momentum) for layer in norms} == {(1.001e-5, 0.9)}
    logits = random_discriminator(images, training=False)
    assert tuple(logits.shape) == (2, 1, 1, 256)
    assert logits.dtype == "float32"
    assert len(np.unique(logits)) > 256  # no final non-linearity that flattens them
    assert float(np.min(logits)) < 0 < float(np.max(logits))


def test_random_weights_are_normal_with_deviation_two_hundredths(random_discriminator):
    first = np.asarray(random_discriminator.get_layer("conv1_conv").kernel)
    block = np.asarray(random_discriminator.get_layer("conv3_block1_2_conv").kernel)
    scores = random_discriminator.get_layer("scores")
    for kernel in (first, block, np.asarray(scores.kernel)):
        assert kernel.std() == pytest.approx(0.02, rel=0.05)
        assert abs(kernel.mean()) < 1e-3
    again = np.asarray(random_discriminator.get_layer("conv3_block2_2_conv").kernel)
    assert not np.array_equal(block, again)
    np.testing.assert_array_equal(scores.bias, np.zeros(256))


def test_training_uses_the_batch_and_moves_the_statistics(random_discriminator, images):
    layer = random_discriminator.get_layer("conv1_bn")
    before = layer.moving_mean.numpy()
    still = random_discriminator(images, training=False)
    np.testing.assert_array_equal(layer.moving_mean, before)
    alone = random_discriminator(images[:1], training=False)
    np.testing.assert_allclose(still[:1], alone, atol=1e-4)

    first = keras.Model(
        random_discriminator.input, random_discriminator.get_layer("conv1_conv").output
    )
    mean = np.asarray(first(images)).mean((0, 1, 2))
    together = random_discriminator(images, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * before + 0.1 * mean, atol=1e-5)
    alone = random_discriminator(images[:1], training=True)
    assert np.abs(together[:1] - alone).max() > 1e-2


def test_images_are_normalised_as_keras_does_it_for_densenet(random_discriminator, images):
    normalize = keras.Model(
        random_discriminator.input, random_discriminator.get_layer("normalize").output
    )
    expected = keras.applications.densenet.preprocess_input((images + 1) * 127.5)
    np.testing.assert_allclose(normalize(images), expected, atol=1e-5)


def test_the_gradient_reaches_the_image_and_every_weight(random_discriminator, images):
    image = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(image)
        loss = tf.reduce_mean(tf.square(random_discriminator(image, training=True)))
    variables = [each.value for each in random_discriminator.trainable_variables]
    gradients = tape.gradient(loss, [image, *variables])
    assert all(gradient is not None for gradient in gradients)
    assert float(tf.reduce_max(tf.abs(gradients[0]))) > 0


@pytest.fixture(scope="module")
def published_layout(tmp_path_factory):
    """A random DenseNet121 and its weights in the layout of Keras' published file."""
    keras.utils.set_random_seed(1)
    network = keras.applications.DenseNet121(
        include_top=False, weights=None, input_shape=(96, 96, 3)
    )
    rng = np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
    path = tmp_path_factory.mktemp("densenet") / NOTOP
    write_published_layout(network, path)
    return network, path


@pytest.fixture(scope="module")
def loaded_discriminator(published_layout):
    return densenet121_discriminator(96, published_layout[1], normalization="none")


def test_a_file_of_the_published_layout_is_loaded(published_layout, loaded_discriminator):
    network, path = published_layout
    content = path.read_bytes()
    for layer in network.layers:
        for index, weight in enumerate(layer.weights):
            loaded = loaded_discriminator.get_layer(layer.name).weights[index]
            np.testing.assert_array_equal(loaded, weight, err_msg=layer.name)
    assert path.read_bytes() == content
    scores = np.asarray(loaded_discriminator.get_layer("scores").kernel)
    assert scores.std() == pytest.approx(0.02, rel=0.05)


def test_without_normalisation_the_network_sees_the_image_as_it_is(
    published_layout, loaded_discriminator, images
):
    inner = keras.Model(loaded_discriminator.input, loaded_discriminator.get_layer("relu").output)
    features = inner(images, training=False)
    assert tuple(features.shape) == (2, 3, 3, 1024)
    expected = np.asarray(published_layout[0](images, training=False))
    np.testing.assert_allclose(features, expected, atol=1e-5 * expected.max())
    assert expected.min() == 0  # it ends in the ReLU that the scores' convolution needs


def test_mixed_precision_keeps_logits_float32_and_the_global_policy(published_layout, tmp_path):
    path = tmp_path / "densenet.weights.h5"
    published_layout[0].save_weights(path)
    before = keras.config.dtype_policy().name
    model = densenet121_discriminator((96, 128), path, dtype="mixed_float16")
    assert keras.config.dtype_policy().name == before
    assert model.get_layer("conv5_block16_2_conv").compute_dtype == "float16"
    assert model.get_layer("scores").compute_dtype == "float16"
    assert model.output.dtype == "float32"
    assert model.output_shape == (None, 1, 2, 256)
    assert model.get_layer("scores").kernel.dtype == "float32"
    loaded = model.get_layer("conv5_block16_2_conv").kernel
    np.testing.assert_array_equal(
        loaded, published_layout[0].get_layer("conv5_block16_2_conv").kernel
    )


def test_wrong_options_are_explained_before_anything_is_downloaded():
    with pytest.raises(ValueError, match=r"one of 'imagenet', 'none', got 'tf'"):
        densenet121_discriminator(96, "random", normalization="tf")
    with pytest.raises(ValueError, match=r"at least 96 x 96 pixels, got 64 x 128"):
        densenet121_discriminator((64, 128))


def test_wrong_files_are_explained_and_kept(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"'nowhere\.h5': no such file; expected 'imagenet'"
    ):
        densenet121_discriminator(96, "nowhere.h5")
    path = tmp_path / "text.h5"
    path.write_text("not hdf5")
    with pytest.raises(
        ValueError, match=r"text\.h5: expected the weights of .*DenseNet121 without"
    ):
        densenet121_discriminator(96, path)
    assert path.read_text() == "not hdf5"


def test_refused_download_says_what_to_do(no_network):
    with pytest.raises(ConnectionError) as caught:
        densenet121_discriminator(96)
    message = str(caught.value)
    assert NOTOP in message
    assert "discriminator_weights=random" in message
    assert str(no_network) in message
    mine = no_network / NOTOP
    mine.write_text("mine")
    with pytest.raises(ValueError, match="is not the published"):
        densenet121_discriminator(96)
    assert mine.read_text() == "mine"
