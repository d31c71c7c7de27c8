"""Builds `musical-tf-weights`: the files that only training and evaluation read.

    pip install ./weights

`musical-tf` has the cards and the ONNX files alone. These files are installed where a checkout has
them.
"""

import re
from pathlib import Path

from setuptools import setup

_VERSION = Path(__file__).resolve().parents[1] / "musical_tf" / "version.py"
version = re.search(r'^__version__ = "(.+)"$', _VERSION.read_text("utf-8"), re.MULTILINE)[1]

setup(
    name="musical-tf-weights",
    version=version,
    description="Trained generators of musical-tf, and the weights of its losses and metrics",
    long_description="Licenses: see MODEL_CARD.md and NOTICE of musical-tf.",
    python_requires=">=3.11",
    install_requires=[f"musical-tf=={version}"],
    packages=["musical_tf.weights"],
    package_dir={"musical_tf.weights": "../musical_tf/weights"},
    package_data={"musical_tf.weights": ["*.keras", "*.npz"]},
)
