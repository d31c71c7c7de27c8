"""What every method has to hold, as functions that the tests of one method call with its own sizes.

A check asserts; it takes the method's name, a preset and the fields that make it small.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

import musical_tf
from export.convert import build_model
from export.metadata import describe, set_metadata
from musical_tf import methods
from musical_tf.conventions import composite
from musical_tf.inference import InpaintingFunction
from training import checkpoints
from training.optimization import dtype_policy
from training.trainer import Trainer

from .tiny_run import fill, holes, open_session, photographs


def batch_of(height, width=None, batch=2, seed=0):
    """Smooth random images and a different hole in each."""
    width = width or height
    random = np.random.default_rng(seed)
    cells = random.uniform(-1, 1, (batch, -(-height // 8), -(-width // 8), 3))
    image = np.repeat(np.repeat(cells, 8, axis=1), 8, axis=2)[:, :height, :width]
    hole = np.zeros((batch, height, width, 1), "float32")
    for sample in range(batch):
        hole[sample, height // 4 + sample : 3 * height // 4, width // 4 : width // 2 + sample] = 1
    return {"image": tf.constant(image.astype("float32")), "hole": tf.constant(hole)}


def inputs_of(data):
    return [data["image"], data["hole"]]


def randomize(model, seed=0):
    """Weights that tell answers apart: an untrained network's are nearly constant.

    Kernels keep the size of features, whether or not a normalisation with fixed statistics follows.
    """
    random = np.random.default_rng(seed)
    for variable in model.variables:
        noise = random.standard_normal(variable.shape)
        if variable.path.endswith("kernel"):
            variable.assign(1.5 * noise / np.sqrt(np.prod(variable.shape[:-1])))
        elif variable.path.endswith("moving_variance"):
            variable.assign(0.5 + 0.3 * np.abs(noise))
        elif variable.path.endswith("gamma"):
            variable.assign(1.0 + 0.3 * noise)
        else:
            variable.assign(0.3 * noise)
    return model


@functools.cache
def random_generator(method, preset="paper", **narrow):
    """A generator of these weights; tests share it, so they must not change it."""
    return randomize(musical_tf.create(method, preset, dtype="float32", **narrow))


def check_shapes(method, preset, sizes, **narrow):
    generator = musical_tf.create(method, preset, **narrow)
    assert generator.method == method
    assert generator.preset == preset
    for height, width, batch in sizes:
        prediction = generator(inputs_of(batch_of(height, width, batch)))
        assert prediction.shape == (batch, height, width, 3)
        assert prediction.dtype == tf.float32
        assert np.abs(prediction).max() <= 1.0
    assert generator.count_params() > 0
    return generator


def check_saved_and_loaded(method, tmp_path, size, dtype, **narrow):
    """The configuration and the answers survive a file; so do float16 weights' answers, nearly."""
    generator = musical_tf.create(method, "lite", dtype=dtype, **narrow)
    data = inputs_of(batch_of(size))
    assert generator(data).dtype == tf.float32
    generator.save(tmp_path / "generator.keras")
    restored = musical_tf.load(tmp_path, dtype=dtype)
    assert restored.config == generator.config
    assert restored.get_config() == generator.get_config()
    np.testing.assert_array_equal(restored(data), generator(data))
    np.testing.assert_allclose(musical_tf.load(tmp_path)(data), generator(data), atol=2e-2)


def check_what_lies_under_the_hole_does_not_matter(generator, height, width=None):
    data = batch_of(height, width)
    spoiled = tf.where(data["hole"] > 0.5, np.float32("nan"), data["image"])
    clean = generator(inputs_of(data)).numpy()
    np.testing.assert_array_equal(generator([spoiled, data["hole"]]).numpy(), clean)
    filled = composite(clean, data["image"], data["hole"]).numpy()
    known = np.broadcast_to(data["hole"] == 0, filled.shape)
    np.testing.assert_array_equal(filled[known], data["image"].numpy()[known])
    other = tf.where(data["hole"] > 0.5, data["image"], data["image"] * 0.5)
    assert np.abs(generator([other, data["hole"]]) - clean).max() > 1e-3  # the known does matter


def check_samples_have_their_own_holes(generator, size):
    data = batch_of(size, batch=3)
    together = generator(inputs_of(data)).numpy()
    for i in range(3):
        apart = generator([each[i : i + 1] for each in inputs_of(data)]).numpy()[0]
        np.testing.assert_allclose(together[i], apart, atol=1e-5)


