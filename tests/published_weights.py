"""Weights in the layout of the files that Keras publishes."""

import h5py
import numpy as np


def write_published_layout(model, path):
    """Writes the layout of Keras' published `_notop.h5` files: groups by layer, names in order."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = np.asarray(weight)
