"""A run directory with a tiny generator, and pictures for it: what the tests of exports share."""

import json

import numpy as np

import musical_tf
from musical_tf import onnx_runtime

onnxruntime = onnx_runtime.load()


def write_run(folder, preset="paper", attention=True, spoil=lambda weights: None, **recipe):
    """A run directory with a tiny generator whose weights are large enough to show differences.

    An untrained generator's prediction is nearly constant: any two runtimes would agree on it.
    """
    generator = musical_tf.create(
        "musical", preset, width=4, inner_levels=1, attention=attention, dtype="float32"
    )
    random = np.random.default_rng(0)
    weights = [value + random.normal(0, 0.2, value.shape) for value in generator.get_weights()]
    spoil(weights)
    generator.set_weights(weights)
    folder.mkdir()
    generator.save(folder / "generator.keras")
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def photographs(batch, height, width, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, height, width, 3), dtype="uint8")


def holes(batch, height, width):
    """A different hole for each image: inside, at the border, two of them."""
    mask = np.zeros((batch, height, width), "uint8")
    for index in range(batch):
        mask[index, height // 4 : height // 2, width // 5 : width // 2] = 255
        if index % 3 == 1:
            mask[index, -height // 3 :] = 255
        if index % 3 == 2:
            mask[index, 1, -2] = 200
    return mask


def fill(session, image, mask):
    return session.run(["inpainted"], {"image": image, "mask": mask})[0]


def open_session(model):
    """An ONNX Runtime session on the CPU, of an `onnx.ModelProto`."""
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def one_line(capsys):
    """What was written to stderr, which must be one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert ": error: " in lines[0]
    return lines[0]