def build(method, config, size, dtype="float32", seed=1):
    """Generator, discriminators and objective, as a training run makes them."""
    module = methods.get(method)
    keras.utils.set_random_seed(seed)
    with dtype_policy(dtype):
        return (
            module.build_generator(config, dtype=dtype),
            module.build_discriminators(config, size),
            module.build_objective(config),
        )


def check_gradients(method, config, size, batch=2):
    """Every trainable variable of every network gets a gradient that is not zero."""
    generator, discriminators, objective = build(method, config, size)
    data = batch_of(size, batch=batch)
    with tf.GradientTape(persistent=True) as tape:
        outputs = objective.outputs(generator, data)
        terms = objective.generator_terms(data, outputs, discriminators)
        assert list(terms) == list(objective.generator_weights)
        assert all(term.shape == () and term.dtype == tf.float32 for term in terms.values())
        total = sum(objective.generator_weights[name] * term for name, term in terms.items())
        against = objective.discriminator_terms(data, outputs, discriminators)
        assert not set(against) & set(terms)
        against = sum(against.values())
    networks = [(total, generator)]
    networks += [(against, discriminator) for discriminator in discriminators.values()]
    for loss, network in networks:
        assert network.trainable_variables
        gradients = tape.gradient(loss, network.trainable_variables)
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            assert gradient is not None, variable.path
            assert np.isfinite(gradient).all(), variable.path
            assert np.abs(gradient).max() > 0, variable.path
    of_generator = tape.gradient(against, generator.trainable_variables)
    assert all(gradient is None for gradient in of_generator)


def make_trainer(method, config, size, dtype="float32", seed=1):
    generator, discriminators, objective = build(method, config, size, dtype, seed)
    return Trainer(generator, objective, discriminators, learning_rate=1e-3, precision=dtype)


def check_mixed_precision_step(method, config, size, batch=2):
    """One step is finite and moves every network; returns what it logs.

    A step whose gradients overflow is left out and would look finite too.
    """
    trainer = make_trainer(method, config, size, "mixed_float16")
    for optimizer in (trainer.generator_optimizer, trainer.discriminator_optimizer):
        optimizer.dynamic_scale.assign(2.0**10)  # where some skipped steps would bring it
    networks = {"generator": trainer.generator, **trainer.discriminators}
    before = {name: [v.numpy() for v in m.trainable_variables] for name, m in networks.items()}
    logs = trainer.update(batch_of(size, batch=batch))
    assert all(np.isfinite(value) for value in logs.values()), logs
    trainer.check_weights()
    assert {variable.dtype for variable in trainer.generator_variables} == {"float32"}
    for name, model in networks.items():
        moved = [
            np.abs(variable.numpy() - old).max() > 0
            for variable, old in zip(model.trainable_variables, before[name], strict=True)
        ]
        assert np.mean(moved) > 0.9, name
    return logs


def check_resume(method, config, size, tmp_path, steps=1, batch=2):
    """Steps, a checkpoint and as many more: from the checkpoint these are the same, bit for bit.

    The second trainer starts from another seed: everything has to come from the checkpoint.
    """
    data = [batch_of(size, batch=batch, seed=step) for step in range(2 * steps)]
    whole = make_trainer(method, config, size)
    for each in data[:steps]:
        whole.update(each)
    recipe = {"method": method, "config": {}}
    checkpoints.save(tmp_path, whole.state(), step=steps, epoch=0, recipe=recipe)
    logs = [whole.update(each) for each in data[steps:]]

    second = make_trainer(method, config, size, seed=99)
    checkpoints.restore(checkpoints.newest(tmp_path)[0], second.state())
    assert [second.update(each) for each in data[steps:]] == logs
    one, two = whole.state(), second.state()
    for name in one:
        for index, (a, b) in enumerate(zip(one[name], two[name], strict=True)):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=f"{name}[{index}]")


def check_export(generator, folder, sizes=((90, 117), (16, 16))):
    """The converted file agrees with Keras, at other sizes and with a hole per image too."""
    generator.save(folder / "generator.keras")
    inpaint = InpaintingFunction(generator)
    model = build_model(inpaint)
    set_metadata(model, describe(folder / "generator.keras", inpaint))
    session = open_session(model)
    deviations = []
    for height, width in sizes:
        image, mask = photographs(3, height, width), holes(3, height, width)
        if (height, width) == (16, 16):
            mask[1], mask[2] = 255, 0
        result = fill(session, image, mask)
        expected = np.asarray(inpaint(image, mask)).astype(int)
        assert np.abs(result - expected).max() <= 1
        np.testing.assert_array_equal(result[mask <= 127], image[mask <= 127])
        deviations.append(result[mask > 127].std())
    assert max(deviations) > 5  # nothing that any constant would agree with
    return model
